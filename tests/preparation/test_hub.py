"""`prepare` with data sets of the Hugging Face hub: one on this machine, and folders."""

import io
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import hub as local_hub
import pyarrow
import pyarrow.parquet
import pytest
from conftest import prepare

from fairseq_scl.errors import UserError
from fairseq_scl.preparation.glue import GLUE, PAIR
from fairseq_scl.preparation.hub import glue_hub_tables, hub_tables
from fairseq_scl.preparation.tables import Columns

TEXT = Columns(("sentence",), "label")
ANY = dict.fromkeys(("train", "valid", "test"), TEXT)
USUAL = dict.fromkeys(ANY)
GLUE_CLASSES = {
    "CoLA": ("unacceptable", "acceptable"),
    "SST-2": ("negative", "positive"),
    "MRPC": ("not_equivalent", "equivalent"),
    "QQP": ("not_duplicate", "duplicate"),
    "MNLI": ("entailment", "neutral", "contradiction"),
    "QNLI": ("entailment", "not_entailment"),
    "RTE": ("entailment", "not_entailment"),
    "WNLI": ("not_entailment", "entailment"),
}


def parquet(**columns) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
    return buffer.getvalue()


def card(classes=(), config="default", **splits: str) -> bytes:
    """A data set's README.md: where the splits lie; the names of its classes."""
    files = "".join(f"  - split: {split}\n    path: {path}\n" for split, path in splits.items())
    text = f"configs:\n- config_name: {config}\n  data_files:\n{files}"
    if classes:
        names = "".join(f"          '{i}': {name}\n" for i, name in enumerate(classes))
        text += f"dataset_info:\n- config_name: {config}\n  features:\n"
        text += "  - name: sentence\n    dtype: string\n  - name: label\n    dtype:\n"
        text += f"      class_label:\n        names:\n{names}"
    return f"---\n{text}---\n".encode()


def sentiment() -> dict[str, bytes]:
    """A data set of 60 + 6 + 4 rows, in parquet, whose test labels are withheld."""
    files = {f"data/{split}.parquet": rows for split, rows in {
        "train": parquet(sentence=[f"a fine film {i}" for i in range(60)], label=[0, 1] * 30),
        "validation": parquet(sentence=[f"a dull film {i}" for i in range(6)], label=[0, 1] * 3),
        "test": parquet(sentence=[f"a film {i}" for i in range(4)], label=[-1] * 4),
    }.items()}  # fmt: skip
    paths = {split: f"data/{split}.parquet" for split in ("train", "validation", "test")}
    return {"README.md": card(("bad", "good"), "films", **paths), **files}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def rows(tables) -> dict[str, list]:
    return {
        split: [(*row.sentences, row.label) for row in table] for split, table in tables.items()
    }


def told(output: Path) -> dict:
    return json.loads((output / "prepared.json").read_text(encoding="utf-8"))


# --- the hub itself


@pytest.fixture
def hub():
    with local_hub.serving() as hub:
        hub.repositories["datasets/someone/films"] = sentiment()
        yield hub


def test_a_data_set_of_the_hub_is_prepared_then_taken_from_the_cache(hub, tmp_path, encoder):
    arguments = ("--encoder", encoder, "--data", "hf:someone/films:films")
    for name, more in {"first": {}, "again": {"HF_HUB_OFFLINE": "1"}}.items():
        command = ("prepare", tmp_path / name, *arguments)
        result = local_hub.command(hub.url, tmp_path / "home", *command, **more)
        assert result.returncode == 0, result.stderr[-2000:]
    said = told(tmp_path / "first")
    assert said["classes"] == ["bad", "good"]
    splits = said["splits"]
    assert {split: entry["rows"] for split, entry in splits.items()} == {
        "train": 60, "valid": 6, "test": 4,
    }  # fmt: skip
    assert [splits[split]["labelled"] for split in splits] == [True, True, False]
    assert splits["valid"]["file"] == "hf:someone/films:films, validation"
    assert splits["valid"]["revision"] == local_hub.COMMIT
    assert told(tmp_path / "again") == said
    assert [path for path, _ in hub.fetched if path.endswith("parquet")] == [
        "data/train.parquet", "data/validation.parquet", "data/test.parquet",
    ]  # fmt: skip


def test_no_network_is_told_at_once_unless_the_cache_has_it(hub, tmp_path, encoder):
    command = ("prepare", tmp_path / "out", "--encoder", encoder, "--data", "hf:someone/films")
    nowhere = "http://127.0.0.1:1"
    result = local_hub.command(nowhere, tmp_path / "home", *command)
    assert result.returncode == 1
    [line] = result.stderr.splitlines()  # no word of tries
    assert line.startswith("fairseq-scl: error: hf:someone/films: Couldn't reach")
    assert local_hub.command(hub.url, tmp_path / "home", *command).returncode == 0
    again = ("prepare", tmp_path / "again", *command[2:])
    result = local_hub.command(nowhere, tmp_path / "home", *again)
    assert result.returncode == 0, result.stderr[-2000:]


