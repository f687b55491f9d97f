"""Pictures of the evaluated runs below DIR, for a page 5.5 inches wide.

    fairseq-scl plot embeddings outputs --output tsne.png
    fairseq-scl plot curves     outputs --output curves.svg
    fairseq-scl plot shots      outputs --output shots.png
    fairseq-scl plot noise      outputs --output noise.png

embeddings  the test set's sentence vectors in the plane (the paper's Figures 2 and 3), of runs
            without noise: a row for each N, a column for each loss, of the first common draw
curves      a metric on the validation set and the training loss over updates, a row a setting
shots       the test metric over N, the number of training rows, of runs without noise
noise       the test metric over the temperature of the back-translations trained on

Lines are means over draws, bands and bars the standard deviation above and below.
Failed runs are left out. 'fairseq-scl plot KIND --help' lists the flags.
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pandas import DataFrame

from fairseq_scl.errors import UserError
from fairseq_scl.files import read_model
from fairseq_scl.reports import figures, projection
from fairseq_scl.reports.results import (
    EMBEDDINGS,
    PERCENT,
    RESULT,
    SETTING,
    Result,
    numbered,
    read_runs,
    refuse_twins,
)

PARTS = {"valid": "validation", "train_inner": "training"}
UNITS = dict.fromkeys(PERCENT, "%") | dict.fromkeys(("loss", "ce_loss", "scl_loss"), "nats")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    for draw in (embeddings, curves, shots, noise):
        kind = kinds.add_parser(draw.__name__, description=draw.__doc__)
        kind.add_argument("folder", metavar="DIR", type=Path, help="searched for evaluated runs")
        kind.add_argument("--output", type=Path, metavar="FILE", required=True, help=".png or .svg")
        kind.set_defaults(draw=draw)
        if draw is embeddings:
            kind.add_argument(
                "--method", choices=projection.METHODS, default="tsne", help="default: %(default)s"
            )
        if draw is curves:
            kind.add_argument(
                "--metric", metavar="NAME", help="default: what the best checkpoint is chosen by"
            )


def run(args: argparse.Namespace) -> None:
    """Draw `args.output`."""
    if args.output.suffix not in figures.SUFFIXES:
        raise UserError(f"--output {args.output}: the name must end in .png or .svg")
    runs = evaluated(args.folder)
    with matplotlib.rc_context(figures.STYLE):
        matplotlib.use("agg")
        figures.save(args.draw(runs, args), args.output)
    print(args.output)


def evaluated(folder: Path) -> DataFrame:
    """The evaluated runs below a folder by data set, the most training data first."""
    runs = read_runs(folder)
    runs = runs[runs["error"].isna()]
    size = runs["N"].replace("all", np.inf).astype(float)
    order = {"by": ["data", "size"], "ascending": [True, False], "kind": "stable"}
    return runs.assign(size=size).sort_values(**order)


def embeddings(runs: DataFrame, args: argparse.Namespace) -> Figure:
    """The test set's sentence vectors in the plane by cosine distance, at most 2000 of them.

    A row for each setting, a column for each loss; of the first draw that all of them have.
    """
    tested = runs[runs["test"].notna() & (runs["noise"] == "none")]
    results = [read_model(folder / RESULT, Result) for folder in tested["folder"]]
    tested = tested.assign(classes=[result.classes for result in results])
    stored = tested["folder"].map(lambda folder: (folder / EMBEDDINGS).exists())
    tested = tested[tested["classes"].notna() & stored.astype(bool)]
    if tested.empty:
        raise UserError(
            f"{args.folder}: no run below it on classes without noise has {EMBEDDINGS}; "
            "run 'fairseq-scl evaluate' on such runs"
        )
    shown = common_draw(tested)
    shown = shown.assign(row=names(shown))
    panels = [scatter(run, args.method) for run in shown.to_dict("records")]
    rows = max(map(len, panels))
    sentences = f"{'the' if rows < projection.MAX_ROWS else rows} test sentences' vectors"
    return figures.scatter_grid(
        pd.concat(panels, ignore_index=True),
        caption=f"{projection.METHODS[args.method]} of {sentences}, "
        f"draw {shown['draw'].iloc[0].partition('/')[0]}",
    )


def curves(runs: DataFrame, args: argparse.Namespace) -> Figure:
    """A metric on the validation set and the training loss over updates, a row for each setting."""
    logged = {folder: read_model(folder / RESULT, Result).curves for folder in runs["folder"]}
    runs = runs[[bool(logged[folder]) for folder in runs["folder"]]]
    if runs.empty:
        raise UserError(
            f"{args.folder}: no run below it logged curves; train with "
            "--tensorboard-logdir SAVE_DIR/tensorboard, then run 'fairseq-scl evaluate'"
        )
    refuse_twins(runs, *SETTING)
    lines = []
    keys = ["case", "title", "chosen", "loss"]
    runs = runs.assign(title=names(runs), case=numbered(runs, *SETTING))
    runs = runs.assign(chosen=args.metric or runs["metric"])
    for (case, title, chosen, loss), same in runs.groupby(keys):
        for column, (part, metric) in enumerate([("valid", chosen), ("train_inner", "loss")]):
            found = [curve(folder, logged[folder], part, metric) for folder in same["folder"]]
            panel = {"panel": 2 * case + column, "title": title, "loss": loss, "apart": False}
            y_name = f"{PARTS[part]} {with_unit(metric)}"
            lines.append(learning_curve(found).assign(y_name=y_name, **panel))
    data = pd.concat(lines, ignore_index=True).sort_values("panel", kind="stable")
    return figures.line_grid(data, 2, "updates")


def shots(runs: DataFrame, args: argparse.Namespace) -> Figure:
    """The test metric over N, a panel for each data set."""
    runs = runs[runs["test"].notna() & (runs["noise"] == "none")]
    sizes = sorted(runs["size"].unique())
    if len(sizes) < 2:
        raise UserError(
            f"{args.folder}: no tested runs without noise at two or more N below it; train with "
            "other --num-shots, then run 'fairseq-scl evaluate'"
        )
    beyond = 5 * sizes[-2]
    apart = runs["size"] == np.inf
    x = runs["size"].mask(apart, beyond * 1.1 ** beside(runs))
    runs = runs.assign(x=x, apart=apart, at=runs["size"].mask(apart, beyond), tick=runs["N"])
    return over(runs, ["data", "encoder", "metric"], "size", "training rows N", log=True)


def noise(runs: DataFrame, args: argparse.Namespace) -> Figure:
    """The test metric over the temperature of back-translation, a panel for each data set and N."""
    keys = ["data", "encoder", "N", "metric"]
    translated = runs["temperature"].notna()
    runs = runs[runs["test"].notna() & (translated | (runs["noise"] == "none"))]
    panels = numbered(runs, *keys)
    runs = runs[panels.isin(panels[translated])]
    if runs.empty:
        raise UserError(
            f"{args.folder}: no tested run with --noise back-translation below it; see "
            "'fairseq-scl back-translate --help', train on it, then run 'fairseq-scl evaluate'"
        )
    before = runs["temperature"].min() - 0.2
    x = runs["temperature"].fillna(before + 0.02 * beside(runs))
    tick = [f"{value:g}".replace("nan", "none") for value in runs["temperature"]]
    at = runs["temperature"].fillna(before)
    runs = runs.assign(x=x, apart=runs["temperature"].isna(), at=at, tick=tick)
    return over(runs, keys, "temperature", "temperature T")


def beside(runs: DataFrame) -> pd.Series:
    """How far each loss moves aside, that bars at one place stay readable; 0 on average."""
    losses = sorted(runs["loss"].unique())
    return runs["loss"].map(losses.index).astype(float) - (len(losses) - 1) / 2


def over(runs: DataFrame, keys: list[str], place: str, x_name: str, log=False) -> Figure:
    """A panel of test metrics for each value of the `keys`, a line for each loss."""
    refuse_twins(runs, *keys, place)
    y_names = [f"test {with_unit(metric)}" for metric in runs["metric"]]
    data = runs.assign(
        panel=numbered(runs, *keys), title=names(runs, keys), value=runs["test"], y_name=y_names
    )
    panels = data["panel"].nunique()
    columns = 2 if panels == 4 else min(panels, 3)
    return figures.line_grid(data.sort_values("panel", kind="stable"), columns, x_name, log)


def common_draw(runs: DataFrame) -> DataFrame:
    """The runs of the first draw that every setting and loss has.

    Raises:
        UserError: if there is none.
    """
    refuse_twins(runs, *SETTING)
    cells = numbered(runs, *SETTING, "loss")
    counts = runs.groupby("draw", sort=False).size()
    common = counts.index[counts == cells.nunique()]
    if common.empty:
        raise UserError("no draw (--shots-seed and --seed) was run with every loss and setting")
    return runs[runs["draw"] == common[0]]


def names(runs: DataFrame, keys: list[str] | tuple[str, ...] = SETTING) -> list[str]:
    """A short name of each run's setting: its data and N, and what else tells settings apart.

    A property is left out where those before it tell as much: updates that go with N, say.
    """
    chosen = [key for key in keys if key in ("data", "N")]
    for key in keys:
        if numbered(runs, *chosen, key).nunique() > numbered(runs, *chosen).nunique():
            chosen.append(key)
    chosen = [key for key in keys if key in chosen]
    rows = runs[chosen].to_dict("records")
    return [", ".join(filter(None, (part(*pair) for pair in row.items()))) for row in rows]


def part(key: str, value) -> str:
    """What a name says of a property."""
    if key in ("data", "encoder", "metric"):
        return value
    if key == "N":
        return "all data" if value == "all" else f"N = {value}"
    if key == "noise":
        return "" if value == "none" else value
    return f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"


def scatter(run: dict, method: str) -> DataFrame:
    """The panel of a run's test embeddings."""
    features, labels = projection.read(run["folder"] / EMBEDDINGS, len(run["classes"]))
    rows = projection.some_rows(len(labels))
    points = projection.project(features[rows], method)
    return DataFrame(points, columns=["x", "y"]).assign(
        **{"class": np.array(run["classes"], object)[labels[rows]]},
        row=run["row"],
        loss=run["loss"],
        title=f"test {run['metric']} {run['test']:.1f}",
        classes=[tuple(run["classes"])] * len(rows),
    )


