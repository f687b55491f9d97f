"""Test the best checkpoint of each run, once; the last of a run with --disable-validation.

Writes into RUN: result.json (configuration, versions, what was logged, validation and test metrics)
and test_embeddings.npz (the sentence vectors and labels of the test set). Where the run logged to
TensorBoard, a row of its HParams table and the test set in its embedding projector are added. A
run whose result.json is of this very checkpoint, by its sha256, and of this split is left alone.

"knn" of result.json is what the embedding alone makes of the test set: the metrics of the class
that most of the 5 nearest training rows have, by the cosine of their sentence vectors. The rows are
those that the run trained on, with their noise (of --noise tokens the first epoch's). Null for a
regression, and beyond 10,000 training rows, which would take long to encode.

"probe" is what needs no fine-tuning: a logistic regression on the sentence vectors of the encoder
before training (--finetune-from-model), fitted to the same training rows, its C chosen on the
validation set; "refit" is the same on the vectors after training. Missing where "knn" is, and
"probe" where the encoder is no longer there.

"per_class" and "confusion" (a row for each true class) tell which classes are taken for which. Of a
classification with a validation set, calibration.json is written too: the temperature, fitted on
that set, that predict and export divide logits by. "calibration" says what it does to the expected
calibration error and the Brier score of the test set.

    fairseq-scl evaluate outputs/ce/draw1 outputs/scl/draw1
"""

import argparse
import json
import logging
import math
import platform
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from omegaconf import OmegaConf
from tqdm import tqdm

from fairseq_scl.criterions import metrics
from fairseq_scl.data import manifest
from fairseq_scl.data.beside_checkpoint import HEADS
from fairseq_scl.errors import NOT_FINITE, UserError, first_line
from fairseq_scl.files import new_file, parse_model, read_model, sha256, write_text
from fairseq_scl.inference import calibration, refitted_head
from fairseq_scl.reports import tensorboard
from fairseq_scl.reports.results import EMBEDDINGS, PERCENT, RESULT, Result
from fairseq_scl.studies import probe

log = logging.getLogger(__name__)

TENSORBOARD = "tensorboard"
NEIGHBOURS = 5
MAX_TRAINING_ROWS = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="folder with checkpoints")
    parser.add_argument(
        "--data",
        metavar="DATA",
        type=Path,
        help="where the runs' data lies now; the files must be the same. Default: where it lay in "
        "training",
    )
    parser.add_argument("--split", default="test", help="default: %(default)s")
    parser.add_argument(
        "--batch-size", type=int, default=64, metavar="N", help="default: %(default)s"
    )


def run(args: argparse.Namespace) -> None:
    """Evaluate `args.runs`."""
    from fairseq_scl import plugin  # noqa: F401  (knows what a checkpoint may hold)
    from fairseq_scl.models import saved

    if args.batch_size < 1:
        raise UserError(f"--batch-size {args.batch_size} must be at least 1")
    if args.data is not None and not args.data.is_dir():
        raise UserError(f"--data {args.data}: no such folder")
    found = [(folder, saved.checkpoint_of(folder)) for folder in args.runs]
    waiting = [folder for folder, path in found if not is_evaluated(folder, path, args.split)]
    for folder in tqdm(waiting, desc="evaluate", unit="run", disable=not waiting):
        evaluate(folder, args.split, args.batch_size, data=args.data)
    for folder in args.runs:
        print(f"{folder}: {args.split}: {figures(read_model(folder / RESULT, Result))}")


def figures(result: Result) -> str:
    """The main figures of a test, in a line."""
    known = [name for name in PERCENT if name in (result.test or {})]
    return ", ".join(f"{name} {(result.test or {})[name]:.1f}" for name in known)


def is_evaluated(folder: Path, checkpoint: Path, split: str | None) -> bool:
    """Whether the run's result is of its present checkpoint and of `split`."""
    if not (folder / RESULT).is_file():
        return False
    result = read_model(folder / RESULT, Result)
    return result.split == split and result.checkpoint == sha256(checkpoint)