def test_a_cut_download_is_tried_again(hub, tmp_path, encoder):
    hub.stop_after = [10**6, 600]  # the card, train
    command = ("prepare", tmp_path / "out", "--encoder", encoder, "--data", "hf:someone/films")
    result = local_hub.command(hub.url, tmp_path / "home", *command)
    assert result.returncode == 0, result.stderr[-2000:]
    assert [path for path, _ in hub.fetched].count("data/train.parquet") == 2


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("hf:someone/nothing", "hf:someone/nothing: Dataset 'someone/nothing' doesn't exist"),
        ("hf:someone/films:books", "hf:someone/films:books: BuilderConfig 'books' not found"),
        ("hf:someone/closed", "hf:someone/closed: Dataset 'someone/closed' is a gated dataset"),
        ("glue:RTE", "hf:nyu-mll/glue:rte: "),
    ],
)
def test_what_the_hub_does_not_give(hub, tmp_path, encoder, name, reason):
    hub.repositories["datasets/someone/closed"] = sentiment()
    hub.gated = {"datasets/someone/closed"}
    command = ("prepare", tmp_path / "out", "--encoder", encoder, "--data", name)
    result = local_hub.command(hub.url, tmp_path / "home", *command)
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"fairseq-scl: error: {reason}")
    assert last.endswith("or set HF_ENDPOINT to a mirror")
    assert ("--glue-dir" if name.startswith("glue") else "--data hf:FOLDER") in last
    assert not (tmp_path / "out").exists()


