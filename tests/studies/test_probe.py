"""The probe: its C, and that it sees the encoder before training and the run's own rows."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from conftest import PACKAGE, build_model, train
from sklearn.linear_model import LogisticRegression

from fairseq_scl.cli import main
from fairseq_scl.data import manifest
from fairseq_scl.inference.classifier import load
from fairseq_scl.preparation.tables import Columns, read_file
from fairseq_scl.studies import evaluate, probe

ROWS = {
    split: read_file(PACKAGE / "sample_data" / f"{split}.tsv", Columns(("sentence",), "label"))
    for split in ("train", "valid", "test")
}


def blobs(rows, seed, count=2):
    """Rows of classes that overlap."""
    rng = np.random.default_rng(seed)
    classes = np.arange(rows) % count
    return (rng.normal(size=(rows, 6)) + np.eye(6)[classes]).astype(np.float32), classes


def score(strength, known, tested):
    """Accuracy of a logistic regression on vectors of length 1, in percent."""
    known, tested = (
        (vectors / np.linalg.norm(vectors, axis=1, keepdims=True), classes)
        for vectors, classes in (known, tested)
    )
    model = LogisticRegression(C=strength, max_iter=1000).fit(*known)
    return 100 * model.score(*tested)


@pytest.mark.parametrize("seed", range(5))
def test_c_is_the_best_on_validation_rows(seed):
    known, held_out, tested = blobs(24, seed), blobs(50, seed + 100), blobs(60, seed + 200)
    found = probe.probe_metrics(known, held_out, tested, 2)
    scores = [score(strength, known, held_out) for strength in probe.STRENGTHS]
    assert found["C"] == probe.STRENGTHS[int(np.argmax(scores))]
    assert found["valid"]["accuracy"] == pytest.approx(max(scores))
    assert found["test"]["accuracy"] == pytest.approx(score(found["C"], known, tested))


def test_without_validation_rows_c_is_chosen_within_the_training_rows_if_there_are_enough():
    tested = blobs(60, 2)
    few = probe.probe_metrics(blobs(8, 1), None, tested, 2)
    assert few["C"] == 1 and few["valid"] is None
    assert few["test"]["accuracy"] == pytest.approx(score(1, blobs(8, 1), tested))
    chosen = {probe.probe_metrics(blobs(40, seed), None, None, 2)["C"] for seed in range(8)}
    assert chosen > {1} and chosen <= set(probe.STRENGTHS)


def test_a_class_without_training_rows_is_never_said():
    vectors, classes = blobs(30, 1, count=3)
    known = vectors[classes < 2], classes[classes < 2]
    found = probe.probe_metrics(known, None, (vectors, classes), 3)
    assert found["test"]["accuracy"] <= 100 * 2 / 3


def parts_of(run):
    """The sentence vectors that a run's model gives its rows of each split, and their classes."""
    classifier = load(run)
    chosen = json.loads((run / manifest.NAME).read_text())["splits"]["train"]["rows"]
    train_rows = [ROWS["train"][row] for row in manifest.expand(chosen)]
    for rows in (train_rows, ROWS["valid"], ROWS["test"]):
        said = classifier.predict([row.sentences for row in rows])
        labels = [classifier.classes.index(row.label) for row in rows]
        yield np.stack([one.embedding for one in said]), np.array(labels)


@pytest.fixture(scope="module")
def untrained_and_trained(recipe, tmp_path_factory):
    """Evaluated runs at a learning rate of nothing, and of much."""
    folder = tmp_path_factory.mktemp("probe")
    runs = [folder / "untrained", folder / "trained"]
    for run, rate in zip(runs, ("1e-30", "1e-3"), strict=True):
        train(recipe.flags(run, "--lr", rate))
        main(["evaluate", str(run)])
    return runs


