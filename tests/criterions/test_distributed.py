"""Several workers: the same answer as one, on every launcher, and an end together."""

import multiprocessing
import os
import re
import signal
import socket
import sys
import time
from contextlib import ExitStack
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from conftest import ROOT, batch_of, build, last_validation, prepare, run
from fairseq.distributed import ModuleProxyWrapper
from fairseq.distributed import utils as distributed_utils
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.parallel import DistributedDataParallel

from fairseq_scl.criterions import metrics
from fairseq_scl.criterions.gather import gather
from fairseq_scl.criterions.sentence_prediction_scl import SentencePredictionSclCriterion
from fairseq_scl.errors import UserError
from fairseq_scl.loss import supervised_contrastive_loss
from fairseq_scl.repairs import precision
from fairseq_scl.repairs.launch import without_gpus
from fairseq_scl.repairs.workers import failing_together, seed_apart

LIMIT = 120  # seconds that the processes may take to end on a busy machine
GLOO = ["--distributed-backend", "gloo", "--ddp-backend", "legacy_ddp"]
FORK = multiprocessing.get_context("forkserver")  # children start with fairseq imported
FORK.set_forkserver_preload(
    [
        "fairseq_cli.train",
        "fairseq_cli.hydra_train",
        "fairseq_scl.plugin",
        "torch._dynamo",
        "hypothesis",
        "pytest",
    ]
)


# Workers that compute what a test asks them to


def serve(rank: int, size: int, folder: Path, pipe) -> None:
    """A worker: answer (number of workers, function, arguments) with the function's result."""
    dist.init_process_group("gloo", f"file://{folder}/pool", rank=rank, world_size=size)
    groups = [dist.new_group(list(range(n))) for n in range(1, size + 1)]
    while request := pipe.recv():
        workers, function, arguments = request
        try:
            pipe.send(function(groups[workers - 1], *arguments))
        except Exception as error:
            pipe.send(error)


class Workers:
    """Up to four gloo processes."""

    def __init__(self, folder: Path, size: int = 4):
        pipes, theirs = zip(*(FORK.Pipe() for _ in range(size)), strict=True)
        self.pipes = pipes
        self.processes = [
            FORK.Process(target=serve, args=(rank, size, folder, pipe), daemon=True)
            for rank, pipe in enumerate(theirs)
        ]
        for process in self.processes:
            process.start()

    def __call__(self, function, shards: list[tuple]) -> list:
        """The function's result in each of as many workers as there are shards of arguments."""
        for pipe, arguments in zip(self.pipes, shards, strict=False):
            pipe.send((len(shards), function, arguments))
        answers = []
        for pipe in self.pipes[: len(shards)]:
            assert pipe.poll(LIMIT), "a worker hangs"
            answers.append(pipe.recv())
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """See `Workers`."""
    pool = Workers(tmp_path_factory.mktemp("workers"))
    yield pool
    for pipe in pool.pipes:
        pipe.send(None)
    for process in pool.processes:
        process.join(LIMIT)
        process.kill()


@st.composite
def sharded(draw, rows: int, most: int = 4):
    """Cut `rows` rows into shards of any size, also 0, one for each worker."""
    cuts = draw(st.lists(st.integers(0, rows), max_size=most - 1).map(sorted))
    return [range(a, b) for a, b in pairwise([0, *cuts, rows])]


# The loss


def contrast(group, features, labels, temperature):
    """A worker's loss of its examples, its gradient and its pair statistics."""
    features.requires_grad_()
    candidates, _ = gather(features, labels, labels, group)
    loss = supervised_contrastive_loss(features, labels, temperature, "sum", candidates)
    loss.backward()
    with torch.no_grad():
        statistics = metrics.pair_statistics(features, labels, candidates)
    return loss.detach(), features.grad, statistics


