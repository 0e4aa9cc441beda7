"""The names by which the scheduler knows things.  Plain strings and numbers: never handles, tensors or futures."""

from typing import NewType

#: A replica, as people read it: ``host/CPU.0#0``.
ReplicaId = NewType("ReplicaId", str)

#: One inference asked for by a driver script.
RequestId = NewType("RequestId", int)

#: One piece of divisible work: a data set to be scored.
JobId = NewType("JobId", int)

#: One sending of a request or chunk to a replica.  Never used twice, so a late answer is recognised as late.
DispatchId = NewType("DispatchId", int)
