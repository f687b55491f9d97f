"""The manifest of a run, and the command that checks it."""

import json
import os
import shutil

import numpy as np
import pytest
from conftest import SHARED, prepare, train
from hypothesis import given
from hypothesis import strategies as st
from mutations import ended, in_bounded_memory, mutations
from pydantic import ValidationError

from fairseq_scl.cli import main
from fairseq_scl.data import manifest
from fairseq_scl.data.rows import Choices, Rows


@given(st.sets(st.integers(0, 400)))
def test_compact_rows_stand_for_the_same_rows(chosen):
    rows = np.array(sorted(chosen), dtype=np.int64)
    entries = manifest.compact(rows)
    assert manifest.expand(entries) == rows.tolist()
    assert len(entries) <= len(rows)


def test_a_run_of_rows_is_written_by_its_ends():
    assert manifest.compact(np.array([0, 1, 2, 3, 5, 7, 8])) == [(0, 3), 5, 7, 8]


@pytest.fixture
def copy(data, tmp_path):
    """A copy of the prepared data that a test may change."""
    shutil.copytree(data, tmp_path / "data")
    return tmp_path / "data"


def written(data, path, **choices):
    made = manifest.make(Rows(data, Choices(**choices)), ["train", "valid", "test"])
    path.write_text(made.json_text())
    return path


CASES = [
    {},
    {"num_shots": 20},
    {"num_shots": 30, "protocol": "few-shot", "shots_sampling": "balanced"},
    {"num_shots": 30, "protocol": "full", "shots_sampling": "random", "shots_seed": 7},
    {"num_shots": 20, "noise": "label", "label_noise": 0.25},
]


@pytest.mark.parametrize("choices", CASES)
def test_a_manifest_is_verified(data, tmp_path, capsys, choices):
    path = written(data, tmp_path / "manifest.json", **choices)
    main(["verify", str(path), "--data", str(data)])
    assert "verified" in capsys.readouterr().out


def refused(path, data) -> str:
    with pytest.raises(SystemExit) as error:
        main(["verify", str(path), "--data", str(data)])
    assert "\n" not in str(error.value)
    return str(error.value)


def test_changed_data_is_told(copy, tmp_path):
    path = written(copy, tmp_path / "manifest.json", num_shots=20)
    with open(copy / "input0" / "train.bin", "r+b") as file:
        file.seek(100)
        file.write(b"\x07")
    assert f"{copy / 'input0' / 'train.bin'} has changed" in refused(path, copy)


def test_missing_data_is_told(copy, tmp_path):
    path = written(copy, tmp_path / "manifest.json", num_shots=20)
    (copy / "label" / "valid.idx").unlink()
    assert "label/valid.idx is missing" in refused(path, copy)


def test_a_manifest_changed_by_hand_is_told(data, tmp_path):
    path = written(data, tmp_path / "manifest.json", num_shots=20)
    said = json.loads(path.read_text())
    said["choices"]["shots_seed"] = 2
    path.write_text(json.dumps(said))
    assert "its checksum does not match" in refused(path, data)


def test_rows_that_the_seeds_do_not_give_are_told(data, tmp_path):
    path = written(data, tmp_path / "manifest.json", num_shots=20)
    said = json.loads(path.read_text())
    said["splits"]["train"]["rows"][0] += 1
    del said["sha256"]
    path.write_text(json.dumps({**said, "sha256": manifest.checksum(said)}))
    assert "the rows of 'train' are not those of its seeds" in refused(path, data)


def test_flips_that_the_seeds_do_not_give_are_told(data, tmp_path):
    path = written(data, tmp_path / "manifest.json", **CASES[-1])
    said = json.loads(path.read_text())
    said["flipped"].popitem()
    del said["sha256"]
    path.write_text(json.dumps({**said, "sha256": manifest.checksum(said)}))
    assert "its noise is not what DATA and the seeds give" in refused(path, data)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the whole: Invalid JSON"),
        ("[" * 100_000, "the whole: Invalid JSON: recursion limit exceeded"),
        ("{}", "files: Field required"),
        ("[]", "the whole: Input should be an object"),
        ('{"files": {}, "choices": {"colour": 1}}', "choices.colour: Unexpected keyword argument"),
    ],
)
def test_something_else_is_no_manifest(data, tmp_path, text, told):
    path = tmp_path / "manifest.json"
    path.write_text(text)
    assert f"{path}: {told}" in refused(path, data)


def test_a_fifo_is_not_waited_for(data, tmp_path):
    os.mkfifo(tmp_path / "manifest.json")
    assert "manifest.json: not a regular file" in refused(tmp_path / "manifest.json", data)


def sealed(content: dict) -> str:
    """The text of a manifest with a checksum that is right."""
    content = {key: value for key, value in content.items() if key != "sha256"}
    return json.dumps({**content, "sha256": manifest.checksum(content)})