@settings(deadline=None, max_examples=60)
@given(
    data=st.data(),
    rows=st.integers(0, 24),
    classes=st.integers(1, 6),
    temperature=st.floats(0.05, 1),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.float16]),
    by_class=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_gathered_losses_and_gradients_are_those_of_the_whole_batch(
    workers, data, rows, classes, temperature, dtype, by_class, seed
):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(rows, 5, generator=generator).to(dtype)
    labels = torch.randint(classes, (rows,), generator=generator)
    if by_class:  # so that workers lack a class
        labels = labels.sort().values
    shards = data.draw(sharded(rows))
    answers = workers(contrast, [(features[s], labels[s], temperature) for s in shards])

    features.requires_grad_()
    expected = supervised_contrastive_loss(features, labels, temperature, "sum")
    expected.backward()
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-2}[dtype]
    found = torch.stack([answer[0] for answer in answers]).sum()
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-5)
    gradient = torch.cat([answer[1] for answer in answers])
    torch.testing.assert_close(gradient, features.grad, rtol=tolerance, atol=tolerance)
    for name, value in metrics.pair_statistics(features.detach(), labels).items():
        parts = torch.stack([answer[2][name] for answer in answers])
        torch.testing.assert_close(parts.sum(), value, rtol=1e-4, atol=1e-4)


# The criterion


@cache
def built(flags: tuple[str, ...]):
    """Task, model in float64 and criterion; once in each process, as it takes a second."""
    task, model, criterion = build(list(flags))
    return task, model.double().train(), criterion


def of_group(group) -> None:
    """Make these workers all that fairseq knows."""
    distributed_utils.get_global_group._global_group = group


def all_nan(_, inputs):
    """A hook that spoils what enters a module."""
    return tuple(x.masked_fill(torch.tensor(True), torch.nan) for x in inputs)


def step(group, flags, rows, options=None, spoiled=False):
    """A worker's gradients, sample size and logging output for these rows, maybe none."""
    of_group(group)
    task, model, criterion = built(flags)
    head = model.classification_heads["sentence_classification_head"]
    hook = head.register_forward_pre_hook(all_nan if spoiled else lambda *_: None)
    model.zero_grad()
    with ExitStack() as changed:
        for name, value in (options or {}).items():
            changed.enter_context(mock.patch.object(criterion, name, value))
        loss, sample_size, log = criterion(model, batch_of(task, "train", rows))
    loss.backward()
    hook.remove()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return gradients, sample_size, log


def normalised(answers) -> tuple[dict, dict]:
    """Gradients as fairseq normalises them, and what it logs."""
    from fairseq.logging import metrics as fairseq_metrics

    total = sum(size for _, size, _ in answers)
    names = set().union(*(gradients for gradients, _, _ in answers))
    mean = {n: sum(g[n] for g, _, _ in answers if n in g) / total for n in names}
    summed = {k: sum(log[k] for _, _, log in answers) for k in answers[0][2]}
    with fairseq_metrics.aggregate(new_root=True) as aggregate:
        SentencePredictionSclCriterion.reduce_metrics([summed])
    return mean, {k: float(v) for k, v in aggregate.get_smoothed_values().items()}


NO_DROPOUT = ("--dropout", 0, "--attention-dropout", 0)
VARIANTS = {
    "as is": {},
    "sum": {"scl_reduction": "sum"},
    "in chunks": {"scl_chunk_size": 2},
    "views at the head": {"scl_views": 2, "scl_features": "head"},
    "sum of views": {"scl_views": 2, "scl_reduction": "sum"},
    "SCL alone": {"scl_weight": 1.0},
    "CE alone": {"scl_weight": 0.0},
    "class weights": {"class_weights": "balanced", "balanced_weights": torch.tensor([0.6, 3.0])},
}


@pytest.fixture(scope="module")
def still(recipe, tmp_path_factory) -> tuple[str, ...]:
    """Flags without dropout."""
    return tuple(recipe.flags(tmp_path_factory.mktemp("still"), *NO_DROPOUT))


@pytest.mark.parametrize("variant", VARIANTS)
@settings(deadline=None, max_examples=8)
@given(shards=sharded(rows=11))
def test_gradients_and_metrics_of_any_shards_are_those_of_one_process(
    workers, still, variant, shards
):
    options = VARIANTS[variant]
    gradients, logged = normalised(workers(step, [(still, rows, options) for rows in shards]))
    expected, one = normalised(workers(step, [(still, range(11), options)]))
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = 1e-6 * float(gradient.abs().max()) + 1e-12
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-6, atol=scale)
    assert logged == pytest.approx(one, rel=1e-6)
    assert len(one) == 10


