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
    mismatched     MNLI's other test set
    seconds        how long training took
    pairs          draws that CE+SCL and the CE row of the same setting both have
    difference     mean of CE+SCL − CE on the test set over these pairs, with its 95 % interval
                   (Student's t)
    p              of the paired t-test and of Wilcoxon's signed-rank test, each corrected for the
                   number of comparisons in the table (Holm); – where undefined: fewer than two
                   pairs, or no difference at all
    paper          what the paper prints for RoBERTa-large, for this data, protocol, N and noise

A column that no row needs is left out.
"""

import argparse
import csv
import html
import io
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from fairseq_scl.errors import UserError
from fairseq_scl.files import write_text
from fairseq_scl.reports.results import PERCENT, read_runs
from fairseq_scl.reports.statistics import Spread
from fairseq_scl.reports.summary import Count, Difference, PValue, Row, Summary, summarise

TITLES = {
    "folder": "folder",
    "loss": "loss",
    "draw": "draw",
    "draws": "draws",
    "validation": "validation",
    "test": "test",
    "test_top3": "test, top 3",
    "knn": "kNN",
    "mismatched": "mismatched",
    "seconds": "seconds",
    "pairs": "pairs",
    "difference": "difference [95 %]",
    "t_test": "p, t-test",
    "wilcoxon": "p, Wilcoxon",
    "paper": "paper",
    "speed": "updates/s",
    "memory": "peak MiB",
    "error": "error",
}
LEGEND = {
    "validation": "Mean ± sample standard deviation over draws.",
    "test_top3": "Top 3: the three draws best on validation.",
    "knn": "kNN: test, by the class of most of the five nearest training sentences.",
    "difference": "Difference: CE+SCL − CE on the test set over the draws of both, with its 95 % "
    "interval (Student's t); p of the paired t-test and of Wilcoxon's signed-rank test, each "
    "Holm-corrected over the table.",
    "paper": "Paper: RoBERTa-large as printed by Gunel et al. (2021), in few-shot and noise the "
    "top 3 of 10 draws, on full data 10 seeds.",
}
SUFFIXES = {".md": "markdown", ".tex": "latex", ".csv": "csv", ".html": "html"}


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
    render = RENDERERS[args.format or format_of(args.output)]
    if args.output and not args.output.parent.is_dir():
        raise UserError(f"--output {args.output}: {args.output.parent} is not a folder")
    document = render(summarise(read_runs(args.folder), args.folder))
    if args.output:
        write_text(args.output, document)
        print(args.output)
    else:
        print(document, end="")


def format_of(output: Path | None) -> str:
    """The format that a file's suffix stands for, Markdown without a file.

    Raises:
        UserError: if it stands for none.
    """
    if output is None:
        return "markdown"
    if output.suffix not in SUFFIXES:
        raise UserError(
            f"--output {output}: the name must end in {', '.join(SUFFIXES)}, or give --format"
        )
    return SUFFIXES[output.suffix]


def columns_of(rows: Sequence[Row], setting: Iterable[str] = ()) -> list[str]:
    """The columns, those of the setting first, that some row has."""
    return [column for column in (*setting, *TITLES) if any(column in row for row in rows)]


def table_columns(summary: Summary) -> list[str]:
    """The columns of the table, without what the caption tells."""
    return columns_of(summary.rows, [c for c in summary.setting if c not in summary.constants])


def titles(columns: Iterable[str]) -> list[str]:
    """What stands above the columns."""
    return [TITLES.get(column, column) for column in columns]


def texts(row: Row, columns: Iterable[str]) -> list[str]:
    """The cells of a row as text, empty where a column does not apply."""
    decimals = 1 if row["metric"] in PERCENT else 3
    return [text(row[column], decimals) if column in row else "" for column in columns]


def text(cell: object, decimals: int) -> str:
    """A cell as text, a dash where it is undefined."""
    match cell:
        case Spread(mean, None):
            return number(mean, decimals)
        case Spread(mean, std):
            return f"{number(mean, decimals)} ± {number(std, decimals)}"
        case Difference(mean, None):
            return number(mean, decimals, "+")
        case Difference(mean, low, high):
            interval = f"[{number(low, decimals, '+')}, {number(high, decimals, '+')}]"
            return f"{number(mean, decimals, '+')} {interval}"
        case PValue(p):
            return "<0.001" if p is not None and p < 0.001 else number(p, 3)
        case Count(evaluated, expected):
            return f"{evaluated}/{expected}" if evaluated < expected else f"{evaluated}"
    return str(cell)


def number(value: float | None, decimals: int, sign: str = "") -> str:
    """A rounded number, never a negative zero; `sign` as in a format."""
    return "–" if value is None else f"{value:{sign}z.{decimals}f}".replace("-", "−")


def is_text(rows: Iterable[Row], column: str) -> bool:
    """Whether a column is set flush left, as words are."""
    return any(isinstance(row.get(column), str) for row in rows)


def caption(summary: Summary) -> str:
    """What all rows share, in one line."""
    return ", ".join(f"{column} {value}" for column, value in summary.constants.items())


def legend(summary: Summary) -> str:
    """What the columns mean, in one line."""
    columns = table_columns(summary)
    return " ".join(sentence for column, sentence in LEGEND.items() if column in columns)


def markdown(summary: Summary) -> str:
    """The report as a Markdown table between its caption and its notes."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(map(escape_markdown, cells)) + " |"

    columns = table_columns(summary)
    table = [line(titles(columns)), line(["---"] * len(columns))]
    table += [line(texts(row, columns)) for row in summary.rows]
    notes = [f"- {escape_markdown(note)}" for note in summary.notes]
    parts = [[escape_markdown(caption(summary))], table, notes, [legend(summary)]]
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def escape_markdown(words: str) -> str:
    """Take the meaning from what Markdown would read as markup."""
    return re.sub(r"([\\`*<|]|\](?=\())", r"\\\1", words)


def latex(summary: Summary) -> str:
    """The report as a LaTeX table with booktabs' rules, as wide as the text at most."""

    def line(cells: Iterable[str]) -> str:
        return " & ".join(map(escape_latex, cells)) + r" \\"

    columns = [c for c in table_columns(summary) if c not in ("seconds", "pairs")]  # it is wide
    alignment = "".join("l" if is_text(summary.rows, column) else "r" for column in columns)
    return "\n".join(
        [
            r"% needs \usepackage{booktabs,adjustbox}; table* spans both columns of a page",
            r"\begin{table}",
            r"\centering",
            r"\footnotesize",
            rf"\caption{{{escape_latex(f'{caption(summary)}. {legend(summary)}')}}}",
            r"\begin{adjustbox}{max width=\textwidth}",
            r"\setlength{\tabcolsep}{3pt}",
            rf"\begin{{tabular}}{{{alignment}}}",
            r"\toprule",
            line(titles(columns)),
            r"\midrule",
            *(line(texts(row, columns)) for row in summary.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{adjustbox}",
            *(rf"\par {escape_latex(note)}" for note in summary.notes),
            r"\end{table}",
            "",
        ]
    )


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
        "–": "--",
        "λ": r"$\lambda$",
        "τ": r"$\tau$",
    }
)


