"""Wrong inputs, over every command: one line that tells what is wrong and where, nothing written.

All of it lies in a folder whose name has a space and letters beyond ASCII.
"""

import io
import json
import os
import random
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, Recipe, prepare, train
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairseq_scl.cli import main
from fairseq_scl.data import stored
from fairseq_scl.files import locked

SENTENCES = ["a fine film", "a dull film", "warm and funny", "two hours of noise"]


class Payload:
    """Whoever unpickles it makes a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def table(*rows: str) -> bytes:
    return "\n".join(rows).encode() + b"\n"


FILES = {
    "good.csv": table("sentence,label", "a fine film,1", "a dull film,0", "warm,1", "cold,0"),
    "good.tsv": table("sentence\tlabel", "a fine film\t1", "a dull film\t0"),
    "good.txt": table(*SENTENCES),
    "empty.csv": b"",
    "header.csv": b"sentence,label\n",
    "other.csv": table("text,class", "a,1"),
    "codes.csv": table("a,b", "1,2"),
    "book.xlsx": b"PK",
    "latin.csv": table("sentence,label", "fine,1") + b"caf\xe9,0\n",
    "fields.csv": table("sentence,label", "fine,1", "a, b, c,0"),
    "quote.csv": table("sentence,label", '"fine,1', "dull,0"),
    "nolabel.csv": table("sentence,label", "fine,1", "dull,"),
    "newlabel.csv": table("sentence,label", "fine,7"),
    "special.csv": table("sentence,label", "fine,<pad>", "dull,0"),
    "twolines.csv": table("sentence,label", 'fine,"a', 'b"', "dull,0"),
    "words.csv": table("sentence,label", "fine,0.5", "dull,much"),
    "infinite.csv": table("sentence,label", "fine,0.5", "dull,inf"),
    "one.csv": table("sentence,label", "fine,1", "dull,1"),
    "capital.csv": table("sentence,Label", "fine,1"),
    "lines.json": table('{"sentence": "fine"}', '{"sentence": "dull"}'),
    "not.parquet": b"PAR1 no more",
    "not.csv.gz": b"sentence,label",
    "good.docx": b"fine",
    "short.tsv": table("sentence\tlabel", "fine\t1", "dull"),
    "not.jsonl": table('{"sentence": "fine", "label": 1}', '{"sentence": "dull'),
    "list.jsonl": table('["fine", 1]'),
    "number.jsonl": table('{"sentence": 5, "label": 1}'),
    "half.jsonl": table('{"sentence": "\\ud800", "label": 1}'),
    "object.jsonl": table('{"sentence": "fine", "label": {"a": 1}}'),
    "deep.jsonl": b"[" * 100_000 + b"\n",
    "pairs.txt": table("a film\tanother film"),
    "utf16.txt": "a film\n".encode("utf-16"),
    "glue/MNLI/test_matched.tsv": table("index\tsentence1\tsentence2", "0\ta\tb"),
    "glue/SST-2/train.tsv": table("sentence\tlabel", "fine\t1", "dull\t0", "odd\t2"),
    "glue/SST-2/dev.tsv": table("sentence\tlabel", "fine\t1", "dull\t0"),
    "glue/SST-2/test.tsv": table("index\tsentence", "0\tfine"),
}


@pytest.fixture(scope="module")
def place(recipe, tmp_path_factory) -> Path:
    """encoder/, data/, run/ (trained, evaluated) and FILES."""
    folder = tmp_path_factory.mktemp("place") / "wörk dir"
    shutil.copytree(recipe.encoder, folder / "encoder")
    prepare(folder / "data", folder / "encoder", "--data", "sample")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    logs = ("--tensorboard-logdir", folder / "run" / "tensorboard")
    train(flags(recipe, folder, "--save-dir", folder / "run", "--max-update", 2, *logs))
    main(["evaluate", str(folder / "run")])
    return folder


def flags(recipe: Recipe, folder: Path, *more: object) -> list[str]:
    """Arguments of fairseq-train; the recipe itself cannot have spaces in paths."""
    return [str(folder / "data"), *recipe.flags(Path("unused"), *more)[1:]]


def listing(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def ended(arguments: list[str]) -> str:
    """The line that a command ends with, empty if it succeeds."""
    try:
        main(arguments)
    except SystemExit as error:
        return str(error.code)
    return ""


def refusal(run, *arguments) -> str:
    """The line that a command ends with; a traceback would be another exception."""
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    message = str(caught.value.code)
    assert "\n" not in message.strip()
    assert message.startswith("fairseq-scl: error: ")
    return message


# the command line; what its message must hold
COMMANDS = """
prepare data --encoder encoder --data sample | data exists already
prepare out --encoder nowhere --data sample | nowhere/dict.txt is missing
prepare out --encoder good.csv --data sample | good.csv/dict.txt is missing
prepare out --encoder encoder --data iris | --data iris: it must be 'sample', amazon-2, yelp-2, glue:TASK or hf:NAME
prepare out --encoder encoder --data glue:SST-2 | hf:nyu-mll/glue:sst2:
prepare out --encoder encoder --data glue:SST-5 --glue-dir glue | --data glue:SST-5: the GLUE tasks are CoLA, SST-2
prepare out --encoder encoder --data glue:RTE --glue-dir glue | glue/RTE/train.tsv cannot be read (No such file
prepare out --encoder encoder --data glue:SST-2 --glue-dir glue | train.tsv: 3 labels (0, 1, 2), the published SST-2 has 2
prepare out --encoder encoder --data yelp-2 | --data yelp-2 needs --data-dir
prepare out --encoder encoder --data yelp-2 --data-dir glue | glue
prepare out --encoder encoder --data sample --glue-dir glue | --glue-dir means nothing for --data sample
prepare out --encoder encoder --data sample --encoding cp1252 | --encoding means nothing for --data sample
prepare out --encoder encoder --data glue:RTE --regression | --regression means nothing for --data glue:RTE
prepare out --encoder encoder --data hf:imdb --delimiter tab | --delimiter means nothing for --data hf:imdb
prepare out --encoder encoder --train good.csv --valid good.csv --test-split test | --test-split means nothing for your own files
prepare out --encoder encoder | give either --data, or --train
prepare out --encoder encoder --data sample --train good.csv | give either --data, or --train
prepare out --encoder encoder --valid good.csv | --train is needed
prepare out --encoder encoder --train missing.csv --valid good.csv | missing.csv cannot be read (No such file
prepare out --encoder encoder --train glue --valid good.csv | glue: the name must end in .tsv, .csv, .jsonl
prepare out --encoder encoder --train good.txt --valid good.csv | good.txt: the name must end in
prepare out --encoder encoder --train empty.csv --valid good.csv | empty.csv is empty
prepare out --encoder encoder --train header.csv --valid good.csv | header.csv has no rows
prepare out --encoder encoder --train other.csv --valid good.csv | other.csv: no column 'sentence'; the columns are text, class
prepare out --encoder encoder --train good.csv --valid good.csv --sentence2 b | good.csv: no column 'b'
prepare out --encoder encoder --train good.csv --valid good.csv --label c | good.csv: no column 'c'; the columns are
prepare out --encoder encoder --train latin.csv --valid good.csv | latin.csv, row 3: not UTF-8
prepare out --encoder encoder --train book.xlsx --valid good.csv | book.xlsx: save it as CSV (UTF-8)
prepare out --encoder encoder --train fields.csv --valid good.csv | fields.csv, row 3: 4 fields, there are 2 columns
prepare out --encoder encoder --train quote.csv --valid good.csv | quote.csv, row 3: not CSV (unexpected end of data)
prepare out --encoder encoder --train nolabel.csv --valid good.csv | nolabel.csv, row 3: no label
prepare out --encoder encoder --train good.csv --valid newlabel.csv | newlabel.csv, row 2: label '7' does not occur in the training data (0, 1)
prepare out --encoder encoder --train special.csv --valid good.csv | special.csv, row 2: label '<pad>' is fairseq's own
prepare out --encoder encoder --train twolines.csv --valid good.csv | twolines.csv, row 3: a label must be one line of text
prepare out --encoder encoder --train words.csv --valid good.csv --regression | words.csv, row 3: label 'much' is not a number
prepare out --encoder encoder --train infinite.csv --valid good.csv --regression | infinite.csv, row 3: label 'inf' is not a number
prepare out --encoder encoder --train short.tsv --valid good.csv | short.tsv, row 3: 1 fields, at least 2 are needed
prepare out --encoder encoder --train not.jsonl --valid good.csv | not.jsonl, row 2: not JSON
prepare out --encoder encoder --train list.jsonl --valid good.csv | list.jsonl, row 1: not a JSON object
prepare out --encoder encoder --train number.jsonl --valid good.csv | number.jsonl, row 1: 'sentence' must be a string
prepare out --encoder encoder --train half.jsonl --valid good.csv | half.jsonl, row 1: 'sentence' holds half a character
prepare out --encoder encoder --train object.jsonl --valid good.csv | object.jsonl, row 1: 'label' must be a string or a number
prepare out --encoder encoder --train deep.jsonl --valid good.csv | deep.jsonl, row 1: not JSON
prepare out --encoder encoder --data hf:nobody/nothing | hf:nobody/nothing:
prepare out --encoder encoder --train one.csv --valid one.csv | one.csv: only one class (1)
prepare out --encoder encoder --train good.csv --valid good.csv --sentence label | must name different columns
prepare out --encoder encoder --train good.csv --valid good.csv --delimiter ;; | --delimiter ';;': it must be one character
prepare out --encoder encoder --train good.csv --valid good.csv --encoding latin-17 | --encoding latin-17
prepare out --encoder encoder --train good.csv --valid good.csv --test capital.csv | capital.csv: no column 'label'; the columns are sentence, Label
prepare out --encoder encoder --train lines.json --valid good.csv | lines.json: not a JSON array
prepare out --encoder encoder --train not.parquet --valid good.csv | not.parquet cannot be read
prepare out --encoder encoder --train not.csv.gz --valid good.csv | not.csv.gz cannot be read
prepare out --encoder encoder --data sample --max-length 7 | --max-length 7 must be at least 8
prepare out --encoder encoder --data sample --max-length 65 | --max-length 65 is beyond the encoder's 64 positions
prepare good.csv/out --encoder encoder --data sample | good.csv: File exists
predict nowhere good.txt | nowhere: no such file
predict good.csv good.txt | inference is missing, with the dictionary and the tokenizer
predict run missing.txt | missing.txt cannot be read (No such file
predict run glue | glue cannot be read (Is a directory
predict run good.docx | good.docx: the name must end in .tsv, .csv, .jsonl
predict run lines.json | lines.json: not a JSON array
predict run utf16.txt | utf16.txt, row 1: not UTF-8
predict run pairs.txt | pairs.txt, row 1: 2 fields, the model takes a sentence
predict run codes.csv | codes.csv: no column 'sentence'; the columns are a, b; name one: --sentence NAME
predict run other.csv --sentence sentence | other.csv: no column 'sentence'; the columns are text, class
predict run book.xlsx | book.xlsx: save it as CSV (UTF-8)
predict run latin.csv | latin.csv, row 3: not UTF-8 (invalid continuation byte); --encoding names another
predict run good.txt --threshold 2 | --threshold 2.0 must be above 0 and at most 1
predict run good.txt --output out.xlsx | --output out.xlsx: the name must end in .csv or .jsonl
predict run good.txt --output good.txt | --output good.txt is what is read; choose another name
predict run good.csv --sentence label --sentence2 c | good.csv: no column 'c'
predict run other.csv --delimiter ; | other.csv: one column, 'text,class'; is it --delimiter ','?
predict run good.txt --encoding undefined | --encoding undefined: no encoding of text
evaluate run --batch-size 0 | --batch-size 0 must be at least 1
evaluate run --data nowhere | --data nowhere: no such folder
predict run good.txt --batch-size 0 | --batch-size 0 must be at least 1
predict run good.txt --output good.csv/out | good.csv: File exists
predict run --glue-submission SST-5 | SST-5
predict run --glue-submission SST-2 | --glue-dir
predict run --glue-submission SST-2 --glue-dir glue --output out | SST-2/test.tsv has 1 rows, the published set 1,821
predict run --glue-submission RTE --glue-dir glue --output out | RTE/test.tsv cannot be read
export run run | run exists already
export nowhere out | nowhere
evaluate nowhere | nowhere/checkpoint_best.pt: no such file
evaluate run nowhere | nowhere/checkpoint_best.pt: no such file
report nowhere | nowhere
report data | data
report run --output out.docx | --output out.docx: the name must end in .md, .tex, .csv, .html
report run --output nowhere/out.md | --output nowhere/out.md: nowhere is not a folder
plot curves nowhere --output out.png | nowhere
plot curves run --output out.gif | out.gif
plot curves run --output nowhere/out.png | nowhere
plot curves run --output out.png --metric beauty | beauty
plot shots run --output out.png | run
plot noise run --output out.png | run
verify run/manifest.json --data nowhere | nowhere
verify nowhere.json --data data | nowhere.json
verify good.csv --data data | good.csv
import-model nowhere out | nowhere is no folder, and
import-model no/where/at/all out | no/where/at/all holds neither config.json nor model.pt
import-model good.csv out | good.csv
import-model encoder encoder | encoder exists already
import-model glue out | glue
back-translate data --forward run/checkpoint_best.pt --backward run/checkpoint_best.pt --temperature 0 --encoder encoder | --temperature 0 must be above 0
back-translate data --forward nowhere.pt --backward nowhere.pt --temperature 0.9 --encoder encoder | nowhere.pt
back-translate nowhere --forward a.pt --backward a.pt --temperature 0.9 --encoder encoder | nowhere
back-translate data --forward a.pt --backward a.pt --temperature 0.9 --encoder nowhere | nowhere
back-translate data --forward a.pt --backward a.pt --temperature 0.9 --encoder encoder --copies 0 | --copies 0 must be at least 1
back-translate data --forward a.pt --backward a.pt --temperature 0.9 --encoder encoder --batch-size 0 | --batch-size 0 must be at least 1
back-translate data --forward a.pt --backward a.pt --temperature 0.9 --encoder encoder --num-shots 1 | --num-shots 1
back-translate data --forward a.pt --backward a.pt --temperature 0.9 --encoder encoder --manifest good.csv | good.csv
back-translate data --forward run/checkpoint_best.pt --backward run/checkpoint_best.pt --temperature 0.9 --encoder encoder --bpe none | run/checkpoint_best.pt
"""


def cases(text: str) -> list[tuple[str, str]]:
    pairs = [line.split(" | ") for line in text.strip().splitlines()]
    return [(command, message) for command, message in pairs]


@pytest.mark.parametrize(("command", "message"), cases(COMMANDS))
def test_a_command_tells_what_is_wrong_and_writes_nothing(place, monkeypatch, command, message):
    monkeypatch.chdir(place)
    before = listing(place)
    assert message in refusal(main, shlex.split(command))
    left = {path for path in listing(place) - before if path.is_file()}
    assert {path.name for path in left} <= {".lock", "settings.json"}  # of back-translate


FLAGS = """
--num-shots 0 | --num-shots 0
--num-shots -5 | --num-shots -5
--num-shots 1 | --num-shots 1
--num-shots 100000 | --num-shots 100000
--protocol full --num-shots 100000 | --num-shots 100000
--noise label --label-noise 1.5 | --label-noise 1.5
--noise label --label-noise -0.1 | --label-noise -0.1
--label-noise 0.5 | --label-noise 0.5 needs --noise label
--noise label --token-noise 0.5 | --token-noise 0.5 needs --noise tokens
--noise tokens --noise-replace | --noise-replace True needs --noise back-translation
--noise-temperature 0.5 | --noise-temperature 0.5 needs --noise back-translation
--noise tokens --token-noise 1.5 | --token-noise 1.5
--noise back-translation | --noise-temperature
--noise back-translation --noise-temperature 0.7 | 0.7
--noise back-translation --noise-temperature 0.7 --noise-ratio 0 | --noise-ratio 0
--samples-per-class 3 | --samples-per-class 3
--samples-per-class 0 | --samples-per-class 0
--scl-weight 1.5 | --scl-weight 1.5 must be in [0, 1]
--scl-weight -1 | --scl-weight -1.0 must be in [0, 1]
--scl-weight nan | --scl-weight nan must be in [0, 1]
--scl-temperature 0 | --scl-temperature 0.0 must be above 0
--scl-temperature nan | --scl-temperature nan must be above 0
--scl-views 0 | --scl-views 0 must be at least 1
--scl-chunk-size 0 | --scl-chunk-size 0 must be at least 1
--scl-queue -1 | --scl-queue -1 must be at least 0
--scl-queue 8 --scl-no-gather | --scl-queue is common to all workers
--regression-target | --regression-target has no classes to contrast; it needs --scl-weight 0
--scl-weight 0 --regression-target --class-weights balanced | --class-weights: --regression-target has no classes
--num-classes 3 | --num-classes 3
--optimizer fused_adam --adam-betas 0.9 | --adam-betas 0.9 must be two numbers
--optimizer fused_adam --memory-efficient-bf16 | --memory-efficient-fp16 and --memory-efficient-bf16 need --optimizer adam
--fp16 | --fp16
--amp | --amp
--finetune-from-model nowhere.pt | nowhere.pt
--finetune-from-model good.csv | good.csv
--restore-file nowhere.pt --save-dir out | nowhere.pt
--max-positions 32 | max
--encoder-embed-dim 64 | (400, 32) in the checkpoint and (400, 64) in the model
--arch roberta_base --scl-chunk-size 2 | --scl-chunk-size needs --arch sentence_roberta
"""


@pytest.mark.parametrize(("more", "message"), cases(FLAGS))
def test_training_tells_what_is_wrong_and_saves_nothing(place, recipe, monkeypatch, more, message):
    monkeypatch.chdir(place)
    before = listing(place)
    assert message in refusal(train, flags(recipe, place, "--save-dir", "out", *more.split()))
    assert all(path.is_relative_to(place / "out") for path in listing(place) - before)
    assert not list(place.glob("out/*.pt"))
    shutil.rmtree(place / "out", ignore_errors=True)


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def nothing(content: bytes) -> bytes:
    return b""


def noise(content: bytes) -> bytes:
    return random.Random(1).randbytes(len(content))


def prose(content: bytes) -> bytes:
    return b"This is not the file you are looking for.\n"


def other_json(content: bytes) -> bytes:
    return b"[1, 2]"


def payload(folder: Path) -> bytes:
    """A pickle, as torch saves them, that makes `folder` for whoever loads it unsafely."""
    stream = io.BytesIO()
    torch.save({"model": Payload(folder), "args": None}, stream)
    return stream.getvalue()


DAMAGES = (half, nothing, noise, prose)
PREDICT = "predict run good.txt"
TRAIN = "train"
DAMAGED = [
    ("run/checkpoint_best.pt", DAMAGES, PREDICT, "not a whole fairseq checkpoint"),
    ("run/checkpoint_best.pt", DAMAGES, "evaluate run", "not a whole fairseq checkpoint"),
    ("run/checkpoint_best.pt", DAMAGES, "export run out", "not a whole fairseq checkpoint"),
    ("run/checkpoint_best.pt", DAMAGES, "import-model run/checkpoint_best.pt out", "checkpoint"),
    ("run/inference/prepared.json", (*DAMAGES, other_json), PREDICT, "inference/prepared.json"),
    ("run/inference/input0/dict.txt", (nothing, half, prose), PREDICT, "dict"),
    ("run/inference/label/dict.txt", (nothing, prose), PREDICT, "label"),
    ("run/inference/tokenizer/tokenizer.json", (*DAMAGES, other_json), PREDICT, "tokenizer"),
    ("run/manifest.json", (*DAMAGES, other_json), "verify run/manifest.json --data data", "manifest"),
    ("run/manifest.json", (*DAMAGES, other_json), "evaluate run", "manifest"),
    ("run/manifest.json", (*DAMAGES, other_json), TRAIN, "manifest"),
    ("run/result.json", (*DAMAGES, other_json), "report run", "result.json"),
    ("run/result.json", (*DAMAGES, other_json), "plot curves run --output out.png", "result.json"),
    ("run/result.json", (*DAMAGES, other_json), "export run out", "result.json"),
    ("run/test_embeddings.npz", DAMAGES, "plot embeddings run --output out.png", "test_embeddings"),
    ("run/checkpoint_last.pt", DAMAGES, TRAIN, "not a whole fairseq checkpoint"),
    ("data/input0/train.idx", DAMAGES, TRAIN, "train.idx or .bin is damaged"),
    ("data/input0/train.bin", (half, nothing), TRAIN, "train.idx or .bin is damaged"),
    ("data/input0/train.bin", (noise,), TRAIN, "train.bin: a token that is not in"),
    ("data/input0/valid.idx", DAMAGES, TRAIN, "valid.idx or .bin is damaged"),
    ("data/label/train.idx", DAMAGES, TRAIN, "train.idx or .bin is damaged"),
    ("data/label/train.bin", (noise,), TRAIN, "a label that is not in"),
    ("data/label/train.bin", (half,), TRAIN, "train.idx or .bin is damaged"),
    ("data/label/dict.txt", (nothing, prose), TRAIN, "label"),
    ("data/input0/dict.txt", (nothing, half, prose), TRAIN, "dict"),
    ("encoder/dict.txt", (nothing, noise, prose), "prepare out --encoder encoder --data sample", "dict"),
    ("encoder/tokenizer.json", DAMAGES, "prepare out --encoder encoder --data sample", "tokenizer"),
    ("encoder/train_flags.txt", (noise,), "prepare out --encoder encoder --data sample", "train_flags"),
    ("data/text/train.jsonl", (noise, prose), "back-translate data --forward a.pt --backward a.pt "
     "--temperature 0.9 --encoder encoder", "train.jsonl"),
    ("data/prepared.json", (*DAMAGES, other_json), "back-translate data --forward a.pt --backward "
     "a.pt --temperature 0.9 --encoder encoder", "prepared.json"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "damage", "command", "message"),
    [
        pytest.param(name, damage, command, message, id=f"{name}-{damage.__name__}-{command[:12]}")
        for name, damages, command, message in DAMAGED
        for damage in damages
    ],
)
def test_a_damaged_file_is_named(
    place, recipe, tmp_path, monkeypatch, capfd, name, damage, command, message
):
    copy = tmp_path / "a copy"
    shutil.copytree(place, copy)
    monkeypatch.chdir(copy)
    (copy / name).write_bytes(damage((copy / name).read_bytes()))
    if command.startswith("evaluate"):
        (copy / "run" / "result.json").unlink()  # so that it has something to do
    before = listing(copy)
    if command == TRAIN:
        told = refusal(train, flags(recipe, copy, "--save-dir", copy / "run", "--max-update", 4))
    else:
        told = refusal(main, shlex.split(command))
    assert message in told
    assert listing(copy) - before <= {copy / "run" / ".train.lock"}
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("run/checkpoint_best.pt", PREDICT),
        ("run/checkpoint_best.pt", "evaluate run"),
        ("run/checkpoint_best.pt", "export run out"),
        ("run/checkpoint_best.pt", "import-model run/checkpoint_best.pt out"),
        ("run/checkpoint_last.pt", TRAIN),
        ("run/test_embeddings.npz", "plot embeddings run --output out.png"),
        ("data/input0/train.bin", TRAIN),
        ("data/input0/train.idx", TRAIN),
        ("run/inference/prepared.json", PREDICT),
        ("run/inference/tokenizer/tokenizer.json", PREDICT),
        ("run/result.json", "report run"),
        ("run/manifest.json", "verify run/manifest.json --data data"),
    ],
)
def test_nothing_that_lies_in_a_file_is_executed(
    place, recipe, tmp_path, monkeypatch, name, command
):
    copy = tmp_path / "a copy"
    shutil.copytree(place, copy)
    monkeypatch.chdir(copy)
    (copy / name).write_bytes(payload(tmp_path / "executed"))
    if command.startswith("evaluate"):
        (copy / "run" / "result.json").unlink()
    if command == TRAIN:
        refusal(train, flags(recipe, copy, "--save-dir", copy / "run", "--max-update", 4))
    else:
        refusal(main, shlex.split(command))
    assert not (tmp_path / "executed").exists()


def test_a_checkpoint_cannot_name_code_to_import(place, tmp_path, monkeypatch):
    copy = tmp_path / "a copy"
    shutil.copytree(place, copy)
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / "__init__.py").write_text(f"import os; os.mkdir({str(tmp_path / 'executed')!r})\n")
    monkeypatch.chdir(copy)
    path = copy / "run" / "checkpoint_best.pt"
    state = torch.load(path, weights_only=True)
    state["cfg"]["common"]["user_dir"] = str(evil)
    torch.save(state, path)
    for command in (PREDICT, "evaluate run"):
        main(shlex.split(command))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("finetune", None, "--config-name finetune: configs has no finetune.yaml"),
        ("finetune", b"data: [unclosed", "finetune.yaml: not YAML"),
        ("finetune", b"\xff\xfe", "finetune.yaml: not YAML"),
        ("encoder/minilm", b"model: {", "minilm.yaml: not YAML"),
        ("data/SST-2", b"a: b: c", "SST-2.yaml: not YAML"),
    ],
)
def test_a_damaged_config_of_a_study_is_named(tmp_path, name, content, message):
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    path = tmp_path / "configs" / f"{name}.yaml"
    path.unlink() if content is None else path.write_bytes(content)
    finished = subprocess.run(
        [sys.executable, "-m", "fairseq_scl.studies.study", "--config-dir", "configs", "--config-name",
         "finetune", "data_dir=."],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert finished.returncode == 1
    assert "Traceback" not in finished.stderr
    [told] = [x for x in finished.stderr.splitlines() if x.startswith("fairseq-scl: error: ")]
    assert message in told


def test_a_folder_that_cannot_be_written_is_named(place):
    """/sys takes no new folder, not even root's."""
    command = ["prepare", "/sys/out", "--encoder", str(place / "encoder"), "--data", "sample"]
    assert "/sys/.out." in refusal(main, command)
    told = refusal(
        main, ["predict", str(place / "run"), str(place / "good.txt"), "--output", "/sys/x"]
    )
    assert "/sys/.x." in told


def test_a_full_disk_behind_standard_output_is_told(place):
    with open("/dev/full", "w") as full:
        finished = subprocess.run(
            [Path(sys.executable).with_name("fairseq-scl"), "predict", "run", "good.txt", "--cpu"],
            stdout=full, stderr=subprocess.PIPE, text=True, cwd=place,
        )  # fmt: skip
    assert finished.returncode == 1
    assert "Traceback" not in finished.stderr
    assert finished.stderr.splitlines()[-1] == (
        "fairseq-scl: error: predict: No space left on device"
    )


def test_a_tag_in_a_config_is_not_followed(tmp_path):
    path = tmp_path / "evil.yaml"
    path.write_text(f"a: !!python/object/apply:os.mkdir [{tmp_path / 'executed'}]\n")
    finished = subprocess.run(
        [Path(sys.executable).with_name("fairseq-hydra-train"), "--config-dir", tmp_path,
         "--config-name", "evil"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert finished.returncode != 0
    assert "python/object/apply:os.mkdir" in finished.stderr
    assert not (tmp_path / "executed").exists()


def test_any_flipped_bit_of_an_index_is_found(place):
    stem = place / "data" / "label" / "valid"
    whole = stem.with_suffix(".idx").read_bytes()
    try:
        for bit in range(0, 8 * len(whole), 7):
            flipped = bytearray(whole)
            flipped[bit // 8] ^= 1 << bit % 8
            stem.with_suffix(".idx").write_bytes(flipped)
            assert not stored.is_whole(stem), bit
    finally:
        stem.with_suffix(".idx").write_bytes(whole)
    assert stored.is_whole(stem)


@pytest.mark.parametrize("damage", [half, nothing, noise, prose])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_model_folder_is_named(place, tmp_path, name, damage):
    main(["export", str(place / "run"), str(tmp_path / "model")])
    path = tmp_path / "model" / name
    path.write_bytes(damage(path.read_bytes()))
    told = refusal(main, ["import-model", str(tmp_path / "model"), str(tmp_path / "out")])
    assert str(path) in told
    assert not (tmp_path / "out").exists()


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(
        ["run/checkpoint_best.pt", "run/inference/prepared.json", "run/inference/input0/dict.txt",
         "run/inference/label/dict.txt", "run/inference/tokenizer/tokenizer.json"]
    ),
    at=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
)  # fmt: skip
def test_a_flipped_bit_ends_in_one_line_or_goes_unnoticed(
    place, tmp_path, monkeypatch, name, at, bit
):
    monkeypatch.chdir(place)
    whole = (place / name).read_bytes()
    flipped = bytearray(whole)
    flipped[int(at * len(whole))] ^= 1 << bit
    try:
        (place / name).write_bytes(flipped)
        message = ended(shlex.split(PREDICT))
        assert message == "" or message.startswith("fairseq-scl: error: ")
    finally:
        (place / name).write_bytes(whole)


@settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    text=st.text(
        st.one_of(
            st.characters(),
            st.sampled_from("\x00\r\t\x0b\x0c\x1c\x85\u2028\u202e\ufeff\ufffd\U0001f600\u0301\"',")
        ),
        max_size=30,
    )
)  # fmt: skip
def test_any_text_is_predicted_or_refused(place, monkeypatch, capsys, text):
    monkeypatch.chdir(place)
    (place / "any.jsonl").write_text(json.dumps({"sentence": text}) + "\n", encoding="utf-8")
    message = ended(["predict", "run", "any.jsonl", "--cpu"])
    if any("\ud800" <= character <= "\udfff" for character in text):
        assert message.endswith("any.jsonl, row 1: 'sentence' holds half a character")
    else:
        assert message == ""
        assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_second_run_into_the_same_folder_is_refused(place, recipe, tmp_path):
    held = tmp_path / "run"
    held.mkdir()
    with locked(held / ".train.lock"):
        told = refusal(train, flags(recipe, place, "--save-dir", held))
        assert refusal(train, flags(recipe, place, "--save-dir", held)) == told  # and again
    assert told == f"fairseq-scl: error: {held} is in use by another process"
    assert not list(held.glob("*.pt"))


def test_a_full_disk_leaves_the_checkpoints_before(place, recipe, tmp_path):
    """A limit on the size of files is to a process what a full disk is."""
    command = [Path(sys.executable).with_name("fairseq-train")]
    command += flags(recipe, place, "--save-dir", tmp_path, "--max-update", 2)
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.pt")}
    command[command.index("--max-update", len(command) - 2) + 1] = 8

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    finished = subprocess.run(
        list(map(str, command)), cwd=ROOT, capture_output=True, text=True, preexec_fn=limit
    )
    assert finished.returncode == 1
    assert "fairseq-scl: error: " in finished.stderr and "could not be saved" in finished.stderr
    assert "Traceback" not in finished.stderr.split("could not be saved")[0]
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.pt")} == before
    assert set(before) == {"checkpoint_best.pt", "checkpoint_last.pt"}


@pytest.mark.parametrize("locale", ["C", "POSIX", "tr_TR.UTF-8", "nowhere"])
def test_the_locale_does_not_matter(place, locale):
    environment = os.environ | {"LC_ALL": locale, "LANG": locale, "PYTHONUTF8": "0"}
    environment["PYTHONCOERCECLOCALE"] = "0"
    finished = subprocess.run(
        [Path(sys.executable).with_name("fairseq-scl"), "predict", "run", "-", "--cpu"],
        cwd=place, env=environment, input="ein schöner Film ☺\n".encode(), capture_output=True,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr.decode()
    assert json.loads(finished.stdout)["label"] in ("negative", "positive")
