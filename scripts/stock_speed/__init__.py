"""The plugin without its speed: fairseq's own encoder and dropout (a --user-dir for benchmarks)."""

from fairseq.models.roberta import RobertaEncoder

import fairseq_scl.plugin  # noqa: F401
from fairseq_scl.models import sentence_roberta

sentence_roberta.PackedRobertaEncoder.build_encoder = RobertaEncoder.build_encoder
sentence_roberta.use_quick_dropout = lambda model: None
sentence_roberta.keep_freed_memory = lambda: None
