"""TensorBoard: what fairseq logged, read back, and a run's outcome beside it."""

import shutil
from pathlib import Path

import numpy as np

from fairseq_scl.data import manifest
from fairseq_scl.reports.projection import some_rows
from fairseq_scl.reports.results import Result

GROUPS = ("train_inner", "valid")  # every --log-interval updates; at every validation
FIRST = ("data", "N", "noise", "lambda", "tau")  # of the HParams table, which shows five columns
SUFFIX = ".outcome"  # of the event files that are replaced when a run is evaluated again


def read_scalars(folder: Path) -> dict[str, dict[str, list]]:
    """The curves of a run.

    Returns:
        For each of `GROUPS` and each metric, `[[update, value], ...]` in order of updates.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves: dict[str, dict[str, list]] = {}
    for group in GROUPS:
        if not (folder / group).is_dir():
            continue
        events = EventAccumulator(str(folder / group), size_guidance={"scalars": 0}).Reload()
        curves[group] = {
            metric: [[event.step, event.value] for event in events.Scalars(metric)]
            for metric in events.Tags()["scalars"]
        }
    return curves


def write_outcome(
    folder: Path, run: Path, result: Result, features: np.ndarray | None, labels: list[str] | None
) -> None:
    """Write what a browser compares runs by, in place of what this function wrote before.

    That is a row of the HParams table, whose metrics are `validation` and `test`, and the test set
    (at most `projection.MAX_ROWS` of it) in the embedding projector.

    Args:
        folder: `tensorboard` in the run's folder, where most runs log their curves too.
        run: where its manifest is.
        features: sentence vectors of the test set, `(rows, dim)`; None if it was not tested.
        labels: names of their classes.
    """
    from torch.utils.tensorboard import SummaryWriter

    for path in folder.glob(f"events.out.tfevents.*{SUFFIX}"):
        path.unlink()
    shutil.rmtree(folder / "00000", ignore_errors=True)  # SummaryWriter's name, of step 0
    (folder / "projector_config.pbtxt").unlink(missing_ok=True)
    with SummaryWriter(str(folder), filename_suffix=SUFFIX) as writer:
        write_hyperparameters(writer, run, result)
        if features is not None and labels is not None:
            rows = some_rows(len(features))
            short = features[rows].astype(float).round(4)  # it is stored as text
            writer.add_embedding(short, [labels[row] for row in rows], tag="test")


def write_hyperparameters(writer, run: Path, result: Result) -> None:
    """Write a session of the HParams plugin.

    `SummaryWriter.add_hparams` would put it in a folder of its own, apart from the run's curves.
    """
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
    from torch.utils.tensorboard.summary import hparams

    test = result.test and result.test[result.metric]
    metrics = {"validation": result.valid, "test": test}
    experiment, start, end = hparams(hyperparameters(run, result), metrics)
    plugin = experiment.value[0].metadata.plugin_data
    content = HParamsPluginData.FromString(plugin.content)
    for column in content.experiment.hparam_infos:
        column.differs = column.name in FIRST  # other columns start unseen
    plugin.content = content.SerializeToString()
    for summary in (experiment, start, end):
        writer.file_writer.add_summary(summary)
    for name, value in metrics.items():
        if value is not None:
            writer.add_scalar(name, value, result.updates)


def hyperparameters(run: Path, result: Result) -> dict[str, str | int | float | None]:
    """The columns of the HParams table; N is a number for all rows as well, to sort by."""
    return {
        **result.setting,
        "N": len(manifest.read(run / manifest.NAME).splits["train"]),
        "lambda": result.scl_weight,
        "tau": result.scl_temperature,
        "draw": result.shots_seed,
        "seed": result.seed,
    }
