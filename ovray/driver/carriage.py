"""Says how the requests of a pool travel, and where their tensors lie meanwhile.

May not enter: requests themselves, threads.  Who puts one together: assembly.py.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from ovray.driver.transport import Inbox, Transport


class TensorStorage(Protocol):
    """Keeps the tensors of requests from their submission to their end.  Safe to use from many threads."""

    def place(self, tensor: NDArray[Any]) -> NDArray[Any] | None:
        """Copies a tensor to where ``keep`` leaves it, until ``forget``; ``None``: it is not worth it."""
        ...

    def keep(self, tensor: NDArray[Any]) -> NDArray[Any]:
        """Copies a tensor, unless it was placed and not forgotten; what is kept is C-contiguous."""
        ...

    def forget(self, kept: Iterable[NDArray[Any]]) -> None:
        """Says once, for each time that these were placed or kept, that they are not needed any more."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Carriage:
    """Says how requests travel."""

    #: What replicas know this driver by.
    client: str
    #: Where answers go; also takes what other threads want of the driver thread.
    inbox: Inbox
    #: Carries what is sent.
    transport: Transport
    #: Keeps tensors until they are sent for the last time.
    storage: TensorStorage
