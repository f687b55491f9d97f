"""The command `fairseq-scl`: what fairseq has no command for."""

import argparse
import importlib
import io
import logging
import os
import signal
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from fairseq_scl.errors import NO_FAIRSEQ, UserError, explained, quiet, signal_of, tidy_end
from fairseq_scl.repairs.threads import spin_less

COMMANDS = {
    "finetune": ("finetuning.command", "from a table of sentences to a model and an estimate"),
    "predict": ("inference.predict", "label sentences with a fine-tuned model"),
    "import-model": ("encoders.import_model", "turn a Hugging Face encoder into a fairseq one"),
    "prepare": ("preparation.prepare", "turn labelled sentences into fairseq's binarized data"),
    "back-translate": (
        "back_translation.back_translate",
        "paraphrase training sentences by way of a language",
    ),
    "recipe": ("finetuning.recipe", "the flags of fairseq-train for an encoder and so many rows"),
    "flags": ("flags", "what the plugin adds to the flags of fairseq-train"),
    "verify": ("data.manifest", "check that a run used the rows that its manifest says"),
    "study": ("studies.command", "the paper's tables: many runs, each made once"),
    "evaluate": ("studies.evaluate", "test a run's best checkpoint"),
    "export": ("export.command", "turn a fine-tuned model into a Hugging Face one"),
    "report": ("reports.report", "a table of evaluated runs"),
    "plot": ("reports.plot", "pictures of evaluated runs: embeddings, curves, N, noise"),
}
TAKE_FLAGS = (["finetune"], ["study"])  # of others after --, in args.rest
PACKAGE = Path(__file__).parent  # for --user-dir; it also holds configs/


def main(arguments: list[str] | None = None) -> None:
    """Run the subcommand named first in `arguments` (default: the command line)."""
    spin_less(os.environ)
    if isinstance(sys.stdout, io.TextIOWrapper):  # what a terminal cannot show must not end a run
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        try:
            dispatch(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # `| head` has read enough; at exit Python flushes once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(128 + signal.SIGPIPE) from None
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "fairseq":
            raise
        raise UserError(NO_FAIRSEQ) from None
    except KeyboardInterrupt as stop:
        number = signal_of(stop)
        print(f"fairseq-scl: stopped by {number.name}", file=sys.stderr)
        raise SystemExit(128 + number) from None
    except UnicodeEncodeError as error:
        what = f"{error.object[:100]!r} holds what {error.encoding} cannot write"
        raise UserError(f"{arguments[0]}: {what}; rename such files and folders") from None
    except OSError as error:  # a full disk, a folder that may not be written
        told = error.strerror or error
        raise UserError(f"{error.filename or arguments[0]}: {told}") from None


def dispatch(arguments: list[str]) -> None:
    """Run `train`, `user-dir` or one of `COMMANDS`."""
    match arguments:
        case ["train", *flags]:
            train(flags)
        case ["user-dir"]:
            print(PACKAGE)
        case _:
            with quiet(), tidy_end():
                run(arguments)


def train(flags: list[str]) -> None:
    """Run fairseq-train with the plugin, from any folder; `--help` is the plugin's flags."""
    if not {"-h", "--help"}.isdisjoint(flags):
        print("usage: fairseq-scl train DATA FLAG ...\n")
        print(f"This is: fairseq-train --user-dir {PACKAGE} DATA FLAG ...\n")
        run(["flags"])
        print("\nAll other flags: fairseq-train --help")
        return
    logging.raiseExceptions = False  # training goes on when nobody reads its log any more
    from fairseq_cli.train import cli_main

    from fairseq_scl import plugin  # noqa: F401

    sys.argv = ["fairseq-train", *flags, "--user-dir", str(PACKAGE)]
    cli_main()


def run(arguments: list[str]) -> None:
    """Run one of `COMMANDS`."""
    if "" in arguments:  # an unset variable of a shell; as a path it is the working folder
        before = arguments[arguments.index("") - 1]
        raise UserError(f"nothing is given after {before} but an empty text")
    parser = Parser(
        prog="fairseq-scl",
        description="Fine-tune encoders of text with a supervised contrastive loss, and use them. "
        "Start with: fairseq-scl finetune --help",
    )
    parser.add_argument("--version", action="version", version=version("fairseq-scl"))
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
    subparsers.add_parser("train", help="fairseq-train with the plugin, from any folder")
    subparsers.add_parser("user-dir", help="print the plugin's folder, for --user-dir")
    if arguments[:1] in TAKE_FLAGS:
        at = arguments.index("--") if "--" in arguments else len(arguments)
        args = parser.parse_args(arguments[:at])
        args.rest = arguments[at + 1 :]
    else:
        args = parser.parse_args(arguments)
    args.run(args)


class Parser(argparse.ArgumentParser):
    """Tells a mistake in one line, with the flag that may have been meant."""

    def error(self, message: str) -> NoReturn:
        """Called by argparse."""
        told = explained(message, flags_of(self))
        self.exit(2, f"{self.prog}: error: {told} (see --help)\n")


def flags_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The flags of a parser and of the commands below it."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from flags_of(below)


if __name__ == "__main__":
    main()
