"""An encoder folder: what training and preparing data need of a pre-trained model.

model.pt          the weights, for --finetune-from-model or --restore-file
dict.txt          fairseq's dictionary, one token a line
tokenizer files   tokenizer.json, or encoder.json + vocab.bpe, or a sentencepiece model
train_flags.txt   fairseq-train's flags for this encoder (written by import-model)
"""

from pathlib import Path

MODEL = "model.pt"
DICTIONARY = "dict.txt"
TRAIN_FLAGS = "train_flags.txt"
TOKENIZER_JSON = "tokenizer.json"
GPT2_BPE = ("encoder.json", "vocab.bpe")
SENTENCEPIECE = ("sentencepiece.bpe.model", "sentencepiece.model", "spm.model")


# fairseq's dictionary has a line for each symbol
LINE_BREAKS = str.maketrans({"\r": "␍", "\n": "␊"})


def dictionary_symbol(token: str) -> str:
    """How `dict.txt` writes a tokenizer's token."""
    return token.translate(LINE_BREAKS)


def sentencepiece_model(folder: Path) -> Path | None:
    """The sentencepiece model in `folder`, if there is one."""
    return next((folder / name for name in SENTENCEPIECE if (folder / name).is_file()), None)
