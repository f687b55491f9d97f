"""Encoding in chunks: the same gradients as in one piece."""

import pytest
import torch
from conftest import batch_of, build

from fairseq_scl.errors import UserError

NO_DROPOUT = ("--dropout", 0, "--attention-dropout", 0)


def gradients(recipe, folder, *flags, rows=10):
    """The gradients and the loss of a batch under a fixed seed."""
    task, model, criterion = build(recipe.flags(folder, *flags))
    torch.manual_seed(5)
    loss, _, _ = criterion(model.train(), batch_of(task, "train", range(rows)))
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, loss


def assert_equal(some, others):
    (gradients, loss), (other_gradients, other_loss) = some, others
    torch.testing.assert_close(loss, other_loss)
    assert gradients.keys() == other_gradients.keys()
    scale = max(float(g.abs().max()) for g in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, other_gradients[name], rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("chunk_size", [1, 3, 10, 64])
@pytest.mark.parametrize("flags", [(), ("--scl-views", 2), ("--scl-reduction", "sum")])
def test_without_dropout_the_gradients_are_those_of_the_plain_step(
    recipe, tmp_path, chunk_size, flags
):
    plain = gradients(recipe, tmp_path, *NO_DROPOUT, *flags)
    chunked = gradients(recipe, tmp_path, *NO_DROPOUT, *flags, "--scl-chunk-size", chunk_size)
    assert_equal(plain, chunked)


def test_with_dropout_the_second_encoding_sees_the_masks_of_the_first(
    recipe, tmp_path, monkeypatch
):
    flags = ("--dropout", 0.3, "--attention-dropout", 0.3, "--scl-chunk-size", 3)
    chunked = gradients(recipe, tmp_path, *flags)
    monkeypatch.setattr(
        "fairseq_scl.models.sentence_roberta.checkpoint", lambda encode, chunk, **_: encode(chunk)
    )
    assert_equal(gradients(recipe, tmp_path, *flags), chunked)


def test_a_chunk_at_a_time_is_kept(recipe, tmp_path):
    task, model, criterion = build(recipe.flags(tmp_path, "--scl-chunk-size", 2))
    sizes, model = [], model.train()
    for layer in model.encoder.sentence_encoder.layers:
        layer.fc1.register_forward_hook(lambda module, inputs, _: sizes.append(len(inputs[0])))
    batch = batch_of(task, "train", range(6))
    tokens = [int(chunk.ne(1).sum()) for chunk in batch["net_input"]["src_tokens"].split(2)]
    loss, _, _ = criterion(model, batch)
    assert sizes == [n for n in tokens for _ in range(2)]  # two layers
    loss.backward()
    assert sorted(sizes) == sorted(4 * tokens)
    sizes.clear()
    criterion(model.eval(), batch)
    assert sizes == 2 * [sum(tokens)]  # in validation nothing is kept anyway


def test_what_cannot_be_chunked_is_told(recipe, tmp_path):
    with pytest.raises(UserError, match="--scl-chunk-size 0 must be at least 1"):
        build(recipe.flags(tmp_path, "--scl-chunk-size", 0))
    task, model, criterion = build(
        recipe.flags(tmp_path, "--arch", "roberta", "--encoder-layers", 1, "--scl-chunk-size", 2)
    )
    with pytest.raises(UserError, match="--scl-chunk-size needs --arch sentence_roberta"):
        criterion(model.train(), batch_of(task, "train", range(4)))
