"""A fine-tuned model starts another task."""

import pytest
import torch
from conftest import prepare, train

HEAD = "classification_heads.sentence_classification_head.out_proj.weight"


def model_of(folder, name="checkpoint_last.pt"):
    return torch.load(folder / name, weights_only=True)["model"]


@pytest.fixture(scope="module")
def first(recipe, tmp_path_factory):
    """A model fine-tuned on the sample sentences."""
    folder = tmp_path_factory.mktemp("first")
    train(recipe.flags(folder))
    return folder


@pytest.fixture
def still(recipe, first, tmp_path):
    """Flags that start from that model and do not move it."""
    start = ("--finetune-from-model", first / "checkpoint_last.pt")
    frozen = ("--lr", 0, "--max-update", 1)
    return lambda *more: recipe.flags(tmp_path / "second", *start, *frozen, *more)


def test_the_encoder_is_taken_over_and_the_head_is_new(first, still, tmp_path):
    train(still("--seed", 7))
    before, after = model_of(first), model_of(tmp_path / "second")
    for name, tensor in after.items():
        assert torch.equal(before[name], tensor) != name.startswith("classification_heads"), name


def test_the_head_is_kept_on_request(first, still, tmp_path):
    train(still("--seed", 7, "--keep-head"))
    assert torch.equal(model_of(first)[HEAD], model_of(tmp_path / "second")[HEAD])


def test_by_restore_file_as_well(first, recipe, tmp_path):
    flags = recipe.flags(tmp_path / "second", "--lr", 0, "--max-update", 1)
    at = flags.index("--finetune-from-model")
    flags[at : at + 2] = ["--restore-file", str(first / "checkpoint_last.pt")]
    train([*flags, "--reset-optimizer", "--reset-dataloader", "--reset-meters", "--keep-head"])
    assert torch.equal(model_of(first)[HEAD], model_of(tmp_path / "second")[HEAD])


def test_resuming_never_touches_the_head(recipe, first, tmp_path):
    start = ("--finetune-from-model", first / "checkpoint_last.pt", "--lr", 0)
    train(recipe.flags(tmp_path, *start, "--max-update", 1))
    once = model_of(tmp_path)[HEAD]
    train(recipe.flags(tmp_path, *start, "--max-update", 2))
    assert torch.equal(once, model_of(tmp_path)[HEAD])


@pytest.fixture
def three_classes(encoder, tmp_path):
    text = "sentence\tlabel\n" + "".join(f"number {i} of them\t{i % 3}\n" for i in range(30))
    (tmp_path / "three.tsv").write_text(text)
    files = ("--train", tmp_path / "three.tsv", "--valid", tmp_path / "three.tsv")
    return prepare(tmp_path / "three", encoder, *files)


def test_other_classes_get_a_head_of_their_own(three_classes, still, tmp_path):
    train([str(three_classes), *still()[1:]])
    assert model_of(tmp_path / "second")[HEAD].shape == (3, 32)


def test_a_head_of_other_classes_cannot_be_kept(three_classes, still):
    with pytest.raises(SystemExit, match="--keep-head: the checkpoint has no head of 3 classes"):
        train([str(three_classes), *still("--keep-head")[1:]])


def test_a_pretrained_encoder_has_no_head_to_keep(recipe, tmp_path):
    with pytest.raises(SystemExit, match="--keep-head: the checkpoint has no head of 2 classes"):
        train(recipe.flags(tmp_path, "--keep-head"))
