"""`fairseq-scl finetune`: a table in, a model and an estimate out."""

import csv
import json
import shlex
import shutil

import numpy as np
import pytest
from conftest import PACKAGE, configure, last_validation

from fairseq_scl import load
from fairseq_scl.cli import main
from fairseq_scl.errors import UserError
from fairseq_scl.files import locked
from fairseq_scl.finetuning.command import better_untrained
from fairseq_scl.finetuning.estimate import Estimate
from fairseq_scl.finetuning.finetune import LOCK, Found, finetune, number_of_folds, probed
from fairseq_scl.finetuning.training import changed, updates
from fairseq_scl.inference import calibration, refitted_head
from fairseq_scl.models import saved
from fairseq_scl.preparation.tables import Columns, file_table, read_file

ROWS = read_file(PACKAGE / "sample_data" / "train.tsv", Columns(("sentence",), "label"))[:40]
SHORT = ("--", "--max-update", "6", "--total-num-update", "6", "--warmup-updates", "1")


def write(path, rows=ROWS, header=("comment", "topic")):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([*row.sentences, row.label] for row in rows)
    return path


@pytest.fixture
def call(encoder, tmp_path):
    """Run the command on files in `tmp_path`; the model goes to `tmp_path/model`."""

    def finetune(*arguments, short=SHORT):
        fixed = ("--output", tmp_path / "model", "--encoder", encoder)
        main([str(each) for each in ("finetune", *fixed, *arguments, *short)])

    return finetune


@pytest.mark.integration
def test_a_table_becomes_a_model_an_estimate_and_predictions(call, tmp_path, capsys, monkeypatch):
    table = write(tmp_path / "comments.csv")
    call(table, "--folds", 2, "--jobs", 2)
    told = capsys.readouterr().out
    assert told.count("fairseq-train ") == 1 and "--user-dir" in told
    assert "95 % interval" in told and "2-fold cross-validation over 40 rows" in told
    assert "precision  recall" in told and "true" in told and "picture: " in told
    model = tmp_path / "model"
    assert (model / "confusion.png").is_file() and (model / "checkpoint_last.pt").is_file()
    assert [p.label for p in load(model).predict(["a joy", "a bore"])]
    assert calibration.read(model / "checkpoint_last.pt").fitted_on == "folds"
    assert json.loads((model / "result.json").read_text())["calibration"]["rows"] == 40
    stamps = {path: path.stat().st_mtime_ns for path in model.rglob("checkpoint*.pt")}
    assert len(stamps) == 3
    call(table, "--folds", 2, "--jobs", 2)  # nothing is trained twice
    assert {path: path.stat().st_mtime_ns for path in model.rglob("checkpoint*.pt")} == stamps
    again = capsys.readouterr().out
    assert "fairseq-train" not in again
    assert f"{model} is trained already, and measured again\n" in again
    assert told.endswith(again[again.index("accuracy") :])
    assert told.startswith(
        "sentences: comment; labels: topic\ntrain: 40 rows; negative 18, positive 22\n\n"
    )
    result = json.loads((model / "result.json").read_text())
    assert result["split"] == "folds" and np.sum(result["confusion"]) == 40
    main(["report", str(model)])
    assert f"{result['test']['accuracy']:.1f}" in (report := capsys.readouterr().out)
    assert "--split folds" in report
    with pytest.raises(UserError, match=r"was trained otherwise \(now --scl-weight 0\);"):
        call(table, "--folds", 2, "--loss", "ce")
    monkeypatch.chdir(model)
    call(table, "--folds", 2, "--output", "../model")  # the same from another folder
    assert "../model is trained already" in capsys.readouterr().out
    other = write(tmp_path / "other.csv", ROWS[:30])
    with pytest.raises(UserError, match="was made of another train file, or this one was changed"):
        call(other, "--folds", 2)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["data", "--max-update", "40", "--max-update", "6"], 6),
        (["data", "--max-update", "40", "--max-update=7"], 7),
        (["data", "--max-update", "40", "--max-update"], 0),
        (["data", "--max-update", "many"], 0),
        (["data"], 0),
    ],
)
def test_the_last_max_update_counts(flags, expected):
    assert updates(flags) == expected


@pytest.mark.parametrize(
    ("before", "flags", "expected"),
    [
        ("data --lr 1 --seed 1", "data --lr 1 --seed 2", "--seed 2"),
        ("data --lr 1 --warmup-updates 4", "data --lr 4 --warmup-updates 4", "--lr 4"),
        ("data --cpu", "data --cpu --fp16", "--fp16"),
        ("data --lr -1", "other --lr -1", "other"),
        ("data --cpu --fp16", "data --cpu", ""),
    ],
)
def test_what_changed_is_told_with_its_flag(before, flags, expected):
    assert " ".join(changed(before.split(), flags.split())) == expected


