"""Prepare, cross-validate, train and estimate: every step through the package's own doors."""

import argparse
import os
import shlex
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm import tqdm

from fairseq_scl.data.beside_checkpoint import TOKENIZER, Prepared, read_prepared
from fairseq_scl.data.rows import Choices, Rows
from fairseq_scl.encoders import encoder_folder
from fairseq_scl.errors import UserError, printable, short
from fairseq_scl.files import locked, read_model, sha256
from fairseq_scl.finetuning.estimate import Estimate
from fairseq_scl.finetuning.recipe import train_flags
from fairseq_scl.finetuning.training import is_trained, train_all, updates
from fairseq_scl.inference import calibration
from fairseq_scl.preparation.summary import count, split_lines
from fairseq_scl.preparation.tables import UTF8, json_lines
from fairseq_scl.reports.results import RESULT, Result

if TYPE_CHECKING:
    from fairseq_scl.studies.evaluate import Tested

LOCK = ".finetune.lock"
FOLDS = 5
MISTAKES = 5
BATCH_SIZE = 64  # sentences, of the test set
LOSSES = ("ce+scl", "ce")
PROBES = ("probe", "refit")
OWN = {  # flags of fairseq-train that say where the run lies and which rows it sees
    *("--save-dir", "--no-save", "--no-last-checkpoints", "--disable-validation"),
    *("--valid-subset", "--protocol", "--fold"),
}


class Found(NamedTuple):
    """What a fine-tuning ended with.

    Attributes:
        run: the folder with the model, for `predict`.
        estimate: how good it is; None where there was nothing to test on.
        basis: what the estimate stands on, in words.
        sentences: of each row of the estimate.
        probe, refit: the share of the same rows that is right by a logistic regression on the
            vectors before and after training; None where not measured.
    """

    run: Path
    estimate: Estimate | None
    basis: str
    sentences: list[Sequence[str]]
    probe: float | None = None
    refit: float | None = None


def encoder_named(name: str) -> Path:
    """The folder of an encoder: an imported one as it is, any other imported into a cache.

    Raises:
        UserError: if there is no such encoder.
    """
    from fairseq_scl.encoders import import_model

    if (Path(name) / encoder_folder.TRAIN_FLAGS).is_file():
        return Path(name)
    source = import_model.source_folder(name)
    folder = encoder_folder.cache() / f"{Path(name).name}-{fingerprint(source)}"
    if not folder.is_dir():
        import_model.run(argparse.Namespace(source=name, output=folder, tokenizer=None))
    return folder


