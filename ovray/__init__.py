"""OpenVINO inference over every device of a Ray cluster.

Only hands names on; each room below says what it holds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ovray.errors import (
    CompileError,
    ConfigError,
    DataError,
    InvariantError,
    OvrayError,
    ReplicaError,
    ReplicaLostError,
    RequestError,
)

if TYPE_CHECKING:
    # A package that can be called is beyond type checkers: they see the function that answers.
    from openvino import (
        AxisSet,
        AxisVector,
        Coordinate,
        CoordinateDiff,
        Dimension,
        DiscreteTypeInfo,
        Extension,
        Input,
        Layout,
        Model,
        Node,
        Op,
        OpExtension,
        Output,
        OVAny,
        PartialShape,
        ProfilingInfo,
        RemoteContext,
        RemoteTensor,
        RTMap,
        Shape,
        Strides,
        Symbol,
        Tensor,
        TensorVector,
        Type,
        VAContext,
        VASurfaceTensor,
        Version,
        convert_model,
        exceptions,
        experimental,
        frontend,
        get_batch,
        get_version,
        helpers,
        layout_helpers,
        op,
        opset1,
        opset2,
        opset3,
        opset4,
        opset5,
        opset6,
        opset7,
        opset8,
        opset9,
        opset10,
        opset11,
        opset12,
        opset13,
        opset14,
        opset15,
        opset16,
        opset17,
        preprocess,
        properties,
        save_model,
        serialize,
        set_batch,
        tensor_from_file,
        utils,
    )
    from openvino import Output as ConstOutput

    from ovray.driver.inspection import devices, doctor
    from ovray.driver.planning import plan
    from ovray.runtime.async_queue import AsyncInferQueue
    from ovray.runtime.attaching import attach
    from ovray.runtime.compiled_model import CompiledModel
    from ovray.runtime.core import Core, compile_model
    from ovray.runtime.request import InferRequest
    from ovray.scoring.report import ScoreReport
    from ovray.scoring.score import iter_score, score
else:
    from ovray import devices

#: Where the names are that bring Ray and OpenVINO with them: fetched when first asked for, so that
#: ``import ovray`` costs nothing and ``ovray --help`` answers at once.
_FETCHED = {
    "AsyncInferQueue": "ovray.runtime.async_queue",
    "CompiledModel": "ovray.runtime.compiled_model",
    "Core": "ovray.runtime.core",
    "InferRequest": "ovray.runtime.request",
    "attach": "ovray.runtime.attaching",
    "compile_model": "ovray.runtime.core",
    "ScoreReport": "ovray.scoring.report",
    "doctor": "ovray.driver.inspection",
    "iter_score": "ovray.scoring.score",
    "plan": "ovray.driver.planning",
    "score": "ovray.scoring.score",
}

#: What scripts find in ``openvino`` and here, too: the very same objects.
_OPENVINO = (
    "AxisSet",
    "AxisVector",
    "Coordinate",
    "CoordinateDiff",
    "Dimension",
    "DiscreteTypeInfo",
    "Extension",
    "Input",
    "Layout",
    "Model",
    "Node",
    "OVAny",
    "Op",
    "OpExtension",
    "Output",
    "PartialShape",
    "ProfilingInfo",
    "RTMap",
    "RemoteContext",
    "RemoteTensor",
    "Shape",
    "Strides",
    "Symbol",
    "Tensor",
    "TensorVector",
    "Type",
    "VAContext",
    "VASurfaceTensor",
    "Version",
    "convert_model",
    "exceptions",
    "experimental",
    "frontend",
    "get_batch",
    "get_version",
    "helpers",
    "layout_helpers",
    "op",
    "opset1",
    "opset10",
    "opset11",
    "opset12",
    "opset13",
    "opset14",
    "opset15",
    "opset16",
    "opset17",
    "opset2",
    "opset3",
    "opset4",
    "opset5",
    "opset6",
    "opset7",
    "opset8",
    "opset9",
    "preprocess",
    "properties",
    "save_model",
    "serialize",
    "set_batch",
    "tensor_from_file",
    "utils",
)

#: Ports are those of the model, not of a compiled one; scripts that ask for a port's class get that.
_RENAMED = {"ConstOutput": "Output"}

__all__ = [
    "AsyncInferQueue",
    "AxisSet",
    "AxisVector",
    "CompileError",
    "CompiledModel",
    "ConfigError",
    "ConstOutput",
    "Coordinate",
    "CoordinateDiff",
    "Core",
    "DataError",
    "Dimension",
    "DiscreteTypeInfo",
    "Extension",
    "InferRequest",
    "Input",
    "InvariantError",
    "Layout",
    "Model",
    "Node",
    "OVAny",
    "Op",
    "OpExtension",
    "Output",
    "OvrayError",
    "PartialShape",
    "ProfilingInfo",
    "RTMap",
    "RemoteContext",
    "RemoteTensor",
    "ReplicaError",
    "ReplicaLostError",
    "RequestError",
    "ScoreReport",
    "Shape",
    "Strides",
    "Symbol",
    "Tensor",
    "TensorVector",
    "Type",
    "VAContext",
    "VASurfaceTensor",
    "Version",
    "attach",
    "compile_model",
    "convert_model",
    "devices",
    "doctor",
    "exceptions",
    "experimental",
    "frontend",
    "get_batch",
    "get_version",
    "helpers",
    "iter_score",
    "layout_helpers",
    "op",
    "opset1",
    "opset2",
    "opset3",
    "opset4",
    "opset5",
    "opset6",
    "opset7",
    "opset8",
    "opset9",
    "opset10",
    "opset11",
    "opset12",
    "opset13",
    "opset14",
    "opset15",
    "opset16",
    "opset17",
    "plan",
    "preprocess",
    "properties",
    "save_model",
    "score",
    "serialize",
    "set_batch",
    "tensor_from_file",
    "utils",
]


def __getattr__(name: str) -> Any:
    if name in _FETCHED:
        return getattr(import_module(_FETCHED[name]), name)
    original = _RENAMED.get(name, name)
    if original not in _OPENVINO:
        raise AttributeError(f"module 'ovray' has no attribute {name!r}")
    return getattr(import_module("openvino"), original)


def __dir__() -> list[str]:
    return __all__
