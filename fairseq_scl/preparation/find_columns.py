"""Which columns of a spreadsheet hold the sentences and the labels, where there is no doubt.

Names decide first (`review`, `topic`), then content. Where more than one column could be meant,
nothing is guessed: the error lists the columns and the flags that name them.
"""

import calendar
import re
import shlex
from collections.abc import Mapping, Sequence

from fairseq_scl.errors import UserError
from fairseq_scl.preparation.records import delimiter_hint

TEXT_NAMES = {
    "sentence", "text", "comment", "review", "tweet", "message", "post", "body", "content",
    "utterance", "feedback",
}  # fmt: skip
LABEL_NAMES = {
    "label", "class", "category", "topic", "sentiment", "emotion", "intent", "polarity", "target",
    "tag", "classes", "categories",
}  # fmt: skip
FEW = 20  # labels, or a third of the rows if that is more
SHORT = 3  # words on average: names of people or places, hardly sentences

#: words that a date may hold
OF_DATES = {
    word.lower()
    for names in (calendar.month_name, calendar.month_abbr, calendar.day_name, calendar.day_abbr)
    for word in names
} | {"am", "pm", "t", "z", "utc", "gmt", "st", "nd", "rd", "th", "sept"}
WITHOUT_SPACES = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]")  # Thai, Japanese, Chinese

Rows = Sequence[Mapping[str, str]]


def find_columns(where: object, header: Sequence[str], rows: Rows) -> tuple[str, str | None]:
    """The column of sentences, and that of labels or None.

    Args:
        where: the file, for errors.
        header: the names of the columns.
        rows: the first rows, about 100, each from name to text.

    Raises:
        UserError: if no column holds sentences, or several could be either.
    """
    text = text_column(where, header, rows)
    return text, label_column(where, header, rows, text)


def text_column(where: object, header: Sequence[str], rows: Rows) -> str:
    """The column of sentences: `sentence`, else the one so named, else the only one with text.

    Text is more than a word on average, mostly distinct, and neither numbers nor dates. Of several
    such columns it is the longest, if the others look like names: at most `SHORT` words on average
    and not half as long.

    Raises:
        UserError: if no column, or more than one, could be meant.
    """
    values = {name: _values(name, rows) for name in header}
    lengths = {name: _words(found) for name, found in values.items()}
    if "sentence" in header:
        return "sentence"
    if hint := delimiter_hint(header):
        raise UserError(f"{where}: {hint}")
    candidates = [name for name in _named(header, TEXT_NAMES) if _letters(values[name])]
    if not candidates:
        if len(header) == 1 and _letters(values[header[0]]):
            return header[0]
        texts = [name for name in header if lengths[name] > 1 and _varied(values[name])]
        longest = max(texts, key=lengths.__getitem__, default="")
        candidates = [
            name for name in texts
            if lengths[name] > SHORT or 2 * lengths[name] > lengths[longest]
        ]  # fmt: skip
    if len(candidates) != 1:
        raise UserError(_doubt(where, header, candidates, "sentence"))
    return candidates[0]


def label_column(where: object, header: Sequence[str], rows: Rows, text: str) -> str | None:
    """The column of labels: `label`, else the one so named, else the only one with few values.

    Few are 2 to max(`FEW`, rows / 3), each twice on average, and none of them dates.

    Args:
        text: the column of sentences.

    Returns:
        None if there is none.

    Raises:
        UserError: if more than one could be meant.
    """
    others = [name for name in header if name != text]
    if "label" in others:
        return "label"
    candidates = _named(others, LABEL_NAMES) or [
        name for name in others if _is_label(_values(name, rows), len(rows))
    ]
    if len(candidates) > 1:
        raise UserError(_doubt(where, header, candidates, "label"))
    return candidates[0] if candidates else None


def _named(header: Sequence[str], names: set[str]) -> list[str]:
    """The columns with one of these names, whatever the case, in the plural too."""
    plain = {name: re.sub(r"[\W_]+", " ", name).strip().casefold() for name in header}
    return [name for name, said in plain.items() if {said, said.removesuffix("s")} & names]


def _values(name: str, rows: Rows) -> list[str]:
    return [value for row in rows if (value := (row.get(name) or "").strip())]


def _is_word(value: str) -> bool:
    """Whether a value has letters, and not only those of a date."""
    words = {word.lower() for word in re.findall(r"[^\W\d_]+", value)}
    return bool(words) and not (words <= OF_DATES and re.search(r"\d", value))


def _letters(values: list[str]) -> bool:
    """Whether values are mostly words; true for none, as then the name is all there is."""
    return 2 * sum(map(_is_word, values)) >= len(values)


def _words(values: list[str]) -> float:
    """How many words a value has on average, 0 for numbers and dates."""
    if not values or not _letters(values):
        return 0
    counts = [len(value.split()) + len(WITHOUT_SPACES.findall(value)) // 2 for value in values]
    return sum(counts) / len(counts)


def _varied(values: list[str]) -> bool:
    return 2 * len(set(values)) > len(values)


def _is_label(values: list[str], rows: int) -> bool:
    dates = any(re.search(r"\d[-/.:]\d+[-/.:]", value) for value in values)
    few = 2 <= len(set(values)) <= max(FEW, rows / 3)
    return few and not dates and 2 * len(set(values)) <= len(values)


def _doubt(where: object, header: Sequence[str], candidates: list[str], flag: str) -> str:
    """The message for no candidate or too many."""
    held = f"no column '{flag}'; the columns are {', '.join(header)}"
    if not candidates:
        return f"{where}: {held}; name one: --{flag} NAME"
    flags = " or ".join(f"--{flag} {shlex.quote(name)}" for name in candidates)
    return f"{where}: {held}; name one: {flags}"