def step_of_ddp(group, flags, *steps):
    """As fairseq's default on GPUs: gradients of the last of some steps, averaged over workers."""
    of_group(group)
    task, model, criterion = built(flags)
    wrapped = ModuleProxyWrapper(
        DistributedDataParallel(model, process_group=group, find_unused_parameters=False)
    )
    for rows in steps:
        model.zero_grad()
        loss, sample_size, _ = criterion(wrapped, batch_of(task, "train", rows))
        loss.backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}, sample_size


def test_torchs_own_ddp_averages_to_the_gradients_of_one_process(workers, still):
    shards = [(still, range(4), range(7)), (still, range(0), range(7, 11)), (still, (11,), ())]
    answers = workers(step_of_ddp, shards)
    expected, _ = normalised(workers(step, [(still, range(11))]))
    total = sum(sample_size for _, sample_size in answers)
    for gradients, _ in answers:
        assert gradients.keys() == expected.keys()
        for name, gradient in expected.items():
            scale = 1e-6 * float(gradient.abs().max()) + 1e-12
            ours = gradients[name] * len(answers) / total
            torch.testing.assert_close(ours, gradient, rtol=1e-6, atol=scale)


def test_what_a_worker_without_examples_computes_reaches_nobody(workers, still):
    clean, spoiled = (
        workers(step, [(still, range(6)), (still, range(0), {}, nan)]) for nan in (False, True)
    )
    assert spoiled[1][1] == 0
    assert torch.equal(spoiled[0][2]["loss"], clean[0][2]["loss"])
    for name, gradient in clean[0][0].items():
        assert torch.equal(spoiled[0][0][name], gradient), name
    for value in spoiled[1][2].values():
        assert not torch.as_tensor(value).any()  # zeros; NaN counts as true
    for name, gradient in spoiled[1][0].items():
        if name.startswith("encoder."):
            assert not gradient.any(), name


def test_without_gathering_workers_contrast_their_own(workers, still):
    apart = {"scl_no_gather": True}
    together = workers(step, [(still, range(4), apart), (still, range(4, 11), apart)])
    alone = [workers(step, [(still, rows)])[0] for rows in (range(4), range(4, 11))]
    for a, b in zip(together, alone, strict=True):
        assert torch.equal(a[2]["scl_loss"], b[2]["scl_loss"])
        assert all(torch.equal(a[0][name], b[0][name]) for name in b[0])


def test_the_flag_reaches_the_criterion(recipe, tmp_path):
    assert not build(recipe.flags(tmp_path))[2].scl_no_gather
    assert build(recipe.flags(tmp_path, "--scl-no-gather"))[2].scl_no_gather


def of_another_task(group, flags):
    """What the criterion says of a batch that another task made."""
    of_group(group)
    task, model, criterion = built(flags)
    batch = batch_of(task, "train", range(4))
    del batch["num_rows"]
    try:
        return criterion(model, batch)
    except UserError as error:
        return str(error)


def test_the_batches_of_another_task_are_refused(workers, still):
    answers = workers(of_another_task, [(still,), (still,)])
    assert all("several workers need --task few_shot_glue" in answer for answer in answers)


# Random numbers


class Kept:
    """An optimizer that keeps the loss."""

    def backward(self, loss):
        """Called by the task."""
        self.loss = float(loss)


def losses_under_dropout(group, flags, seed):
    """Losses of two micro-batches of one update, the same on all workers but for dropout."""
    of_group(group)
    task, model, criterion = built(flags)
    optimizer, losses = Kept(), []
    torch.manual_seed(seed)  # as fairseq does before every update
    for _ in range(2):
        batch = batch_of(task, "train", range(8))
        task.train_step(batch, model, criterion, optimizer, update_num=0)
        losses.append(optimizer.loss)
    return losses


def test_each_worker_has_its_own_dropout_which_can_be_repeated(workers, recipe, tmp_path):
    flags = tuple(recipe.flags(tmp_path, "--scl-no-gather"))
    first, again = (workers(losses_under_dropout, [(flags, 7)] * 3) for _ in range(2))
    alone = workers(losses_under_dropout, [(flags, 7)])
    assert first == again
    assert first[0] == alone[0]
    losses = [loss for each in first for loss in each]
    assert len(set(losses)) == len(losses)


