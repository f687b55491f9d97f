"""What a tree of runs says: a row for each setting and loss, not yet rendered."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fairseq_scl.reports import paper
from fairseq_scl.reports.results import Draw, Run, by_draw
from fairseq_scl.reports.statistics import Comparison, Spread, best, compare, holm, spread

TOP = 3  # the paper's habit
SORTED_BY = ("data", "protocol", "N", "noise")  # and then by the rest of the setting


class Count(NamedTuple):
    """How many draws were evaluated, of how many that should have been, and how many failed."""

    evaluated: int
    expected: int
    failed: int


class Difference(NamedTuple):
    """A mean difference with its 95 % interval, each None where it is undefined."""

    mean: float | None
    low: float | None
    high: float | None


class PValue(NamedTuple):
    """A corrected p value, None where it is undefined."""

    p: float | None


Row = dict[str, Any]  # a cell by its column; a column that does not apply to the row is absent


@dataclass(frozen=True)
class Summary:
    """A report's content.

    Attributes:
        setting: the columns that describe a setting, in order.
        constants: the part of the setting that all rows share.
        rows: one for each setting and loss.
        notes: a line for each failed run, and for each setting and loss with missing or untested
            draws.
        runs: a row for each run.
    """

    setting: tuple[str, ...]
    constants: Row
    rows: list[Row]
    notes: list[str]
    runs: list[Row]


@dataclass(frozen=True)
class Group:
    """The runs of one setting and loss.

    Attributes:
        runs: the evaluated ones by draw.
        failed: the failed ones.
        expected: the draws of all losses of the setting, failed ones as well.
    """

    setting: Row
    loss: str
    runs: dict[Draw, Run]
    failed: list[Run]
    expected: set[Draw]

    @property
    def valid(self) -> dict[Draw, float]:
        """The metric on the validation set."""
        return {draw: run.valid for draw, run in self.runs.items()}

    @property
    def test(self) -> dict[Draw, float]:
        """The metric on the test set of the runs that were tested."""
        return {draw: run.test for draw, run in self.runs.items() if run.test is not None}

    @property
    def best_tests(self) -> list[float]:
        """The test metric of the `TOP` tested draws that are best on validation."""
        maximize = all(run.maximize for run in self.runs.values())
        tested = {draw: self.valid[draw] for draw in self.test}
        return [self.test[draw] for draw in best(tested, TOP, maximize)]

    @property
    def all_runs(self) -> list[Run]:
        """The evaluated and the failed runs, by draw."""
        return sorted([*self.runs.values(), *self.failed], key=lambda run: run.draw)

    @property
    def missing(self) -> list[Draw]:
        """The expected draws that neither were evaluated nor failed."""
        return sorted(self.expected - self.runs.keys() - {run.draw for run in self.failed})


def summarise(runs: Sequence[Run], root: Path) -> Summary:
    """Compare the losses in each setting, CE+SCL with CE over their common draws.

    Args:
        runs: at least one, failed ones among them; one that has a result as well was run again
            and counts as evaluated.
        root: what folders are told relative to.

    Raises:
        UserError: if two runs are the same draw of the same setting and loss.
    """
    evaluated = {run.folder for run in runs if not run.failed}
    runs = [run for run in runs if not run.failed or run.folder not in evaluated]
    groups = grouped(runs)
    comparisons = compared(groups)
    first = groups[0].setting
    constants = {c: first[c] for c in first if all(g.setting[c] == first[c] for g in groups)}
    return Summary(
        setting=tuple(first),
        constants=constants,
        rows=[row(*pair) for pair in zip(groups, comparisons, strict=True)],
        notes=notes(groups, constants, root),
        runs=[details(run, root) for group in groups for run in group.all_runs],
    )


def grouped(runs: Iterable[Run]) -> list[Group]:
    """Group by setting and loss: by data, protocol, N, noise, the rest, and CE before CE+SCL."""
    by_setting: dict[tuple, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        setting = {column: run.setting[column] for column in SORTED_BY} | run.setting
        by_setting[tuple(setting.items())][run.loss].append(run)
    return [
        Group(
            dict(setting),
            loss,
            by_draw(run for run in losses[loss] if not run.failed),
            [run for run in losses[loss] if run.failed],
            {run.draw for runs in losses.values() for run in runs},
        )
        for setting, losses in sorted(by_setting.items(), key=lambda item: order(dict(item[0])))
        for loss in sorted(losses)
    ]


def order(setting: Row) -> list[tuple]:
    """Sort numbers by value and before words, `none` before other words."""
    return [
        (0, value, "") if isinstance(value, int | float) else (1, value != "none", str(value))
        for value in setting.values()
    ]


def compared(groups: Sequence[Group]) -> list[Comparison | None]:
    """Each tested group beside the tested CE group of its setting, Holm's correction over all."""
    baselines = {tuple(group.setting.items()): group for group in groups if group.loss == "CE"}
    comparisons: list[Comparison | None] = []
    for group in groups:
        baseline = baselines.get(tuple(group.setting.items()))
        if group is baseline or baseline is None or not (group.test and baseline.test):
            comparisons.append(None)
        else:
            comparisons.append(compare(group.test, baseline.test))
    p_t = holm([comparison and comparison.p_t for comparison in comparisons])
    p_wilcoxon = holm([comparison and comparison.p_wilcoxon for comparison in comparisons])
    return [
        comparison and comparison._replace(p_t=p_t[i], p_wilcoxon=p_wilcoxon[i])
        for i, comparison in enumerate(comparisons)
    ]


