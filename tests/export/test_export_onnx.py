"""export --format onnx: ONNX Runtime computes what fairseq does, from text on."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from conftest import PACKAGE, SHARED, prepare, train
from onnxruntime import InferenceSession
from test_export import PAIRS, import_encoder, prepare_pairs, train_on, write_temperature
from tokenizers import Tokenizer

from fairseq_scl.cli import main
from fairseq_scl.errors import UserError
from fairseq_scl.export import onnx as export_onnx
from fairseq_scl.inference import classifier
from fairseq_scl.preparation.tables import Columns, read_file

pytestmark = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < export_onnx.OLDEST_TORCH,
    reason="torch is too old for ONNX",
)
ODD = ["", "long " * 400, "naïve 日本語 🙂", "a </s> [SEP] <mask> b", "x"]
PADDED = "read as padding: [PAD] <pad> b"  # by fairseq, not by transformers


def export(run, output, *more):
    main(["export", str(run), str(output), "--format", "onnx", *more])
    return output


def sentences_of(path):
    return [row.sentences[0] for row in read_file(path, Columns(("sentence",), "label"))]


def of_fairseq(run, rows):
    """Logits over the temperature and sentence vectors, a row at a time."""
    loaded = classifier.load(run, cpu=True)
    with torch.inference_mode():
        logits = [
            loaded.model(
                torch.from_numpy(ids)[None],
                features_only=True,
                classification_head_name=loaded.head,
            )[0]
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


def assert_same_predictions(run, folder, rows, **how):
    """Those of `load` on the exported folder and on the run, whose head has no temperature yet."""
    ours, theirs = (classifier.load(path, cpu=True) for path in (folder, run))
    assert (ours.classes, ours.sentences, ours.dim) == (
        theirs.classes, theirs.sentences, theirs.dim
    )  # fmt: skip
    for found, expected in zip(ours.predict(rows, **how), theirs.predict(rows, **how), strict=True):
        assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-4)
        np.testing.assert_allclose(found.embedding, expected.embedding, rtol=0, atol=1e-4)
        if theirs.classes:
            assert found.label == expected.label
        else:
            assert found.label == pytest.approx(expected.label, abs=1e-4)


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
    assert_same_predictions(run, exported, rows, threshold=0.6)
    assert_same_predictions(run, exported / "model.onnx", ["wonderful " * 300], long="windows")
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
    assert_same_predictions(run, exported, [*PAIRS, ("long " * 300, "short")])
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


def test_predict_runs_the_graph_with_neither_torch_nor_fairseq(tiny, tmp_path):
    run, exported = tiny
    table = PACKAGE / "sample_data" / "test.tsv"
    for model, name in ((run, "run.csv"), (exported, "exported.csv")):
        code = (
            "import sys; from fairseq_scl.cli import main; "
            f"main(['predict', {str(model)!r}, {str(table)!r}, '--output', {name!r}]); "
            "print({'torch', 'fairseq'} & set(sys.modules))"
        )
        told = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=tmp_path)
        assert (told == "set()\n") == (model == exported)
    ours, theirs = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("exported", "run"))
    assert len(ours) == 200 and (ours.iloc[:, :-1] == theirs.iloc[:, :-1]).all(axis=None)
    np.testing.assert_allclose(ours.iloc[:, -1], theirs.iloc[:, -1], atol=2e-4)


def test_int8_is_smaller_and_labels_nearly_alike(tiny, tmp_path):
    run, exported = tiny
    small = export(run, tmp_path / "small", "--int8")
    assert {path.name for path in small.iterdir()} == {path.name for path in exported.iterdir()}
    weights = {
        path: sum(
            np.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
            for tensor in onnx.load(path / "model.onnx").graph.initializer
            if len(tensor.dims) == 2
        )
        for path in (small, exported)
    }
    assert weights[small] < 0.27 * weights[exported]  # float32 is four times int8
    rows = sentences_of(PACKAGE / "sample_data" / "test.tsv")
    found, expected = of_onnx(small, rows), of_onnx(exported, rows)
    for ours, theirs in zip(found, expected, strict=True):
        assert 0 < np.abs(ours - theirs).mean() < 0.05 * np.abs(theirs).max()
    assert "int8" in (small / "README.md").read_text()


def test_int8_is_for_onnx(tiny, tmp_path):
    with pytest.raises(SystemExit, match="--int8 is for --format onnx"):
        main(["export", str(tiny[0]), str(tmp_path / "out"), "--int8"])


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("config.json", None, r"config.json cannot be read"),
        ("config.json", '{"id2label": {}}', r"config.json: problem_type: Field required"),
        ("config.json", {"before": []}, r"config.json: id2label or before is not as export"),
        ("config.json", {"id2label": {"1": "a"}}, r"config.json: id2label or before is not as"),
        ("config.json", {"max_length": -1}, r"config.json: max_length: Input should be greater"),
        ("tokenizer.json", None, r"tokenizer.json cannot be read"),
        ("tokenizer.json", "{}", r"tokenizer.json cannot be read"),
        ("model.onnx", "no graph", r"model.onnx cannot be read"),
    ],
)
def test_a_damaged_folder_is_told_in_one_line(tiny, tmp_path, name, content, told):
    folder = Path(shutil.copytree(tiny[1], tmp_path / "copy"))
    if isinstance(content, dict):
        content = json.dumps(json.loads((folder / name).read_text()) | content)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(UserError, match=told):
        classifier.load(folder)


def test_without_onnxruntime_one_line_says_what_to_install(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"model.onnx needs: pip install 'fairseq-scl\[onnx\]'"):
        classifier.load(tiny[1])


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
