"""Turn a fine-tuned model into a folder that Hugging Face's transformers loads.

OUTPUT receives config.json with the labels, model.safetensors, the tokenizer and README.md, a model
card with the run's result.json. AutoModelForSequenceClassification and
pipeline("text-classification") then compute what fairseq does.

    fairseq-scl export checkpoints/sst2-20-draw1 exported

A model with --pooling mean (MiniLM) has no such class there and is refused.
"""

import argparse
import json
from pathlib import Path

import torch

from fairseq_scl import encoder_folder, inference
from fairseq_scl.classifier import CHECKPOINT, Classifier, load
from fairseq_scl.errors import UserError
from fairseq_scl.files import new_folder, read_json
from fairseq_scl.hugging_face import ACTIVATIONS, BERT_SPECIALS, LAYER_NAMES, SPECIALS
from fairseq_scl.results import RESULT
from fairseq_scl.tokenizers import tokenizer_json

ROLES = ("cls_token", "pad_token", "sep_token", "unk_token", "mask_token")  # as SPECIALS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        "model", metavar="MODEL", type=Path, help=f"a run's folder ({CHECKPOINT}) or a checkpoint"
    )
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="folder to make")


def run(args: argparse.Namespace) -> None:
    """Export `args.model` to `args.output`."""
    from safetensors.torch import save_file

    if args.output.exists():
        raise UserError(f"{args.output} exists already")
    classifier = load(args.model, cpu=True)
    require_exportable(classifier)
    tokenizer, order = read_tokenizer(classifier)
    is_bert = tokenizer.token_to_id("[CLS]") is not None
    names = BERT_SPECIALS if is_bert else SPECIALS
    if not is_bert and tokenizer.token_to_id("<pad>") != 1:
        raise UserError(f"{classifier.run}: the tokenizer's <pad> is not 1, where positions start")
    frame(tokenizer, names, classifier)
    config = describe(classifier, tokenizer, names, is_bert)
    weights = convert(classifier, torch.from_numpy(order).long(), is_bert)
    roles = dict(zip(ROLES, names, strict=True))
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        # prepare leaves room for a separator in pairs, which BERT's do not have
        "model_max_length": classifier.max_length - (classifier.before[1:] == (None,)),
        "model_input_names": ["input_ids", "attention_mask"],  # all tokens are of type 0
        **roles,
    }
    with new_folder(args.output) as folder:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        tokenizer.save(str(folder / "tokenizer.json"))
        for name, content in {
            "config.json": config,
            "tokenizer_config.json": tokenizer_config,
            "special_tokens_map.json": roles,
        }.items():
            write_json(folder / name, content)
        (folder / "README.md").write_text(card(classifier), encoding="utf-8")
    print(f"{args.output}: {config['architectures'][0]}")


def require_exportable(classifier: Classifier) -> None:
    """Refuse what the classes of transformers do not compute.

    Raises:
        UserError: naming what they lack.
    """
    args = classifier.model.args
    reason = None
    if getattr(args, "pooling", "cls") != "cls":
        reason = f"--pooling {args.pooling} has no sequence classification class in transformers"
    elif getattr(args, "encoder_normalize_before", False):
        reason = "transformers' encoders normalise after each part, this one before"
    elif args.activation_fn not in ACTIVATIONS.values():
        reason = f"activation {args.activation_fn} is none of config.json's"
    elif args.pooler_activation_fn != "tanh":
        reason = f"the head's activation is {args.pooler_activation_fn}, theirs tanh"
    elif classifier.before[0] != 0:
        reason = "it was not trained with --init-token 0"
    if reason:
        raise UserError(f"{classifier.run} cannot be exported: {reason}")


def read_tokenizer(classifier: Classifier):
    """The tokenizer, and the row of fairseq's embeddings for each of its ids.

    Raises:
        UserError: if it is of a kind that is not exported.
    """
    folder = classifier.run / inference.FOLDER / inference.TOKENIZER
    path = folder / encoder_folder.TOKENIZER_JSON
    if path.is_file():
        return tokenizer_json(path, classifier.model.encoder.dictionary.indices)
    raise UserError(f"{folder} has no {path.name}; import the encoder from a folder that has one")


def frame(tokenizer, names: tuple[str, ...], classifier: Classifier) -> None:
    """Have the tokenizer put special tokens where training had them."""
    from tokenizers.processors import TemplateProcessing

    start, _, end = names[:3]
    separator = [end] if classifier.before[1:] == (2,) else []
    tokenizer.post_processor = TemplateProcessing(
        single=[start, "$A", end],
        pair=[start, "$A", end, *separator, "$B", end],
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in (start, end)],
    )


