"""Finds the type that holds the values of a column whose parts were guessed one by one.

CSV, JSON Lines and the names of folders state no types: each block and each file is guessed from its text, and
what all of them have in common is decided here.  May not enter: files, text.
"""

import pyarrow as pa

_WIDER = ((pa.int64(), pa.float64()), (pa.date32(), pa.timestamp("s")))


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return the type that holds the values of both; ``None`` if there is none.

    Whole numbers beside fractions become floating, which rounds those beyond 2**53.
    """
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    for narrow, wide in _WIDER:
        if {one, other} == {narrow, wide}:
            return wide
    if pa.types.is_list(one) and pa.types.is_list(other):
        value_type = common_type(one.value_type, other.value_type)
        return None if value_type is None else pa.list_(value_type)
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        fields = common_fields({field.name: field.type for field in one}, list(other))
        return None if isinstance(fields, str) else pa.struct(list(fields.items()))
    return None


def common_text_type(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """Return the common type of cells of text: where there is none, they stay the text that they are."""
    found = common_type(one, other)
    return pa.string() if found is None else found


def common_fields(known: dict[str, pa.DataType], fields: list[pa.Field]) -> dict[str, pa.DataType] | str:
    """Return the fields that either has, in the order of their first appearance; the name of one that clashes."""
    merged = dict(known)
    for field in fields:
        found = common_type(merged.get(field.name, pa.null()), field.type)
        if found is None:
            return str(field.name)
        merged[field.name] = found
    return merged
