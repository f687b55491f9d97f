"""fairseq-train on an encoder with relative positions: in chunks, compiled, resumed, used."""

import shutil

import pytest
import torch
from conftest import Recipe, build_model, train
from fairseq import checkpoint_utils
from test_chunks import NO_DROPOUT, assert_equal, gradients
from test_relative_positions import needs_compiler

from fairseq_scl.cli import main
from fairseq_scl.inference import classifier

TABLE = "encoder.sentence_encoder.relative_positions.weight"


@pytest.fixture(scope="module")
def mpnet(data, encoder, tmp_path_factory):
    """The recipe for a tiny MPNet with the tiny encoder's tokenizer."""
    folder = tmp_path_factory.mktemp("mpnet") / "encoder"
    shutil.copytree(encoder, folder)
    return Recipe(data, build_model(folder, arch="mpnet_base"))


def weights(run):
    [model], _ = checkpoint_utils.load_model_ensemble([str(run / "checkpoint_last.pt")])
    return model.state_dict()


def assert_same(some, others, tolerance=0.0):
    assert some.keys() == others.keys()
    for name, tensor in some.items():
        torch.testing.assert_close(tensor, others[name], rtol=tolerance, atol=tolerance, msg=name)


def test_chunks_give_the_gradients_of_the_plain_step(mpnet, tmp_path):
    plain = gradients(mpnet, tmp_path, *NO_DROPOUT)
    assert plain[0][TABLE].abs().max() > 0
    assert_equal(plain, gradients(mpnet, tmp_path, *NO_DROPOUT, "--scl-chunk-size", 3))


def test_a_chunks_second_encoding_sees_the_masks_of_the_first(mpnet, tmp_path, monkeypatch):
    flags = ("--dropout", 0.3, "--attention-dropout", 0.3, "--scl-chunk-size", 3)
    chunked = gradients(mpnet, tmp_path, *flags)
    monkeypatch.setattr(
        "fairseq_scl.models.sentence_roberta.checkpoint", lambda encode, chunk, **_: encode(chunk)
    )
    assert_equal(gradients(mpnet, tmp_path, *flags), chunked)


def test_a_run_begins_with_the_encoders_table_learns_goes_on_and_is_used(mpnet, tmp_path):
    train(mpnet.flags(tmp_path / "whole"))
    train(mpnet.flags(tmp_path / "parts", "--max-update", 4))
    train(mpnet.flags(tmp_path / "parts"))
    learned = weights(tmp_path / "whole")
    assert_same(learned, weights(tmp_path / "parts"))
    before = checkpoint_utils.load_checkpoint_to_cpu(str(mpnet.encoder / "model.pt"))["model"]
    moved = (learned[TABLE] - before[TABLE]).abs().max()
    assert 0 < moved < 0.02  # 8 updates at 1e-3; a table drawn anew would be far away
    main(["evaluate", str(tmp_path / "whole")])
    assert len(classifier.load(tmp_path / "whole", cpu=True).predict(["a joy", "so dull"])) == 2


def test_another_architecture_does_not_take_its_weights(mpnet, tmp_path):
    with pytest.raises(Exception, match="ensure that the architectures match"):
        train(mpnet.flags(tmp_path / "run", "--arch", "sentence_roberta"))


@needs_compiler
def test_a_compiled_run_learns_the_same(mpnet, tmp_path):
    still = (*NO_DROPOUT, "--optimizer", "sgd")
    for name, more in (("plain", ()), ("compiled", ("--compile",))):
        train(mpnet.flags(tmp_path / name, *still, *more))
    torch._dynamo.reset()
    assert_same(weights(tmp_path / "plain"), weights(tmp_path / "compiled"), 1e-4)