def curve(folder: Path, logged: dict, part: str, metric: str) -> list[tuple[int, float]]:
    """What a run logged of a metric, updates and values.

    Raises:
        UserError: if it did not.
    """
    found = logged.get(part, {})
    if metric not in found:
        raise UserError(
            f"{folder}: no {PARTS[part]} {metric!r} was logged, "
            f"but {', '.join(sorted(found)) or 'nothing'}"
        )
    return found[metric]


def learning_curve(curves: list[list[tuple[int, float]]]) -> DataFrame:
    """The curves `[(update, value), ...]` at the updates that all of them have, as `x` and `value`.

    A run that was killed and went on logged some updates twice: the later value counts. What
    is not finite is a gap.

    Raises:
        UserError: if there is no such update.
    """
    tables = [DataFrame(curve, columns=["x", "value"]) for curve in curves]
    logged = pd.concat([table.drop_duplicates("x", keep="last") for table in tables])
    common = logged[logged.groupby("x")["x"].transform("size") == len(curves)]
    if common.empty:
        raise UserError("the draws of a line were logged at no common update; see --log-interval")
    return common.replace([np.inf, -np.inf], np.nan)


def with_unit(metric: str) -> str:
    """A metric's name for an axis."""
    return f"{metric} ({UNITS[metric]})" if metric in UNITS else metric
