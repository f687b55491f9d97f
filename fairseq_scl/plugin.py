"""Importing this module registers everything with fairseq."""

try:
    import fairseq  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "fairseq":
        raise
    from fairseq_scl.errors import UserError

    raise UserError(
        "fairseq is not installed; install it with: pip install 'fairseq-scl[fairseq]'"
    ) from None

from fairseq_scl import checkpoints
from fairseq_scl.criterions import sentence_prediction_scl  # noqa: F401
from fairseq_scl.models import sentence_roberta  # noqa: F401
from fairseq_scl.tasks import few_shot_glue  # noqa: F401

checkpoints.install()
