"""torchrun and Slurm on machines without GPUs, by whose number fairseq divides."""

import functools
import os
import subprocess

import torch
from fairseq.distributed import utils as distributed_utils

from fairseq_scl.errors import UserError


def install() -> None:
    """Make fairseq-train start without GPUs as it does with them."""
    distributed_utils.infer_init_method = without_gpus(distributed_utils.infer_init_method)


def without_gpus(infer):
    """Wrap fairseq's `infer_init_method`, which settles the rank of a process and where all meet.

    Raises:
        UserError: if several processes are wanted on CPUs and no launcher has started them.
    """

    @functools.wraps(infer)
    def infer_or_read(cfg, force_distributed=False):
        if torch.cuda.is_available() or cfg.distributed_init_method is not None:
            return infer(cfg, force_distributed)
        if {"MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE"} <= os.environ.keys():
            settle(cfg, "env://", os.environ["RANK"], os.environ["WORLD_SIZE"])
        elif cfg.distributed_world_size == 1:
            return
        elif "SLURM_PROCID" in os.environ and cfg.distributed_port > 0:
            method = f"tcp://{first_host()}:{cfg.distributed_port}"
            settle(cfg, method, os.environ["SLURM_PROCID"], os.environ["SLURM_NTASKS"])
        else:
            raise UserError(
                f"--distributed-world-size {cfg.distributed_world_size} without GPUs: start the "
                "processes with torchrun, or with srun and a --distributed-port"
            )

    return infer_or_read


def settle(cfg, method: str, rank: str, world_size: str) -> None:
    """Tell fairseq that this is one of the processes, which all run already."""
    cfg.distributed_init_method = method
    cfg.distributed_rank = int(rank)
    cfg.distributed_world_size = int(world_size)
    cfg.distributed_no_spawn = True


def first_host() -> str:
    """Where rank 0 of a Slurm step runs."""
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ["SLURM_JOB_NODELIST"]
    return subprocess.check_output(["scontrol", "show", "hostnames", nodes], text=True).split()[0]
