"""Figures of a classification, against counting by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fairseq_scl.finetuning.command import told
from fairseq_scl.finetuning.estimate import MANY, Estimate, picture
from fairseq_scl.finetuning.finetune import Found


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


@pytest.mark.parametrize("count", [MANY, MANY + 1, 800])
def test_the_picture_of_many_classes_has_no_more_pixels(tmp_path, count):
    rows = np.arange(2 * count) % count
    made = Estimate([f"class {i}" for i in range(count)], rows, np.eye(count)[rows // 2])
    picture(made, tmp_path / "confusion.png")
    assert max(Image.open(tmp_path / "confusion.png").size) < 4000


def test_of_many_classes_the_report_shows_what_is_confused_most(tmp_path):
    names = [f"class {i:03}" for i in range(40)]
    labels = np.repeat(np.arange(40), 3)
    said = labels.copy()
    said[:3], said[3:5], said[6] = 39, 7, 8
    shown = told(Found(tmp_path, Estimate(names, labels, np.eye(40)[said]), "", [["a"]] * 120))
    assert "the 30 classes of 40 with the lowest F1" in shown
    assert "  3 class 000, labelled class 039\n  2 class 001, labelled class 007\n" in shown
    assert "  1 class 002, labelled class 008\n\n" in shown and "class 038" not in shown


@pytest.mark.parametrize("text", ["\x1b[2J\x1b]0;title\x07", "a\nb", "\u202eabc", "x" * 5000])
def test_what_is_printed_is_safe_for_a_terminal(tmp_path, text):
    labels = np.array([0, 1, 0, 1])
    estimate = Estimate([text, "other"], labels, np.eye(2)[1 - labels])
    (tmp_path / "my run").mkdir()
    shown = told(Found(tmp_path / "my run", estimate, "4 rows", [[text]] * 4))
    assert all(line.isprintable() and len(line) < 1000 for line in shown.split("\n"))
    assert f"fairseq-scl predict '{tmp_path}/my run' FILE.csv" in shown
