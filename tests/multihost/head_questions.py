"""Asks the head of a cluster something and prints the answer as JSON.

Run with ``ADDRESS nodes`` or ``ADDRESS drain NODE_ID``.
"""

import json
import sys
import time

from ray._raylet import GcsClient
from ray.core.generated import autoscaler_pb2, gcs_pb2

#: What a drained host is given, in Ray's books; who drains it takes it away.
DEADLINE_S = 300


def main() -> None:
    address, question, *details = sys.argv[1:]
    head = GcsClient(address=address)
    if question == "nodes":
        alive = gcs_pb2.GcsNodeInfo.ALIVE
        nodes = head.get_all_node_info(timeout=10).values()
        living = [node for node in nodes if node.state == alive]
        print(json.dumps([(node.node_manager_hostname, node.node_id.hex()) for node in living]))
    else:
        reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        deadline_ms = int((time.time() + DEADLINE_S) * 1000)
        is_accepted, _ = head.drain_node(details[0], reason, "taken away by a test", deadline_ms)
        print(json.dumps(is_accepted))


if __name__ == "__main__":
    main()
