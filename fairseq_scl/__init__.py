"""Supervised contrastive learning for fine-tuning RoBERTa, as a fairseq plugin.

`fairseq-train --user-dir fairseq_scl` imports this package, which registers the criterion
`sentence_prediction_scl`, the task `few_shot_glue` and the model `sentence_roberta`. Without
fairseq at work, importing the package (or `fairseq_scl.loss`) stays light; a script that uses
fairseq as a library imports `fairseq_scl.plugin`.
"""

import sys

if "fairseq" in sys.modules:
    from fairseq_scl import plugin  # noqa: F401
