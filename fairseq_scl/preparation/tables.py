"""Reading labelled sentences from files, in a stream, with exact row numbers."""

import bz2
import csv
import difflib
import gzip
import io
import itertools
import json
import math
import shlex
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from fairseq_scl.errors import UserError, first_line, short

if TYPE_CHECKING:
    import pyarrow

LONGEST_FIELD = 1 << 24  # characters of a CSV's field: a quote that is never closed ends there
SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")
BATCH = 1024  # rows of a parquet file in memory
UTF8 = "utf-8"


class Row(NamedTuple):
    """One example: its row in the file (from 1), one or two sentences, its label or None."""

    line: int
    sentences: tuple[str, ...]
    label: str | None


@dataclass(frozen=True)
class Table:
    """The rows of a file, which each iteration reads anew.

    Attributes:
        path: the file; the name of a data set of the hub, which has none.
        read: the rows.
        revision: the commit of a data set of the hub.
        read_by: the columns, and what else decides on how the file is read.
    """

    path: Path | str
    read: Callable[[], Iterable[Row]]
    revision: str | None = None
    read_by: dict = field(default_factory=dict)

    def __iter__(self) -> Iterator[Row]:
        """Read the file.

        Raises:
            UserError: naming file and row, for whatever cannot be read, or if there are no rows.
        """
        row = None
        for row in self.read():
            yield row
        if row is None:
            raise UserError(f"{self.path} has no rows")


@dataclass(frozen=True)
class Columns:
    """Which columns hold the sentences and the label.

    Attributes:
        sentences: one or two names.
        label: its name; a file without it is unlabelled.
        must_have_label: refuse a file without it.
    """

    sentences: tuple[str, ...]
    label: str
    must_have_label: bool = False


def file_table(
    path: Path, columns: Columns, delimiter: str | None = None, encoding: str = UTF8
) -> Table:
    """A user's file with named columns, of any kind in `KINDS`.

    TSV has no quoting: a field is what stands between tabs. CSV is quoted as RFC 4180 has it.

    Args:
        delimiter: of a CSV; default: a comma.
        encoding: of text, a name that Python knows.

    Raises:
        UserError: for another ending, or something that cannot be read twice.
    """
    kind = required_kind(path)
    read_by: dict = {"columns": [*columns.sentences, columns.label]}
    if kind == ".parquet":
        return Table(path, partial(_read_parquet, path, columns), read_by=read_by)
    check_encoding(encoding)
    options = {"encoding": encoding}
    if kind == ".csv" and delimiter:
        options["delimiter"] = delimiter
    return Table(path, partial(READERS[kind], path, columns, **options), read_by=read_by | options)


def file_kind(path: Path) -> str | None:
    """The ending that says how to read a file, one of `KINDS`; None if it says nothing."""
    name = path.name.lower()
    kind = Path(name.removesuffix(".gz")).suffix
    return kind if kind in KINDS and not name.endswith(".parquet.gz") else None


def required_kind(path: Path) -> str:
    """The same, of a file that is there to be read twice.

    Raises:
        UserError: for another ending, or for a device or FIFO.
    """
    kind = file_kind(path)
    if kind is None and path.suffix.lower() in SPREADSHEETS:
        raise UserError(f"{path}: save it as CSV (UTF-8) in the spreadsheet program")
    if kind is None:
        raise UserError(f"{path}: the name must end in {', '.join(KINDS)} (text also with .gz)")
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(f"{path}: not a regular file")
    return kind


def check_encoding(encoding: str) -> None:
    """Refuse what is no encoding of text."""
    try:
        "".encode(encoding)
    except (LookupError, UnicodeError):
        raise UserError(f"--encoding {encoding}: no encoding of text that Python knows") from None


def read_file(path: Path, columns: Columns) -> list[Row]:
    """All rows of such a file.

    Raises:
        UserError: naming file and row, for whatever cannot be read.
    """
    return list(file_table(path, columns))


def lines(path: Path, encoding: str = UTF8) -> Iterator[tuple[int, str]]:
    """Number and text of each line, of a `.bz2` or `.gz` too."""
    openers: dict[str, Callable] = {".bz2": bz2.open, ".gz": gzip.open}
    try:
        with openers.get(path.suffix.lower(), open)(path, "rb") as file:
            yield from decoded(file, path, encoding)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read ({reason})") from None


def decoded(file: IO[bytes], where: object, encoding: str = UTF8) -> Iterator[tuple[int, str]]:
    """Number and text of each line of an open file; only `\\n` and `\\r\\n` end one."""
    number = 0
    try:
        for number, text in enumerate(_texts(file, encoding), 1):
            if number == 1:
                text = text.removeprefix("\ufeff")
            text = text.removesuffix("\n").removesuffix("\r")
            if number == 1 and (wrong := strange(text)):
                raise UserError(f"{where}, row 1: {wrong}")
            yield number, text
    except UnicodeError as error:
        reason = getattr(error, "reason", error)
        told = (
            f"not {encoding.upper()} ({reason}); --encoding names another, such as cp1252 or utf-16"
        )
        raise UserError(f"{where}, row {number + 1}: {told}") from None