def test_one_process_keeps_fairseqs_random_numbers():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    seed_apart(0)
    assert torch.equal(torch.rand(4), expected)


# Whole runs


def write_here(log: Path) -> None:
    """Let this process and its logger print into a file."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)


def train_here(rank: int, log: Path, flags: list[str], variables: dict, fault=None) -> None:
    """Be one process of fairseq-train, maybe with a fault."""
    write_here(log)
    os.environ.update(variables)
    sys.argv = ["fairseq-train", *flags]
    if fault is not None:
        fault(rank)
    from fairseq_cli.train import cli_main

    cli_main()


def by_flags(folder: Path, flags: list[str], size: int) -> list[tuple[list[str], dict]]:
    """Flags and environment of each process."""
    (folder / "meeting").unlink(missing_ok=True)
    if size == 1:
        return [(flags, {})]
    apart = [*GLOO, "--distributed-no-spawn", "--distributed-world-size", str(size)]
    apart += ["--distributed-init-method", f"file://{folder}/meeting", "--distributed-rank"]
    return [([*flags, *apart, str(rank)], {}) for rank in range(size)]


class Run:
    """A program in processes with these arguments and variables."""

    def __init__(self, folder: Path, processes: list, fault=None, program=train_here):
        self.logs = [folder / f"log{rank}" for rank in range(len(processes))]
        self.processes = [
            FORK.Process(target=program, args=(rank, self.logs[rank], flags, variables, fault))
            for rank, (flags, variables) in enumerate(processes)
        ]
        for process in self.processes:
            process.start()

    def end(self) -> list[int]:
        """Exit codes, all of them within the limit."""
        until = time.monotonic() + LIMIT
        for process in self.processes:
            process.join(max(0, until - time.monotonic()))
        codes = [process.exitcode for process in self.processes]
        for process in self.processes:
            process.kill()
        assert None not in codes, "a process hangs"
        return codes

    def texts(self) -> list[str]:
        """What each process printed."""
        return [log.read_text() for log in self.logs]


def finished(folder: Path, processes: list[tuple[list[str], dict]], program=train_here) -> str:
    """Run to the end; what rank 0 printed."""
    started = Run(folder, processes, program=program)
    codes = started.end()
    assert set(codes) == {0}, "\n".join(text[-3000:] for text in started.texts())
    return started.texts()[0]


def weights(save_dir: Path, name: str = "checkpoint_last.pt") -> dict:
    return torch.load(save_dir / name, weights_only=True)["model"]


TIMES = {"wps", "ups", "wall", "train_wall"}


def logged(log: str) -> list[tuple]:
    """Everything that was logged but times: (of what, its name, its value)."""
    lines = re.findall(r"INFO \| (train|train_inner|valid) \| (.*)", log)
    return [
        (of, name, float(value))
        for of, line in lines
        for name, value in re.findall(r"(\w+)[ =]([-+.e\d]+)(?=[ ,]|$)", line)
        if name not in TIMES
    ]


def alike(size: int, *more) -> list:
    """Flags of 20 updates with global batches of 12 and 8 rows (validation 24 and 4)."""
    return [
        *NO_DROPOUT, "--batch-size", 12 // size, "--batch-size-valid", 24 // size,
        "--max-update", 20, "--validate-interval", 5, "--save-interval", 5,
        "--optimizer", "sgd", "--lr", 0.05, "--weight-decay", 0.01, *more,
    ]  # fmt: skip


def of_size(size: int, recipe, folder: Path, *more) -> tuple[str, dict]:
    """Log and weights of a run in so many processes."""
    flags = recipe.flags(folder / f"run{size}", *alike(size, *more))
    return finished(folder, by_flags(folder, flags, size)), weights(folder / f"run{size}")


@pytest.fixture(scope="module")
def one(recipe, tmp_path_factory) -> tuple[str, dict]:
    """Log and weights of one process."""
    return of_size(1, recipe, tmp_path_factory.mktemp("one"))


def assert_the_same(ours: tuple[str, dict], expected: tuple[str, dict]) -> None:
    entries, theirs = logged(ours[0]), logged(expected[0])
    assert [entry[:2] for entry in entries] == [entry[:2] for entry in theirs]
    assert {"valid", "train", "train_inner"} == {entry[0] for entry in entries}
    values = [entry[2] for entry in theirs]
    assert [entry[2] for entry in entries] == pytest.approx(values, rel=1e-3, abs=2e-4)
    for name, tensor in ours[1].items():
        torch.testing.assert_close(tensor, expected[1][name], rtol=1e-5, atol=1e-5)
        if ".lm_head." in name and name != "encoder.lm_head.weight":
            assert torch.equal(tensor, expected[1][name]), name  # nothing trains it


@pytest.mark.parametrize("size", [2, 3, 4])
def test_several_processes_log_and_learn_what_one_does(one, recipe, tmp_path, size):
    """With 3 processes one of them gets no examples for every second update."""
    ours = of_size(size, recipe, tmp_path)
    assert f"training on {size} devices" in ours[0]
    assert_the_same(ours, one)


def test_gradients_add_up_over_batches_where_a_worker_runs_out(recipe, tmp_path):
    """The third process has 4 examples for the first batch of each update, and then none."""
    more = ("--update-freq", 2, "--max-update", 4, "--scl-reduction", "sum")
    assert_the_same(*(of_size(size, recipe, tmp_path, *more) for size in (3, 1)))


def test_two_processes_share_one_queue(recipe, tmp_path):
    """Of 18: what is kept is not whole batches."""
    runs = [of_size(size, recipe, tmp_path, "--scl-queue", 18) for size in (2, 1)]
    assert_the_same(*runs)
    assert runs[0][1]["scl_queue.ids"].tolist() == runs[1][1]["scl_queue.ids"].tolist()


def test_two_processes_encode_in_chunks_as_one_does_in_one_piece(one, recipe, tmp_path):
    assert_the_same(of_size(2, recipe, tmp_path, "--scl-chunk-size", 4), one)


def test_two_processes_start_with_the_fitted_head_that_one_has(recipe, tmp_path):
    assert_the_same(*(of_size(size, recipe, tmp_path, "--head-init", "probe") for size in (2, 1)))


def test_two_processes_weigh_classes_as_one_does(recipe, tmp_path):
    more = ("--class-weights", "balanced", "--noise", "label", "--label-noise", 0.2)
    more = (*more, "--shots-sampling", "random", "--max-update", 5)
    criterion = build(recipe.flags(tmp_path, *more))[2]
    assert (criterion.balanced_weights - 1).abs().min() > 0.05
    assert_the_same(*(of_size(size, recipe, tmp_path, *more) for size in (2, 1)))


def test_two_processes_resume_where_they_stopped(recipe, tmp_path):
    """With dropout; update 4 is in the middle of the second epoch of 3."""
    flags = {name: recipe.flags(tmp_path / name, "--batch-size", 4) for name in ("whole", "parts")}
    finished(tmp_path, by_flags(tmp_path, [*flags["whole"], "--max-update", "6"], 2))
    finished(tmp_path, by_flags(tmp_path, [*flags["parts"], "--max-update", "4"], 2))
    log = finished(tmp_path, by_flags(tmp_path, [*flags["parts"], "--max-update", "6"], 2))
    assert "@ 4 updates" in log
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(parts[name], whole[name]) for name in whole)
    more = [*flags["parts"], "--max-update", "8", "--scl-weight", "0.5"]
    refused = Run(tmp_path, by_flags(tmp_path, more, 2))
    assert 0 not in refused.end()
    assert all("a run with --scl-weight 0.9, not 0.5" in text for text in refused.texts())
    assert all(torch.equal(parts[name], new) for name, new in weights(tmp_path / "parts").items())


def test_two_processes_correlate_as_one_does(recipe, encoder, tmp_path):
    text = "sentence\tlabel\n" + "".join(f"number {i} of {i * i}\t{i / 7}\n" for i in range(30))
    (tmp_path / "scores.tsv").write_text(text)
    files = ("--train", tmp_path / "scores.tsv", "--valid", tmp_path / "scores.tsv")
    data = prepare(tmp_path / "data", encoder, *files, "--regression")
    still = ["--lr", "0", "--max-update", "1", "--scl-weight", "0", "--regression-target"]
    still += ["--best-checkpoint-metric", "spearman", "--batch-size-valid", "20"]
    flags = [[str(data), *recipe.flags(tmp_path / str(n), *still)[1:]] for n in (1, 2)]
    logs = [finished(tmp_path, by_flags(tmp_path, flags[n - 1], n)) for n in (1, 2)]
    a, b = map(last_validation, logs)
    assert a["spearman"] == b["spearman"] != 0
    assert a["pearson"] == pytest.approx(b["pearson"], abs=1e-3)


# Launchers


def test_torchrun_starts_two_processes_on_cpus_in_bf16(recipe, tmp_path):
    result = run(
        "torchrun", "--nproc-per-node", 2, "--master-port", free_port(),
        Path(sys.executable).parent / "fairseq-train",
        *recipe.flags(tmp_path, "--max-update", 2, "--bf16"), *GLOO,
    )  # fmt: skip
    log = result.stdout + result.stderr
    assert result.returncode == 0, log[-3000:]
    assert log.count("training on 2 devices") == 1  # rank 0 alone logs
    assert in_bf16(tmp_path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def test_slurm_starts_two_processes_on_cpus(recipe, tmp_path):
    """As srun would: the same command for each task, with Slurm's variables."""
    scontrol = tmp_path / "scontrol"
    scontrol.write_text('#!/bin/sh\n[ "$*" = "show hostnames node[1-2]" ] && echo localhost\n')
    scontrol.chmod(0o755)
    flags = recipe.flags(tmp_path / "run", "--max-update", 2, *GLOO)
    flags += ["--distributed-world-size", "2", "--distributed-port", str(free_port())]
    slurm = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NTASKS": "2", "SLURM_NNODES": "2"}
    slurm |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_LOCALID": "0"}
    log = finished(tmp_path, [(flags, slurm | {"SLURM_PROCID": task}) for task in "01"])
    assert "training on 2 devices" in log
    assert weights(tmp_path / "run")


