"""A run that has all its updates, started again: fairseq would take one more and save it."""

import functools
import logging

from fairseq_scl.repairs.importing import quietly

with quietly():
    from fairseq_cli import train as fairseq_train

logger = logging.getLogger(__name__)


def install() -> None:
    """Make fairseq-train leave a finished run as it is."""
    fairseq_train.train = unless_finished(fairseq_train.train)


def unless_finished(train):
    """Wrap fairseq's `train(cfg, trainer, task, epoch_itr)`, which trains for an epoch."""

    @functools.wraps(train)
    def train_or_stop(cfg, trainer, task, epoch_itr):
        done, wanted = trainer.get_num_updates(), cfg.optimization.max_update
        if 0 < wanted <= done:
            logger.info(f"nothing to train: {done} updates are done, --max-update is {wanted}")
            return [None], True
        return train(cfg, trainer, task, epoch_itr)

    return train_or_stop
