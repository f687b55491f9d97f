"""What several workers need beyond fairseq: random numbers of their own, and to fail together."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from fairseq_scl.errors import UserError


def seed_apart(rank: int) -> None:
    """Give this worker its own stream of torch's random numbers; worker 0 keeps the common one.

    fairseq seeds all workers alike before every update, which would give them the same dropout
    masks. The stream follows from the current seed and the rank, so a run can be resumed.
    """
    if rank > 0:
        mixed = np.random.SeedSequence((torch.initial_seed(), rank))
        torch.manual_seed(int(mixed.generate_state(1, np.uint64)[0]))


@contextmanager
def failing_together(rank: int, workers: int) -> Iterator[None]:
    """Let lack of memory end this worker, so that the others' next exchange with it fails.

    fairseq would skip the batch and leave the others waiting in exchanges that never match.

    Raises:
        UserError: where several workers run out of memory.
    """
    try:
        yield
    except RuntimeError as error:
        if workers == 1 or "out of memory" not in str(error):
            raise
        raise UserError(
            f"worker {rank} is out of memory; lower --batch-size or --max-tokens ({error})"
        ) from None
