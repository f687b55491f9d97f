"""Paraphrase training sentences by translating them to another language and back.

    fairseq-scl back-translate data/sst2 --encoder encoders/roberta-large --temperature 0.5 \\
        --num-shots 100 --shots-seed 1 2 3 --forward en-de/model.pt --backward de-en/model.pt

DATA is what 'prepare' made. Without --num-shots or --manifest every training row is translated,
C times each. Both directions sample at temperature T; each (row, copy, sentence, direction) has a
seed of its own, so that a result depends on nothing else. DATA/back-translation/T0.5 receives
augmented.jsonl, the text, to which every batch is added as it is done; settings.json, what the text
depends on; and input0, input1 (.bin, .idx) with index.json, the text in the encoder's tokens.

A killed call goes on when it is given again, and a later one adds what is missing. Models lie
beside their dict.LANGUAGE.txt and subword model, as fairseq publishes them (WMT18: --tokenizer
moses --bpe subword_nmt; WMT19: moses, fastbpe).
"""

import argparse
import hashlib
import json
import math
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, RootModel
from tqdm import tqdm

from fairseq_scl.back_translation.translation_folder import (
    SUBWORD_FILES,
    TOKENIZERS,
    checkpoint_paths,
    subword_files,
)
from fairseq_scl.data import beside_checkpoint, manifest, sampling
from fairseq_scl.data.beside_checkpoint import Prepared
from fairseq_scl.data.rows import Choices, Rows
from fairseq_scl.data.translations import FOLDER, INDEX, Index
from fairseq_scl.encoders import encoder_folder
from fairseq_scl.errors import UserError
from fairseq_scl.files import locked, parse_model, read_bytes, read_model, sha256, write_text
from fairseq_scl.preparation.tables import Row

AUGMENTED = "augmented.jsonl"
SETTINGS = "settings.json"
LOCK = ".lock"


class Item(NamedTuple):
    """Copy number `copy` (from 0) of training row `row` (from 0)."""

    row: int
    copy: int


class Paraphrase(BaseModel):
    """A line of augmented.jsonl."""

    model_config = ConfigDict(strict=True, extra="forbid")
    row: NonNegativeInt
    copy_number: NonNegativeInt = Field(alias="copy")  # BaseModel has a method of that name
    sentences: list[str]


class Sentences(RootModel[Annotated[list[str], Field(min_length=1, max_length=2)]]):
    """A line of text/train.jsonl."""


Texts = dict[Item, list[str]]  # the one or two sentences of each item


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("data", metavar="DATA", type=Path, help="folder that 'prepare' made")
    for direction, languages in (("forward", "to another language"), ("backward", "and back")):
        parser.add_argument(
            f"--{direction}",
            required=True,
            metavar="MODELS",
            help=f"fairseq checkpoint that translates {languages}; several, joined by "
            f"'{os.pathsep}', are an ensemble",
        )
    parser.add_argument(
        "--temperature", type=float, required=True, metavar="T", help="of the sampling, above 0"
    )
    parser.add_argument(
        "--encoder",
        type=Path,
        required=True,
        metavar="DIR",
        help="encoder folder that DATA was prepared with",
    )
    parser.add_argument("--num-shots", type=int, metavar="N", help="the rows of draws of N")
    parser.add_argument(
        "--shots-seed",
        type=int,
        nargs="+",
        default=[1],
        metavar="S",
        help="seed of each draw (default: 1)",
    )
    parser.add_argument(
        "--shots-sampling",
        choices=sampling.SAMPLING,
        default=sampling.SAMPLING[0],
        help="default: %(default)s",
    )
    parser.add_argument(
        "--manifest",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="the training rows of each run's manifest.json",
    )
    parser.add_argument(
        "--copies", type=int, default=3, metavar="C", help="of each row (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="default: %(default)s")
    parser.add_argument(
        "--tokenizer", choices=TOKENIZERS, default="none", help="the models' (default: %(default)s)"
    )
    parser.add_argument(
        "--bpe",
        choices=list(SUBWORD_FILES),
        default="sentencepiece",
        help="the models' (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-size", type=int, default=64, metavar="N", help="sentences (default: %(default)s)"
    )
    parser.add_argument("--cpu", action="store_true", help="leave the GPU alone")


def run(args: argparse.Namespace) -> None:
    """Back-translate rows of `args.data`."""
    if not (args.temperature > 0 and math.isfinite(args.temperature)):
        raise UserError(f"--temperature {args.temperature:g} must be above 0")
    for name in ("copies", "batch_size"):
        if getattr(args, name) < 1:
            flag = name.replace("_", "-")
            raise UserError(f"--{flag} {getattr(args, name)} must be at least 1")
    texts = read_texts(args.data)
    prepared = read_prepared(args.data, args.encoder)
    rows = chosen_rows(args, len(texts), regression=prepared.classes is None)
    settings = describe_settings(args)
    folder = args.data / FOLDER / f"T{args.temperature:g}"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / LOCK):
        require_settings(folder, settings)
        done = read_augmented(folder / AUGMENTED, texts)
        wanted = [Item(row, copy) for row in rows for copy in range(args.copies)]
        missing = sorted(
            (item for item in wanted if item not in done),
            key=lambda item: (sum(map(len, texts[item.row])), item),
        )
        if missing:
            done |= translate(folder / AUGMENTED, missing, texts, len(wanted), args)
        binarize(folder, done, args.encoder, prepared.max_length)
    print(f"{folder}: {len(done)} paraphrases of {len({item.row for item in done})} rows")


