"""The supervised contrastive loss against its formula, at its edges and next to another's."""

import doctest
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.losses import SupConLoss
from torch import tensor

import fairseq_scl.loss
from fairseq_scl.loss import MIN_NORM, Candidates, supervised_contrastive_loss, unit_vectors

HALF_TYPES = (torch.float16, torch.bfloat16)
seeds = st.integers(0, 2**32 - 1)
temperatures = st.floats(0.05, 1.0)


def random_batch(size, num_classes, seed=0, dim=8):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(size, dim, generator=generator, dtype=torch.float64)
    return features, torch.randint(num_classes, (size,), generator=generator)


def batch_with_positives(num_classes, seed=0):
    """Three or more examples of each class, in random order."""
    features, labels = random_batch(5 * num_classes, num_classes, seed)
    labels[: 3 * num_classes] = torch.arange(num_classes).repeat(3)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return features, labels[order]


def formula(features, labels, temperature, reduction):
    """The docstring's double sum, term by term."""
    z = [row / (row @ row).sqrt() for row in features]
    batch, total = range(len(z)), features.sum() * 0
    for i in batch:
        positives = [j for j in batch if j != i and labels[j] == labels[i]]
        if not positives:
            continue
        weight = {k: torch.exp(z[i] @ z[k] / temperature) for k in batch if k != i}
        everything = torch.stack(list(weight.values())).sum()
        for j in positives:
            total = total - torch.log(weight[j] / everything) / len(positives)
    return total / len(z) if reduction == "mean" else total


def value_and_gradient(loss, features, *args, **kwargs):
    features = features.clone().requires_grad_()
    value = loss(features, *args, **kwargs)
    return value.detach(), torch.autograd.grad(value, features)[0]


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 64), st.integers(1, 20), temperatures, st.sampled_from(["mean", "sum"]), seeds
)
def test_equals_the_formula(size, num_classes, temperature, reduction, seed):
    features, labels = random_batch(size, num_classes, seed)
    args = (features, labels, temperature, reduction)
    value, gradient = value_and_gradient(supervised_contrastive_loss, *args)
    expected_value, expected_gradient = value_and_gradient(
        formula, args[0], labels.tolist(), *args[2:]
    )
    torch.testing.assert_close(value, expected_value, rtol=0, atol=1e-10)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-10)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 24),
    st.integers(1, 6),
    st.integers(0, 24),
    st.integers(0, 24),
    temperatures,
    seeds,
)
def test_anchors_of_a_part_among_all_candidates_add_up_to_the_formula(
    size, num_classes, a, b, temperature, seed
):
    features, labels = random_batch(size, num_classes, seed)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    place = order.argsort()  # the candidates in another order than the anchors

    def by_parts(features):
        parts = zip(
            *(x.tensor_split(sorted((a, b))) for x in (features, labels, place)), strict=True
        )
        return sum(
            supervised_contrastive_loss(
                anchors, theirs, temperature, "sum", Candidates(features[order], labels[order], own)
            )
            for anchors, theirs, own in parts
        )

    value, gradient = value_and_gradient(by_parts, features)
    expected = value_and_gradient(formula, features, labels.tolist(), temperature, "sum")
    torch.testing.assert_close(value, expected[0], rtol=0, atol=1e-10)
    torch.testing.assert_close(gradient, expected[1], rtol=0, atol=1e-10)


def test_defaults_are_the_mean_at_temperature_0_3():
    features, labels = random_batch(12, 3)
    expected = formula(features, labels.tolist(), 0.3, "mean")
    torch.testing.assert_close(supervised_contrastive_loss(features, labels), expected)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("num_classes", [1, 3, 20])
def test_gradcheck(num_classes, reduction):
    features, labels = random_batch(10, num_classes, dim=5)
    features.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: supervised_contrastive_loss(x, labels, 0.1, reduction), features
    )


def edge_cases():
    features, _ = random_batch(8, 1)
    same, zero = features[:1].expand(8, -1), torch.zeros_like(features)
    mixture = torch.cat([features[:2], -features[:2], zero[:2], same[:2]])
    pairs = torch.arange(8) // 2
    return {
        "one example": (features[:1], pairs[:1]),
        "one zero example": (zero[:1], pairs[:1]),
        "two of one class": (features[:2], pairs[:2]),
        "one class": (features, torch.zeros(8, dtype=torch.long)),
        "all classes different": (features, torch.arange(8)),
        "identical, one class": (same, torch.zeros(8, dtype=torch.long)),
        "identical, four classes": (same, pairs),
        "opposite positives": (torch.cat([same[:4], -same[:4]]), torch.arange(8) % 4),
        "zero, one class": (zero, torch.zeros(8, dtype=torch.long)),
        "zero, four classes": (zero, pairs),
        "mixture in pairs": (mixture, pairs),
        "mixture in two classes": (mixture, pairs % 2),
        "mixture with lone anchors": (mixture, tensor([0, 1, 2, 3, 4, 5, 0, 0])),
        "close to zero": (features * 1e-9, pairs),
        "large": (features * 1e3, pairs),
    }


