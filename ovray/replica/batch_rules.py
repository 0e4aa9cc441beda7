"""The table of what operations do to rows: where the batch goes in, where it comes out, and when rows mix.

May not enter: devices, graphs as a whole (batch_axis.py).  An operation that is not in ``RULES`` mixes rows, as
far as anybody knows.  A new rule is a function and a line, and a case in tests/property/test_batch_axis.py.
"""

from collections.abc import Sequence

from ovray.replica import batch_computing, batch_moving
from ovray.replica.batch_alignment import Rule, along_attribute, along_input
from ovray.replica.batch_operation import Operation, State

_UNARY = """
    Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Bucketize Ceiling Clamp Convert Cos Cosh Elu Erf
    Exp Floor Gelu HSigmoid HSwish HardSigmoid Identity IsFinite IsInf IsNaN Log LogicalNot Mish
    Negative Relu Round Selu Sigmoid Sign Sin Sinh SoftPlus SoftSign Sqrt Swish Tan Tanh
""".split()  # noqa: SIM905 - read by people
_ELEMENTWISE = """
    Add BitwiseAnd BitwiseLeftShift BitwiseOr BitwiseRightShift BitwiseXor Divide Equal FakeQuantize
    FloorMod Greater GreaterEqual Less LessEqual LogicalAnd LogicalOr LogicalXor Maximum Minimum Mod
    Multiply NotEqual Power Select SquaredDifference Subtract Xor
""".split()  # noqa: SIM905 - read by people
_SPATIAL = """
    AdaptiveAvgPool AvgPool BinaryConvolution Convolution ConvolutionBackpropData DepthToSpace
    GroupConvolution GroupConvolutionBackpropData GroupNormalization ReorgYolo SpaceToDepth
""".split()  # noqa: SIM905 - read by people
_REDUCTIONS = """
    ReduceL1 ReduceL2 ReduceLogicalAnd ReduceLogicalOr ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum
""".split()  # noqa: SIM905 - read by people


#: By type of operation, whatever its version.
RULES: dict[str, Rule] = {
    **dict.fromkeys(_UNARY, batch_computing.first_input),
    **dict.fromkeys(_ELEMENTWISE, batch_computing.elementwise),
    **dict.fromkeys(_SPATIAL, batch_computing.spatial),
    **dict.fromkeys(_REDUCTIONS, batch_computing.reduce),
    "BatchNormInference": batch_computing.batch_norm,
    "Broadcast": batch_moving.broadcast,
    "Concat": batch_moving.concat,
    "ConvertLike": batch_computing.convert_like,
    "CumSum": along_input(1),
    "DeformableConvolution": batch_computing.deformable,
    "GRUCell": batch_computing.recurrent(1),
    "GRUSequence": batch_computing.recurrent(1),
    "Gather": batch_moving.gather,
    "GatherElements": batch_moving.gather_elements,
    "Interpolate": batch_computing.interpolate,
    "LRN": along_input(1),
    "LSTMCell": batch_computing.recurrent(2),
    "LSTMSequence": batch_computing.recurrent(2),
    "LogSoftmax": along_attribute("axis"),
    "MVN": batch_computing.mvn,
    "MatMul": batch_computing.matmul,
    "MaxPool": batch_computing.max_pool,
    "NormalizeL2": along_input(1),
    "OneHot": batch_moving.one_hot,
    "PRelu": batch_computing.prelu,
    "Pad": batch_moving.pad,
    "RNNCell": batch_computing.recurrent(1),
    "RNNSequence": batch_computing.recurrent(1),
    "Reshape": batch_moving.reshape,
    "ReverseSequence": batch_moving.reverse_sequence,
    "ScaledDotProductAttention": batch_computing.attention,
    "ShuffleChannels": along_attribute("axis"),
    "Slice": batch_moving.slice,
    "Softmax": along_attribute("axis"),
    "Split": batch_moving.split,
    "Squeeze": batch_moving.squeeze,
    "StridedSlice": batch_moving.strided_slice,
    "Tile": batch_moving.tile,
    "TopK": along_attribute("axis"),
    "Transpose": batch_moving.transpose,
    "Unsqueeze": batch_moving.unsqueeze,
    "VariadicSplit": batch_moving.split,
}


def apply_rule(operation: Operation) -> Sequence[State]:
    """Returns the states of the outputs of an operation that rows enter.

    Raises:
        Mixes: it may mix rows.
    """
    rule = RULES.get(operation.kind)
    if rule is None:
        raise operation.mixes("is not known to keep rows apart")
    return rule(operation)
