"""Data sets of the Hugging Face hub, read by `datasets`: its cache, resuming and HF_ENDPOINT."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fairseq_scl.errors import UserError, first_line
from fairseq_scl.preparation.glue import GLUE, PAIR
from fairseq_scl.preparation.tables import (
    BATCH,
    Columns,
    Row,
    Table,
    batch_records,
    column_indices,
    record_rows,
)

if TYPE_CHECKING:
    import datasets

#: what the hub calls a split
SPLITS = {"train": ("train",), "valid": ("validation", "valid", "dev"), "test": ("test",)}
MIRROR = "set HF_ENDPOINT to a mirror"
FOLDER_REMEDY = "a folder must hold a data set's files, such as train.csv; --train names a file"
REMEDY = (
    "download it where there is a network ('hf download --repo-type dataset') and give the folder "
    f"(--data hf:FOLDER), or {MIRROR}"
)
GLUE_NAME = "nyu-mll/glue"
GLUE_SENTENCES = {"MRPC": PAIR, "MNLI": ("premise", "hypothesis")}  # unlike in GLUE's own files


def hub_tables(
    source: str, columns: dict[str, Columns], wanted: dict[str, str | None]
) -> dict[str, Table]:
    """The splits of a data set of the hub, or of a folder that holds one.

    Args:
        source: NAME or NAME:CONFIG.
        columns: of each split; where there is no column `sentence`, `text` serves.
        wanted: the hub's name of each split, or None for the usual one. A name may be a part,
            such as `train[90%:]`.

    Returns:
        A table for each split; none for a test set that is neither named nor there.

    Raises:
        UserError: if it cannot be fetched, or lacks a split or a column.
    """
    builder = _fetch(source, REMEDY)
    there = list(builder.info.splits or ())
    tables = {}
    for split, name in wanted.items():
        name = name or next((name for name in SPLITS[split] if name in there), None)
        if name is not None:
            tables[split] = _table(builder, source, name, columns[split])
        elif split != "test":
            raise UserError(
                f"hf:{source} has no {SPLITS[split][0]} set; --{split}-split names one of "
                f"{', '.join(there)}, or a part such as 'train[90%:]'"
            )
    return tables


def glue_hub_tables(task: str) -> dict[str, Table]:
    """Every split of a GLUE task, with the class names of GLUE's own files.

    Raises:
        UserError: if it cannot be fetched.
    """
    published = GLUE[task]
    source = f"{GLUE_NAME}:{task.replace('-', '').lower()}"
    builder = _fetch(source, f"give GLUE's own files by --glue-dir, or {MIRROR}")
    sentences = GLUE_SENTENCES.get(task, published.columns.sentences)
    tables = {}
    for split, file in published.files.items():
        name = file.removesuffix(".tsv").replace("dev", "validation")
        label = "" if split.startswith("test") else "label"  # -1 for all in test sets
        columns = Columns(sentences, label, must_have_label=bool(label))
        tables[split] = _table(builder, source, name, columns, published.labels)
    return tables


def _fetch(source: str, remedy: str) -> "datasets.DatasetBuilder":
    import datasets

    name, _, config = source.partition(":")
    if not name:
        raise UserError("--data hf: names no data set; hf:NAME or hf:NAME:CONFIG is wanted")
    if not Path(name).exists():
        _do_without_an_unreachable_hub(name)
    try:
        builder = datasets.load_dataset_builder(name, config or None)
        builder.download_and_prepare()
    except Exception as error:  # of many kinds; what the data set holds is anyone's
        if isinstance(error, datasets.exceptions.DatasetGenerationError):
            error = error.__cause__ or error  # by itself it does not say what is wrong
        remedy = FOLDER_REMEDY if Path(name).exists() else remedy
        raise UserError(f"hf:{source}: {first_line(error)}; {remedy}") from None
    return builder


def _do_without_an_unreachable_hub(name: str) -> None:
    """Leave it to the cache where there is no network; else the libraries try for 40 seconds."""
    import datasets
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().dataset_info(name, timeout=10)
    except (HfHubHTTPError, ValueError):
        pass  # it can be reached
    except Exception:  # of whichever HTTP library
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True


def _table(
    builder: "datasets.DatasetBuilder",
    source: str,
    name: str,
    columns: Columns,
    published: tuple[str, ...] | None = None,
) -> Table:
    where = f"hf:{source}, {name}"
    try:
        dataset = builder.as_dataset(name)
    except ValueError as error:  # there is no such split
        raise UserError(f"{where}: {first_line(error)}") from None
    there = dataset.column_names
    if columns.sentences == ("sentence",) and "sentence" not in there and "text" in there:
        columns = Columns(("text",), columns.label, columns.must_have_label)
    column_indices(where, there, columns)
    used = [column for column in (*columns.sentences, columns.label) if column in there]
    dataset = dataset.select_columns(used).with_format("arrow")
    names = _class_names(dataset.features.get(columns.label), published)

    def rows() -> Iterator[Row]:
        records: Iterable[dict] = itertools.chain.from_iterable(
            map(batch_records, dataset.iter(BATCH))
        )
        if names:
            records = (_with_name(record, columns.label, names) for record in records)
        return record_rows(where, columns, enumerate(records, 1))

    return Table(where, rows, builder.hash)


def _class_names(feature: object, published: tuple[str, ...] | None) -> list[str]:
    """The name of each class id; the id itself where GLUE's own files have it so."""
    names = getattr(feature, "names", None) or []
    if published is None:
        return names
    return [name if name in published else str(i) for i, name in enumerate(names)]


def _with_name(record: dict, label: str, names: list[str]) -> dict:
    """A row whose class id has become a name; -1 stands for a label that is withheld."""
    number = record[label]
    return {**record, label: None if number is None or number < 0 else names[number]}
