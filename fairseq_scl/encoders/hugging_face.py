"""Encoders in Hugging Face's format: their configuration, vocabulary and weights."""

import argparse
from pathlib import Path

import torch

from fairseq_scl.encoders import encoder_folder
from fairseq_scl.errors import UserError
from fairseq_scl.files import read_json

MODEL_TYPES = ("roberta", "xlm-roberta", "camembert", "bert")
CONFIG_KEYS = (
    "vocab_size",
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "hidden_act",
    "layer_norm_eps",
    "max_position_embeddings",
)
ACTIVATIONS = {"gelu": "gelu", "relu": "relu", "gelu_new": "gelu_accurate"}
# beginning, padding, end, unknown, mask: fairseq's first four symbols and its last
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
BERT_SPECIALS = ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]")
LAYER_NAMES = {
    "attention.self.query": "self_attn.q_proj",
    "attention.self.key": "self_attn.k_proj",
    "attention.self.value": "self_attn.v_proj",
    "attention.output.dense": "self_attn.out_proj",
    "attention.output.LayerNorm": "self_attn_layer_norm",
    "intermediate.dense": "fc1",
    "output.dense": "fc2",
    "output.LayerNorm": "final_layer_norm",
}
LM_HEAD_NAMES = {
    "lm_head.dense": "dense",
    "lm_head.layer_norm": "layer_norm",
    "cls.predictions.transform.dense": "dense",
    "cls.predictions.transform.LayerNorm": "layer_norm",
}


def read_options(folder: Path) -> tuple[argparse.Namespace, str, int]:
    """Read `config.json` as options of fairseq's RoBERTa.

    Returns:
        The options, the model type, and the number of tokens.

    Raises:
        UserError: if it is damaged, or describes something that fairseq's RoBERTa is not.
    """
    path = folder / "config.json"
    config = read_json(path)
    model_type = config.get("model_type")
    if model_type not in MODEL_TYPES:
        raise UserError(f"{path}: model_type '{model_type}' is not one of {', '.join(MODEL_TYPES)}")
    missing = [key for key in CONFIG_KEYS if key not in config]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise UserError(f"{path}: only absolute position embeddings are supported")
    activation = config["hidden_act"]
    if activation not in ACTIVATIONS:
        raise UserError(f"{path}: hidden_act '{activation}' is not one of {', '.join(ACTIVATIONS)}")
    if model_type != "bert" and config.get("pad_token_id") != 1:
        raise UserError(f"{path}: pad_token_id must be 1, where positions start")
    options = argparse.Namespace(
        encoder_layers=config["num_hidden_layers"],
        encoder_embed_dim=config["hidden_size"],
        encoder_ffn_embed_dim=config["intermediate_size"],
        encoder_attention_heads=config["num_attention_heads"],
        activation_fn=ACTIVATIONS[activation],
        layernorm_eps=config["layer_norm_eps"],
        pooling=_pooling(folder),
        # RoBERTa's table starts with two rows for fairseq's padding offset
        max_positions=config["max_position_embeddings"] - (0 if model_type == "bert" else 2),
    )
    return options, model_type, config["vocab_size"]


def vocabulary(folder: Path, model_type: str, size: int) -> list[str]:
    """Hugging Face's token for each id; a made-up name for ids that have none.

    Raises:
        UserError: if `folder` has no tokenizer, or one with more tokens than `size`.
    """
    spm = encoder_folder.sentencepiece_model(folder)
    if (folder / encoder_folder.TOKENIZER_JSON).is_file():
        ids = _read_tokenizer(folder / encoder_folder.TOKENIZER_JSON).get_vocab()
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        ids = read_json(folder / "vocab.json")
    elif spm:
        ids = {token: i for i, token in enumerate(sentencepiece_vocabulary(spm, model_type))}
    else:
        raise UserError(
            f"{folder} has no tokenizer: tokenizer.json, vocab.json + merges.txt or a "
            "sentencepiece model"
        )
    if max(ids.values()) >= size:
        raise UserError(
            f"{folder}: the tokenizer has ids up to {max(ids.values())}, the model {size} rows"
        )
    tokens = [f"<unused-id-{i}>" for i in range(size)]
    for token, i in ids.items():
        tokens[i] = token
    return tokens