def strange(first: str) -> str:
    """What tells that a file's first line is none; nothing of any other."""
    if "\0" in first:
        return "a zero byte; --encoding names the file's, such as utf-16-le"
    if "\r" in first:
        return "lines that end in a carriage return alone; save them with line feeds"
    return ""


def _texts(file: IO[bytes], encoding: str) -> Iterable[str]:
    """Each line of a file, with its end."""
    if "\n".encode(encoding) == b"\n":  # a line is decoded alone, so that an error has its number
        return (line.decode(encoding) for line in file)
    return io.TextIOWrapper(file, encoding, newline="\n")


def half_character(text: str) -> bool:
    """Whether it holds a lone surrogate, which is no Unicode."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def column_indices(
    path: Path | str, header: list[str], columns: Columns
) -> tuple[list[int], int | None]:
    """Where the sentences and the label stand."""
    header = [name.strip() for name in header]
    if header == [""] or not header:
        raise UserError(f"{path} is empty")
    missing = [name for name in columns.sentences if name not in header]
    if columns.must_have_label and columns.label not in header:
        missing.append(columns.label)
    if missing:
        told = f"{path}: no column '{missing[0]}'; the columns are {', '.join(header)}"
        raise UserError(told + _hint(path, header, columns, missing[0]))
    for name in (*columns.sentences, columns.label):
        if name and header.count(name) > 1:
            raise UserError(f"{path}: there are {header.count(name)} columns '{name}'")
    named = columns.label and columns.label in header
    label = header.index(columns.label) if named else None
    return [header.index(name) for name in columns.sentences], label


def _hint(path: Path | str, header: list[str], columns: Columns, name: str) -> str:
    """What may help where a column is missing: a delimiter, a flag with the nearest name."""
    shown = delimiter_in(header, "\t;,|")
    if shown and isinstance(path, Path):
        return "; " + "name it .csv and " * (file_kind(path) != ".csv") + f"try --delimiter {shown}"
    folded = {other.casefold(): other for other in header}
    nearest = [folded[near] for near in difflib.get_close_matches(name.casefold(), folded, 1)]
    flags = dict(zip(columns.sentences, ("--sentence", "--sentence2"), strict=False))
    hint = "".join(f"; try {flags.get(name, '--label')} {shlex.quote(near)}" for near in nearest)
    return hint + "; of test data without labels: prepare --unlabelled" * (name == columns.label)


def delimiter_in(header: Sequence[str], marks: str) -> str | None:
    """What to give as --delimiter, where the only column's name holds one of `marks`."""
    mark = next((mark for mark in marks if len(header) == 1 and mark in header[0]), None)
    return "tab" if mark == "\t" else mark and f"'{mark}'"


def read_tsv(
    path: Path,
    columns: Columns,
    headless: tuple[str, ...] = (),
    skip_short_rows: bool = False,
    encoding: str = UTF8,
) -> Iterator[Row]:
    rows = lines(path, encoding)
    header = list(headless) or next(rows, (0, ""))[1].split("\t")
    sentences, label = column_indices(path, header, columns)
    needed = max(*sentences, -1 if label is None else label) + 1
    for number, line in rows:
        fields = line.split("\t")
        if len(fields) >= needed:
            yield Row(
                number,
                tuple(fields[i].strip() for i in sentences),
                None if label is None else fields[label].strip(),
            )
        elif line and not skip_short_rows:
            raise UserError(
                f"{path}, row {number}: {len(fields)} fields, at least {needed} are needed"
            )


def read_csv(
    path: Path,
    columns: Columns,
    headless: tuple[str, ...] = (),
    delimiter: str = ",",
    encoding: str = UTF8,
) -> Iterator[Row]:
    """Rows of a CSV quoted as RFC 4180 has it, but spaces may stand before a quote.

    Args:
        headless: the names of the columns of one without header.

    Raises:
        UserError: naming file and row, for whatever cannot be read.
    """
    rows = csv_fields(path, delimiter, encoding)
    header = list(headless) or next(rows, (0, []))[1]
    sentences, label = column_indices(path, header, columns)
    for number, fields in rows:
        if len(fields) != len(header):
            told = fields_told(fields, header, delimiter)
            raise UserError(f"{path}, row {number}: {told}")
        yield Row(
            number,
            tuple(fields[i].strip() for i in sentences),
            None if label is None else fields[label].strip(),
        )


