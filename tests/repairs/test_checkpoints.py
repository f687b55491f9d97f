"""Checkpoints on torch >= 2.6: what is needed loads, nothing else does."""

import argparse
import os
import pickle

import pytest
import torch
from conftest import configure, run, train
from fairseq import checkpoint_utils

import fairseq_scl.plugin  # noqa: F401
from fairseq_scl.repairs.checkpoints import SAFE_CLASSES


class Payload:
    """Creates a file when it is unpickled by a careless reader."""

    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return os.mkdir, (str(self.victim),)


def save_with(path, extra: object, encoder) -> None:
    state = torch.load(encoder / "model.pt", weights_only=True)
    state["extra_state"]["more"] = extra
    torch.save(state, path)


def test_the_payload_would_act(tmp_path):
    torch.save({"model": Payload(tmp_path / "harm")}, tmp_path / "bad.pt")
    torch.load(tmp_path / "bad.pt", weights_only=False)
    assert (tmp_path / "harm").exists()


def test_a_foreign_pickle_is_refused_and_does_not_run(recipe, encoder, tmp_path):
    save_with(tmp_path / "bad.pt", Payload(tmp_path / "harm"), encoder)
    flags = recipe.flags(tmp_path / "run", "--finetune-from-model", tmp_path / "bad.pt")
    with pytest.raises(SystemExit, match=r"bad.pt: refused: .*mkdir"):
        train(flags)
    assert not (tmp_path / "harm").exists()


def test_the_command_refuses_it_in_one_line(recipe, encoder, tmp_path):
    save_with(tmp_path / "bad.pt", Payload(tmp_path / "harm"), encoder)
    flags = recipe.flags(tmp_path / "run", "--finetune-from-model", tmp_path / "bad.pt")
    result = run("fairseq-train", *flags)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("fairseq-scl: error: ")
    assert not (tmp_path / "harm").exists()


def test_a_bare_pickle_is_refused_and_does_not_run(recipe, tmp_path):
    with open(tmp_path / "bad.pt", "wb") as file:
        pickle.dump({"model": Payload(tmp_path / "harm")}, file)
    with pytest.raises(SystemExit, match=r"bad.pt"):
        train(recipe.flags(tmp_path / "run", "--finetune-from-model", tmp_path / "bad.pt"))
    assert not (tmp_path / "harm").exists()


def test_an_old_checkpoint_with_a_namespace_loads(encoder, tmp_path):
    save_with(tmp_path / "old.pt", argparse.Namespace(arch="roberta_large"), encoder)
    state = checkpoint_utils.load_checkpoint_to_cpu(str(tmp_path / "old.pt"))
    assert state["extra_state"]["more"].arch == "roberta_large"


def test_without_the_allow_list_it_would_not(tmp_path):
    torch.save({"args": argparse.Namespace(arch="roberta_base")}, tmp_path / "model.pt")
    with torch.serialization.safe_globals([]):
        kept = torch.serialization.get_safe_globals()
        torch.serialization.clear_safe_globals()
        try:
            with pytest.raises(pickle.UnpicklingError, match="Namespace"):
                torch.load(tmp_path / "model.pt", weights_only=True)
        finally:
            torch.serialization.add_safe_globals(kept)


def test_every_allowed_class_is_needed(recipe, tmp_path):
    """By a checkpoint's broadcast to other ranks, of which the tests of two processes need all."""
    import io

    from fairseq.distributed.utils import _split_tensors_from_obj

    train(recipe.flags(tmp_path))
    state = checkpoint_utils.load_checkpoint_to_cpu(str(tmp_path / "checkpoint_last.pt"))
    buffer = io.BytesIO()
    torch.save(_split_tensors_from_obj(state, []), buffer)
    buffer.seek(0)
    with torch.serialization.safe_globals([]):
        kept = torch.serialization.get_safe_globals()
        torch.serialization.clear_safe_globals()
        try:
            needed = torch.serialization.get_unsafe_globals_in_checkpoint(buffer)
        finally:
            torch.serialization.add_safe_globals(kept)
    allowed = {
        getattr(c, "__module__", "typing") + "." + getattr(c, "__qualname__", "Any")
        for c in SAFE_CLASSES
    }
    assert allowed == set(needed)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99])
def test_a_truncated_checkpoint_is_told_in_one_line(recipe, encoder, tmp_path, kept):
    whole = (encoder / "model.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(SystemExit, match=r"cut.pt: (not a whole fairseq checkpoint|refused)"):
        train(recipe.flags(tmp_path / "run", "--finetune-from-model", tmp_path / "cut.pt"))


def test_something_else_than_a_checkpoint_is_told_in_one_line(recipe, tmp_path):
    torch.save({"weights": torch.ones(2)}, tmp_path / "other.pt")
    with pytest.raises(SystemExit, match=r"other.pt: not a whole fairseq checkpoint"):
        train(recipe.flags(tmp_path / "run", "--finetune-from-model", tmp_path / "other.pt"))


@pytest.mark.parametrize("flag", ["--finetune-from-model", "--restore-file"])
def test_a_missing_checkpoint_is_not_ignored(recipe, tmp_path, flag):
    flags = [f for f in recipe.flags(tmp_path) if f != "--finetune-from-model"]
    flags = [f for f in flags if f != str(recipe.encoder / "model.pt")]
    with pytest.raises(SystemExit, match=rf"{flag} .*typo.pt: no such file"):
        train([*flags, flag, str(tmp_path / "typo.pt")])


def test_a_checkpoint_of_another_dictionary_is_told(recipe, data, tmp_path):
    import shutil

    shutil.copytree(data, tmp_path / "data")
    with open(tmp_path / "data" / "input0" / "dict.txt", "a", encoding="utf-8") as file:
        file.write("surplus 1\n")
    shutil.copy(recipe.encoder / "model.pt", tmp_path / "model.pt")
    more = ("--finetune-from-model", tmp_path / "model.pt")
    flags = [str(tmp_path / "data"), *recipe.flags(tmp_path / "run", *more)[1:]]
    with pytest.raises(SystemExit, match=r"the checkpoint has \d+ tokens, .*dict.txt gives \d+"):
        train(flags)


def test_a_dictionary_in_another_order_is_told(recipe, data, tmp_path):
    """Of the same size, so that only the words of the file beside the checkpoint tell."""
    import shutil

    shutil.copytree(data, tmp_path / "data")
    path = tmp_path / "data" / "input0" / "dict.txt"
    path.write_text("".join(sorted(path.read_text().splitlines(keepends=True))))
    with pytest.raises(SystemExit, match=r"data/input0/dict.txt is not .*tiny/dict.txt"):
        train([str(tmp_path / "data"), *recipe.flags(tmp_path / "run")[1:]])


def test_a_checkpoint_of_another_architecture_is_told(recipe, tmp_path):
    with pytest.raises(SystemExit, match=r"in the checkpoint and .* in the model"):
        train(recipe.flags(tmp_path, "--encoder-ffn-embed-dim", 48))


def test_restoring_by_restore_file_needs_no_help(recipe, tmp_path):
    flags = recipe.flags(tmp_path, "--max-update", 2)
    at = flags.index("--finetune-from-model")
    flags[at] = "--restore-file"
    reset = ["--reset-optimizer", "--reset-dataloader", "--reset-meters"]
    train([*flags, *reset])
    assert (tmp_path / "checkpoint_last.pt").is_file()
    assert configure([*flags, *reset]).checkpoint.reset_meters