def fingerprint(source: Path) -> str:
    """What tells the encoder in a folder from another: names, sizes and times of its files."""
    import hashlib

    told = [
        (path.name, path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(source.glob("*"))
    ]
    return hashlib.sha256(repr((str(source), told)).encode()).hexdigest()[:12]


def prepared_once(output: Path, encoder: Path, tables: dict) -> Prepared:
    """Prepare the data, unless an earlier call did.

    Raises:
        UserError: if that was other data, or for another encoder.
    """
    from fairseq_scl.preparation.prepare import prepare_tables

    if not output.exists():
        return prepare_tables(output, encoder, tables)
    prepared = read_prepared(output)
    if changed := difference(prepared, tables):
        raise UserError(
            f"{output} was made of {changed}; choose another --output, or remove {output.parent}"
        )
    kept = {path.name: path for path in (output / TOKENIZER).iterdir()}
    kept[encoder_folder.DICTIONARY] = output / "input0" / encoder_folder.DICTIONARY
    for name, path in kept.items():
        if not (encoder / name).is_file() or sha256(encoder / name) != sha256(path):
            raise UserError(f"{output} was made for another encoder; choose another --output")
    return prepared


def difference(prepared: Prepared, tables: dict) -> str:
    """In what prepared data differs from what these tables give; nothing if in nothing."""
    if set(prepared.splits) != set(tables):
        return f"the files of {', '.join(prepared.splits)}, not of {', '.join(tables)}"
    for split, table in tables.items():
        made = prepared.splits[split]
        if not isinstance(table.path, Path) or made.sha256 != sha256(table.path):
            return f"another {split} file, or this one was changed"
        read_by = {"delimiter": None, "encoding": None} | table.read_by
        for key, value in read_by.items():
            if (before := getattr(made, key)) != value:
                return f"{table.path} with {key} {shown(before)}, not {shown(value)}"
    return ""


def shown(value: object) -> str:
    """A column or several, an encoding or a delimiter in words."""
    return ", ".join(value) if isinstance(value, list) else str(value or "as usual")


def read_as(prepared: Prepared) -> str:
    """Which columns were read, and what they held."""
    lines = [line for split in prepared.splits for line in split_lines(split, prepared)]
    columns = prepared.splits["train"].columns
    if columns:
        *sentences, label = columns
        lines.insert(0, f"sentences: {' and '.join(sentences)}; labels: {label}")
    return "\n".join(map(printable, lines))


class Plan(NamedTuple):
    """What will be trained.

    Attributes:
        model: the flags of the run in `output`.
        folds: those of the runs of cross-validation, by their folders.
    """

    model: list[str]
    folds: dict[Path, list[str]]


def plan(
    output: Path,
    encoder: Path,
    prepared: Prepared,
    *,
    loss: str,
    folds: int,
    seed: int,
    cpu: bool,
    more: Sequence[str],
) -> Plan:
    """The flags of each run of fairseq-train."""
    rows, classes = prepared.splits["train"].rows, len(prepared.classes or ())
    # so that the run is the same, and can be evaluated, from any folder
    output, encoder = Path(os.path.abspath(output)), Path(os.path.abspath(encoder))

    def flags(folder: Path, rows: int, validate: bool, *own: str) -> list[str]:
        return [
            *(str(output / "data"), "--save-dir", str(folder)),
            *train_flags(encoder, rows, classes, validate, cpu, loss),
            *("--tensorboard-logdir", str(folder / "tensorboard"), "--seed", str(seed)),
            *own,
            *more,
        ]

    held_out = {
        output / "folds" / str(fold): ("--protocol", "folds", "--fold", f"{fold}/{folds}")
        for fold in range(1, folds + 1)
    }
    left = rows - rows // folds if folds else rows
    return Plan(
        flags(output, rows, "valid" in prepared.splits),
        {folder: flags(folder, left, False, *own) for folder, own in held_out.items()},
    )


def check(more: Sequence[str]) -> None:
    """Refuse flags of fairseq-train that would take the run away from `finetune`, or never end.

    Raises:
        UserError: naming the flag.
    """
    for flag in more:
        if flag.partition("=")[0] in OWN:
            raise UserError(
                f"{flag} after --: finetune itself says where a run lies and what it sees"
            )
    if updates(["--max-update", "1", *more]) < 1:
        raise UserError("--max-update after -- must be at least 1: fairseq takes 0 for no end")


def announce(output: Path, runs: Plan, dry_run: bool) -> None:
    """Print the command of the model, of a dry run those of the folds too."""
    if not dry_run and is_trained(output, runs.model, output):
        print(f"{output} is trained already, and measured again\n")
        return
    user_dir = ["--user-dir", str(Path(__file__).parent.parent)]
    for flags in (*runs.folds.values(), runs.model) if dry_run else (runs.model,):
        print(shlex.join(["fairseq-train", *flags, *user_dir]), end="\n\n")


def number_of_folds(asked: int | None, smallest: int, tested: bool) -> int:
    """How many folds there will be: those asked for, else `FOLDS` where nothing else tells.

    Args:
        smallest: rows of the rarest class.
        tested: whether there are rows to test on anyway.

    Raises:
        UserError: for more folds than the rarest class has rows.
    """
    if asked is None:
        possible = min(FOLDS, smallest)
        return 0 if tested or possible < 2 else possible
    if asked == 1 or asked < 0:
        raise UserError(f"--folds {asked} must be at least 2, or 0 for none")
    if asked and tested:
        raise UserError("--folds is for data without --valid and --test, which tell more")
    if asked > smallest:
        raise UserError(f"--folds {asked}: the rarest class has only {count(smallest, 'row')}")
    return asked


def estimate(tested: "Sequence[Tested]", classes: Sequence[str]) -> Estimate:
    """The figures over all runs together, of the rows that each was tested on."""
    labels = np.concatenate([part.labels for part in tested])
    return Estimate(classes, labels, np.concatenate([part.logits for part in tested]))


def sentences_of(data: Path, seen: Iterable[Rows], split: str) -> list[Sequence[str]]:
    """The sentences of a split, as each run sees it, one run after the other."""
    sentences: list[Sequence[str]] = []
    for rows in seen:
        source, numbers = rows.of(split)
        path = data / "text" / f"{source}.jsonl"
        lines = [line for _, line in json_lines(path, UTF8)]
        if max(numbers, default=-1) >= len(lines):
            raise UserError(f"{path} is damaged: {count(len(lines), 'row')} of {max(numbers) + 1}")
        sentences += [lines[number] for number in numbers]
    return sentences


def cross_validated(found: Estimate) -> dict:
    """What cross-validation has to say in `result.json`, where another run's test set would."""
    from fairseq_scl.criterions import metrics
    from fairseq_scl.studies.evaluate import by_class

    scores = metrics.classification(found.confusion)
    by_name = by_class(found.labels, found.logits, list(found.classes))
    return {"split": "folds", "test": scores, **by_name}


def probed(runs: Iterable[Path], name: str, split: str) -> float | None:
    """The share of rows that the `probe` or `refit` of the runs, taken together, has right."""
    shares, rows = [], []
    for run in runs:
        result = read_model(run / RESULT, Result)
        found = getattr(getattr(result, name), split, None)
        if found is None:
            return None
        shares.append(found["accuracy"] / 100)
        rows.append(sum(map(sum, result.confusion or [[1]])))  # one run without a test set
    return float(np.average(shares, weights=rows))


def measure(output: Path, prepared: Prepared, runs: Plan, heldout: str, verbose: bool) -> Found:
    """Let the trained runs label what they did not see, and write their results.

    Args:
        heldout: the split that the model is tested on; empty for the parts of the runs of
            cross-validation, if there are any.
    """
    from fairseq_scl.models import saved
    from fairseq_scl.studies.evaluate import evaluate

    classes, folds, data = prepared.classes or [], list(runs.folds), output / "data"
    parts, measured = [], None
    for run in tqdm(folds, desc="measure", unit="run", disable=not (verbose and folds)):
        parts.append(evaluate(run, "test", BATCH_SIZE, data=data)["test"])
    if folds:
        found = estimate(parts, classes)
        calibration.calibrate(saved.checkpoint_of(output), found.logits, found.labels, "folds")
        measured = cross_validated(found)
    own = "test" if heldout == "test" else None
    of_model = evaluate(output, own, BATCH_SIZE, measured, data, with_probe=bool(heldout))
    if heldout:
        found, seen = estimate([of_model[heldout]], classes), [Choices()]
        basis = count(prepared.splits[heldout].rows, f"{heldout} row")
        if heldout == "valid":
            basis += ", which also chose the state: an optimistic estimate"
    elif folds:
        seen = [Choices("folds", fold=f"{fold}/{len(folds)}") for fold in range(1, len(folds) + 1)]
        over = count(prepared.splits["train"].rows, "row")
        basis = f"{len(folds)}-fold cross-validation over {over}"
    else:
        return Found(output, None, f"no estimate: {why_none(prepared)}", [])
    if fitted := calibration.read(saved.checkpoint_of(output)):
        found = replace(found, temperature=fitted.temperature)
    split = heldout or "test"
    sentences = sentences_of(data, (Rows(data, each) for each in seen), split)
    shares = [probed(folds or [output], name, split) for name in PROBES]
    return Found(output, found, basis, sentences, *shares)


def why_none(prepared: Prepared) -> str:
    """Why there was nothing to test on."""
    counts = prepared.splits["train"].counts or ()
    for name, rows in zip(prepared.classes or (), counts, strict=False):
        if rows == 1:
            return f"cross-validation needs two rows of each class, and '{short(name)}' has one"
    return "--folds 0, and neither --valid nor --test"


def finetune(
    tables: dict,
    output: Path,
    *,
    encoder: str = "minilm",
    loss: str = "ce+scl",
    head: str = "trained",
    folds: int | None = None,
    seed: int = 1,
    jobs: int | None = None,
    cpu: bool | None = None,
    more: Sequence[str] = (),
    dry_run: bool = False,
    verbose: bool = True,
) -> Found:
    """Fine-tune an encoder on tables of labelled sentences.

    Args:
        tables: `train`, and if there are any `valid` and `test`, as `prepare_tables` takes them.
        output: receives the run, `data/` and `folds/`.
        encoder: `minilm`, `mpnet`, a folder, or a name on the Hugging Face hub.
        loss: `ce+scl`, or `ce`, the baseline with everything else the same.
        head: `trained`, or `refit`, a logistic regression on the tuned vectors in its place.
        folds: parts of cross-validation; 0 is none, None is `FOLDS` where nothing else can be
            tested on.
        jobs: runs side by side; default: the cores, on a GPU 1.
        cpu: leave a GPU alone; default: where there is none.
        more: further flags of fairseq-train; they win.
        dry_run: print the commands only.
        verbose: print the command that runs, and show a progress bar.

    Raises:
        UserError: in one line, for whatever cannot be used or fails.
    """
    import torch

    from fairseq_scl.studies.refit import use_head

    check(more)
    cpu = not torch.cuda.is_available() if cpu is None else cpu
    jobs = jobs or (os.cpu_count() or 1 if cpu else 1)
    folder = encoder_named(encoder)
    data = output / "data"
    with tempfile.TemporaryDirectory() as scratch:  # a dry run leaves nothing behind
        made = data if data.exists() or not dry_run else Path(scratch, "data")
        prepared = prepared_once(made, folder, tables)
        counts = np.bincount(Rows(made, Choices()).labels("train"))
    heldout = next((split for split in ("test", "valid") if split in prepared.splits), "")
    folds = number_of_folds(folds, int(counts.min()), bool(heldout))
    runs = plan(output, folder, prepared, loss=loss, folds=folds, seed=seed, cpu=cpu, more=more)
    if verbose:
        print(f"{read_as(prepared)}\n")
        announce(output, runs, dry_run)
    if dry_run:
        return Found(output, None, "nothing was trained", [])
    with locked(output / LOCK):
        train_all({**runs.folds, output: runs.model}, output, jobs, verbose)
        for run in (*runs.folds, output):
            use_head(run, head, BATCH_SIZE, data)
        return measure(output, prepared, runs, heldout, verbose)
