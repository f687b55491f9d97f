"""What a fine-tuned model needs beside its checkpoint, so that it can be taken elsewhere.

Training copies it from the prepared data to SAVE_DIR/inference:

input0/dict.txt   the encoder's dictionary; input1/dict.txt as well for sentence pairs
label/dict.txt    the classes; none for regression
prepared.json     the longest row, among others
tokenizer/        the encoder's tokenizer files
"""

import logging
import shutil
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from fairseq_scl.files import Digest, new_folder, read_model, sha256

logger = logging.getLogger(__name__)

FOLDER = "inference"
TOKENIZER = "tokenizer"
PREPARED = "prepared.json"
HEADS = ("trained", "refit")  # that of the checkpoint, or that of refit.json beside it
FILES = (PREPARED, "input0/dict.txt", "input1/dict.txt", "label/dict.txt")


def keep(data: Path, save_dir: Path) -> None:
    """Copy it, unless it is there; data that was not made by `prepare` has no tokenizer to copy."""
    if not (data / TOKENIZER).is_dir() or (save_dir / FOLDER).is_dir():
        return
    with new_folder(save_dir / FOLDER) as folder:
        for name in FILES:
            if (data / name).is_file():
                (folder / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(data / name, folder / name)
        shutil.copytree(data / TOKENIZER, folder / TOKENIZER)


class OfCheckpoint(BaseModel):
    """What was fitted to one checkpoint, and kept in a file beside it.

    Attributes:
        checkpoint: sha256 of that one.
    """

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    checkpoint: Digest


Fitted = TypeVar("Fitted", bound=OfCheckpoint)


def read_fitted(checkpoint: Path, name: str, schema: type[Fitted]) -> Fitted | None:
    """What was fitted to this very checkpoint; None, with a warning, if it was to another.

    Raises:
        UserError: if the file is damaged.
    """
    path = checkpoint.with_name(name)
    if not path.is_file():
        return None
    found = read_model(path, schema)
    if found.checkpoint != sha256(checkpoint):
        logger.warning(f"{path} is of another checkpoint than {checkpoint.name}, and is ignored")
        return None
    return found


class PreparedSplit(BaseModel):
    """What `prepare` made of a table; more may stand there.

    Attributes:
        file, sha256: the source; of a data set of the hub `hf:NAME, SPLIT`, and instead of the
            checksum `revision`, its commit.
        columns, encoding, delimiter: of the source; the column of labels is the last.
        empty: rows with an empty sentence.
        quoted: rows of a .tsv with a sentence in a CSV's quotes.
        shortened: rows that were longer than `max_length`.
        tokens, unknown: all tokens, and those that the encoder does not know; of a text that is
            much too long only its beginning counts.
        counts: rows of each class, in the order of the classes; none if unlabelled or a regression.
        duplicates: training rows with the text of an earlier one.
        contradicting: training rows whose text stands there with another label too.
        in_train: rows that stand in the training set too.
        published_rows: of GLUE.
    """

    model_config = ConfigDict(strict=True, extra="allow")
    file: str
    sha256: str | None = None
    revision: str | None = None
    columns: list[str] | None = None
    encoding: str | None = None
    delimiter: str | None = None
    rows: NonNegativeInt
    labelled: bool
    empty: NonNegativeInt
    quoted: NonNegativeInt | None = None
    shortened: NonNegativeInt
    tokens: NonNegativeInt | None = None
    unknown: NonNegativeInt | None = None
    counts: list[NonNegativeInt] | None = None
    duplicates: NonNegativeInt | None = None
    contradicting: NonNegativeInt | None = None
    in_train: NonNegativeInt | None = None
    published_rows: NonNegativeInt | None = None


class Prepared(BaseModel):
    """What `prepared.json` holds.

    Attributes:
        max_length: tokens of the longest row, special tokens included.
        classes: in the order of their ids; None for regression.
    """

    model_config = ConfigDict(strict=True, extra="allow")
    max_length: Annotated[int, Field(ge=8)]
    classes: Annotated[list[str], Field(min_length=1)] | None
    splits: dict[str, PreparedSplit]


def read_prepared(folder: Path) -> Prepared:
    """What `prepare` wrote down of the data, there or here.

    Raises:
        UserError: if it is not what this version writes.
    """
    return read_model(folder / PREPARED, Prepared)
