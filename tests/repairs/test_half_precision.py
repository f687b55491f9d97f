"""Training in half precision beside float32."""

import re

import pytest
import torch
from conftest import run

LARGE = {
    "--encoder-layers": 24,
    "--encoder-embed-dim": 1024,
    "--encoder-ffn-embed-dim": 4096,
    "--encoder-attention-heads": 16,
}
TINY = {"--encoder-layers": 2, "--encoder-embed-dim": 32}
SAME = ("--dropout", 0, "--attention-dropout", 0, "--log-interval", 1, "--disable-validation")


def losses(recipe, folder, updates: int, shape: dict, *flags) -> tuple[list[float], list[float]]:
    """The loss of each update of a model with random weights, and fp16's loss scales."""
    command = recipe.flags(folder, *SAME, "--max-update", updates, "--no-save", *flags)
    for flag, value in shape.items():
        command += [flag, str(value)]
    if torch.cuda.is_available():
        command.remove("--cpu")
    start = command.index("--finetune-from-model")
    del command[start : start + 2]
    log = run("fairseq-train", *command, timeout=550).stdout
    lines = re.findall(r"INFO \| train_inner \| (.*)", log)
    assert len(lines) == updates, log[-2000:]
    numbers = [dict(re.findall(r"(\w+)=([-+.e\dna]+)", line)) for line in lines]
    scales = [float(line["loss_scale"]) for line in numbers if "loss_scale" in line]
    return [float(line["loss"]) for line in numbers], scales


def assert_close(ours: list[float], expected: list[float]) -> None:
    assert all(loss == loss for loss in ours)  # no NaN
    assert sum(ours) == pytest.approx(sum(expected), rel=0.01)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("flag", ["--fp16", "--bf16"])
def test_the_shape_of_roberta_large_learns_in_half_precision_as_in_float32(recipe, tmp_path, flag):
    def learn(folder, *flags):
        recipe_flags = ("--lr", 1e-5, "--total-num-update", 200, "--optimizer", "fused_adam")
        return losses(recipe, tmp_path / folder, 200, LARGE, *recipe_flags, *flags)

    expected, _ = learn("float32")
    ours, scales = learn("half", flag, "--fp16-init-scale", 4, "--threshold-loss-scale", 1)
    assert_close(ours, expected)
    if flag == "--fp16":
        assert min(scales) >= 1
        assert min(scales[100:]) >= min(scales[:100])


def test_the_tiny_encoder_learns_in_bf16_as_in_float32(recipe, tmp_path):
    expected, _ = losses(recipe, tmp_path / "float32", 8, TINY)
    ours, _ = losses(recipe, tmp_path / "half", 8, TINY, "--bf16")
    assert ours != expected
    assert_close(ours, expected)
