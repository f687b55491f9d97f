"""Train and test many runs, each once, in as many processes as wanted.

Hydra's multirun makes the runs; each is what fairseq-hydra-train would do with the same
configuration, followed by 'fairseq-scl evaluate'. A run that is finished is skipped, one that fails
leaves failed.json and does not stop the others, a killed study goes on when it is started again.

    python -m fairseq_scl.studies.study --multirun --config-dir configs --config-name finetune \\
        hydra.sweep.dir=studies/mine criterion.scl_weight=0,0.9 'task.shots_seed=range(1,11)' \\
        data_dir=$PWD/data/minilm checkpoint.finetune_from_model=$PWD/encoders/minilm/model.pt

Side by side on one machine: hydra/launcher=joblib hydra.launcher.n_jobs=2. On SLURM:
hydra/launcher=submitit_slurm hydra.launcher.partition=NAME. See configs/finetune.yaml.
"""

import copy
import json
import logging
import shutil
import sys
import time
import traceback
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import hydra
import torch
import yaml
from fairseq import checkpoint_utils
from fairseq.dataclass.initialize import add_defaults, hydra_init
from fairseq.logging import metrics, progress_bar
from fairseq_cli import hydra_train, train
from hydra._internal.utils import get_args
from omegaconf import DictConfig, OmegaConf

from fairseq_scl import plugin  # noqa: F401
from fairseq_scl.data import beside_checkpoint
from fairseq_scl.errors import UserError, first_line, signal_of, tidy_end
from fairseq_scl.files import locked, parse_model, write_text
from fairseq_scl.inference import calibration
from fairseq_scl.reports.results import EMBEDDINGS, FAILED, RESULT, Failed
from fairseq_scl.studies.evaluate import evaluate
from fairseq_scl.studies.progress import Progress

logger = logging.getLogger(__name__)

SETTINGS = "settings.yaml"
OWN_KEYS = ("data_dir", "few_shot", "full", "split", "keep_checkpoint")  # not fairseq's
BATCH_SIZE = 64  # sentences, of the test set


def run(cfg: DictConfig) -> str:
    """Train and test the run of the working folder.

    Returns:
        `"done"`, `"skipped"` if it was done before, or `"failed: "` and why.
    """
    folder = Path.cwd()
    whole = copy.deepcopy(cfg)
    add_defaults(whole)
    config: Any = OmegaConf.to_container(whole, resolve=True, enum_to_str=True)
    try:
        with locked(folder / ".lock"):
            finished = is_finished(folder, config)
            if not finished:
                start_afresh(folder, config)
                train_and_test(folder, cfg)
            tidy_up(folder, cfg.keep_checkpoint)
    except (Exception, SystemExit) as error:
        logger.error(traceback.format_exc())
        told = first_line(error)
        if not (folder / RESULT).exists():
            text = json.dumps({"config": config, "error": told})
            with suppress(UserError):  # what no report could read is told, not kept
                parse_model(text, Failed, folder / FAILED)
                write_text(folder / FAILED, text)
        return f"failed: {told}"
    return "skipped" if finished else "done"


def is_finished(folder: Path, config: dict) -> bool:
    """Whether the folder holds the result of this very configuration.

    Raises:
        UserError: if it holds that of another one.
    """
    if not (folder / RESULT).exists():
        return False
    before = OmegaConf.load(folder / SETTINGS)
    now = OmegaConf.create(settings(config))
    for section in sorted({*before, *now}):
        if before.get(section) != now.get(section):
            raise UserError(
                f"{folder / RESULT} was made with {section}: {before.get(section)}, not "
                f"{now.get(section)}; choose another hydra.sweep.dir"
            )
    return True


def settings(config: dict) -> str:
    """What decides on a run's outcome, as YAML."""
    return OmegaConf.to_yaml({key: config[key] for key in config if key not in OWN_KEYS})


def start_afresh(folder: Path, config: dict) -> None:
    """Remove what an unfinished run left, unless fairseq can go on from its last checkpoint."""
    forget_the_last_run()
    (folder / FAILED).unlink(missing_ok=True)
    if not (folder / "checkpoint_last.pt").exists():
        for path in [*folder.glob("checkpoint*.pt"), folder / EMBEDDINGS]:
            path.unlink(missing_ok=True)
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    write_text(folder / SETTINGS, settings(config))


def forget_the_last_run() -> None:
    """Clear what fairseq keeps of a run for the life of its process."""
    for function in (checkpoint_utils.save_checkpoint, train.should_stop_early):
        vars(function).clear()
    metrics.reset()
    for writer in progress_bar._tensorboard_writers.values():
        writer.close()
    progress_bar._tensorboard_writers.clear()


def train_and_test(folder: Path, cfg: DictConfig) -> None:
    """Train with fairseq, then write the result; the test set is read if `cfg.split` says so."""
    start = time.perf_counter()
    reset_peak_memory()
    hydra_train._hydra_main(cfg)
    forget_the_last_run()  # and close what it logged
    trained = time.perf_counter()
    measured = {
        "seconds": trained - start,
        "updates_per_second": cfg.optimization.max_update / (trained - start),
        "peak_memory_mib": peak_memory_mib(),
    }
    # a search compares runs of the same encoder and rows, whose probe is the same
    evaluate(folder, cfg.split, BATCH_SIZE, measured, with_probe=cfg.split is not None)


def tidy_up(folder: Path, keep_checkpoint: bool) -> None:
    """Remove what a finished run does not need."""
    (folder / FAILED).unlink(missing_ok=True)
    if not keep_checkpoint:
        for path in folder.glob("checkpoint*.pt"):
            path.unlink()
        (folder / calibration.NAME).unlink(missing_ok=True)
        shutil.rmtree(folder / beside_checkpoint.FOLDER, ignore_errors=True)


def reset_peak_memory() -> None:
    """Start to measure this process's peak memory again, on Linux."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM


def peak_memory_mib() -> float | None:
    """Peak since `reset_peak_memory` in MiB: of the GPU, or else of the process on Linux."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    [kib] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(kib) / 2**10


def require_configs(folder: Path, name: str) -> None:
    """Look at a user's configs before Hydra, which ends in a traceback, or takes fairseq's own.

    Raises:
        UserError: naming the file that is missing or damaged.
    """
    if not (folder / f"{name}.yaml").is_file():
        raise UserError(f"--config-name {name}: {folder} has no {name}.yaml")
    for path in sorted(folder.rglob("*.yaml")):
        try:
            yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: not YAML ({' '.join(str(error).split())})") from None


def main() -> None:
    """Run the command line; ends with 1 if a run failed."""
    if not {"-h", "--help"}.isdisjoint(sys.argv[1:]):
        print(__doc__)
        return
    warnings.filterwarnings("ignore", category=UserWarning, module="hydra")
    args = get_args()
    name = args.config_name or "config"
    if args.config_dir:
        require_configs(Path(args.config_dir), name)
    hydra_init(name)
    try:
        with tidy_end():  # joblib ends its workers
            hydra.main(version_base="1.1", config_path=None)(run)()
    except KeyboardInterrupt as stop:
        sys.exit(128 + signal_of(stop))  # who called it tells
    sys.exit(1 if Progress.failed else 0)


if __name__ == "__main__":
    main()
