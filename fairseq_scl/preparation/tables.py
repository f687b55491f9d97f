"""Reading labelled sentences: GLUE's files as published, and a user's own."""

import bz2
import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from fairseq_scl.errors import UserError


class Row(NamedTuple):
    """One example: its row in the file (from 1), one or two sentences, its label or None."""

    line: int
    sentences: tuple[str, ...]
    label: str | None


@dataclass(frozen=True)
class Table:
    """The rows of a file, which each iteration reads anew."""

    path: Path
    read: Callable[[], Iterable[Row]]

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
    """Which columns hold the sentences and the label."""

    sentences: tuple[str, ...]
    label: str


@dataclass(frozen=True)
class GlueTask:
    """How one GLUE task is published."""

    columns: Columns
    rows: tuple[int, ...]  # of each split, in the order of `files`
    labels: tuple[str, ...] = ("0", "1")  # none for a regression
    more_rows: int = 0  # what some copies have beyond `rows`
    headless: tuple[str, ...] = ()  # column names of train and dev where they have no header
    skip_short_rows: bool = False
    files: dict[str, str] = field(
        default_factory=lambda: {"train": "train.tsv", "valid": "dev.tsv", "test": "test.tsv"}
    )

    @property
    def regression(self) -> bool:
        """Whether labels are numbers to predict."""
        return not self.labels

    @property
    def published_rows(self) -> dict[str, int]:
        """How many rows each split has, malformed ones not counted."""
        return dict(zip(self.files, self.rows, strict=True))


PAIR = ("sentence1", "sentence2")
NLI = ("contradiction", "entailment", "neutral")
NLI_2 = ("entailment", "not_entailment")
MNLI_FILES = {
    "train": "train.tsv",
    "valid": "dev_matched.tsv",
    "valid1": "dev_mismatched.tsv",
    "test": "test_matched.tsv",
    "test1": "test_mismatched.tsv",
}
GLUE = {
    "CoLA": GlueTask(
        Columns(("sentence",), "label"),
        (8551, 1043, 1063),
        headless=("source", "label", "star", "sentence"),
    ),
    "SST-2": GlueTask(Columns(("sentence",), "label"), (67349, 872, 1821)),
    "MRPC": GlueTask(Columns(("#1 String", "#2 String"), "Quality"), (3668, 408, 1725)),
    "STS-B": GlueTask(Columns(PAIR, "score"), (5749, 1500, 1379), labels=()),
    # a few published rows lack fields; GLUE's own code skips them
    "QQP": GlueTask(
        Columns(("question1", "question2"), "is_duplicate"),
        (363846, 40430, 390965),
        more_rows=3,
        skip_short_rows=True,
    ),
    "MNLI": GlueTask(
        Columns(PAIR, "gold_label"),
        (392702, 9815, 9832, 9796, 9847),
        labels=NLI,
        files=MNLI_FILES,
    ),
    "QNLI": GlueTask(
        Columns(("question", "sentence"), "label"), (104743, 5463, 5463), labels=NLI_2
    ),
    "RTE": GlueTask(Columns(PAIR, "label"), (2490, 277, 3000), labels=NLI_2),
    "WNLI": GlueTask(Columns(PAIR, "label"), (635, 71, 146)),
}


#: the files of a submission to GLUE's site, each with the task and the split that it is about
SUBMISSIONS = {
    **{task: {task: (task, "test")} for task in GLUE},
    "MNLI": {"MNLI-m": ("MNLI", "test"), "MNLI-mm": ("MNLI", "test1")},
    "AX": {"AX": ("AX", "test")},
}
AX = GlueTask(Columns(PAIR, "label"), (1104,), labels=NLI, files={"test": "AX.tsv"})


def labels_of(submission: str) -> tuple[str, ...]:
    """What may stand in a submission; nothing for a regression."""
    return (AX if submission == "AX" else GLUE[submission]).labels


def unlike_published(task: str, split: str, rows: int) -> str | None:
    """What is odd about this number of rows, or None if the split was published with as many."""
    published = GLUE[task].published_rows[split]
    if published <= rows <= published + GLUE[task].more_rows:
        return None
    told = f"{split} has {rows:,} rows, the published set {published:,}"
    return f"{told}: a subset?" if rows < published else told


def glue_tables(task: str, folder: Path) -> dict[str, Table]:
    """Every published split of a GLUE task; `train` and `valid` must exist.

    Args:
        task: a key of `GLUE`.
        folder: holds the task's folder, as GLUE's archive unpacks.

    Raises:
        UserError: for an unknown task.
    """
    if task not in GLUE:
        raise UserError(f"--data glue:{task}: the GLUE tasks are {', '.join(GLUE)}")
    return task_tables(task, folder / task)


def task_tables(task: str, folder: Path) -> dict[str, Table]:
    """The same for the folder that holds the task's files."""
    published = GLUE[task]
    splits = {}
    for split, name in published.files.items():
        path = folder / name
        if split in ("train", "valid") or path.is_file():
            headless = () if split.startswith("test") else published.headless
            given = path, published.columns, headless, published.skip_short_rows
            splits[split] = Table(path, partial(_read_tsv, *given))
    return splits


