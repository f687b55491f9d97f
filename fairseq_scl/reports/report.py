"""A table of all runs below DIR, evaluated or failed: which loss is better, and how sure is that?

    fairseq-scl report outputs                          Markdown, printed
    fairseq-scl report outputs --output results.tex     LaTeX (booktabs)
    fairseq-scl report outputs --output results.csv     unrounded, for other programs
    fairseq-scl report outputs --output results.html    with a table of the single runs
    fairseq-scl report outputs --format csv             printed

A row is a setting (data, protocol, N, noise, encoder, ...) and a loss. What all rows share stands
in the caption. The metric is the one that chose the best checkpoint. The columns:

    options        flags of task and criterion that are not at their defaults; what changes the
                   contrastive loss alone stands beside its λ and τ
    draws          evaluated runs, as 9/10 where one is missing or failed: each loss of a setting
                   should have the draws of all its losses. What is lacking is listed below the
                   table by draw, 3/1 being --shots-seed 3 --seed 1
    validation     mean ± sample standard deviation over draws
    test           the same on the test set
    test, top 3    the same over the three draws that are best on validation, as the paper counts;
                   of equally good draws the lower seeds come first
    kNN            the test metric of the class that most of the five nearest training sentences
                   have, in place of the classification head's; see fairseq-scl evaluate
    probe          the test metric of a logistic regression on the sentence vectors of the encoder
                   before training, fitted to the same rows; see fairseq-scl evaluate
    refit          the same on the sentence vectors after training
    mismatched     MNLI's other test set
    ECE, %         how far confidence is from accuracy on the test set, before -> after temperature
                   scaling: the expected calibration error over 15 bins, the mean over draws
    seconds        how long training took
    pairs          draws that CE+SCL and the CE row of the same setting both have
    difference     mean of CE+SCL − CE on the test set over these pairs, with its 95 % interval
                   (Student's t)
    p              of the paired t-test and of Wilcoxon's signed-rank test, each corrected for the
                   number of comparisons in the table (Holm); – where undefined: fewer than two
                   pairs, or no difference at all
    over probe     mean of CE+SCL − probe on the test set over the row's own draws, likewise
    paper          what the paper prints for RoBERTa-large, for this data, protocol, N and noise

A column that no row needs is left out.
"""

import argparse
import html
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
from pandas import DataFrame

from fairseq_scl.errors import UserError
from fairseq_scl.files import write_text
from fairseq_scl.reports.results import PERCENT, SETTING, plain, read_runs
from fairseq_scl.reports.summary import summarise

LEGEND = {
    "validation": "Mean ± sample standard deviation over draws.",
    "test, top 3": "Top 3: the three draws best on validation.",
    "kNN": "kNN: test, by the class of most of the five nearest training sentences.",
    "probe": "Probe, refit: test, by a logistic regression on the sentence vectors before and "
    "after training.",
    "ECE, %": "ECE: expected calibration error on the test set, as trained → after scaling.",
    "difference [95 %]": "Difference: CE+SCL − CE on the test set over the draws of both, with its "
    "95 % interval (Student's t); p of the paired t-test and of Wilcoxon's signed-rank test, each "
    "Holm-corrected over the table.",
    "over probe [95 %]": "Over probe: CE+SCL − probe on the test set, with its 95 % interval.",
    "paper": "Paper: RoBERTa-large as printed by Gunel et al. (2021), in few-shot and noise the "
    "top 3 of 10 draws, on full data 10 seeds.",
}
SUFFIXES = {".md": "markdown", ".tex": "latex", ".csv": "csv", ".html": "html"}


