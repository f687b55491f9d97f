"""The paper's tables: prepare the data, make every run, report. Prints each command it runs.

    fairseq-scl study few-shot --dry-run                     # only print them
    fairseq-scl study few-shot --tasks SST-2 --shots 20 --jobs 2
    fairseq-scl study full --slurm gpu --encoder encoders/roberta.base -- optimization.lr=[2e-5]

A second call runs what is missing or failed; what is finished is used again.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import TypeVar

from fairseq_scl.encoders import encoder_folder
from fairseq_scl.encoders.encoder_folder import HUB_NAME
from fairseq_scl.errors import UserError

Checked = TypeVar("Checked", str, Path)
PACKAGE = Path(str(files("fairseq_scl")))
SECONDS = 3  # for a command to end by itself
GLUE = "SST-2 CoLA MRPC RTE QNLI MNLI"
ENVIRONMENT = {
    "PYTHONWARNINGS": "ignore",
    "TOKENIZERS_PARALLELISM": "false",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # large pages: 4 % less time for an update
}


@dataclass
class Command:
    """What is run: `fairseq-scl`, `python -m` or `bash`, and its arguments.

    Attributes:
        environment: variables beside `ENVIRONMENT`.
        may_fail: whether what comes after it runs all the same.
    """

    words: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    may_fail: bool = False

    def __call__(self) -> int:
        """Run it with this Python; returns its exit status."""
        start = {
            "fairseq-scl": [sys.executable, "-m", "fairseq_scl.cli"],
            "python": [sys.executable],
        }.get(self.words[0], self.words[:1])
        environment = {**ENVIRONMENT, **os.environ, **self.environment}
        with subprocess.Popen([*start, *self.words[1:]], env=environment) as process:
            try:
                return process.wait()
            except KeyboardInterrupt:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(SECONDS)  # Ctrl-C in a terminal reaches both
                process.terminate()  # so that it ends its workers
                process.wait()  # which `with` does not after a KeyboardInterrupt
                raise


@dataclass
class Study:
    """A study's folder, options and commands.

    Attributes:
        imported: where its encoder lies, or will lie.
    """

    name: str
    args: argparse.Namespace

    def __post_init__(self):
        encoder = Path(self.args.encoder)
        self.output = self.args.output
        self.imported = self.output / "encoders" / encoder.name
        if (encoder / encoder_folder.TRAIN_FLAGS).exists():
            self.imported = encoder
        self.data = self.output / "data" / self.imported.name

    @property
    def folder(self) -> Path:
        """Where its runs lie."""
        return self.output / self.name

    def set_up(self, *more: str) -> Iterator[Command]:
        """Import the encoder; prepare the data sets, and `more`."""
        if not self.imported.exists():
            yield scl("import-model", self.args.encoder, self.imported)
        for task in (*self.args.tasks, *more):
            if not (self.data / task).exists():
                source = ["--data", f"glue:{task}"]
                if task == "sample":
                    source = ["--data", "sample"]
                elif task in ("Amazon-2", "Yelp-2"):
                    name = task.lower()
                    source = ["--data", name, "--data-dir", self.args.review_dir / name]
                elif self.args.glue_dir:
                    source += ["--glue-dir", self.args.glue_dir]
                yield scl("prepare", self.data / task, "--encoder", self.imported, *source)

    def runs(self, *overrides: str, name: str = "", start: Path | None = None) -> Command:
        """Every run of these overrides; `start` is a model to start from, not the encoder."""
        where, environment = self.launcher()
        words = [
            "python", "-m", "fairseq_scl.studies.study", "--multirun",
            "--config-dir", str(PACKAGE / "configs"), "--config-name", "finetune",
            f"common.user_dir={quoted(PACKAGE)}",
            f"hydra.sweep.dir={quoted(self.output / (name or self.name))}",
            f"encoder={self.config()}", f"data_dir={quoted(self.data)}",
            f"checkpoint.finetune_from_model={quoted(start or self.imported / 'model.pt')}",
            *where, *overrides, *self.args.rest,
        ]  # fmt: skip
        return Command(words, environment, may_fail=True)

    def config(self) -> str:
        """The encoder's file in configs/encoder; '???' where only importing it will tell.

        Raises:
            UserError: if there is none for its architecture.
        """
        recipes = {arch: path.stem for arch, path in encoder_folder.recipes().items()}
        path = self.imported / encoder_folder.TRAIN_FLAGS
        if not path.exists():
            return self.args.encoder if self.args.encoder in recipes.values() else "???"
        found = re.search(r"--arch (\S+)", path.read_text())
        arch = found[1] if found else ""
        if arch not in recipes:
            known = ", ".join(recipes.values())
            raise UserError(f"--encoder {self.imported} is a {arch}; configs/encoder has {known}")
        return recipes[arch]

    def launcher(self) -> tuple[list[str], dict[str, str]]:
        """On which device and by which of Hydra's launchers; the environment that goes with it."""
        import joblib
        import torch

        gpu = torch.cuda.is_available()
        device = [] if gpu else ["common.cpu=true", "common.fp16=false"]
        if self.args.slurm:
            launcher = f"hydra.launcher.partition={self.args.slurm}"
            return [*device, "hydra/launcher=submitit_slurm", launcher], {}
        cores = joblib.cpu_count()
        jobs = int(self.args.jobs or (1 if gpu else cores))
        threads = {} if gpu else {"OMP_NUM_THREADS": str(-(-cores // jobs))}
        return [*device, "hydra/launcher=joblib", f"hydra.launcher.n_jobs={jobs}"], threads

    def recipe(self, *weights: str) -> list[str]:
        """Overrides: the loss, by default with the chosen lambda, and the draws."""
        return [
            f"criterion.scl_weight={','.join(weights or (self.args.scl_weight,))}",
            f"criterion.scl_temperature={self.args.scl_temperature}",
            self.draws,
        ]

    @property
    def losses(self) -> tuple[str, str]:
        """The lambdas of both losses."""
        return "0", self.args.scl_weight

    @property
    def draws(self) -> str:
        """The override of every draw."""
        return f"task.shots_seed=range(1,{int(self.args.draws) + 1})"

    @property
    def tasks(self) -> str:
        """The override of every data set."""
        return f"data={','.join(self.args.tasks)}"

    @property
    def shots(self) -> str:
        """The override of every N."""
        return f"protocol={','.join(f'few_shot_{n}' for n in self.args.shots)}"

    def report(self) -> Iterator[Command]:
        """The report as a page and as a table."""
        yield scl("report", self.folder, "--output", self.folder / "report.html")
        yield scl("report", self.folder)

    def plot(self, kind: str) -> Command:
        """A picture."""
        return scl("plot", kind, self.folder, "--output", self.folder / f"{kind}.png")


def few_shot(study: Study) -> Iterator[Command]:
    """Table 2: N labelled sentences in total, cross-entropy (CE) beside CE+SCL."""
    yield from study.set_up()
    yield study.runs(study.tasks, study.shots, *study.recipe(*study.losses))
    yield from study.report()
    if len(study.args.shots) > 1:
        yield study.plot("shots")
    yield study.plot("embeddings")


def noise(study: Study) -> Iterator[Command]:
    """Table 3: 100 sentences and three back-translations of each, beside the 100 alone.

    The translations are sampled at several temperatures.
    """
    args = study.args
    yield from study.set_up()
    models = study.output / "translation"
    if not (args.forward and args.backward):
        script = PACKAGE.parent / "scripts" / "train_translation.sh"
        if not script.is_file():
            raise UserError("--forward and --backward are needed outside a clone")
        yield Command(["bash", str(script), str(models)])
    for task in args.tasks:
        for temperature in args.temperatures:
            yield scl(
                "back-translate", study.data / task, "--encoder", study.imported,
                "--temperature", temperature, "--num-shots", 100,
                "--shots-seed", *range(1, int(args.draws) + 1),
                "--forward", args.forward or models / "en-de" / "model.pt",
                "--backward", args.backward or models / "de-en" / "model.pt",
            )  # fmt: skip
    recipe = study.recipe(*study.losses)
    yield study.runs(study.tasks, "protocol=few_shot_100", *recipe)
    temperatures = f"task.noise_temperature={','.join(args.temperatures)}"
    yield study.runs(study.tasks, "protocol=noise", temperatures, *recipe)
    yield from study.report()
    yield study.plot("noise")


def full(study: Study) -> Iterator[Command]:
    """The whole training set, tested on GLUE's validation set; a draw is a seed."""
    yield from study.set_up()
    yield study.runs(study.tasks, "protocol=full", *study.recipe(*study.losses))
    yield from study.report()


def transfer(study: Study) -> Iterator[Command]:
    """A model fine-tuned on all of SST-2, then on 20 reviews of each class of Amazon-2 and Yelp-2.

    Cross-entropy (CE) all the way beside CE+SCL all the way.
    """
    yield from study.set_up("SST-2")
    for weight in study.losses:
        loss, temperature, draws = study.recipe(weight)
        source = f"{study.name}-source"
        yield study.runs(
            "data=SST-2", "protocol=full", loss, temperature, "task.shots_seed=1",
            "keep_checkpoint=true", f"hydra.sweep.subdir={quoted(loss)}", name=source,
        )  # fmt: skip
        start = study.output / source / loss / "checkpoint_best.pt"
        yield study.runs(study.tasks, "protocol=transfer", loss, temperature, draws, start=start)
    yield from study.report()


def batch_size(study: Study) -> Iterator[Command]:
    """CE+SCL on the whole training set with batches of 16, 64, 256; the paper's is RoBERTa-base."""
    yield from study.set_up()
    sizes = f"dataset.batch_size={','.join(study.args.batch_sizes)}"
    yield study.runs(study.tasks, "protocol=batch_size", sizes, *study.recipe())
    yield from study.report()


def search(study: Study) -> Iterator[Command]:
    """Lambda x tau by validation accuracy, and cross-entropy (CE) beside it.

    The test set is not read.
    """
    args = study.args
    if rates := ",".join(f"[{rate}]" for rate in args.learning_rates):
        args.rest.append(f"optimization.lr={rates}")
    yield from study.set_up()
    grid = (
        f"criterion.scl_weight={','.join(args.scl_weights)}",
        f"criterion.scl_temperature={','.join(args.scl_temperatures)}",
    )
    for loss in (["criterion.scl_weight=0"], grid):
        yield study.runs(study.tasks, study.shots, *loss, "split=null", study.draws)
    yield from study.report()


@dataclass(frozen=True)
class Kind:
    """How a study is made, its data sets, and those it has configs for."""

    commands: Callable[[Study], Iterator[Command]]
    tasks: str
    allowed: str = GLUE


STUDIES = {
    "few-shot": Kind(few_shot, "SST-2 QNLI MNLI", f"sample {GLUE}"),
    "noise": Kind(noise, "SST-2 QNLI MNLI"),
    "full": Kind(full, GLUE),
    "transfer": Kind(transfer, "Amazon-2 Yelp-2", "Amazon-2 Yelp-2"),
    "batch-size": Kind(batch_size, "SST-2 CoLA QNLI"),
    "search": Kind(search, "SST-2 QNLI MNLI", f"sample {GLUE}"),
}
SHOTS = "20 100 1000"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    names = parser.add_subparsers(dest="study", required=True, metavar="NAME")
    for name, kind in STUDIES.items():
        told = str(kind.commands.__doc__)
        options = names.add_parser(
            name,
            help=told.splitlines()[0],
            description=told.replace("\n    ", "\n"),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add_own(options, name)
        add_common(options, kind)


def add_own(parser: argparse.ArgumentParser, name: str) -> None:
    """Declare the options that one study has."""
    if name in ("few-shot", "search"):
        default = SHOTS if name == "few-shot" else "100"
        add_list(parser, "--shots", "N", default, among(SHOTS), "training sentences in total")
    if name == "noise":
        default = "0.3 0.5 0.7 0.9"
        add_list(parser, "--temperatures", "T", default, positive, "of the translations")
        told = "fairseq model from English to a language"
        parser.add_argument("--forward", metavar="FILE", type=file, help=told)
        told = "and back (default: two small ones, trained by scripts/train_translation.sh)"
        parser.add_argument("--backward", metavar="FILE", type=file, help=told)
    if name == "transfer":
        told = "where DIR/amazon-2 and DIR/yelp-2 lie, as published (default: %(default)s)"
        default = "reviews"
        parser.add_argument("--review-dir", metavar="DIR", type=place, default=default, help=told)
    if name == "batch-size":
        add_list(parser, "--batch-sizes", "B", "16 64 256", among("16 64 256"), "sentences")
    if name == "search":
        add_list(parser, "--scl-weights", "W", "0.1 0.3 0.5 0.7 0.9 1", share, "lambda")
        add_list(parser, "--scl-temperatures", "T", "0.1 0.3 0.5 0.7", positive, "tau")
        add_list(parser, "--learning-rates", "R", "", positive, "the encoder's by default")


def add_common(parser: argparse.ArgumentParser, kind: Kind) -> None:
    """Declare the options that every study has."""
    add = parser.add_argument
    add_list(parser, "--tasks", "TASK", kind.tasks, among(kind.allowed), "data sets")
    told = "draws, each trained with every loss (default: %(default)s)"
    add("--draws", metavar="D", type=whole, default="10", help=told)
    told = (
        "minilm, mpnet, OWNER/NAME on the Hugging Face hub, or a Hugging Face, fairseq or imported "
        "encoder folder (default: %(default)s)"
    )
    add("--encoder", metavar="NAME", type=encoder, default="minilm", help=told)
    told = "where DIR/TASK/train.tsv lies (default: from the Hugging Face hub)"
    add("--glue-dir", metavar="DIR", type=place, help=told)
    told = "lambda of CE+SCL (default: %(default)s)"
    add("--scl-weight", metavar="W", type=share, default="0.9", help=told)
    told = "tau (default: %(default)s)"
    add("--scl-temperature", metavar="T", type=positive, default="0.3", help=told)
    told = "runs side by side on this machine (default: its cores; 1 on a GPU)"
    add("--jobs", metavar="J", type=whole, help=told)
    add("--slurm", metavar="PARTITION", help="send the runs to SLURM instead")
    told = "data, encoder, runs and report (default: %(default)s)"
    add("--output", metavar="DIR", type=place, default="studies", help=told)
    add("--dry-run", action="store_true", help="print the commands, run none")
    parser.epilog = "after --: KEY=VALUE ..., overrides of configs/, in the syntax of Hydra"


def add_list(parser, flag: str, metavar: str, default: str, one: Callable, told: str) -> None:
    """Declare an option with several values, as words or, as in a shell's variable, one text."""
    parser.add_argument(
        flag,
        metavar=metavar,
        nargs="+",
        action=Flat,
        type=lambda text: [one(word) for word in text.split()],
        default=default.split(),
        help=f"{told} (default: {default})" if default else told,
    )


class Flat(argparse.Action):
    """Stores lists as one."""

    def __call__(self, parser, namespace, values, option_string=None):
        """Called by argparse."""
        setattr(namespace, self.dest, list(chain.from_iterable(values)))


def among(allowed: str) -> Callable[[str], str]:
    """A type for one of these words."""

    def known(text: str) -> str:
        return checked(text, text in allowed.split(), f"one of: {allowed}")

    return known


def whole(text: str) -> str:
    """A type for counts, which stay text."""
    return checked(text, re.fullmatch("[1-9][0-9]*", text), "a whole number above 0")


def positive(text: str) -> str:
    """A type for numbers, which stay text: they name folders."""
    return checked(text, number(text) > 0, "a number above 0")


def share(text: str) -> str:
    """A type for lambdas, which stay text."""
    return checked(text, 0 <= number(text) <= 1, "a number in [0, 1]")


def number(text: str) -> float:
    """Its value; -1 if it is no finite decimal number."""
    return float(text) if re.fullmatch(r"\d*\.?\d+(e[-+]?\d+)?", text) else -1


def file(text: str) -> Path:
    """A type for files."""
    return checked(place(text), Path(text).is_file(), "a file")


def encoder(text: str) -> str:
    """A type for what `import-model` takes; a folder is named from the root."""
    if Path(text).is_dir():
        return str(place(text))
    known = text in encoder_folder.PACKAGED or ("/" in text and HUB_NAME.fullmatch(text))
    return checked(text, known, "minilm, mpnet, OWNER/NAME on the hub, or a folder")


def place(text: str) -> Path:
    """A type for what may not be there yet."""
    return Path(text).resolve()


def checked(value: Checked, good: object, meant: str) -> Checked:
    """Return it, or say what it must be."""
    if not good:
        raise argparse.ArgumentTypeError(f"{value} must be {meant}")
    return value


def scl(*words: object) -> Command:
    """A command of fairseq-scl."""
    return Command(["fairseq-scl", *map(str, words)])


def quoted(text: object) -> str:
    """A value as one of Hydra's quoted strings."""
    return "'" + str(text).replace("'", "\\'") + "'"


def require_writable(output: Path) -> None:
    """Look whether a folder can be made and written, before minutes are spent.

    Raises:
        UserError: if it cannot.
    """
    from fairseq_scl.files import obstacle  # not needed for --help

    if found := obstacle(output):
        raise UserError(f"--output {output}: {found}")


def run(args: argparse.Namespace) -> None:
    """Run or print the study's commands; ends with 1 if a run failed.

    Raises:
        UserError: if what overrides a configuration is none, or the output cannot be written.
    """
    for override in args.rest:
        if "=" not in override and not override.startswith("~"):
            raise UserError(f"{override} must be KEY=VALUE, in the syntax of Hydra")
    require_writable(args.output)
    study = Study(args.study.replace("-", "_"), args)
    failed = 0
    for command in STUDIES[args.study].commands(study):
        print(shlex.join(command.words), flush=True)
        status = 0 if args.dry_run else command()
        failed = status or failed
        if status and not command.may_fail:
            break
    if failed:
        sys.exit(failed)