def evaluate(
    folder: Path,
    split: str | None,
    batch_size: int,
    measured: dict | None = None,
    data: Path | None = None,
    with_probe: bool = True,
) -> "dict[str, Tested]":
    """Write `result.json` and `test_embeddings.npz` of one run.

    Args:
        split: what to test on; None leaves the test set alone.
        measured: further entries of the result.
        data: where the run's data lies; None: where it lay in training.
        with_probe: fit `probe` and `refit`, too.

    Returns:
        What the run makes of its rows: `train`, `valid` and, for those of `split`, `test`.

    Raises:
        UserError: if the data is not there or another, or the checkpoint is none.
    """
    from fairseq_scl import plugin  # noqa: F401
    from fairseq_scl.models import saved

    checkpoint = saved.checkpoint_of(folder)
    model, cfg, task, criterion, said = saved.load(checkpoint, data)
    trained_on = manifest.read(folder / manifest.NAME)
    manifest.require_files(trained_on, Path(task.data), folder / manifest.NAME)
    refitted = bool(task.class_names) and refitted_head.use(
        checkpoint, model, said.head, len(task.class_names)
    )
    measure = partial(test_metrics, model.eval(), criterion.eval(), cfg, task, batch_size)
    datasets = {
        "train": training(task) if split or with_probe else None,
        "valid": validation(cfg, task),
        "test": labelled(folder, task, split) if split else None,
    }

    def encoded() -> dict[str, Tested]:
        return {name: measure(rows) for name, rows in datasets.items() if rows is not None}

    after = encoded()
    require_finite(checkpoint, after)
    known, valid, tested = map(after.get, datasets)
    mismatched = None
    if split == "test" and task.has_split("test1"):  # MNLI's mismatched set
        mismatched = measure(task.load_dataset("test1")).metrics
    probes = {}
    if with_probe and known and len(set(known.labels)) > 1:
        probes["refit"] = probed(after, len(task.class_names))
        if as_before(model, cfg, trained_on.encoder):
            probes["probe"] = probed(encoded(), len(task.class_names))
    logs = logs_of(folder, cfg)
    curves = tensorboard.read_scalars(logs)
    wall = curves.get("train_inner", {}).get("wall")
    result = {
        "config": OmegaConf.to_container(cfg, resolve=True, enum_to_str=True),
        "versions": versions(),
        "checkpoint": sha256(checkpoint),
        "manifest": trained_on.sha256,
        "updates": said.optimizer_history[-1].num_updates,
        "best_metric": cfg.checkpoint.best_checkpoint_metric,
        "valid": said.extra_state.best,
        "head": HEADS[refitted],
        "split": split,
        **tested_metrics(tested, known, task.class_names),
        **probes,
        "test1": mismatched,
        "classes": task.class_names,
        "calibration": calibrated(checkpoint, cfg, task, valid, split, tested),
        "seconds": wall[-1][1] if wall else None,
        **(measured or {}),
        "curves": curves,
    }
    text = json.dumps(result, default=vars)  # fairseq may keep a model's flags as a namespace
    checked = parse_model(text, Result, folder / RESULT)
    if tested:
        with new_file(folder / EMBEDDINGS) as temporary, open(temporary, "wb") as file:
            np.savez(file, features=tested.features, labels=tested.labels)
    if logs.is_dir():  # what a checkpoint names elsewhere may be another's: only read it
        features = tested and tested.features
        names = tested and names_of(tested.labels, task.class_names)
        tensorboard.write_outcome(folder / TENSORBOARD, folder, checked, features, names)
    write_text(folder / RESULT, text + "\n")
    return after


def require_finite(checkpoint: Path, parts: "dict[str, Tested]") -> None:
    """Refuse a model that is broken.

    Raises:
        UserError: if a sentence vector or a test metric is infinite or no number.
    """
    figures = parts["test"].metrics.values() if "test" in parts else ()
    if not (all(map(math.isfinite, figures)) and all(part.is_finite() for part in parts.values())):
        raise UserError(f"{checkpoint}: {NOT_FINITE}")


