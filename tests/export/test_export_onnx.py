"""export --format onnx: ONNX Runtime computes what fairseq does, from text on."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from conftest import PACKAGE, SHARED, prepare, train
from onnxruntime import InferenceSession
from test_export import PAIRS, import_encoder, prepare_pairs, train_on, write_temperature
from tokenizers import Tokenizer

from fairseq_scl.cli import main
from fairseq_scl.export import onnx as export_onnx
from fairseq_scl.inference import classifier
from fairseq_scl.preparation.tables import Columns, read_file

pytestmark = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < export_onnx.OLDEST_TORCH,
    reason="torch is too old for ONNX",
)
ODD = ["", "long " * 400, "naïve 日本語 🙂", "a </s> [SEP] <mask> b", "x"]
PADDED = "read as padding: [PAD] <pad> b"  # by fairseq, not by transformers


def export(run, output):
    main(["export", str(run), str(output), "--format", "onnx"])
    return output


def sentences_of(path):
    return [row.sentences[0] for row in read_file(path, Columns(("sentence",), "label"))]


def of_fairseq(run, rows):
    """Logits over the temperature and sentence vectors, a row at a time."""
    loaded = classifier.load(run, cpu=True)
    with torch.inference_mode():
        logits = [
            loaded.model(ids[None], features_only=True, classification_head_name=loaded.head)[0]
            for ids in loaded.encode(rows)
        ]
    logits = torch.cat(logits) / loaded.temperature
    return logits.numpy(), np.stack([p.embedding for p in loaded.predict(rows)])


def of_onnx(folder, rows, batch_size=32):
    """The same with nothing but the exported files."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    session = InferenceSession(folder / "model.onnx")
    parts = []
    for i in range(0, len(rows), batch_size):
        batch = tokenizer.encode_batch(rows[i : i + batch_size])
        ids, mask = ([getattr(row, key) for row in batch] for key in ("ids", "attention_mask"))
        inputs = {"input_ids": np.array(ids), "attention_mask": np.array(mask)}
        parts.append(session.run(["logits", "sentence_embedding"], inputs))
    return tuple(map(np.concatenate, zip(*parts, strict=True)))


def assert_same(run, folder, rows, batch_size=32):
    pairs = zip(of_onnx(folder, rows, batch_size), of_fairseq(run, rows), strict=True)
    for found, expected in pairs:
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
        assert expected.std(0).max() > 2e-3  # the rows differ


@pytest.mark.parametrize("kind", ["roberta", "bert", "mpnet"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_logits_and_sentence_vectors_are_fairseqs(kind, pooling, tmp_path):
    encoder = import_encoder(kind, tmp_path)
    data = prepare(tmp_path / "data", encoder, "--data", "sample")
    run = train_on(encoder, tmp_path, data, "--num-shots", 16, "--pooling", pooling)
    write_temperature(run)
    exported = export(run, tmp_path / "exported")
    rows = [*sentences_of(PACKAGE / "sample_data" / "test.tsv"), PADDED, *ODD]
    assert_same(run, exported, rows)
    assert_same(run, exported, rows[-8:], batch_size=1)
    config = json.loads((exported / "config.json").read_text())
    assert config["id2label"] == {"0": "negative", "1": "positive"}
    names = {path.name for path in exported.iterdir()}
    assert names == {"model.onnx", "tokenizer.json", "config.json", "README.md"}


@pytest.mark.parametrize("kind", ["roberta", "bert"])
def test_pairs_and_regression(kind, tmp_path):
    encoder = import_encoder(kind, tmp_path)
    labels = ["1", "0", "3", "2"]
    data = prepare_pairs(tmp_path, encoder, labels, "--regression")
    run = train_on(encoder, tmp_path, data, "--regression-target", "--scl-weight", 0)
    exported = export(run, tmp_path / "exported")
    assert_same(run, exported, PAIRS)
    config = json.loads((exported / "config.json").read_text())
    assert (config["problem_type"], len(config["id2label"])) == ("regression", 1)


@pytest.mark.parametrize(
    "flags",
    [
        ("--arch", "roberta"),  # fairseq's own, which looks whether there is padding
        ("--activation-fn", "tanh", "--pooler-activation-fn", "relu"),
    ],
)
def test_other_encoders(recipe, tmp_path, flags):
    tiny = ("--encoder-layers", 2, "--encoder-embed-dim", 32, "--encoder-ffn-embed-dim", 64)
    sizes = (*tiny, "--encoder-attention-heads", 2, "--max-positions", 64, "--max-update", 1)
    train(recipe.flags(tmp_path / "run", *sizes, *flags))
    exported = export(tmp_path / "run", tmp_path / "exported")
    assert_same(tmp_path / "run", exported, sentences_of(PACKAGE / "sample_data" / "valid.tsv"))


@pytest.fixture(scope="module")
def tiny(recipe, tmp_path_factory):
    """A run of the tiny encoder and its export."""
    folder = tmp_path_factory.mktemp("tiny")
    train(recipe.flags(folder / "run"))
    return folder / "run", export(folder / "run", folder / "exported")


def test_the_cards_lines_run_without_torch(tiny):
    run, exported = tiny
    code = (exported / "README.md").read_text().split("```python\n")[1].split("```")[0]
    code = f"import sys; sys.modules['torch'] = None\n{code}\nprint(logits.tolist())"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=exported, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected, _ = of_fairseq(run, ["a joy to watch", "so very dull"])
    np.testing.assert_allclose(json.loads(done.stdout), expected, rtol=0, atol=1e-4)


def test_the_graph_is_sound_and_tells_nothing_of_where_it_was_made(tiny):
    _, exported = tiny
    model = onnx.load(exported / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*model.graph.input, *model.graph.output]
    }
    assert shapes == {
        "input_ids": ["batch", "length"],
        "attention_mask": ["batch", "length"],
        "logits": ["batch", 2],
        "sentence_embedding": ["batch", 32],
    }
    assert str(PACKAGE.parent).encode() not in (exported / "model.onnx").read_bytes()


def test_without_onnx_one_line_says_what_to_install(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(SystemExit, match=r"error: .*install it with: pip install 'fairseq-scl\[on"):
        export(tiny[0], tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_minilm_on_all_of_sst2s_validation_set(tmp_path):
    main(["import-model", "minilm", str(tmp_path / "encoder")])
    data = prepare(tmp_path / "data", tmp_path / "encoder", "--data", "sample")
    run = train_on(tmp_path / "encoder", tmp_path, data, "--num-shots", 100, "--lr", 1e-4)
    rows = sentences_of(SHARED / "glue" / "SST-2" / "dev.tsv")
    assert len(rows) == 872
    assert_same(run, export(run, tmp_path / "exported"), rows)


def test_a_torch_whose_graphs_do_not_run_is_told(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.6.0+cu124")
    assert export_onnx.objection(None) == (
        "torch 2.6.0+cu124 writes graphs that ONNX Runtime refuses; 2.13 does not"
    )
    monkeypatch.setattr(torch, "__version__", "2.13.0+cpu")
    assert export_onnx.objection(None) is None


def test_without_onnx_it_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert export_onnx.objection(None).endswith("pip install 'fairseq-scl[onnx]'")
