"""Keep or return freed memory (glibc)."""

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt(3)


def keep_freed_memory() -> None:
    """Let the process use freed memory again, where the C library is glibc.

    glibc returns every freed block of 32 MiB or more to the system at once, and an embedding's
    gradient is one: getting it anew for each update, page by page, takes ten times as long as
    filling it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, 2**30)
        mallopt(TRIM_THRESHOLD, 2**31 - 1)


def give_back_memory() -> None:
    """Return freed memory to the system, where the C library is glibc.

    Work in chunks of unequal sizes leaves holes that the next chunk does not fit into, and the
    process grows with their number. Returned pages can be used anywhere.
    """
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
