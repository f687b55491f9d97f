"""A Transformer encoder that computes nothing for padding.

In a batch of short sentences half of the positions or more are padding. Only attention needs the
sentences side by side; all else works on the batch's tokens in a row.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from fairseq.distributed import fsdp_wrap
from fairseq.models.transformer import TransformerConfig, TransformerEncoder
from fairseq.modules import MultiheadAttention
from fairseq.modules.checkpoint_activations import checkpoint_wrapper
from fairseq.modules.transformer_layer import TransformerEncoderLayerBase
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Where the tokens of a batch stand.

    Attributes:
        is_token: `(batch, length)` bool.
        positions: `(tokens,)` int64, the positions of the tokens in the flattened batch.
    """

    is_token: Tensor
    positions: Tensor

    @classmethod
    def of(cls, is_token: Tensor) -> "Packing":
        """Find the tokens, once for all layers: on a GPU this waits for the device."""
        return cls(is_token, is_token.flatten().nonzero().squeeze(1))

    def pack(self, padded: Tensor) -> Tensor:
        """Turn `(batch, length, dim)` into `(tokens, dim)`."""
        return padded.flatten(0, 1).index_select(0, self.positions)

    def pad(self, packed: Tensor) -> Tensor:
        """Turn `(tokens, dim)` into `(batch, length, dim)`, 0 at padding."""
        padded = packed.new_zeros(self.is_token.numel(), packed.size(1))
        return padded.index_copy(0, self.positions, packed).view(*self.is_token.shape, -1)


class PackedAttention(MultiheadAttention):
    """fairseq's self-attention, with the same parameters, on packed tokens."""

    def forward(self, query, key=None, value=None, key_padding_mask=None, **_):
        """Attend within each sentence.

        Args:
            query: `(tokens, 1, dim)`.
            key_padding_mask: where fairseq's layer hands over a mask, the `Packing`.

        Returns:
            `(tokens, 1, dim)`, and None for the attention weights.
        """
        x, packing = query.squeeze(1), key_padding_mask
        qkv = torch.cat([self.q_proj(x), self.k_proj(x), self.v_proj(x)], dim=1)
        q, k, v = packing.pad(qkv).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=packing.is_token[:, None, None, :],
            dropout_p=self.dropout_module.p if self.training else 0.0,
        )
        attended = packing.pack(attended.transpose(1, 2).flatten(2))
        return self.out_proj(attended).unsqueeze(1), None


class PackedEncoderLayer(TransformerEncoderLayerBase):
    """fairseq's layer, with attention on packed tokens."""

    def build_self_attention(self, embed_dim, cfg):
        """Called by fairseq's constructor."""
        return PackedAttention(
            embed_dim,
            cfg.encoder.attention_heads,
            dropout=cfg.attention_dropout,
            self_attention=True,
            q_noise=self.quant_noise,
            qn_block_size=self.quant_noise_block_size,
        )


class PackedEncoder(TransformerEncoder):
    """fairseq's encoder: the same parameters and, but for rounding, the same output at tokens."""

    def build_encoder_layer(self, args):
        """As in fairseq, with our layer."""
        cfg = TransformerConfig.from_namespace(args)
        layer = PackedEncoderLayer(cfg)
        if cfg.checkpoint_activations:
            layer = checkpoint_wrapper(layer, offload_to_cpu=cfg.offload_activations)
        return fsdp_wrap(
            layer, min_num_params=0 if cfg.checkpoint_activations else cfg.min_params_to_wrap
        )

    def forward_scriptable(
        self, src_tokens, src_lengths=None, return_all_hiddens=False, token_embeddings=None
    ):
        """Encode a batch.

        Args:
            src_tokens: `(batch, length)` int64.

        Returns:
            fairseq's dictionary. The hidden states in `encoder_out` and, if asked for, in
            `encoder_states` are `(length, batch, dim)`, 0 at padding.
        """
        packing = Packing.of(src_tokens.ne(self.padding_idx))
        embedded, token_embeddings = self.forward_embedding(src_tokens, token_embeddings)
        x = packing.pack(embedded).unsqueeze(1)
        states = [x]
        for layer in self.layers:
            x = layer(x, encoder_padding_mask=packing)
            states.append(x)
        if self.layer_norm is not None:
            x = self.layer_norm(x)

        def padded(x: Tensor) -> Tensor:
            return packing.pad(x.squeeze(1)).transpose(0, 1)

        return {
            "encoder_out": [padded(x)],
            "encoder_padding_mask": [~packing.is_token],
            "encoder_embedding": [token_embeddings],
            "encoder_states": [padded(state) for state in states] if return_all_hiddens else [],
            "fc_results": [],
            "src_tokens": [],
            "src_lengths": [],
        }