@pytest.mark.integration
def test_a_second_call_changes_the_head_without_training(call, tmp_path, capsys):
    table = write(tmp_path / "comments.csv")
    model = tmp_path / "model"
    folds = [model / "folds" / str(fold) for fold in (1, 2)]
    call(table, "--folds", 2)
    first = capsys.readouterr().out
    stamps = {path: path.stat().st_mtime_ns for path in model.rglob("checkpoint*.pt")}
    refit = probed(folds, "refit", "test")
    before = load(model).predict([row.sentences[0] for row in ROWS])

    call(table, "--folds", 2, "--head", "refit")
    told = capsys.readouterr().out
    assert "fairseq-train" not in told and f"accuracy {refit:.1%}" in told
    assert "--head refit" not in told.replace(str(tmp_path), "")
    assert {path: path.stat().st_mtime_ns for path in model.rglob("checkpoint*.pt")} == stamps
    assert len(list(model.rglob(refitted_head.NAME))) == 3
    assert calibration.read(model / "checkpoint_last.pt").refit is not None
    after = load(model).predict([row.sentences[0] for row in ROWS])
    assert all(np.allclose(a.embedding, b.embedding) for a, b in zip(before, after, strict=True))
    assert not any(np.allclose(a.logits, b.logits) for a, b in zip(before, after, strict=True))

    call(table, "--folds", 2)
    again = capsys.readouterr().out
    assert again.partition("\naccuracy ")[2] == first.partition("\naccuracy ")[2] != ""
    assert not list(model.rglob(refitted_head.NAME))
    results = [json.loads((fold / "result.json").read_text()) for fold in folds]
    for name in ("probe", "refit"):  # halves of equal size
        shares = [result[name]["test"]["accuracy"] / 100 for result in results]
        assert probed(folds, name, "test") == pytest.approx(np.mean(shares))

    moved = model.rename(tmp_path / "moved")
    call(table, "--folds", 2, "--output", moved, "--head", "refit")
    elsewhere = capsys.readouterr().out
    assert "trained already" in elsewhere and f"accuracy {refit:.1%}" in elsewhere
    times = {path.relative_to(moved): path.stat().st_mtime_ns for path in moved.rglob("*.pt")}
    assert times == {path.relative_to(model): stamp for path, stamp in stamps.items()}
    assert not model.exists()


@pytest.mark.integration
@pytest.mark.parametrize("heldout", [None, "valid", "test"])
def test_each_sentence_stands_by_what_the_model_says_of_it(encoder, tmp_path, heldout):
    columns = Columns(("comment",), "topic", must_have_label=True)
    tables = {"train": file_table(write(tmp_path / "comments.csv"), columns)}
    if heldout:
        other = write(tmp_path / "other.csv", ROWS[5:25][::-1])
        tables[heldout] = file_table(other, columns)
    model, folds = tmp_path / "model", None if heldout else 2
    found = finetune(tables, model, encoder=str(encoder), folds=folds, more=SHORT[1:])

    assert ("optimistic" in found.basis) == (heldout == "valid")  # which chose the state
    estimate, label_of = found.estimate, {row.sentences[0]: row.label for row in ROWS}
    truth = [estimate.classes[label] for label in estimate.labels]
    assert truth == [label_of[sentence] for (sentence,) in found.sentences]
    assert len(truth) == (20 if heldout else 40)
    if heldout:
        said = load(model).predict(found.sentences)
        assert np.allclose(estimate.logits, [each.logits for each in said], atol=1e-5)
        assert found.probe is not None and found.refit is not None


@pytest.mark.parametrize(
    "flag", ["--save-dir=there", "--no-save", "--disable-validation", "--valid-subset", "--fold"]
)
def test_flags_that_take_the_run_away_are_refused_before_anything_is_made(call, tmp_path, flag):
    table = write(tmp_path / "comments.csv")
    with pytest.raises(UserError, match=f"{flag} after --: finetune itself says"):
        call(table, "--", flag, "there", short=())
    assert sorted(tmp_path.iterdir()) == [table]


@pytest.mark.parametrize("flag", ["--max-update=0", "--max-update=-3"])
def test_a_training_without_end_is_refused(call, tmp_path, flag):
    table = write(tmp_path / "comments.csv")
    with pytest.raises(UserError, match="--max-update after -- must be at least 1"):
        call(table, "--", flag, short=())
    with pytest.raises(UserError, match="--seed -1 must be at least 0"):
        call(table, "--seed", "-1")
    assert sorted(tmp_path.iterdir()) == [table]


