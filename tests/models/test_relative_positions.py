"""MPNet's relative positions against their definition, on every path of the encoder."""

import math
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_compile import outputs_and_gradients
from test_packed_encoder import PAD, batch, encoders

from fairseq_scl.models import packed_encoder
from fairseq_scl.models.compiling import compile_layers
from fairseq_scl.models.packed_encoder import Packing, attention
from fairseq_scl.models.relative_positions import RelativePositions, buckets

needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler"
)
LENGTHS = [9, 4, 12, 1, 7, 7, 2]


def as_on_a_gpu(is_token):
    """Pack the whole batch as one group."""
    packing = Packing.of(is_token)
    return packing, [packing]


def bucket(distance):
    """T5's rule, from its paper: exact up to 8, then logarithmic up to 128, 16 for each side."""
    side = 16 if distance > 0 else 0
    far = abs(distance)
    if far < 8:
        return side + far
    return side + min(15, 8 + math.floor(8 * math.log(far / 8) / math.log(128 / 8) + 1e-9))


def test_buckets_are_those_of_the_definition_and_of_transformers():
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    distances = torch.arange(-700, 701)
    assert buckets(distances).tolist() == [bucket(d) for d in distances.tolist()]
    assert torch.equal(buckets(distances), MPNetEncoder.relative_position_bucket(distances))


def test_the_bias_of_a_pair_of_tokens_depends_on_their_distance():
    table = RelativePositions(heads=3)
    found = table(20)
    for query, key in ((0, 0), (0, 19), (19, 0), (4, 7), (7, 4)):
        assert torch.equal(found[:, query, key], table.weight[bucket(key - query)])


def relative(**options):
    """An encoder with relative positions that differ by much."""
    encoder = encoders(relative_positions=True, **options)[1]
    with torch.no_grad():
        encoder.relative_positions.weight.normal_(generator=torch.Generator().manual_seed(1))
    return encoder


def results(encoder, tokens):
    """The output, and the gradients of all weights."""
    torch.manual_seed(7)
    out = encoder(tokens)["encoder_out"][0]
    encoder.zero_grad()
    out.square().sum().backward()
    return [out.detach(), *(parameter.grad.clone() for parameter in encoder.parameters())]


def assert_same(found, expected, tolerance=1e-10):
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)


def attention_of_a_sentence(encoder, layer, x):
    """One head, query and key after another: `(length, dim)` from `(length, dim)`."""
    part, table = encoder.layers[layer].self_attn, encoder.relative_positions.weight
    q, k, v = (f(x).unflatten(1, (4, -1)) for f in (part.q_proj, part.k_proj, part.v_proj))
    out = torch.zeros_like(q)
    for head in range(4):
        for i in range(len(x)):
            logits = torch.stack(
                [
                    q[i, head] @ k[j, head] / q.size(2) ** 0.5 + table[bucket(j - i), head]
                    for j in range(len(x))
                ]
            )
            out[i, head] = logits.softmax(0) @ v[:, head]
    return part.out_proj(out.flatten(1))


@given(st.lists(st.integers(1, 12), min_size=1, max_size=7), st.integers(0, 99))
def test_each_layer_adds_the_bias_to_its_logits(lengths, seed):
    encoder, tokens = relative(), batch(lengths, seed)
    found = encoder(tokens)["encoder_out"][0].transpose(0, 1)
    for row, length in enumerate(lengths):
        x = encoder.forward_embedding(tokens[row : row + 1, :length])[0][0]
        for i, layer in enumerate(encoder.layers):
            x = layer.self_attn_layer_norm(x + attention_of_a_sentence(encoder, i, x))
            x = layer.final_layer_norm(x + layer.fc2(layer.activation_fn(layer.fc1(x))))
        torch.testing.assert_close(found[row, :length], x, rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_neither_groups_nor_padding_matter(monkeypatch, size):
    encoder, tokens = relative(), batch(LENGTHS)
    expected = results(encoder, tokens)
    monkeypatch.setattr(packed_encoder, "GROUP", size)
    assert_same(results(encoder, tokens), expected)
    wider = torch.nn.functional.pad(tokens, (0, 3), value=PAD)
    assert_same(results(encoder, wider)[1:], expected[1:])


def test_padding_within_a_sentence_keeps_its_distance_whatever_stands_beside_it():
    """Text may hold the padding's own name; transformers counts it as well."""
    encoder, tokens = relative(), batch(LENGTHS)
    tokens[0, 4], tokens[5, 2] = PAD, PAD
    together = encoder(tokens)["encoder_out"][0].transpose(0, 1)
    for row, length in zip((0, 5), (9, 7), strict=True):
        alone = encoder(tokens[row : row + 1, :length])["encoder_out"][0][:, 0]
        is_token = tokens[row, :length] != PAD
        torch.testing.assert_close(alone[is_token], together[row, :length][is_token])


def test_one_group_of_the_whole_batch_as_on_a_gpu():
    encoder, tokens = relative(), batch(LENGTHS)
    expected = results(encoder, tokens)
    encoder.arrange = as_on_a_gpu
    assert_same(results(encoder, tokens), expected)


def test_attention_of_a_gpu_and_of_a_cpu_with_dropout_agree():
    q, k, v = torch.randn(3, 5, 2, 7, 4, dtype=torch.double).unbind()
    is_token = torch.arange(7) < torch.tensor([7, 1, 3, 7, 5])[:, None]
    bias = torch.randn(2, 7, 7, dtype=torch.double)
    found, expected = (attention(q, k, v, is_token, p, bias) for p in (1e-9, 0))
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(attention(q, k, v, is_token, 0), expected)


def test_recomputed_activations_give_the_same_gradients():
    tokens = batch(LENGTHS)
    dropout = {"dropout": 0.1, "attention_dropout": 0.1}
    expected, found = (
        results(relative(checkpoint_activations=recompute, **dropout), tokens)
        for recompute in (False, True)
    )
    assert_same(found, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_half_precision(dtype, dropout):
    """As --fp16 and --bf16 turn the model, in training with and without dropout."""
    encoder, tokens = relative(attention_dropout=dropout), batch(LENGTHS)
    expected = encoder.eval()(tokens)["encoder_out"][0]
    found = encoder.to(dtype)(tokens)["encoder_out"][0]
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=0.1)
    trained = encoder.train()(tokens)["encoder_out"][0]
    trained.float().square().sum().backward()
    assert trained.dtype == dtype
    assert encoder.relative_positions.weight.grad.isfinite().all()


def test_autocast_as_amp_has_it():
    encoder, tokens = relative().float(), batch(LENGTHS)
    expected = results(encoder, tokens)
    with torch.autocast("cpu", torch.bfloat16):
        found = results(encoder, tokens)
    assert_same([t.float() for t in found[:1]], expected[:1], 0.1)


@needs_compiler
@pytest.mark.parametrize("on_a_gpu", [True, False])
def test_compiled_layers_compute_the_same(on_a_gpu):
    batches = [batch(lengths) for lengths in ([9, 4, 12], [3, 3, 8, 1, 2], [5], [7, 2])]
    found = []
    for compiled in (False, True):
        encoder = relative().float()
        if on_a_gpu:
            encoder.arrange = as_on_a_gpu
        if compiled:
            compile_layers(encoder.layers)
        found.append(list(outputs_and_gradients(encoder, batches)))
    torch._dynamo.reset()
    assert_same(*found, 1e-4)
