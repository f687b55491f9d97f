"""What may stand in a file instead of what should."""

import copy
import resource
from collections.abc import Iterator

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


def bounded_memory(gigabytes: float = 4) -> None:
    """Let this process, started for a test, have no more address space than that."""
    size = int(gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
