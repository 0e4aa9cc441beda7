"""Is OpenVINO's ``CompiledModel`` over a pool of replicas, and Python's own ways to use one.

May not enter: how a pool is opened (core.py), what becomes of a request (request.py, futures.py).
"""

import asyncio
import io
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import openvino as ov

from ovray.errors import ConfigError, RequestError
from ovray.runtime import futures, properties
from ovray.runtime.futures import Order, RequestFuture
from ovray.runtime.ports import PortKey
from ovray.runtime.request import InferRequest
from ovray.runtime.results import OVDict
from ovray.runtime.serving import ReplicaInfo, Serving, Terms

if TYPE_CHECKING:
    import pandas as pd


class CompiledModel:
    """Is a model that runs on every device that it was compiled for.  Made by ``compile_model``.

    Safe to use from many threads.  What OpenVINO has is as in OpenVINO; beyond that ``submit``, ``infer_async``
    and ``map``, ``replicas`` and ``stats``, and a ``with`` block that ends the replicas.  Without one they end
    with ``close``, with the last reference, or with the interpreter.  Ctrl-C in a ``with`` block has replicas
    finish what they hold, for 10 s at the most; a second one does not.

    Example:
        >>> with ov.compile_model(model, "CPU", share_cores=True) as compiled:
        ...     compiled(np.ones((2, 32), np.float32))["logits"].shape
        (2, 3)
    """

    def __init__(self, serving: Serving) -> None:
        """Makes a model of a pool that serves; callers use ``compile_model``."""
        #: What the rooms beside this one work with.
        self.serving = serving
        self._of_thread = threading.local()

    # --- OpenVINO's ways to infer ---------------------------------------------------------------------------

    def __call__(  # noqa: PLR0913 (OpenVINO's own arguments and three of ours)
        self,
        inputs: Any = None,
        share_inputs: bool = True,  # noqa: FBT001, FBT002 (OpenVINO's own flags)
        share_outputs: bool = False,  # noqa: FBT001, FBT002
        *,
        decode_strings: bool = True,
        priority: int = 0,
        deadline_s: float | None = None,
        device: str | None = None,
    ) -> OVDict:
        """Runs one inference and returns its results; threads do not wait for each other.

        Args and errors: as for ``InferRequest.infer``.

        Example:
            >>> compiled({"features": np.full((1, 32), 0.5)})["total"].shape
            (1, 1)
        """
        if not hasattr(self._of_thread, "request"):
            # One a thread: what one thread leaves in the input tensors does not reach the inferences of another.
            self._of_thread.request = self.create_infer_request()
        request: InferRequest = self._of_thread.request
        return request.infer(
            inputs,
            share_inputs,
            share_outputs,
            decode_strings=decode_strings,
            priority=priority,
            deadline_s=deadline_s,
            device=device,
        )

    def infer_new_request(self, inputs: Any = None) -> OVDict:
        """Runs one inference in a request of its own.  Args and errors: as for ``InferRequest.infer``.

        Example:
            >>> compiled.infer_new_request({0: np.ones((1, 32))})[0].shape
            (1, 3)
        """
        return self.create_infer_request().infer(inputs)

    def create_infer_request(self) -> InferRequest:
        """Makes a request.

        Example:
            >>> compiled.create_infer_request().infer([np.ones((1, 32))])[1].shape
            (1, 1)
        """
        return InferRequest(self.serving)

    # --- Python's own ---------------------------------------------------------------------------------------

    def submit(
        self, inputs: Any, *, priority: int = 0, deadline_s: float | None = None, device: str | None = None
    ) -> RequestFuture:
        """Starts one inference and returns its future; waits only while the pool is full.

        Args:
            inputs: as for ``InferRequest``; their bytes are taken before this returns.
            priority: requests with a higher one go first.
            deadline_s: seconds from now; a request that no replica has begun by then ends with an error.
            device: a replica's id or a ``host/device``; ``None`` is any.

        Returns:
            A ``concurrent.futures.Future`` of an ``OVDict``.  ``cancel`` takes the request back as long as it has
            not ended.

        Raises:
            As ``InferRequest.infer``, where it can be known before the inference; the future raises the rest.

        Example:
            >>> futures = [compiled.submit(np.full((1, 32), value)) for value in range(3)]
            >>> [future.result()["total"].shape for future in futures]
            [(1, 1), (1, 1), (1, 1)]
        """
        terms = Terms.of(priority, deadline_s, device)
        return futures.submit(self.serving, inputs, terms)

    async def infer_async(
        self, inputs: Any, *, priority: int = 0, deadline_s: float | None = None, device: str | None = None
    ) -> OVDict:
        """Runs one inference without holding up the event loop.  Args and errors: as for ``submit``.

        Cancelling the task takes the request back.  The bytes are taken on another thread, once this is awaited.

        Example:
            >>> import asyncio
            >>> async def both():
            ...     return await asyncio.gather(*[compiled.infer_async(np.ones((n, 32))) for n in (1, 2)])
            >>> [results[0].shape for results in asyncio.run(both())]
            [(1, 3), (2, 3)]
        """
        terms = Terms.of(priority, deadline_s, device)
        future = await asyncio.to_thread(futures.submit, self.serving, inputs, terms)
        return await asyncio.wrap_future(future)

    def map(
        self,
        inputs: Iterable[Any],
        *,
        ordered: bool = True,
        look_ahead: int | None = None,
        priority: int = 0,
        deadline_s: float | None = None,
        device: str | None = None,
    ) -> Iterator[OVDict]:
        """Infers every input of an iterable; lazy on both sides.

        Args:
            inputs: each as for ``InferRequest``; taken one by one, at most ``look_ahead`` before their results
                are.
            ordered: results in the order of the inputs; else as they come.
            look_ahead: how many may be in flight; ``None`` takes as many as keep all replicas busy.
            priority: as for ``submit``.
            deadline_s: as for ``submit``, each from when it is taken.
            device: as for ``submit``.

        Raises:
            ConfigError: ``look_ahead`` is below 1.
            As ``submit``, in the place of the result; what is in flight then is taken back.

        Example:
            >>> batches = (np.full((1, 32), value, np.float32) for value in range(100))
            >>> sum(results["total"].size for results in compiled.map(batches))
            100
        """
        if look_ahead is not None and look_ahead < 1:
            raise ConfigError(f"look_ahead is {look_ahead}; give 1 or more, or None")
        terms = Terms.of(priority, deadline_s, device)
        order = Order.AS_GIVEN if ordered else Order.AS_DONE
        return futures.mapped(self.serving, inputs, terms, order, look_ahead)

    def set_devices(self, devices: str) -> None:
        """Moves the model to other devices while it serves; no request is lost, and none runs twice.

        The string is planned anew, as ``compile_model`` does it.  Replicas that it means as they are go on under
        their ids; those that it does not mean get no new requests, finish what they hold and end; missing ones
        are started, and serve as they come.  This returns when that is settled: ``replicas`` shows how it goes on.
        What ``MULTI_DEVICE_PRIORITIES`` was set to is forgotten; hint and all other options stay.  Of a named
        pool, all drivers follow.

        Args:
            devices: a device string.

        Raises:
            ConfigError: it is wrong, means nothing here, or what it means is taken; nothing was changed.
            ReplicaError: the model is closed, or the keeper of its pool does not answer.

        Example:
            >>> with ov.compile_model(model, "SIM?ms=1") as simulated:
            ...     simulated.set_devices("SIM*2?ms=1")
            ...     len(simulated.replicas)
            2
        """
        self.serving.set_devices(devices)

    @property
    def replicas(self) -> tuple[ReplicaInfo, ...]:
        """Every replica that was asked for and how it stands.

        Example:
            >>> {replica.state for replica in compiled.replicas}
            {'ready'}
        """
        return self.serving.replicas()

    def stats(self) -> "pd.DataFrame":
        """Returns one row a replica: the fields of ``ReplicaInfo``.

        Example:
            >>> bool(compiled.stats()["nireq"].min() >= 1)
            True
        """
        import pandas as pd

        return pd.DataFrame([asdict(replica) for replica in self.replicas])

    def close(self) -> None:
        """Ends the replicas; requests that have not ended end with an error.  A second call does nothing.

        Example:
            >>> opened = ov.compile_model(model, "SIM?ms=1")
            >>> opened.close()
            >>> opened(np.ones((1, 32)))
            Traceback (most recent call last):
            ovray.errors.ReplicaError: the model was closed; compile it again to infer
        """
        self.serving.pool.close()

    def __enter__(self) -> "CompiledModel":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is not None and issubclass(kind, KeyboardInterrupt):
                self.serving.finish_held()
        finally:
            self.close()

    # --- ports and properties -------------------------------------------------------------------------------

    @property
    def inputs(self) -> list[ov.Output]:
        """The inputs of the model, as it was when it was compiled."""
        return list(self.serving.ports.inputs)

    @property
    def outputs(self) -> list[ov.Output]:
        """The outputs of the model, as it was when it was compiled."""
        return list(self.serving.ports.outputs)

    def input(self, key: int | str | None = None) -> ov.Output:
        """Returns an input by index or name; without one, the only one.

        Raises:
            DataError: there is none, or there are several and none was named.
            TypeError: neither an index from 0 nor a name.

        Example:
            >>> compiled.input("features").partial_shape
            <PartialShape: [?,32]>
        """
        return self.serving.ports.input(_index_or_name(key))

    def output(self, key: int | str | None = None) -> ov.Output:
        """Returns an output by index or name; without one, the only one.  Errors: as for ``input``.

        Example:
            >>> compiled.output(0).any_name, compiled.output("total").index
            ('logits', 0)
        """
        return self.serving.ports.output(_index_or_name(key))

    def get_property(self, property: str) -> Any:
        """Returns a property.

        ``OPTIMAL_NUMBER_OF_INFER_REQUESTS`` is the sum over live replicas, ``EXECUTION_DEVICES`` those that have
        one, as ``host/device``; ``SUPPORTED_PROPERTIES`` names the others.

        Raises:
            ConfigError: there is no such property.

        Example:
            >>> compiled.get_property("NETWORK_NAME")
            'perceptron'
        """
        return properties.read(property, self.serving)

    def set_property(self, properties: Mapping[str, Any] | tuple[str, Any]) -> None:
        """Sets ``MULTI_DEVICE_PRIORITIES``, the one property that can change while a model serves.

        Its value is a list or text with commas: ``host/device``, or ``GPU`` for all of its kind.  First is best;
        devices that are left out get no new work.

        Raises:
            ConfigError: another property, or no such device.
            TypeError: neither a dictionary nor a pair of name and value.

        Example:
            >>> compiled.set_property({"MULTI_DEVICE_PRIORITIES": "CPU"})
        """
        _set(self.serving, properties)

    def export_model(self, model_stream: io.BytesIO | None = None) -> io.BytesIO | None:
        """Exports the compiled model of the first replica that is ready.

        It is made for that replica's device and host: keep ``CACHE_DIR`` instead to start faster on every host.
        Where requests are joined, its batch dimension is open.

        Args:
            model_stream: where to write; ``None`` returns a new stream.

        Raises:
            ConfigError: the device cannot.

        Example:
            >>> len(compiled.export_model().getvalue()) > 0
            True
        """
        exported = self.serving.pool.export_model()
        if model_stream is None:
            return io.BytesIO(exported)
        model_stream.write(exported)
        return None

    # --- what stays in the replicas -------------------------------------------------------------------------

    def get_runtime_model(self) -> NoReturn:
        """Raises, because the graphs as devices run them stay in the replicas.

        Raises:
            RequestError: always.
        """
        raise RequestError(
            "the runtime model stays in the replica's process, and replicas on other devices have others; look at"
            " inputs, outputs, get_property() and stats(), or compile for one device with openvino itself"
        )

    def query_state(self) -> list[Any]:
        """Returns an empty list: models with variable states are refused when they are compiled."""
        return []

    def reset_state(self) -> None:
        """Does nothing: there are no variable states."""

    def release_memory(self) -> None:
        """Does nothing: replicas keep the memory that their next request needs."""

    def __repr__(self) -> str:
        return f"<CompiledModel:\n{self.serving.ports}\n>"


def _index_or_name(key: Any) -> PortKey | None:
    if key is not None and not isinstance(key, int | str):
        raise TypeError(f"incompatible key of type {type(key).__name__}; give an index or a name")
    return key


def _set(serving: Serving, wanted: Any) -> None:
    if isinstance(wanted, tuple) and len(wanted) == 2:
        wanted = dict([wanted])
    if not isinstance(wanted, Mapping):
        raise TypeError(f"incompatible properties of type {type(wanted).__name__}; give a dictionary")
    for name, value in wanted.items():
        if str(name) not in properties.WRITABLE:
            raise ConfigError(
                f"{name} cannot be changed while the model serves; it can: {', '.join(properties.WRITABLE)}. Give"
                " other properties to compile_model"
            )
        devices = value.split(",") if isinstance(value, str) else list(value)
        serving.set_priorities([device.strip() for device in devices])
