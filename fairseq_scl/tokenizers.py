"""An encoder's own tokenizer, giving ids of its fairseq dictionary."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_scl.encoder_folder import (
    GPT2_BPE,
    TOKENIZER_JSON,
    dictionary_symbol,
    sentencepiece_model,
)
from fairseq_scl.errors import UserError

#: a batch of sentences to one int32 array of dictionary ids each, without `<s>` and `</s>`
Tokenizer = Callable[[Sequence[str]], list[np.ndarray]]

# how BERT names what fairseq's dictionary holds under its own names
SPECIAL_NAMES = {
    "[CLS]": "<s>",
    "[PAD]": "<pad>",
    "[SEP]": "</s>",
    "[UNK]": "<unk>",
    "[MASK]": "<mask>",
}


def load_tokenizer(folder: Path, symbols: list[str]) -> Tokenizer:
    """Load the tokenizer found in `folder`.

    Args:
        folder: holds `tokenizer.json`, or `encoder.json` and `vocab.bpe`, or a sentencepiece model.
        symbols: the fairseq dictionary, in the order of its ids.

    Raises:
        UserError: if there is none, it is broken, or most of its tokens are not in the dictionary.
    """
    index = {symbol: i for i, symbol in enumerate(symbols)}
    spm = sentencepiece_model(folder)
    try:
        if found := hugging_face_tokenizer(folder, index):
            return _batch_encoder(*found)
        if spm:
            return _sentencepiece(spm, index)
    except UserError:
        raise
    except Exception as error:  # the libraries raise bare Exception and OSError for broken files
        raise UserError(f"{folder}: the tokenizer cannot be read ({error})") from None
    raise UserError(
        f"{folder} has no tokenizer: {TOKENIZER_JSON}, {' + '.join(GPT2_BPE)} or "
        "a sentencepiece model"
    )


def dictionary_ids(tokens: list[str], index: dict[str, int], where: Path) -> np.ndarray:
    """The dictionary's id for each token of a tokenizer; `<unk>` for those it lacks."""
    symbols = [dictionary_symbol(token) for token in tokens]
    ids = np.array([index.get(symbol, index["<unk>"]) for symbol in symbols], dtype=np.int32)
    known = sum(symbol in index for symbol in symbols)
    if known < len(tokens) / 2:
        raise UserError(
            f"{where}: only {known} of {len(tokens)} tokens are in dict.txt; "
            "the dictionary belongs to another encoder"
        )
    return ids


def hugging_face_tokenizer(folder: Path, index: dict[str, int]) -> tuple[Any, np.ndarray] | None:
    """A tokenizer of the tokenizers library, and the dictionary's id for each of its own.

    Args:
        folder: an encoder's tokenizer files.
        index: the id of each symbol in the fairseq dictionary, in the order of the ids.

    Returns:
        None for a folder whose tokenizer is none of this library's.
    """
    if (folder / TOKENIZER_JSON).is_file():
        return _tokenizer_json(folder / TOKENIZER_JSON, index)
    if all((folder / name).is_file() for name in GPT2_BPE):
        encoder_json, vocab_bpe = (folder / name for name in GPT2_BPE)
        return _gpt2_bpe(encoder_json, vocab_bpe, index)
    return None


def _tokenizer_json(path: Path, index: dict[str, int]) -> tuple[Any, np.ndarray]:
    from tokenizers import Tokenizer as HuggingFaceTokenizer

    tokenizer = HuggingFaceTokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    vocabulary = tokenizer.get_vocab()
    tokens = [""] * (max(vocabulary.values()) + 1)
    for token, i in vocabulary.items():
        tokens[i] = SPECIAL_NAMES.get(token, token)
    return tokenizer, dictionary_ids(tokens, index, path)


def _gpt2_bpe(encoder_json: Path, vocab_bpe: Path, index: dict[str, int]) -> tuple[Any, np.ndarray]:
    """GPT-2's tokenizer, numbered as the dictionary is and with its special tokens.

    fairseq's dictionary lists GPT-2's ids as words; ids that it lacks come after its own.
    """
    from tokenizers import ByteLevelBPETokenizer
    from tokenizers.models import BPE

    numbers, merges = BPE.read_file(str(encoder_json), str(vocab_bpe))
    tokens = {str(i): token for token, i in numbers.items()}
    dictionary_ids(list(tokens), index, encoder_json)  # raises for another encoder's dictionary
    symbols = list(index | dict.fromkeys(tokens))
    vocabulary = {tokens.get(symbol, symbol): i for i, symbol in enumerate(symbols)}
    ids = dictionary_ids(symbols, index, encoder_json)
    return ByteLevelBPETokenizer(vocabulary, merges), ids


def _batch_encoder(tokenizer, ids: np.ndarray) -> Tokenizer:
    def encode(sentences: Sequence[str]) -> list[np.ndarray]:
        batch = tokenizer.encode_batch(list(sentences), add_special_tokens=False)
        return [ids[np.array(encoding.ids, dtype=np.int64)] for encoding in batch]

    return encode


def _sentencepiece(path: Path, index: dict[str, int]) -> Tokenizer:
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_file=str(path))
    pieces = [model.id_to_piece(i) for i in range(model.get_piece_size())]
    ids = dictionary_ids(pieces, index, path)
    ids[model.unk_id()] = index["<unk>"]

    def encode(sentences: Sequence[str]) -> list[np.ndarray]:
        batch = model.encode(list(sentences), out_type=int)
        return [ids[np.array(pieces, dtype=np.int64)] for pieces in batch]

    return encode
