"""Supervised contrastive learning for fine-tuning RoBERTa, as a fairseq plugin.

`fairseq-train --user-dir fairseq_scl` imports this package, which registers the criterion
`sentence_prediction_scl`, the task `few_shot_glue` and the model `sentence_roberta`. Without
fairseq at work, importing the package (or `fairseq_scl.loss`) stays light; a script that uses
fairseq as a library imports `fairseq_scl.plugin`.

    from fairseq_scl import load                                  a fine-tuned model
    from fairseq_scl import SclClassifier                         scikit-learn's estimator
    from fairseq_scl.loss import supervised_contrastive_loss      the loss
    from fairseq_scl.reports import frame                         results as a table
"""

import sys
from typing import TYPE_CHECKING

from fairseq_scl.repairs import importing

if "fairseq" in sys.modules:
    from fairseq_scl import plugin  # noqa: F401
importing.install()

if TYPE_CHECKING:
    from fairseq_scl.finetuning.estimator import SclClassifier as SclClassifier
    from fairseq_scl.inference.classifier import load as load

__all__ = ["SclClassifier", "load"]


def __getattr__(name: str):
    """What imports torch, fairseq or scikit-learn, when it is asked for."""
    if name == "SclClassifier":
        from fairseq_scl.finetuning.estimator import SclClassifier

        return SclClassifier
    if name == "load":
        from fairseq_scl.inference.classifier import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
