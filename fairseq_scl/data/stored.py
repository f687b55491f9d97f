"""What `fairseq-scl prepare` stored: checked before fairseq reads it."""

from pathlib import Path

import numpy as np
from fairseq.data import Dictionary, data_utils

from fairseq_scl.errors import UserError

REMEDY = "make the data with 'fairseq-scl prepare'"


def class_names(data: Path) -> list[str]:
    """The classes of `DATA/label/dict.txt`, in the order of their ids."""
    dictionary = Dictionary.load(str(require(data / "label" / "dict.txt")))
    # fairseq-preprocess fills up dictionaries with such entries
    names = dictionary.symbols[dictionary.nspecial :]
    return [name for name in names if not name.startswith("madeupword")]


def require(path: Path) -> Path:
    """Return `path`.

    Raises:
        UserError: if there is no such file.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; {REMEDY}")
    return path


def split_files(data: Path, split: str, regression: bool = False) -> list[Path]:
    """The files of a split; a test set may lack labels.

    Raises:
        UserError: if one is missing.
    """
    keys = ["input0", "input1"] if (data / "input1").is_dir() else ["input0"]
    unlabelled = split.startswith("test") and not (data / "label" / f"{split}.idx").is_file()
    if not regression and not unlabelled:
        keys.append("label")
    return [require(data / key / f"{split}.{end}") for key in keys for end in ("bin", "idx")]


def read_labels(data: Path, split: str, regression: bool = False) -> np.ndarray:
    """Class ids `(rows,)` int64; zeros where there are none (regression, an unlabelled test set).

    Raises:
        UserError: if files are missing or differ in length, a label is not in the dictionary, or
            a class of the dictionary does not occur in `train`.
    """
    stems = sorted({path.with_suffix("") for path in split_files(data, split, regression)})
    stored = {stem.parent.name: data_utils.load_indexed_dataset(str(stem)) for stem in stems}
    lengths = {key: len(dataset) for key, dataset in stored.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{key} {rows}" for key, rows in lengths.items())
        raise UserError(f"{data}, split '{split}': rows differ: {told}")
    if "label" not in stored:
        return np.zeros(lengths["input0"], dtype=np.int64)
    names = class_names(data)
    # a label is stored as its id in the label dictionary, after four special symbols, and </s>
    labels = np.fromiter((int(row[0]) for row in stored["label"]), np.int64, lengths["label"]) - 4
    wrong = np.flatnonzero((labels < 0) | (labels >= len(names)))
    if len(wrong):
        raise UserError(
            f"{data}/label/{split}.bin, row {wrong[0] + 1}: a label that is not in "
            f"{data}/label/dict.txt"
        )
    missing = np.setdiff1d(np.arange(len(names)), labels)
    if split == "train" and len(missing):
        raise UserError(f"{data}: class '{names[missing[0]]}' has no example in 'train'")
    return labels
