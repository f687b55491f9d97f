"""The labelled sentences that lie nearest to others, by the cosine of their sentence vectors.

from fairseq_scl.inference.classifier import load
from fairseq_scl.inference.neighbours import Neighbours

classifier = load("checkpoints/sst2-20-draw1")
labelled = ["a delight", "a waste of time"]
neighbours = Neighbours(classifier.predict(labelled), labelled, ["1", "0"])
[nearest] = neighbours.of(classifier.predict(["a joy to watch"]), k=2)
print(nearest[0].row, nearest[0].label, nearest[0].similarity)
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fairseq_scl.inference.classifier import Prediction


class Neighbour(NamedTuple):
    """A labelled sentence, or pair, near another.

    Attributes:
        row: the sentence, or two, as it was given.
        label: its own, whatever the model says of it; of a regression, the number.
        similarity: cosine of the two sentence vectors, in [-1, 1].
    """

    row: str | Sequence[str]
    label: str | float
    similarity: float


class Neighbours:
    """Labelled sentences in which to look for neighbours.

    Args:
        labelled: what the model says of each, at least one; only the embeddings count.
        rows: a string each; for a model of sentence pairs, two strings each.
        labels: of each row.
    """

    def __init__(
        self,
        labelled: Sequence[Prediction],
        rows: Sequence[str | Sequence[str]],
        labels: Sequence[str | float],
    ):
        from sklearn.neighbors import NearestNeighbors

        self.rows, self.labels = rows, labels
        self.index = NearestNeighbors(metric="cosine").fit(embeddings(labelled))

    def of(self, predictions: Sequence[Prediction], k: int) -> list[list[Neighbour]]:
        """The `k` nearest of each, the most similar first, in the order of `predictions`.

        Which comes first of equally similar ones is not settled.

        Raises:
            ValueError: if `k` is below 1 or above the number of labelled sentences.
        """
        if not predictions:
            return []
        found = self.index.kneighbors(embeddings(predictions), k)
        return [
            [
                Neighbour(self.rows[at], self.labels[at], 1 - distance)
                for distance, at in zip(distances, nearest, strict=True)
            ]
            for distances, nearest in zip(*(each.tolist() for each in found), strict=True)
        ]


def embeddings(predictions: Sequence[Prediction]) -> np.ndarray:
    """The sentence vectors, `(len(predictions), dim)` float32."""
    return np.stack([prediction.embedding for prediction in predictions])