@pytest.mark.parametrize("dtype", [torch.float32, *HALF_TYPES], ids=str)
@pytest.mark.parametrize("case", edge_cases())
def test_edge_cases_are_finite(case, dtype):
    features, labels = edge_cases()[case]
    value, gradient = value_and_gradient(
        supervised_contrastive_loss, features.to(dtype), labels, temperature=0.05
    )
    assert value.isfinite()
    assert value >= 0
    assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, *HALF_TYPES], ids=str)
def test_zero_vectors_get_no_gradient_but_their_neighbours_do(dtype):
    features, labels = edge_cases()["mixture in two classes"]
    is_zero = (features == 0).all(1)
    _, gradient = value_and_gradient(
        supervised_contrastive_loss, features.to(dtype), labels, temperature=0.05
    )
    assert is_zero.any()
    assert (gradient[is_zero] == 0).all()
    assert (gradient[~is_zero] != 0).any(1).all()


@pytest.mark.parametrize(
    "labels", [[], [0], [3, 1, 2, 0]], ids=["empty", "one example", "all different"]
)
def test_a_batch_without_positives_costs_nothing_and_moves_nothing(labels):
    features, _ = random_batch(len(labels), 1)
    value, gradient = value_and_gradient(
        supervised_contrastive_loss, features, tensor(labels, dtype=int)
    )
    assert value == 0
    assert (gradient == 0).all()


def test_identical_vectors_of_one_class_cost_the_log_of_the_others():
    features, labels = edge_cases()["identical, one class"]
    value = supervised_contrastive_loss(features, labels, 0.05)
    torch.testing.assert_close(value, tensor(7.0).double().log())


def test_unit_vectors_have_length_one_down_to_the_minimum():
    features = tensor([[3.0, 4.0], [0.0, 1.5 * MIN_NORM], [0.0, 0.5 * MIN_NORM], [0.0, 0.0]])
    expected = tensor([[0.6, 0.8], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(unit_vectors(features), expected)


@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
def test_half_precision_is_computed_in_float32(dtype):
    features, labels = random_batch(16, 4)
    features = features.to(dtype)
    value, gradient = value_and_gradient(supervised_contrastive_loss, features, labels, 0.05)
    wide_value, wide_gradient = value_and_gradient(
        supervised_contrastive_loss, features.float(), labels, 0.05
    )
    assert torch.equal(value, wide_value)
    assert torch.equal(gradient, wide_gradient.to(dtype))


@pytest.mark.parametrize("size", [1, 6])
@pytest.mark.parametrize("dtype", [torch.float32, *HALF_TYPES, torch.float64], ids=str)
def test_result_dtype(dtype, size):
    features, labels = random_batch(size, 2)
    value = supervised_contrastive_loss(features.to(dtype), labels)
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert value.shape == ()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_autocast_changes_nothing(dtype):
    features, labels = random_batch(16, 4)
    features = features.to(dtype).requires_grad_()
    outside = supervised_contrastive_loss(features, labels, 0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = supervised_contrastive_loss(features, labels, 0.05)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)
    assert torch.equal(*(torch.autograd.grad(loss, features)[0] for loss in (inside, outside)))


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 12), temperatures, seeds)
def test_equals_pytorch_metric_learning_if_all_anchors_have_positives(classes, temperature, seed):
    """From two classes on: without a single negative pair that library returns 0."""
    features, labels = batch_with_positives(classes, seed)
    theirs = SupConLoss(temperature)(features, labels)
    ours = supervised_contrastive_loss(features, labels, temperature)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 12), temperatures, seeds, st.integers(1, 4))
