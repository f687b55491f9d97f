"""Memory that the process has freed but the system still counts as its own."""

import ctypes


def give_back_memory() -> None:
    """Return freed memory to the system, where the C library is glibc.

    Work in chunks of unequal sizes leaves holes that the next chunk does not fit into, and the
    process grows with their number. Returned pages can be used anywhere.
    """
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