def escape_latex(words: str) -> str:
    """Take the meaning from what LaTeX would read as a command, and spell its symbols."""
    return words.translate(LATEX)


def as_csv(summary: Summary) -> str:
    """The rows unrounded, every part of a cell (mean, std, ...) in a column of its own."""
    columns = columns_of(summary.rows, summary.setting)
    parts = {
        column: getattr(next(r[column] for r in summary.rows if column in r), "_fields", None)
        for column in columns
    }
    names = [
        f"{column}_{part}" if part else column
        for column in columns
        for part in parts[column] or [None]
    ]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(name.replace(" ", "_") for name in names)
    for row in summary.rows:
        values: list[object] = []
        for column in columns:
            fields = parts[column]
            values += row.get(column, [None] * len(fields)) if fields else [row.get(column)]
        writer.writerow(values)
    return file.getvalue()


STYLE = """
:root { color-scheme: light dark; }
body { background: Canvas; color: CanvasText; font: 1rem/1.5 system-ui, sans-serif;
       margin: 2rem auto; max-width: 90rem; padding: 0 1rem; }
div { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
caption { text-align: left; padding-bottom: .5rem; white-space: normal; }
th, td { border-bottom: 1px solid GrayText; padding: .25rem .75rem; text-align: right; }
th { border-bottom-width: 2px; vertical-align: bottom; }
.text { text-align: left; }
"""


def as_html(summary: Summary) -> str:
    """The report as one HTML file that needs no other, with a table of the single runs."""
    items = "".join(f"<li>{html.escape(note)}</li>\n" for note in summary.notes)
    notes = f"<ul>\n{items}</ul>\n" if items else ""
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
{html_table(summary.rows, table_columns(summary), caption(summary))}
{notes}<p>{html.escape(legend(summary))}</p>
<h2>Runs</h2>
{html_table(summary.runs, columns_of(summary.runs), "Draw: --shots-seed / --seed.")}
</body>
</html>
"""


def html_table(rows: Sequence[Row], columns: Sequence[str], caption: str) -> str:
    """A table with its caption."""
    classes = [' class="text"' if is_text(rows, column) else "" for column in columns]

    def line(tag: str, cells: Iterable[str]) -> str:
        pairs = zip(classes, cells, strict=True)
        filled = "".join(f"<{tag}{kind}>{html.escape(cell)}</{tag}>" for kind, cell in pairs)
        return f"<tr>{filled}</tr>\n"

    body = "".join(line("td", texts(row, columns)) for row in rows)
    return f"""<div><table>
<caption>{html.escape(caption)}</caption>
<thead>
{line("th", titles(columns))}</thead>
<tbody>
{body}</tbody>
</table></div>"""


RENDERERS: dict[str, Callable[[Summary], str]] = {
    "markdown": markdown,
    "latex": latex,
    "csv": as_csv,
    "html": as_html,
}
