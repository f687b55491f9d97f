"""`--head-init probe`: the head that training starts with is a logistic regression."""

import numpy as np
import pytest
import torch
from conftest import build, prepare, train
from fairseq import checkpoint_utils
from sklearn.linear_model import LogisticRegression

from fairseq_scl.tasks import few_shot_glue
from fairseq_scl.tasks.head_start import SPREAD, STRENGTH, logistic_regression

NAME = "sentence_classification_head"
HEAD = f"classification_heads.{NAME}."
PROBE = ("--head-init", "probe")
STILL = ("--lr", 0, "--max-update", 1)


def model_of(folder):
    return torch.load(folder / "checkpoint_last.pt", weights_only=True)["model"]


def head_of(folder) -> dict:
    return {name: value for name, value in model_of(folder).items() if name.startswith(HEAD)}


def assert_equal(ours: dict, theirs: dict) -> None:
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def regression(vectors, labels, strength=STRENGTH) -> np.ndarray:
    """The slow reference: scikit-learn's logits, less their mean over classes."""
    inputs = np.hstack([vectors, np.ones((len(vectors), 1))]).astype(np.float64)
    two = len(set(labels.tolist())) == 2  # one vector w, where a softmax has w / 2 and -w / 2
    model = LogisticRegression(
        C=strength * (2 if two else 1), fit_intercept=False, solver="newton-cg", tol=1e-10
    )
    said = model.fit(inputs, labels).decision_function(inputs)
    return np.stack([-said / 2, said / 2], 1) if two else said - said.mean(1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("strength", [0.1, 10.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_regression_is_scikit_learns(classes, strength, seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(40) % classes
    vectors = rng.normal(size=(40, 12)) + 0.3 * rng.normal(size=(classes, 12))[labels]
    weight, bias = logistic_regression(
        torch.from_numpy(vectors), torch.from_numpy(labels), classes, strength
    )
    ours = vectors @ weight.numpy().T + bias.numpy()
    assert ours.sum(1) == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(ours, regression(vectors, labels, strength), atol=1e-4)


@pytest.mark.parametrize("labels", [[0, 2, 0, 2], [1, 1, 1, 1]])
def test_a_class_without_rows_is_unlikely(labels):
    vectors = torch.eye(4, 5)
    weight, bias = logistic_regression(vectors, torch.tensor(labels), 3)
    said = vectors @ weight.float().T + bias.float()
    assert said.isfinite().all()
    assert said.argmax(1).tolist() == labels


def start(recipe, folder, *more):
    """Train without moving; the model that training started with, the rows and their labels."""
    flags = recipe.flags(folder, *PROBE, *STILL, *more)
    train(flags)
    task, model, _ = build(flags)
    path = str(folder / "checkpoint_last.pt")
    model.load_state_dict(checkpoint_utils.load_checkpoint_to_cpu(path)["model"])
    dataset = task.load_dataset("train")
    dataset.set_epoch(1)
    batch = dataset.collater([dataset[i] for i in range(len(dataset))])
    return model.eval(), batch["net_input"], batch["target"].view(-1)


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("--scl-weight", 0),
        ("--num-shots", 40, "--noise", "label", "--label-noise", 0.3),
        ("--noise", "tokens", "--token-noise", 0.4),
        ("--protocol", "full", "--class-weights", "balanced"),
        ("--pooling", "mean"),
    ],
)
def test_the_first_logits_are_those_of_a_regression_on_the_training_rows(recipe, tmp_path, more):
    model, sentences, labels = start(recipe, tmp_path, *more)
    with torch.no_grad():
        vectors, _ = model.sentence_vectors(sentences["src_tokens"])
        logits, _ = model(**sentences, features_only=True, classification_head_name=NAME)
        entering = model.classification_heads[NAME].dense(vectors)
    length = SPREAD * 32**0.5
    scaled = vectors / vectors.norm(dim=1).mean()
    assert torch.allclose(entering, length * scaled, atol=1e-5)
    exact = regression(entering.tanh().numpy() / length, labels)
    np.testing.assert_allclose(logits.numpy(), exact, atol=1e-3)
    assert logits.argmax(1).tolist() == exact.argmax(1).tolist()
    near = regression(scaled.numpy(), labels)  # but for tanh
    np.testing.assert_allclose(logits.numpy(), near, atol=0.1 * np.abs(near).max())


def test_the_encoder_stays_and_both_losses_start_alike(recipe, tmp_path):
    start(recipe, tmp_path / "scl")
    start(recipe, tmp_path / "ce", "--scl-weight", 0)
    assert_equal(model_of(tmp_path / "ce"), model_of(tmp_path / "scl"))
    before = torch.load(recipe.encoder / "model.pt", weights_only=True)["model"]
    after = model_of(tmp_path / "ce")
    encoder = [name for name in after if name.startswith("encoder.sentence_encoder.layers")]
    assert encoder and all(torch.equal(before[name], after[name]) for name in encoder)


def test_by_restore_file_as_well(recipe, tmp_path):
    start(recipe, tmp_path / "tuned")
    flags = recipe.flags(tmp_path / "restored", *PROBE, *STILL)
    at = flags.index("--finetune-from-model")
    flags[at : at + 2] = ["--restore-file", str(recipe.encoder / "model.pt")]
    train([*flags, "--reset-optimizer", "--reset-dataloader", "--reset-meters"])
    assert_equal(head_of(tmp_path / "restored"), head_of(tmp_path / "tuned"))


def test_a_resumed_run_does_not_fit_again(recipe, tmp_path, monkeypatch):
    train(recipe.flags(tmp_path / "whole", *PROBE, "--max-update", 4))
    train(recipe.flags(tmp_path / "parts", *PROBE, "--max-update", 2))
    monkeypatch.setattr(few_shot_glue, "start_head", None)
    train(recipe.flags(tmp_path / "parts", *PROBE, "--max-update", 4))
    assert_equal(model_of(tmp_path / "parts"), model_of(tmp_path / "whole"))


def test_by_default_the_head_is_that_of_chance(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(few_shot_glue, "start_head", None)
    flags = recipe.flags(tmp_path, *STILL)
    train(flags)
    fresh = build(flags)[1].state_dict()
    for name, value in head_of(tmp_path).items():
        assert torch.equal(value, fresh[name])


def test_a_start_changes_no_random_number(recipe, tmp_path):
    """The same dropout and the same batches: a comparison with a head of chance is paired."""
    for name, more in (("random", ()), ("probe", PROBE)):
        train(recipe.flags(tmp_path / name, *more, "--scl-weight", 1))
    ours, theirs = model_of(tmp_path / "probe"), model_of(tmp_path / "random")
    encoder = [name for name in ours if not name.startswith("classification_heads")]
    assert all(torch.equal(ours[name], theirs[name]) for name in encoder)


def without_start(flags: list) -> list:
    at = flags.index("--finetune-from-model")
    return flags[:at] + flags[at + 2 :]


@pytest.mark.parametrize(
    ("more", "change", "told"),
    [
        (("--keep-head",), list, "fits a new head, --keep-head keeps the old one"),
        ((), without_start, "needs an encoder to start from: --finetune-from-model, or"),
    ],
)
def test_a_start_that_cannot_be_is_refused(recipe, tmp_path, more, change, told):
    with pytest.raises(SystemExit, match=f"error: --head-init probe {told}"):
        train(change(recipe.flags(tmp_path / "run", *PROBE, *more)))


def test_a_regression_is_refused(recipe, encoder, tmp_path):
    text = "sentence\tlabel\n" + "".join(f"number {i} of {i * i}\t{i / 7}\n" for i in range(30))
    (tmp_path / "scores.tsv").write_text(text)
    files = ("--train", tmp_path / "scores.tsv", "--valid", tmp_path / "scores.tsv")
    data = prepare(tmp_path / "scores", encoder, *files, "--regression")
    flags = recipe.flags(tmp_path / "run", "--regression-target", "--scl-weight", 0, *PROBE)
    with pytest.raises(SystemExit, match="--head-init probe is for classes, not for --regression"):
        train([str(data), *flags[1:], "--best-checkpoint-metric", "loss"])
