"""A translation model's folder, as fairseq publishes them.

*.pt                       one checkpoint, or those of an ensemble
dict.LANGUAGE.txt          fairseq's dictionary of each language
sentencepiece.bpe.model    the subword model; for subword_nmt and fastbpe: bpecodes, or code
"""

import os
from pathlib import Path

from fairseq_scl.errors import UserError

TOKENIZERS = ("none", "moses")
#: for each `--bpe` the names under which fairseq's hub finds its subword model
SUBWORD_FILES: dict[str, tuple[str, ...]] = {
    "sentencepiece": ("sentencepiece.bpe.model",),
    "subword_nmt": ("bpecodes", "code"),
    "fastbpe": ("bpecodes", "code"),
    "none": (),
}


def checkpoint_paths(flag: str, models: str) -> list[Path]:
    """The checkpoints of an ensemble, `a.pt:b.pt`.

    Raises:
        UserError: naming the flag, if one is missing.
    """
    paths = [Path(name) for name in models.split(os.pathsep)]
    for path in paths:
        if not path.is_file():
            raise UserError(f"{flag} {path}: no such checkpoint")
    return paths


def subword_files(folder: Path, bpe: str) -> list[Path]:
    """The subword model of `--bpe`: one file, or none for `none`.

    Raises:
        UserError: if it is missing.
    """
    names = SUBWORD_FILES[bpe]
    found = [folder / name for name in names if (folder / name).is_file()][:1]
    if names and not found:
        raise UserError(f"{folder} has no {' or '.join(names)}, which --bpe {bpe} reads")
    return found
