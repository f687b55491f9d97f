"""What `prepare` prints at its end: of each split the rows, the classes and what may be amiss."""

from pathlib import Path

from fairseq_scl.data.beside_checkpoint import Prepared, PreparedSplit
from fairseq_scl.errors import printable, short
from fairseq_scl.preparation.findings import first_ten

MANY_UNKNOWN = 0.05  # share of tokens; text in the encoder's language has hardly any
WITHOUT_VALIDATION = (
    "no validation data: train with --disable-validation, or use fairseq-scl finetune"
)


def summary(output: Path, prepared: Prepared) -> str:
    """Some lines of text, for a terminal."""
    lines = [f"{output}: at most {prepared.max_length} tokens a row"]
    for split in prepared.splits:
        lines += split_lines(split, prepared)
    if "valid" not in prepared.splits:
        lines.append(WITHOUT_VALIDATION)
    return "\n".join(map(printable, lines))


def split_lines(split: str, prepared: Prepared) -> list[str]:
    """What a split holds, and below it what may be amiss."""
    entry = prepared.splits[split]
    told = f"{split}: {count(entry.rows, 'row')}; {labels(entry, prepared.classes)}"
    found = notes(entry, prepared.max_length)
    if split == "train":
        found += [f"classes {names} differ only in case" for names in alike(prepared.classes or [])]
    return [told, *(f"    {note}" for note in found)]


def alike(classes: list[str]) -> list[str]:
    """The classes that are the same but for case, together."""
    by_name: dict[str, list[str]] = {}
    for name in classes:
        by_name.setdefault(name.casefold(), []).append(short(name))
    return [" and ".join(names) for names in by_name.values() if len(names) > 1]


def labels(entry: PreparedSplit, classes: list[str] | None) -> str:
    """How often each class occurs."""
    if not entry.labelled:
        return "unlabelled"
    if classes is None:
        return "numbers"
    pairs = zip(classes, entry.counts or [], strict=True)
    return first_ten([f"{short(name)} {number:,}" for name, number in pairs])


def notes(entry: PreparedSplit, max_length: int) -> list[str]:
    """What may be amiss with a split."""
    unknown = (entry.unknown or 0) / max(entry.tokens or 0, 1)
    hint = ": is the text in a language that it knows?" if unknown >= MANY_UNKNOWN else ""
    told = {
        f"{count(entry.empty, 'row')} with an empty sentence (kept)": entry.empty,
        f"{count(entry.quoted or 0, 'row')} in quotes, which a .tsv keeps: "
        "name it .csv and give --delimiter tab": entry.quoted,
        f"{count(entry.shortened, 'row')} shortened to {max_length} tokens": entry.shortened,
        f"{unknown:.1%} of the tokens are unknown to the encoder{hint}": entry.unknown,
        f"{count(entry.duplicates or 0, 'row')} with the text of an earlier one": entry.duplicates,
        f"{count(entry.contradicting or 0, 'row')} whose text stands there with another label too":
            entry.contradicting,
        f"{entry.in_train or 0:,} of {count(entry.rows, 'row')} in train too": entry.in_train,
    }  # fmt: skip
    return [note for note, matters in told.items() if matters]


def count(number: int, of: str) -> str:
    """A number of things, in English."""
    return f"{number:,} {of}" + "s" * (number != 1)
