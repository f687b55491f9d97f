"""What `fairseq-scl prepare` stored: checked before fairseq reads it."""

import struct
from pathlib import Path

import numpy as np
from fairseq.data import Dictionary, data_utils
from fairseq.data.indexed_dataset import MMapIndexedDataset
from fairseq.data.indexed_dataset import _code_to_dtype as DTYPES
from fairseq.tasks.sentence_prediction import SentencePredictionTask

from fairseq_scl.errors import UserError

REMEDY = "make the data with 'fairseq-scl prepare'"


def class_names(data: Path) -> list[str]:
    """The classes of `DATA/label/dict.txt`, in the order of their ids."""
    path = data / "label" / "dict.txt"
    if not path.is_file() and (data / "label" / "train.label").is_file():
        remedy = "train with --regression-target --scl-weight 0"
        raise UserError(f"{data} holds numbers, not classes (prepare --regression); {remedy}")
    dictionary = load_dictionary(path)
    # fairseq-preprocess fills up dictionaries with such entries, and the last is <mask>
    names = dictionary.symbols[dictionary.nspecial : -1]
    names = [name for name in names if not name.startswith("madeupword")]
    if not names:
        raise UserError(f"{path} lists no class; {REMEDY}")
    return names


def load_dictionary(path: Path) -> Dictionary:
    """The dictionary of a task, an encoder or labels.

    Raises:
        UserError: if it is missing or damaged.
    """
    try:
        return SentencePredictionTask.load_dictionary(str(require(path)))
    except Exception as error:  # fairseq raises bare Exception, and what int() does
        raise UserError(f"{path} is damaged ({error}); {REMEDY}") from None


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


HEADER = struct.Struct("<9sQBQ")  # of an .idx: magic, version, type of an item, rows
MAGIC = b"MMIDIDX\x00\x00"


def load(stem: Path) -> MMapIndexedDataset:
    """Open `STEM.idx` and `STEM.bin`, after a look at whether they are whole.

    Raises:
        UserError: if one is damaged.
    """
    if not is_whole(stem):
        raise UserError(f"{stem}.idx or .bin is damaged or cut off; {REMEDY}")
    return data_utils.load_indexed_dataset(str(stem))


def is_whole(stem: Path) -> bool:
    """Whether the index has its form, and the data the length that it says."""
    index = stem.with_suffix(".idx").read_bytes()
    if len(index) < HEADER.size:
        return False
    magic, version, code, rows = HEADER.unpack_from(index)
    if (
        (magic, version) != (MAGIC, 1)
        or len(index) != HEADER.size + 12 * rows
        or code not in DTYPES
    ):
        return False
    sizes = np.frombuffer(index, "<i4", rows, HEADER.size)
    starts = np.frombuffer(index, "<i8", rows, HEADER.size + 4 * rows)
    ends = np.cumsum(sizes, dtype=np.int64) * DTYPES[code]().itemsize
    following = np.append(starts, stem.with_suffix(".bin").stat().st_size)
    return starts[:1].sum() == 0 and bool((sizes > 0).all()) and np.array_equal(following[1:], ends)


def read_labels(data: Path, split: str, regression: bool = False) -> np.ndarray:
    """Class ids `(rows,)` int64; zeros where there are none (regression, an unlabelled test set).

    Raises:
        UserError: if files are missing or differ in length, a label is not in the dictionary, or
            a class of the dictionary does not occur in `train`.
    """
    stems = sorted({path.with_suffix("") for path in split_files(data, split, regression)})
    stored = {stem.parent.name: load(stem) for stem in stems}
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


def require_known_tokens(data: Path, split: str, symbols: int) -> None:
    """Look for token ids that the dictionary does not have.

    Raises:
        UserError: naming the file.
    """
    for stem in (data / key / split for key in ("input0", "input1") if (data / key).is_dir()):
        with open(stem.with_suffix(".idx"), "rb") as index:
            _, _, code, _ = HEADER.unpack(index.read(HEADER.size))
        tokens = np.memmap(stem.with_suffix(".bin"), DTYPES[code], "r")
        if tokens.min() < 0 or tokens.max() >= symbols:
            raise UserError(f"{stem}.bin: a token that is not in {stem.parent}/dict.txt")
