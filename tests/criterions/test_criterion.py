"""The criterion: what is optimised, what is logged."""

import numpy as np
import pytest
import torch
from conftest import batch_of, build
from fairseq.logging import metrics as fairseq_metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn_metrics

from fairseq_scl.errors import UserError
from fairseq_scl.loss import supervised_contrastive_loss

ROWS = range(12)


def gradients(model, criterion, batch) -> dict[str, torch.Tensor]:
    """Gradients of a step; the model is in evaluation mode, so without dropout."""
    model.eval()
    model.zero_grad()
    criterion(model, batch)[0].backward()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
    }


@pytest.fixture(scope="module")
def flags(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("criterion")
    return lambda *more: recipe.flags(folder, *more)


@pytest.fixture(scope="module")
def stock(flags):
    """fairseq's own criterion on the same batch."""
    task, model, criterion = build(flags("--criterion", "sentence_prediction"))
    batch = batch_of(task, "train", ROWS)
    return model, criterion, batch, gradients(model, criterion, batch)


def test_weight_0_gives_exactly_the_stock_gradients(flags, stock):
    model, _, batch, expected = stock
    criterion = build(flags("--scl-weight", 0))[2]
    for name, gradient in gradients(model, criterion, batch).items():
        assert torch.equal(gradient, expected[name]), name


def test_the_contrastive_term_reaches_the_whole_encoder(flags, stock):
    model, _, batch, expected = stock
    found = gradients(model, build(flags("--scl-weight", 0.9))[2], batch)
    for name, gradient in found.items():
        if name.startswith("encoder.sentence_encoder.") and not name.endswith("k_proj.bias"):
            assert not torch.allclose(gradient, 0.1 * expected[name], rtol=1e-3, atol=0), name


def test_weight_1_trains_the_encoder_but_not_the_head(flags, stock):
    model, _, batch, _ = stock
    found = gradients(model, build(flags("--scl-weight", 1))[2], batch)
    assert all(not g.any() for name, g in found.items() if name.startswith("classification"))
    assert found["encoder.sentence_encoder.layers.0.fc1.weight"].any()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_loss_is_the_weighted_sum_of_both(flags, weight, reduction):
    task, model, criterion = build(
        flags("--scl-weight", weight, "--scl-reduction", reduction, "--scl-temperature", 0.2)
    )
    model.eval()
    batch = batch_of(task, "train", ROWS)
    hidden = model(**batch["net_input"], features_only=True)[0]
    logits = model(**batch["net_input"], classification_head_name="sentence_classification_head")[0]
    targets = batch["target"].view(-1)
    expected = (1 - weight) * torch.nn.functional.cross_entropy(logits, targets) + (
        weight * supervised_contrastive_loss(hidden[:, 0], targets, 0.2, reduction)
    )
    loss, sample_size, _ = criterion(model, batch)
    assert torch.allclose(loss / sample_size, expected, rtol=1e-5)


def test_features_of_the_head_are_what_enters_its_projection(flags):
    task, model, criterion = build(flags("--scl-features", "head", "--scl-weight", 1))
    model.eval()
    batch = batch_of(task, "train", ROWS)
    hidden = model(**batch["net_input"], features_only=True)[0]
    head = model.classification_heads["sentence_classification_head"]
    entering = torch.tanh(head.dense(hidden[:, 0]))
    expected = supervised_contrastive_loss(entering, batch["target"].view(-1), 0.3)
    loss, sample_size, _ = criterion(model, batch)
    assert torch.allclose(loss / sample_size, expected, rtol=1e-5)


def test_fairseqs_own_roberta_is_contrasted_at_its_first_token(flags):
    task, model, criterion = build(flags("--arch", "roberta_base", "--scl-weight", 1))
    model.eval()
    batch = batch_of(task, "train", ROWS)
    states = model(**batch["net_input"], features_only=True, return_all_hiddens=True)[1]
    first = states["inner_states"][-1][0]
    expected = supervised_contrastive_loss(first, batch["target"].view(-1), 0.3)
    loss, sample_size, _ = criterion(model, batch)
    assert torch.allclose(loss / sample_size, expected, rtol=1e-5)


def test_one_forward_pass_serves_both_losses(flags):
    task, model, criterion = build(flags())
    calls = []
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    criterion(model, batch_of(task, "train", ROWS))
    assert len(calls) == 1


def test_mean_pooling_does_not_depend_on_the_batchs_padding(flags):
    task, model, _ = build(flags("--pooling", "mean"))
    model.eval()
    seen = {}
    for name, rows in {"alone": [0], "with longer ones": range(450)}.items():
        batch = batch_of(task, "test", rows if name == "alone" else range(100))
        seen[name] = model(
            **batch["net_input"], classification_head_name="sentence_classification_head"
        )[0][0]
        seen[name + " width"] = batch["net_input"]["src_tokens"].size(1)
    assert seen["with longer ones width"] > seen["alone width"]
    assert torch.allclose(seen["alone"], seen["with longer ones"], atol=1e-6)


def reduced(logs: list[dict], criterion) -> dict[str, float]:
    """What fairseq would log for these logging outputs, one batch after another."""
    with fairseq_metrics.aggregate(new_root=True) as aggregate:
        for log in logs:
            criterion.reduce_metrics([log])
    return aggregate.get_smoothed_values()


class Fixed(torch.nn.Module):
    """A model whose head gives the logits that the batch asks for."""

    def __init__(self, outputs: int):
        super().__init__()
        head = torch.nn.Module()
        head.out_proj = torch.nn.Identity()
        head.forward = lambda features: head.out_proj(features[:, 0])
        self.classification_heads = torch.nn.ModuleDict({"sentence_classification_head": head})

    def forward(self, logits, classification_head_name, **_):
        return self.classification_heads[classification_head_name](logits.unsqueeze(1)), {}

    def get_targets(self, sample, _):
        return sample["target"]


def batches(values: np.ndarray, targets: np.ndarray, cuts: list[int]) -> list[dict]:
    """Split an epoch of model outputs and targets into batches."""
    rows = np.split(np.arange(len(targets)), sorted(cuts))
    return [
        {
            "id": torch.from_numpy(part),
            "net_input": {"logits": torch.from_numpy(values[part]).float()},
            "target": torch.from_numpy(targets[part]),
            "ntokens": len(part),
            "num_rows": len(targets),
        }
        for part in rows
        if len(part)
    ]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    classes=st.sampled_from([2, 3, 7]),
    rows=st.integers(8, 60),
    cuts=st.lists(st.integers(1, 59), max_size=5),
)
def test_classification_metrics_are_those_of_the_whole_set(criteria, seed, classes, rows, cuts):
    rng = np.random.default_rng(seed)
    logits, targets = rng.normal(size=(rows, classes)), rng.integers(0, classes, rows)
    criterion = criteria[0]
    model = Fixed(classes).eval()
    with torch.no_grad():
        logs = [
            criterion(model, batch)[2]
            for batch in batches(logits, targets, [cut for cut in cuts if cut < rows])
        ]
    predicted = logits.argmax(1)
    found = reduced(logs, criterion)
    average = (
        {"average": "binary"}
        if classes == 2
        else {"average": "macro", "labels": list(range(classes))}
    )
    assert found["accuracy"] == pytest.approx(100 * (predicted == targets).mean())
    assert found["mcc"] == pytest.approx(
        100 * sklearn_metrics.matthews_corrcoef(targets, predicted), abs=1e-9
    )
    assert found["f1"] == pytest.approx(
        100 * sklearn_metrics.f1_score(targets, predicted, zero_division=0, **average)
    )
    assert found["ce_loss"] == pytest.approx(
        sklearn_metrics.log_loss(
            targets, torch.from_numpy(logits).float().softmax(1).double(), labels=range(classes)
        ),
        abs=1e-4,
    )


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(8, 60),
    cuts=st.lists(st.integers(1, 59), max_size=5),
)
def test_correlations_are_those_of_the_whole_set(criteria, seed, rows, cuts):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, 1))
    targets = np.round(values[:, 0] + rng.normal(size=rows), 1).astype(np.float32)
    criterion = criteria[1]
    model = Fixed(1).eval()
    parts = batches(values, targets, [cut for cut in cuts if cut < rows])
    logs = [criterion(model, batch)[2] for batch in parts]
    found = reduced(logs, criterion)
    assert found["pearson"] == pytest.approx(
        100 * stats.pearsonr(values[:, 0], targets).statistic, abs=1e-3
    )
    assert found["spearman"] == pytest.approx(
        100 * stats.spearmanr(values[:, 0], targets).statistic, abs=1e-6
    )


