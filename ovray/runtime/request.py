"""Is OpenVINO's ``InferRequest``: one request at a time, from the caller's inputs to their results.

May not enter: many requests at once (async_queue.py, futures.py), the pool's inner life.
"""

import threading
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from ovray.driver.calls import Caller, Ended
from ovray.driver.small_requests import Joined, Kind
from ovray.errors import RequestError
from ovray.runtime.results import OVDict, Text, as_numpy, fresh, results_of
from ovray.runtime.run import Run
from ovray.runtime.serving import ANY_TERMS, Serving, Terms
from ovray.runtime.tensor_access import TensorAccess
from ovray.runtime.tensors import Sharing

if TYPE_CHECKING:
    from ovray.runtime.compiled_model import CompiledModel


class InferRequest(TensorAccess):
    """Runs one inference at a time, on whichever replica is expected to be done first.

    Made by ``CompiledModel.create_infer_request``.  Behaves as OpenVINO's: while it runs, every method but
    ``wait``, ``wait_for``, ``cancel``, ``latency`` and ``userdata`` raises.  Several requests, and requests of
    several threads, run side by side.

    Inputs are what OpenVINO takes: an array or ``openvino.Tensor`` for a model with one input, a list or tuple in
    the order of the inputs, or a dictionary by index, name or port.  Arrays are cast to the port's type.  Their
    bytes are taken before ``infer`` or ``start_async`` goes on, so the caller may overwrite them at once.

    Example:
        >>> request = compiled.create_infer_request()
        >>> request.start_async({"features": np.ones((2, 32), np.float32)})
        >>> request.wait()
        >>> request.results["logits"].shape
        (2, 3)
    """

    def __init__(self, serving: Serving) -> None:
        """Makes a request; callers use ``CompiledModel.create_infer_request``."""
        super().__init__(serving.ports, serving.pool.storage)
        self._serving = serving
        self._changing = threading.Lock()
        self._run: Run | None = None
        self._callback: Callable[[Any], Any] | None = None
        self._userdata: Any = None

    # --- running --------------------------------------------------------------------------------------------

    def infer(  # noqa: PLR0913 (OpenVINO's own arguments and three of ours)
        self,
        inputs: Any = None,
        share_inputs: bool = False,  # noqa: FBT001, FBT002 (OpenVINO's own flags)
        share_outputs: bool = False,  # noqa: FBT001, FBT002
        *,
        decode_strings: bool = True,
        priority: int = 0,
        deadline_s: float | None = None,
        device: str | None = None,
    ) -> OVDict:
        """Runs one inference and returns its results.

        Args:
            inputs: see the class; ``None`` infers what lies in the input tensors.
            share_inputs: lets arrays of the right type become the input tensors, instead of copying them there.
            share_outputs: returns the arrays that ``get_output_tensor`` and ``results`` read, instead of copies.
            decode_strings: returns text as an array of kind ``U``; else ``S``, in UTF-8.
            priority: requests with a higher one go first.
            deadline_s: seconds from now; a request that no replica has begun by then ends with an error.
            device: a replica's id (``compiled.replicas``) or a ``host/device``; ``None`` is any.

        Raises:
            DataError: an input is missing, of the wrong type or shape, or there is no such port.
            TypeError, ValueError: something that cannot be made a tensor.
            ConfigError: there is no such device.
            RequestError: the request is running already, or was cancelled.
            ReplicaError: the model is closed, its replicas are gone, or the deadline passed.

        Example:
            >>> compiled.create_infer_request().infer([np.ones((1, 32))])["logits"].dtype
            dtype('float32')
        """
        terms = Terms.of(priority, deadline_s, device)
        run = self.start(inputs, Sharing.of(share_inputs), terms, caller=Caller.WAITS)
        if not run.is_small:
            self._serving.pool.wait_for(lambda: run.has_ended)
        run.wait()
        if run.error is not None:
            raise run.error
        if run.whole is not None and not share_outputs and not self._outputs.are_known_outside:
            return fresh(run.whole.outputs(run.place), self._ports)
        assert run.ended is not None
        assert run.ended.outputs is not None
        with self._changing:
            self._take_outputs(run)
        text = Text.of(decode_strings)
        if share_outputs:
            return results_of(run.ended.outputs, self._ports, text)
        # What ``results`` shows later is copied once more, so this is the caller's own.
        return fresh([as_numpy(array, text).copy() for array in run.ended.outputs], self._ports)

    def start_async(
        self,
        inputs: Any = None,
        userdata: Any = None,
        share_inputs: bool = False,  # noqa: FBT001, FBT002 (OpenVINO's own flag)
        *,
        priority: int = 0,
        deadline_s: float | None = None,
        device: str | None = None,
    ) -> None:
        """Starts one inference and returns at once; it waits only while the pool is full.

        Args:
            inputs: see the class.
            userdata: any object; handed to the callback as it is.
            share_inputs: as for ``infer``.
            priority: as for ``infer``.
            deadline_s: as for ``infer``.
            device: as for ``infer``.

        Raises:
            As ``infer``, where it can be known before the inference; ``wait`` raises the rest.

        Example:
            >>> request = compiled.create_infer_request()
            >>> done = []
            >>> request.set_callback(done.append, None)
            >>> request.start_async([np.ones((1, 32))], "first")
            >>> request.wait()
            >>> done
            ['first']
        """
        if userdata is not None and self._callback is None:
            warnings.warn("There is no callback function!", RuntimeWarning, stacklevel=2)
        terms = Terms.of(priority, deadline_s, device)
        callback = None if self._callback is None else partial(self._call, self._callback)
        if userdata is not None:
            self._check_idle()
            self._userdata = userdata
        self.start(inputs, Sharing.of(share_inputs), terms, callback=callback)

    def wait(self) -> None:
        """Waits until the inference, and its callback, are over.

        Raises:
            RequestError: the request was cancelled, or its callback raised (the cause says what).
            DataError, ReplicaError: the inference failed.

        Example:
            >>> compiled.create_infer_request().wait()  # nothing was started
        """
        while (run := self._run) is not None:
            if run.callback_thread != threading.get_ident():
                run.wait()
            # Its callback may have started the next one.
            if run is self._run:
                _raise_what_failed(run)
                return

    def wait_for(self, timeout: int) -> bool:
        """Waits for at most ``timeout`` milliseconds; says whether an inference is over.

        Raises:
            TypeError: the time is no whole number.
            RequestError: it is below zero; or as ``wait``.

        Example:
            >>> compiled.create_infer_request().wait_for(10)  # nothing was started
            False
        """
        if not isinstance(timeout, int):
            raise TypeError(f"timeout is {timeout!r}; give whole milliseconds")
        if timeout < 0:
            raise RequestError(f"timeout is {timeout} ms; give 0 or more")
        run = self._run
        if run is None or not run.wait(timeout / 1000):
            return False
        _raise_what_failed(run)
        return True

    def cancel(self) -> None:
        """Ends the inference, if one is running; ``wait`` raises then.

        Example:
            >>> compiled.create_infer_request().cancel()  # nothing was started
        """
        run = self._run
        if run is None or run.has_ended:
            return
        if run.is_small:
            self._serving.pool.cancel_small(run)
        elif run.number is not None:
            self._serving.pool.cancel(run.number)

    def set_callback(self, callback: Callable[[Any], Any], userdata: Any) -> None:
        """Has ``callback(userdata)`` called after each ``start_async`` that succeeds, on a thread of its own.

        The callback may take long, read ``results``, start this request again, and use others.  What it raises,
        ``wait`` raises.

        Raises:
            TypeError: the callback cannot be called.
            RequestError: the request is running.

        Example:
            >>> request = compiled.create_infer_request()
            >>> request.set_callback(lambda userdata: userdata.append(request.results["total"].shape), seen := [])
            >>> request.start_async([np.ones((4, 32))])
            >>> request.wait()
            >>> seen
            [(4, 1)]
        """
        if not callable(callback):
            raise TypeError(
                f"incompatible callback of type {type(callback).__name__}; give a function of userdata"
            )
        self._check_idle()
        self._callback = callback
        self._userdata = userdata

    # --- looking --------------------------------------------------------------------------------------------

    @property
    def results(self) -> OVDict:
        """Copies of all outputs of the last inference.

        Raises:
            RequestError: the request is running, or was cancelled.
            DataError, ReplicaError: the last inference failed.
        """
        run = self._run
        if run is not None and run.whole is not None:
            return fresh(run.whole.outputs(run.place), self._ports)
        self._check_idle()
        with self._changing:
            if self._run is not None and self._run.error is not None:
                raise self._run.error
            return self._outputs.copied()

    @property
    def latency(self) -> float:
        """Milliseconds from the start of the last inference to its answer, transport and queues included."""
        run = self._run
        if run is None or not run.has_ended:
            return 0.0
        return run.total_s * 1000

    @property
    def userdata(self) -> Any:
        """What was handed over with ``set_callback`` or ``start_async``."""
        return self._userdata

    @property
    def profiling_info(self) -> NoReturn:
        """Raises: see ``get_profiling_info``."""
        self.get_profiling_info()

    def get_profiling_info(self) -> NoReturn:
        """Raises, because times of layers stay in the replica.

        Raises:
            RequestError: always.
        """
        raise RequestError(
            "the times of single layers stay in the replica's process; look at compiled.stats() and"
            " request.latency, or profile the model on one device with openvino itself"
        )

    def query_state(self) -> list[Any]:
        """Returns an empty list: models with variable states are refused when they are compiled."""
        return []

    def reset_state(self) -> None:
        """Does nothing: there are no variable states."""

    def get_compiled_model(self) -> "CompiledModel":
        """Returns the compiled model that this request belongs to."""
        from ovray.runtime.compiled_model import CompiledModel

        return CompiledModel(self._serving)

    def __repr__(self) -> str:
        return f"<InferRequest:\n{self._ports}\n>"

    # --- for the rooms beside this one ----------------------------------------------------------------------

    def start(
        self,
        inputs: Any,
        sharing: Sharing,
        terms: Terms,
        *,
        callback: Callable[[], None] | None = None,
        then: Callable[[Run], None] | None = None,
        caller: Caller = Caller.GOES_ON,
    ) -> Run:
        """Takes inputs and starts an inference; after an error the request is as it was before.

        Args:
            inputs: in any of OpenVINO's forms.
            sharing: whether arrays are copied.
            terms: how to serve it.
            callback: is called on a callback thread, if the inference succeeds.
            then: is called last, on whichever thread, and must be quick.
            caller: where it waits, a small request may have ended when this returns; for any other it has to call
                the pool's ``wait_for`` next.
        """
        if terms is ANY_TERMS:
            packed = self._serving.plain_inputs.take(inputs)
            if packed is not None:
                run = Run(callback, then, request=self)
                run.ends = _Ends(self)
                shared = inputs if sharing is Sharing.SHARE else None
                if self.start_small(run, *packed, shared, caller):
                    return run
        # First, because a process that was forked may find the lock taken for good.
        self._serving.pool.check_open()
        run = Run(callback=callback, then=then)
        with self._changing:
            before = self._run
            self._refuse_if_running()
            self._run = run
        is_started = False
        try:
            self._inputs.take(inputs, sharing)
            arrays, ended = self._inputs.arrays(), partial(self._ended, run)
            run.number = self._serving.submit(arrays, terms, ended, self._inputs.shapes(), caller)
            is_started = True
        finally:
            if not is_started:
                self._run = before
        return run

    def start_small(
        self,
        run: Run,
        kind: Kind,
        packed: tuple[bytes, ...],
        shared: Any = None,
        caller: Caller = Caller.GOES_ON,
    ) -> bool:
        """Starts an inference of bytes that were taken already, on the short way.

        Returns:
            Whether it did; where not, ``start`` is left, which knows all that this one does not, and all errors.
        """
        with self._changing:
            before = self._run
            if (before is not None and not before.has_ended) or not self._inputs.take_packed(kind, packed, shared):
                return False
            run.kind, run.packed, run.is_small = kind, packed, True
            self._run = run
        pool = self._serving.pool
        try:
            (pool.infer_small if caller is Caller.WAITS else pool.submit_small)(run)
        finally:
            if not run.is_taken:
                run.is_over = True
                self._run = before
        return True

    def prepare(self, inputs: Any, sharing: Sharing) -> None:
        """Takes inputs for a later ``start``, and raises what is wrong with them now."""
        self._inputs.take(inputs, sharing)
        self._inputs.arrays()

    def remember(self, userdata: Any) -> None:
        """Makes an object the ``userdata``."""
        self._userdata = userdata

    def _ended(self, run: Run, how: Ended) -> None:
        """Hears of the end of an inference, on the driver thread."""
        run.take_end(how)
        self._go_on(run)

    def _go_on(self, run: Run) -> None:
        if run.callback is not None and run.error is None:
            self._serving.callbacks.run(partial(self._call_back, run))
        else:
            _finish(run)

    def _call_back(self, run: Run) -> None:
        run.callback_thread = threading.get_ident()
        try:
            assert run.callback is not None
            run.callback()
        except Exception as error:  # noqa: BLE001 (the caller's own; it is told to whoever waits)
            run.callback_error = error
        finally:
            run.callback_thread = None
            _finish(run)

    def _call(self, callback: Callable[[Any], Any]) -> None:
        callback(self._userdata)

    def _check_idle(self) -> None:
        with self._changing:
            self._refuse_if_running()
            if self._run is not None:
                self._take_outputs(self._run)

    def _refuse_if_running(self) -> None:
        if self._run is not None and not self._run.has_ended:
            raise RequestError("Infer Request is busy: wait for it, or use another request beside it")

    def _take_outputs(self, run: Run) -> None:
        """Puts outputs where tensors are read from; done by whoever looks first, off the driver thread."""
        if run is self._run and not run.are_outputs_taken and run.ended is not None:
            run.are_outputs_taken = True
            if run.ended.outputs is not None:
                self._outputs.put(run.ended.outputs, run.ended.shapes)


class _Ends:
    """Hears how a request's small inferences ended, on the thread that drives the pool."""

    def __init__(self, request: InferRequest) -> None:
        self._request = request

    def ended(self, run: Run, how: Ended) -> None:
        self._request._ended(run, how)

    def ended_together(self, runs: Sequence[Run], places: Sequence[int], whole: Joined) -> None:
        for run, place in zip(runs, places, strict=True):
            run.take_place(whole, place)
            self._request._go_on(run)


def _finish(run: Run) -> None:
    run.finish()
    if run.then is not None:
        run.then(run)


def _raise_what_failed(run: Run) -> None:
    if run.error is not None:
        raise run.error
    if run.callback_error is not None:
        error = run.callback_error
        raise RequestError(f"the callback raised {type(error).__name__}: {error}") from error
