"""A Parquet file as columns of the types that were asked for, with nothing missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


def read_columns(name: str, content: bytes, schema: pa.Schema, optional: tuple[str, ...] = ()) -> dict[str, list[Any]]:
    """The columns of a schema, from a file's content; an optional one only where the file has it. name: for errors.

    Raises ValueError or an error of pyarrow's where one is missing, holds a null, or is of another kind: texts stay
    texts and whole numbers whole; only their width may differ.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    # With no threads: a command that ends while pyarrow still starts some is aborted by them.
    plain = {"use_threads": False, "pre_buffer": False}
    table = pq.read_table(pa.BufferReader(content), page_checksum_verification=True, **plain)
    wanted = [field for field in schema if field.name not in optional or field.name in table.column_names]
    found = {}
    for field in wanted:
        if table.column_names.count(field.name) != 1:
            raise ValueError(f"{name} has no column {field.name}, or several")
        column = table[field.name].combine_chunks()
        if _kind(column.type) != _kind(field.type):
            raise ValueError(f"{field.name} of {name} is {column.type}, expected {field.type}")
        column = column.cast(field.type)
        below = column.flatten() if _kind(field.type)[0] == "list" else column
        if column.null_count or below.null_count:
            raise ValueError(f"{field.name} of {name} has an empty cell")
        found[field.name] = column.to_pylist()
    return found


def _kind(of: pa.DataType) -> tuple[object, ...]:
    import pyarrow as pa

    if pa.types.is_list(of) or pa.types.is_large_list(of):
        return "list", _kind(of.value_type)
    for name, holds in (("text", (pa.types.is_string, pa.types.is_large_string)), ("whole", (pa.types.is_integer,))):
        if any(is_one(of) for is_one in holds):
            return (name,)
    return ("number",) if pa.types.is_floating(of) else (of,)
