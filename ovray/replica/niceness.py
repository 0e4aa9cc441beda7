"""Gives a replica on CPU cores a larger or smaller share of them than others that want the same cores.

May not enter: ray, openvino.  OpenVINO's CPU plugin has no MODEL_PRIORITY; those of GPU and NPU have one, and get
it as it is.  Niceness decides only while two processes want one core: it does nothing on cores that are leased,
nor for the memory's bandwidth.
"""

import contextlib
import logging
import os
from collections.abc import Mapping
from enum import Enum

from ovray.errors import ConfigError

_log = logging.getLogger(__name__)

MODEL_PRIORITY = "MODEL_PRIORITY"

#: A step of niceness is a factor of 1.25 in CPU time (Linux, sched_prio_to_weight): four of them are 2.4.
_STEPS = 4

_NICEST = 19


class ModelPriority(Enum):
    """Names what OpenVINO's MODEL_PRIORITY may be; DEFAULT is MEDIUM."""

    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"

    @staticmethod
    def parse(text: str) -> "ModelPriority":
        """Reads the property.

        Raises:
            ConfigError: there is no such priority.
        """
        name = "MEDIUM" if text == "DEFAULT" else text
        if name not in ModelPriority.__members__:
            raise ConfigError(f"{MODEL_PRIORITY} is {text!r}; legal are LOW, MEDIUM and HIGH; nothing was started")
        return ModelPriority[name]


_STEPS_OF = {ModelPriority.LOW: _STEPS, ModelPriority.MEDIUM: 0, ModelPriority.HIGH: -_STEPS}


def split_priority(properties: Mapping[str, str]) -> tuple[ModelPriority, dict[str, str]]:
    """Takes the priority out of a replica's properties.

    Raises:
        ConfigError: there is no such priority.
    """
    rest = dict(properties)
    return ModelPriority.parse(rest.pop(MODEL_PRIORITY, "MEDIUM")), rest


def renice(priority: ModelPriority) -> None:
    """Makes every thread of this process nicer or less nice than it was; those to come take after them.

    MEDIUM changes nothing.  HIGH needs the right to be less nice (CAP_SYS_NICE, or a limit on niceness that allows
    it); without it the process stays as it is, with a warning, and only models of LOW priority give way to it.
    """
    steps = _STEPS_OF[priority]
    if steps == 0:
        return
    wanted = min(_NICEST, os.getpriority(os.PRIO_PROCESS, os.getpid()) + steps)
    for thread_id in map(int, os.listdir("/proc/self/task")):
        with contextlib.suppress(ProcessLookupError):  # ended meanwhile
            try:
                os.setpriority(os.PRIO_PROCESS, thread_id, wanted)
            except PermissionError:
                _log.warning(
                    "%s=%s needs the right to lower niceness to %d (CAP_SYS_NICE); the replica runs as MEDIUM",
                    MODEL_PRIORITY,
                    priority.value,
                    wanted,
                )
                return
