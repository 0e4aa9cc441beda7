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
    """Is the ancestor of every error that ovray raises on purpose."""

    #: What the command line ends with: 2 for what the caller can mend, 1 for what failed under way.
    exit_code = 1


class ConfigError(OvrayError):
    """The caller asked for something that cannot be; nothing was started."""

    exit_code = 2


class CompileError(OvrayError):
    """OpenVINO could not read or compile the model for a device."""


class ReplicaError(OvrayError):
    """A replica could not do its work."""


class ReplicaLostError(ReplicaError):
    """The process of a replica is gone."""


class RequestError(OvrayError):
    """An infer request, or a queue of them, was used in a way that cannot be."""


class DataError(OvrayError):
    """Rows could not be read, prepared, inferred or written."""


class InvariantError(OvrayError):
    """Something that ovray guarantees does not hold: a bug, please report it."""
