"""Reading a user's file with all of its columns, in a stream."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fairseq_scl.errors import UserError, first_line
from fairseq_scl.preparation.tables import (
    BATCH,
    UTF8,
    batch_records,
    check_encoding,
    csv_fields,
    delimiter_in,
    fields_told,
    json_array,
    json_lines,
    lines,
    required_kind,
)


class Records(NamedTuple):
    """A file's columns and rows.

    Attributes:
        header: the names of the columns, spaces around them dropped.
        rows: number (from 1) and values of each row, text but for JSON and parquet. A row of a .tsv
            may have fewer or more than there are columns; an object of JSON may have more.
    """

    header: list[str]
    rows: Iterator[tuple[int, list[Any]]]


def read_records(path: Path, delimiter: str | None = None, encoding: str = UTF8) -> Records:
    """Open a file of any kind in `tables.KINDS`.

    Args:
        delimiter: of a CSV; default: a comma.
        encoding: of text, a name that Python knows.

    Raises:
        UserError: naming file and row, for whatever cannot be read, also while it is read.
    """
    kind = required_kind(path)
    check_encoding(encoding)
    match kind:
        case ".csv":
            rows: Iterator = _csv(path, delimiter or ",", encoding)
        case ".tsv":
            rows = ((n, line.split("\t")) for n, line in lines(path, encoding) if line)
        case ".parquet":
            rows = _parquet(path)
        case _:
            rows = _json(path, (json_lines if kind == ".jsonl" else json_array)(path, encoding))
    header = [name.strip() for name in next(rows, (0, []))[1]]
    if header in ([], [""]):
        raise UserError(f"{path} is empty")
    if delimiter not in (None, ",") and (hint := delimiter_hint(header, ",")):
        raise UserError(f"{path}: {hint}")
    return Records(header, rows)


def delimiter_hint(header: Sequence[str], marks: str = ";\t|") -> str:
    """What to say where a CSV seems to have another delimiter than was thought, else nothing."""
    shown = delimiter_in(header, marks)
    return f"one column, '{header[0]}'; is it --delimiter {shown}?" if shown else ""


def _csv(path: Path, delimiter: str, encoding: str) -> Iterator[tuple[int, list]]:
    header: list[str] = []
    for number, fields in csv_fields(path, delimiter, encoding):
        header = header or fields
        if len(fields) != len(header):
            if hint := delimiter_hint(header):
                raise UserError(f"{path}: {hint}")
            told = fields_told(fields, header, delimiter)
            raise UserError(f"{path}, row {number}: {told}")
        yield number, fields


def _json(path: Path, records: Iterable[tuple[int, object]]) -> Iterator[tuple[int, list]]:
    """The columns are those of the first object; what another has beyond them comes last."""
    header: list[str] = []
    for number, record in records:
        if not isinstance(record, dict):
            raise UserError(f"{path}, row {number}: not a JSON object")
        if not header:
            header = list(record)
            yield 0, header
        more = [value for name, value in record.items() if name not in header]
        yield number, [record.get(name) for name in header] + more


def _parquet(path: Path) -> Iterator[tuple[int, list]]:
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as file:
            yield 0, file.schema_arrow.names
            batches = map(batch_records, file.iter_batches(BATCH))
            for number, record in enumerate(itertools.chain.from_iterable(batches), 1):
                yield number, list(record.values())
    except (OSError, ArrowException) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)})") from None
