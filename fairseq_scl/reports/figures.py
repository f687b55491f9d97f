"""The drawing of pictures with seaborn, on a page 5.5 inches wide.

Colours are told apart with every kind of colour vision (Okabe and Ito), and lines and classes by
dashes and markers as well. All text is text: `$` begins no formula.
"""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import seaborn
from matplotlib import font_manager
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from pandas import DataFrame

from fairseq_scl.errors import UserError
from fairseq_scl.files import new_file
from fairseq_scl.reports.results import plain

SUFFIXES = (".png", ".svg")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = "o^sDvP<>"
DASHES: Any = ("", (4, 1.5), (1, 1.5), (6, 1.5, 1, 1.5), (5, 1), (1, 1), (3, 1, 1, 1), (8, 2))
PAGE = 5.5
FONT = "DejaVu Sans"  # comes with matplotlib
STYLE: Any = {  # rcParams
    "font.family": FONT,
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
    "text.parse_math": False,
}


def scatter_grid(points: DataFrame, caption: str) -> Figure:
    """Panels of points by `row` and `loss`, and a legend for each list of classes.

    Args:
        points: `x`, `y`, `class`, `classes` (a tuple of all), `row`, `loss`, and `title` of the
            panel.
    """
    losses = sorted(points["loss"].unique())
    groups = points.groupby("classes", sort=False)
    counts = groups["row"].nunique()
    width = max(PAGE / 2 * len(losses), 3.3)
    figure = plt.figure(figsize=(width, 2.0 * counts.sum() + 0.7 * len(groups)))
    parts: Any = [figure]
    if len(groups) > 1:
        parts = figure.subfigures(len(groups), height_ratios=counts)
    legends = []
    for part, (classes, group) in zip(parts, groups, strict=True):
        colours = {name: COLOURS[i % 8] for i, name in enumerate(classes)}
        markers = {name: MARKERS[(i + i // 8) % 8] for i, name in enumerate(classes)}  # 64 differ
        rows = group["row"].unique()
        axes = part.subplots(len(rows), len(losses), squeeze=False).flat
        for axis, (row, loss) in zip(axes, itertools.product(rows, losses), strict=True):
            panel = group[(group["row"] == row) & (group["loss"] == loss)]
            seaborn.scatterplot(
                panel, x="x", y="y", ax=axis, hue="class", palette=colours, style="class",
                markers=markers, s=9, linewidth=0, alpha=0.8, legend=False,
            )  # fmt: skip
            axis.set(xticks=[], yticks=[], xlabel="", ylabel=row if loss == losses[0] else "")
            heading = f"{loss}\n" if row == rows[0] else ""
            axis.set_title(heading + next(iter(panel["title"]), "not run"))
            axis.set_aspect("equal", adjustable="datalim")
        handles = [
            Line2D([], [], color=colours[name], marker=markers[name], linestyle="")
            for name in classes
        ]
        legends.append((part, handles, classes))
    return finished(figure, legends, "classes", 1, caption)


def line_grid(data: DataFrame, columns: int, x_name: str, log: bool = False) -> Figure:
    """Panels of means over draws, with bands of a standard deviation, row by row.

    Args:
        data: `x`, `value`, `loss` and `apart`, whether x is no number on the axis, and so is not
            joined to the others; `panel`, and its `title` and `y_name`. With `tick` the x axis
            has this text at `at` in place of numbers.
    """
    losses = sorted(data["loss"].unique())
    if len(losses) > len(COLOURS):
        raise UserError(
            f"a picture tells {len(COLOURS)} losses apart, not {len(losses)}; "
            "plot a folder with fewer"
        )
    looks: dict[str, Any] = {
        "x": "x", "y": "value", "errorbar": "sd", "legend": False,
        "hue": "loss", "palette": dict(zip(losses, COLOURS, strict=False)),
        "style": "loss", "markers": dict(zip(losses, MARKERS, strict=False)),
        "dashes": dict(zip(losses, DASHES, strict=False)), "markeredgewidth": 0, "markersize": 4.5,
    }  # fmt: skip
    panels = data.groupby("panel", sort=False)
    rows = math.ceil(len(panels) / columns)
    size = (PAGE if columns > 1 else 3.3, 1.9 * rows + 0.6)
    figure = plt.figure(figsize=size)
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis, (_, panel) in zip(axes, panels, strict=False):
        axis.grid(color="#dddddd", linewidth=0.5)
        axis.margins(x=0.08)
        joined, apart = panel[~panel["apart"]], panel[panel["apart"]]
        every = max(1, joined["x"].nunique() // 8)
        if len(joined):
            seaborn.lineplot(joined, ax=axis, markevery=every, err_kws={"linewidth": 0}, **looks)
        if len(apart):
            seaborn.lineplot(apart, ax=axis, err_style="bars", err_kws={"capsize": 2}, **looks)
        if log:
            axis.set_xscale("log")
        first = panel.iloc[0]
        axis.set(title=first["title"], xlabel=x_name, ylabel=first["y_name"])
        if "tick" in panel:
            ticks = panel.drop_duplicates("at").sort_values("at")
            axis.set_xticks(ticks["at"], ticks["tick"])
            axis.minorticks_off()
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    seaborn.despine(figure)
    handles = [
        Line2D([], [], color=colour, marker=marker, dashes=dashes or (1, 0))
        for colour, marker, dashes, _ in zip(COLOURS, MARKERS, DASHES, losses, strict=False)
    ]
    draws = sorted(data.groupby(["panel", "loss", "x"]).size().unique())
    few_to_many = "–".join(str(n) for n in dict.fromkeys((draws[0], draws[-1])))
    caption = f"mean ± standard deviation over {few_to_many} draws"
    caption = "single draws" if draws == [1] else caption
    return finished(figure, [(figure, handles, losses)], "losses", 3.2, caption)


def finished(
    figure: Figure,
    legends: list[tuple[Any, list[Line2D], Sequence[str]]],
    kind: str,
    length: float,
    caption: str,
) -> Figure:
    """Write the caption below the panels and the legends above theirs.

    A legend that does not fit is left out; the caption says so.

    Args:
        legends: the figure or the part of it, handles and names of each.
        kind: what the names are of.
        length: of a handle, in ems.
    """
    figure.set_layout_engine("constrained")
    texts = figure.findobj(Text)
    letters = [plain(name) for _, _, names in legends for name in names]
    families = fonts("".join([*letters, caption, *(plain(text.get_text()) for text in texts)]))
    matplotlib.rcParams["font.family"] = families
    for text in texts:
        text.set(text=plain(text.get_text()), family=families)
    for part, handles, shown in legends:
        if not add_legend(part, handles, list(map(plain, shown)), length):
            caption += f"; {len(shown)} {kind}"
    figure.supxlabel(caption, wrap=True)
    return figure


def add_legend(part: Any, handles: list[Line2D], names: list[str], length: float) -> bool:
    """Write a legend above a figure or a part of one, as many names a row as fit.

    Returns:
        False if there is none: one of many names that would take more than a third of the height,
        or one that is wider than the page, is left out.
    """

    def legend(columns: int):
        place = "outside upper center"
        return part.legend(handles, names, loc=place, ncols=columns, handlelength=length)

    single, figure = legend(1), part.get_figure(root=True)
    size = single.get_window_extent(FigureCanvasAgg(figure).get_renderer())
    single.remove()
    space = single.columnspacing * single.prop.get_size_in_points() / 72 * figure.dpi
    columns = min(len(names), int((part.bbox.width + space) // (size.width + space)))
    rows = math.ceil(len(names) / max(1, columns))
    small = rows * size.height / len(names) < part.bbox.height / 3
    fits = columns > 0 and (small or len(names) <= len(COLOURS))
    if fits:
        legend(columns)
    return fits


def fonts(text: str) -> list[str]:
    """`FONT`, and installed fonts with the characters that it lacks.

    Raises:
        UserError: if no font has one of them, which would be drawn as a box.
    """
    families, missing = [FONT], {character for character in text if character.isprintable()}
    missing -= characters(font_manager.findfont(FONT))
    for font in sorted(font_manager.fontManager.ttflist, key=lambda font: font.name):
        regular = font.style == "normal" and font.weight in (400, "normal", "regular", "book")
        if missing and regular and not font.name.startswith("Last Resort"):  # that has boxes
            found = missing & characters(font.fname)
            families += [font.name] * bool(found)
            missing -= found
    if missing:
        raise UserError(
            f"no installed font has {' '.join(sorted(missing)[:10])} of the names in the picture; "
            "install one that has, such as Noto Sans CJK for Chinese, Japanese and Korean"
        )
    return families


def characters(font: str) -> set[str]:
    """What a font file has; nothing if it is of a kind that matplotlib does not draw."""
    try:
        return set(map(chr, font_manager.get_font(font).get_charmap()))
    except (OSError, RuntimeError):
        return set()


def save(figure: Figure, output: Path) -> None:
    """Write `.png` (200 dots an inch) or `.svg`, to a temporary file first."""
    metadata = {"Date": None} if output.suffix == ".svg" else None  # the same runs, the same file
    with new_file(output) as temporary:
        figure.savefig(temporary, format=output.suffix[1:], dpi=200, metadata=metadata)
    plt.close(figure)
