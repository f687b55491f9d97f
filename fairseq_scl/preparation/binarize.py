"""Writing rows as fairseq's binarized data, in a stream: a chunk of rows is in memory at a time."""

import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from fairseq.data.indexed_dataset import MMapIndexedDatasetBuilder, best_fitting_int_dtype
from tqdm import tqdm

from fairseq_scl.encoders.shorten import shortened_lengths
from fairseq_scl.encoders.tokenizers import Tokenizer
from fairseq_scl.errors import UserError
from fairseq_scl.preparation.findings import DELAY, Found
from fairseq_scl.preparation.tables import Row, Table

CHUNK = 4096  # rows tokenized at a time
EOS = 2
UNKNOWN = 3
CHARACTERS = 32  # of a text that are tokenized at first for each token that may be kept
MARGIN = 128  # tokens before such a cut that are not kept: they may depend on what was cut off
FIRST_LABEL = 4  # after <s>, <pad>, </s>, <unk> of the label dictionary


class Builder(MMapIndexedDatasetBuilder):
    """fairseq's writer of `STEM.bin` and `STEM.idx`, for many items at a time."""

    def __init__(self, stem: Path, vocabulary_size: int):
        super().__init__(f"{stem}.bin", best_fitting_int_dtype(vocabulary_size))
        self.stem = stem

    def add(self, items: Sequence[np.ndarray]) -> None:
        """Append each item's tokens and `</s>`."""
        sizes = np.array([len(item) + 1 for item in items], dtype=np.int64)
        tokens = np.full(sizes.sum(), EOS, dtype=self._dtype)
        is_token = np.ones(len(tokens), dtype=bool)
        is_token[sizes.cumsum() - 1] = False
        tokens[is_token] = np.concatenate(items)
        self._data_file.write(tokens.tobytes())
        self._sizes.extend(sizes.tolist())

    def finish(self) -> None:
        """Write the index."""
        self.finalize(f"{self.stem}.idx")


def write_split(
    folder: Path,
    split: str,
    table: Table,
    found: Found,
    classes: list[str] | None,
    tokenizer: Tokenizer,
    vocabulary_size: int,
    max_length: int,
) -> dict:
    """Write a split's text, labels and tokens; returns its counts for `prepared.json`."""
    rows = storing(table, found.labelled, classes, folder, split)
    stems = [folder / f"input{i}" / split for i in range(found.sentences)]
    counting = Counting(tokenizer)
    shortened = write_sentences(
        rows, found.rows, counting, vocabulary_size, max_length, stems, split
    )
    return {"shortened": shortened, "tokens": counting.tokens, "unknown": counting.unknown}


def storing(
    table: Table, labelled: bool, classes: list[str] | None, folder: Path, split: str
) -> Iterator[Row]:
    """The rows of a table, whose sentences and labels are stored in `folder` on the way.

    Class ids become fairseq's label data, numbers go into `SPLIT.label`.
    """
    to_json = json.JSONEncoder(ensure_ascii=False).encode
    text = folder / "text" / f"{split}.jsonl"
    rows = writing_lines(table, text, lambda row: to_json(row.sentences))
    if not labelled:
        return rows
    if classes is None:
        return writing_lines(rows, folder / "label" / f"{split}.label", lambda row: row.label)
    return writing_labels(rows, table.path, classes, folder / "label" / split)


class Counting:
    """A tokenizer that counts the tokens it gives, and those of them that are unknown."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.tokens = self.unknown = 0

    def __call__(self, sentences: Sequence[str]) -> list[np.ndarray]:
        """The tokens of each sentence."""
        encoded = self.tokenizer(sentences)
        tokens = np.concatenate(encoded)
        self.tokens += len(tokens)
        self.unknown += int((tokens == UNKNOWN).sum())
        return encoded


def write_sentences(
    rows: Iterable[Row],
    total: int,
    tokenizer: Tokenizer,
    vocabulary_size: int,
    max_length: int,
    stems: Sequence[Path],
    name: str,
) -> int:
    """Write `STEM.bin` and `STEM.idx` for each sentence of a row, `</s>` at the end of each.

    Args:
        total: how many rows there are.
        max_length: tokens of a row, special tokens included; longer rows are shortened.
        name: for the progress bar.

    Returns:
        How many rows were shortened.
    """
    room = max_length - 2 * len(stems)  # <s> A </s>, or <s> A </s> </s> B </s>
    builders = [Builder(stem, vocabulary_size) for stem in stems]
    shortened = 0
    desc = f"tokenize {name}"
    with tqdm(total=total, desc=desc, unit="rows", file=sys.stderr, delay=DELAY) as bar:
        for chunk in chunks(rows):
            sentences = zip(*(row.sentences for row in chunk), strict=True)
            encoded = [tokenize(tokenizer, column, room) for column in sentences]
            shortened += shorten(encoded, room)
            for builder, items in zip(builders, encoded, strict=True):
                builder.add(items)
            bar.update(len(chunk))
    for builder in builders:
        builder.finish()
    return shortened


def tokenize(tokenizer: Tokenizer, texts: Sequence[str], room: int) -> list[np.ndarray]:
    """The tokens of each text; of a very long one more than `room` of the first ones."""
    size = CHARACTERS * (room + MARGIN)
    encoded = tokenizer([text[:size] for text in texts])
    for i in [i for i, text in enumerate(texts) if len(text) > size]:
        longer = size
        while len(encoded[i]) <= room + MARGIN and longer < len(texts[i]):
            longer *= 4
            [encoded[i]] = tokenizer([texts[i][:longer]])
    return encoded


def chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """The rows, some thousands at a time."""
    source = iter(rows)
    while chunk := list(itertools.islice(source, CHUNK)):
        yield chunk


def shorten(encoded: Sequence[list[np.ndarray]], room: int) -> int:
    """Cut the rows that have more than `room` tokens; returns how many those are.

    Args:
        encoded: for the first sentences of all rows, and the second ones, the tokens of each.
    """
    lengths = np.array([[len(item) for item in items] for items in encoded])
    too_long = np.flatnonzero(lengths.sum(0) > room)
    for row in too_long:
        kept = shortened_lengths(tuple(lengths[:, row].tolist()), room)
        for items, length in zip(encoded, kept, strict=True):
            items[row] = items[row][:length]
    return len(too_long)


def writing_lines(
    rows: Iterable[Row], path: Path, line: Callable[[Row], str | None]
) -> Iterator[Row]:
    """The rows, of each of which `line` goes into a file on the way."""
    with open(path, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(f"{line(row)}\n")
            yield row


def writing_labels(
    rows: Iterable[Row], path: Path | str, classes: Sequence[str], stem: Path
) -> Iterator[Row]:
    """The rows, whose class ids become fairseq's label data on the way.

    Raises:
        UserError: naming `path`, for a label that is none of the classes.
    """
    ids: dict[str | None, int] = {name: FIRST_LABEL + i for i, name in enumerate(classes)}
    builder = Builder(stem, FIRST_LABEL + len(classes))
    for chunk in chunks(rows):
        for row in chunk:
            if row.label not in ids:
                raise UserError(f"{path}, row {row.line}: changed while it was read")
        builder.add([np.array([ids[row.label]]) for row in chunk])
        yield from chunk
    builder.finish()
