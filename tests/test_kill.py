"""kill -9 at random moments: what is started again ends as if nothing had happened."""

import multiprocessing
import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path

import torch
from conftest import train
from test_back_translate import models, pairs  # noqa: F401  (fixtures)
from tqdm import tqdm

from fairseq_scl.cli import main

FORK = multiprocessing.get_context("fork")  # the child has everything imported already


def silent(work, arguments) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.dup2(2, 1)
    tqdm.set_lock(threading.RLock())  # tqdm's own is shared by forks: who is killed may hold it
    work(arguments)


def finish(work, arguments) -> float:
    """Let a child do it; returns its seconds."""
    start = time.perf_counter()
    child = FORK.Process(target=silent, args=(work, arguments))
    child.start()
    child.join()
    assert child.exitcode == 0
    return time.perf_counter() - start


def kill(work, arguments, seconds: float) -> bool:
    """Kill a child after so many seconds; whether it was still at work."""
    child = FORK.Process(target=silent, args=(work, arguments))
    child.start()
    child.join(seconds)
    if child.is_alive():
        os.kill(child.pid, signal.SIGKILL)
    child.join()
    return child.exitcode == -signal.SIGKILL


def kill_and_finish(work, arguments, duration: float, kills: int, chance: random.Random) -> int:
    """Kill it again and again, then let it finish; returns how often it was at work."""
    hits = sum(kill(work, arguments, chance.uniform(0, duration)) for _ in range(kills))
    finish(work, arguments)
    return hits


def visible(folder: Path) -> dict[str, bytes]:
    """Every file by its name, but for what is hidden: locks, and what a kill left unfinished."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    }


def without_clocks(state: dict) -> dict:
    """A checkpoint without seconds, paths and how often it was started again, flat."""
    state["optimizer_history"] = state["optimizer_history"][-1]
    # fairseq tells the schedule of an epoch's loss when the epoch's checkpoint is written; only
    # schedules that wait for a plateau look at it
    del state["optimizer_history"]["lr_scheduler_state"]["best"]
    state = {key: value for key, value in state.items() if key not in ("cfg", "args")}
    state["extra_state"] = {
        key: value
        for key, value in state["extra_state"].items()
        if key not in ("metrics", "previous_training_time")
    }
    flat = {}

    def walk(name: str, value) -> None:
        if isinstance(value, dict):
            for key, part in value.items():
                walk(f"{name}.{key}", part)
        else:
            flat[name] = value

    walk("", state)
    return flat


def require_same_checkpoints(one: Path, other: Path) -> None:
    names = sorted(path.name for path in one.glob("*.pt"))
    assert names == sorted(path.name for path in other.glob("*.pt")) and len(names) >= 2
    for name in names:
        first, second = (
            without_clocks(torch.load(folder / name, weights_only=True)) for folder in (one, other)
        )
        assert first.keys() == second.keys()
        for key, value in first.items():
            same = torch.equal if isinstance(value, torch.Tensor) else lambda a, b: a == b
            assert same(value, second[key]), f"{name}: {key}"
    assert (one / "manifest.json").read_bytes() == (other / "manifest.json").read_bytes()
    assert visible(one / "inference") == visible(other / "inference")


def test_training_killed_at_twenty_moments(recipe, tmp_path):
    chance, hits = random.Random(1), 0

    def flags(folder: Path) -> list[str]:
        return recipe.flags(folder, "--save-interval-updates", 2, "--optimizer", "fused_adam")

    duration = finish(train, flags(tmp_path / "whole"))
    for number in range(5):
        folder = tmp_path / str(number)
        hits += kill_and_finish(train, flags(folder), duration, 4, chance)
        require_same_checkpoints(folder, tmp_path / "whole")
    assert hits >= 3  # a quick machine is done before the others


def test_preparing_killed_at_twenty_moments(encoder, tmp_path):
    chance, hits = random.Random(2), 0

    def arguments(folder: Path) -> list[str]:
        return ["prepare", str(folder), "--encoder", str(encoder), "--data", "sample"]

    duration = finish(main, arguments(tmp_path / "whole"))
    for number in range(20):
        folder = tmp_path / str(number)
        if kill(main, arguments(folder), chance.uniform(0, duration)):
            hits += 1
            if not folder.exists():  # else it is whole: the kill came after the renaming
                finish(main, arguments(folder))
        assert visible(folder) == visible(tmp_path / "whole")
    assert hits >= 3  # a quick machine is done before the others


def test_back_translation_killed_at_twenty_moments(encoder, models, pairs, tmp_path):  # noqa: F811
    chance, hits = random.Random(3), 0

    def arguments(folder: Path) -> list[str]:
        return [
            "back-translate", str(folder), "--encoder", str(encoder), "--cpu",
            "--forward", str(models[0]), "--backward", str(models[1]),
            "--temperature", "0.7", "--batch-size", "2",
        ]  # fmt: skip

    shutil.copytree(pairs, tmp_path / "whole")
    duration = finish(main, arguments(tmp_path / "whole"))
    for number in range(5):
        folder = tmp_path / str(number)
        shutil.copytree(pairs, folder)
        hits += kill_and_finish(main, arguments(folder), duration, 4, chance)
        whole, got = visible(tmp_path / "whole"), visible(folder)
        lines = "back-translation/T0.7/augmented.jsonl"  # in the order in which they were made
        assert sorted(whole.pop(lines).splitlines()) == sorted(got.pop(lines).splitlines())
        assert got == whole
    assert hits >= 3  # a quick machine is done before the others