@dataclass(frozen=True)
class Report:
    """What every format says.

    Attributes:
        summary: in numbers, as of `summarise`.
        table: the same as text, without what the caption tells.
        caption: what all rows share.
        notes: a line for each failed run, for each row with missing or untested draws, and for each
            setting whose runs have not the same recipe.
        classes: precision, recall and F1 by class, means over draws, as text; maybe empty.
        runs: a run a row, as text.
    """

    summary: DataFrame
    table: DataFrame
    caption: str
    notes: list[str]
    classes: DataFrame
    runs: DataFrame

    @property
    def legend(self) -> str:
        """What the columns mean, in one line."""
        return " ".join(LEGEND[column] for column in self.table if column in LEGEND)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("folder", metavar="DIR", type=Path, help="searched for runs")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write it instead of printing")
    parser.add_argument(
        "--format",
        choices=RENDERERS,
        help=f"default: by FILE's suffix ({', '.join(SUFFIXES)}); printed: markdown",
    )


def run(args: argparse.Namespace) -> None:
    """Print or write the report of `args.folder`."""
    suffix = args.output.suffix if args.output else ".md"
    if not args.format and suffix not in SUFFIXES:
        raise UserError(
            f"--output {args.output}: the name must end in {', '.join(SUFFIXES)}, or give --format"
        )
    render = RENDERERS[args.format or SUFFIXES[suffix]]
    if args.output and not args.output.parent.is_dir():
        raise UserError(f"--output {args.output}: {args.output.parent} is not a folder")
    document = plain(render(report(read_runs(args.folder), args.folder)))
    if args.output:
        write_text(args.output, document)
        print(args.output)
    else:
        print(document, end="")


def report(runs: DataFrame, root: Path) -> Report:
    """The report of runs as `read_runs` gives them; folders are told relative to `root`."""
    summary = summarise(runs)
    shared = [c for c in SETTING if summary[c].nunique(dropna=False) == 1]
    caption = ", ".join(f"{column} {summary[column].iloc[0]}" for column in shared)
    runs = runs.assign(folder=[path.relative_to(root).as_posix() for path in runs["folder"]])
    apart = [column for column in SETTING if column not in shared]
    return Report(
        summary,
        without_empty(map(row, summary.to_dict("records"))).drop(columns=shared),
        caption,
        notes(runs, apart),
        by_class(runs, [*apart, "loss"]),
        without_empty(map(single, runs.to_dict("records"))).rename(columns={"knn": "kNN"}),
    )


def without_empty(rows: Iterable[dict]) -> DataFrame:
    """The rows as a table, without columns that no row needs."""
    table = DataFrame(rows)
    return table.loc[:, (table != "").any()]


def row(numbers: dict) -> dict[str, str]:
    """The cells of a row of the summary as text, empty where a column does not apply."""
    decimals = 1 if numbers["metric"] in PERCENT else 3

    def spread(name: str, none: str = "") -> str:
        mean, std = numbers[f"{name}_mean"], numbers[f"{name}_std"]
        shown = number(mean, decimals, none=none)
        return shown if pd.isna(std) else f"{shown} ± {number(std, decimals)}"

    evaluated, expected = numbers["draws_evaluated"], numbers["draws_expected"]
    none = "" if pd.isna(numbers["pairs"]) else "–"

    def difference(name: str, none: str) -> str:
        mean, low, high = (
            number(numbers[f"{name}_{part}"], decimals, "+", none)
            for part in ("mean", "low", "high")
        )
        return mean if low == none else f"{mean} [{low}, {high}]"

    return {
        **{column: str(numbers[column]) for column in (*SETTING, "loss")},
        "draws": f"{evaluated}/{expected}" if evaluated < expected else f"{evaluated}",
        "validation": spread("validation", none="–"),
        "test": spread("test"),
        "test, top 3": spread("test_top3"),
        "kNN": spread("knn"),
        "probe": spread("probe"),
        "refit": spread("refit"),
        "mismatched": spread("mismatched"),
        "ECE, %": calibration_error(numbers, "_mean"),
        "seconds": spread("seconds"),
        "pairs": number(numbers["pairs"], 0, none=none),
        "difference [95 %]": difference("difference", none),
        "p, t-test": p_value(numbers["t_test_p"], none),
        "p, Wilcoxon": p_value(numbers["wilcoxon_p"], none),
        "over probe [95 %]": difference("over_probe", ""),
        "paper": spread("paper"),
    }


