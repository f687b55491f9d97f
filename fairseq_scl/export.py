"""Turn a fine-tuned model into a folder that Hugging Face's transformers loads.

OUTPUT receives config.json with the labels, model.safetensors, the tokenizer and README.md, a model
card with the run's result.json. AutoModelForSequenceClassification and
pipeline("text-classification") then compute what fairseq does.

    fairseq-scl export checkpoints/sst2-20-draw1 exported

A model with --pooling mean (MiniLM) has no such class there and is refused, as is one whose
tokenizer is a sentencepiece model.
"""

import argparse
from pathlib import Path

from fairseq_scl import export_transformers, exportable
from fairseq_scl.classifier import CHECKPOINT, load
from fairseq_scl.encoder_folder import TOKENIZER_JSON
from fairseq_scl.errors import UserError
from fairseq_scl.files import new_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        "model", metavar="MODEL", type=Path, help=f"a run's folder ({CHECKPOINT}) or a checkpoint"
    )
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="folder to make")


def run(args: argparse.Namespace) -> None:
    """Export `args.model` to `args.output`."""
    if args.output.exists():
        raise UserError(f"{args.output} exists already")
    form = export_transformers
    source = exportable.read(load(args.model, cpu=True))
    if reason := form.objection(source):
        raise UserError(f"{source.classifier.run} cannot be exported: {reason}")
    with new_folder(args.output) as folder:
        form.write(source, folder)
        source.tokenizer.save(str(folder / TOKENIZER_JSON))
        card = exportable.card(source.classifier, form.LIBRARY, form.USE)
        (folder / "README.md").write_text(card, encoding="utf-8")
    print(f"{args.output}: for {form.LIBRARY}")