def translate(
    path: Path, missing: list[Item], texts: list[list[str]], wanted: int, args: argparse.Namespace
) -> Texts:
    """Paraphrase the `missing` of `wanted` items, adding each batch to augmented.jsonl."""
    translators = load_translators(args)
    done = wanted - len(missing)
    size = max(1, args.batch_size // len(texts[0]))
    translated: Texts = {}
    with (
        open(path, "ab") as file,
        tqdm(desc="back-translate", total=wanted, initial=done, unit="rows") as progress,
    ):
        for start in range(0, len(missing), size):
            batch = {item: texts[item.row] for item in missing[start : start + size]}
            batch = round_trip(translators, batch, args.seed, args.batch_size)
            file.write("".join(map(as_line, batch.items())).encode())
            file.flush()
            translated |= batch
            progress.update(len(batch))
    return translated


def read_texts(data: Path) -> list[list[str]]:
    """The sentences of each training row."""
    from fairseq_scl.data.stored import require

    path = require(data / "text" / "train.jsonl")
    return [
        parse_model(line, Sentences, f"{path}, row {number}").root
        for number, line in enumerate(read_bytes(path).splitlines(), 1)
    ]


def read_prepared(data: Path, encoder: Path) -> Prepared:
    """What 'prepare' wrote down, if it was for this encoder."""
    ours, theirs = data / "input0" / "dict.txt", encoder / encoder_folder.DICTIONARY
    for path in (ours, theirs):
        if not path.is_file():
            raise UserError(f"{path} is missing")
    if ours.read_bytes() != theirs.read_bytes():
        raise UserError(f"--encoder {encoder}: {ours} is not {theirs}")
    return beside_checkpoint.read_prepared(data)


def chosen_rows(args: argparse.Namespace, available: int, regression: bool) -> list[int]:
    """Row numbers from 0, ascending: the union of the draws, or all."""
    if args.manifest and args.num_shots is not None:
        raise UserError("give either --manifest or --num-shots")
    if args.manifest:
        return sorted({row for path in args.manifest for row in read_rows(path, available)})
    draws = [
        Choices("given", args.num_shots, seed, args.shots_sampling, regression=regression)
        for seed in args.shots_seed
    ]
    return np.unique([Rows(args.data, draw).of("train").rows for draw in draws]).tolist()


def read_rows(path: Path, available: int) -> list[int]:
    """The training rows of a run's manifest."""
    train = manifest.read(path).splits["train"]
    try:
        return train.numbers(available)
    except ValueError as error:
        raise UserError(f"--manifest {path}: {error}") from None


class Checksum(BaseModel):
    """A file of a translation model."""

    model_config = ConfigDict(strict=True, extra="forbid")
    file: str
    sha256: str


class Settings(BaseModel):
    """All that a paraphrase depends on, as `settings.json` holds it."""

    model_config = ConfigDict(strict=True, extra="forbid")
    temperature: float
    seed: int
    tokenizer: str
    bpe: str
    text: str
    forward: list[Checksum]
    backward: list[Checksum]


def describe_settings(args: argparse.Namespace) -> Settings:
    """The settings of this call."""
    models = {}
    for direction in ("forward", "backward"):
        paths = checkpoint_paths(f"--{direction}", getattr(args, direction))
        folder = paths[0].parent
        paths += sorted(folder.glob("dict.*.txt")) + subword_files(folder, args.bpe)
        models[direction] = [Checksum(file=path.name, sha256=sha256(path)) for path in paths]
    return Settings(
        temperature=args.temperature,
        seed=args.seed,
        tokenizer=args.tokenizer,
        bpe=args.bpe,
        text=sha256(args.data / "text" / "train.jsonl"),
        **models,
    )


def require_settings(folder: Path, settings: Settings) -> None:
    """Write settings.json; where there is text already, compare instead."""
    path = folder / SETTINGS
    if not (folder / AUGMENTED).is_file():
        write_text(path, settings.model_dump_json(indent=1) + "\n")
        return
    if not path.is_file():
        raise UserError(f"{path} is missing, so {AUGMENTED} may be of other settings")
    for (key, value), (_, earlier) in zip(settings, read_model(path, Settings), strict=True):
        if earlier != value:
            told = f" ({earlier}, not {value})" if isinstance(value, int | float) else ""
            raise UserError(f"{path}: made with another {key}{told}; move {folder} away first")


def read_augmented(path: Path, texts: Sequence[Sequence[str]]) -> Texts:
    """The whole lines of augmented.jsonl; a last line cut short is removed from the file."""
    content = path.read_bytes() if path.is_file() else b""
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
        print(f"{path}: dropped a last line that was cut short", file=sys.stderr)
    done: Texts = {}
    for number, line in enumerate(content[:whole].split(b"\n")[:-1], 1):
        record = parse_model(line, Paraphrase, f"{path}, row {number}")
        item = Item(record.row, record.copy_number)
        if item.row >= len(texts) or len(record.sentences) != len(texts[item.row]):
            raise UserError(f"{path}, row {number}: not of a row of the training text")
        if item in done:
            raise UserError(f"{path}, row {number}: a copy that stands above")
        done[item] = record.sentences
    return done


def as_line(entry: tuple[Item, list[str]]) -> str:
    """A line of augmented.jsonl."""
    item, sentences = entry
    return json.dumps(item._asdict() | {"sentences": sentences}, ensure_ascii=False) + "\n"


def sentence_seed(seed: int, item: Item, sentence: int, direction: str) -> int:
    """The seed of one translation of one sentence, in [0, 2^32): what torch's generator reads."""
    key = f"{seed} {item.row} {item.copy} {sentence} {direction}"
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4])