def read_glue_test(task: str, folder: Path) -> dict[str, tuple[Path, list[Row]]]:
    """Read what a submission is about: for each of its files, the test file and its rows.

    Raises:
        UserError: if a file is missing or has another number of rows than the published one.
    """
    found = {}
    for name, (of_task, split) in SUBMISSIONS[task].items():
        published = AX if of_task == "AX" else GLUE[of_task]
        path = folder / of_task / published.files[split]
        rows = list(_read_tsv(path, published.columns))
        expected = published.published_rows[split]
        if len(rows) != expected:
            raise UserError(f"{path} has {len(rows):,} rows, the published set {expected:,}")
        found[name] = path, rows
    return found


def file_table(path: Path, columns: Columns) -> Table:
    """A user's `.tsv`, `.csv` or `.jsonl` with named columns.

    TSV has no quoting: a field is what stands between tabs. CSV is quoted as RFC 4180 has it.

    Raises:
        UserError: for another ending.
    """
    if path.suffix not in READERS:
        raise UserError(f"{path}: the name must end in {', '.join(READERS)}")
    return Table(path, partial(READERS[path.suffix], path, columns))


def read_file(path: Path, columns: Columns) -> list[Row]:
    """All rows of such a file.

    Raises:
        UserError: naming file and row, for whatever cannot be read.
    """
    return list(file_table(path, columns))


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of each line, of a `.bz2` too."""
    try:
        with bz2.open(path) if path.suffix == ".bz2" else open(path, "rb") as file:
            yield from decoded(file, path)
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read ({reason})") from None


def decoded(file: Iterable[bytes], where: object) -> Iterator[tuple[int, str]]:
    """Number and text of each line of an open file; only `\\n` and `\\r\\n` end one."""
    number = 0
    try:
        for number, line in enumerate(file, 1):
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            yield number, text.removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}, row {number}: not UTF-8 ({error.reason})") from None


def half_character(text: str) -> bool:
    """Whether it holds a lone surrogate, which is no Unicode."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def _column_indices(
    path: Path, header: list[str], columns: Columns
) -> tuple[list[int], int | None]:
    """Where the sentences and the label stand; a split without the label column is unlabelled."""
    if header == [""] or not header:
        raise UserError(f"{path} is empty")
    for name in columns.sentences:
        if name not in header:
            raise UserError(f"{path}: no column '{name}'; the columns are {', '.join(header)}")
    label = header.index(columns.label) if columns.label in header else None
    return [header.index(name) for name in columns.sentences], label


def _read_tsv(
    path: Path,
    columns: Columns,
    headless: tuple[str, ...] = (),
    skip_short_rows: bool = False,
) -> Iterator[Row]:
    rows = lines(path)
    header = list(headless) or next(rows, (0, ""))[1].split("\t")
    sentences, label = _column_indices(path, header, columns)
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


def read_csv(path: Path, columns: Columns, headless: tuple[str, ...] = ()) -> Iterator[Row]:
    """Rows of a CSV quoted as RFC 4180 has it; `headless` names the columns of one without header.

    Raises:
        UserError: naming file and row, for whatever cannot be read.
    """
    reader = csv.reader((line + "\n" for _, line in lines(path)), strict=True)
    try:
        header = list(headless) or next(reader, [])
        sentences, label = _column_indices(path, header, columns)
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(header):
                raise UserError(
                    f"{path}, row {reader.line_num}: {len(fields)} fields, "
                    f"there are {len(header)} columns"
                )
            yield Row(
                reader.line_num,
                tuple(fields[i].strip() for i in sentences),
                None if label is None else fields[label].strip(),
            )
    except csv.Error as error:
        raise UserError(f"{path}, row {reader.line_num}: not CSV ({error})") from None


def _read_json_lines(path: Path, columns: Columns) -> Iterator[Row]:
    for number, line in lines(path):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, row {number}: not JSON ({error})") from None
        if not isinstance(record, dict):
            raise UserError(f"{path}, row {number}: not a JSON object")
        for name in columns.sentences:
            if not isinstance(record.get(name), str):
                raise UserError(f"{path}, row {number}: '{name}' must be a string")
            if half_character(record[name]):
                raise UserError(f"{path}, row {number}: '{name}' holds half a character")
        label = record.get(columns.label)
        if not isinstance(label, str | int | float | None) or isinstance(label, bool):
            raise UserError(f"{path}, row {number}: '{columns.label}' must be a string or a number")
        yield Row(
            number,
            tuple(record[name].strip() for name in columns.sentences),
            None if label is None else str(label).strip(),
        )


Reader = Callable[[Path, Columns], Iterator[Row]]
#: by the end of a file's name
READERS: dict[str, Reader] = {".tsv": _read_tsv, ".csv": read_csv, ".jsonl": _read_json_lines}
