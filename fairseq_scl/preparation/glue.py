"""GLUE's tasks as published: their files, columns, numbers of rows, and submissions."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fairseq_scl.errors import UserError
from fairseq_scl.preparation.tables import Columns, Row, Table, read_tsv


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
            splits[split] = Table(path, partial(read_tsv, *given))
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
        rows = list(read_tsv(path, published.columns))
        expected = published.published_rows[split]
        if len(rows) != expected:
            raise UserError(f"{path} has {len(rows):,} rows, the published set {expected:,}")
        found[name] = path, rows
    return found
