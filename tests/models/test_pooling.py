"""Pooling against explicit loops, and its blindness to padding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor

from fairseq_scl.models.pooling import POOLING, pool

HALF_TYPES = (torch.float16, torch.bfloat16)
relaxed = settings(deadline=None, max_examples=50)
lengths_of_rows = st.lists(st.integers(1, 9), min_size=1, max_size=6)
seeds = st.integers(0, 10**6)


def padded_batch(lengths, seed=0, dim=4):
    """Random features and which of them are tokens: the first `lengths[i]` of row `i`."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(len(lengths), max(lengths), dim, generator=generator)
    return features, torch.arange(max(lengths)) < tensor(lengths)[:, None]


def slow_mean(features, is_token):
    means = []
    for row, kept in zip(features.tolist(), is_token.tolist(), strict=True):
        tokens = [token for token, keep in zip(row, kept, strict=True) if keep]
        means.append([sum(column) / len(tokens) for column in zip(*tokens, strict=True)])
    return tensor(means)


def appended(features, is_token, content, columns):
    padding = torch.full((len(features), columns, features.shape[2]), content)
    padding = padding.to(features.dtype)
    no_token = torch.zeros(len(features), columns, dtype=torch.bool)
    return torch.cat([features, padding], 1), torch.cat([is_token, no_token], 1)


@relaxed
@given(lengths_of_rows, seeds)
def test_mean_equals_a_loop_over_tokens(lengths, seed):
    features, is_token = padded_batch(lengths, seed)
    expected = slow_mean(features, is_token)
    torch.testing.assert_close(pool(features, is_token, "mean"), expected, rtol=1e-5, atol=1e-6)


def test_mean_follows_the_mask_wherever_the_padding_is():
    features, _ = padded_batch([5, 5])
    is_token = tensor([[False, False, True, True, True], [True, False, True, False, True]])
    torch.testing.assert_close(pool(features, is_token, "mean"), slow_mean(features, is_token))


@relaxed
@given(lengths_of_rows, seeds)
def test_cls_is_the_first_token(lengths, seed):
    features, is_token = padded_batch(lengths, seed)
    expected = tensor([row[0] for row in features.tolist()])
    assert torch.equal(pool(features, is_token, "cls"), expected)


@pytest.mark.parametrize("pooling", POOLING)
@pytest.mark.parametrize("content", [0.0, 1e30, float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("columns", [1, 7])
def test_padding_changes_neither_vector_nor_gradient(pooling, content, columns):
    features, is_token = padded_batch([3, 1, 6])
    features[~is_token] = content
    longer, longer_is_token = appended(features, is_token, content, columns)
    features[~is_token] = 0
    vectors, gradients = [], []
    for x, kept in ((features, is_token), (longer, longer_is_token)):
        x.requires_grad_()
        vectors.append(pool(x, kept, pooling))
        gradients.append(torch.autograd.grad(vectors[-1].square().sum(), x)[0])
    torch.testing.assert_close(vectors[1], vectors[0])
    torch.testing.assert_close(gradients[1][:, :6], gradients[0])
    assert (gradients[1][~longer_is_token] == 0).all()


def test_gradient_of_the_mean_is_shared_by_the_tokens():
    features, is_token = padded_batch([4, 1])
    features.requires_grad_()
    pool(features, is_token, "mean").sum().backward()
    expected = tensor([[1 / 4] * 4, [1, 0, 0, 0]])[:, :, None].expand(-1, -1, 4)
    torch.testing.assert_close(features.grad, expected)


def test_mean_of_no_token_is_zero():
    features, is_token = padded_batch([2, 2])
    is_token[1] = False
    assert (pool(features, is_token, "mean")[1] == 0).all()


@pytest.mark.parametrize("pooling", POOLING)
@pytest.mark.parametrize("dtype", [*HALF_TYPES, torch.float32, torch.float64], ids=str)
def test_dtype_is_kept(pooling, dtype):
    features, is_token = padded_batch([3, 2])
    vectors = pool(features.to(dtype), is_token, pooling)
    assert vectors.dtype == dtype
    assert vectors.shape == (2, 4)


def test_long_sums_do_not_overflow_in_float16():
    """512 times 60,000 is far beyond float16's 65,504; the mean is not."""
    features = torch.full((1, 512, 3), 60_000.0, dtype=torch.float16)
    vectors = pool(features, torch.ones(1, 512, dtype=torch.bool), "mean")
    assert (vectors == 60_000).all()


@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
def test_long_sums_do_not_stall_in_half_precision(dtype):
    """A running sum in half precision would stop growing long before 4,096 ones."""
    features = torch.ones(1, 4096, 2, dtype=dtype)
    features[:, 2048:] = 3
    assert (pool(features, torch.ones(1, 4096, dtype=torch.bool), "mean") == 2).all()


@pytest.mark.parametrize("pooling", ["max", "", "CLS"])
def test_unknown_pooling_is_refused(pooling):
    features, is_token = padded_batch([2])
    with pytest.raises(ValueError, match=f"must be one of cls, mean, got '{pooling}'"):
        pool(features, is_token, pooling)
