"""The queue against a list, its use in the loss, and that a run goes on with it."""

import pytest
import torch
from conftest import batch_of, build, train
from fairseq import checkpoint_utils
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_scl.criterions.queue import EmbeddingQueue
from fairseq_scl.errors import UserError
from fairseq_scl.loss import Candidates, supervised_contrastive_loss

batches = st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=6)


def candidates_of(ids, offset=0.0):
    """Embeddings that tell the example and when it was seen."""
    features = torch.tensor([[i + offset, 1.0] for i in ids]).reshape(-1, 2)
    labels = torch.tensor([i % 3 for i in ids], dtype=torch.int64)
    return Candidates(features, labels, torch.arange(len(ids))), torch.tensor(
        ids, dtype=torch.int64
    )


@settings(deadline=None)
@given(batches, st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(1, 12))
def test_it_is_the_end_of_a_list_without_the_present_batch(earlier, present, size):
    memory, kept = {}, []
    queue = EmbeddingQueue(size, memory)
    for step, ids in enumerate(earlier):
        pool, which = candidates_of(ids, step / 10)
        queue.push(pool, which)
        kept = [*kept, *zip(ids, pool.features.tolist(), strict=True)][-size:]
    pool, which = candidates_of(present, 0.9)
    extended = queue.extend(pool, which)
    added = [(i, row) for i, row in kept if i not in present] if len(kept) == size else []
    assert extended.features.tolist() == [*pool.features.tolist(), *(row for _, row in added)]
    assert extended.labels.tolist() == [*pool.labels.tolist(), *(i % 3 for i, _ in added)]
    assert extended.own is pool.own
    assert [int(i) for i in memory.get("ids", [])] == [i for i, _ in kept]


def test_what_is_not_finite_stays_out():
    queue = EmbeddingQueue(3, {})
    pool, which = candidates_of([1, 2, 3, 4])
    pool.features[1, 0], pool.features[2, 1] = torch.nan, torch.inf
    queue.push(pool, which)
    assert queue.memory["ids"].tolist() == [1, 4]
    assert not queue.is_full


def test_it_keeps_no_graph_and_no_more_memory_than_its_rows():
    queue = EmbeddingQueue(2, {})
    pool, which = candidates_of([1, 2, 3])
    pool.features.requires_grad_()
    queue.push(pool, which)
    kept = queue.memory["features"]
    assert not kept.requires_grad
    assert kept.untyped_storage().nbytes() == 2 * 2 * 4


@pytest.fixture
def trained_with_queue(recipe, tmp_path):
    """Task, model and criterion with a queue of four, and batches of three rows."""
    flags = recipe.flags(tmp_path, "--scl-queue", 4, "--dropout", 0, "--attention-dropout", 0)
    task, model, criterion = build(flags)
    return task, model.train(), criterion, lambda *rows: batch_of(task, "train", rows)


def test_the_criterion_contrasts_with_earlier_batches_in_training_only(trained_with_queue):
    task, model, criterion, batch = trained_with_queue
    first, second = batch(0, 1, 2, 3), batch(4, 5)
    features, labels = [], []
    for sample in (first, second):
        vectors = model.sentence_vectors(sample["net_input"]["src_tokens"])[0].detach()
        features.append(vectors)
        labels.append(sample["target"].view(-1))
    criterion(model, first)
    assert task.queue_memory["ids"].tolist() == first["id"].tolist()
    whole = Candidates(torch.cat(features[::-1]), torch.cat(labels[::-1]), torch.arange(2))
    expected = supervised_contrastive_loss(features[1], labels[1], 0.3, "sum", whole)
    alone = supervised_contrastive_loss(features[1], labels[1], 0.3, "sum")
    got = criterion(model, second)[2]["scl_loss"]
    torch.testing.assert_close(got, expected)
    assert not torch.isclose(expected, alone)
    before = {name: rows.clone() for name, rows in task.queue_memory.items()}
    assert before["ids"].tolist() == [*first["id"].tolist()[2:], *second["id"].tolist()]
    watched = criterion(model.eval(), second)[2]["scl_loss"]
    torch.testing.assert_close(watched, alone)
    assert all(torch.equal(before[name], rows) for name, rows in task.queue_memory.items())


def test_an_example_is_not_compared_with_its_own_past(trained_with_queue):
    _, model, criterion, batch = trained_with_queue
    first = criterion(model, batch(0, 1, 2, 3))[2]["scl_loss"]
    torch.testing.assert_close(criterion(model, batch(0, 1, 2, 3))[2]["scl_loss"], first)


def test_a_resumed_run_goes_on_with_its_queue(recipe, tmp_path):
    flags = ("--scl-queue", 12, "--save-interval-updates", 4)
    train(recipe.flags(tmp_path / "whole", *flags))
    train(recipe.flags(tmp_path / "parts", *flags, "--max-update", 4))
    train(recipe.flags(tmp_path / "parts", *flags))
    whole, parts = (
        checkpoint_utils.load_checkpoint_to_cpu(str(tmp_path / name / "checkpoint_last.pt"))
        for name in ("whole", "parts")
    )
    assert whole["model"]["scl_queue.features"].shape == (12, 32)
    for name, tensor in whole["model"].items():
        assert torch.equal(tensor, parts["model"][name]), name


def test_fine_tuning_from_such_a_model_starts_with_an_empty_queue(recipe, tmp_path):
    train(recipe.flags(tmp_path / "first", "--scl-queue", 12))
    start = tmp_path / "first" / "checkpoint_last.pt"
    train(recipe.flags(tmp_path / "second", "--finetune-from-model", start))
    state = checkpoint_utils.load_checkpoint_to_cpu(str(tmp_path / "second/checkpoint_last.pt"))
    assert not [name for name in state["model"] if name.startswith("scl_queue")]


def test_half_precision_is_kept_in_float32():
    queue = EmbeddingQueue(2, {})
    pool, which = candidates_of([1, 2])
    queue.push(pool._replace(features=pool.features.half()), which)
    assert queue.memory["features"].dtype == torch.float32


def test_a_wrong_queue_is_told(recipe, tmp_path):
    with pytest.raises(UserError, match="--scl-queue is common to all workers"):
        build(recipe.flags(tmp_path, "--scl-queue", 4, "--scl-no-gather"))
    with pytest.raises(UserError, match="--scl-queue -1 must be at least 0"):
        build(recipe.flags(tmp_path, "--scl-queue", -1))
