"""Every error that ovray raises on purpose.

    OvrayError
      ConfigError         the caller can mend it before anything starts: a path, a device, a column, an option
      CompileError        OpenVINO refused the model for a device
      ReplicaError        a replica failed at its work
        ReplicaLostError  its process is gone; the work may run elsewhere
      RequestError        an infer request was used as it cannot be: it runs, was cancelled, its callback raised
      DataError           rows that could not be read, prepared, inferred or written
      InvariantError      a bug of ours

Every one is a RuntimeError, as every error of OpenVINO's own is: what scripts catch there they catch here.
A message says what was found and what is legal, what ovray did about it, and what to do next.  Every class
takes its message as the one positional argument, so that errors survive pickling between actors.
"""


class OvrayError(RuntimeError):
    """Is the ancestor of every error that ovray raises on purpose.

    Example:
        >>> try:
        ...     ovray.score("model.xml", "no-such-file.parquet", output="scores")
        ... except ovray.OvrayError as error:
        ...     print(error.exit_code, error)
        2 input 'no-such-file.parquet' matches nothing: there is no such file or folder
    """

    #: What the command line ends with: 2 for what the caller can mend, 1 for what failed under way.
    exit_code = 1


class ConfigError(OvrayError):
    """The caller asked for something that cannot be; nothing was started.

    Example:
        >>> ovray.plan(devices="TPU")
        Traceback (most recent call last):
        ovray.errors.ConfigError: ...
    """

    exit_code = 2


class CompileError(OvrayError):
    """OpenVINO could not read or compile the model for a device.

    A device that cannot is left out with a warning; where none can, ``ConfigError`` has each one's reason.

    Example:
        >>> error = ovray.CompileError("GPU.0 cannot run the model: it is out of memory")
        >>> isinstance(error, ovray.OvrayError), error.exit_code
        (True, 1)
    """


class ReplicaError(OvrayError):
    """A replica could not do its work, or there is none.

    Example:
        >>> from ovray import digits
        >>> compiled = ovray.compile_model(digits.model_file(), "SIM?ms=1")
        >>> compiled.close()
        >>> compiled(np.zeros((1, 64), np.float32))
        Traceback (most recent call last):
        ovray.errors.ReplicaError: the model was closed; compile it again to infer
    """


class ReplicaLostError(ReplicaError):
    """The process of a replica is gone.  Work that did not cause it has moved to another before anybody sees this.

    Example:
        >>> issubclass(ovray.ReplicaLostError, ovray.ReplicaError)
        True
    """


class RequestError(OvrayError):
    """An infer request, or a queue of them, was used in a way that cannot be.

    Example:
        >>> compiled.create_infer_request().wait_for(-1)
        Traceback (most recent call last):
        ovray.errors.RequestError: timeout is -1 ms; give 0 or more
    """


class DataError(OvrayError):
    """Rows could not be read, prepared, inferred or written.  The message says which, and where they are.

    Example:
        >>> compiled({"features": np.zeros((1, 3), np.float32)})
        Traceback (most recent call last):
        ovray.errors.DataError: ...
    """


class InvariantError(OvrayError):
    """Something that ovray guarantees does not hold: a bug, please report it.

    Example:
        >>> ovray.InvariantError("two replicas have CPU 3").exit_code
        1
    """