def single(run: dict) -> dict[str, str]:
    """The cells of a run as text, empty where nothing was measured."""
    decimals = 1 if run["metric"] in PERCENT else 3
    columns = ("validation", "test", "knn", "probe", "refit", "mismatched")
    speed = ("seconds", "updates/s", "peak MiB")
    return {
        **{column: run[column] for column in ("folder", "loss", "draw")},
        **{column: number(run[column], decimals, none="") for column in columns},
        "ECE, %": calibration_error(run),
        **{column: number(run[column], decimals, none="") for column in speed},
        "error": "" if pd.isna(run["error"]) else run["error"],
    }


def calibration_error(numbers: dict, part: str = "") -> str:
    """Percent before and after scaling; nothing if it was not measured."""
    before, after = (100 * numbers[f"ECE {when}{part}"] for when in ("before", "after"))
    return "" if pd.isna(before) else f"{number(before, 1)} → {number(after, 1)}"


def by_class(runs: DataFrame, apart: list[str]) -> DataFrame:
    """Precision, recall and F1 of each class as text, means over the runs that `apart` unites."""
    known = runs[runs["per class"].notna()].to_dict("records")
    scores = DataFrame(
        {column: str(run[column]) for column in apart} | {"class": name} | found
        for run in known
        for name, found in run["per class"].items()
    )
    if scores.empty:
        return scores
    means = scores.groupby([*apart, "class"], sort=False).mean()
    shown = means.map(partial(number, decimals=1)).assign(
        support=means["support"].map("{:g}".format)
    )
    return shown.reset_index().rename(columns={"f1": "F1", "support": "rows"})


def number(value: float, decimals: int, sign: str = "", none: str = "–") -> str:
    """A rounded number, never a negative zero; `sign` as in a format."""
    return none if pd.isna(value) else f"{value:{sign}z.{decimals}f}".replace("-", "−")


def p_value(p: float, none: str = "–") -> str:
    """A p value with three decimals."""
    return "<0.001" if p < 0.001 else number(p, 3, none=none)


def notes(runs: DataFrame, apart: list[str]) -> list[str]:
    """What failed, is missing, untested or not comparable; `apart`: what tells settings apart."""
    failed = runs[runs["error"].notna()]
    lines = [f"failed: {run.folder}: {run.error}" for run in failed.itertuples()]
    for _, setting in runs.groupby(list(SETTING), sort=False, dropna=False):
        told = [f"{column} {setting[column].iloc[0]}" for column in apart]
        if unlike := differing(setting["recipe"]):
            lines.append(f"not alike: {', '.join([*told, *unlike])}")
        expected = setting["draw"].drop_duplicates()
        expected = sorted(expected, key=lambda draw: [int(seed) for seed in draw.split("/")])
        for loss, group in setting.groupby("loss", sort=False):
            untested = group[group["error"].isna() & group["test"].isna()]["draw"]
            missing = [draw for draw in expected if draw not in set(group["draw"])]
            if len(missing):
                lines.append(f"missing: {', '.join([*told, loss])}: draw {', '.join(missing)}")
            if len(untested) and group["test"].notna().any():
                lines.append(f"not tested: {', '.join([*told, loss])}: draw {', '.join(untested)}")
    return lines


def differing(recipes: Iterable[dict[str, str]]) -> list[str]:
    """The flags of which recipes have several values, with these."""
    values = {flag: column.dropna().unique() for flag, column in DataFrame(list(recipes)).items()}
    return [f"{flag} {' and '.join(found)}" for flag, found in values.items() if len(found) > 1]