def tested_metrics(tested: "Tested | None", known: "Tested | None", classes: list[str]) -> dict:
    """The result's entries about the test set: `test`, `knn`, `per_class` and `confusion`."""
    if not tested:
        return {"test": None, "knn": None}
    features, labels = tested.features, tested.labels
    knn = known and knn_metrics(known.features, known.labels, features, labels, len(classes))
    by_name = by_class(labels, tested.logits, classes) if classes else {}
    return {"test": tested.metrics, "knn": knn, **by_name}


def names_of(labels: np.ndarray, classes: list[str]) -> list[str]:
    """The class of each row, of a regression the number."""
    return [classes[label] if classes else str(label) for label in labels]


def logs_of(folder: Path, cfg) -> Path:
    """Where a run's curves lie: beside it, else where it was told to log."""
    beside = folder / TENSORBOARD
    if (beside / "train_inner").is_dir() or not cfg.common.tensorboard_logdir:
        return beside
    return Path(cfg.common.tensorboard_logdir)


def versions() -> dict[str, str]:
    """What computes here."""
    import fairseq

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "fairseq": fairseq.__version__,
        "fairseq-scl": version("fairseq-scl"),
    }


def labelled(folder: Path, task, split: str):
    """The split's dataset.

    Raises:
        UserError: naming the run, if the data has no such split, or no labels in it.
    """
    told = f"{folder}: the split '{split}' of {task.data}"
    if not task.has_split(split):
        raise UserError(f"{told} is missing; prepare the data with it, or give another --split")
    dataset = task.load_dataset(split)
    if "target" not in dataset[0]:
        raise UserError(
            f"{told} has no labels to compare with; give another --split, or label it with "
            "'fairseq-scl predict'"
        )
    return dataset


class Tested(NamedTuple):
    """What a model makes of a split, in the order of its rows.

    Attributes:
        metrics: by name.
        features: sentence vectors, `(rows, dim)` float32.
        labels: `(rows,)`.
        logits: `(rows, classes)` float32.
    """

    metrics: dict[str, float]
    features: np.ndarray
    labels: np.ndarray
    logits: np.ndarray

    def is_finite(self) -> bool:
        """Whether all sentence vectors are."""
        return bool(np.isfinite(self.features).all())


def test_metrics(model, criterion, cfg, task, batch_size: int, dataset) -> Tested:
    """Run the model over a split, each row of it once."""
    from fairseq import utils
    from fairseq.logging import metrics as fairseq_metrics

    from fairseq_scl.criterions.sentence_prediction_scl import seen_by

    use_cuda = torch.cuda.is_available() and not cfg.common.cpu
    if use_cuda:
        model.cuda()
    dataset.order = None  # that of training may repeat rows
    batches = task.get_batch_iterator(dataset, max_sentences=batch_size)
    head = model.classification_heads[cfg.criterion.classification_head_name]
    rows, features, labels, logits, logs = [], [], [], [], []
    with torch.no_grad():
        for batch in batches.next_epoch_itr(shuffle=False):
            batch = utils.move_to_cuda(batch) if use_cuda else batch
            with seen_by(head) as seen:
                logs.append(criterion(model, batch)[2])
            rows.append(batch["id"].cpu())
            features.append(seen["encoder"].float().cpu())
            labels.append(batch["target"].view(-1).cpu())
            logits.append(seen["logits"].float().cpu())
    with fairseq_metrics.aggregate(new_root=True) as aggregate:
        criterion.reduce_metrics(logs)
    values = {key: float(value) for key, value in aggregate.get_smoothed_values().items()}
    order = torch.cat(rows).argsort()
    parts = (torch.cat(part)[order].numpy() for part in (features, labels, logits))
    return Tested(values, *parts)


def training(task):
    """The rows that a classification was trained on, None where they are too many to encode."""
    if not task.class_names:
        return None
    dataset = task.load_dataset("train")
    return dataset if len(dataset) <= MAX_TRAINING_ROWS else None


def validation(cfg, task):
    """The dataset that a classification was validated on, None without one."""
    valid = cfg.dataset.valid_subset.split(",")[0]
    if not task.class_names or cfg.dataset.disable_validation or not task.has_split(valid):
        return None
    return task.load_dataset(valid)


