"""What a fine-tuned model needs beside its checkpoint, so that it can be taken elsewhere.

Training copies it from the prepared data to SAVE_DIR/inference:

input0/dict.txt   the encoder's dictionary; input1/dict.txt as well for sentence pairs
label/dict.txt    the classes; none for regression
prepared.json     the longest row, among others
tokenizer/        the encoder's tokenizer files
"""

import shutil
from pathlib import Path

from fairseq_scl.errors import UserError
from fairseq_scl.files import new_folder, read_json

FOLDER = "inference"
TOKENIZER = "tokenizer"
PREPARED = "prepared.json"
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


def read_prepared(folder: Path) -> dict:
    """What `prepare` wrote down of the data, there or here.

    Raises:
        UserError: if it lacks what this package uses: `max_length`, and `classes` or null.
    """
    prepared = read_json(folder / PREPARED)
    longest, classes = prepared.get("max_length"), prepared.get("classes", "")
    if not isinstance(longest, int) or longest < 1 or not isinstance(classes, list | None):
        raise UserError(f"{folder / PREPARED}: not what this version writes")
    return prepared
