"""Quick dropout against what dropout is defined to do."""

import pytest
import torch
from fairseq.modules import FairseqDropout
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from torch import nn

from fairseq_scl.models.dropout import QuickDropout, dropout, use_quick_dropout


@settings(deadline=None, max_examples=50)
@example([5], 1 - 1e-7, torch.float32, 0)
@given(
    shape=st.lists(st.integers(0, 6), max_size=4),
    p=st.floats(0, 1),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    seed=st.integers(0, 999),
)
def test_an_element_is_dropped_or_scaled_and_so_is_its_gradient(shape, p, dtype, seed):
    torch.manual_seed(seed)
    x = torch.randn(shape).add(3).to(dtype).requires_grad_()
    y = dropout(x, p)
    y.sum().backward()
    assert y.shape == x.shape and y.dtype == dtype
    dropped = y == 0
    scaled = x.double() / max(1 - p, 2**-16)
    near = torch.isclose(y.double(), scaled, rtol=0.02 if p < 0.999 else 1)
    assert (dropped | near).all()
    assert torch.equal(x.grad == 0, dropped)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 2**-16])
def test_elements_are_dropped_with_probability_p_independently(p):
    torch.manual_seed(1)
    dropped = dropout(torch.ones(1_000_003), p) == 0
    assert binomtest(int(dropped.sum()), len(dropped), p).pvalue > 1e-3
    for apart in (1, 2, 3, 4, 5, 8):  # four elements share a draw of the generator
        both = int((dropped[apart:] & dropped[:-apart]).sum())
        assert binomtest(both, len(dropped) - apart, p * p).pvalue > 1e-3


def test_the_mean_is_kept():
    torch.manual_seed(1)
    assert dropout(torch.ones(1_000_000), 0.1).mean() == pytest.approx(1, abs=1e-3)


def test_masks_come_from_torchs_seed():
    x, masks = torch.ones(1000), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(dropout(x, 0.5))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    assert not torch.equal(dropout(x, 0.5), dropout(x, 0.5))


def test_a_model_gets_it_wherever_fairseq_has_its_own():
    model = nn.Sequential(FairseqDropout(0.2, "inner"), nn.ModuleDict({"a": FairseqDropout(0.3)}))
    use_quick_dropout(model)
    found = [m for m in model.modules() if isinstance(m, FairseqDropout)]
    assert [(type(m), m.p, m.module_name) for m in found] == [
        (QuickDropout, 0.2, "inner"),
        (QuickDropout, 0.3, None),
    ]


def test_nothing_is_dropped_outside_training():
    module, x = QuickDropout(0.9), torch.ones(1000)
    assert (module(x) == 0).any()
    module.eval()
    assert torch.equal(module(x), x)
    module.apply_during_inference = True
    assert (module(x) == 0).any()
