"""How good a model is, from what it says of rows that it was not trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fairseq_scl.errors import printable, short
from fairseq_scl.inference.calibration import probabilities_of

CONFIDENCE = 0.95
MANY = 30  # classes; of more, tables and pictures show what matters most


@dataclass(frozen=True)
class Estimate:
    """Figures of a classification.

    Attributes:
        classes: in the order of their ids.
        labels: the true class ids, `(rows,)` int64.
        logits: what the model says, `(rows, classes)` float.
        temperature: what divides them for probabilities; see `calibration`.
    """

    classes: Sequence[str]
    labels: np.ndarray
    logits: np.ndarray
    temperature: float = 1.0

    @property
    def said(self) -> np.ndarray:
        """The predicted class ids, `(rows,)` int64."""
        return self.logits.argmax(1)

    @property
    def probabilities(self) -> np.ndarray:
        """How sure the model is of what it says, `(rows,)`, as `predict` gives it."""
        return probabilities_of(self.logits, self.temperature).max(1)

    @property
    def accuracy(self) -> float:
        """The share of rows that are right."""
        return float((self.labels == self.said).mean())

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy (Wilson's score interval)."""
        from statsmodels.stats.proportion import proportion_confint

        right = int((self.labels == self.said).sum())
        low, high = proportion_confint(right, len(self.said), 1 - CONFIDENCE, method="wilson")
        return float(low), float(high)

    @property
    def confusion(self) -> np.ndarray:
        """How many rows of each class (rows) were given each class (columns), int64."""
        from sklearn.metrics import confusion_matrix

        return confusion_matrix(self.labels, self.said, labels=range(len(self.classes)))

    def per_class(self):
        """A DataFrame, a class a row: precision, recall, F1 in [0, 1], and its rows."""
        import pandas as pd
        from sklearn.metrics import precision_recall_fscore_support

        figures = precision_recall_fscore_support(
            self.labels, self.said, labels=range(len(self.classes)), zero_division=0.0
        )
        columns = dict(zip(("precision", "recall", "F1", "rows"), figures, strict=True))
        return pd.DataFrame(columns, index=pd.Index(self.classes, name="class"))

    def mistakes(self, most: int) -> list[int]:
        """The rows of the most confident mistakes, the surest first."""
        wrong = np.flatnonzero(self.labels != self.said)
        return wrong[np.argsort(-self.probabilities[wrong], kind="stable")][:most].tolist()


def picture(estimate: Estimate, path: Path) -> None:
    """Write the confusion matrix as a picture; of more than `MANY` classes without numbers."""
    from matplotlib.figure import Figure
    from sklearn.metrics import ConfusionMatrixDisplay

    few = len(estimate.classes) <= MANY
    size = max(4.0, 0.6 * min(MANY, len(estimate.classes)) + 2)
    names = [short(printable(name)).replace("$", r"\$") for name in estimate.classes]
    figure = Figure((size + 1, size), dpi=150)
    axes = figure.subplots()
    shown = ConfusionMatrixDisplay(estimate.confusion, display_labels=names)
    rotation = 45 if len(names) > 2 else 0
    # a text for each of 300 x 300 cells takes minutes and gigabytes
    shown.plot(
        cmap="Blues", colorbar=not few, include_values=few, xticks_rotation=rotation, ax=axes
    )
    axes.set(xlabel="predicted", ylabel="true")
    if not few:
        axes.set(xticks=[], yticks=[])
    figure.savefig(path, bbox_inches="tight")
