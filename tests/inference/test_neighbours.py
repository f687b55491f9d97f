"""Neighbours in the embedding space against a search by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fairseq_scl.inference.classifier import Prediction
from fairseq_scl.inference.neighbours import Neighbours


def predictions(vectors):
    return [Prediction("", {}, np.array(vector, dtype=np.float32)) for vector in vectors]


def cosine(a, b):
    """0 where a vector has no direction."""
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / lengths) if lengths else 0.0


def vectors(rows):
    """A few small whole numbers: zeros, repeated rows and equal cosines are common."""
    return arrays.arrays(np.float32, (rows, 3), elements=st.integers(-2, 2).map(float))


@settings(deadline=None)  # the first imports scikit-learn
@given(st.data(), st.integers(1, 9), st.integers(1, 4))
def test_they_are_the_most_similar_ones_in_order(data, rows, queries):
    known, asked = data.draw(vectors(rows)), data.draw(vectors(queries))
    k = data.draw(st.integers(1, rows))
    neighbours = Neighbours(predictions(known), range(rows), [10 * row for row in range(rows)])
    found = neighbours.of(predictions(asked), k)
    assert len(found) == queries
    for vector, nearest in zip(asked, found, strict=True):
        similarities = [cosine(vector, row) for row in known]
        told = [neighbour.similarity for neighbour in nearest]
        np.testing.assert_allclose(told, sorted(similarities, reverse=True)[:k], atol=1e-6)
        assert len({neighbour.row for neighbour in nearest}) == k  # also of equally similar ones
        for row, label, similarity in nearest:
            assert label == 10 * row
            assert similarity == pytest.approx(similarities[row], abs=1e-6)
            assert -1 <= similarity <= 1


def test_rows_and_labels_come_back_as_they_were_given():
    neighbours = Neighbours(predictions([[1, 0], [0, 1]]), ["east", ("north", "N")], ["E", 0.5])
    [nearest] = neighbours.of(predictions([[1, 2]]), k=2)
    assert [(row, label) for row, label, _ in nearest] == [(("north", "N"), 0.5), ("east", "E")]
    assert neighbours.of([], k=1) == []


@pytest.mark.parametrize("k", [0, 3])
def test_an_impossible_number_of_neighbours_is_refused(k):
    neighbours = Neighbours(predictions([[1, 0], [0, 1]]), ["east", "north"], ["E", "N"])
    with pytest.raises(ValueError, match="n_neighbors"):
        neighbours.of(predictions([[1, 2]]), k)
