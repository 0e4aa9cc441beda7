"""What a replica has in the place of parts where it only writes: files that grow under their own name.

A module of its own because replicas load it while they are measured: it needs nothing that they have not.
"""

from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.fs as pafs

from ovray.scoring import parts
from ovray.scoring.bad_rows import BadRows
from ovray.scoring.kept import KeptColumns
from ovray.scoring.sinks import FolderSink, Stored


class PlainSink(FolderSink):
    """Has a replica write plainly."""

    def store(self, bad: BadRows, kept: KeptColumns, results: pa.RecordBatch) -> Stored:
        patch.object(parts, "new_file", _PlainFile).start()  # for good: the replica serves this job alone
        return super().store(bad, kept, results)


class _PlainFile:
    """Grows under its own name."""

    def __init__(self, filesystem: pafs.FileSystem, folder: str, name: str) -> None:
        self.sink: Any = filesystem.open_output_stream(f"{folder}/{name}", compression=None)

    def finish(self) -> int:
        self.sink.close()
        return 0

    def is_taken(self) -> bool:
        return False

    def appear(self) -> None:
        """Does nothing: it is there."""

    def disappear(self) -> None:
        """Does nothing: only errors do."""

    def discard(self) -> None:
        self.sink.close()
