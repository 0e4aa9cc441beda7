"""What requests and their answers are while they travel: plain records that any transport can carry.

May not enter: openvino, ray, decisions.  Who makes envelopes: the driver.  Who answers: serving.py.
Named tuples, because each request makes several of them: a frozen dataclass takes three times as long to make.

Tensors are NumPy arrays as ``openvino.Tensor.data`` shows them, in the order of the model's ports:

- ``bf16`` is ``float16`` and ``f8`` is ``uint8``: the bits, not the values.
- Types of less than a byte (``u1``, ``u4``, ``i4``, ``nf4`` ...) are one ``uint8`` or ``int8`` array of the packed
  bytes; the shape in elements stands beside it, in ``shapes``.
- Text is an ``object`` array of ``str``; bytes that are no UTF-8 are kept as Python keeps those of file names
  (``surrogateescape``), so that nothing is lost.  Inputs may hold ``bytes``, too, or be ``<U`` or ``S`` arrays.
"""

from typing import Any, NamedTuple

from numpy.typing import NDArray

#: Of one tensor, in elements.
TensorShape = tuple[int, ...]


class Request(NamedTuple):
    """Asks for one inference."""

    #: By which its driver knows it; unique for the client that sends it.
    dispatch: int
    #: One C-contiguous array for each input; never written to.
    tensors: tuple[NDArray[Any], ...]
    #: Shapes of the tensors; needed where an input's type takes less than a byte, else the arrays' own.
    shapes: tuple[TensorShape, ...] | None = None


class Envelope(NamedTuple):
    """Carries several requests of one client in one message."""

    #: Says which driver asks: drivers that share a replica get turns.
    client: str
    requests: tuple[Request, ...]


class Reply(NamedTuple):
    """Answers one request, with outputs or with an error.

    The error is a ``DataError`` where the input is to blame, ``concurrent.futures.CancelledError`` where the
    request was cancelled before it began, and a ``ReplicaError`` for all that may go better elsewhere.
    """

    dispatch: int
    #: One array for each output, for the receiver to keep; ``None`` with an error.
    outputs: tuple[NDArray[Any], ...] | None
    error: Exception | None
    #: From the arrival at the replica to the start of the inference.
    queued_s: float
    #: Of the inference that answered this request, whole, also where others were joined to it.
    infer_s: float
    #: Rows of that inference; 0 where there was none.
    batch_rows: int
    #: Shapes of the outputs where the model has one whose type takes less than a byte; else the arrays' own.
    shapes: tuple[TensorShape, ...] | None = None
