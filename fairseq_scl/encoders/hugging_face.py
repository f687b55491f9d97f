"""Encoders in Hugging Face's format: their configuration, vocabulary and weights."""

import argparse
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    RootModel,
    model_validator,
)

from fairseq_scl.encoders import encoder_folder
from fairseq_scl.encoders.families import (
    BERT_SPECIALS,
    FAMILIES,
    SPECIALS,
    Family,
    parameters,
    parameters_of_layers,
)
from fairseq_scl.encoders.sentence_vectors import pooling_of
from fairseq_scl.encoders.tokenizers import read_tokenizer
from fairseq_scl.errors import UserError
from fairseq_scl.files import read_model

ACTIVATIONS = {"gelu": "gelu", "relu": "relu", "gelu_new": "gelu_accurate"}
CAMEMBERT_SPECIALS = ("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED")
LM_HEAD_NAMES = {
    "lm_head.dense": "dense",
    "lm_head.layer_norm": "layer_norm",
    "cls.predictions.transform.dense": "dense",
    "cls.predictions.transform.LayerNorm": "layer_norm",
    "vocab_transform": "dense",
    "vocab_layer_norm": "layer_norm",
}
DISTILBERT_KEYS = {  # of its configuration, and what BERT calls them
    "n_layers": "num_hidden_layers",
    "dim": "hidden_size",
    "hidden_dim": "intermediate_size",
    "n_heads": "num_attention_heads",
    "activation": "hidden_act",
}


class Config(BaseModel):
    """What of `config.json` says how fairseq's RoBERTa computes the encoder, if it does."""

    model_config = ConfigDict(strict=True)
    model_type: Literal["roberta", "xlm-roberta", "camembert", "bert", "mpnet", "distilbert"]
    vocab_size: PositiveInt
    num_hidden_layers: PositiveInt
    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_attention_heads: PositiveInt
    hidden_act: Literal["gelu", "relu", "gelu_new"]
    layer_norm_eps: Annotated[float, Field(gt=0, lt=1)]
    max_position_embeddings: Annotated[int, Field(ge=8)]
    position_embedding_type: Literal["absolute"] | None = None
    pad_token_id: int | None = None
    relative_attention_num_buckets: Literal[32] = 32  # MPNet's; transformers has no others

    @property
    def family(self) -> Family:
        """How the encoder names and counts its parts."""
        return FAMILIES[self.model_type]

    @model_validator(mode="before")
    @classmethod
    def _in_berts_words(cls, content: Any) -> Any:
        if isinstance(content, dict) and content.get("model_type") == "distilbert":
            renamed = {DISTILBERT_KEYS.get(key, key): value for key, value in content.items()}
            return {"layer_norm_eps": 1e-12} | renamed
        return content

    @model_validator(mode="after")
    def _fairseq_computes_it(self) -> "Config":
        if self.family.unused_positions and self.pad_token_id != 1:
            raise ValueError("pad_token_id must be 1, where positions start")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("hidden_size must be a multiple of num_attention_heads")
        return self


class Vocabulary(RootModel[dict[str, NonNegativeInt]]):
    """The ids of `vocab.json`."""

    model_config = ConfigDict(strict=True)


def options_of(config: Config, folder: Path) -> argparse.Namespace:
    """The encoder of `folder` as options of fairseq's RoBERTa."""
    return argparse.Namespace(
        encoder_layers=config.num_hidden_layers,
        encoder_embed_dim=config.hidden_size,
        encoder_ffn_embed_dim=config.intermediate_size,
        encoder_attention_heads=config.num_attention_heads,
        activation_fn=ACTIVATIONS[config.hidden_act],
        layernorm_eps=config.layer_norm_eps,
        pooling=pooling_of(folder),
        max_positions=config.max_position_embeddings - config.family.unused_positions,
    )


def require_fitting(config: Config, weights: dict[str, torch.Tensor], folder: Path) -> None:
    """Compare the sizes that `config.json` claims with the weights, before they are allocated.

    Raises:
        UserError: naming the first that differs.
    """
    path = folder / "model.safetensors"
    prefix = weights_prefix(weights, folder)
    layer = f"{prefix}{config.family.layers}"
    [inner] = [theirs for theirs, ours in config.family.layer.items() if ours == "fc1"]
    for i in range(config.num_hidden_layers):
        if f"{layer}{i}.{inner}.weight" not in weights:
            raise UserError(f"{path} lacks {layer}{i}.{inner}.weight")
    embeddings, positions = f"{prefix}embeddings.", config.max_position_embeddings
    shapes = {
        f"{embeddings}word_embeddings.weight": (config.vocab_size, config.hidden_size),
        f"{embeddings}position_embeddings.weight": (positions, config.hidden_size),
        f"{layer}0.{inner}.weight": (config.intermediate_size, config.hidden_size),
    }
    for name, shape in shapes.items():
        if name in weights and tuple(weights[name].shape) != shape:
            raise UserError(
                f"{path}: {name} is {tuple(weights[name].shape)}, config.json says {shape}"
            )


