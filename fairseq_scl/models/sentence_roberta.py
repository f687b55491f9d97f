"""RoBERTa with a choice of sentence vector, and the architectures of MiniLM-L6 and MPNet."""

from contextlib import nullcontext

import torch
import torch.nn as nn
from fairseq.models import register_model, register_model_architecture
from fairseq.models.roberta import RobertaEncoder, RobertaHubInterface, RobertaModel
from fairseq.models.roberta.model import base_architecture, roberta_large_architecture
from fairseq.modules.transformer_sentence_encoder import init_bert_params
from fairseq.utils import safe_getattr
from omegaconf import OmegaConf, open_dict
from torch.nn.functional import log_softmax
from torch.utils.checkpoint import checkpoint

from fairseq_scl.models.dropout import use_quick_dropout
from fairseq_scl.models.memory import give_back_memory, keep_freed_memory
from fairseq_scl.models.packed_encoder import PackedEncoder
from fairseq_scl.models.pooling import POOLING, pool


class PackedRobertaEncoder(RobertaEncoder):
    """fairseq's RoBERTa encoder without the work on padding."""

    def build_encoder(self, args, dictionary, embed_tokens):
        """Called by fairseq's constructor."""
        return PackedEncoder(args, dictionary, embed_tokens).apply(init_bert_params)


@register_model("sentence_roberta")
class SentenceRobertaModel(RobertaModel):
    """fairseq's RoBERTa, whose classification head sees a pooled sentence vector.

    With `--pooling cls` it computes what `roberta` computes. Options are saved with the
    checkpoint, as all of fairseq's model options are.
    """

    encodes_in_chunks = True

    @staticmethod
    def add_args(parser):
        """Add the model's options to fairseq's parser."""
        RobertaModel.add_args(parser)
        parser.add_argument(
            "--pooling",
            choices=POOLING,
            help="sentence vector for head and contrastive loss: the first token, or the mean "
            "over all tokens but padding (default: the architecture's)",
        )
        parser.add_argument(
            "--layernorm-eps",
            type=float,
            metavar="E",
            help="epsilon of the encoder's layer norms (default: 1e-5; BERT has 1e-12)",
        )

    @classmethod
    def build_model(cls, args, task):
        """Build the model for `task`'s dictionary."""
        keep_freed_memory()
        with open_dict(args) if OmegaConf.is_config(args) else nullcontext():
            if safe_getattr(args, "max_positions") is None:
                args.max_positions = task.max_positions()
            sentence_roberta(args)
            model = cls(args, PackedRobertaEncoder(args, task.source_dictionary))
        use_quick_dropout(model)
        for module in model.encoder.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = args.layernorm_eps
        return model

    def forward(
        self,
        src_tokens,
        features_only=False,
        return_all_hiddens=False,
        classification_head_name=None,
        chunk_size=None,
        **kwargs,
    ):
        """As in fairseq, except that the classification head gets the pooled vector.

        Args:
            src_tokens: `(batch, length)` int64, padded on the right.
            chunk_size: encode so many sentences at a time, and once more in the backward pass under
                the same dropout, so that activations are kept for one chunk only (Gao et al.,
                *Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup*, 2021).
                None: all at once. Needs a head.

        Returns:
            `(output, extra)`; with a head, `output` is `(batch, num_classes)`.
        """
        if classification_head_name is None:
            return super().forward(src_tokens, features_only, return_all_hiddens, **kwargs)
        if chunk_size is None or len(src_tokens) <= chunk_size:
            sentences, extra = self.sentence_vectors(src_tokens, return_all_hiddens, **kwargs)
        else:
            chunks = src_tokens.split(chunk_size)
            vectors = [checkpoint(self.chunk_vectors, c, use_reentrant=False) for c in chunks]
            sentences, extra = torch.cat(vectors), {}
        # a head takes the first position of (batch, length, dim)
        return self.classification_heads[classification_head_name](sentences.unsqueeze(1)), extra

    def sentence_vectors(self, src_tokens, return_all_hiddens=False, **kwargs):
        """What a head sees: `(batch, dim)`, and fairseq's extra output."""
        features, extra = super().forward(src_tokens, True, return_all_hiddens, **kwargs)
        is_token = src_tokens.ne(self.encoder.dictionary.pad())
        return pool(features, is_token, self.args.pooling), extra

    def chunk_vectors(self, src_tokens):
        """The same of a chunk, with the memory of the one before at hand."""
        give_back_memory()
        return self.sentence_vectors(src_tokens)[0]

    @classmethod
    def from_pretrained(cls, model_name_or_path, *args, bpe=None, **kwargs):
        """Load a checkpoint as a hub model.

        Differs from fairseq's in that no BPE is downloaded unless asked for, and that
        `predict` pools as the model was trained to.
        """
        hub = super().from_pretrained(model_name_or_path, *args, bpe=bpe, **kwargs)
        return SentenceRobertaHubInterface(hub.cfg, hub.task, hub.model)


class SentenceRobertaHubInterface(RobertaHubInterface):
    """fairseq's hub interface, with `predict` through the model's own pooling."""

    def predict(self, head, tokens, return_logits=False):
        """Classify `tokens`, `(length,)` or `(batch, length)` int64, with the head named `head`."""
        tokens = tokens.to(self.device)
        logits, _ = self.model(
            tokens if tokens.dim() == 2 else tokens.unsqueeze(0),
            features_only=True,
            classification_head_name=head,
        )
        return logits if return_logits else log_softmax(logits, dim=-1)


@register_model_architecture("sentence_roberta", "sentence_roberta")
def sentence_roberta(args):
    """RoBERTa-base."""
    args.pooling = getattr(args, "pooling", "cls")
    args.layernorm_eps = getattr(args, "layernorm_eps", 1e-5)
    args.relative_positions = getattr(args, "relative_positions", False)
    base_architecture(args)


@register_model_architecture("sentence_roberta", "sentence_roberta_large")
def sentence_roberta_large(args):
    """RoBERTa-large."""
    roberta_large_architecture(args)
    sentence_roberta(args)


@register_model_architecture("sentence_roberta", "minilm_l6")
def minilm_l6(args):
    """all-MiniLM-L6: BERT's layer norm, and mean pooling as in its pre-training."""
    args.encoder_layers = getattr(args, "encoder_layers", 6)
    args.encoder_embed_dim = getattr(args, "encoder_embed_dim", 384)
    args.encoder_ffn_embed_dim = getattr(args, "encoder_ffn_embed_dim", 1536)
    args.encoder_attention_heads = getattr(args, "encoder_attention_heads", 12)
    args.layernorm_eps = getattr(args, "layernorm_eps", 1e-12)
    args.pooling = getattr(args, "pooling", "mean")
    sentence_roberta(args)


@register_model_architecture("sentence_roberta", "mpnet_base")
def mpnet_base(args):
    """all-mpnet-base: relative positions beside RoBERTa's, and mean pooling."""
    args.relative_positions = True
    args.pooling = getattr(args, "pooling", "mean")
    sentence_roberta(args)
