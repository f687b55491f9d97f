"""One line of progress for a study: a Hydra callback that counts the runs of a sweep.

Runs may be in other processes, or on other machines of a cluster with the same file system: each
leaves its state in a file of `SWEEP_DIR/.progress`, and the process that was started reads them.
"""

import json
import math
import sys
import threading
from collections import Counter
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig
from tqdm import tqdm

from fairseq_scl.files import write_text

FOLDER = ".progress"
SECONDS = 0.5  # from one look to the next


class Progress(Callback):
    """Shows how many runs are done, running, failed, and the time left.

    Attributes:
        failed: number of failed runs of this process's last sweep.
    """

    failed = 0
    watch: "Watch"  # of the class, as an instance travels to other processes

    def on_multirun_start(self, config: DictConfig, **kwargs) -> None:
        """Forget an earlier sweep and start to watch."""
        folder = Path(config.hydra.sweep.dir, FOLDER)
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        Progress.failed = 0
        watch = Watch(folder.resolve(), number_of_runs(config.hydra.overrides.task))
        threading.Thread(target=watch.run, daemon=True).start()
        Progress.watch = watch

    def on_job_start(self, config: DictConfig, **kwargs) -> None:
        """Note that a run has started."""
        self.note(config, "running")

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs) -> None:
        """Note how a run ended."""
        try:
            state = job_return.return_value
        except Exception as error:
            state = f"failed: {error}"
        self.note(config, state if isinstance(state, str) else "done")

    def on_multirun_end(self, config: DictConfig, **kwargs) -> None:
        """Show the last state, and what went wrong."""
        Progress.failed = Progress.watch.end()

    @staticmethod
    def note(config: DictConfig, state: str) -> None:
        """Write down the state of the run that is at work in this process."""
        if config.hydra.mode != RunMode.MULTIRUN:
            return
        # the launchers have set the folder of the run by now
        folder = Path(config.hydra.runtime.cwd, config.hydra.sweep.dir, FOLDER)
        content = json.dumps({"state": state, "folder": config.hydra.runtime.output_dir})
        write_text(folder / str(config.hydra.job.num), content)


class Watch:
    """Reads the states of a sweep's runs and shows them.

    Args:
        folder: where runs leave their states.
        total: number of runs.
    """

    def __init__(self, folder: Path, total: int):
        self.folder = folder
        self.shown: Counter | None = None
        self.ended = threading.Event()
        line = "{bar:20} {n_fmt}/{total_fmt} runs{postfix} | {elapsed}"
        self.bar = tqdm(total=total, bar_format=line)

    def run(self) -> None:
        """Show the state until `end`."""
        while not self.ended.wait(SECONDS):
            self.show()

    def end(self) -> int:
        """Show the state a last time, then each failed run and why; returns their number."""
        self.ended.set()
        self.show()
        self.bar.close()
        failed = [note for note in self.notes() if note["state"].startswith("failed")]
        for note in failed:
            print(f"{note['folder']}: {note['state']}", file=sys.stderr)
        return len(failed)

    def notes(self) -> list[dict]:
        """The states that runs have left."""
        paths = [path for path in self.folder.iterdir() if path.name.isdecimal()]
        return [json.loads(path.read_text()) for path in paths]

    def show(self) -> None:
        """Bring the line up to date, if a run has changed its state: a file gets few lines."""
        states = Counter(note["state"].split(":")[0] for note in self.notes())
        if states == self.shown:
            return
        self.shown = states
        self.bar.n = states["done"] + states["skipped"] + states["failed"]
        told = [f"{states[state]} {state}" for state in ("skipped", "running", "failed")]
        made = states["done"] + states["failed"]
        if made:
            seconds = self.bar.format_dict["elapsed"] / made * (self.bar.total - self.bar.n)
            told.append(f"{tqdm.format_interval(seconds)} left")
        self.bar.set_postfix_str(", ".join(told))


def number_of_runs(overrides: list[str]) -> int:
    """How many runs a multirun of these overrides makes: the product of their choices."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    swept = [override for override in parsed if override.is_sweep_override()]
    return math.prod(sum(1 for _ in override.sweep_iterator()) for override in swept)
