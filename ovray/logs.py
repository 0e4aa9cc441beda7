"""Gives every process a run's id.

May not enter: what is logged.
"""

import os
import re
import uuid

#: Hands the id on to processes of the same run, and takes one from whoever starts it.
RUN_ID_VARIABLE = "OVRAY_RUN_ID"

_RUN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def _run_id() -> str:
    given = os.environ.get(RUN_ID_VARIABLE, "")
    return given if _RUN_ID.fullmatch(given) else uuid.uuid4().hex[:12]


#: Of this process, and of the replicas that it starts.
RUN_ID = _run_id()