def test_processes_without_a_launcher_are_explained():
    cfg = SimpleNamespace(
        distributed_init_method=None, distributed_world_size=2, distributed_port=-1
    )
    with pytest.raises(UserError, match="--distributed-world-size 2 without GPUs: .*torchrun"):
        without_gpus(None)(cfg)


# Faults


def second_update(fault):
    """What a worker does in its second update."""
    from fairseq_scl.tasks.few_shot_glue import FewShotGlueTask

    train_step = FewShotGlueTask.train_step

    def faulty(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        if update_num == 1:
            fault(model, criterion)
        return train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad)

    FewShotGlueTask.train_step = faulty


def nan_on_rank_1(rank: int) -> None:
    """The sentence vectors of rank 1 are NaN."""
    if rank == 1:
        second_update(
            lambda model, _: model.classification_heads[
                "sentence_classification_head"
            ].register_forward_pre_hook(all_nan)
        )


def no_memory_on_rank_1(rank: int) -> None:
    """Rank 1 runs out of memory before it has exchanged anything."""

    def forward(*_):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    if rank == 1:
        second_update(lambda _, criterion: setattr(criterion, "forward", forward))


def killed_rank_1(rank: int) -> None:
    """Rank 1 is killed."""
    if rank == 1:
        second_update(lambda *_: os.kill(os.getpid(), signal.SIGKILL))