@pytest.mark.integration
def test_only_a_line_feed_ends_a_line(call, tmp_path, capsys):
    rows = [row._replace(sentences=(f"a\u2028b\x85c {row.sentences[0]}",)) for row in ROWS]
    table = write(tmp_path / "comments.csv", rows)
    call(table, "--test", table)
    assert "in truth" in capsys.readouterr().out
    text = tmp_path / "model" / "data" / "text" / "test.jsonl"
    text.write_bytes(text.read_bytes()[:100].rpartition(b"\n")[0])
    with pytest.raises(UserError, match="test.jsonl") as raised:
        call(table, "--test", table)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.integration
def test_two_finetunings_of_one_folder_do_not_mix(call, tmp_path):
    table = write(tmp_path / "comments.csv")
    call(table, "--folds", 0)
    with (
        locked(tmp_path / "model" / LOCK),
        pytest.raises(UserError, match="model is in use by another process"),
    ):
        call(table, "--folds", 0, "--head", "refit")
    assert not (tmp_path / "model" / refitted_head.NAME).exists()
    (tmp_path / "model" / "checkpoint_last.pt").unlink()  # trained anew
    call(table, "--folds", 0)
    assert (tmp_path / "model" / "checkpoint_last.pt").is_file()


def found_with(probe, refit, wrong=1):
    """A fine-tuning that has so many of four rows wrong."""
    labels = np.array([0, 1, 0, 1])
    said = np.eye(2)[np.where(np.arange(4) < wrong, 1 - labels, labels)]
    return Found("run", Estimate(["a", "b"], labels, said), "4 rows", [], probe, refit)


@pytest.mark.parametrize(
    ("probe", "refit", "told"),
    [
        (1.0, 0.5, "without fine-tuning, a logistic regression on the encoder is better: 100.0%"),
        (1.0, 0.9, "is better: 100.0%; with --head refit the tuned model has 90.0%"),
        (0.75, 1.0, None),
        (0.5, 0.5, None),
        (None, None, None),
    ],
)
def test_a_better_probe_is_told_in_a_line(probe, refit, told):
    lines = better_untrained(found_with(probe, refit))
    assert lines == [] if told is None else len(lines) == 1 and lines[0].endswith(told)


@pytest.mark.integration
def test_a_class_of_one_row_is_why_there_is_no_estimate(call, tmp_path, capsys):
    table = write(tmp_path / "comments.csv", [*ROWS, ROWS[0]._replace(label="Positive")])
    call(table)
    told = capsys.readouterr().out
    assert "no estimate: cross-validation needs two rows of each class, and 'Positive' has" in told
    assert "\n    classes Positive and positive differ only in case\n" in told


@pytest.mark.integration
def test_the_surest_mistakes_are_as_sure_as_predict_says(call, encoder, tmp_path):
    table = write(tmp_path / "comments.csv")
    columns = Columns(("comment",), "topic", must_have_label=True)
    tables = {name: file_table(table, columns) for name in ("train", "valid", "test")}
    call(table, "--valid", table, "--test", table)
    model = tmp_path / "model"
    found = finetune(tables, model, encoder=str(encoder), more=SHORT[1:], verbose=False)
    said = load(model).predict([row.sentences[0] for row in ROWS])
    sure = [max(one.probabilities.values()) for one in said]
    assert found.estimate.temperature == load(model).temperature != 1
    assert np.allclose(found.estimate.probabilities, sure, atol=1e-5)


def test_without_an_estimate_nothing_is_better():
    assert better_untrained(Found("run", None, "none", [], 1.0, 1.0)) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--label", "third"), "with columns comment, topic, not comment, third; choose another"),
        (("--encoding", "latin-1"), "with encoding utf-8, not latin-1; choose another --output"),
        (("--test", "comments.csv"), "made of the files of train, not of train, test; choose"),
        (("--encoder", "other"), "for another encoder"),
    ],
)
def test_an_output_is_of_one_table_read_in_one_way_for_one_encoder(
    call, encoder, tmp_path, monkeypatch, arguments, told
):
    def stopped(*_):
        raise UserError("stopped")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fairseq_scl.finetuning.finetune.train_all", stopped)
    table = tmp_path / "comments.csv"
    table.write_text("comment,topic,third\n" + "good film,a,x\nbad film,b,y\n" * 3)
    columns = ("--sentence", "comment", "--label", "topic")
    with pytest.raises(UserError, match="stopped"):
        call(table, *columns)
    other = shutil.copytree(encoder, tmp_path / "other")
    with open(other / "dict.txt", "a") as file:
        file.write("another 1\n")
    arguments = [other if word == "other" else word for word in arguments]
    with pytest.raises(UserError, match=told):
        call(table, *columns, *arguments, "--dry-run")