def as_before(model, cfg, encoder: str | None) -> bool:
    """Give a model its encoder's weights of before training; say so if they are gone.

    Args:
        encoder: their checksum, None of a run of before 0.2.
    """
    from fairseq_scl.models import saved

    path = cfg.checkpoint.finetune_from_model
    if not path or not Path(path).is_file():
        log.warning(f"no probe: the encoder before training, {path or 'none'}, is not there")
        return False
    if encoder and sha256(Path(path)) != encoder:
        log.warning(f"no probe: {path} is not the encoder before training: it was changed since")
        return False
    try:
        state = saved.read_lazily(path)  # its configuration, a second for Hydra, is not needed
        model.load_state_dict(state["model"], model_cfg=cfg.model)  # as fairseq's trainer does
    except (UserError, Exception) as error:  # torch and fairseq raise whatever they like
        why = first_line(error).removeprefix("fairseq-scl: error: ")
        log.warning(f"no probe: {path} is not the encoder before training: {why}")
        return False
    return True


def probed(parts: dict[str, Tested], count: int) -> dict:
    """The logistic regression on a model's sentence vectors; see `probe`."""
    rows = {name: (part.features, part.labels) for name, part in parts.items()}
    return probe.probe_metrics(rows["train"], rows.get("valid"), rows.get("test"), count)


def calibrated(
    checkpoint: Path, cfg, task, held_out: Tested | None, split: str | None, tested: Tested | None
) -> dict | None:
    """Fit a temperature on the validation set; of a run without one, read what others fitted.

    Returns:
        The result's `calibration`; errors only of rows that it was not fitted on.
    """
    if not task.class_names:
        return None
    valid = cfg.dataset.valid_subset.split(",")[0]
    if held_out is None:
        found = calibration.read(checkpoint)
    else:
        found = calibration.calibrate(checkpoint, held_out.logits, held_out.labels, "valid")
    if found is None:
        return None
    told = found.model_dump(exclude={"checkpoint", "refit"})
    if tested is None or (split == valid and found.fitted_on == "valid"):
        return told
    for name, temperature in (("before", 1.0), ("after", found.temperature)):
        said = calibration.probabilities_of(tested.logits, temperature)
        told[f"ece_{name}"] = calibration.expected_calibration_error(said, tested.labels)
        told[f"brier_{name}"] = calibration.brier_score(said, tested.labels)
    return told


def by_class(labels: np.ndarray, logits: np.ndarray, names: list[str]) -> dict:
    """The result's `per_class`, in percent, and `confusion`; 0 where a share is undefined.

    Args:
        labels: `(rows,)`; logits: `(rows, classes)`.
    """
    from sklearn.metrics import precision_recall_fscore_support

    said, ids = logits.argmax(1), np.arange(len(names))
    found = precision_recall_fscore_support(labels, said, labels=ids, zero_division=0)
    per_class = {
        name: {
            "precision": 100 * float(precision),
            "recall": 100 * float(recall),
            "f1": 100 * float(f1),
            "support": int(support),
        }
        for name, precision, recall, f1, support in zip(names, *found, strict=True)
    }
    confusion = confusion_of(said, labels, len(names)).tolist()
    return {"per_class": per_class, "confusion": confusion}


def confusion_of(said: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """How many rows of each true class, `(count, count)` int64, were taken for each class."""
    return metrics.confusion_matrix(torch.from_numpy(said), torch.from_numpy(labels), count).numpy()


def knn_metrics(
    known: np.ndarray, classes: np.ndarray, features: np.ndarray, labels: np.ndarray, count: int
) -> dict[str, float]:
    """How right the nearest known rows are by majority; of classes that tie, the lowest id.

    Args:
        known, features: sentence vectors, `(known rows, dim)` and `(rows, dim)`.
        classes, labels: ids below `count`, `(known rows,)` and `(rows,)`.

    Returns:
        `k`, how many were asked, and the metrics of a classification in percent.
    """
    from sklearn.neighbors import KNeighborsClassifier

    k = min(NEIGHBOURS, len(known))
    said = KNeighborsClassifier(k, metric="cosine").fit(known, classes).predict(features)
    confusion = confusion_of(said, labels, count)
    return {"k": k} | metrics.classification(confusion)