def ended(recipe, folder: Path, fault) -> tuple[list[int], list[str]]:
    """Exit codes and last words of two processes with a fault."""
    flags = recipe.flags(folder / "run", "--batch-size", 4)
    started = Run(folder, by_flags(folder, flags, 2), fault)
    return started.end(), started.texts()


def test_nan_on_one_worker_is_the_same_error_on_all(recipe, tmp_path):
    codes, texts = ended(recipe, tmp_path, nan_on_rank_1)
    assert codes == [1, 1]
    for text in texts:
        assert text.strip().endswith("FloatingPointError: gradients are Nan/Inf")


def test_a_worker_out_of_memory_ends_all(recipe, tmp_path):
    codes, texts = ended(recipe, tmp_path, no_memory_on_rank_1)
    assert codes == [1, 1]
    assert "fairseq-scl: error: worker 1 is out of memory; lower --batch-size" in texts[1]
    assert re.search("Connection (closed|reset) by peer", texts[0])


def test_a_killed_worker_ends_the_others(recipe, tmp_path):
    codes, texts = ended(recipe, tmp_path, killed_rank_1)
    assert codes == [1, -signal.SIGKILL]
    assert re.search("Connection (closed|reset) by peer", texts[0])


def test_one_process_out_of_memory_is_left_to_fairseq():
    with pytest.raises(RuntimeError, match="out of memory"), failing_together(0, 1):
        raise RuntimeError("CUDA out of memory")
    with pytest.raises(RuntimeError, match="another"), failing_together(0, 2):
        raise RuntimeError("another error")


