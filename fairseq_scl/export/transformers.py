"""A fine-tuned model as a sequence classification model of transformers."""

import errno
from pathlib import Path
from typing import Any

import torch

from fairseq_scl.encoders.families import BERT, parameters, parameters_of_layers
from fairseq_scl.encoders.hugging_face import ACTIVATIONS
from fairseq_scl.export.exportable import Exportable, write_json
from fairseq_scl.inference.refitted_head import NAME as REFIT
from fairseq_scl.inference.refitted_head import RefittedHead

ROLES = ("cls_token", "pad_token", "sep_token", "unk_token", "mask_token")  # as SPECIALS
LIBRARY = "transformers"
USE = """\
from transformers import pipeline

model = pipeline("text-classification", model=".")
"""


def objection(source: Exportable) -> str | None:
    """Why a model cannot be exported; None if it can."""
    if source.pooling != "cls":
        return (
            f"--pooling {source.pooling} has no sequence classification class in transformers; "
            "--format onnx or setfit needs none"
        )
    if isinstance(source.head, RefittedHead):
        return f"{REFIT} holds its head, a refitted one; --format onnx or setfit computes it"
    return objection_to_parts(source)


def objection_to_parts(source: Exportable) -> str | None:
    """What transformers' encoders, or a dense layer with tanh behind them, do not compute."""
    activation = source.classifier.model.args.pooler_activation_fn
    if activation != "tanh":
        return f"the head's activation is {activation}, theirs tanh"
    return objection_to_encoder(source)


def objection_to_encoder(source: Exportable) -> str | None:
    """What transformers' encoders do not compute."""
    args = source.classifier.model.args
    if getattr(args, "encoder_normalize_before", False):
        return "transformers' encoders normalise after each part, this one before"
    if args.activation_fn not in ACTIVATIONS.values():
        return f"activation {args.activation_fn} is none of config.json's"
    if source.family.unused_positions and source.special_ids[1] != 1:
        return "the tokenizer's <pad> is not 1, where positions start"
    return None


def write(source: Exportable, folder: Path) -> None:
    """Write model and configuration."""
    config = describe_encoder(source) | source.labels
    config |= {"architectures": [f"{source.family.classes}ForSequenceClassification"]}
    save(convert_encoder(source) | convert_head(source), folder / "model.safetensors")
    write_json(folder / "config.json", config)
    write_tokenizer_config(source, folder)


def write_tokenizer_config(source: Exportable, folder: Path) -> None:
    """Write what transformers wants to know beside `tokenizer.json`."""
    roles = dict(zip(ROLES, source.family.specials, strict=True))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": source.max_length,
        "model_input_names": ["input_ids", "attention_mask"],  # all tokens are of type 0
        # text that looks like a special token is one only where it was in training
        "split_special_tokens": not source.tokenizer.get_added_tokens_decoder(),
        **roles,
    }
    write_json(folder / "tokenizer_config.json", config)
    write_json(folder / "special_tokens_map.json", roles)


def describe_encoder(source: Exportable) -> dict[str, Any]:
    """The encoder's part of `config.json`."""
    model = source.classifier.model
    args, family = model.args, source.family
    activations = {fairseqs: theirs for theirs, fairseqs in reversed(ACTIVATIONS.items())}
    positions = len(model.encoder.sentence_encoder.embed_positions.weight)
    beginning, padding, end = source.special_ids
    return {
        "model_type": family.model_type,
        "vocab_size": source.tokenizer.get_vocab_size(),
        "num_hidden_layers": args.encoder_layers,
        "hidden_size": args.encoder_embed_dim,
        "intermediate_size": args.encoder_ffn_embed_dim,
        "num_attention_heads": args.encoder_attention_heads,
        "hidden_act": activations[args.activation_fn],
        "layer_norm_eps": getattr(args, "layernorm_eps", 1e-5),
        "max_position_embeddings": positions - 2 + family.unused_positions,
        "type_vocab_size": family.token_types,
        "hidden_dropout_prob": args.dropout,
        "attention_probs_dropout_prob": args.attention_dropout,
        "classifier_dropout": args.pooler_dropout,
        "bos_token_id": beginning,
        "pad_token_id": padding,
        "eos_token_id": end,
        "torch_dtype": "float32",
    }


def convert_encoder(source: Exportable) -> dict[str, torch.Tensor]:
    """Rename and reorder fairseq's weights; the import folded token types into positions."""
    family, encoder = source.family, source.classifier.model.encoder.sentence_encoder
    state = encoder.state_dict()
    prefix = f"{family.model_type}."
    positions = state["embed_positions.weight"]
    weights = {
        f"{prefix}embeddings.word_embeddings.weight": state["embed_tokens.weight"][source.order],
        f"{prefix}embeddings.position_embeddings.weight": positions[2 - family.unused_positions :],
    }
    if family.token_types:
        types = positions.new_zeros(family.token_types, positions.size(1))
        weights[f"{prefix}embeddings.token_type_embeddings.weight"] = types
    alike = parameters_of_layers(family, prefix, len(encoder.layers))
    return weights | {theirs: state[ours] for theirs, ours in alike.items()}


def convert_head(source: Exportable) -> dict[str, torch.Tensor]:
    """Rename the classification head's weights."""
    state = source.head.state_dict()
    names = {"classifier.dense": "dense", "classifier.out_proj": "out_proj"}
    if source.family is BERT:
        names = {"bert.pooler.dense": "dense", "classifier": "out_proj"}
    return {theirs: state[ours] for theirs, ours in parameters(names).items()}


def save(weights: dict[str, torch.Tensor], path: Path) -> None:
    """Write weights in float32, in the format that transformers loads.

    Raises:
        OSError: if the disk is full.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    contiguous = {name: tensor.float().contiguous() for name, tensor in weights.items()}
    try:
        save_file(contiguous, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(errno.ENOSPC, str(error)) from None
