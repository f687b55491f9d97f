"""Logistic regression on frozen sentence vectors: what needs no fine-tuning, or only its vectors.

The vectors are l2-normalised. C is the one of `STRENGTHS` that is best on validation rows, else by
cross-validation within the training rows; of equally good ones the smallest.
"""

import numpy as np
import torch

from fairseq_scl.criterions import metrics

STRENGTHS = (0.1, 1.0, 10.0, 100.0)
FOLDS = 5
DEFAULT = 1.0  # where the rarest class has fewer rows than there are folds

Rows = tuple[np.ndarray, np.ndarray]  # vectors (rows, dim) float32 and class ids (rows,) int64


def probe_metrics(known: Rows, held_out: Rows | None, tested: Rows | None, count: int) -> dict:
    """Fit on known rows and measure on the others.

    Args:
        held_out: validation rows, which choose C.
        tested: rows that choose nothing.
        count: how many classes there are; two at least must be among the known rows.

    Returns:
        `C`, and as `valid` and `test` the metrics of a classification in percent, None without such
        rows.
    """
    strength, model = fitted(known, held_out)

    def measured(rows: Rows | None) -> dict[str, float] | None:
        if rows is None:
            return None
        said = torch.from_numpy(model.predict(normalised(rows[0])))
        confusion = metrics.confusion_matrix(said, torch.from_numpy(rows[1]), count).numpy()
        return metrics.classification(confusion)

    return {"C": strength, "valid": measured(held_out), "test": measured(tested)}


def fitted(known: Rows, held_out: Rows | None):
    """The chosen C and scikit-learn's LogisticRegression of it."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    vectors, classes = normalised(known[0]), known[1]
    models = {C: LogisticRegression(C=C, max_iter=1000) for C in STRENGTHS}
    if held_out is not None:
        others = normalised(held_out[0])
        right = {C: m.fit(vectors, classes).score(others, held_out[1]) for C, m in models.items()}
    elif np.unique(classes, return_counts=True)[1].min() >= FOLDS:
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
        right = {
            C: cross_val_score(m, vectors, classes, cv=folds).mean() for C, m in models.items()
        }
    else:
        right = {DEFAULT: 1.0}
    best = max(right, key=lambda C: right[C])
    return best, models[best].fit(vectors, classes)


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1, `(rows, dim)` float64; zero stays zero."""
    from sklearn.preprocessing import normalize

    return normalize(vectors.astype(np.float64))