def sentencepiece_vocabulary(path: Path, model_type: str) -> list[str]:
    """How Hugging Face numbers the pieces of XLM-R's and CamemBERT's sentencepiece models."""
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_file=str(path))
    pieces = [model.id_to_piece(i) for i in range(model.get_piece_size())]
    if model_type == "camembert":
        return [
            "<s>NOTUSED",
            "<pad>",
            "</s>NOTUSED",
            "<unk>",
            "<unk>NOTUSED",
            *pieces[1:],
            "<mask>",
        ]
    return [*SPECIALS[:4], *pieces[3:], SPECIALS[4]]


def dictionary_order(tokens: list[str], specials: tuple[str, ...], where: Path) -> list[int]:
    """Hugging Face ids in the order of fairseq's dictionary: four specials, the rest, the mask."""
    missing = [name for name in specials if name not in tokens]
    if missing:
        raise UserError(f"{where}: the tokenizer lacks {', '.join(missing)}")
    ids = [tokens.index(name) for name in specials]
    rest = [i for i in range(len(tokens)) if i not in set(ids)]
    return [*ids[:4], *rest, ids[4]]


def convert(
    weights: dict[str, torch.Tensor], order: list[int], is_bert: bool, layers: int, source: Path
) -> dict[str, torch.Tensor]:
    """Rename and reorder Hugging Face's weights to those of fairseq's RoBERTa.

    Token type 0, which every RoBERTa token has, is folded into the positions.
    """
    marker = "embeddings.word_embeddings.weight"
    prefix = next((name.removesuffix(marker) for name in weights if name.endswith(marker)), None)
    if prefix is None:
        raise UserError(f"{source}/model.safetensors holds no encoder")

    def take(name: str) -> torch.Tensor:
        if name not in weights:
            raise UserError(f"{source}/model.safetensors lacks {name}")
        return weights[name]

    positions = take(f"{prefix}embeddings.position_embeddings.weight")
    positions = positions + take(f"{prefix}embeddings.token_type_embeddings.weight")[0]
    if is_bert:  # fairseq counts positions from the padding index + 1 = 2
        positions = torch.cat([positions.new_zeros(2, positions.size(1)), positions])
    rows = len(take(prefix + marker))
    if rows != len(order):
        raise UserError(
            f"{source}/model.safetensors has {rows} tokens, config.json says {len(order)}"
        )
    to = "encoder.sentence_encoder"
    converted = {
        f"{to}.embed_tokens.weight": take(prefix + marker)[order],
        f"{to}.embed_positions.weight": positions,
    }
    for kind in ("weight", "bias"):
        converted[f"{to}.layernorm_embedding.{kind}"] = take(f"{prefix}embeddings.LayerNorm.{kind}")
        for i in range(layers):
            for theirs, ours in LAYER_NAMES.items():
                converted[f"{to}.layers.{i}.{ours}.{kind}"] = take(
                    f"{prefix}encoder.layer.{i}.{theirs}.{kind}"
                )
        for theirs, ours in LM_HEAD_NAMES.items():
            if f"{theirs}.{kind}" in weights:
                converted[f"encoder.lm_head.{ours}.{kind}"] = weights[f"{theirs}.{kind}"]
    for theirs in ("lm_head.bias", "cls.predictions.bias"):
        if theirs in weights:
            converted["encoder.lm_head.bias"] = weights[theirs][order]
    converted["encoder.lm_head.weight"] = converted[f"{to}.embed_tokens.weight"]
    return converted


def _pooling(folder: Path) -> str:
    """`mean` for a sentence-transformers folder that says so, else `cls`."""
    path = folder / "1_Pooling" / "config.json"
    return "mean" if path.is_file() and read_json(path).get("pooling_mode_mean_tokens") else "cls"


def _read_tokenizer(path: Path):
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"{path} cannot be read ({error})") from None


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
    return {name: tensor.float() for name, tensor in weights.items()}