@pytest.mark.parametrize("choices", [CASES[-1], CASES[2]])
def test_whatever_else_stands_at_a_key_is_told_in_one_line(data, tmp_path, capsys, choices):
    path = written(data, tmp_path / "manifest.json", **choices)
    said = json.loads(path.read_text())
    verified = set()
    for what, changed in mutations(said):
        texts = [json.dumps(changed)] + ([sealed(changed)] if isinstance(changed, dict) else [])
        for text in texts:
            path.write_text(text)
            told = ended(["verify", str(path), "--data", str(data)])
            assert len(told.splitlines()) <= 1, what
            if not told and json.loads(text) != said:
                verified.add(what.split(" ")[0])
    # what a default stands for or does not matter to these rows; fewer splits; a manifest of 0.1
    harmless = {f"choices.{name}" for name in said["choices"]}
    harmless |= {"splits.valid", "splits.test", "in_train"}
    assert verified <= harmless


@pytest.mark.parametrize("rows", [[[0, 10**9]], [[0, 10**30]], [0, [1, 2**62], 2**63]])
def test_rows_are_not_allocated_because_a_manifest_names_them(data, tmp_path, rows):
    path = written(data, tmp_path / "manifest.json", num_shots=20)
    said = json.loads(path.read_text())
    said["splits"]["train"]["rows"] = rows
    path.write_text(sealed(said))
    finished = in_bounded_memory("verify", path, "--data", data)
    assert "the rows of 'train' are not those of its seeds" in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize("rows", [[[0, 10**9]], [5, [6, 2**62]]])
def test_no_more_rows_are_expanded_than_there_are(rows):
    split = manifest.Split.model_validate_json(json.dumps({"source": "train", "rows": rows}))
    with pytest.raises(ValueError, match=r"row \d+ is not among 0 to 99"):
        split.numbers(100)
    assert len(split) > 10**8


@pytest.mark.parametrize("rows", [[3, 2], [[5, 3]], [-1], [0, 0], [[0, 3], 3], [[0, 1, 2]], ["0"]])
def test_rows_that_are_none(rows):
    with pytest.raises(ValidationError):
        manifest.Split.model_validate_json(json.dumps({"source": "train", "rows": rows}))


def test_flipped_labels_are_recorded_by_row(data):
    choices = Choices(num_shots=20, noise="label", label_noise=0.25)
    made = manifest.make(Rows(data, choices), ["train"])
    clean = Rows(data, Choices(num_shots=20))
    labels = dict(zip(clean.of("train").rows, clean.training_labels()[0], strict=True))
    assert len(made.flipped) == 5
    assert all(labels[row] != label for row, label in made.flipped.items())


def test_a_run_writes_one_that_verifies(recipe, tmp_path, capsys):
    train(recipe.flags(tmp_path, "--max-update", 1, "--protocol", "few-shot"))
    main(["verify", str(tmp_path / "manifest.json"), "--data", str(recipe.data)])
    assert "train 20, valid 50, test 50" in capsys.readouterr().out


def test_a_manifest_without_that_count_verifies(data, tmp_path, capsys):
    path = written(data, tmp_path / "manifest.json", num_shots=20)
    said = json.loads(path.read_text())
    del said["in_train"]
    path.write_text(sealed(said))
    main(["verify", str(path), "--data", str(data)])
    assert "verified" in capsys.readouterr().out
    said["flipped"] = {said["splits"]["train"]["rows"][0]: 0}
    path.write_text(sealed(said))
    with pytest.raises(SystemExit, match="its noise is not what DATA and the seeds give"):
        main(["verify", str(path), "--data", str(data)])


def test_rows_of_other_splits_that_are_trained_on_are_counted(encoder, tmp_path, capsys):
    words = [f"film {number}" for number in range(8)]
    for split, texts in {"train": words, "valid": ["a film"], "test": [*words[:3], "no"]}.items():
        lines = [f"{text},{at % 2}" for at, text in enumerate(texts)]
        (tmp_path / f"{split}.csv").write_text("\n".join(["sentence,label", *lines]))
    data = prepare(
        tmp_path / "data", encoder, "--sentence", "sentence", "--label", "label",
        *(word for split in ("train", "valid", "test")
          for word in (f"--{split}", tmp_path / f"{split}.csv")),
    )  # fmt: skip
    path = written(data, tmp_path / "manifest.json")
    assert manifest.read(path).in_train == {"valid": 0, "test": 3}
    main(["verify", str(path), "--data", str(data)])
    assert "3 of 4 test rows stand in train too" in capsys.readouterr().out
    rows = Rows(data, Choices(num_shots=2))
    drawn = {words[row] for row in rows.of("train").rows}
    made = manifest.make(rows, ["train", "test"])
    assert made.in_train == {"test": len(drawn & set(words[:3]))}


@pytest.mark.needs_shared_data
def test_draws_nest_on_sst2(encoder, tmp_path):
    data = prepare(
        tmp_path / "sst2", encoder, "--data", "glue:SST-2", "--glue-dir", SHARED / "glue",
        "--max-length", 64,
    )  # fmt: skip
    drawn = [
        set(Rows(data, Choices("few-shot", shots)).of("train").rows) for shots in (20, 100, 1000)
    ]
    assert drawn[0] < drawn[1] < drawn[2]
