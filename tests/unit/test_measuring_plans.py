from ovray.core.ids import ReplicaId
from ovray.driver.messages import StartFailed
from ovray.driver.planning import _wait_for_all
from ovray.driver.transport import Inbox
from ovray.errors import CompileError

A, B = ReplicaId("a"), ReplicaId("b")


def test_a_replica_that_says_nothing_in_time_is_told_beside_what_others_said() -> None:
    inbox = Inbox()
    inbox.put(StartFailed(replica=A, error=CompileError("no")))

    measurements, failures = _wait_for_all(inbox, [A, B], timeout_s=0.0)

    assert measurements == {}
    assert {replica: str(error) for replica, error in failures.items()} == {
        A: "no",
        B: "was not ready after 0 s",
    }
