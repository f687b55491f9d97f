"""export --format setfit: the same probabilities from SetFit's folder."""

import json
import os
import subprocess
import sys

import joblib
import numpy as np
import pytest
import torch
from conftest import PACKAGE, ROOT, prepare
from safetensors.torch import load_file
from test_export import import_encoder, prepare_pairs, train_on, write_temperature
from test_export_onnx import ODD, sentences_of

from fairseq_scl.cli import main
from fairseq_scl.inference import classifier
from fairseq_scl.studies.refit import use_head

ROWS = [*sentences_of(PACKAGE / "sample_data" / "valid.tsv"), *ODD]
# this environment, or the one that scripts/benchmark.sh makes
PYTHONS = (sys.executable, str(ROOT / ".venv-peers" / "bin" / "python"))
SETFIT = """
import json, sys
from setfit import SetFitModel
model, rows = SetFitModel.from_pretrained(sys.argv[1]), json.load(sys.stdin)
told = {"probabilities": model.predict_proba(rows).tolist(), "labels": list(model.predict(rows))}
print(json.dumps(told))
"""


def export(run, output):
    main(["export", str(run), str(output), "--format", "setfit"])
    return output


def prepare_three(folder, encoder):
    """Sentences of three classes, whose names are not in the order of the alphabet."""
    labels, path = ["so-so", "good", "bad"] * 4, folder / "three.jsonl"
    lines = [json.dumps({"text": f"{x} {i}", "label": x}) for i, x in enumerate(labels)]
    path.write_text("\n".join(lines))
    files = ("--train", path, "--valid", path, "--sentence", "text")
    return prepare(folder / "data", encoder, *files)


@pytest.fixture(
    scope="module",
    params=[
        "bert-mean", "bert-cls", "roberta-mean", "mpnet-mean", "three-classes", "refit-two",
        "refit-three",
    ],
)  # fmt: skip
def exported(request, tmp_path_factory):
    """A run and its export."""
    folder = tmp_path_factory.mktemp(request.param)
    others = {"three-classes": "bert-mean", "refit-two": "roberta-cls", "refit-three": "bert-mean"}
    kind, pooling = others.get(request.param, request.param).split("-")
    encoder = import_encoder(kind, folder)
    if "three" in request.param:
        data = prepare_three(folder, encoder)
    else:
        data = prepare(folder / "data", encoder, "--data", "sample")
    run = train_on(encoder, folder, data, "--pooling", pooling)
    use_head(run, "refit" if "refit" in request.param else "trained", 64)
    write_temperature(run)
    return run, export(run, folder / "exported")


def of_fairseq(run):
    predictions = classifier.load(run, cpu=True).predict(ROWS)
    probabilities = np.array([list(p.probabilities.values()) for p in predictions])
    assert probabilities.std(0).max() > 2e-3  # the rows differ
    return probabilities, [p.label for p in predictions]


def test_what_the_files_say_gives_fairseqs_probabilities(exported):
    """transformers' encoder, pooling and a dense layer by hand, scikit-learn's head."""
    import transformers

    run, folder = exported
    encoder = transformers.AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    settings = json.loads((folder / "sentence_bert_config.json").read_text())
    batch = tokenizer(
        ROWS, truncation=True, max_length=settings["max_seq_length"], padding=True,
        return_tensors="pt",
    )  # fmt: skip
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text())
    with torch.no_grad():
        states = encoder(**batch).last_hidden_state
    if pooling["pooling_mode_mean_tokens"]:
        mask = batch["attention_mask"][:, :, None]
        vectors = (states * mask).sum(1) / mask.sum(1)
    else:
        assert pooling["pooling_mode_cls_token"]
        vectors = states[:, 0]
    if json.loads((folder / "modules.json").read_text())[-1]["path"] == "2_Normalize":
        embeddings = torch.nn.functional.normalize(vectors)
    else:
        dense = load_file(folder / "2_Dense" / "model.safetensors")
        embeddings = (vectors @ dense["linear.weight"].T + dense["linear.bias"]).tanh()
    found = joblib.load(folder / "model_head.pkl").predict_proba(embeddings.numpy())
    expected, labels = of_fairseq(run)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    names = json.loads((folder / "config_setfit.json").read_text())["labels"]
    assert [names[i] for i in found.argmax(1)] == labels


@pytest.fixture(scope="module")
def python_with_setfit():
    """An interpreter that has SetFit."""
    for python in PYTHONS:
        command = [python, "-c", "import importlib.util as u; assert u.find_spec('setfit')"]
        if os.path.exists(python) and not subprocess.run(command, capture_output=True).returncode:
            return python
    pytest.skip("setfit is not installed; scripts/benchmark.sh makes .venv-peers, which has it")


def test_setfit_gives_fairseqs_probabilities(exported, python_with_setfit):
    run, folder = exported
    done = subprocess.run(
        [python_with_setfit, "-c", SETFIT, folder], input=json.dumps(ROWS), capture_output=True,
        text=True, env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    expected, labels = of_fairseq(run)
    np.testing.assert_allclose(told["probabilities"], expected, rtol=0, atol=1e-4)
    assert told["labels"] == labels


def test_what_setfit_does_not_compute_is_refused(tmp_path):
    encoder = import_encoder("bert", tmp_path)
    for name in ("pairs", "numbers", "relu"):
        (tmp_path / name).mkdir()
    pairs = prepare_pairs(tmp_path / "pairs", encoder, ["no", "yes", "no", "yes"])
    path = tmp_path / "numbers.csv"
    path.write_text("text,label\na,0\nb,1\nc,2\nd,3\n")
    files = ("--train", path, "--valid", path, "--sentence", "text", "--regression")
    numbers = prepare(tmp_path / "numbers" / "data", encoder, *files)
    three = prepare_three(tmp_path / "relu", encoder)
    for data, reason, flags in (
        (pairs, "SetFit's models take one sentence, this one two", ()),
        (numbers, "this one is a regression", ("--regression-target", "--scl-weight", 0)),
        (three, "the head's activation is relu", ("--pooler-activation-fn", "relu")),
    ):
        run = train_on(encoder, data.parent, data, *flags)
        with pytest.raises(SystemExit, match=rf"error: .*run cannot be exported: .*{reason}"):
            export(run, data.parent / "out")
        assert not (data.parent / "out").exists()
