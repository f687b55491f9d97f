"""Temperature scaling: probabilities that are as often right as they say (Guo et al., 2017).

One number T > 0 divides all logits. The labels stay as they are; how sure the model is of them is
fitted on rows that it was not trained on.
"""

import logging
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PositiveInt

from fairseq_scl.data.beside_checkpoint import OfCheckpoint, read_fitted
from fairseq_scl.errors import UserError
from fairseq_scl.files import Digest, sha256, write_text

logger = logging.getLogger(__name__)

NAME = "calibration.json"
BINS = 15  # as Guo et al. have
HIGHEST = 100.0  # T, in units of the logits' spread; there all classes are alike to about 1 %


class Calibration(OfCheckpoint):
    """What `calibration.json` holds.

    Attributes:
        temperature: T.
        rows: how many it was fitted on.
        fitted_on: the validation split, or the held-out folds of cross-validation.
        checkpoint: sha256 of the checkpoint whose logits it divides.
        refit: sha256 of the refitted head that gives them; None for the trained one.
    """

    temperature: Annotated[float, Field(ge=1e-100, le=1e100)]  # so that no quotient overflows
    rows: PositiveInt
    fitted_on: Literal["valid", "folds"]
    refit: Digest | None = None


def calibrate(
    checkpoint: Path, logits: np.ndarray, labels: np.ndarray, fitted_on: Literal["valid", "folds"]
) -> Calibration:
    """Fit T for a checkpoint and write it down beside it; see `fit_temperature`.

    Args:
        logits, labels: of rows that it, or the models of the folds, were not trained on.

    Raises:
        UserError: if a logit is not finite.
    """
    if not np.isfinite(logits).all():
        raise UserError(f"{checkpoint}: its logits are not finite numbers; did training diverge?")
    made = Calibration(
        temperature=fit_temperature(logits, labels),
        rows=len(labels),
        fitted_on=fitted_on,
        checkpoint=sha256(checkpoint),
        refit=of_refit(checkpoint),
    )
    write_text(checkpoint.with_name(NAME), made.model_dump_json(indent=1) + "\n")
    return made


def read(checkpoint: Path) -> Calibration | None:
    """What was written for this very checkpoint; None, with a warning, if it was for another.

    Raises:
        UserError: if the file, or the refitted head, is damaged.
    """
    found = read_fitted(checkpoint, NAME, Calibration)
    if found is not None and found.refit != of_refit(checkpoint):
        path = checkpoint.with_name(NAME)
        logger.warning(f"{path} is of another head than the one in use, and is ignored")
        return None
    return found


def of_refit(checkpoint: Path) -> str | None:
    """What tells the refitted head beside a checkpoint from others; None without one."""
    from fairseq_scl.inference import refitted_head

    if refitted_head.read(checkpoint) is None:
        return None
    return sha256(checkpoint.with_name(refitted_head.NAME))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T > 0 at which softmax(logits / T) gives the labels the highest likelihood.

    Targets are smoothed as Platt's (1999): of n rows the right class has (n + 1) / (n + C), each
    other 1 / (n + C), so that T stays finite where all rows are right. The likelihood is concave in
    1 / T, so the optimum is where its slope is 0. Where the logits are no better than chance, T
    ends at `HIGHEST`. k times the logits give k times T.

    Args:
        logits: `(n, C)`, finite; labels: `(n,)` int class ids.

    Returns:
        T; 1 if all logits of each row are equal.

    Raises:
        ValueError: if there is no row, or a logit is not finite.
    """
    logits = np.asarray(logits, dtype=float)
    if not len(logits) or not np.isfinite(logits).all():
        raise ValueError("a temperature needs rows of finite logits")
    from scipy.optimize import root_scalar  # not needed to predict
    from scipy.special import softmax

    n, classes = logits.shape
    centred = logits - logits.mean(1, keepdims=True)
    spread = np.abs(centred).max()
    if spread == 0:
        return 1.0
    scaled = centred / spread
    targets = (n * np.eye(classes)[labels] + 1) / (n + classes)

    def slope(inverse: float) -> float:
        """Of the negative log-likelihood, over 1 / T."""
        return float(((softmax(inverse * scaled, axis=1) - targets) * scaled).sum())

    lowest, highest = 1 / HIGHEST, 1.0
    if slope(lowest) >= 0:
        return float(spread * HIGHEST)
    while slope(highest) < 0:  # ends: every target is above 0
        highest *= 2
    return float(spread / root_scalar(slope, bracket=(lowest, highest)).root)


def probabilities_of(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """softmax(logits / T) over the classes, `(n, C)` float64."""
    from scipy.special import softmax

    return softmax(np.asarray(logits, dtype=float) / temperature, axis=1)


def expected_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS
) -> float:
    """How far confidence is from accuracy (Guo et al., 2017), between 0 and 1.

    Rows are binned by the probability of their most probable class, in equal parts of (0, 1]; a
    bin counts as many rows as it has.

    Args:
        probabilities: `(n, C)`, rows summing to 1; labels: `(n,)` int class ids.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    part = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    return float(np.abs(np.bincount(part, weights=confidence - right)).sum() / len(labels))


def brier_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The mean squared distance to the labels, summed over classes (Brier, 1950): 0 to 2.

    Args:
        probabilities: `(n, C)`; labels: `(n,)` int class ids.
    """
    wanted = np.eye(probabilities.shape[1])[labels]
    return float(np.square(probabilities - wanted).sum(1).mean())
