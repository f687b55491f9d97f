"""Compiled layers compute what they compute without."""

import shutil

import pytest
import torch
from conftest import train
from fairseq import checkpoint_utils
from test_packed_encoder import PAD, batch, encoders

from fairseq_scl.errors import UserError
from fairseq_scl.models.compiling import compile_layers
from fairseq_scl.models.packed_encoder import Packing

needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler"
)


@pytest.fixture(autouse=True)
def forgotten():
    yield
    torch._dynamo.reset()


def outputs_and_gradients(encoder, batches):
    for tokens in batches:
        out = encoder(tokens)["encoder_out"][0]
        yield out.detach()
        out.square().sum().backward()
    yield from (parameter.grad for parameter in encoder.parameters())


@needs_compiler
@pytest.mark.parametrize("as_on_a_gpu", [True, False])
def test_outputs_and_gradients_stay_the_same_for_batches_of_any_shape(as_on_a_gpu):
    batches = [batch(lengths) for lengths in ([9, 4, 12], [3, 3, 8, 1, 2], [5], [7, 2])]
    results = []
    for compiled in (False, True):
        encoder = encoders()[1].float()
        if as_on_a_gpu:
            encoder.arrange = lambda is_token: ((p := Packing.of(is_token)), [p])
        if compiled:
            compile_layers(encoder.layers)
        results.append(list(outputs_and_gradients(encoder, batches)))
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


@needs_compiler
def test_a_layer_is_one_graph_as_on_a_gpu():
    _, encoder = encoders()
    packing = Packing.of(batch([9, 4, 12]).ne(PAD))
    explained = torch._dynamo.explain(encoder.layers[0])(
        torch.randn(25, 1, 16, dtype=torch.double), encoder_padding_mask=[packing]
    )
    assert (explained.graph_count, explained.graph_break_count) == (1, 0)


@needs_compiler
def test_a_run_learns_the_same_and_its_checkpoint_needs_no_compiler(recipe, tmp_path, monkeypatch):
    still = ("--dropout", 0, "--attention-dropout", 0, "--optimizer", "sgd")
    for name, more in (("plain", ()), ("compiled", ("--compile",))):
        train(recipe.flags(tmp_path / name, *still, *more))
    monkeypatch.setenv("PATH", "")
    paths = [str(tmp_path / name / "checkpoint_last.pt") for name in ("plain", "compiled")]
    models, _ = checkpoint_utils.load_model_ensemble(paths)
    for (key, mine), other in zip(
        models[0].state_dict().items(), models[1].state_dict().values(), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5, msg=key)


def test_without_a_compiler(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="--compile needs a C"):
        compile_layers([])
