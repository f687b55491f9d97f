"""The drawing of pictures: what is in them comes from `series` and `projection`.

Sizes are for a page 5.5 inches wide; colours are told apart with every kind of colour vision
(Okabe and Ito), and lines and classes by dashes and markers as well.
"""

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from fairseq_scl.errors import UserError
from fairseq_scl.files import new_file
from fairseq_scl.reports.series import Series

SUFFIXES = (".png", ".svg")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = "o^sDvP<>"
DASHES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1)), (0, (8, 2)))
PAGE = 5.5
Looks = dict[str, dict[str, Any]]  # of each line or class
STYLE: Any = {  # rcParams
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "figure.labelsize": 8,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "svg.hashsalt": "fairseq-scl",
}


@dataclass(frozen=True)
class Scatter:
    """A panel of points.

    Attributes:
        title: above it.
        points: `(rows, 2)`.
        classes: name of the class of each row, `(rows,)`.
    """

    title: str
    points: np.ndarray
    classes: np.ndarray


@dataclass(frozen=True)
class Lines:
    """A panel of lines with bands.

    Attributes:
        title, x_name, y_name: above and beside it.
        lines: mean and spread by name of the line.
        ticks: text at places on the x axis; None for numbers.
        apart: a place that is no number on this axis, and so is not joined to the others.
        log: whether the x axis is logarithmic.
    """

    title: str
    x_name: str
    y_name: str
    lines: dict[str, Series]
    ticks: dict[float, str] | None = None
    apart: float | None = None
    log: bool = False


def scatter_grid(cells: dict[tuple[str, str], Scatter], classes: list[str], caption: str) -> Figure:
    """Panels by the names of their row and column; rows in the order in which they come up."""
    rows = list(dict.fromkeys(row for row, _ in cells))
    columns = sorted({column for _, column in cells})
    width = max(PAGE / 2 * len(columns), 3.3)
    figure = Figure((width, 2.0 * len(rows) + 0.7), layout="constrained")
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    looks: Looks = dict(zip(classes, itertools.cycle(_class_looks()), strict=False))
    for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
        cell, axis = cells.get((row, column)), axes[i][j]
        axis.set(xticks=[], yticks=[])
        heading = f"{column}\n" if i == 0 else ""
        axis.set_title(heading + (cell.title if cell else "not run"))
        if j == 0:
            axis.set_ylabel(row)
        if cell:
            _draw_points(axis, cell, looks)
    handles = [Line2D([], [], **look, linestyle="") for look in looks.values()]
    _legend(figure, handles, list(looks), length=1)
    figure.supxlabel(caption)
    return figure


def line_grid(panels: list[Lines], columns: int, caption: str) -> Figure:
    """Panels row by row."""
    rows = -(-len(panels) // columns)
    size = (PAGE if columns > 1 else 3.3, 1.9 * rows + 0.6)
    figure = Figure(size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    losses = sorted({name for panel in panels for name in panel.lines})
    if len(losses) > len(COLOURS):
        raise UserError(
            f"a picture tells {len(COLOURS)} losses apart, not {len(losses)}; "
            "plot a folder with fewer"
        )
    looks: Looks = {
        name: {"color": colour, "marker": marker, "linestyle": dashes}
        for name, colour, marker, dashes in zip(losses, COLOURS, MARKERS, DASHES, strict=False)
    }
    for axis, panel in zip(axes.flat, panels, strict=False):
        _draw_lines(axis, panel, looks)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    _legend(figure, [Line2D([], [], **look) for look in looks.values()], losses, length=3.2)
    figure.supxlabel(caption)
    return figure


def save(figure: Figure, output: Path) -> None:
    """Write `.png` (200 dots an inch) or `.svg`, to a temporary file first."""
    kind = output.suffix[1:]
    metadata = {"Date": None} if kind == "svg" else None  # the same runs, the same file
    with new_file(output) as temporary:
        figure.savefig(temporary, format=kind, dpi=200, metadata=metadata)


def _class_looks():
    """Marker and colour together differ for 64 classes."""
    for shift in range(len(MARKERS)):
        for i, colour in enumerate(COLOURS):
            yield {"color": colour, "marker": MARKERS[(i + shift) % len(MARKERS)]}


def _draw_points(axis: Axes, cell: Scatter, looks: Looks) -> None:
    for name, look in looks.items():
        chosen = cell.points[cell.classes == name]
        axis.scatter(chosen[:, 0], chosen[:, 1], s=9, linewidths=0, alpha=0.8, **look)
    axis.set_aspect("equal", adjustable="datalim")
    axis.margins(0.05)


def _draw_lines(axis: Axes, panel: Lines, looks: Looks) -> None:
    axis.set(title=panel.title, xlabel=panel.x_name, ylabel=panel.y_name)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0.08)
    axis.grid(color="#dddddd", linewidth=0.5)
    if panel.log:
        axis.set_xscale("log")
    if panel.ticks:
        axis.set_xticks(list(panel.ticks), list(panel.ticks.values()))
        axis.minorticks_off()
    for i, (name, line) in enumerate(sorted(panel.lines.items())):
        joined = line.x != panel.apart
        x, mean, std = line.x[joined], line.mean[joined], line.std[joined]
        axis.fill_between(x, mean - std, mean + std, color=looks[name]["color"], alpha=0.2, lw=0)
        axis.plot(x, mean, **looks[name], markevery=max(1, len(x) // 8))
        if not joined.all():
            beside = min(5, 20 / len(panel.lines)) * (i - (len(panel.lines) - 1) / 2)
            _draw_apart(axis, line, ~joined, looks[name], beside)


def _draw_apart(
    axis: Axes, line: Series, which: np.ndarray, look: dict[str, Any], beside: float
) -> None:
    """A mean with a bar, `beside` points to the right, that bars of other lines stay readable."""
    x, mean, std = line.x[which], line.mean[which], line.std[which]
    moved = axis.transData + ScaledTranslation(beside / 72, 0, axis.figure.dpi_scale_trans)
    axis.errorbar(x, mean, std, **look, capsize=2, transform=moved, clip_on=False)
    axis.update_datalim(np.column_stack([np.r_[x, x], np.r_[mean - std, mean + std]]))
    axis.autoscale_view()


def _legend(figure: Figure, handles: list[Line2D], names: list[str], length: float) -> None:
    """Above the panels, as many names side by side as fit; `length` of a handle in ems."""
    inches = sum(0.3 + 0.11 * length + 0.065 * len(name) for name in names)
    rows = math.ceil(inches / (0.9 * figure.get_figwidth()))
    columns = math.ceil(len(names) / rows)
    figure.legend(handles, names, loc="outside upper center", ncols=columns, handlelength=length)
