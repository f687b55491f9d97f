"""Runs of fairseq-train in processes of their own, side by side, under one progress bar."""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from fairseq_scl.errors import UserError
from fairseq_scl.files import write_text
from fairseq_scl.repairs.threads import spin_less

LOG = "train.log"
TRAINED = "trained"  # holds the flags of a finished run
UPDATES = re.compile(r"num_updates[= ](\d+)")
ERROR = "fairseq-scl: error: "


def train_all(runs: dict[Path, list[str]], home: Path, jobs: int, verbose: bool) -> None:
    """Train what is not trained yet.

    Args:
        runs: by the folder of each run its flags of fairseq-train.
        home: the folder that holds them all; where it was moved they are known again.
        jobs: how many at a time; they share the cores, or as many as OMP_NUM_THREADS says.
        verbose: show a progress bar.

    Raises:
        UserError: if one fails, with its last words; the others are stopped.
    """
    waiting = {at: flags for at, flags in runs.items() if not is_trained(at, flags, home)}
    if not waiting:
        return
    processes: list[subprocess.Popen] = []
    cores = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    threads = max(1, cores // min(jobs, len(waiting)))
    total = sum(map(updates, waiting.values()))
    desc = "train" if len(waiting) == 1 else f"train {len(waiting)} runs"
    with tqdm(total=total, desc=desc, unit="update", disable=not verbose) as progress:

        def one(folder: Path, flags: list[str]) -> None:
            processes.append(process := start(flags, threads))
            follow(process, folder / LOG, progress)
            if process.returncode:
                raise UserError(why(folder / LOG))
            write_text(folder / TRAINED, "\n".join(at_home(flags, home)))

        with ThreadPoolExecutor(jobs) as pool:
            try:
                for folder in waiting:
                    folder.mkdir(parents=True, exist_ok=True)
                done = [pool.submit(one, folder, flags) for folder, flags in waiting.items()]
                for run in done:
                    run.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in processes:
                    process.terminate()
                raise


def is_trained(folder: Path, flags: Sequence[str], home: Path) -> bool:
    """Whether the folder holds the finished run of these flags; `home` as for `train_all`.

    Raises:
        UserError: if it holds that of others.
    """
    if not (folder / TRAINED).is_file() or not any(folder.glob("checkpoint*.pt")):
        return False
    before = at_home((folder / TRAINED).read_text(encoding="utf-8").split("\n"), home)
    now = at_home(flags, home)
    if before != now:
        told = " ".join(changed(before, now)) or "fewer flags"
        raise UserError(f"{folder} was trained otherwise (now {told}); choose another")
    return True


def at_home(flags: Sequence[str], home: Path) -> list[str]:
    """Flags in which the paths below `home` are told from there."""
    home = Path(os.path.abspath(home))
    return [
        f"./{Path(flag).relative_to(home)}" if Path(flag).is_relative_to(home) else flag
        for flag in flags
    ]


def changed(before: Sequence[str], flags: Sequence[str]) -> list[str]:
    """The flags that are new or have other values, each with its values."""

    def with_values(words: Sequence[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for word in words:
            if re.match(r"--\w", word) or not found:
                found[word] = values = []
            else:
                values.append(word)
        return found

    known = with_values(before)
    return [
        word
        for flag, values in with_values(flags).items()
        if known.get(flag) != values
        for word in (flag, *values)
    ]


def updates(flags: Sequence[str]) -> int:
    """How many updates a run will have; 0 where fairseq-train is going to complain."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--max-update", type=int, default=0)
    try:
        return parser.parse_known_args(list(flags))[0].max_update
    except argparse.ArgumentError:
        return 0


def start(flags: Sequence[str], threads: int) -> subprocess.Popen:
    """Start fairseq-train with the plugin."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
    spin_less(environment)
    return subprocess.Popen(
        [sys.executable, "-m", "fairseq_scl.cli", "train", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
    )


def follow(process: subprocess.Popen, log: Path, progress: tqdm) -> None:
    """Keep what it prints in `log` and count its updates, to its end."""
    done = 0
    with open(log, "w", encoding="utf-8") as file:
        for line in process.stdout or ():
            file.write(line)
            if (found := UPDATES.search(line)) and int(found[1]) > done:
                if progress.n == 0:
                    progress.unpause()  # what is left is told by updates, not by the start
                progress.update(int(found[1]) - done)
                done = int(found[1])
    process.wait()


def why(log: Path) -> str:
    """The last words of a run that failed."""
    lines = log.read_text(encoding="utf-8").strip().splitlines() or ["it said nothing"]
    told = next((line for line in reversed(lines) if line.startswith(ERROR)), lines[-1])
    return f"training failed: {told.removeprefix(ERROR)} ({log})"