def row(group: Group, comparison: Comparison | None) -> Row:
    """The row of a setting and loss."""
    runs = group.runs.values()
    seconds = [run.result["seconds"] for run in runs if run.result["seconds"]]
    mismatched = [run.mismatched for run in runs if run.mismatched is not None]
    knn = [run.knn for run in runs if run.knn is not None]
    cells: Row = {
        **group.setting,
        "loss": group.loss,
        "draws": Count(len(runs), len(group.expected), len(group.failed)),
        "validation": spread(list(group.valid.values())),
    }
    if group.test:
        cells["test"] = spread(list(group.test.values()))
        cells["test_top3"] = spread(group.best_tests)
    if knn:
        cells["knn"] = spread(knn)
    if mismatched:
        cells["mismatched"] = spread(mismatched)
    if seconds:
        cells["seconds"] = spread(seconds)
    if comparison:
        cells["pairs"] = comparison.pairs
        cells["difference"] = Difference(comparison.mean, comparison.low, comparison.high)
        cells["t_test"] = PValue(comparison.p_t)
        cells["wilcoxon"] = PValue(comparison.p_wilcoxon)
    data, protocol, shots, noise = (group.setting[column] for column in SORTED_BY)
    printed = paper.accuracy(data, protocol, shots, noise, group.loss.partition(" ")[0])
    if printed and group.test and group.setting["metric"] == "accuracy":
        cells["paper"] = Spread(*printed)
    return cells


def notes(groups: Sequence[Group], constants: Row, root: Path) -> list[str]:
    """A line for each failed run, and for each group with missing or untested draws."""
    lines = [
        f"failed: {relative(run, root)}: {first_line(run)}"
        for group in groups
        for run in group.failed
    ]
    for group in groups:
        setting = [f"{c} {value}" for c, value in group.setting.items() if c not in constants]
        untested = sorted(group.runs.keys() - group.test.keys()) if group.test else []
        for kind, draws in (("missing", group.missing), ("not tested", untested)):
            if draws:
                names = ", ".join(map(draw_name, draws))
                lines.append(f"{kind}: {', '.join([*setting, group.loss])}: draw {names}")
    return lines


def details(run: Run, root: Path) -> Row:
    """The row of a run."""
    cells: Row = {
        "folder": relative(run, root),
        "loss": run.loss,
        "draw": draw_name(run.draw),
        "metric": run.metric,
    }
    if run.failed:
        return cells | {"error": first_line(run)}
    measured = {
        "validation": run.valid,
        "test": run.test,
        "knn": run.knn,
        "mismatched": run.mismatched,
        "seconds": run.result["seconds"],
        "speed": run.result.get("updates_per_second"),
        "memory": run.result.get("peak_memory_mib"),
    }
    return cells | {
        column: spread([value]) for column, value in measured.items() if value is not None
    }


def draw_name(draw: Draw) -> str:
    """A draw as its two seeds: that of the drawn rows, and of everything else."""
    return f"{draw[0]}/{draw[1]}"


def relative(run: Run, root: Path) -> str:
    """The run's folder as seen from `root`."""
    return run.folder.relative_to(root).as_posix()


def first_line(run: Run) -> str:
    """The first line of a failed run's error."""
    return next(iter(str(run.result["error"]).splitlines()), "")