def load_translators(args: argparse.Namespace) -> dict:
    """The translator of each direction, forward first."""
    import torch

    from fairseq_scl import plugin  # noqa: F401
    from fairseq_scl.back_translation.translator import Translator

    use_cuda = torch.cuda.is_available() and not args.cpu
    device = torch.device("cuda" if use_cuda else "cpu")
    translators = {}
    for direction in ("forward", "backward"):
        paths = checkpoint_paths(f"--{direction}", getattr(args, direction))
        translators[direction] = Translator(
            paths, args.temperature, args.tokenizer, args.bpe, device
        )
    there, back = translators.values()
    if (there.source, there.target) != (back.target, back.source):
        raise UserError(
            f"--backward translates {back.source}-{back.target}, "
            f"--forward {there.source}-{there.target}: one must undo the other"
        )
    return translators


def round_trip(translators: dict, batch: Texts, seed: int, batch_size: int) -> Texts:
    """Paraphrase the sentences of each item."""
    places = [(item, i) for item, sentences in batch.items() for i in range(len(sentences))]
    texts = [text for sentences in batch.values() for text in sentences]
    for direction, translator in translators.items():
        seeds = [sentence_seed(seed, item, i, direction) for item, i in places]
        texts = translator(texts, seeds, batch_size)
    remaining = iter(texts)
    return {item: [next(remaining) for _ in batch[item]] for item in batch}


def binarize(folder: Path, texts: Texts, encoder: Path, max_length: int) -> None:
    """Write the texts as the encoder's tokens, sorted by row and copy, and index.json."""
    from fairseq_scl.data.stored import load_dictionary
    from fairseq_scl.encoders.tokenizers import load_tokenizer
    from fairseq_scl.preparation.binarize import write_sentences

    items = sorted(texts)
    dictionary = encoder / encoder_folder.DICTIONARY
    symbols = load_dictionary(dictionary).symbols
    keys = [f"input{i}" for i in range(len(texts[items[0]]))]
    temporary = folder / ".binarized"
    shutil.rmtree(temporary, ignore_errors=True)  # of a killed call
    temporary.mkdir()
    try:
        write_sentences(
            [Row(item.row + 1, tuple(texts[item]), None) for item in items],
            len(items),
            load_tokenizer(encoder, symbols),
            len(symbols),
            max_length,
            [temporary / key for key in keys],
            folder.name,
        )
        # without index.json nothing is loaded: the old one goes first, the new one comes last
        (folder / INDEX).unlink(missing_ok=True)
        for path in temporary.iterdir():
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    index = Index(rows=[item.row for item in items], copies=[item.copy for item in items])
    write_text(folder / INDEX, json.dumps(index.model_dump()) + "\n")