def markdown(report: Report) -> str:
    """The report as a Markdown table between its caption and its notes."""
    table = report.table.map(escape_markdown)
    parts = [
        escape_markdown(report.caption),
        aligned(table, "pipe"),
        "\n".join(f"- {escape_markdown(note)}" for note in report.notes),
        report.legend,
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def aligned(table: DataFrame, kind: str) -> str:
    """A table of text in one of tabulate's formats, words left and numbers right."""
    sides = ["left" if is_words(table[column]) else "right" for column in table]
    return table.to_markdown(tablefmt=kind, index=False, disable_numparse=True, colalign=sides)


def is_words(column: pd.Series) -> bool:
    """Whether a column holds words rather than numbers."""
    return column.name == "folder" or column.str.match(r"[^\W\d]").any()


def escape_markdown(words: str) -> str:
    """Take the meaning from what Markdown would read as markup."""
    return re.sub(r"([\\`*<|]|\](?=\())", r"\\\1", words)


def latex(report: Report) -> str:
    """The report as a LaTeX table with booktabs' rules, as wide as the text at most."""
    table = report.table.drop(columns=["seconds", "pairs"], errors="ignore")  # it is wide
    alignment = "".join("l" if is_words(table[column]) else "r" for column in table)
    table = table.map(escape_latex).rename(columns=escape_latex)
    notes = "".join(f"\\par {escape_latex(note)}\n" for note in report.notes)
    return rf"""% needs \usepackage{{booktabs,adjustbox}}; table* spans both columns of a page
\begin{{table}}
\centering
\footnotesize
\caption{{{escape_latex(f"{report.caption}. {report.legend}")}}}
\begin{{adjustbox}}{{max width=\textwidth}}
\setlength{{\tabcolsep}}{{3pt}}
{table.to_latex(index=False, escape=False, column_format=alignment)}\end{{adjustbox}}
{notes}\end{{table}}
"""


LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        **{character: f"${character}$" for character in "<>|"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "[": "{[}",  # at the start of a row it would be an argument of the row break before
        "±": r"$\pm$",
        "−": "$-$",
        "→": r"$\to$",
        "–": "--",
        "λ": r"$\lambda$",
        "τ": r"$\tau$",
    }
)


def escape_latex(words: str) -> str:
    """Take the meaning from what LaTeX would read as a command, and spell its symbols."""
    return words.translate(LATEX)


def as_csv(report: Report) -> str:
    """The rows unrounded, every part of a cell (mean, std, ...) in a column of its own."""
    table = report.summary.dropna(axis=1, how="all").rename(columns=lambda c: c.replace(" ", "_"))
    return table.to_csv(index=False, lineterminator="\n")


STYLE = """
:root { color-scheme: light dark; }
body { background: Canvas; color: CanvasText; font: 1rem/1.5 system-ui, sans-serif;
       margin: 2rem auto; max-width: 90rem; padding: 0 1rem; }
div { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
caption { text-align: left; padding-bottom: .5rem; white-space: normal; }
th, td { border-bottom: 1px solid GrayText; padding: .25rem .75rem; text-align: left; }
th { border-bottom-width: 2px; vertical-align: bottom; }
"""


def as_html(report: Report) -> str:
    """The report as one HTML file that needs no other, with a table of the single runs."""
    items = "".join(f"<li>{html.escape(note)}</li>\n" for note in report.notes)
    notes = f"<ul>\n{items}</ul>\n" if items else ""
    classes = html_table(report.classes, "Percent, means over draws.")
    classes = f"<h2>Classes</h2>\n{classes}\n" if len(report.classes) else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>CE and CE+SCL</title>
<style>{STYLE}</style>
</head>
<body>
<h1>CE and CE+SCL</h1>
{html_table(report.table, report.caption)}
{notes}<p>{html.escape(report.legend)}</p>
{classes}<h2>Runs</h2>
{html_table(report.runs, "Draw: --shots-seed / --seed.")}
</body>
</html>
"""


def html_table(table: DataFrame, caption: str) -> str:
    """A table with its caption."""
    rows = aligned(table, "html").removeprefix("<table>")
    return f"<div><table>\n<caption>{html.escape(caption)}</caption>{rows}</div>"


RENDERERS: dict[str, Callable[[Report], str]] = {
    "markdown": markdown,
    "latex": latex,
    "csv": as_csv,
    "html": as_html,
}
