"""The command `fairseq-scl`: what fairseq has no command for."""

import argparse
import importlib
import logging
import sys

from fairseq_scl.errors import NO_FAIRSEQ, UserError

COMMANDS = {
    "import-model": ("encoders.import_model", "turn a Hugging Face encoder into a fairseq one"),
    "prepare": ("preparation.prepare", "turn labelled sentences into fairseq's binarized data"),
    "back-translate": (
        "back_translation.back_translate",
        "paraphrase training sentences by way of a language",
    ),
    "verify": ("data.manifest", "check that a run used the rows that its manifest says"),
    "evaluate": ("studies.evaluate", "test a run's best checkpoint"),
    "predict": ("inference.predict", "label sentences with a fine-tuned model"),
    "export": ("export.command", "turn a fine-tuned model into a Hugging Face one"),
    "report": ("reports.report", "a table of evaluated runs"),
    "plot": ("reports.plot", "pictures of evaluated runs: embeddings, curves, N, noise"),
}


def main(arguments: list[str] | None = None) -> None:
    """Run the subcommand named first in `arguments` (default: the command line)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for library in ("fairseq", "tensorboard"):  # they speak of every step
        logging.getLogger(library).setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(
        prog="fairseq-scl",
        description="Supervised contrastive fine-tuning: what surrounds fairseq-train.",
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, summary) in COMMANDS.items():
        # the module of another command is not imported, some take seconds
        if arguments[:1] == [name]:
            implementation = importlib.import_module(f"fairseq_scl.{module}")
            subparser = subparsers.add_parser(
                name,
                description=implementation.__doc__,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
            implementation.add_arguments(subparser)
            subparser.set_defaults(run=implementation.run)
        else:
            subparsers.add_parser(name, help=summary)
    args = parser.parse_args(arguments)
    try:
        args.run(args)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "fairseq":
            raise
        raise UserError(NO_FAIRSEQ) from None
    except OSError as error:  # a full disk, a folder that may not be written
        raise UserError(f"{error.filename or args.command}: {error.strerror or error}") from None


if __name__ == "__main__":
    main()