@pytest.fixture(scope="module")
def criteria(flags, regression_data):
    """The criterion for classes, and for a regression target."""
    regression = flags("--scl-weight", 0, "--regression-target")
    return build(flags())[2], build([str(regression_data), *regression[1:]])[2]


@pytest.fixture(scope="module")
def regression_data(tmp_path_factory, encoder):
    from conftest import prepare

    folder = tmp_path_factory.mktemp("regression")
    text = "sentence\tlabel\n" + "".join(f"number {i} of them\t{i / 7}\n" for i in range(30))
    (folder / "scores.tsv").write_text(text)
    arguments = ("--train", folder / "scores.tsv", "--valid", folder / "scores.tsv")
    return prepare(folder / "data", encoder, *arguments, "--regression")


def test_regression_trains_and_reports_correlations(flags, regression_data, tmp_path, caplog):
    from conftest import train

    more = ("--save-dir", tmp_path, "--best-checkpoint-metric", "spearman")
    train([str(regression_data), *flags("--scl-weight", 0, "--regression-target", *more)[1:]])
    checkpoint = torch.load(tmp_path / "checkpoint_best.pt", weights_only=True)
    assert -100 <= checkpoint["extra_state"]["best"] <= 100


def test_pair_statistics_are_logged_per_anchor_and_pair(flags):
    criterion = build(flags())[2]
    features = np.array([[1.0, 0], [1, 0], [0, 1], [-1, 0]])
    targets = np.array([0, 0, 0, 1])
    logs = [criterion(Fixed(2).eval(), b)[2] for b in batches(features, targets, [])]
    found = reduced(logs, criterion)
    assert found["anchors_with_positive"] == pytest.approx(0.75)
    assert found["positive_similarity"] == pytest.approx(1 / 3, abs=1e-4)
    assert found["negative_similarity"] == pytest.approx(-2 / 3, abs=1e-4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("--scl-weight", 1.5), "--scl-weight 1.5 must be in [0, 1]"),
        (("--scl-weight", -0.1), "--scl-weight -0.1 must be in [0, 1]"),
        (("--scl-weight", "nan"), "--scl-weight nan must be in [0, 1]"),
        (("--scl-temperature", 0), "--scl-temperature 0.0 must be above 0"),
        (("--scl-temperature", -1), "--scl-temperature -1.0 must be above 0"),
        (("--regression-target",), "--regression-target has no classes to contrast"),
        (("--scl-views", 0), "--scl-views 0 must be at least 1"),
    ],
)
def test_impossible_options_are_refused(flags, regression_data, wrong, message):
    with pytest.raises(SystemExit) as error:
        build([str(regression_data), *flags(*wrong)[1:]] if "reg" in wrong[0] else flags(*wrong))
    assert message in str(error.value)


