"""The exception for a mistake of a user, what else users are told, and how a command is stopped."""

import logging
import re
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from threading import current_thread, main_thread
from typing import NoReturn

NO_FAIRSEQ = "fairseq is not installed; install it with: pip install 'fairseq-scl[fairseq]'"
NOT_FINITE = "the model's numbers are NaN or infinite, its training diverged; train it anew"
LONGEST = 2000  # characters of a message; what it quotes may have millions


class UserError(SystemExit):
    """A mistake in a flag, file or value, told in one line.

    It derives from `SystemExit`, so that `fairseq-train`, `fairseq-hydra-train`
    and every other program that lets it pass prints the message without a
    traceback and exits with status 1.
    """

    def __init__(self, message: str):
        message = re.sub(r"\d{40,}", lambda digits: short(digits[0]), message)
        if len(message) > LONGEST:
            message = f"{message[: LONGEST // 2]} ... {message[-LONGEST // 4 :]}"
        super().__init__(f"fairseq-scl: error: {printable(message)}")


def short(text: str) -> str:
    """As much of a text as a message bears."""
    return text if len(text) <= 60 else f"{text[:30]}... ({len(text):,} characters)"


def printable(text: str) -> str:
    """The same without line breaks and escape sequences, which names from files may hold."""
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return "".join(shown)


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its name if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def explained(message: str, flags: Iterable[str]) -> str:
    """What argparse says of a mistake, with what may have been meant, and no long list."""
    if found := re.match(r"unrecognized arguments: (-\S+)", message):
        return message + nearest(found[1].split("=")[0], flags)
    if found := re.match(r"(.*invalid choice: '?(.*?)'?) \(choose from (.*)\)$", message):
        known = [choice.strip("' ") for choice in found[3].split(",")]
        return message if len(known) < 20 else found[1] + nearest(found[2], known)
    return message


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that is most like this one, as a question; nothing if none is."""
    return "".join(f"; did you mean {near}?" for near in get_close_matches(word, known, 1))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries from logging every step, and, unless -W asks for them, from warnings."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def tidy_end() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end as Ctrl-C does: what was started is stopped, nothing half-written.

    A signal that is ignored, as under nohup, stays so.
    """

    def stop(number: int, _: object) -> NoReturn:
        raise KeyboardInterrupt(number)

    known = (signal.SIGTERM, signal.SIGHUP) if current_thread() is main_thread() else ()
    ours = [number for number in known if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def signal_of(stop: KeyboardInterrupt) -> signal.Signals:
    """What stopped a command: the signal that `tidy_end` caught, else Ctrl-C's."""
    return signal.Signals(stop.args[0]) if stop.args else signal.SIGINT
