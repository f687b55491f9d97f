"""Importing fairseq without what nobody asked for.

fairseq imports scikit-learn and scipy.stats for functions of a criterion and a task that are hardly
ever called: a quarter of the time that a command takes to start. Here they wait until they are.
And it makes every library of the program log at DEBUG (`wav2vec2_classification.py`).
"""

import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

LATER = ("sklearn", "sklearn.metrics", "scipy.stats")


class Later(ModuleType):
    """A module of functions that is imported when one of them is called."""

    def __getattr__(self, name: str) -> object:
        """Another such module, or a function."""
        if name.startswith("__"):
            raise AttributeError(name)
        whole = f"{self.__name__}.{name}"
        if whole in LATER:
            return Later(whole)
        return lambda *args, **named: self._function(name)(*args, **named)

    def _function(self, name: str) -> Callable:
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def quietly() -> Iterator[None]:
    """Import what sets up the logging of a program, and leave it to the program."""
    taken = logging.NullHandler()  # with any handler, logging.basicConfig does nothing
    logging.root.addHandler(taken)
    try:
        yield
    finally:
        logging.root.removeHandler(taken)


@contextmanager
def without_waste() -> Iterator[None]:
    """Let what is imported here find stand-ins."""
    stand_ins = {name: Later(name) for name in LATER if name not in sys.modules}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]


class Finder:
    """Finds fairseq as Python does, once, and has it imported `quietly` and `without_waste`."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Called by Python for every module that is not there yet."""
        if name != "fairseq":
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                with quietly(), without_waste():
                    execute(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def install() -> None:
    """Wait for the import of fairseq, unless it was imported already."""
    if "fairseq" not in sys.modules:
        sys.meta_path.insert(0, Finder())
