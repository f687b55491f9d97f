"""Fit a run's head anew: logistic regression on the vectors of its own training rows."""

from pathlib import Path

import numpy as np

from fairseq_scl.errors import NOT_FINITE, UserError
from fairseq_scl.inference import calibration, refitted_head
from fairseq_scl.reports.results import RESULT
from fairseq_scl.studies.evaluate import test_metrics, validation
from fairseq_scl.studies.probe import fitted


def use_head(run: Path, head: str, batch_size: int, data: Path | None = None) -> None:
    """Have a run answer with its trained head, or with a refitted one.

    What was measured with the other head is removed.

    Args:
        head: one of `beside_checkpoint.HEADS`.
        data: where the run's data lies; None: where it lay in training.

    Raises:
        UserError: if it cannot be fitted.
    """
    from fairseq_scl.models import saved

    checkpoint = saved.checkpoint_of(run)
    if (head == "refit") == (refitted_head.read(checkpoint) is not None):
        return
    for name in (RESULT, calibration.NAME, refitted_head.NAME):
        (run / name).unlink(missing_ok=True)
    if head == "refit":
        refit(checkpoint, batch_size, data)


def refit(checkpoint: Path, batch_size: int, data: Path | None = None) -> None:
    """Write `refit.json` beside a checkpoint; see `fairseq_scl.studies.probe`.

    Raises:
        UserError: if a class has no training row, or a vector is not finite.
    """
    from fairseq_scl import plugin  # noqa: F401
    from fairseq_scl.models import saved

    model, cfg, task, criterion, _ = saved.load(checkpoint, data)

    def rows(dataset):
        if dataset is None:
            return None
        found = test_metrics(model.eval(), criterion.eval(), cfg, task, batch_size, dataset)
        if not np.isfinite(found.features).all():
            raise UserError(f"{checkpoint}: {NOT_FINITE}")
        return found.features, found.labels

    known = rows(task.load_dataset("train"))
    for label, name in enumerate(task.class_names):
        if label not in known[1]:
            raise UserError(f"--head refit needs rows of every class, '{name}' has none in train")
    C, regression = fitted(known, rows(validation(cfg, task)))
    refitted_head.write(checkpoint, C, regression.coef_, regression.intercept_)
