"""Makes the engine that a replica's spec asks for.

Engines meet here.  A new one for rows is a module beside openvino_engine.py and a line in ``make_engine``; one for
requests a module beside openvino_requests.py and a line in ``make_request_engine``.
"""

from collections.abc import Mapping

from ovray.devices.records import ReplicaSpec
from ovray.replica.engine import Engine
from ovray.replica.model import describe, unpack
from ovray.replica.openvino_engine import OpenVINOEngine
from ovray.replica.openvino_requests import OpenVINORequests
from ovray.replica.request_engine import RequestEngine
from ovray.replica.sim_engine import SimEngine, SimSettings
from ovray.replica.sim_requests import SimRequests
from ovray.replica.workload import RequestWorkload, Workload


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


def make_request_engine(
    spec: ReplicaSpec, workload: RequestWorkload, properties: Mapping[str, str]
) -> RequestEngine:
    """Compiles for requests, and warms up where the model's shapes allow it.

    Raises:
        CompileError: OpenVINO refused the model or a property.
        ConfigError: a setting of SIM is wrong.
    """
    if not spec.openvino_device:
        signature = describe(unpack(workload.model))
        settings = SimSettings.parse({**spec.properties, **properties})
        return SimRequests(signature, settings, seed=spec.id)
    return OpenVINORequests(workload, spec.openvino_device, properties)
