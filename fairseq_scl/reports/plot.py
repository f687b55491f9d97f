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
import math
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from fairseq_scl.errors import UserError, first_line
from fairseq_scl.reports import figures, projection
from fairseq_scl.reports.results import EMBEDDINGS, PERCENT, Run, by_draw, read_runs
from fairseq_scl.reports.series import (
    common_draw,
    group,
    in_order,
    learning_curve,
    names,
    properties,
    series,
    size,
    tested,
    without_noise,
)

METHODS = {"tsne": "t-SNE", "pca": "principal components"}
PARTS = {"valid": "validation", "train_inner": "training"}
LOSSES = ("loss", "ce_loss", "scl_loss")


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
    runs = in_order([run for run in read_runs(args.folder) if not run.failed])
    with matplotlib.rc_context(figures.STYLE):
        figures.save(args.draw(runs, args), args.output)
    print(args.output)


def embeddings(runs: list[Run], args: argparse.Namespace) -> Figure:
    """The test set's sentence vectors in the plane by cosine distance, at most 2000 of them.

    A row for each setting, a column for each loss; of the first draw that all of them have.
    """
    runs = [
        run
        for run in without_noise(runs)
        if run.result["classes"] and (run.folder / EMBEDDINGS).is_file()
    ]
    if not runs:
        raise UserError(
            f"{args.folder}: no run below it on classes without noise has {EMBEDDINGS}; "
            "run 'fairseq-scl evaluate' on such runs"
        )
    runs = common_draw(group(runs, lambda run: (properties(run), run.loss)).values())
    rows = names([dict(properties(run)) for run in runs])
    cells = {
        (row, run.loss): scatter(run, args.method) for row, run in zip(rows, runs, strict=True)
    }
    shown = max(len(cell.points) for cell in cells.values())
    sentences = f"{'the' if shown < projection.MAX_ROWS else shown} test sentences' vectors"
    return figures.scatter_grid(
        cells,
        classes=list(dict.fromkeys(name for run in runs for name in run.result["classes"])),
        caption=f"{METHODS[args.method]} of {sentences}, draw {runs[0].draw[0]}",
    )


def curves(runs: list[Run], args: argparse.Namespace) -> Figure:
    """A metric on the validation set and the training loss over updates, a row for each setting."""
    runs = [run for run in runs if run.result["curves"]]
    if not runs:
        raise UserError(
            f"{args.folder}: no run below it logged curves; train with "
            "--tensorboard-logdir SAVE_DIR/tensorboard, then run 'fairseq-scl evaluate'"
        )
    settings = group(runs, properties)
    panels = []
    for title, members in zip(names(map(dict, settings)), settings.values(), strict=True):
        for part, metric in (("valid", args.metric or members[0].metric), ("train_inner", "loss")):
            lines = {
                loss: learning_curve([curve(run, part, metric) for run in by_draw(same).values()])
                for loss, same in group(members, lambda run: run.loss).items()
            }
            y_name = f"{PARTS[part]} {with_unit(metric)}"
            panels.append(figures.Lines(title, "updates", y_name, lines))
    return figures.line_grid(panels, 2, spread(panels))


def shots(runs: list[Run], args: argparse.Namespace) -> Figure:
    """The test metric over N, a panel for each data set."""
    runs = without_noise(runs)
    sizes = sorted({size(run) for run in runs})
    if len(sizes) < 2:
        raise UserError(
            f"{args.folder}: no tested runs without noise at two or more N below it; train with "
            "other --num-shots, then run 'fairseq-scl evaluate'"
        )
    beyond = 5 * sizes[-2]
    places = {n: beyond if n == math.inf else n for n in sizes}
    panels = panels_over(
        runs,
        lambda run: places[size(run)],
        ("data", "encoder", "metric"),
        x_name="training rows N",
        ticks={place: "all" if n == math.inf else f"{n:.0f}" for n, place in places.items()},
        apart=beyond if math.inf in places else None,
        log=True,
    )
    return figures.line_grid(panels, columns(panels), spread(panels))


def noise(runs: list[Run], args: argparse.Namespace) -> Figure:
    """The test metric over the temperature of back-translation, a panel for each data set and N."""
    keys = ("data", "encoder", "N", "metric")
    runs = [run for run in tested(runs) if run.temperature or run.setting["noise"] == "none"]
    noisy = {properties(run, *keys) for run in runs if run.temperature}
    if not noisy:
        raise UserError(
            f"{args.folder}: no tested run with --noise back-translation below it; see "
            "'fairseq-scl back-translate --help', train on it, then run 'fairseq-scl evaluate'"
        )
    runs = [run for run in runs if properties(run, *keys) in noisy]
    temperatures = sorted({run.temperature for run in runs if run.temperature})
    before = temperatures[0] - 0.2
    panels = panels_over(
        runs,
        lambda run: run.temperature or before,
        keys,
        x_name="temperature T",
        ticks={before: "none"} | {value: f"{value:g}" for value in temperatures},
        apart=before,
    )
    return figures.line_grid(panels, columns(panels), spread(panels))


def panels_over(
    runs: list[Run], place: Callable[[Run], float], keys: tuple[str, ...], **axis
) -> list[figures.Lines]:
    """A panel of test metrics for each value of the `keys`, a line for each loss."""
    groups = group(runs, lambda run: properties(run, *keys))
    panels = []
    for title, members in zip(names(map(dict, groups)), groups.values(), strict=True):
        lines = {
            loss: series(
                {
                    x: [run.result["test"][run.metric] for run in by_draw(point).values()]
                    for x, point in group(same, place).items()
                }
            )
            for loss, same in group(members, lambda run: run.loss).items()
        }
        y_name = f"test {with_unit(members[0].metric)}"
        panels.append(figures.Lines(title, lines=lines, y_name=y_name, **axis))
    return panels


def scatter(run: Run, method: str) -> figures.Scatter:
    """The panel of a run's test embeddings."""
    path = run.folder / EMBEDDINGS
    try:
        with np.load(path) as stored:
            features, labels = stored["features"], stored["labels"]
    except Exception as error:  # damaged bytes end in whatever reads them
        raise UserError(
            f"{path} cannot be read ({first_line(error)}); run 'fairseq-scl evaluate'"
        ) from None
    rows = projection.some_rows(len(labels))
    return figures.Scatter(
        f"test {run.metric} {run.test:.1f}",
        projection.project(features[rows], method),
        np.array(run.result["classes"])[labels[rows]],
    )


def curve(run: Run, part: str, metric: str) -> list[tuple[int, float]]:
    """What a run logged of a metric, updates and values.

    Raises:
        UserError: if it did not.
    """
    logged = run.result["curves"].get(part, {})
    if metric not in logged:
        raise UserError(
            f"{run.folder}: no {PARTS[part]} {metric!r} was logged, but {', '.join(sorted(logged))}"
        )
    return logged[metric]


def with_unit(metric: str) -> str:
    """A metric's name for an axis."""
    if metric in PERCENT:
        return f"{metric} (%)"
    return f"{metric} (nats)" if metric in LOSSES else metric


def spread(panels: list[figures.Lines]) -> str:
    """What lines, bands and bars of the panels are."""
    draws = sorted({n for panel in panels for line in panel.lines.values() for n in line.draws})
    if draws == [1]:
        return "single draws"
    few_to_many = "–".join(str(n) for n in dict.fromkeys((draws[0], draws[-1])))
    return f"mean ± standard deviation over {few_to_many} draws"


def columns(panels: list[figures.Lines]) -> int:
    """How many panels go side by side."""
    return 2 if len(panels) == 4 else min(len(panels), 3)