@pytest.mark.integration
def test_with_validation_and_test_the_best_state_is_tested(call, tmp_path, capsys):
    table = write(tmp_path / "train.csv")
    test = write(tmp_path / "test.csv", ROWS[:25])
    call(table, "--valid", test, "--test", test, "--loss", "ce")
    told = capsys.readouterr().out
    assert "25 test rows" in told and "--scl-weight 0 " in told
    assert "--scl-weight 0.9" not in told
    assert saved.checkpoint_of(tmp_path / "model").name == "checkpoint_best.pt"
    assert not (tmp_path / "model" / "folds").exists()
    classifier = load(tmp_path / "model")
    said = classifier.predict([row.sentences[0] for row in ROWS[:25]])
    right = sum(p.label == row.label for p, row in zip(said, ROWS[:25], strict=True))
    assert f"accuracy {right / 25:.1%}" in told
    result = json.loads((tmp_path / "model" / "result.json").read_text())
    assert ("is better: " in told) == (result["probe"]["test"]["accuracy"] / 100 > right / 25)


@pytest.mark.integration
def test_patience_ends_a_training_that_gets_no_better(call, tmp_path):
    table = write(tmp_path / "train.csv")
    still = ("--", "--lr", "0", "--max-update", "60", "--total-num-update", "60")
    every = ("--validate-interval-updates", "5", "--save-interval-updates", "5", "--patience", "2")
    call(table, "--valid", table, short=(*still, *every))
    log = (tmp_path / "model" / "train.log").read_text()
    assert "early stop since valid performance hasn't improved for last 2 runs" in log
    assert last_validation(log)["num_updates"] == 15  # the first is the best, two are no better


@pytest.mark.integration
def test_what_fails_in_training_is_told_in_one_line(call, tmp_path):
    table = write(tmp_path / "comments.csv")
    with pytest.raises(UserError, match="training failed: .*scl-temperature.*train.log"):
        call(table, "--folds", 0, short=(*SHORT, "--scl-temperature", "-1"))


def test_a_dry_run_prints_commands_that_fairseq_takes(call, tmp_path, capsys):
    call(write(tmp_path / "comments.csv"), "--folds", 3, "--dry-run")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fairseq-t")]
    assert len(lines) == 4
    folds = [configure(shlex.split(line)[1:]).task.fold for line in lines]
    assert folds == ["1/3", "2/3", "3/3", None]
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("header", "arguments", "told"),
    [
        (("comment", "review"), (), "--sentence comment or --sentence review"),
        (("comment", "topic"), ("--folds", 30), "--folds 30: the rarest class has only 1"),
        (("comment", "topic"), ("--folds", 1), "--folds 1 must be at least 2"),
        (("comment", "topic"), ("--jobs", 0), "--jobs 0 must be at least 1"),
        (("comment", "topic"), ("--label", "comment"), "must name different columns"),
        (("comment", "topic"), ("--label", "kind"), "no column 'kind'"),
        (("comment", "topic"), ("--encoder", "/nowhere"), "/nowhere"),
    ],
)
def test_mistakes_are_told_in_one_line(call, tmp_path, header, arguments, told):
    table = write(tmp_path / "comments.csv", header=header)
    with pytest.raises(UserError, match=told) as raised:
        call(table, *arguments)
    assert len(str(raised.value).splitlines()) == 1


def test_folds_are_five_where_nothing_else_tells_and_never_more_than_rows_of_a_class():
    assert number_of_folds(None, 20, tested=False) == 5
    assert number_of_folds(None, 3, tested=False) == 3
    assert number_of_folds(None, 1, tested=False) == 0
    assert number_of_folds(None, 20, tested=True) == 0
    with pytest.raises(UserError, match="--folds is for data without"):
        number_of_folds(4, 20, tested=True)


def test_the_same_rows_in_jsonl_are_found_by_content(call, tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    lines = [
        json.dumps({"id": i, "what they said": row.sentences[0], "kind": row.label})
        for i, row in enumerate(ROWS)
    ]
    path.write_text("\n".join(lines))
    call(path, "--dry-run", "--folds", 0)
    assert "fairseq-train" in capsys.readouterr().out