def test_training_loads_neither_datasets_nor_pandas():
    code = (
        "import sys, fairseq.tasks, fairseq.criterions; there = {*sys.modules}\n"
        "import fairseq_scl.plugin; more = {*sys.modules} - there\n"
        "sys.exit(bool({'datasets', 'pandas', 'pyarrow', 'huggingface_hub'} & more))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=local_hub.ROOT)


# --- folders that hold a data set


def test_class_names_and_withheld_labels(tmp_path):
    tables = hub_tables(str(write(tmp_path / "films", sentiment())), ANY, USUAL)
    found = rows(tables)
    assert found["train"][:2] == [("a fine film 0", "bad"), ("a fine film 1", "good")]
    assert found["test"] == [(f"a film {i}", None) for i in range(4)]
    assert rows(tables) == found  # and can be read again


def test_the_column_text_serves_and_dev_is_a_validation_set(tmp_path):
    lines = b'{"text": "fine", "label": "up"}\n{"text": "dull", "label": "down"}\n'
    folder = write(tmp_path / "a", {"train.jsonl": lines, "dev.jsonl": lines})
    expected = [("fine", "up"), ("dull", "down")]
    assert rows(hub_tables(str(folder), ANY, USUAL)) == {"train": expected, "valid": expected}


def test_a_split_may_be_a_part_of_one(tmp_path):
    folder = write(tmp_path / "films", sentiment())
    wanted = {"train": "train[:90%]", "valid": "train[90%:]", "test": "validation"}
    found = rows(hub_tables(str(folder), ANY, wanted))
    assert {split: len(rows) for split, rows in found.items()} == {
        "train": 54, "valid": 6, "test": 6,
    }  # fmt: skip
    assert found["valid"][0] == ("a fine film 54", "bad")


def message(*arguments) -> str:
    with pytest.raises(UserError) as error:
        rows(hub_tables(*arguments))
    text = str(error.value)
    assert len(text.splitlines()) == 1
    return text


def test_a_data_set_without_validation_set(tmp_path):
    lines = b'{"sentence": "fine", "label": "up"}\n'
    folder = write(tmp_path / "a", {"train.jsonl": lines, "test.jsonl": lines})
    assert message(str(folder), ANY, USUAL).endswith(
        f"hf:{folder} has no validation set; --valid-split names one of train, test, or a part "
        "such as 'train[90%:]'"
    )


def test_a_damaged_file_in_a_folder(tmp_path):
    folder = write(tmp_path / "films", sentiment() | {"data/train.parquet": b"no parquet"})
    assert "magic bytes" in message(str(folder), ANY, USUAL)


def test_no_name():
    assert "--data hf: names no data set" in message("", ANY, USUAL)


def test_mistakes_in_columns_and_splits(tmp_path):
    folder = write(tmp_path / "films", sentiment())
    where = f"hf:{folder}, "
    told = f"{where}train: no column 'review'; the columns are sentence, label"
    columns = dict.fromkeys(ANY, Columns(("review",), "label"))
    assert message(str(folder), columns, USUAL).endswith(told)
    columns = ANY | {"test": Columns(("sentence",), "stars", must_have_label=True)}
    assert "--unlabelled" in message(str(folder), columns, USUAL)
    assert f"{where}final: Unknown split" in message(str(folder), ANY, USUAL | {"test": "final"})
    columns = dict.fromkeys(ANY, Columns(("label",), "sentence"))
    assert "train, row 1: 'label' must be a string" in message(str(folder), columns, USUAL)


def test_memory_does_not_hold_a_split(tmp_path):
    many = parquet(sentence=["a" * 500] * 40_000, label=[0, 1] * 20_000)
    folder = write(tmp_path / "big", {"train.parquet": many, "validation.parquet": many})
    table = hub_tables(str(folder), ANY, USUAL)["train"]
    tracemalloc.start()
    assert sum(1 for _ in table) == 40_000
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


# --- GLUE


def glue(task: str, number: int = 6) -> dict[str, bytes]:
    """A task as the hub has it, in small."""
    pair = {"MNLI": ("premise", "hypothesis"), "MRPC": PAIR}
    names = pair.get(task, GLUE[task].columns.sentences)
    config = task.replace("-", "").lower()
    classes = GLUE_CLASSES.get(task)
    files, paths = {}, {}
    for file in GLUE[task].files.values():
        split = file.removesuffix(".tsv").replace("dev", "validation")
        columns = {name: [f"{name} {i}" for i in range(number)] for name in names}
        labels = [-1] * number
        if not split.startswith("test"):
            labels = [i % len(classes) for i in range(number)] if classes else [0.25, 3.8, 5] * 2
        label = pyarrow.array(labels, pyarrow.int64() if classes else pyarrow.float32())
        paths[split] = f"{config}/{split}-00000-of-00001.parquet"
        files[paths[split]] = parquet(**columns, label=label, idx=list(range(number)))
    text = card(classes or (), config, **paths).decode()
    features = "".join(f"  - name: {name}\n    dtype: string\n" for name in names)
    text = text.replace("  - name: sentence\n    dtype: string\n", features)
    index = "  - name: idx\n    dtype: int32\n"
    text = text.replace("---\n", "---\n", 1)[: -len("---\n")] + (index if classes else "") + "---\n"
    return {"README.md": text.encode(), **files}


@pytest.mark.parametrize("task", GLUE)
def test_glue_of_the_hub_has_the_classes_of_glues_own_files(tmp_path, monkeypatch, task):
    write(tmp_path / "nyu-mll" / "glue", glue(task))
    monkeypatch.chdir(tmp_path)
    found = rows(glue_hub_tables(task))
    assert list(found) == list(GLUE[task].files)
    for split, examples in found.items():
        labels = [label for *_, label in examples]
        assert len(examples) == 6
        assert all(len(row) == 1 + len(GLUE[task].columns.sentences) for row in examples)
        if split.startswith("test"):
            assert labels == [None] * 6
        elif task == "STS-B":
            assert labels[:3] == ["0.25", "3.8", "5"]
        else:
            assert set(labels) == set(GLUE[task].labels)
    if task == "RTE":
        assert [label for *_, label in found["train"]][:2] == ["entailment", "not_entailment"]
    if task == "MRPC":
        assert [label for *_, label in found["train"]][:2] == ["0", "1"]


def test_glue_is_prepared_from_the_hub(tmp_path, monkeypatch, encoder, capsys):
    write(tmp_path / "nyu-mll" / "glue", glue("MNLI"))
    monkeypatch.chdir(tmp_path)
    said = told(prepare(tmp_path / "out", encoder, "--data", "glue:MNLI"))
    assert said["classes"] == ["contradiction", "entailment", "neutral"]
    assert list(said["splits"]) == ["train", "valid", "valid1", "test", "test1"]
    assert said["splits"]["valid1"]["file"] == "hf:nyu-mll/glue:mnli, validation_mismatched"
    assert said["splits"]["valid1"]["published_rows"] == 9832
    assert "validation_matched: warning: valid has 6 rows" in capsys.readouterr().err


def test_a_folder_that_holds_no_data_set(tmp_path):
    (tmp_path / "noise.bin").write_bytes(b"\xff\x00" * 50)
    columns = dict.fromkeys(("train", "valid", "test"), TEXT)
    with pytest.raises(UserError) as error:
        hub_tables(str(tmp_path), columns, dict.fromkeys(columns))
    told = "a folder must hold a data set's files, such as train.csv; --train names a file"
    assert str(error.value).endswith(told)
    assert "download" not in str(error.value)