# Precision on CPUs


def in_bf16(save_dir: Path) -> bool:
    """Whether the weights, saved in float32, were bfloat16 in training."""
    saved = weights(save_dir, "checkpoint_best.pt")
    return all(torch.equal(tensor, tensor.bfloat16().float()) for tensor in saved.values())


def test_two_processes_train_in_memory_efficient_bf16(recipe, tmp_path):
    flags = recipe.flags(tmp_path / "run", "--max-update", 2, "--memory-efficient-bf16")
    finished(tmp_path, by_flags(tmp_path, flags, 2))
    assert in_bf16(tmp_path / "run")


def hydra_here(rank: int, log: Path, overrides: list[str], variables: dict, fault=None) -> None:
    """Be one process of fairseq-hydra-train."""
    write_here(log)
    os.environ.update(variables)
    sys.argv = ["fairseq-hydra-train", *overrides]
    from fairseq_cli.hydra_train import cli_main

    cli_main()


@pytest.fixture
def overrides(recipe, tmp_path) -> list[str]:
    """The configuration of the repository with the tiny encoder, as arguments of Hydra."""
    return [
        "--config-dir", str(ROOT / "configs"), "--config-name", "finetune",
        f"hydra.run.dir={tmp_path}/run", "data=sample", f"data_dir={recipe.data.parent}",
        f"checkpoint.finetune_from_model={recipe.encoder / 'model.pt'}",
        f"common.user_dir={ROOT / 'fairseq_scl'}", "common.cpu=true",
        "model._name=sentence_roberta", "+model.encoder_layers=2", "+model.encoder_embed_dim=32",
        "+model.encoder_ffn_embed_dim=64", "+model.encoder_attention_heads=2",
        "task.max_positions=64", "+task.separator_token=2", "optimization.max_update=2",
        "lr_scheduler.warmup_updates=1", "dataset.validate_interval_updates=2",
    ]  # fmt: skip


def test_hydra_trains_two_processes_in_bf16(overrides, tmp_path):
    section = "distributed_training.distributed"
    apart = [
        *overrides, "common.bf16=true", f"{section}_world_size=2", f"{section}_backend=gloo",
        f"{section}_no_spawn=true", f"{section}_init_method='file://{tmp_path}/meeting'",
        "distributed_training.ddp_backend=legacy_ddp",
    ]  # fmt: skip
    finished(tmp_path, [([*apart, f"{section}_rank={rank}"], {}) for rank in "01"], hydra_here)
    assert in_bf16(tmp_path / "run")


def test_hydra_refuses_fp16_on_a_cpu(overrides, tmp_path):
    started = Run(tmp_path, [([*overrides, "common.fp16=true"], {})], program=hydra_here)
    assert started.end() == [1]
    assert started.texts()[0].strip().endswith("on a CPU train in float32 or with --bf16")


@pytest.mark.parametrize("flag", ["--fp16", "--memory-efficient-fp16", "--amp"])
def test_half_precision_on_a_cpu_is_refused(recipe, tmp_path, flag):
    name = flag.replace("memory-efficient-", "")
    with pytest.raises(UserError, match=f"{name} needs a GPU; on a CPU train in float32"):
        build(recipe.flags(tmp_path, flag))


def test_precision_is_free_where_there_is_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    precision.require_device(fp16=True, amp=False, cpu=False)
    with pytest.raises(UserError, match="--fp16 needs a GPU"):
        precision.require_device(fp16=True, amp=False, cpu=True)