def test_data_for_a_regression_without_its_flags_is_told(flags, regression_data):
    with pytest.raises(UserError, match="holds numbers.*--regression-target --scl-weight 0"):
        build([str(regression_data), *flags()[1:]])


def test_a_head_that_is_never_trained_is_told(flags, caplog):
    build(flags("--scl-weight", 0.99))
    assert "never trains the head" not in caplog.text
    build(flags("--scl-weight", 1))
    assert "--scl-weight 1 never trains the head" in caplog.text


def test_views_give_a_lone_example_a_positive(flags):
    task, model, criterion = build(flags("--scl-views", 3))
    model.train()
    batch = batch_of(task, "train", [0])
    loss, sample_size, log = criterion(model, batch)
    assert (sample_size, int(log["anchors"]), int(log["positive_pairs"])) == (3, 3, 6)
    assert float(log["positive_similarity"]) < 6  # dropout differs from view to view
    loss.backward()
    assert model.encoder.sentence_encoder.embed_tokens.weight.grad.any()


def test_views_are_for_training_only(flags):
    task, model, criterion = build(flags("--scl-views", 3))
    assert criterion(model.eval(), batch_of(task, "valid", ROWS))[1] == len(ROWS)


def test_views_without_dropout_weigh_like_one(flags):
    dropout = ("--dropout", 0, "--attention-dropout", 0, "--scl-weight", 0)
    losses = []
    for views in (1, 4):
        task, model, criterion = build(flags(*dropout, "--scl-views", views))
        loss, sample_size, _ = criterion(model.train(), batch_of(task, "train", ROWS))
        losses.append(float(loss / sample_size))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
