"""Runs put together for a picture: which belong to a line, their mean and spread."""

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairseq_scl.errors import UserError
from fairseq_scl.reports.results import Run, by_draw


@dataclass(frozen=True)
class Series:
    """A value over draws at each of some places.

    Attributes:
        x, mean, std: `(places,)`; the sample standard deviation, 0 of a single draw.
        draws: how many, at each place.
    """

    x: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    draws: list[int]


def series(samples: dict[float, list[float]]) -> Series:
    """Mean and standard deviation of the values at each place, in order of the places."""
    places = sorted(samples)
    values = [np.array(samples[place]) for place in places]
    return Series(
        x=np.array(places, dtype=float),
        mean=np.array([value.mean() for value in values]),
        std=np.array([value.std(ddof=1) if len(value) > 1 else 0.0 for value in values]),
        draws=[len(value) for value in values],
    )


def learning_curve(curves: list[list[tuple[int, float]]]) -> Series:
    """The mean of curves `[(update, value), ...]` at the updates that all of them have.

    A run that was killed and went on logged some updates twice: the later value counts.

    Raises:
        UserError: if there is no such update.
    """
    values = [dict(curve) for curve in curves]
    common = set.intersection(*(set(value) for value in values))
    if not common:
        raise UserError("the draws of a line were logged at no common update; see --log-interval")
    return series({update: [value[update] for value in values] for update in common})


def in_order(runs: list[Run]) -> list[Run]:
    """By data set, the most training data first, then loss."""

    def key(run: Run) -> tuple:
        rest = [str(value) for value in run.setting.values()]
        return run.setting["data"], -size(run), rest, run.loss

    return sorted(runs, key=key)


def tested(runs: list[Run]) -> list[Run]:
    """The runs that have a test metric."""
    return [run for run in runs if run.test is not None]


def without_noise(runs: list[Run]) -> list[Run]:
    """The tested runs that were trained on rows as they are."""
    return [run for run in tested(runs) if run.setting["noise"] == "none"]


def size(run: Run) -> float:
    """N, which is infinite for all rows."""
    return run.result["config"]["task"]["num_shots"] or math.inf


def properties(run: Run, *keys: str) -> tuple[tuple[str, Any], ...]:
    """What a run shares with others, as pairs; default: its whole setting."""
    setting = run.setting
    return tuple((key, setting[key]) for key in keys or setting)


def group(runs: Iterable[Run], key: Callable[[Run], Hashable]) -> dict:
    """The runs of each key, in the order in which the keys come up."""
    groups = defaultdict(list)
    for run in runs:
        groups[key(run)].append(run)
    return dict(groups)


def common_draw(cells: Iterable[list[Run]]) -> list[Run]:
    """The runs of the first draw that every cell has, one of each cell.

    Raises:
        UserError: if there is none.
    """
    draws = [by_draw(cell) for cell in cells]
    common = set.intersection(*(set(cell) for cell in draws))
    if not common:
        raise UserError("no draw (--shots-seed and --seed) was run with every loss and setting")
    return [cell[min(common)] for cell in draws]


def names(settings: Iterable[dict]) -> list[str]:
    """A short name of each setting: its data and N, and what else tells them apart.

    A property is left out where those before it tell as much: updates that go with N, say.
    """
    settings = list(settings)

    def told(keys: list[str]) -> list[tuple]:
        return [tuple(setting[key] for key in keys) for setting in settings]

    keys = [key for key in settings[0] if key in ("data", "N")]
    for key in settings[0]:
        if len(set(told([*keys, key]))) > len(set(told(keys))):
            keys.append(key)
    keys = [key for key in settings[0] if key in keys]
    parts = [[_name(key, setting[key]) for key in keys] for setting in settings]
    return [", ".join(filter(None, part)) for part in parts]


def _name(key: str, value) -> str:
    if key in ("data", "encoder", "metric"):
        return value
    if key == "N":
        return "all data" if value == "all" else f"N = {value}"
    if key == "noise":
        return "" if value == "none" else value
    return f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
