"""Makes the engine that a replica's spec asks for.

Engines meet here: a new one is a module beside openvino_engine.py and a line in ``make_engine``.
"""

from collections.abc import Mapping

from ovray.devices.records import ReplicaSpec
from ovray.replica.engine import Engine
from ovray.replica.model import describe, unpack
from ovray.replica.openvino_engine import OpenVINOEngine
from ovray.replica.sim_engine import SimEngine, SimSettings
from ovray.replica.workload import Workload


def make_engine(spec: ReplicaSpec, workload: Workload, properties: Mapping[str, str]) -> Engine:
    """Compiles and warms up.

    Raises:
        CompileError: OpenVINO refused the model or a property.
        ConfigError: a setting of SIM is wrong.
    """
    model = unpack(workload.model)
    if not spec.openvino_device:
        settings = SimSettings.parse(spec.properties)
        return SimEngine(describe(model), settings, workload.batch_rows, seed=spec.id)
    return OpenVINOEngine(model, spec.openvino_device, properties, workload.batch_rows)
