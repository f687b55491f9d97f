"""An encoder's own tokenizer, giving ids of its fairseq dictionary."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_scl.encoders.encoder_folder import (
    GPT2_BPE,
    TOKENIZER_JSON,
    dictionary_symbol,
    holds,
    sentencepiece_model,
)
from fairseq_scl.encoders.families import BERT_SPECIALS, SPECIALS
from fairseq_scl.errors import UserError

#: a batch of sentences to one int32 array of dictionary ids each, without `<s>` and `</s>`
Tokenizer = Callable[[Sequence[str]], list[np.ndarray]]

# how BERT names what fairseq's dictionary holds under its own names
SPECIAL_NAMES = dict(zip(BERT_SPECIALS, SPECIALS, strict=True))


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
        if holds(folder, GPT2_BPE) and not (folder / TOKENIZER_JSON).is_file():
            return _gpt2_encoder(folder, index)
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


def read_tokenizer(path: Path) -> Any:
    """A `tokenizer.json` as the tokenizers library has it.

    Raises:
        UserError: if it is missing or broken.
    """
    from tokenizers import Tokenizer as HuggingFaceTokenizer

    try:
        return HuggingFaceTokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"{path} cannot be read ({error})") from None


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
    return _gpt2_bpe(folder, index) if holds(folder, GPT2_BPE) else None


def _tokenizer_json(path: Path, index: dict[str, int]) -> tuple[Any, np.ndarray]:
    from tokenizers import Tokenizer as HuggingFaceTokenizer

    tokenizer = HuggingFaceTokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    vocabulary = tokenizer.get_vocab()
    tokens = [""] * (max(vocabulary.values()) + 1)
    for token, i in vocabulary.items():  # MPNet's dictionary has <unk> and [UNK], BERT's one
        tokens[i] = token if token in index else SPECIAL_NAMES.get(token, token)
    return tokenizer, dictionary_ids(tokens, index, path)


def _read_gpt2_bpe(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """GPT-2's id of each token, and which tokens are merged, the first ones first."""
    from tokenizers.models import BPE

    return BPE.read_file(*(str(folder / name) for name in GPT2_BPE))


def _gpt2_bpe(folder: Path, index: dict[str, int]) -> tuple[Any, np.ndarray]:
    """GPT-2's tokenizer, numbered as the dictionary is and with its special tokens.

    fairseq's dictionary lists GPT-2's ids as words; ids that it lacks come after its own.
    """
    from tokenizers import Tokenizer as HuggingFaceTokenizer
    from tokenizers import decoders, pre_tokenizers
    from tokenizers.models import BPE

    numbers, merges = _read_gpt2_bpe(folder)
    tokens = {str(i): token for token, i in numbers.items()}
    # raises for another encoder's dictionary
    dictionary_ids(list(tokens), index, folder / GPT2_BPE[0])
    symbols = list(index | dict.fromkeys(tokens))
    vocabulary = {tokens.get(symbol, symbol): i for i, symbol in enumerate(symbols)}
    ids = dictionary_ids(symbols, index, folder / GPT2_BPE[0])
    tokenizer = HuggingFaceTokenizer(BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, ids


def _gpt2_encoder(folder: Path, index: dict[str, int]) -> Tokenizer:
    """The same tokens by tiktoken, which takes a fifth of the time.

    It merges two tokens to one of the lowest rank, GPT-2 by the list of pairs; in files that come
    from training a BPE, as GPT-2's do, that is the same.
    """
    from fairseq.data.encoders.gpt2_bpe_utils import bytes_to_unicode
    from tiktoken import Encoding
    from tiktoken_ext.openai_public import r50k_pat_str

    numbers, merges = _read_gpt2_bpe(folder)
    byte_of = {character: byte for byte, character in bytes_to_unicode().items()}
    tokens = list(dict.fromkeys([*byte_of, *map("".join, merges)]))
    ranks = {bytes(byte_of[c] for c in token): rank for rank, token in enumerate(tokens)}
    ids = dictionary_ids([str(numbers.get(token)) for token in tokens], index, folder / GPT2_BPE[0])
    encoding = Encoding("gpt2", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={})

    return _renumbered(lambda texts: [encoding.encode_ordinary(text) for text in texts], ids)


def _batch_encoder(tokenizer, ids: np.ndarray) -> Tokenizer:
    encode = partial(tokenizer.encode_batch_fast, add_special_tokens=False)
    return _renumbered(lambda texts: [encoding.ids for encoding in encode(texts)], ids)


def _sentencepiece(path: Path, index: dict[str, int]) -> Tokenizer:
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_file=str(path))
    pieces = [model.id_to_piece(i) for i in range(model.get_piece_size())]
    ids = dictionary_ids(pieces, index, path)
    ids[model.unk_id()] = index["<unk>"]
    return _renumbered(partial(model.encode, out_type=int), ids)


def _renumbered(encode: Callable[[list[str]], list[list[int]]], ids: np.ndarray) -> Tokenizer:
    """What `encode` gives, with the dictionary's ids, which are looked up at once."""

    def tokenizer(sentences: Sequence[str]) -> list[np.ndarray]:
        batch = encode(list(sentences))
        flat = ids[np.fromiter(itertools.chain.from_iterable(batch), dtype=np.int64)]
        ends = itertools.accumulate(map(len, batch), initial=0)
        return [flat[start:end] for start, end in itertools.pairwise(ends)]

    return tokenizer
