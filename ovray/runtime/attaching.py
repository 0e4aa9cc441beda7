"""Uses a named pool that some process opened as a compiled model of this one.

May not enter: how pools are found and shared (the driver's named_pools.py).
"""

from collections.abc import Mapping
from typing import Any

from ovray.core.policies import SchedulePolicy
from ovray.driver.named_pools import AttachOptions, attach_pool
from ovray.driver.pool_options import MAX_BYTES, MAX_REQUESTS
from ovray.errors import ConfigError
from ovray.replica.model import unpack
from ovray.runtime.compiled_model import CompiledModel
from ovray.runtime.options import SCHEDULE_POLICY, read_policy
from ovray.runtime.ports import Ports
from ovray.runtime.serving import Serving


def attach(
    name: str,
    config: Mapping[str, Any] | None = None,
    *,
    address: str | None = None,
    max_requests: int = MAX_REQUESTS,
    max_bytes: int = MAX_BYTES,
) -> CompiledModel:
    """Returns a model that another process compiled with ``name=``, over the same replicas.

    This process has a queue and a scheduler of its own; replicas serve their drivers in turns.  Closing the model
    ends no replica.

    Args:
        name: the pool's; ``ovray pools`` lists them.
        config: ``SCHEDULE_POLICY``, if it is to be another than the pool was opened with.
        address: ``HOST:PORT`` of the Ray head; ``None`` uses the Ray at hand.
        max_requests: requests of this process that may wait or run at once before those who submit wait.
        max_bytes: the same for the bytes of their inputs.

    Raises:
        ConfigError: no cluster is at hand, it has no pool of this name, or a property is no one's.
        ReplicaError: the pool does not answer.

    Example:
        >>> with ov.compile_model(model, "CPU", name="perceptron", share_cores=True):
        ...     # Another process would do this:
        ...     with ov.attach("perceptron") as attached:
        ...         attached({"features": np.ones((1, 32))})["logits"].shape
        (1, 3)
    """
    options = AttachOptions(
        address=address, policy=_policy(config or {}), max_requests=max_requests, max_bytes=max_bytes
    )
    attached = attach_pool(name, options)
    return CompiledModel(Serving(attached, Ports(unpack(attached.model)), attached.options))


def _policy(config: Mapping[str, Any]) -> SchedulePolicy | None:
    properties = {str(key): value for key, value in config.items()}
    policy = properties.pop(SCHEDULE_POLICY, None)
    if properties:
        raise ConfigError(
            f"{', '.join(properties)} was settled when the pool was opened; attach() takes {SCHEDULE_POLICY} only"
        )
    return None if policy is None else read_policy(policy)
