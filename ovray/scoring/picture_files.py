"""Reads pictures as rows: each file is a row with its ``path`` and its ``image``, one column of bytes.

A folder of pictures is one input of many rows, known by its listing: none of them is opened before its row is due.
May not enter: how a picture is decoded (pictures.py), which size a model wants (picture_columns.py).
"""

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ovray.errors import ConfigError, DataError
from ovray.scoring.files import open_file
from ovray.scoring.pictures import decode, resize
from ovray.scoring.records import Block, FileRef, InputFile

#: Of every data set of pictures: where the file is, on any host; and what it shows, as height x width x RGB.
PATH_COLUMN = "path"
IMAGE_COLUMN = "image"

#: As pictures are, each of its own size.
OWN_SIZE = pa.list_(pa.list_(pa.list_(pa.uint8(), 3)))

#: Field metadata: there if pictures of other sizes are to be brought to the field's.
_RESIZED_KEY = b"ovray.resized"


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """Says how pictures are to come, all alike."""

    height: int
    width: int
    channels: int
    #: float32, or uint8 where no fractions are wanted.
    type: pa.DataType
    #: False refuses pictures of another size.
    resizes: bool

    def as_field(self) -> pa.Field:
        """Return the column of such pictures; its type carries all of this to the reader."""
        kind = pa.fixed_shape_tensor(self.type, (self.height, self.width, self.channels))
        return pa.field(IMAGE_COLUMN, kind, metadata={_RESIZED_KEY: b"linear"} if self.resizes else None)

    @staticmethod
    def of_field(field: pa.Field) -> "Form | None":
        """Return the form that ``as_field`` wrote down; ``None`` for pictures of their own size."""
        if not isinstance(field.type, pa.FixedShapeTensorType):
            return None
        height, width, channels = field.type.shape
        return Form(
            height=height,
            width=width,
            channels=channels,
            type=field.type.value_type,
            resizes=_RESIZED_KEY in (field.metadata or {}),
        )


def inspect_pictures(ref: FileRef) -> InputFile:
    """Return what the listing of a folder says; nothing is opened.  Raises ConfigError where Pillow is missing."""
    if find_spec("PIL") is None:
        raise ConfigError(f"{ref.name!r} holds pictures, which need Pillow: pip install 'ovray[images]'")
    listing = ref.pictures
    assert listing is not None, "find_files lists pictures"
    size_bytes = pc.sum(listing.sizes_bytes).as_py()
    rows = len(listing.names)
    return InputFile(
        ref=ref,
        schema=pa.schema({PATH_COLUMN: pa.string(), IMAGE_COLUMN: OWN_SIZE}),
        rows=rows,
        # Reading begins anywhere at no cost: one block is enough.
        blocks=(Block(first_row=0, rows=rows, position=0, size_bytes=size_bytes),),
        size_bytes=size_bytes,
        modified_ns=pc.max(listing.modified_ns).as_py(),
    )


class PictureRow:
    """Reads the one row of one picture."""

    def __init__(self, ref: FileRef, schema: pa.Schema) -> None:
        self._ref = ref
        self._schema = schema

    def read(self, block: Block, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        """Yield the row; the one block is the whole file.

        Raises OSError or ArrowInvalid where it cannot be read or decoded, DataError where it is gone or changed.
        """
        made = {PATH_COLUMN: self._path, IMAGE_COLUMN: self._image}
        columns = [made[field.name](field, block) for field in self._schema]
        yield pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def close(self) -> None:
        """Do nothing: the file is open only while it is read."""

    def _path(self, field: pa.Field, block: Block) -> pa.Array:
        return pa.array([self._ref.location], field.type)

    def _image(self, field: pa.Field, block: Block) -> pa.Array:
        form = Form.of_field(field)
        picture = decode(self._content(block.size_bytes), 3 if form is None else form.channels)
        if form is None:
            return _of_own_size(picture)
        if form.resizes:
            return _as_tensor(_resized(picture, form), field.type)
        height, width, _ = picture.shape
        if (height, width) != (form.height, form.width):
            raise pa.ArrowInvalid(
                f"it is {height}x{width} (height x width), {form.height}x{form.width} is wanted: bring pictures to"
                f" one size with --resize {form.height}x{form.width}"
            )
        return _as_tensor(picture, field.type)

    def _content(self, size_bytes: int) -> bytes:
        try:
            with open_file(self._ref) as file:
                content: bytes = file.read()
        except FileNotFoundError as error:
            raise DataError(
                f"{self._ref.name!r} is not there on host {socket.gethostname()}; every host that scores needs to"
                " see it at the same path, or name it by a URL"
            ) from error
        if len(content) != size_bytes:
            raise DataError(
                f"{self._ref.name!r} was changed while it was being scored: it had {size_bytes} bytes and now has"
                f" {len(content)}; start again"
            )
        return content


def _resized(picture: NDArray[np.uint8], form: Form) -> NDArray[np.float32] | NDArray[np.uint8]:
    resized = resize(picture, form.height, form.width)
    return resized if form.type == pa.float32() else np.rint(resized).astype(np.uint8)


def _as_tensor(picture: NDArray[np.float32] | NDArray[np.uint8], kind: pa.FixedShapeTensorType) -> pa.Array:
    values = pa.array(picture.reshape(-1))
    return pa.ExtensionArray.from_storage(kind, pa.FixedSizeListArray.from_arrays(values, len(values)))


def _of_own_size(picture: NDArray[np.uint8]) -> pa.Array:
    height, width, channels = picture.shape
    pixels = pa.FixedSizeListArray.from_arrays(pa.array(picture.reshape(-1)), channels)
    line_starts = pa.array(np.arange(height + 1, dtype=np.int32) * np.int32(width))
    lines = pa.ListArray.from_arrays(line_starts, pixels)
    return pa.ListArray.from_arrays(pa.array([0, height], pa.int32()), lines).cast(OWN_SIZE)
