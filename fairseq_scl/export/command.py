"""Turn a fine-tuned model into a folder that runs without fairseq.

OUTPUT receives the model, tokenizer.json and README.md, a model card with the run's recipe.

    fairseq-scl export checkpoints/sst2-20-draw1 exported

--format says for which library; the outputs are fairseq's, but for rounding:

transformers  for AutoModelForSequenceClassification and pipeline("text-classification"), which
              have no class for --pooling mean (MiniLM, all-mpnet-base-v2)
onnx          model.onnx for ONNX Runtime: input_ids and attention_mask in, logits and
              sentence_embedding out; tokenizer.json cuts and pads. Any model. Needs
              pip install 'fairseq-scl[onnx]'. 'fairseq-scl predict OUTPUT' runs it too, with
              neither torch nor fairseq. --int8 makes it smaller and faster, a little less exact
setfit        for SetFitModel.from_pretrained; one sentence, and no regression

The temperature of calibration.json, if the run has one, is part of the exported head. The refitted
head of 'finetune --head refit' goes with onnx and setfit.
What a format does not compute is refused, as are encoders with a sentencepiece model.
"""

import argparse
import importlib
from pathlib import Path

from fairseq_scl.encoders.encoder_folder import TOKENIZER_JSON
from fairseq_scl.errors import UserError
from fairseq_scl.files import new_folder
from fairseq_scl.inference.classifier import ONNX_MODEL, load_run

# modules; each has objection(source), write(source, folder), and LIBRARY and USE for the card
FORMATS = ("transformers", "onnx", "setfit")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("model", metavar="MODEL", type=Path, help="a run's folder or a checkpoint")
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="folder to make")
    parser.add_argument(
        "--format", choices=FORMATS, default="transformers", help="default: %(default)s"
    )
    told = "of onnx: weights rounded to int8, a quarter of the size"
    parser.add_argument("--int8", action="store_true", help=told)


def run(args: argparse.Namespace) -> None:
    """Export `args.model` to `args.output`."""
    from fairseq_scl.export import exportable

    if args.output.exists():
        raise UserError(f"{args.output} exists already")
    if args.int8 and args.format != "onnx":
        raise UserError("--int8 is for --format onnx")
    form = importlib.import_module(f"fairseq_scl.export.{args.format}")
    source = exportable.read(exportable.scaled(load_run(args.model, cpu=True)))
    if reason := form.objection(source):
        raise UserError(f"{source.classifier.run} cannot be exported: {reason}")
    with new_folder(args.output) as folder:
        form.write(source, folder)
        source.tokenizer.save(str(folder / TOKENIZER_JSON))
        card = exportable.card(source.classifier, form.LIBRARY, form.USE)
        if args.int8:
            form.quantize(folder / ONNX_MODEL)
            card += form.INT8
        (folder / "README.md").write_text(card, encoding="utf-8")
    print(f"{args.output}: for {form.LIBRARY}")
