"""How families of encoders on Hugging Face name what fairseq's RoBERTa has too."""

from collections.abc import Mapping
from typing import NamedTuple

# beginning, padding, end, unknown, mask: fairseq's first four symbols and its last
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
BERT_SPECIALS = ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]")
BERT_LAYER = {
    "attention.self.query": "self_attn.q_proj",
    "attention.self.key": "self_attn.k_proj",
    "attention.self.value": "self_attn.v_proj",
    "attention.output.dense": "self_attn.out_proj",
    "attention.output.LayerNorm": "self_attn_layer_norm",
    "intermediate.dense": "fc1",
    "output.dense": "fc2",
    "output.LayerNorm": "final_layer_norm",
}
MPNET_LAYER = {
    "attention.attn.q": "self_attn.q_proj",
    "attention.attn.k": "self_attn.k_proj",
    "attention.attn.v": "self_attn.v_proj",
    "attention.attn.o": "self_attn.out_proj",
    "attention.LayerNorm": "self_attn_layer_norm",
    "intermediate.dense": "fc1",
    "output.dense": "fc2",
    "output.LayerNorm": "final_layer_norm",
}
DISTILBERT_LAYER = {
    "attention.q_lin": "self_attn.q_proj",
    "attention.k_lin": "self_attn.k_proj",
    "attention.v_lin": "self_attn.v_proj",
    "attention.out_lin": "self_attn.out_proj",
    "sa_layer_norm": "self_attn_layer_norm",
    "ffn.lin1": "fc1",
    "ffn.lin2": "fc2",
    "output_layer_norm": "final_layer_norm",
}


class Family(NamedTuple):
    """Encoders that transformers computes by the same class.

    Attributes:
        model_type: as `config.json` has it.
        classes: what the names of their classes start with.
        specials: the tokenizer's usual names of fairseq's five special symbols.
        layers: what stands before the number of a layer.
        layer: fairseq's name of each part of a layer, by theirs.
        token_types: how many vectors there are for a token's type.
        unused_positions: rows of the table of positions before that of the first token.
        relative_positions: whether the layers share relative positions.
    """

    model_type: str
    classes: str
    specials: tuple[str, ...] = SPECIALS
    layers: str = "encoder.layer."
    layer: Mapping[str, str] = BERT_LAYER
    token_types: int = 1
    unused_positions: int = 2
    relative_positions: bool = False


ROBERTA = Family("roberta", "Roberta")
BERT = Family("bert", "Bert", BERT_SPECIALS, token_types=2, unused_positions=0)
MPNET = Family("mpnet", "MPNet", layer=MPNET_LAYER, token_types=0, relative_positions=True)
DISTILBERT = BERT._replace(
    model_type="distilbert", layers="transformer.layer.", layer=DISTILBERT_LAYER, token_types=0
)  # exported as BERT
FAMILIES = {
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "camembert": ROBERTA,
    "bert": BERT,
    "mpnet": MPNET,
    "distilbert": DISTILBERT,
}


def parameters(names: Mapping[str, str]) -> dict[str, str]:
    """The names of weights and biases, of names of layers."""
    return {
        f"{theirs}.{kind}": f"{ours}.{kind}"
        for theirs, ours in names.items()
        for kind in ("weight", "bias")
    }


def parameters_of_layers(family: Family, prefix: str, layers: int) -> dict[str, str]:
    """fairseq's names of what both sides hold alike, by theirs behind `prefix`."""
    names = {f"{prefix}embeddings.LayerNorm": "layernorm_embedding"}
    for i in range(layers):
        for theirs, ours in family.layer.items():
            names[f"{prefix}{family.layers}{i}.{theirs}"] = f"layers.{i}.{ours}"
    alike = parameters(names)
    if family.relative_positions:
        alike[f"{prefix}encoder.relative_attention_bias.weight"] = "relative_positions.weight"
    return alike