def weights_prefix(weights: dict[str, torch.Tensor], folder: Path) -> str:
    """What stands before the names of the encoder's weights.

    Raises:
        UserError: if there is no encoder.
    """
    marker = "embeddings.word_embeddings.weight"
    for name in weights:
        if name.endswith(marker):
            return name.removesuffix(marker)
    raise UserError(f"{folder}/model.safetensors holds no encoder")


def vocabulary(folder: Path, model_type: str, size: int) -> list[str]:
    """Hugging Face's token for each id; a made-up name for ids that have none.

    Raises:
        UserError: if `folder` has no tokenizer, or one with more tokens than `size`.
    """
    spm = encoder_folder.sentencepiece_model(folder)
    if (folder / encoder_folder.TOKENIZER_JSON).is_file():
        ids = read_tokenizer(folder / encoder_folder.TOKENIZER_JSON).get_vocab()
    elif encoder_folder.holds(folder, encoder_folder.BYTE_LEVEL_BPE):
        ids = read_model(folder / "vocab.json", Vocabulary).root
    elif spm:
        ids = {token: i for i, token in enumerate(sentencepiece_vocabulary(spm, model_type))}
    else:
        raise UserError(
            f"{folder} has no tokenizer: tokenizer.json, vocab.json + merges.txt or a "
            "sentencepiece model"
        )
    if not ids:
        raise UserError(f"{folder}: the tokenizer has no tokens")
    if max(ids.values()) >= size:
        raise UserError(
            f"{folder}: the tokenizer has ids up to {max(ids.values())}, the model {size} rows"
        )
    tokens = {i: token for token, i in ids.items()}
    return [tokens.get(i, f"<unused-id-{i}>") for i in range(size)]


def sentencepiece_vocabulary(path: Path, model_type: str) -> list[str]:
    """How Hugging Face numbers the pieces of XLM-R's and CamemBERT's sentencepiece models."""
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_file=str(path))
    pieces = [model.id_to_piece(i) for i in range(model.get_piece_size())]
    if model_type == "camembert":
        return [*CAMEMBERT_SPECIALS, *pieces[1:], "<mask>"]
    return [*SPECIALS[:4], *pieces[3:], SPECIALS[4]]


def specials_of(tokens: list[str]) -> tuple[str, ...]:
    """How a tokenizer names the special tokens; BERT's layers may have RoBERTa's, or the reverse.

    MPNet's vocabulary has both names and uses RoBERTa's.
    """
    return BERT_SPECIALS if "[CLS]" in tokens and "<s>" not in tokens else SPECIALS


def dictionary_order(tokens: list[str], specials: tuple[str, ...], where: Path) -> list[int]:
    """Hugging Face ids in the order of fairseq's dictionary: four specials, the rest, the mask."""
    missing = [name for name in specials if name not in tokens]
    if missing:
        raise UserError(f"{where}: the tokenizer lacks {', '.join(missing)}")
    ids = [tokens.index(name) for name in specials]
    rest = [i for i in range(len(tokens)) if i not in set(ids)]
    return [*ids[:4], *rest, ids[4]]


def convert(
    weights: dict[str, torch.Tensor], order: list[int], family: Family, layers: int, source: Path
) -> dict[str, torch.Tensor]:
    """Rename and reorder Hugging Face's weights to those of fairseq's RoBERTa.

    Token type 0, which every token has, is folded into the positions.
    """
    prefix = weights_prefix(weights, source)

    def take(name: str) -> torch.Tensor:
        if name not in weights:
            raise UserError(f"{source}/model.safetensors lacks {name}")
        return weights[name]

    positions = take(f"{prefix}embeddings.position_embeddings.weight")
    if family.token_types:
        positions = positions + take(f"{prefix}embeddings.token_type_embeddings.weight")[0]
    missing = 2 - family.unused_positions  # fairseq counts from the padding index + 1 = 2
    positions = torch.cat([positions.new_zeros(missing, positions.size(1)), positions])
    to = "encoder.sentence_encoder"
    converted = {
        f"{to}.embed_tokens.weight": take(f"{prefix}embeddings.word_embeddings.weight")[order],
        f"{to}.embed_positions.weight": positions,
    }
    for theirs, ours in parameters_of_layers(family, prefix, layers).items():
        converted[f"{to}.{ours}"] = take(theirs)
    for theirs, ours in parameters(LM_HEAD_NAMES).items():
        if theirs in weights:
            converted[f"encoder.lm_head.{ours}"] = weights[theirs]
    for theirs in ("lm_head.bias", "cls.predictions.bias", "vocab_projector.bias"):
        if theirs in weights:
            converted["encoder.lm_head.bias"] = weights[theirs][order]
    converted["encoder.lm_head.weight"] = converted[f"{to}.embed_tokens.weight"]
    return converted


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Weights in float32, under the names that transformers gives them today."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / "model.safetensors"
    if not path.is_file():
        raise UserError(f"{path} is missing (weights are read from safetensors only)")
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error})") from None
    older = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
    for old, new in older.items():
        weights = {name.replace(old, new): tensor for name, tensor in weights.items()}
    return {name: tensor.float() for name, tensor in weights.items() if tensor.is_floating_point()}