def test_lone_anchors_count_in_our_mean_and_not_in_theirs(classes, temperature, seed, lone):
    features, labels = batch_with_positives(classes, seed)
    with_positive, batch = len(labels), len(labels) + lone
    features = torch.cat([features, random_batch(lone, 1, seed + 1)[0]])
    labels = torch.cat([labels, 100 + torch.arange(lone)])
    theirs = SupConLoss(temperature)(features, labels)
    ours = supervised_contrastive_loss(features, labels, temperature)
    torch.testing.assert_close(ours, theirs * with_positive / batch, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("labels", [[0, 0, 1, 1], [0, 1, 0, 1], [3, 1, 2, 0], [5, 5, 5, 5]])
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("entries", [1, 8])
def test_what_is_not_finite_stays_so(labels, wrong, entries):
    features, _ = random_batch(4, 1)
    features[1, :entries] = wrong
    assert supervised_contrastive_loss(features, tensor(labels)).isnan()
    others, _ = random_batch(4, 1, seed=1)
    candidates = Candidates(features, tensor(labels), torch.arange(4))
    assert supervised_contrastive_loss(others, tensor(labels), candidates=candidates).isnan()


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 12), st.integers(1, 4), st.lists(st.integers(0, 36), min_size=12), seeds)
def test_the_longest_vectors_have_a_direction(size, num_classes, exponents, seed):
    features, labels = random_batch(size, num_classes, seed)
    features = features / features.norm(dim=1, keepdim=True)
    scale = 10.0 ** tensor(exponents[:size])[:, None]
    long = (features * scale).float()  # up to 1e36; from 1e19 on squares overflow
    value, gradient = value_and_gradient(supervised_contrastive_loss, long, labels)
    expected, _ = value_and_gradient(formula, features, labels.tolist(), 0.3, "mean")
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-5)
    assert gradient.isfinite().all()


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 40), st.integers(1, 8), seeds)
def test_length_of_vectors_does_not_matter(size, num_classes, seed):
    features, labels = random_batch(size, num_classes, seed)
    scale = 10 ** torch.linspace(-3, 3, size, dtype=torch.float64)[:, None]
    scaled = supervised_contrastive_loss(features * scale, labels)
    torch.testing.assert_close(scaled, supervised_contrastive_loss(features, labels))


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 40), st.integers(1, 8), seeds)
def test_order_of_the_batch_does_not_matter(size, num_classes, seed):
    features, labels = random_batch(size, num_classes, seed)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    shuffled = supervised_contrastive_loss(features[order], labels[order])
    torch.testing.assert_close(shuffled, supervised_contrastive_loss(features, labels))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(-(10**9), 10**9), min_size=5, max_size=5, unique=True), seeds)
def test_names_of_the_classes_do_not_matter(names, seed):
    features, labels = random_batch(20, 5, seed)
    renamed = supervised_contrastive_loss(features, tensor(names)[labels])
    assert renamed == supervised_contrastive_loss(features, labels)


def mean_cosines(features, labels):
    """Within and between classes."""
    cosines = torch.nn.functional.cosine_similarity(features[:, None], features[None], dim=-1)
    same = labels[:, None] == labels[None, :]
    others = ~torch.eye(len(labels), dtype=torch.bool)
    return cosines[same & others].mean(), cosines[~same].mean()


@pytest.mark.parametrize("temperature", [0.1, 0.3, 1.0])
def test_descent_gathers_classes_and_separates_them(temperature):
    features, labels = batch_with_positives(4)
    within_before, between_before = mean_cosines(features, labels)
    for _ in range(5):
        _, gradient = value_and_gradient(supervised_contrastive_loss, features, labels, temperature)
        features = features - gradient
    within, between = mean_cosines(features, labels)
    assert within > within_before + 0.01
    assert between < between_before - 0.001


@pytest.mark.parametrize(
    ("features", "labels"),
    [((4,), (4,)), ((2, 3, 4), (2,)), ((3, 4), (4,)), ((3, 4), (3, 1)), ((3, 4), ())],
    ids=str,
)
def test_wrong_shapes_are_refused_by_name(features, labels):
    with pytest.raises(ValueError, match=r"features must be \(batch, dim\)") as error:
        supervised_contrastive_loss(torch.ones(features), torch.zeros(labels, dtype=torch.long))
    assert f"{features} and {labels}" in str(error.value)


@pytest.mark.parametrize("temperature", [0, 0.0, -0.1, float("nan"), -float("inf")])
def test_temperature_must_be_above_zero(temperature):
    with pytest.raises(ValueError, match=f"temperature must be above 0, got {temperature}"):
        supervised_contrastive_loss(torch.ones(2, 2), tensor([0, 0]), temperature)


@pytest.mark.parametrize("reduction", ["none", "", None])
def test_unknown_reduction_is_refused(reduction):
    with pytest.raises(ValueError, match=f"must be 'mean' or 'sum', got {reduction!r}"):
        supervised_contrastive_loss(torch.ones(2, 2), tensor([0, 0]), reduction=reduction)


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"reduction": "none"}])
def test_a_batch_of_one_is_checked_like_any_other(wrong):
    with pytest.raises(ValueError, match="must be"):
        supervised_contrastive_loss(torch.ones(1, 2), tensor([0]), **wrong)


def test_docstring_example():
    results = doctest.testmod(fairseq_scl.loss)
    assert results.attempted > 0
    assert results.failed == 0


def test_docstring_example_by_hand():
    """Two anchors see their positive at cosine 1 and the stranger at 0; the third sees nothing."""
    features = tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    value = supervised_contrastive_loss(features, tensor([0, 0, 1]), temperature=1.0)
    e = tensor(1.0).exp()
    torch.testing.assert_close(value, -2 / 3 * torch.log(e / (e + 1)))


def test_importing_the_loss_does_not_import_fairseq():
    """In a fresh interpreter, as other tests may have imported it here."""
    program = "import sys, fairseq_scl.loss; print(*sys.modules, sep='\\n')"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    modules = run.stdout.splitlines()
    assert "fairseq_scl.loss" in modules
    assert [name for name in modules if name.split(".")[0] == "fairseq"] == []
