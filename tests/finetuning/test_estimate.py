"""Figures of a classification, against counting by hand."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fairseq_scl.finetuning.estimate import Estimate, picture


@st.composite
def estimates(draw):
    classes = [f"class {i}" for i in range(draw(st.integers(2, 5)))]
    rows = draw(st.integers(1, 40))
    labels = st.lists(st.integers(0, len(classes) - 1), min_size=rows, max_size=rows)
    row = st.lists(st.floats(-9, 9), min_size=len(classes), max_size=len(classes))
    logits = st.lists(row, min_size=rows, max_size=rows)
    return Estimate(classes, np.array(draw(labels)), np.array(draw(logits)))


def share(part, whole):
    return part / whole if whole else 0.0


@given(estimates())
def test_figures_are_what_counting_gives(made):
    pairs = list(zip(made.labels.tolist(), made.said.tolist(), strict=True))
    right = sum(true == said for true, said in pairs)
    assert made.accuracy == right / len(pairs)
    table = made.per_class()
    for i, name in enumerate(made.classes):
        hits = pairs.count((i, i))
        precision = share(hits, sum(said == i for _, said in pairs))
        recall = share(hits, sum(true == i for true, _ in pairs))
        row = table.loc[name]
        assert math.isclose(row["precision"], precision) and math.isclose(row["recall"], recall)
        assert math.isclose(row["F1"], share(2 * precision * recall, precision + recall))
        assert row["rows"] == sum(true == i for true, _ in pairs)
        for j in range(len(made.classes)):
            assert made.confusion[i, j] == pairs.count((i, j))


@given(estimates())
def test_the_interval_solves_wilsons_equation(made):
    z, n, p = 1.959963984540054, len(made.said), made.accuracy
    for bound in made.interval:  # where the accuracy is z standard errors away
        assert math.isclose((p - bound) ** 2, z**2 * bound * (1 - bound) / n, abs_tol=1e-9)
    assert made.interval[0] <= p + 1e-12 and p - 1e-12 <= made.interval[1]


@given(estimates(), st.integers(1, 5))
def test_mistakes_are_the_surest_first(made, most):
    rows = made.mistakes(most)
    wrong = [i for i in range(len(made.said)) if made.labels[i] != made.said[i]]
    assert len(rows) == min(most, len(wrong)) and set(rows) <= set(wrong)
    assert [made.probabilities[i] for i in rows] == sorted(
        (made.probabilities[i] for i in wrong), reverse=True
    )[:most]


def test_the_picture_is_written_whatever_the_classes_are_called(tmp_path):
    names = ["$5 or $6", "no", "schön"]
    made = Estimate(names, np.array([0, 1, 2]), np.eye(3)[[0, 1, 1]])
    picture(made, tmp_path / "confusion.png")
    assert min(Image.open(tmp_path / "confusion.png").size) > 300
