"""Checkpoints whose parts are others than a run of this plugin writes."""

import argparse
import copy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from conftest import train
from mutations import WRONG, ended, in_bounded_memory

import fairseq_scl.plugin  # noqa: F401
from fairseq_scl.cli import main
from fairseq_scl.errors import UserError
from fairseq_scl.models import saved

EMBEDDING = "encoder.sentence_encoder.embed_tokens.weight"


@pytest.fixture(scope="module")
def trained(recipe, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(recipe.flags(folder, "--max-update", 2))
    return folder


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy that a test may change."""
    (tmp_path / "in.txt").write_text("a fine film\n")
    return Path(shutil.copytree(trained, tmp_path / "run"))


def read(run: Path) -> dict:
    return torch.load(run / "checkpoint_best.pt", weights_only=True)


def write(run: Path, state: object) -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)  # pickle needs as much as a value is deep
    try:
        torch.save(state, run / "checkpoint_best.pt")
    finally:
        sys.setrecursionlimit(limit)


def put(state, path: tuple, value: object) -> None:
    """Set a key, an attribute of options, or remove it (...)."""
    *above, last = path
    for key in above:
        state = vars(state)[key] if isinstance(state, argparse.Namespace) else state[key]
    state = vars(state) if isinstance(state, argparse.Namespace) else state
    if value is ...:
        del state[last]
    else:
        state[last] = value


def commands(run: Path) -> list[list[str]]:
    """Every command that loads a fine-tuned model."""
    return [
        ["predict", str(run), str(run.parent / "in.txt"), "--cpu"],
        ["evaluate", str(run)],
        ["export", str(run), str(run.parent / "out")],
    ]


def deep() -> list:
    value: list = []
    for _ in range(5000):
        value = [value]
    return value


PARTS = [
    (("cfg",), ...),
    (("cfg",), None),
    (("cfg",), 5),
    (("cfg",), {}),
    (("cfg",), {3: 4}),
    (("cfg", "task"), ...),
    (("cfg", "task"), None),
    (("cfg", "task", "_name"), "sentence_prediction"),
    (("cfg", "task", "_name"), "translation"),
    (("cfg", "task", "init_token"), 10**6),
    (("cfg", "task", "separator_token"), 400),
    (("cfg", "task", "num_shots"), "many"),
    (("cfg", "task", "deep"), [deep]),
    (("cfg", "model"), None),
    (("cfg", "model", "encoder_layers"), 10**6),
    (("cfg", "model", "encoder_embed_dim"), 2**40),
    (("cfg", "model", "encoder_ffn_embed_dim"), 2**40),
    (("cfg", "model", "max_positions"), 10**12),
    (("cfg", "model", "max_positions"), None),
    (("cfg", "model", "encoder_attention_heads"), 10**12),
    (("cfg", "model", "pooling"), "max"),
    (("cfg", "criterion"), None),
    (("cfg", "criterion", "classification_head_name"), "another"),
    (("cfg", "criterion", "scl_weight"), "heavy"),
    (("cfg", "common"), None),
    (("cfg", "common", "tensorboard_logdir"), "${oc.env:HOME}"),
    (("model",), ...),
    (("model",), None),
    (("model",), [torch.ones(2)]),
    (("model",), {}),
    (("model", EMBEDDING), ...),
    (("model", EMBEDDING), 5),
    (("model", EMBEDDING), torch.ones(400, 32, dtype=torch.complex64)),
    (("model", EMBEDDING), torch.ones(400, 32).to_sparse()),
    (("model", EMBEDDING), torch.ones(1).expand(10**7, 10**6)),
    (("model", EMBEDDING), torch.ones(3)),
    (("model", 7), torch.ones(2)),
    (("model", "classification_heads.sentence_classification_head.out_proj.weight"), ...),
    (("optimizer_history",), []),
    (("optimizer_history",), 5),
    (("extra_state",), None),
]


@pytest.mark.parametrize(
    ("path", "value"), PARTS, ids=[f"{'.'.join(map(str, p))}-{str(v)[:20]}" for p, v in PARTS]
)
def test_a_checkpoint_of_other_parts_is_told_in_one_line(run, path, value):
    state = read(run)
    put(state, path, [deep()] if value == [deep] else value)
    write(run, state)
    for command in commands(run):
        told = ended(command)
        assert f"{run / 'checkpoint_best.pt'}: not a" in told
        assert len(told.splitlines()) == 1
    assert not (run.parent / "out").exists() and not (run / "result.json").exists()


@pytest.mark.parametrize("state", [None, 5, [], {}, {"model": {}}, {1: 2}, torch.ones(2)])
def test_something_else_is_told_in_one_line(run, state):
    write(run, state)
    for command in commands(run):
        assert f"{run / 'checkpoint_best.pt'}: not a" in ended(command)


FIELDS = saved.FineTuned.model_fields.values()
KEYS = [("cfg", "model", name) for name in saved.EncoderOptions.model_fields]
KEYS += [tuple(field.validation_alias.path) for field in FIELDS if field.validation_alias]


@pytest.mark.parametrize("path", KEYS, ids=map(".".join, KEYS))
def test_whatever_else_stands_at_a_key_loads_or_is_told_in_one_line(run, path):
    whole = read(run)
    for value in (..., *WRONG):
        state = copy.deepcopy(whole)
        put(state, path, value)
        write(run, state)
        try:
            saved.load(run / "checkpoint_best.pt", run / "inference")
        except UserError as error:
            assert len(str(error).splitlines()) == 1, value  # noqa: PT017


@pytest.mark.parametrize(
    ("name", "value"),
    [("encoder_layers", 10**6), ("encoder_embed_dim", 2**40), ("max_positions", 10**12)],
)
def test_sizes_are_not_allocated_because_a_checkpoint_claims_them(run, name, value):
    state = read(run)
    put(state, ("cfg", "model", name), value)
    write(run, state)
    finished = in_bounded_memory(*commands(run)[0])
    assert f"cfg.model.{name} is {value}, the weights have" in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("arch", "sentence_roberta --user-dir evil"),
        ("activation_fn", "gelu\n--user-dir evil"),
        ("pooling", "max"),
        ("layernorm_eps", "small"),
        ("encoder_layers", 10**6),
        ("encoder_layers", "2"),
        ("encoder_attention_heads", [2]),
    ],
)
def test_an_encoder_of_other_options_is_not_imported(encoder, tmp_path, name, value):
    shutil.copytree(encoder, tmp_path / "encoder")
    (tmp_path / "encoder" / "train_flags.txt").unlink()
    state = torch.load(encoder / "model.pt", weights_only=True)
    state["cfg"]["model"][name] = value
    torch.save(state, tmp_path / "encoder" / "model.pt")
    told = ended(["import-model", str(tmp_path / "encoder"), str(tmp_path / "out")])
    assert "model.pt: not a" in told and (name in told or name == "arch")
    assert len(told.splitlines()) == 1


def test_a_longest_row_beyond_the_positions_is_told(run):
    path = run / "inference" / "prepared.json"
    path.write_text(path.read_text().replace('"max_length": 64', '"max_length": 65'))
    with pytest.raises(UserError, match="max_length 65 is beyond the model's 64 positions"):
        main(commands(run)[0])


def test_classes_in_another_order_are_told(run):
    path = run / "inference" / "label" / "dict.txt"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    with pytest.raises(UserError, match="has not the classes of prepared.json"):
        main(commands(run)[0])
