"""What may stand in a file instead of what should."""

import copy
import os
import subprocess
import sys
from collections.abc import Iterator

from conftest import ROOT

from fairseq_scl.cli import main
from fairseq_scl.errors import UserError

HUGE = 10**30
DEEP: list = []
for _ in range(900):
    DEEP = [DEEP]
WRONG = (None, True, -1, 0, 1.5, HUGE, 1e300, "", "a\nb", "../..", [], [[0, 10**9]], {}, {"a\n": 1})
WRONG += (DEEP,)


def mutations(content: object) -> Iterator[tuple[str, object]]:
    """Every copy of a JSON value in which one key, at any depth, is gone or holds another thing."""
    for path in paths(content):
        where = ".".join(map(str, path))
        changed = copy.deepcopy(content)
        del reach(changed, path[:-1])[path[-1]]
        yield f"{where} removed", changed
        for wrong in WRONG:
            changed = copy.deepcopy(content)
            reach(changed, path[:-1])[path[-1]] = wrong
            yield f"{where} = {str(wrong)[:20]}", changed
    yield from ((f"the whole = {str(wrong)[:20]}", wrong) for wrong in WRONG)


def paths(content: object, above: tuple = ()) -> Iterator[tuple]:
    """The way to each key; of lists only the first entry's."""
    if isinstance(content, dict | list):
        keys = list(content) if isinstance(content, dict) else range(min(1, len(content)))
        for key in keys:
            yield (*above, key)
            yield from paths(content[key], (*above, key))


def reach(content, path: tuple):
    for key in path:
        content = content[key]
    return content


def ended(arguments: list[str]) -> str:
    """The line that a command ends with, empty if it succeeds; an error of another kind passes."""
    try:
        main(arguments)
    except UserError as error:
        return str(error)
    return ""


PROGRAM = """
import resource, sys
import fairseq_scl.plugin
from fairseq_scl.cli import main
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
main(sys.argv[2:])
"""


def in_bounded_memory(*arguments: object) -> subprocess.CompletedProcess:
    """Run a command in a process that can have 6 GB of addresses, of which imports take most."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(6 * 2**30), *map(str, arguments)],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
