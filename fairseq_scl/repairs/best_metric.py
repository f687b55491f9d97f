"""The metric that the best checkpoint is chosen by.

fairseq takes any name and fails at the first validation, and without
--maximize-best-checkpoint-metric it keeps the checkpoint of the lowest accuracy.
"""

import functools

from fairseq import checkpoint_utils

from fairseq_scl.errors import UserError


def install() -> None:
    """Make fairseq-train look at the metric before it trains."""
    checkpoint_utils.load_checkpoint = of_a_known_metric(checkpoint_utils.load_checkpoint)


def of_a_known_metric(load):
    """Wrap fairseq's `load_checkpoint(cfg.checkpoint, trainer, ...)`, which precedes training."""

    @functools.wraps(load)
    def look_and_load(cfg, trainer, **more):
        known = getattr(trainer.get_criterion(), "validation_metrics", None)
        if known is not None and not trainer.cfg.dataset.disable_validation:
            require(cfg.best_checkpoint_metric, cfg.maximize_best_checkpoint_metric, known)
        return load(cfg, trainer, **more)

    return look_and_load


def require(metric: str, maximize: bool, known: dict[str, bool | None]) -> None:
    """Compare a choice with the metrics of a criterion.

    Args:
        known: of each whether more of it is better; None: who knows.

    Raises:
        UserError: if there is no such metric, or the direction is wrong.
    """
    if metric not in known:
        raise UserError(f"--best-checkpoint-metric {metric}: there are {', '.join(known)}")
    if known[metric] not in (None, maximize):
        needs, better = ("needs", "more") if known[metric] else ("goes without", "less")
        raise UserError(
            f"--best-checkpoint-metric {metric} {needs} --maximize-best-checkpoint-metric: "
            f"{better} of it is better"
        )
