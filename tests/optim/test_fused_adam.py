"""The fused optimizer against fairseq's own and a loop over numbers."""

import math

import pytest
import torch
from conftest import configure, run, train
from fairseq import checkpoint_utils, optim

from fairseq_scl.errors import UserError

SETTINGS = ("--adam-betas", "(0.8, 0.9)", "--adam-eps", "1e-6", "--weight-decay", "0.1")


def optimize(recipe, tmp_path, name, gradients):
    """The parameter after a step with each of the gradients, starting from 1, 2, 3."""
    cfg = configure(recipe.flags(tmp_path, "--optimizer", name, *SETTINGS, "--lr", 0.05))
    parameter = torch.nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
    optimizer = optim.build_optimizer(cfg.optimizer, [parameter])
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
    return parameter.tolist()


def slow_adamw(value, gradients, lr=0.05, betas=(0.8, 0.9), eps=1e-6, decay=0.1):
    """Loshchilov and Hutter's algorithm 2 on one number."""
    mean = square = 0.0
    for t, gradient in enumerate(gradients, 1):
        mean = betas[0] * mean + (1 - betas[0]) * gradient
        square = betas[1] * square + (1 - betas[1]) * gradient**2
        corrected = (square / (1 - betas[1] ** t)) ** 0.5
        value = value * (1 - lr * decay) - lr * mean / (1 - betas[0] ** t) / (corrected + eps)
    return value


def test_steps_are_those_of_fairseqs_adam_and_of_the_paper(recipe, tmp_path):
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(12, 3, generator=generator).tolist()
    ours = optimize(recipe, tmp_path, "fused_adam", gradients)
    assert ours == pytest.approx(optimize(recipe, tmp_path, "adam", gradients), rel=1e-5)
    columns = zip(*gradients, strict=True)
    expected = [slow_adamw(start, column) for start, column in zip((1, 2, 3), columns, strict=True)]
    assert ours == pytest.approx(expected, rel=1e-5)


def test_a_resumed_run_ends_as_an_undisturbed_one(recipe, tmp_path):
    flags = ("--optimizer", "fused_adam", *SETTINGS, "--save-interval-updates", 4)
    train(recipe.flags(tmp_path / "whole", *flags))
    train(recipe.flags(tmp_path / "parts", *flags, "--max-update", 4))
    train(recipe.flags(tmp_path / "parts", *flags))
    ends = [
        checkpoint_utils.load_checkpoint_to_cpu(str(tmp_path / name / "checkpoint_last.pt"))
        for name in ("whole", "parts")
    ]
    assert all(end["optimizer_history"][-1]["num_updates"] == 8 for end in ends)
    for mine, other in zip(ends[0]["model"].values(), ends[1]["model"].values(), strict=True):
        assert torch.equal(mine, other)
    assert all(math.isfinite(float(p.float().sum())) for p in ends[0]["model"].values())


@pytest.mark.parametrize("betas", ["0.9", "(0.9,)", "__import__('os').getpid()", "(a, b)"])
def test_wrong_betas_are_told_and_never_executed(recipe, tmp_path, betas):
    cfg = configure(recipe.flags(tmp_path, "--optimizer", "fused_adam", "--adam-betas", betas))
    with pytest.raises(UserError, match="--adam-betas .* must be two numbers"):
        optim.build_optimizer(cfg.optimizer, [torch.nn.Parameter(torch.zeros(1))])


def test_the_command_ends_with_one_line(recipe, tmp_path):
    flags = recipe.flags(tmp_path, "--optimizer", "fused_adam", "--adam-betas", "nothing")
    finished = run("fairseq-train", *flags)
    assert finished.returncode != 0
    assert "Traceback" not in finished.stderr
    assert "--adam-betas nothing must be two numbers" in finished.stderr


def test_moments_in_half_precision_are_refused(recipe, tmp_path):
    flags = recipe.flags(tmp_path, "--optimizer", "fused_adam", "--memory-efficient-bf16")
    finished = run("fairseq-train", *flags)
    assert finished.returncode != 0
    assert "Traceback" not in finished.stderr
    assert "--memory-efficient-bf16 need --optimizer adam" in finished.stderr


def test_bf16_trains_in_float32_moments(recipe, tmp_path):
    train(recipe.flags(tmp_path, "--optimizer", "fused_adam", "--bf16"))
    state = checkpoint_utils.load_checkpoint_to_cpu(str(tmp_path / "checkpoint_last.pt"))
    moments = state["last_optimizer_state"]["state"][0]
    assert moments["exp_avg"].dtype == moments["exp_avg_sq"].dtype == torch.float32
