"""The flags that the plugin adds to fairseq-train, whose own --help shows none of them.

    fairseq-scl flags
    fairseq-scl flags scl-queue noise     # those whose names hold one of these words

All other flags are fairseq's: fairseq-train --help.
"""

import argparse
from collections.abc import Callable

from fairseq_scl.errors import UserError, nearest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("words", metavar="WORD", nargs="*", help="show flags with it in their name")


def run(args: argparse.Namespace) -> None:
    """Print the flags as argparse does.

    Raises:
        UserError: if none has one of the words in its name.
    """
    words = [word.strip("-").replace("_", "-") for word in args.words]
    names = [action.option_strings[0] for actions in sections().values() for action in actions]
    if words and not any(word in name for word in words for name in names):
        near = nearest(f"--{words[0]}", names)
        raise UserError(f"no flag of the plugin has '{words[0]}' in its name{near}")
    parser = argparse.ArgumentParser(usage="", add_help=False)
    for title, actions in sections().items():
        group = parser.add_argument_group(title)
        for action in actions:
            if not words or any(word in action.option_strings[0] for word in words):
                if (value := default(action)) and "default" not in (action.help or ""):
                    action.help = f"{action.help} (default: {value})"
                group._add_action(action)
    print(parser.format_help().removeprefix("usage: ").strip())


def sections() -> dict[str, list[argparse.Action]]:
    """The plugin's flags by what they belong to, each of them as fairseq declares it."""
    from fairseq.criterions.sentence_prediction import SentencePredictionConfig as StockCriterion
    from fairseq.models.roberta import RobertaModel
    from fairseq.tasks.sentence_prediction import SentencePredictionConfig as StockTask

    from fairseq_scl import plugin  # noqa: F401
    from fairseq_scl.criterions.sentence_prediction_scl import SentencePredictionSclConfig
    from fairseq_scl.models.sentence_roberta import SentenceRobertaModel
    from fairseq_scl.optim.fused_adam import FusedAdamConfig
    from fairseq_scl.tasks.few_shot_glue import FewShotGlueConfig

    return {
        "--criterion sentence_prediction_scl": added(
            declaring(SentencePredictionSclConfig), declaring(StockCriterion)
        ),
        "--task few_shot_glue": added(declaring(FewShotGlueConfig), declaring(StockTask)),
        "--arch sentence_roberta, sentence_roberta_large, minilm_l6, mpnet_base": added(
            SentenceRobertaModel.add_args, RobertaModel.add_args
        ),
        "--optimizer fused_adam": added(declaring(FusedAdamConfig), lambda parser: None),
    }


Declare = Callable[[argparse.ArgumentParser], None]


def declaring(config) -> Declare:
    """What adds the flags of a dataclass to a parser."""
    from fairseq.dataclass.utils import gen_parser_from_dataclass

    return lambda parser: gen_parser_from_dataclass(parser, config())


def added(ours: Declare, stock: Declare) -> list[argparse.Action]:
    """The flags that `ours` declares beyond those of `stock`."""
    known = {action.dest for action in declared(stock)}
    return [action for action in declared(ours) if action.dest not in known]


def declared(declare: Declare) -> list[argparse.Action]:
    """The optional arguments that `declare` adds to a parser."""
    parser = argparse.ArgumentParser(add_help=False)
    declare(parser)
    return [action for action in parser._actions if action.option_strings]


def markdown() -> str:
    """A table of flags, defaults and meanings for each of `sections`."""
    parts = []
    for title, actions in sections().items():
        lines = [f"## `{title}`", "", "| flag | default | |", "| --- | --- | --- |"]
        lines += [
            f"| `{action.option_strings[0]}` | {default(action)} | {meaning(action)} |"
            for action in actions
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def default(action: argparse.Action) -> str:
    """A flag's default as text; nothing if it has none."""
    return "" if action.default is None or action.default is False else str(action.default)


def meaning(action: argparse.Action) -> str:
    """A flag's help text, and the values it allows where the text does not name them."""
    text = action.help or ""
    choices = [str(choice) for choice in action.choices or ()]
    if not all(f"'{choice}'" in text for choice in choices):
        text += f" ({', '.join(choices)})"
    return text.replace("|", "\\|")
