"""The packed encoder against fairseq's own."""

import argparse

import pytest
import torch
from fairseq.models.roberta.model import base_architecture
from fairseq.models.transformer import TransformerEncoder
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_scl.models import packed_encoder
from fairseq_scl.models.packed_encoder import PackedEncoder, Packing, attention, group_by_length

PAD, VOCABULARY = 1, 20
lengths_of_rows = st.lists(st.integers(1, 12), min_size=1, max_size=11)


def encoders(**options):
    """fairseq's encoder and the packed one, with the same random weights, in float64."""
    values = {"encoder_layers": 2, "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 24}
    values |= {"encoder_attention_heads": 4, "max_positions": 32, "dropout": 0.0}
    args = argparse.Namespace(**(values | {"attention_dropout": 0.0} | options))
    base_architecture(args)
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(VOCABULARY, 16, PAD)
    ours = PackedEncoder(args, None, embedding).double()
    theirs = TransformerEncoder(args, None, torch.nn.Embedding(VOCABULARY, 16, PAD)).double()
    theirs.load_state_dict(ours.state_dict(), strict=not hasattr(args, "relative_positions"))
    return theirs, ours


def batch(lengths, seed=0):
    """`(rows, longest)` random token ids, padded on the right."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(2, VOCABULARY, (len(lengths), max(lengths)), generator=generator)
    return tokens.masked_fill(torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None], PAD)


@pytest.mark.parametrize("pre_norm", [False, True])
@settings(deadline=None, max_examples=25)
@given(lengths=lengths_of_rows, seed=st.integers(0, 999))
def test_hidden_states_and_gradients_equal_those_of_fairseq(pre_norm, lengths, seed):
    theirs, ours = encoders(encoder_normalize_before=pre_norm)
    tokens = batch(lengths, seed)
    is_token = tokens.ne(PAD).T
    expected, got = (e(tokens, return_all_hiddens=True) for e in (theirs, ours))
    states = [*got["encoder_states"], *got["encoder_out"]]
    for mine, other in zip(
        states, [*expected["encoder_states"], *expected["encoder_out"]], strict=True
    ):
        assert mine.shape == other.shape
        torch.testing.assert_close(mine[is_token], other[is_token], rtol=0, atol=1e-10)
        assert not mine[~is_token].any()
    assert torch.equal(got["encoder_padding_mask"][0], tokens.eq(PAD))
    weights = torch.randn(16, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    for result in (expected, got):
        (result["encoder_out"][0][is_token] @ weights).square().sum().backward()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-9, atol=1e-9)


def test_parameters_have_fairseqs_names():
    theirs, ours = encoders()
    assert list(ours.state_dict()) == list(theirs.state_dict())


def test_recomputed_activations_give_the_same_gradients():
    tokens, gradients = batch([3, 7, 1]), []
    for recompute in (False, True):
        _, encoder = encoders(checkpoint_activations=recompute, dropout=0.1)
        torch.manual_seed(7)
        encoder(tokens)["encoder_out"][0].square().sum().backward()
        gradients.append(encoder.embed_tokens.weight.grad)
    torch.testing.assert_close(*gradients)


def test_attention_dropout_acts_in_training_only():
    _, encoder = encoders(attention_dropout=0.5)
    tokens = batch([9, 4])

    def twice():
        first, second = (encoder(tokens)["encoder_out"][0] for _ in range(2))
        return torch.equal(first, second)

    assert not twice()
    encoder.eval()
    assert twice()


@settings(deadline=None)
@given(lengths_of_rows)
def test_packing_keeps_the_tokens_in_order(lengths):
    tokens = batch(lengths)
    is_token = tokens.ne(PAD)
    packing = Packing.of(is_token)
    packed = packing.pack(tokens.unsqueeze(2))
    assert packed.squeeze(1).tolist() == [t for row in tokens.tolist() for t in row if t != PAD]
    assert torch.equal(packing.pad(packed).squeeze(2), tokens * is_token)


@settings(deadline=None)
@given(lengths_of_rows, st.integers(1, 12))
def test_groups_hold_every_token_once_and_rows_of_like_length(lengths, size):
    tokens = batch(lengths)
    packing, groups = group_by_length(tokens.ne(PAD), size)
    packed = packing.pack(tokens.unsqueeze(2))
    assert torch.equal(packing.pad(packed).squeeze(2), tokens * tokens.ne(PAD))
    parts = packed.split([len(group.positions) for group in groups])
    rows = [
        [t for t in row if t]
        for part, group in zip(parts, groups, strict=True)
        for row in group.pad(part).squeeze(2).tolist()
    ]
    assert rows == sorted([[t for t in row if t != PAD] for row in tokens.tolist()], key=len)
    sizes = [group.is_token.shape for group in groups]
    assert all(rows == size for rows, _ in sizes[:-1])
    longest = sorted(lengths)[size - 1 :: size]
    assert [length for _, length in sizes][: len(longest)] == longest


def test_attention_with_dropout_is_attention_times_a_mask():
    q, k, v = torch.randn(3, 5, 2, 7, 4, dtype=torch.double).unbind()
    is_token = torch.arange(7) < torch.tensor([7, 1, 3, 7, 5])[:, None]
    without = attention(q, k, v, is_token, 0)
    torch.testing.assert_close(attention(q, k, v, is_token, 1e-9), without)
    means = sum(attention(q, k, v, is_token, 0.3) for _ in range(2000)) / 2000
    torch.testing.assert_close(means, without, rtol=0, atol=0.15)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_the_size_of_groups_changes_nothing(monkeypatch, size):
    _, encoder = encoders()
    tokens = batch([9, 4, 12, 1, 7, 7, 2])
    expected = encoder(tokens)["encoder_out"][0]
    monkeypatch.setattr(packed_encoder, "GROUP", size)
    torch.testing.assert_close(encoder(tokens)["encoder_out"][0], expected, rtol=0, atol=1e-12)


def test_one_group_of_the_whole_batch_as_on_a_gpu():
    _, encoder = encoders()
    tokens = batch([9, 4, 12, 1, 7, 7, 2])
    expected = encoder(tokens)["encoder_out"][0]
    packing = Packing.of(tokens.ne(PAD))
    encoder.arrange = lambda _: (packing, [packing])
    torch.testing.assert_close(encoder(tokens)["encoder_out"][0], expected, rtol=0, atol=1e-12)
