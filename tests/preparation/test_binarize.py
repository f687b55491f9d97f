"""Binarizing rows in a stream."""

import tracemalloc

import numpy as np
import pytest
from conftest import SHARED
from fairseq.data.indexed_dataset import MMapIndexedDataset, make_builder
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_scl.encoders.shorten import shortened_lengths
from fairseq_scl.errors import UserError
from fairseq_scl.preparation import binarize
from fairseq_scl.preparation.tables import Row


def letters(sentences):
    """A tokenizer: a token for each letter."""
    return [np.array([ord(c) for c in text], dtype=np.int32) for text in sentences]


def write(folder, rows, max_length=64):
    folder.mkdir(parents=True, exist_ok=True)
    stems = [folder / f"input{i}" for i in range(len(rows[0].sentences))]
    shortened = binarize.write_sentences(
        iter(rows), len(rows), letters, 1000, max_length, stems, "test"
    )
    return stems, shortened


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.tuples(st.text("abc", max_size=12), st.text("xyz", max_size=12)), min_size=1),
    sentences=st.integers(1, 2),
    chunk=st.integers(1, 5),
)
def test_files_are_those_of_fairseqs_own_builder(tmp_path_factory, texts, sentences, chunk):
    import torch

    folder = tmp_path_factory.mktemp("binarize")
    rows = [Row(i, pair[:sentences], None) for i, pair in enumerate(texts)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binarize, "CHUNK", chunk)
        stems, shortened = write(folder, rows, max_length=10)
    builders = [make_builder(f"{stem}.ref.bin", "mmap", 1000) for stem in stems]
    expected = 0
    for row in rows:
        lengths = tuple(map(len, row.sentences))
        kept = shortened_lengths(lengths, 10 - 2 * sentences)
        expected += kept != lengths
        for builder, text, length in zip(builders, row.sentences, kept, strict=True):
            builder.add_item(torch.tensor([*map(ord, text[:length]), 2]))
    for builder, stem in zip(builders, stems, strict=True):
        builder.finalize(f"{stem}.ref.idx")
        for suffix in ("bin", "idx"):
            own = stem.with_name(f"{stem.name}.{suffix}").read_bytes()
            assert own == stem.with_name(f"{stem.name}.ref.{suffix}").read_bytes()
    assert shortened == expected


def test_memory_hardly_grows_with_the_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(binarize, "CHUNK", 100)

    def peak(number):
        rows = (Row(i, ("a sentence of some length",) * 2, str(i % 3)) for i in range(number))
        lines = binarize.writing_lines(rows, tmp_path / "text", lambda row: row.sentences[0])
        labelled = binarize.writing_labels(lines, tmp_path, list("012"), tmp_path / "label")
        stems = [tmp_path / "input0", tmp_path / "input1"]
        tracemalloc.start()
        binarize.write_sentences(labelled, number, letters, 1000, 64, stems, "test")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(100)  # what is imported and kept the first time
    few, many = peak(1000), peak(11000)
    assert len(MMapIndexedDataset(str(tmp_path / "input1"))) == 11000
    assert (many - few) / 10000 < 120  # bytes a row: three sizes, and the index made of them


def words(sentences):
    """A tokenizer: a token for each word, none for spaces."""
    return [np.array([len(word) for word in text.split()], dtype=np.int32) for text in sentences]


@given(
    texts=st.lists(st.text("ab    ", max_size=300), min_size=1, max_size=4),
    room=st.integers(1, 20),
    tokenizer=st.sampled_from([letters, words]),
)
def test_the_beginning_of_a_long_text_gives_the_tokens_of_the_whole(texts, room, tokenizer):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binarize, "CHARACTERS", 1)
        patch.setattr(binarize, "MARGIN", 1)
        found = binarize.tokenize(tokenizer, texts, room)
    for some, whole in zip(found, tokenizer(texts), strict=True):
        assert some[:room].tolist() == whole[:room].tolist()
        assert (len(some) > room) == (len(whole) > room)


def test_of_a_line_of_ten_megabytes_little_is_tokenized():
    given = []

    def tokenizer(sentences):
        given.extend(map(len, sentences))
        return words(sentences)

    [found] = binarize.tokenize(tokenizer, ["lorem ipsum " * 900_000], 510)
    assert len(found) > 510 and sum(given) < 30_000


@pytest.mark.needs_shared_data
@pytest.mark.parametrize("text", ["lorem, ipsum? ", "東京の天気は", "x", "Grüße  \n\n 3.14 "])
def test_a_real_tokenizer_gives_the_same_of_a_beginning(text):
    from fairseq_scl.data.stored import load_dictionary
    from fairseq_scl.encoders.tokenizers import load_tokenizer

    folder = SHARED / "gpt2_bpe"
    tokenizer = load_tokenizer(folder, load_dictionary(folder / "dict.txt").symbols)
    long = text * (60_000 // len(text))
    [some], [whole] = binarize.tokenize(tokenizer, [long], 510), tokenizer([long])
    assert len(some) < len(whole)
    assert some[:510].tolist() == whole[:510].tolist()


def test_a_label_that_was_not_there_at_first(tmp_path):
    rows = [Row(2, ("a",), "x"), Row(3, ("b",), "y")]
    with pytest.raises(UserError, match=r"a\.tsv, row 3: changed while it was read$"):
        list(binarize.writing_labels(rows, "a.tsv", ["x"], tmp_path / "label"))
