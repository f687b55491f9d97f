"""Class weights: torch's own weighted loss, and a real run on classes of different size."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import PACKAGE, batch_of, build, configure, prepare, train
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import cross_entropy

from fairseq_scl.criterions.class_weights import balanced
from fairseq_scl.loss import supervised_contrastive_loss
from fairseq_scl.preparation.tables import Columns, read_file

STILL = ("--dropout", 0, "--attention-dropout", 0, "--pooler-dropout", 0)
WEIGHTS = torch.tensor([20 / (2 * 16), 20 / (2 * 4)])  # negative, positive


@pytest.fixture(scope="module")
def flags(recipe, tmp_path_factory):
    """Flags of training on 16 negative rows and 4 positive ones."""
    folder = tmp_path_factory.mktemp("weights")
    rows = read_file(PACKAGE / "sample_data" / "train.tsv", Columns(("sentence",), "label"))
    kept = [[row for row in rows if row.label == name] for name in ("negative", "positive")]
    lines = [f"{row.sentences[0]}\t{row.label}" for row in (*kept[0][:16], *kept[1][:4])]
    path = folder / "train.tsv"
    path.write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    data = prepare(folder / "data", recipe.encoder, "--train", path, "--valid", path)
    return lambda *more: [str(data), *recipe.flags(folder / "run", *STILL, *more)[1:]]


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=50))
def test_weights_are_scikit_learns(labels):
    found = balanced(torch.tensor(labels), 6)
    present = np.unique(labels)
    expected = compute_class_weight("balanced", classes=present, y=labels)
    np.testing.assert_allclose(found[present], expected, rtol=1e-6)
    assert found.sum().item() == pytest.approx(expected.sum(), rel=1e-6)  # others are 0
    assert found[labels].mean().item() == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("weight", [0, 0.9])
def test_the_loss_is_torchs_weighted_one_and_only_in_training(flags, weight):
    task, model, criterion = build(flags("--class-weights", "balanced", "--scl-weight", weight))
    batch = batch_of(task, "train", range(20))
    targets = batch["target"].view(-1)
    net = batch["net_input"]
    logits = model(**net, classification_head_name="sentence_classification_head")[0]
    vectors = model(**net, features_only=True)[0][:, 0]
    contrast = supervised_contrastive_loss(vectors, targets, 0.3, "sum")
    for training, weights in ((True, WEIGHTS), (False, None)):
        loss, rows, log = criterion(model.train(training), batch)
        expected = cross_entropy(logits, targets, weights, reduction="sum")
        assert rows == 20
        torch.testing.assert_close(log["ce_loss"], expected.detach(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(loss, (1 - weight) * expected + weight * contrast)


def test_a_run_logs_the_weighted_loss_and_validates_without(flags, tmp_path, caplog):
    train(flags("--scl-weight", 0, "--save-dir", tmp_path / "start"))  # on the frequent class
    still = ("--finetune-from-model", tmp_path / "start" / "checkpoint_last.pt", "--keep-head")
    still = (*still, "--lr", 0, "--batch-size", 20, "--max-update", 1)
    found = []
    caplog.set_level("INFO")
    for weights in ("balanced", "none"):
        caplog.clear()
        train(flags("--class-weights", weights, *still, "--save-dir", tmp_path / weights))
        texts = {r.name: r.getMessage() for r in caplog.records}
        found.append(
            [float(re.search(r"ce_loss'?[\": ]+([\d.]+)", texts[k])[1]) for k in ("train", "valid")]
        )
    task, model, _ = build(flags(*still))
    batch = batch_of(task, "train", range(20))
    head = "sentence_classification_head"
    logits = model.eval()(**batch["net_input"], classification_head_name=head)[0].detach()
    targets = batch["target"].view(-1)
    by_hand = [
        float(cross_entropy(logits, targets, weights, reduction="sum")) / 20
        for weights in (WEIGHTS, None)
    ]
    assert found[0] == pytest.approx(by_hand, abs=1e-3)
    assert found[1] == pytest.approx([by_hand[1]] * 2, abs=1e-3)
    assert abs(by_hand[0] - by_hand[1]) > 0.05


def test_another_task_is_refused(flags):
    _, _, criterion = build(flags())
    cfg = configure(flags("--class-weights", "balanced")).criterion
    with pytest.raises(SystemExit, match=r"--class-weights needs --task few_shot_glue"):
        type(criterion)(cfg, SimpleNamespace(label_dictionary=None))
