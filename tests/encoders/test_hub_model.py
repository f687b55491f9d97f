"""`import-model` with the name of a model of the hub, and what it says where it has none."""

import hub as local_hub
import pytest
from test_import_model import roberta_source

POOLING = b'{"pooling_mode_mean_tokens": true}'


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The files of a small RoBERTa, as sentence-transformers keeps them, and what is not needed."""
    source = roberta_source(tmp_path_factory.mktemp("model"))
    files = {path.name: path.read_bytes() for path in source.folder.iterdir()}
    files |= {"modules.json": b"[]", "1_Pooling/config.json": POOLING}
    return files | {"pytorch_model.bin": b"a pickle", "onnx/model.onnx": b"another copy"}


@pytest.fixture
def hub(model):
    with local_hub.serving() as hub:
        hub.repositories["models/someone/small"] = model
        hub.repositories["models/someone/closed"] = model
        hub.gated = {"models/someone/closed"}
        yield hub


def test_a_model_of_the_hub_is_imported_then_taken_from_the_cache(hub, tmp_path):
    for output, more in {"first": {}, "again": {"HF_HUB_OFFLINE": "1"}}.items():
        command = ("import-model", "someone/small", tmp_path / output)
        result = local_hub.command(hub.url, tmp_path / "home", *command, **more)
        assert result.returncode == 0, result.stderr[-2000:]
        flags = (tmp_path / output / "train_flags.txt").read_text()
        assert "--arch minilm_l6" in flags and "cls" not in flags  # whose vectors are means
    names = {path for path, _ in hub.fetched}
    assert {"config.json", "model.safetensors", "tokenizer.json", "1_Pooling/config.json"} <= names
    assert not {"pytorch_model.bin", "onnx/model.onnx"} & names
    assert len(hub.fetched) == len(names)


def test_weights_in_several_files_are_refused(hub, model, tmp_path):
    parts = {name: content for name, content in model.items() if name != "model.safetensors"}
    parts["model.safetensors.index.json"] = b"{}"
    hub.repositories["models/someone/large"] = parts
    command = ("import-model", "someone/large", tmp_path / "out")
    result = local_hub.command(hub.url, tmp_path / "home", *command)
    assert "weights in several files cannot be read; save it anew" in result.stderr


@pytest.mark.parametrize(
    ("name", "reason", "offline"),
    [
        ("someone/nothing", "the hub has no such model, or a private one ('hf auth login')", "0"),
        ("nothing", "the hub has no such model, or a private one ('hf auth login')", "0"),
        ("someone/closed", "the hub lets only those have it who were granted access", "0"),
        ("someone/small", "the hub does not give it: ", "1"),
        ("a--b/c", "the hub does not give it: ", "0"),
    ],
)
def test_what_the_hub_does_not_give(hub, tmp_path, name, reason, offline):
    command = ("import-model", name, tmp_path / "out")
    result = local_hub.command(hub.url, tmp_path / "home", *command, HF_HUB_OFFLINE=offline)
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"fairseq-scl: error: {name} is no folder, and {reason}")
    assert last.endswith("('hf download') and give the folder, or set HF_ENDPOINT to a mirror")
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_no_network(tmp_path):
    command = ("import-model", "roberta-base", tmp_path / "out")
    result = local_hub.command("http://127.0.0.1:1", tmp_path / "home", *command)
    assert result.returncode == 1
    told = "fairseq-scl: error: roberta-base is no folder, and the hub does not give it: "
    [line] = result.stderr.splitlines()
    assert line.startswith(told)


def test_a_folder_of_the_same_name_comes_first(tmp_path, monkeypatch):
    from fairseq_scl.encoders.import_model import source_folder

    monkeypatch.chdir(tmp_path)
    (tmp_path / "roberta-base").mkdir()
    for name in ("roberta-base", "./nowhere", "/nowhere", "a/b/c", "~/x", "../x"):
        assert str(source_folder(name)) == name.removeprefix("./")
