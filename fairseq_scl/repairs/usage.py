"""A mistyped flag: fairseq-train answers with its usage, 164 lines long."""

import functools

from fairseq import options

from fairseq_scl.errors import explained


def install() -> None:
    """Make fairseq's programs tell it in one line."""
    options.parse_args_and_arch = in_one_line(options.parse_args_and_arch)


def in_one_line(parse):
    """Wrap fairseq's parser of flags; it still exits with status 2."""

    @functools.wraps(parse)
    def parse_or_explain(parser, *args, **kwargs):
        def error(message):
            known = parser._option_string_actions
            parser.exit(2, f"{parser.prog}: error: {explained(message, known)}\n")

        parser.error = error
        return parse(parser, *args, **kwargs)

    return parse_or_explain
