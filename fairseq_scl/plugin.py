"""Importing this module registers everything with fairseq."""

try:
    import fairseq  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "fairseq":
        raise
    from fairseq_scl.errors import NO_FAIRSEQ, UserError

    raise UserError(NO_FAIRSEQ) from None

from fairseq_scl.criterions import sentence_prediction_scl  # noqa: F401
from fairseq_scl.models import sentence_roberta  # noqa: F401
from fairseq_scl.optim import fused_adam  # noqa: F401
from fairseq_scl.repairs import (
    best_metric,
    checkpoints,
    finished,
    launch,
    nan_detector,
    places,
    precision,
    resuming,
    usage,
)
from fairseq_scl.tasks import few_shot_glue  # noqa: F401

best_metric.install()
checkpoints.install()
finished.install()
launch.install()
nan_detector.install()
places.install()
precision.install()
resuming.install()
usage.install()
