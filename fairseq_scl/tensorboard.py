"""What fairseq logged to TensorBoard, read back."""

from pathlib import Path

GROUPS = ("train_inner", "valid")  # every --log-interval updates; at every validation


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