def describe(classifier: Classifier, tokenizer, names: tuple[str, ...], is_bert: bool) -> dict:
    """The content of `config.json`."""
    args = classifier.model.args
    activations = {fairseqs: theirs for theirs, fairseqs in reversed(ACTIVATIONS.items())}
    table = classifier.model.encoder.sentence_encoder.embed_positions.weight
    classes = classifier.classes or ["LABEL_0"]
    return {
        "architectures": [f"{'Bert' if is_bert else 'Roberta'}ForSequenceClassification"],
        "model_type": "bert" if is_bert else "roberta",
        "vocab_size": tokenizer.get_vocab_size(),
        "num_hidden_layers": args.encoder_layers,
        "hidden_size": args.encoder_embed_dim,
        "intermediate_size": args.encoder_ffn_embed_dim,
        "num_attention_heads": args.encoder_attention_heads,
        "hidden_act": activations[args.activation_fn],
        "layer_norm_eps": getattr(args, "layernorm_eps", 1e-5),
        "max_position_embeddings": len(table) - 2 if is_bert else len(table),
        "type_vocab_size": 2 if is_bert else 1,
        "hidden_dropout_prob": args.dropout,
        "attention_probs_dropout_prob": args.attention_dropout,
        "classifier_dropout": args.pooler_dropout,
        "problem_type": "single_label_classification" if classifier.classes else "regression",
        "pad_token_id": tokenizer.token_to_id(names[1]),
        "bos_token_id": tokenizer.token_to_id(names[0]),
        "eos_token_id": tokenizer.token_to_id(names[2]),
        "torch_dtype": "float32",
        "id2label": dict(enumerate(classes)),
        "label2id": {name: i for i, name in enumerate(classes)},
    }


def convert(classifier: Classifier, order: torch.Tensor, is_bert: bool) -> dict[str, torch.Tensor]:
    """Rename and reorder fairseq's weights; the import folded token types into positions."""
    state = {name: tensor.float() for name, tensor in classifier.model.state_dict().items()}
    ours, prefix = "encoder.sentence_encoder", "bert" if is_bert else "roberta"
    positions = state[f"{ours}.embed_positions.weight"]
    types = positions.new_zeros(2 if is_bert else 1, positions.size(1))
    weights = {
        f"{prefix}.embeddings.word_embeddings.weight": state[f"{ours}.embed_tokens.weight"][order],
        f"{prefix}.embeddings.position_embeddings.weight": positions[2 if is_bert else 0 :],
        f"{prefix}.embeddings.token_type_embeddings.weight": types,
    }
    head = f"classification_heads.{classifier.head}"
    dense, projection = (
        ("bert.pooler.dense", "classifier")
        if is_bert
        else ("classifier.dense", "classifier.out_proj")
    )
    for kind in ("weight", "bias"):
        weights[f"{prefix}.embeddings.LayerNorm.{kind}"] = state[
            f"{ours}.layernorm_embedding.{kind}"
        ]
        for i in range(classifier.model.args.encoder_layers):
            for theirs, name in LAYER_NAMES.items():
                weights[f"{prefix}.encoder.layer.{i}.{theirs}.{kind}"] = state[
                    f"{ours}.layers.{i}.{name}.{kind}"
                ]
        weights[f"{dense}.{kind}"] = state[f"{head}.dense.{kind}"]
        weights[f"{projection}.{kind}"] = state[f"{head}.out_proj.{kind}"]
    return {name: tensor.contiguous() for name, tensor in weights.items()}


def card(classifier: Classifier) -> str:
    """The model card, in Markdown."""
    text = "---\nlibrary_name: transformers\npipeline_tag: text-classification\n---\n\n"
    text += (
        "Fine-tuned with fairseq-scl, supervised contrastive fine-tuning (Gunel et al., 2021).\n"
    )
    if classifier.classes:
        text += f"\nLabels: {', '.join(classifier.classes)}.\n"
    path = classifier.run / RESULT
    if path.is_file():
        result = read_json(path)
        result.pop("curves", None)
        text += f"\nThe run:\n\n```json\n{json.dumps(result, indent=1, ensure_ascii=False)}\n```\n"
    return text


def write_json(path: Path, content: dict) -> None:
    """Write `content`, readably."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