def test_probe_is_of_the_vectors_before_training_and_refit_of_those_after(untrained_and_trained):
    untrained, trained = untrained_and_trained
    before, after = list(parts_of(untrained)), list(parts_of(trained))
    told = json.loads((trained / "result.json").read_text())
    for name, parts in (("probe", before), ("refit", after)):
        expected = probe.probe_metrics(*parts, 2)
        assert told[name]["C"] == expected["C"]
        assert told[name]["valid"] == pytest.approx(expected["valid"], abs=0.6)  # a near tie
        assert told[name]["test"] == pytest.approx(expected["test"], abs=0.6)
    same = json.loads((untrained / "result.json").read_text())
    assert same["probe"] == same["refit"] == told["probe"]
    assert not np.allclose(before[0][0], after[0][0], atol=1e-2)


def missing(path, encoder):
    path.unlink()


def damaged(path, encoder):
    path.write_bytes(b"PK")


def of_other_size(path, encoder):
    folder = path.with_name("wider")
    folder.mkdir()
    shutil.copy(encoder / "dict.txt", folder)
    build_model(folder, encoder_embed_dim=16)
    shutil.copy(folder / "model.pt", path)


def of_another_model(path, encoder):
    torch.save({"weights": {}}, path)


def of_other_weights(path, encoder):
    state = torch.load(path, weights_only=True)
    embedding = state["model"]["encoder.sentence_encoder.embed_tokens.weight"]
    state["model"]["encoder.sentence_encoder.embed_tokens.weight"] = embedding + 1
    torch.save(state, path)


def without_encoder(path):
    """A manifest without the checksum of the encoder."""
    said = json.loads(path.read_text())
    del said["encoder"], said["sha256"]
    path.write_text(json.dumps(said | {"sha256": manifest.checksum(said)}))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (missing, "the encoder before training, {}, is not there"),
        (damaged, "{} is not the encoder before training: .*not a whole fairseq checkpoint"),
        (of_other_size, "{} is not the encoder before training: .*embed_tokens.* 16.* 32"),
        (of_another_model, "{} is not the encoder before training: "),
        (of_other_weights, "{} is not the encoder before training: it was changed since"),
    ],
    ids=["missing", "damaged", "of_other_size", "of_another_model", "of_other_weights"],
)
def test_an_encoder_that_does_not_fit_is_told_in_a_line(recipe, tmp_path, caplog, spoil, why):
    copy = shutil.copy(recipe.encoder / "model.pt", tmp_path / "encoder.pt")
    train(recipe.flags(tmp_path / "run", "--max-update", 1, "--finetune-from-model", copy))
    spoil(copy, recipe.encoder)
    if spoil not in (missing, of_other_weights):  # as a run of before the checksum was kept
        without_encoder(tmp_path / "run" / manifest.NAME)
    caplog.clear()
    main(["evaluate", str(tmp_path / "run")])
    told = json.loads((tmp_path / "run" / "result.json").read_text())
    assert "probe" not in told and told["refit"]["test"]["accuracy"] > 0
    assert told["test"]["accuracy"] > 0
    [line] = [r.getMessage() for r in caplog.records if "no probe: " in r.getMessage()]
    assert re.match(f"no probe: {why.format(copy)}", line) and len(line.splitlines()) == 1


def test_a_search_encodes_no_training_row(recipe, tmp_path, monkeypatch):
    train(recipe.flags(tmp_path / "run", "--max-update", 1))
    encoded = []
    measure = evaluate.test_metrics

    def counted(*arguments):
        encoded.append(len(arguments[-1]))
        return measure(*arguments)

    monkeypatch.setattr(evaluate, "test_metrics", counted)
    evaluate.evaluate(tmp_path / "run", None, 64, with_probe=False)
    assert encoded == [len(ROWS["valid"])]
    told = json.loads((tmp_path / "run" / "result.json").read_text())
    assert "probe" not in told and "refit" not in told and told["calibration"]["rows"] > 0


def test_without_a_test_set_the_probe_is_measured_on_validation(recipe, tmp_path):
    train(recipe.flags(tmp_path / "run", "--max-update", 1))
    evaluate.evaluate(tmp_path / "run", None, 64)
    told = json.loads((tmp_path / "run" / "result.json").read_text())
    for name in ("probe", "refit"):
        assert told[name]["test"] is None and told[name]["valid"]["accuracy"] > 0
