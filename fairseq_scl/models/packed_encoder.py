"""A Transformer encoder that computes nothing for padding.

In a batch of short sentences half of the positions or more are padding. Only attention needs
sentences side by side, a few of like length at a time; all else works on all tokens in a row.
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

from fairseq_scl.models.dropout import dropout
from fairseq_scl.models.relative_positions import RelativePositions

GROUP = 4  # sentences that a CPU pads together for attention


@dataclass(frozen=True)
class Packing:
    """Where the tokens of some sentences stand.

    Attributes:
        is_token: `(batch, length)` bool.
        positions: `(tokens,)` int64, the positions in the flattened batch of the tokens in a row.
    """

    is_token: Tensor
    positions: Tensor

    @classmethod
    def of(cls, is_token: Tensor) -> "Packing":
        """Find the tokens, sentence after sentence; on a GPU this waits for the device."""
        return cls(is_token, is_token.flatten().nonzero().squeeze(1))

    def pack(self, padded: Tensor) -> Tensor:
        """Turn `(batch, length, dim)` into `(tokens, dim)`."""
        return padded.flatten(0, 1).index_select(0, self.positions)

    def pad(self, packed: Tensor) -> Tensor:
        """Turn `(tokens, dim)` into `(batch, length, dim)`, 0 at padding."""
        padded = packed.new_zeros(self.is_token.numel(), packed.size(1))
        return padded.index_copy(0, self.positions, packed).view(
            *self.is_token.shape, packed.size(1)
        )


def group_by_length(is_token: Tensor, size: int) -> tuple[Packing, list[Packing]]:
    """Put the sentences of a batch into groups of about the same length.

    Args:
        is_token: `(batch, length)` bool.
        size: sentences of a group.

    Returns:
        The batch's tokens, group after group, and each group by itself, without the columns after
        the last token of all its rows; padding further on counts in distances.
    """
    places = torch.arange(is_token.numel(), device=is_token.device).view_as(is_token)
    groups = is_token.sum(1).argsort(stable=True).split(size)
    parts = [is_token[rows] for rows in groups]
    positions = torch.cat([places[rows][part] for rows, part in zip(groups, parts, strict=True)])
    return Packing(is_token, positions), [Packing.of(without_end(part)) for part in parts]


def without_end(is_token: Tensor) -> Tensor:
    """Cut the columns behind the last token, `(batch, length)` bool as the result is."""
    return is_token[:, is_token.any(0).flip(0).cumsum(0).flip(0) > 0]


def attention(
    q: Tensor, k: Tensor, v: Tensor, is_token: Tensor, p: float, bias: Tensor | None = None
) -> Tensor:
    """Attend to a sentence's tokens.

    Args:
        q: queries, `(batch, heads, length, dim)`; so are keys and values.
        is_token: `(batch, length)` bool.
        p: probability of dropping an attention weight.
        bias: added to the logits, `(heads, length, length)`.
    """
    mask = is_token[:, None, None, :]
    if p == 0 or q.device.type != "cpu":
        mask = mask if bias is None else bias.masked_fill(~mask, -torch.inf)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p)
    # with dropout torch has no kernel for the CPU, and its own steps are more than these
    logits = (q * q.size(-1) ** -0.5) @ k.transpose(2, 3)
    if bias is not None:
        logits += bias
    weights = logits.masked_fill_(~mask, -torch.inf).softmax(-1)
    return dropout(weights, p) @ v


class PackedAttention(MultiheadAttention):
    """fairseq's self-attention, with the same parameters, on packed tokens."""

    def forward(self, query, key=None, value=None, key_padding_mask=None, **_):
        """Attend within each sentence.

        Args:
            query: `(tokens, 1, dim)`.
            key_padding_mask: where fairseq's layer hands over a mask, the groups, and what is
                added to the logits of the longest, `(heads, length, length)` or None.

        Returns:
            `(tokens, 1, dim)`, and None for the attention weights.
        """
        x, (groups, relative) = query.squeeze(1), key_padding_mask
        projections = self.q_proj, self.k_proj, self.v_proj
        weight = torch.cat([projection.weight for projection in projections])
        bias = torch.cat([projection.bias for projection in projections])
        qkv = F.linear(x, weight, bias)  # one product is quicker than three
        parts = qkv.split([group.positions.size(0) for group in groups])
        pairs = zip(parts, groups, strict=True)
        attended = torch.cat([self.attend(part, group, relative) for part, group in pairs])
        return self.out_proj(attended).unsqueeze(1), None

    def attend(self, qkv: Tensor, group: Packing, bias: Tensor | None) -> Tensor:
        """The heads' outputs for a group's tokens, `(tokens, dim)`, from `(tokens, 3 * dim)`."""
        padded = group.pad(qkv).unflatten(2, (3, self.num_heads, -1))
        q, k, v = padded.permute(2, 0, 3, 1, 4)
        p = self.dropout_module.p if self.training else 0.0
        if bias is not None:
            length = q.size(2)
            bias = bias[:, :length, :length].type_as(q)
        return group.pack(attention(q, k, v, group.is_token, p, bias).transpose(1, 2).flatten(2))


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

    def forward(self, x, encoder_padding_mask, bias=None):
        """As in fairseq, on `(tokens, 1, dim)`.

        Args:
            encoder_padding_mask: the groups.
            bias: `(heads, length, length)`, added to the logits of attention. An argument by
                itself, so that its gradient comes back through recomputed activations.
        """
        return super().forward(x, (encoder_padding_mask, bias))


class PackedEncoder(TransformerEncoder):
    """fairseq's encoder: the same parameters and, but for rounding, the same output at tokens.

    With `args.relative_positions` it has MPNet's as well, which fairseq has not.
    """

    def __init__(self, args, dictionary, embed_tokens):
        super().__init__(args, dictionary, embed_tokens)
        relative = getattr(args, "relative_positions", False)
        self.relative_positions = (
            RelativePositions(args.encoder_attention_heads) if relative else None
        )

    def build_encoder_layer(self, args):
        """As in fairseq, with our layer."""
        cfg = TransformerConfig.from_namespace(args)
        layer = PackedEncoderLayer(cfg)
        if cfg.checkpoint_activations:
            layer = checkpoint_wrapper(layer, offload_to_cpu=cfg.offload_activations)
        return fsdp_wrap(
            layer, min_num_params=0 if cfg.checkpoint_activations else cfg.min_params_to_wrap
        )

    def arrange(self, is_token: Tensor) -> tuple[Packing, list[Packing]]:
        """How a batch is packed, and its groups for attention; see `group_by_length`."""
        if is_token.device.type == "cpu":
            return group_by_length(is_token, GROUP)
        packing = Packing.of(is_token)  # waiting for the device costs most there, and launches
        return packing, [packing]

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
        packing, groups = self.arrange(src_tokens.ne(self.padding_idx))
        embedded, token_embeddings = self.forward_embedding(src_tokens, token_embeddings)
        x = packing.pack(embedded).unsqueeze(1)
        bias = self.relative_positions and self.relative_positions(src_tokens.size(1))
        states = [x]
        for layer in self.layers:
            x = layer(x, groups, bias)
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
