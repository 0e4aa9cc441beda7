"""A lane: the replicas that one queue of work may use, and the policy that picks among them.

May not enter: queues, windows.  Callers: requests.py (a lane for all, one for each pin), jobs.py (one for chunks).
"""

from enum import Enum

from ovray.core.ids import ReplicaId
from ovray.core.ledger import Replica
from ovray.core.policies import Policy


class Standing(Enum):
    """Says how a replica stands in a lane just now."""

    OPEN = "open"  # may be given work
    FULL = "full"  # works, but has no room
    OUT = "out"  # may not be given work


class Lane:
    """Keeps a policy told of its replicas."""

    __slots__ = ("members", "policy")

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        #: Replicas that may be given work here, room or not.
        self.members: dict[ReplicaId, Replica] = {}

    def place(self, replica: Replica, standing: Standing) -> None:
        if standing is Standing.OUT:
            self.members.pop(replica.id, None)
            self.policy.remove(replica)
            return
        self.members[replica.id] = replica
        if standing is Standing.OPEN:
            self.policy.open(replica)
        else:
            self.policy.close(replica)

    def set_aside(self, replica: Replica) -> None:
        """Keep a member from being picked until it is placed again."""
        self.policy.remove(replica)

    def idlers(self) -> list[Replica]:
        """Return members that idle although the policy gives all that waits to any of them: O(members)."""
        if self.policy.holds_back:
            return []
        return [replica for replica in self.members.values() if replica.outstanding == 0]

    def pick(self, rows: int, rows_waiting: int, now_s: float) -> Replica | None:
        picked = self.policy.pick(rows, rows_waiting, now_s)
        return None if picked is None else self.members[picked]
