"""evaluate, report, the command line itself, and the package's metadata."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, prepare, train

from fairseq_scl.cli import COMMANDS, main
from fairseq_scl.data import manifest


@pytest.fixture(scope="module")
def runs(recipe, tmp_path_factory):
    """Two draws, each with both losses, evaluated."""
    folder = tmp_path_factory.mktemp("runs")
    for name, weight in {"ce": 0, "scl": 0.9}.items():
        for draw in (1, 2):
            run_folder = folder / name / str(draw)
            train(recipe.flags(run_folder, "--scl-weight", weight, "--shots-seed", draw))
    main(["evaluate", *map(str, sorted(folder.glob("*/*")))])
    return folder


def test_evaluate_reports_what_fairseq_validate_reports(runs, recipe):
    from conftest import last_validation, run

    result = json.loads((runs / "scl" / "1" / "result.json").read_text())
    validated = run(
        "fairseq-validate", recipe.data, "--user-dir", ROOT / "fairseq_scl", "--cpu",
        "--path", runs / "scl" / "1" / "checkpoint_best.pt", "--task", "few_shot_glue",
        "--criterion", "sentence_prediction_scl", "--valid-subset", "test", "--batch-size", 64,
        "--log-format", "simple",
    )  # fmt: skip
    expected = last_validation(validated.stdout + validated.stderr, "test")
    for key in ("accuracy", "mcc", "ce_loss"):
        assert result["test"][key] == pytest.approx(expected[key], rel=1e-4)
    config = result["config"]
    assert (config["task"]["num_shots"], config["criterion"]["scl_weight"]) == (20, 0.9)
    assert result["split"] == "test"
    assert result["manifest"] == manifest.read(runs / "scl" / "1" / manifest.NAME).sha256
    assert set(result["versions"]) == {"python", "torch", "fairseq", "fairseq-scl"}


def test_evaluate_keeps_what_was_logged(recipe, tmp_path):
    logs = tmp_path / "logs"
    train(recipe.flags(tmp_path / "run", "--tensorboard-logdir", logs))
    main(["evaluate", str(tmp_path / "run")])
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [step for step, _ in result["curves"]["train_inner"]["scl_loss"]] == list(range(1, 9))
    best = [value for _, value in result["curves"]["valid"]["accuracy"]]
    assert max(best) == pytest.approx(result["valid"])
    assert result["seconds"] == result["curves"]["train_inner"]["wall"][-1][1]


def test_evaluate_stores_embeddings_in_the_order_of_the_rows(runs, recipe):
    from conftest import PACKAGE

    stored = np.load(runs / "ce" / "1" / "test_embeddings.npz")
    assert stored["features"].shape == (200, 32)
    lines = (PACKAGE / "sample_data" / "test.tsv").read_text().splitlines()[1:]
    assert stored["labels"].tolist() == [int(line.endswith("positive")) for line in lines]


def test_evaluate_reads_the_test_set_once(runs):
    path = runs / "ce" / "1" / "result.json"
    before = path.stat().st_mtime_ns
    main(["evaluate", str(path.parent)])
    assert path.stat().st_mtime_ns == before


def test_evaluate_reports_mnlis_mismatched_set_as_well(recipe, encoder, tmp_path):
    header = ["index", "sentence1", "sentence2", "gold_label"]
    folder = tmp_path / "glue" / "MNLI"
    folder.mkdir(parents=True)
    sizes = {"train": 60, "dev_matched": 30, "dev_mismatched": 18}
    for name, rows in sizes.items():
        labels = ("contradiction", "entailment", "neutral")
        lines = [[str(i), f"{name} {i}", f"so {i * 7}", labels[i % 3]] for i in range(rows)]
        text = "".join("\t".join(line) + "\n" for line in [header, *lines])
        (folder / f"{name}.tsv").write_text(text)
    data = prepare(
        tmp_path / "mnli", encoder, "--data", "glue:MNLI", "--glue-dir", tmp_path / "glue"
    )
    for protocol, rows in {"few-shot": (15, 9), "full": (30, 18)}.items():
        run_folder = tmp_path / protocol
        train([str(data), *recipe.flags(run_folder, "--protocol", protocol, "--max-update", 1)[1:]])
        said = json.loads((run_folder / "manifest.json").read_text())
        stored = said["splits"]
        counted = [len(manifest.expand(stored[split]["rows"])) for split in ("test", "test1")]
        assert tuple(counted) == rows
        main(["evaluate", str(run_folder)])
        result = json.loads((run_folder / "result.json").read_text())
        assert result["knn"]["k"] == 5
        assert result["test1"]["accuracy"] == pytest.approx(
            100 / rows[1] * round(result["test1"]["accuracy"] * rows[1] / 100)
        )


def test_evaluate_names_a_missing_run(tmp_path):
    with pytest.raises(SystemExit, match=r"checkpoint_best.pt: no such file"):
        main(["evaluate", str(tmp_path)])


def test_report_reads_what_evaluate_wrote(runs, capsys):
    main(["report", str(runs)])
    printed = capsys.readouterr().out
    lines = [line.split("|") for line in printed.splitlines() if line.startswith("|")]
    header, _, *rows = [[cell.strip() for cell in line[1:-1]] for line in lines]
    assert [row[0] for row in rows] == ["CE", "CE+SCL (λ 0.9, τ 0.3)"]
    for row, loss in zip(rows, ("ce", "scl"), strict=True):
        results = [json.loads((runs / loss / d / "result.json").read_text()) for d in "12"]
        values = [result["test"]["accuracy"] for result in results]
        expected = f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"
        assert row[header.index("test")] == expected
        values = [result["knn"]["accuracy"] for result in results]
        expected = f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"
        assert row[header.index("kNN")] == expected
    assert rows[1][header.index("pairs")] == "2"
    for told in ("N 20", "protocol given", "encoder sentence_roberta", "metric accuracy"):
        assert told in printed


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "fairseq-scl " + command in capsys.readouterr().out


def without_reader(*arguments: object) -> subprocess.CompletedProcess:
    """Run fairseq-scl as `| head` leaves it: its reader is gone before anything is written."""
    reader, writer = os.pipe()
    os.close(reader)
    finished = subprocess.run(
        [Path(sys.executable).with_name("fairseq-scl"), *map(str, arguments)],
        stdout=writer, stderr=subprocess.PIPE, text=True, input="fine\n" * 3000, cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": ""},
    )  # fmt: skip
    os.close(writer)
    return finished


PIPED = ["flags", "--help", "user-dir", "train --help", "report RUNS", "predict RUNS/ce/1 -"]


@pytest.mark.parametrize("command", PIPED)
def test_a_reader_that_leaves_is_no_error(runs, command):
    finished = without_reader(*command.replace("RUNS", str(runs)).split())
    assert finished.returncode == 141
    assert "rror" not in finished.stderr and "Traceback" not in finished.stderr


def test_training_goes_on_when_the_reader_of_its_log_leaves(recipe, tmp_path):
    flags = recipe.flags(tmp_path / "run")
    at = flags.index("--user-dir")
    finished = without_reader("train", *flags[:at], *flags[at + 2 :])
    assert finished.returncode == 141
    assert "Broken" not in finished.stderr and "Traceback" not in finished.stderr, finished.stderr
    assert (tmp_path / "run" / "checkpoint_best.pt").is_file()


def test_an_unwritable_place_is_told_in_one_line(encoder, tmp_path):
    (tmp_path / "file").write_text("")
    output = tmp_path / "file" / "data"
    with pytest.raises(SystemExit, match=r"fairseq-scl: error: .*file: File exists"):
        main(["prepare", str(output), "--encoder", str(encoder), "--data", "sample"])


WITHOUT_FAIRSEQ = "import sys; sys.modules['fairseq'] = None; "


@pytest.mark.parametrize(
    "code",
    [
        "import fairseq_scl.plugin",
        "from fairseq_scl.cli import main; main(['import-model', 'minilm', '/nonexistent'])",
        "from fairseq_scl.cli import main; "
        "main(['prepare', '/nonexistent/out', '--encoder', 'x', '--data', 'sample'])",
    ],
)
def test_without_fairseq_one_line_says_what_to_install(code):
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_FAIRSEQ + code], capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "fairseq-scl: error: fairseq is not installed; install it with: "
        "pip install 'fairseq-scl[fairseq]'"
    ]


def test_fairseq_is_an_extra_only():
    required = [r for r in importlib.metadata.requires("fairseq-scl") or [] if "fairseq" in r]
    assert required[0] == 'fairseq-fixed==0.12.3.1; extra == "fairseq"'
    assert all(requirement.endswith('extra == "fairseq"') for requirement in required)


def test_the_quickstart_ends_with_a_table_and_a_picture(encoder, tmp_path):
    command = (
        f"bash scripts/quickstart.sh --encoder {encoder} --draws 1 --output {tmp_path / 'out'}"
    ).split()
    first = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=500)
    assert first.returncode == 0, first.stderr[-2000:]
    assert first.stdout.count("fairseq-train ") == 3
    for told in (
        "N 20,",
        "| CE | 1 |",
        "| CE+SCL",
        "tsne.png",
        "200 test rows",
        '{"label": ',
        "tensorboard --logdir",
    ):
        assert told in " ".join(first.stdout.split())  # the table is padded
    second = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=500)
    assert second.returncode == 0
    assert "fairseq-train" not in second.stdout
    assert "| CE+SCL" in second.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--data mine", "must be sample or glue:TASK"),
        ("--data glue:STS-B --glue-dir x", "is a regression"),
        ("--shots many", "must be a whole number"),
        ("--draws", "needs a value"),
        ("--colour", "unknown option --colour"),
    ],
)
def test_the_quickstart_refuses_what_it_does_not_know(arguments, told):
    command = ["bash", "scripts/quickstart.sh", *arguments.split()]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 2
    assert told in result.stderr
    assert len(result.stderr.splitlines()) == 1