def fields_told(fields: Sequence[str], header: Sequence[str], delimiter: str) -> str:
    """What is wrong with a row of more or fewer fields than there are columns."""
    hint = f"; quote a text that holds '{delimiter}'" if len(fields) > len(header) else ""
    columns = f"are {len(header)} columns" if len(header) != 1 else "is 1 column"
    return f"{len(fields)} fields, there {columns}{hint}"


def csv_fields(path: Path, delimiter: str, encoding: str) -> Iterator[tuple[int, list[str]]]:
    """Number and fields of each row of a CSV that is not empty, the header too."""
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.reader(
        (line + "\n" for _, line in lines(path, encoding)),
        delimiter=delimiter,
        skipinitialspace=True,
        strict=True,
    )
    columns, blank = 0, []
    try:
        for fields in reader:
            if not fields:
                blank.append(reader.line_num)
                continue
            if columns == 1:  # a blank line is an empty cell, but after the last row
                yield from ((number, [""]) for number in blank)
            blank = []
            columns = columns or len(fields)
            yield reader.line_num, fields
    except csv.Error as error:
        raise UserError(f"{path}, row {reader.line_num}: not CSV ({error})") from None


def _read_json_lines(path: Path, columns: Columns, encoding: str = UTF8) -> Iterator[Row]:
    return record_rows(path, columns, json_lines(path, encoding))


def json_lines(path: Path, encoding: str) -> Iterator[tuple[int, object]]:
    """Number and content of each line of JSON that is not empty."""
    for number, line in lines(path, encoding):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}, row {number}: not JSON ({error})") from None


def _read_json(path: Path, columns: Columns, encoding: str = UTF8) -> Iterator[Row]:
    yield from record_rows(path, columns, json_array(path, encoding))


def json_array(path: Path, encoding: str) -> Iterator[tuple[int, object]]:
    """Number and content of each element of a JSON array."""
    text = "\n".join(line for _, line in lines(path, encoding))
    if not text.strip():
        raise UserError(f"{path} is empty")
    try:
        records = json.loads(text)
    except (ValueError, RecursionError) as error:
        told = "one object a line belongs into a .jsonl"
        raise UserError(f"{path}: not a JSON array ({error}); {told}") from None
    if not isinstance(records, list):
        raise UserError(f"{path}: not a JSON array")
    return enumerate(records, 1)


def _read_parquet(path: Path, columns: Columns) -> Iterator[Row]:
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            column_indices(path, names, columns)
            wanted = [name for name in (*columns.sentences, columns.label) if name in names]
            batches = file.iter_batches(BATCH, columns=wanted)
            records = itertools.chain.from_iterable(map(batch_records, batches))
            yield from record_rows(path, columns, enumerate(records, 1))
    except (OSError, ArrowException) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)})") from None


def batch_records(batch: "pyarrow.RecordBatch | pyarrow.Table") -> list[dict]:
    """The rows of a batch; fractions as text, as short as they were once written, NaN as null."""
    import pyarrow
    from pyarrow import compute

    for i, column in enumerate(batch.schema):
        if pyarrow.types.is_floating(column.type):
            text = batch.column(i).cast(pyarrow.string())
            text = compute.if_else(compute.is_nan(batch.column(i)), None, text)
            batch = batch.set_column(i, column.name, text)
    return batch.to_pylist()


def record_rows(
    path: Path | str, columns: Columns, records: Iterable[tuple[int, object]]
) -> Iterator[Row]:
    """Rows of JSON objects and the like, each with its number."""
    first = True
    for number, record in records:
        where = f"{path}, row {number}"
        if not isinstance(record, dict):
            raise UserError(f"{where}: not a JSON object")
        record = {name.strip(): value for name, value in record.items()}
        if first:
            first = False
            column_indices(path, list(record), columns)
        for name in columns.sentences:
            if not isinstance(record.get(name), str):
                given = short(json.dumps(record.get(name), default=str))
                raise UserError(f"{where}: '{name}' must be a string, not {given}")
            if half_character(record[name]):
                raise UserError(f"{where}: '{name}' holds half a character")
        label = record.get(columns.label)
        if isinstance(label, float) and math.isnan(label):  # how pandas writes an empty cell
            label = None
        if not isinstance(label, str | int | float | None) or isinstance(label, bool):
            raise UserError(f"{where}: '{columns.label}' must be a string or a number")
        if half_character(str(label)):
            raise UserError(f"{where}: '{columns.label}' holds half a character")
        yield Row(
            number,
            tuple(record[name].strip() for name in columns.sentences),
            None if label is None else str(label).strip(),
        )


#: by the end of a file's name
READERS: dict[str, Callable[..., Iterator[Row]]] = {
    ".tsv": read_tsv,
    ".csv": read_csv,
    ".jsonl": _read_json_lines,
    ".json": _read_json,
}
KINDS = (*READERS, ".parquet")
