"""Sends 100,000 requests from 8 threads through 4 replicas, and checks that each came back once, with its result.

python -m tests.benchmarks.many_requests [REQUESTS]
"""

import os
import sys

import pytest

if __name__ == "__main__":
    os.environ["OVRAY_TEST_REQUESTS"] = sys.argv[1] if len(sys.argv) > 1 else "100000"
    sys.exit(pytest.main(["-q", "--durations=1", "tests/integration/runtime/test_many_requests.py"]))
