"""Turn labelled sentences into fairseq's binarized data, with the encoder's own tokenizer.

    fairseq-scl prepare data/sst2 --encoder encoders/minilm --data glue:SST-2
    fairseq-scl prepare data/trec --encoder encoders/minilm --data hf:SetFit/TREC-QC
    fairseq-scl prepare data/mine --encoder encoders/minilm \\
        --train a.csv --valid b.csv --test c.csv --sentence text --label class

OUTPUT receives input0/ (and input1/ for sentence pairs), label/, text/ (the sentences themselves,
a JSON list a row), tokenizer/ and prepared.json, which lists the source files with their checksums.
Class ids follow the sorted labels of the training data. Files end in .tsv (unquoted), .csv, .jsonl,
.json (an array of objects) or .parquet, text also in .gz. Spaces around a field are dropped. What
comes from the hub is kept in its cache; HF_ENDPOINT names a mirror. GLUE is compared with the
published numbers. Of Amazon-2 and Yelp-2, which have no validation set, 5 % of train (stratified,
at most 2,000) becomes one. Without --valid there is none: train with --disable-validation. At the
end it says what stands in each split: rows, classes and what may be amiss.
"""

import argparse
import json
import shutil
from pathlib import Path

from fairseq_scl.data import beside_checkpoint
from fairseq_scl.data.beside_checkpoint import Prepared
from fairseq_scl.encoders import encoder_folder
from fairseq_scl.encoders.tokenizers import load_tokenizer
from fairseq_scl.errors import UserError
from fairseq_scl.files import new_folder, sha256
from fairseq_scl.preparation.findings import (
    Found,
    check_labels,
    check_number_of_classes,
    class_names,
    compare_with_published,
    describe,
    look_through,
)
from fairseq_scl.preparation.glue import GLUE
from fairseq_scl.preparation.sources import add_sources, glue_task, read_tables
from fairseq_scl.preparation.summary import summary
from fairseq_scl.preparation.tables import Table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="folder to make")
    parser.add_argument(
        "--encoder",
        type=Path,
        required=True,
        metavar="DIR",
        help="encoder folder with dict.txt and the tokenizer (see import-model)",
    )
    add_sources(parser)
    parser.add_argument(
        "--max-length",
        type=int,
        metavar="N",
        help="shorten rows to N tokens, special tokens included, the longer sentence of a pair "
        "first (default: the encoder's positions)",
    )


def run(args: argparse.Namespace) -> None:
    """Prepare `args.output`."""
    refuse_existing(args.output)  # before anything is fetched
    tables, regression = read_tables(args)
    prepared = prepare_tables(
        args.output,
        args.encoder,
        tables,
        regression=regression,
        max_length=args.max_length,
        task=glue_task(args.data),
    )
    print(summary(args.output, prepared))


def prepare_tables(
    output: Path,
    encoder: Path,
    tables: dict[str, Table],
    *,
    regression: bool = False,
    max_length: int | None = None,
    task: str | None = None,
) -> Prepared:
    """Write the folder `output`, from which training reads.

    Args:
        encoder: a folder with dict.txt and the tokenizer.
        tables: by split, `train` and what else there is of `valid`, `valid1`, `test`, ...; all rows
            have one sentence, or all two. Rows in memory are `Table("memory", lambda: rows)`.
        regression: labels are numbers to predict, not classes.
        max_length: tokens of a row, special tokens included; default: the encoder's positions.
        task: of GLUE, to compare with what was published.

    Returns:
        What stands in the folder's `prepared.json`.

    Raises:
        UserError: in one line, for whatever cannot be used; then there is no `output`.
    """
    refuse_existing(output)
    found: dict[str, Found] = {}
    for split, table in tables.items():
        sentences = next((of.sentences for of in found.values()), None)
        found[split] = look_through(table, regression, sentences)
    train = tables["train"].path
    classes = None if regression else class_names(train, found["train"].first_rows)
    for split, table in tables.items():
        check_labels(table.path, found[split], classes, required=not split.startswith("test"))
    if task:
        compare_with_published(task, tables, found, classes)
    if classes is not None:
        check_number_of_classes(train, classes, found["train"].rows)
    max_length = checked_length(encoder, max_length)
    with new_folder(output) as folder:
        return fill(folder, encoder, tables, found, classes, max_length, task)


def refuse_existing(output: Path) -> None:
    """Refuse to write over anything."""
    if output.exists():
        raise UserError(f"{output} exists already")


def checked_length(encoder: Path, max_length: int | None) -> int:
    """How many tokens a row may have: `max_length`, or all that the encoder takes."""
    positions = encoder_positions(encoder)
    if max_length is None:
        return positions
    if max_length < 8:
        raise UserError(f"--max-length {max_length} must be at least 8")
    if max_length > positions:
        raise UserError(f"--max-length {max_length} is beyond the encoder's {positions} positions")
    return max_length


def encoder_positions(folder: Path) -> int:
    """The longest input of an encoder, from its `train_flags.txt`; 512 where it has none."""
    path = folder / encoder_folder.TRAIN_FLAGS
    try:
        flags = path.read_text(encoding="utf-8").split() if path.is_file() else []
        return int(flags[flags.index("--max-positions") + 1]) if "--max-positions" in flags else 512
    except (ValueError, IndexError) as error:
        raise UserError(f"{path} cannot be read ({error})") from None


def fill(
    folder: Path,
    encoder: Path,
    tables: dict[str, Table],
    found: dict[str, Found],
    classes: list[str] | None,
    max_length: int,
    task: str | None,
) -> Prepared:
    """Write everything into an empty folder."""
    from fairseq_scl.data.stored import load_dictionary
    from fairseq_scl.preparation.binarize import write_split

    dictionary_path = encoder / encoder_folder.DICTIONARY
    if not dictionary_path.is_file():
        raise UserError(f"{dictionary_path} is missing; --encoder takes an encoder folder")
    symbols = load_dictionary(dictionary_path).symbols
    tokenizer = load_tokenizer(encoder, symbols)
    for i in range(found["train"].sentences):
        (folder / f"input{i}").mkdir()
        shutil.copyfile(dictionary_path, folder / f"input{i}" / "dict.txt")
    for name in ("label", "text", beside_checkpoint.TOKENIZER):
        (folder / name).mkdir()
    encoder_folder.copy_tokenizer(encoder, folder / beside_checkpoint.TOKENIZER)
    told = {}
    for split, table in tables.items():
        counts = write_split(
            folder, split, table, found[split], classes, tokenizer, len(symbols), max_length
        )
        told[split] = source(table) | describe(found, split, classes) | counts
        if task:
            told[split]["published_rows"] = GLUE[task].published_rows[split]
    if classes is not None:
        lines = [f"{name} {found['train'].labels[name]}\n" for name in classes]
        (folder / "label" / "dict.txt").write_text("".join(lines), encoding="utf-8")
    prepared = Prepared.model_validate(
        {"max_length": max_length, "classes": classes, "splits": told}
    )
    (folder / beside_checkpoint.PREPARED).write_text(
        json.dumps(prepared.model_dump(exclude_unset=True), indent=1) + "\n", encoding="utf-8"
    )
    return prepared


def source(table: Table) -> dict:
    """Where the rows are from, as `prepared.json` has it."""
    if isinstance(table.path, Path):
        return {"file": table.path.name, "sha256": sha256(table.path)} | table.read_by
    return {"file": table.path} | ({"revision": table.revision} if table.revision else {})
