"""Brings columns into a form that CSV has: lists become JSON, ``[0.25,null,1]``; a null is an empty cell.

May not enter: files.
"""

import json

import pyarrow as pa
import pyarrow.compute as pc

from ovray.scoring.cells import is_list

#: How JSON, as Python and JavaScript read it, spells what Arrow calls so.
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}

#: Lists of a whole part may take more than the 2 GiB that Arrow's usual strings can count.
_TEXT = pa.large_string()


def can_be_cells(of: pa.DataType) -> bool:
    """Return whether a column of this type has a form in CSV."""
    of = _plain(of)
    kinds = pa.types
    if is_list(of):
        return can_be_cells(of.value_type) and not kinds.is_temporal(_innermost(of))
    is_bytes = kinds.is_binary(of) or kinds.is_large_binary(of) or kinds.is_fixed_size_binary(of)
    return not (is_bytes or kinds.is_binary_view(of) or kinds.is_nested(of))


def cells_schema(schema: pa.Schema) -> pa.Schema:
    """Return what ``to_cells`` makes of batches with this schema."""
    storage = ((field.name, _storage_type(field.type)) for field in schema)
    return pa.schema([(name, _TEXT if is_list(of) else of) for name, of in storage])


def to_cells(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch with columns that pyarrow writes as CSV."""
    columns = [_as_cells(column) for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _as_cells(column: pa.Array) -> pa.Array:
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    return _json(column) if is_list(column.type) else column


def _json(values: pa.Array) -> pa.Array:
    """Return values as JSON; a null stays one."""
    if is_list(values.type):
        texts = pc.fill_null(_json(pc.list_flatten(values)), "null")
        lengths = pc.fill_null(pc.list_value_length(values), 0)
        ends = pc.cumulative_sum(lengths.cast(pa.int64()))
        offsets = pa.concat_arrays([pa.array([0], pa.int64()), ends])
        lists = pa.LargeListArray.from_arrays(offsets, texts)
        opening, comma, closing, nothing = (pa.scalar(text, _TEXT) for text in ("[", ",", "]", ""))
        joined = pc.binary_join_element_wise(opening, pc.binary_join(lists, comma), closing, nothing)
        return pc.if_else(values.is_valid(), joined, None)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kinds = pa.types
    if kinds.is_string(values.type) or kinds.is_large_string(values.type) or kinds.is_string_view(values.type):
        return pa.array([None if text is None else json.dumps(text) for text in values.to_pylist()], _TEXT)
    texts = values.cast(_TEXT)
    if kinds.is_floating(values.type):
        for ours, theirs in _NOT_FINITE.items():
            texts = pc.if_else(pc.equal(texts, ours), pa.scalar(theirs, _TEXT), texts)
    return texts


def _storage_type(of: pa.DataType) -> pa.DataType:
    return of.storage_type if isinstance(of, pa.BaseExtensionType) else of


def _plain(of: pa.DataType) -> pa.DataType:
    of = _storage_type(of)
    return of.value_type if pa.types.is_dictionary(of) else of


def _innermost(of: pa.DataType) -> pa.DataType:
    return _innermost(of.value_type) if is_list(of) else _plain(of)
