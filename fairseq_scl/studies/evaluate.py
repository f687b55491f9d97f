"""Test the best checkpoint of each run, once; the last of a run with --disable-validation.

Writes into RUN: result.json (configuration, versions, what was logged, validation and test metrics)
and test_embeddings.npz (the sentence vectors and labels of the test set). Where the run logged to
TensorBoard, a row of its HParams table and the test set in its embedding projector are added. A
run that has a result.json newer than its checkpoint is left alone.

"knn" of result.json is what the embedding alone makes of the test set: the metrics of the class
that most of the 5 nearest training rows have, by the cosine of their sentence vectors. The rows are
those that the run trained on, with their noise (of --noise tokens the first epoch's). Null for a
regression, and beyond 10,000 training rows, which would take long to encode.

    fairseq-scl evaluate outputs/ce/draw1 outputs/scl/draw1
"""

import argparse
import json
import platform
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf
from tqdm import tqdm

from fairseq_scl.criterions import metrics
from fairseq_scl.data import manifest
from fairseq_scl.errors import NOT_FINITE, UserError
from fairseq_scl.files import new_file, parse_model, write_text
from fairseq_scl.reports import tensorboard
from fairseq_scl.reports.results import EMBEDDINGS, RESULT, Result

NEIGHBOURS = 5
MAX_TRAINING_ROWS = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="folder with checkpoints")
    parser.add_argument("--split", default="test", help="default: %(default)s")
    parser.add_argument(
        "--batch-size", type=int, default=64, metavar="N", help="default: %(default)s"
    )


def run(args: argparse.Namespace) -> None:
    """Evaluate `args.runs`."""
    from fairseq_scl.models import saved

    found = [(folder, saved.checkpoint_of(folder)) for folder in args.runs]
    waiting = [folder for folder, checkpoint in found if not is_evaluated(folder, checkpoint)]
    for folder in tqdm(waiting, desc="evaluate", unit="run", disable=not waiting):
        evaluate(folder, args.split, args.batch_size)


def is_evaluated(folder: Path, checkpoint: Path) -> bool:
    """Whether the run's result belongs to its present checkpoint."""
    result = folder / RESULT
    return result.is_file() and result.stat().st_mtime >= checkpoint.stat().st_mtime


def evaluate(
    folder: Path, split: str | None, batch_size: int, measured: dict | None = None
) -> None:
    """Write `result.json` and `test_embeddings.npz` of one run.

    Args:
        split: what to test on; None leaves the test set alone.
        measured: further entries of the result.
    """
    import fairseq

    from fairseq_scl import plugin  # noqa: F401
    from fairseq_scl.models import saved

    model, cfg, task, criterion, said = saved.load(saved.checkpoint_of(folder))
    test = mismatched = knn = features = names = None
    if split:
        measure = partial(test_metrics, model.eval(), criterion.eval(), cfg, task, batch_size)
        test, features, labels = measure(labelled(folder, task, split))
        if not (np.isfinite(features).all() and np.isfinite(list(test.values())).all()):
            raise UserError(f"{saved.checkpoint_of(folder)}: {NOT_FINITE}")
        if split == "test" and task.has_split("test1"):  # MNLI's mismatched set
            mismatched = measure(task.load_dataset("test1"))[0]
        if task.class_names and len(train := task.load_dataset("train")) <= MAX_TRAINING_ROWS:
            _, known, classes = measure(train)
            knn = knn_metrics(known, classes, features, labels, len(task.class_names))
        with new_file(folder / EMBEDDINGS) as temporary, open(temporary, "wb") as file:
            np.savez(file, features=features, labels=labels)
        names = [task.class_names[label] if task.class_names else str(label) for label in labels]
    updates = said.optimizer_history[-1].num_updates
    logs = folder / "tensorboard"
    if not logs.is_dir() and cfg.common.tensorboard_logdir:
        logs = Path(cfg.common.tensorboard_logdir)
    curves = tensorboard.read_scalars(logs)
    wall = curves.get("train_inner", {}).get("wall")
    result = {
        "config": OmegaConf.to_container(cfg, resolve=True, enum_to_str=True),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "fairseq": fairseq.__version__,
            "fairseq-scl": version("fairseq-scl"),
        },
        "manifest": manifest.read(folder / manifest.NAME).sha256,
        "updates": updates,
        "best_metric": cfg.checkpoint.best_checkpoint_metric,
        "valid": said.extra_state.best,
        "split": split,
        "test": test,
        "knn": knn,
        "test1": mismatched,
        "classes": task.class_names,
        "seconds": wall[-1][1] if wall else None,
        **(measured or {}),
        "curves": curves,
    }
    text = json.dumps(result, default=vars)  # fairseq may keep a model's flags as a namespace
    checked = parse_model(text, Result, folder / RESULT)
    if logs.is_dir():
        tensorboard.write_outcome(logs, folder, checked, features, names)
    write_text(folder / RESULT, text + "\n")


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


def test_metrics(model, criterion, cfg, task, batch_size: int, dataset):
    """Run the model over a split, each row of it once.

    Returns:
        The metrics by name, the sentence vectors `(rows, dim)` float32 and the labels `(rows,)`,
        in the order of the rows.
    """
    from fairseq import utils
    from fairseq.logging import metrics as fairseq_metrics

    from fairseq_scl.criterions.sentence_prediction_scl import seen_by

    use_cuda = torch.cuda.is_available() and not cfg.common.cpu
    if use_cuda:
        model.cuda()
    dataset.order = None  # that of training may repeat rows
    batches = task.get_batch_iterator(dataset, max_sentences=batch_size)
    head = model.classification_heads[cfg.criterion.classification_head_name]
    rows, features, labels, logs = [], [], [], []
    with torch.no_grad():
        for batch in batches.next_epoch_itr(shuffle=False):
            batch = utils.move_to_cuda(batch) if use_cuda else batch
            with seen_by(head) as seen:
                logs.append(criterion(model, batch)[2])
            rows.append(batch["id"].cpu())
            features.append(seen["encoder"].float().cpu())
            labels.append(batch["target"].view(-1).cpu())
    with fairseq_metrics.aggregate(new_root=True) as aggregate:
        criterion.reduce_metrics(logs)
    values = {key: float(value) for key, value in aggregate.get_smoothed_values().items()}
    order = torch.cat(rows).argsort()
    return values, torch.cat(features)[order].numpy(), torch.cat(labels)[order].numpy()


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
    confusion = metrics.confusion_matrix(torch.from_numpy(said), torch.from_numpy(labels), count)
    return {"k": k} | {
        metric.__name__: metric(confusion.numpy()) for metric in metrics.CLASSIFICATION
    }
