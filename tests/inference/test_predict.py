"""predict: what training and evaluate saw, from text alone."""

import dataclasses
import io
import json
import shutil
import sys

import numpy as np
import pandas
import pytest
import torch
from conftest import PACKAGE, prepare, run, train

from fairseq_scl.cli import main
from fairseq_scl.errors import UserError
from fairseq_scl.inference import labelled_csv, predict
from fairseq_scl.inference.classifier import load
from fairseq_scl.models import saved
from fairseq_scl.preparation import glue as published_glue
from fairseq_scl.preparation.glue import GLUE, SUBMISSIONS
from fairseq_scl.preparation.tables import Columns, read_file

ROWS = read_file(PACKAGE / "sample_data" / "test.tsv", Columns(("sentence",), "label"))
SENTENCES = [row.sentences[0] for row in ROWS]
PAIRS = [("a quick fox", "it jumps"), ("no dog", "it sleeps well"), ("so", "and so on"), ("", "x")]


@pytest.fixture(scope="module")
def trained(recipe, tmp_path_factory):
    """A run on the sample sentences, evaluated, then moved away."""
    before = tmp_path_factory.mktemp("before") / "run"
    train(recipe.flags(before))
    main(["evaluate", str(before)])
    after = tmp_path_factory.mktemp("after") / "moved"
    shutil.move(before, after)
    return after


@pytest.fixture(scope="module")
def loaded(trained):
    return load(trained)


@pytest.fixture(scope="module")
def of_pairs(recipe, encoder, tmp_path_factory):
    """A run on sentence pairs."""
    return train_on(recipe, encoder, tmp_path_factory.mktemp("pairs"), ["no", "yes", "no", "yes"])


@pytest.fixture(scope="module")
def of_numbers(recipe, encoder, tmp_path_factory):
    """A regression on sentence pairs."""
    folder = tmp_path_factory.mktemp("numbers")
    return train_on(recipe, encoder, folder, ["-3", "0.5", "9", "2"], "--regression")


def train_on(recipe, encoder, folder, labels, *regression):
    records = [
        {"a": a, "b": b, "label": label} for (a, b), label in zip(PAIRS, labels, strict=True)
    ]
    folder.mkdir(exist_ok=True)
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    data = prepare(
        folder / "data", encoder, *("--train", path, "--valid", path, "--test", path),
        *("--sentence", "a", "--sentence2", "b"), *regression,
    )  # fmt: skip
    more = ["--num-shots", 4, "--max-update", 2]
    if regression:
        more += ["--regression-target", "--scl-weight", 0, "--best-checkpoint-metric", "pearson"]
    train([str(data), *recipe.flags(folder / "run", *more)[1:]])
    main(["evaluate", str(folder / "run")])
    return folder / "run"


def printed(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines() if "{" in line]


def test_predictions_are_those_of_evaluate_wherever_the_run_lies(trained, loaded):
    result = json.loads((trained / "result.json").read_text())
    stored = np.load(trained / "test_embeddings.npz")
    predictions = loaded.predict(SENTENCES)
    right = [p.label == row.label for p, row in zip(predictions, ROWS, strict=True)]
    assert 100 * np.mean(right) == pytest.approx(result["test"]["accuracy"])
    np.testing.assert_allclose([p.embedding for p in predictions], stored["features"], atol=1e-5)
    for prediction in predictions:
        assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-6)
        assert prediction.label == max(prediction.probabilities, key=prediction.probabilities.get)


def test_pairs_are_encoded_as_in_training(of_pairs):
    stored = np.load(of_pairs / "test_embeddings.npz")
    predictions = load(of_pairs).predict(PAIRS)
    np.testing.assert_allclose([p.embedding for p in predictions], stored["features"], atol=1e-5)


def test_a_regression_gives_numbers(of_numbers):
    result = json.loads((of_numbers / "result.json").read_text())
    numbers = [p.label for p in load(of_numbers).predict(PAIRS)]
    expected = np.corrcoef(numbers, [-3, 0.5, 9, 2])[0, 1]
    assert result["test"]["pearson"] == pytest.approx(100 * expected, abs=1e-3)
    assert result["knn"] is None


def test_neither_the_batch_size_nor_the_neighbours_matter(loaded):
    whole = loaded.predict(SENTENCES[:20])
    for batch_size in (1, 7):
        for some, other in zip(loaded.predict(SENTENCES[:20], batch_size), whole, strict=True):
            assert some.label == other.label
            np.testing.assert_allclose(some.embedding, other.embedding, atol=1e-5)
    assert loaded.predict([]) == []


@pytest.mark.parametrize("kind", [tuple, iter, np.array, pandas.Series])
def test_any_list_of_strings_is_taken(loaded, kind):
    found = loaded.predict(kind(SENTENCES[:3]))
    assert [p.label for p in found] == [p.label for p in loaded.predict(SENTENCES[:3])]


def test_pairs_may_be_an_array(of_pairs):
    model = load(of_pairs)
    assert [p.label for p in model.predict(np.array(PAIRS))] == [
        p.label for p in model.predict(PAIRS)
    ]


def test_below_the_threshold_a_label_is_unsure(loaded):
    certain = loaded.predict(SENTENCES)
    highest = [max(p.probabilities.values()) for p in certain]
    threshold = float(np.median(highest))
    for before, after, share in zip(
        certain, loaded.predict(SENTENCES, threshold=threshold), highest, strict=True
    ):
        assert after.label == (before.label if share >= threshold else "unsure")
        assert after.probabilities == before.probabilities
    assert {p.label for p in loaded.predict(SENTENCES[:9], threshold=1e-9)} <= {*loaded.classes}


def test_long_texts_are_averaged_over_windows(loaded):
    words = " ".join(SENTENCES).split()
    texts = [*SENTENCES[:3], *(" ".join(words[i : i + 1000]) for i in range(0, 2000, 500))]
    # each window alone, cut by hand: equal parts without overlap, between the special tokens
    for text, windows, found in zip(
        texts, loaded.windows(texts, "windows"), loaded.predict(texts, long="windows"), strict=True
    ):
        tokens = loaded.tokenizer([text])[0].tolist()
        room = loaded.max_length - 2
        count = max(1, -(-len(tokens) // room))
        sizes = [len(tokens) // count + (i < len(tokens) % count) for i in range(count)]
        starts = [sum(sizes[:i]) for i in range(count)]
        expected = [[0, *tokens[a : a + n], 2] for a, n in zip(starts, sizes, strict=True)]
        assert [ids.tolist() for ids in windows] == expected
        assert (count > 10) == (len(text) > 1000)
        alone = [loaded._run([np.array(ids)]) for ids in expected]
        logits = sum(logits[0] for logits, _ in alone) / count
        embedding = sum(embeddings[0] for _, embeddings in alone) / count
        shares = np.exp(logits / loaded.temperature)
        shares /= shares.sum()
        np.testing.assert_allclose(list(found.probabilities.values()), shares, atol=1e-5)
        np.testing.assert_allclose(found.embedding, embedding, atol=1e-5)


def test_a_text_that_fits_is_the_same_in_windows(loaded):
    fitting = [s for s in SENTENCES if len(loaded.tokenizer([s])[0]) <= loaded.max_length - 2]
    assert len(fitting) > 100
    for cut, windows in zip(
        loaded.predict(fitting), loaded.predict(fitting, long="windows"), strict=True
    ):
        assert (cut.label, cut.probabilities) == (windows.label, windows.probabilities)
        np.testing.assert_array_equal(cut.embedding, windows.embedding)


def test_a_sentence_of_a_megabyte_is_cut_as_prepare_cuts_it(loaded):
    assert [len(ids) for ids in loaded.encode(["good " * 200_000])] == [loaded.max_length]


@pytest.mark.parametrize(
    "text", ["", " ", "\0", "\u202eright to left", "👩‍👩‍👧", '"quoted"', "a\u2028b", "x" * 10_000]
)
def test_any_text_gets_a_label(loaded, text):
    [prediction] = loaded.predict([text])
    assert prediction.label in loaded.classes


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([("a", "b")], "row 1: the model takes one sentence"),
        (["good", (3,)], "row 2: the model takes one sentence"),
        (["good", "half \ud800"], "row 2 holds half a character"),
        (["good", None], "row 2: the model takes one sentence, not None"),
        (["good", float("nan")], "row 2: the model takes one sentence, not nan"),
        (
            pandas.Series(["good", pandas.NA], dtype=object),
            "row 2: the model takes one sentence, not <NA>",
        ),
        ([1], "row 1: the model takes one sentence, not 1"),
        ("lovely", "predict takes a list of sentences, not str"),
        (b"lovely", "predict takes a list of sentences, not bytes"),
        ({"text": ["lovely"]}, "predict takes a list of sentences, not dict"),
        (pandas.DataFrame({"text": ["lovely"]}), "takes a list of sentences, not DataFrame"),
        (None, "predict takes a list of sentences, not None"),
    ],
)
def test_a_row_that_is_none_is_named(loaded, rows, told):
    with pytest.raises(UserError, match=told):
        loaded.predict(rows)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"batch_size": 0}, r"batch_size 0 must be a whole number, at least 1$"),
        ({"batch_size": 1.5}, r"batch_size 1.5 must be a whole number"),
        ({"threshold": 0}, r"threshold 0 must be above 0 and at most 1$"),
        ({"threshold": 1.01}, r"threshold 1.01 must be above 0 and at most 1$"),
        ({"threshold": float("nan")}, r"threshold nan must be above 0"),
        ({"long": "split"}, r"long 'split' must be cut or windows$"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(loaded, arguments, told):
    with pytest.raises(UserError, match=told):
        loaded.predict(["good"], **arguments)


def test_what_a_model_cannot_have_is_refused(loaded, of_pairs, of_numbers):
    with pytest.raises(UserError, match=r"run is a regression, which has no threshold$"):
        load(of_numbers).predict(PAIRS, threshold=0.5)
    with pytest.raises(UserError, match=r"long windows are for single sentences, .* takes pairs$"):
        load(of_pairs).predict(PAIRS, long="windows")
    named = dataclasses.replace(loaded, classes=["sure", "unsure"])
    with pytest.raises(UserError, match=r"has a class 'unsure'"):
        named.predict(["good"], threshold=0.5)


NAN = ("encoder.layernorm_embedding.weight", float("nan"))
INFINITE = ("_head.out_proj.weight", 1e38)  # itself finite, but not the logits


@pytest.mark.parametrize(
    ("command", "place", "value"),
    [
        ("predict", *NAN),
        ("predict", *INFINITE),
        ("evaluate", *NAN),
        ("evaluate", *INFINITE),
        ("export", *NAN),
    ],
)
def test_a_model_of_nan_is_told_in_one_line(trained, tmp_path, command, place, value):
    run_folder = tmp_path / "run"
    shutil.copytree(trained, run_folder)
    path = run_folder / saved.BEST
    state = torch.load(path, weights_only=True)
    [name] = [name for name in state["model"] if name.endswith(place)]
    state["model"][name].fill_(value)
    if place.endswith("out_proj.weight"):
        state["model"][name.replace("out_proj.weight", "dense.bias")].fill_(100)
    torch.save(state, path)
    (run_folder / "result.json").unlink()
    (tmp_path / "in.txt").write_text("fine\n")
    more = {"predict": [tmp_path / "in.txt", "--output", tmp_path / "out"], "evaluate": []}
    more = more.get(command, [tmp_path / "out"])
    with pytest.raises(SystemExit, match=r"run.*: the model's numbers are NaN or infinite"):
        main([command, str(run_folder), *map(str, more)])
    assert not (tmp_path / "out").exists() and not (run_folder / "result.json").exists()


@pytest.mark.parametrize("name", ["in.tsv", "in.csv", "in.jsonl", "in.txt"])
def test_every_kind_of_file_gives_the_same(trained, loaded, tmp_path, name, capsys):
    sentences = ["a joy", "so very dull", "it is fine"]
    bodies = {
        "in.tsv": "id\ttext\n" + "".join(f"{i}\t{s}\n" for i, s in enumerate(sentences)),
        "in.csv": "text,id\r\n" + "".join(f'"{s}",1\r\n' for s in sentences),
        "in.jsonl": "".join(json.dumps({"text": s}) + "\n" for s in sentences),
        "in.txt": "\ufeff" + "\n".join(sentences),
    }
    (tmp_path / name).write_text(bodies[name], encoding="utf-8", newline="")
    column = [] if name == "in.txt" else ["--sentence", "text"]
    main(["predict", str(trained), str(tmp_path / name), *column])
    told = printed(capsys)
    assert [entry["label"] for entry in told] == [p.label for p in loaded.predict(sentences)]
    assert told[0].keys() == {"label", "probabilities"}


def test_standard_input_is_read_in_windows(trained, loaded, monkeypatch, capsys):
    monkeypatch.setattr("fairseq_scl.inference.predict.WINDOW", 3)
    text = "".join(sentence + "\n" for sentence in SENTENCES[:8])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    main(["predict", str(trained), "--embedding"])
    told = printed(capsys)
    expected = loaded.predict(SENTENCES[:8])
    assert [entry["label"] for entry in told] == [p.label for p in expected]
    np.testing.assert_allclose(
        [entry["embedding"] for entry in told], [p.embedding for p in expected], atol=1e-5
    )


def test_standard_input_is_not_overwritten(trained, tmp_path, monkeypatch):
    (tmp_path / "in.csv").write_text("a joy\n")
    with open(tmp_path / "in.csv") as file:
        monkeypatch.setattr(sys, "stdin", file)
        with pytest.raises(UserError, match="is what is read"):
            main(["predict", str(trained), "--output", str(tmp_path / "in.csv")])
    assert (tmp_path / "in.csv").read_text() == "a joy\n"


def test_the_command_writes_a_whole_file_or_none(trained, tmp_path):
    (tmp_path / "in.txt").write_text("fine\nwith a\ttab\n")
    output = tmp_path / "new" / "labels.jsonl"
    command = ("fairseq-scl", "predict", trained, tmp_path / "in.txt", "--output", output)
    result = run(*command)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        f"fairseq-scl: error: {tmp_path}/in.txt, row 2: 2 fields, the model takes a sentence"
    )
    assert list(output.parent.iterdir()) == []
    (tmp_path / "in.txt").write_text("fine\n")
    assert run(*command).returncode == 0
    assert json.loads(output.read_text())["label"] in ("negative", "positive")


def test_pairs_in_a_file_or_on_a_line(of_pairs, tmp_path, capsys):
    table = tmp_path / "in.csv"
    table.write_text("".join(f"{a},{b}\n" for a, b in [("p", "h"), *PAIRS]))
    main(["predict", str(of_pairs), str(table), "--sentence", "p", "--sentence2", "h"])
    from_columns = printed(capsys)
    (tmp_path / "in.txt").write_text("".join(f"{a}\t{b}\n" for a, b in PAIRS))
    main(["predict", str(of_pairs), str(tmp_path / "in.txt")])
    assert printed(capsys) == from_columns
    with pytest.raises(SystemExit, match=r"in.csv, row 1: 1 fields, the model takes two sentences"):
        main(["predict", str(of_pairs), str(table), "--sentence", "p"])


SPREADSHEET = [
    {"id": "1", "comment": 'a joy, a "delight"', "note": " =1+1 "},
    {"id": "2", "comment": "so very\ndull", "note": ""},
    {"id": "3", "comment": "it is fine", "note": "é ☺"},
]


def as_spreadsheet(path, records=SPREADSHEET):
    """The same records in a file of the kind that its name says."""
    frame = pandas.DataFrame(records)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=path.suffix == ".jsonl", force_ascii=False)
    return path


def read_csv(path, **options):
    return pandas.read_csv(path, dtype=str, keep_default_na=False, **options)


@pytest.mark.parametrize("name", ["in.csv", "in.jsonl", "in.json", "in.parquet", "IN.CSV"])
def test_a_spreadsheet_keeps_its_columns_and_gets_two(
    trained, loaded, tmp_path, monkeypatch, capsys, name
):
    monkeypatch.setattr("fairseq_scl.inference.predict.WINDOW", 2)
    path = as_spreadsheet(tmp_path / name.lower()).rename(tmp_path / name)
    main(["predict", str(trained), str(path), "--output", str(tmp_path / "out.csv")])
    written = read_csv(tmp_path / "out.csv")
    assert list(written) == ["id", "comment", "note", "label", "probability"]
    expected = pandas.DataFrame(SPREADSHEET)
    if "csv" in name.lower():  # spaces before a cell are dropped as everywhere
        expected["note"] = expected["note"].str.lstrip()
    pandas.testing.assert_frame_equal(written[["id", "comment", "note"]], expected)
    predictions = loaded.predict([row["comment"] for row in SPREADSHEET])
    assert written["label"].tolist() == [p.label for p in predictions]
    np.testing.assert_allclose(
        written["probability"].astype(float),
        [p.probabilities[p.label] for p in predictions],
        atol=0.5001e-4,
    )
    assert written["probability"].str.fullmatch(r"[01]\.\d{4}").all()
    assert f"{path}: the sentences are in column 'comment'" in capsys.readouterr().err


def test_rows_without_text_are_told(trained, tmp_path, capsys):
    (tmp_path / "in.csv").write_text("id,comment\n1,fine film\n2,\n3,dull film\n4, \n")
    main(["predict", str(trained), str(tmp_path / "in.csv"), "--output", str(tmp_path / "o.csv")])
    assert "in.csv: 2 of 4 rows have an empty sentence" in capsys.readouterr().err
    assert len(read_csv(tmp_path / "o.csv")) == 4


def test_columns_of_tsv_of_json_values_and_of_lines(trained, tmp_path):
    output = tmp_path / "out.csv"
    (tmp_path / "in.tsv").write_text('text\tnote\nfine "film"\t@x\ndull\n')
    main(["predict", str(trained), str(tmp_path / "in.tsv"), "--output", str(output)])
    assert read_csv(output)[["text", "note"]].to_numpy().tolist() == [
        ['fine "film"', "@x"],
        ["dull", ""],
    ]
    record = '{"text": "fine", "n": 1.50, "b": true, "l": [1, "é"], "none": null, "nan": NaN}\n'
    (tmp_path / "in.jsonl").write_text(record + '{"text": "half", "n": "\\ud800"}\n')
    main(["predict", str(trained), str(tmp_path / "in.jsonl"), "--output", str(output)])
    assert read_csv(output)[["n", "b", "l", "none", "nan"]].to_numpy().tolist() == [
        ["1.5", "true", '[1, "é"]', "", ""], ["\\ud800", "", "", "", ""],
    ]  # fmt: skip
    (tmp_path / "in.txt").write_text("fine\ndull\n")
    main(["predict", str(trained), str(tmp_path / "in.txt"), "--output", str(output)])
    assert list(read_csv(output)) == ["sentence", "label", "probability"]


def test_columns_that_are_there_already_get_other_names(trained, of_numbers, tmp_path):
    output = tmp_path / "out.csv"
    for header, added in {
        "sentence,Label": ["predicted_label", "predicted_probability"],
        "sentence,probability": ["predicted_label", "predicted_probability"],
        "sentence,predicted_label": ["label", "probability"],
    }.items():
        (tmp_path / "in.csv").write_text(f"{header}\nfine,1\n")
        main(["predict", str(trained), str(tmp_path / "in.csv"), "--output", str(output)])
        assert list(read_csv(output)) == header.split(",") + added
    (tmp_path / "in.csv").write_text("sentence,label,predicted_label\nfine,1,1\n")
    with pytest.raises(SystemExit, match=r"there is a column 'predicted_label' already; rename it"):
        main(["predict", str(trained), str(tmp_path / "in.csv"), "--output", str(output)])
    (tmp_path / "in.csv").write_text("a,b,probability\nx,y,1\n")
    columns = ["--sentence", "a", "--sentence2", "b", "--output", str(output)]
    main(["predict", str(of_numbers), str(tmp_path / "in.csv"), *columns])
    assert list(read_csv(output)) == ["a", "b", "probability", "label"]  # a number has none
    float(read_csv(output)["label"][0])


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("=1+1", "'=1+1"), ("@SUM(A1)", "'@SUM(A1)"), ("+a", "'+a"), ("-a", "'-a"), ("\tx", "'\tx"),
        ("-1", "-1"), ("+1.5", "+1.5"), ("a=b", "a=b"), ("", ""), (-1.5, -1.5),
    ],
)  # fmt: skip
def test_no_label_is_a_formula(label, shown):
    assert labelled_csv.harmless(label) == shown


def test_delimiter_encoding_and_threshold_of_a_spreadsheet(trained, loaded, tmp_path, capsys):
    path, output = tmp_path / "in.csv", tmp_path / "out.csv"
    path.write_text("id;text\n1;a café; \n".replace("; \n", "\n"), encoding="cp1252")
    with pytest.raises(
        SystemExit, match=r"in.csv, row 2: not UTF-8 .*; --encoding names another, such as"
    ):
        main(["predict", str(trained), str(path), "--delimiter", ";"])
    with pytest.raises(SystemExit, match=r"one column, 'id;text'; is it --delimiter ';'\?$"):
        main(["predict", str(trained), str(path), "--encoding", "cp1252"])
    more = ["--delimiter", ";", "--encoding", "cp1252", "--output", str(output)]
    [prediction] = loaded.predict(["a café"])
    main(["predict", str(trained), str(path), *more, "--threshold", "1"])
    written = read_csv(output, sep=";")
    assert written[["id", "text", "label"]].to_numpy().tolist() == [["1", "a café", "unsure"]]
    highest = max(prediction.probabilities.values())
    assert float(written["probability"][0]) == pytest.approx(highest, abs=1e-4)
    main(["predict", str(trained), str(path), *more[:4], "--threshold", "1"])
    [entry] = printed(capsys)
    assert entry["label"] == "unsure"
    assert entry["probabilities"] == pytest.approx(prediction.probabilities, abs=1e-6)


def test_long_texts_by_the_command(trained, loaded, tmp_path, capsys):
    text = " ".join(SENTENCES[:150])
    (tmp_path / "in.txt").write_text(text + "\n")
    main(["predict", str(trained), str(tmp_path / "in.txt"), "--long", "windows"])
    [entry] = printed(capsys)
    [prediction] = loaded.predict([text], long="windows")
    assert entry["probabilities"] == pytest.approx(prediction.probabilities, abs=1e-6)
    assert prediction.probabilities != loaded.predict([text])[0].probabilities


def test_a_large_spreadsheet_is_never_held_whole(loaded, tmp_path, monkeypatch):
    """Rows are read as they are written: of 50,000 at most a window is ahead."""
    path = tmp_path / "in.csv"
    path.write_text("text,id\n" + "".join(f"a row of words,{i}\n" for i in range(50_000)))
    ahead, done = [0], [0]

    def counted(classifier, rows, *more):
        for _ in rows:
            ahead[0] += 1
            assert ahead[0] - done[0] <= 1024
            if ahead[0] % 1024 == 0:
                yield [prediction] * 1024
        yield [prediction] * (ahead[0] % 1024)

    def written(file, where, header, added, rows, predictions, delimiter):
        for (number, _), _ in zip(rows, predictions, strict=True):
            done[0] += 1
            assert number == done[0] + 1

    [prediction] = loaded.predict(["fine"])
    monkeypatch.setattr(predict, "load", lambda *_: loaded)
    monkeypatch.setattr(predict, "predict", counted)
    monkeypatch.setattr(predict, "write_csv", written)
    main(["predict", str(tmp_path), str(path), "--output", str(tmp_path / "out.csv")])
    assert done == [50_000]


@pytest.mark.parametrize(
    ("name", "content", "more", "told"),
    [
        ("in.csv", "what,why\na b,c d\n", [],
         "the columns are what, why; name one: --sentence what or --sentence why"),
        ("in.csv", "text,text\na b,c d\n", [], "in.csv: there are 2 columns 'text'"),
        ("in.csv", "text\n", [], "in.csv has no rows"),
        ("in.csv", "", [], "in.csv is empty"),
        ("in.tsv", "text\tid\nfine\t1\t2\n", [], "in.tsv, row 2: 3 fields, there are 2 columns"),
        ("in.jsonl", '{"text": "a"}\n{"text": "b", "c": 1}\n', [], "row 2: 2 fields, there are"),
        ("in.jsonl", '{"text": "a"}\n{"text": 1}\n', [], "row 2: 'text' must be a string"),
        ("in.txt", "a\n", ["--delimiter", ";"], "--delimiter is for a .csv"),
        ("in.csv", "text\na\n", ["--delimiter", ";;"], "--delimiter ';;': it must be one"),
        ("in.txt", "a\n", ["--encoding", "utf-9"], "--encoding utf-9: no encoding of text"),
        ("in.txt", "a\n", ["--threshold", "0"], "--threshold 0.0 must be above 0 and at most 1"),
        ("in.txt", "a\n", ["--threshold", "nan"], "--threshold nan must be above 0 and at most 1"),
        ("in.txt", "a\n", ["--embedding"], "out.csv: --embedding and --neighbours need a .jsonl"),
        ("in.txt", "a\n", ["--output", "out.tsv"], "--output out.tsv: the name must end in"),
        ("in.XLSX", "a\n", [], "in.XLSX: save it as CSV (UTF-8) in the spreadsheet program"),
        ("in.docx", "a\n", [], "in.docx: the name must end in .tsv, .csv, .jsonl, .json, .parquet"),
    ],
)  # fmt: skip
def test_spreadsheets_that_cannot_be_labelled(trained, tmp_path, name, content, more, told):
    (tmp_path / name).write_text(content)
    output = ["--output", str(tmp_path / "out.csv")]
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(trained), str(tmp_path / name), *output, *more])
    assert told in str(stop.value)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def cosine(a, b):
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def test_neighbours_are_the_nearest_labelled_sentences(trained, loaded, tmp_path, capsys):
    sentences = ["a joy", "so very dull", "it is fine"]
    (tmp_path / "in.txt").write_text("\n".join(sentences))
    labelled = tmp_path / "labelled.csv"
    labelled.write_text("class,text\n" + "".join(f'{r.label},"{r.sentences[0]}"\n' for r in ROWS))
    main([
        "predict", str(trained), str(tmp_path / "in.txt"), "--neighbours", "7",
        "--labelled", str(labelled), "--sentence", "text", "--label", "class",
    ])  # fmt: skip
    told = printed(capsys)
    vectors = [loaded.predict([sentence])[0].embedding for sentence in SENTENCES]
    rows = {row.sentences[0]: at for at, row in enumerate(ROWS)}
    for sentence, entry in zip(sentences, told, strict=True):
        [prediction] = loaded.predict([sentence])
        assert entry["label"] == prediction.label
        similarities = [cosine(prediction.embedding, vector) for vector in vectors]
        shown = [neighbour["similarity"] for neighbour in entry["neighbours"]]
        np.testing.assert_allclose(shown, sorted(similarities, reverse=True)[:7], atol=1e-5)
        assert shown == sorted(shown, reverse=True)
        for neighbour in entry["neighbours"]:
            assert neighbour.keys() == {"sentence", "label", "similarity"}
            at = rows[neighbour["sentence"]]
            assert neighbour["label"] == ROWS[at].label
            assert neighbour["similarity"] == pytest.approx(similarities[at], abs=1e-5)


def test_neighbours_do_not_depend_on_the_window(trained, tmp_path, monkeypatch, capsys):
    labelled = PACKAGE / "sample_data" / "test.tsv"
    wanted = ["--neighbours", "2", "--labelled", str(labelled)]
    main(["predict", str(trained), str(labelled), *wanted])
    whole = printed(capsys)
    for row, entry in zip(ROWS, whole, strict=True):  # a labelled sentence is nearest to itself
        [nearest, second] = entry["neighbours"]
        assert (nearest["sentence"], nearest["label"]) == (row.sentences[0], row.label)
        assert nearest["similarity"] == pytest.approx(1, abs=1e-5)
        assert second["similarity"] <= nearest["similarity"]
    monkeypatch.setattr("fairseq_scl.inference.predict.WINDOW", 3)
    main(["predict", str(trained), str(labelled), *wanted, "--batch-size", "2"])
    for entry, other in zip(printed(capsys), whole, strict=True):
        assert entry["neighbours"][0]["sentence"] == other["neighbours"][0]["sentence"]


def test_neighbours_of_pairs_are_pairs_and_of_a_regression_have_numbers(
    of_pairs, of_numbers, tmp_path, capsys
):
    (tmp_path / "in.txt").write_text("no dog\tit sleeps well\n")
    for model, labels in ((of_pairs, ["no", "yes", "no", "yes"]), (of_numbers, [-3, 0.5, 9, 2])):
        labelled = tmp_path / "labelled.jsonl"
        records = [
            {"a": a, "b": b, "label": label} for (a, b), label in zip(PAIRS, labels, strict=True)
        ]
        labelled.write_text("".join(json.dumps(record) + "\n" for record in records))
        columns = ["--sentence", "a", "--sentence2", "b"]
        wanted = ["--neighbours", "4", "--labelled", str(labelled), *columns]
        main(["predict", str(model), str(tmp_path / "in.txt"), *wanted])
        [entry] = printed(capsys)
        nearest = entry["neighbours"]
        assert (nearest[0]["sentences"], nearest[0]["label"]) == (list(PAIRS[1]), labels[1])
        found = {tuple(one["sentences"]): one["label"] for one in nearest}
        assert found == dict(zip(PAIRS, labels, strict=True))


@pytest.mark.parametrize(
    ("content", "more", "told"),
    [
        (None, ["--neighbours", "1"], "--neighbours and --labelled need each other"),
        ("x", ["--labelled", "FILE"], "--neighbours and --labelled need each other"),
        ("x", ["--neighbours", "0"], "--neighbours 0 must be at least 1"),
        ("sentence\tlabel\na\tnegative\n", [], "--neighbours 2: FILE has only 1 rows"),
        ("sentence\tlabel\n", [], "FILE has no rows"),
        (
            "x\tlabel\na\tnegative\n",
            [],
            "FILE: no column 'sentence'; the columns are x, label; name one: --sentence NAME",
        ),
        ("sentence\tclass\na\tnegative\n", [], "FILE, row 2: no label"),
        ("sentence\tlabel\na\tnegative\nb\n", [], "FILE, row 3: 1 fields, at least 2 are needed"),
        (
            "sentence\tlabel\na\tnegative\nb\tfine\n",
            [],
            "FILE, row 3: label 'fine' does not occur in the training data (negative, positive)",
        ),
        (
            "sentence\tb\tlabel\na\tb\tnegative\na\tb\tnegative\n",
            ["--sentence2", "b"],
            "FILE, row 1: 2 fields, the model takes a sentence",
        ),
    ],
)
def test_labelled_sentences_that_cannot_be_used(trained, tmp_path, content, more, told):
    labelled = tmp_path / "labelled.tsv"
    labelled.write_text(content or "")
    more = [str(labelled) if argument == "FILE" else argument for argument in more]
    if content and "--labelled" not in more:
        more = ["--neighbours", "2", "--labelled", str(labelled), *more]
    (tmp_path / "in.txt").write_text("fine\n")
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(trained), str(tmp_path / "in.txt"), *more])
    assert str(stop.value) == f"fairseq-scl: error: {told.replace('FILE', str(labelled))}"


def test_labels_of_a_regression_must_be_numbers(of_numbers, tmp_path):
    labelled = tmp_path / "labelled.tsv"
    labelled.write_text("a\tb\tlabel\nx\ty\thigh\n")
    (tmp_path / "in.txt").write_text("x\ty\n")
    columns = ["--sentence", "a", "--sentence2", "b"]
    wanted = ["--neighbours", "1", "--labelled", str(labelled), *columns]
    with pytest.raises(SystemExit, match=r"labelled.tsv, row 2: label 'high' is not a number$"):
        main(["predict", str(of_numbers), str(tmp_path / "in.txt"), *wanted])


def glue(folder, name, header, rows):
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join("\t".join(map(str, row)) + "\n" for row in [header, *rows])
    (folder / name).write_text(text)


@pytest.mark.parametrize("submission", SUBMISSIONS)
def test_a_submission_is_in_the_sites_format(
    submission, recipe, encoder, of_numbers, loaded, tmp_path, monkeypatch
):
    names = published_glue.labels_of(submission)
    task = published_glue.AX if submission == "AX" else GLUE[submission]
    columns = task.columns.sentences
    for of_task, split in SUBMISSIONS[submission].values():
        published = published_glue.AX if of_task == "AX" else GLUE[of_task]
        rows = [(i, *PAIRS[i % 4][: len(columns)]) for i in range(4)]
        glue(tmp_path / of_task, published.files[split], ("index", *columns), rows)
    four = dataclasses.replace(task, rows=(4,) * len(task.files))
    if submission == "AX":
        monkeypatch.setattr(published_glue, "AX", four)
    else:
        monkeypatch.setitem(GLUE, submission, four)
    if len(columns) == 1:
        model, run = dataclasses.replace(loaded, classes=list(names)), loaded.run
        monkeypatch.setattr(predict, "load", lambda *_: model)
    elif names:
        run = train_on(
            recipe, encoder, tmp_path / "model", [names[i % len(names)] for i in range(4)]
        )
        model = load(run)
    else:
        run, model = of_numbers, load(of_numbers)
    where = ["--output", str(tmp_path / "out"), "--glue-dir", str(tmp_path)]
    main(["predict", str(run), "--glue-submission", submission, *where])
    assert sorted(path.stem for path in (tmp_path / "out").iterdir()) == sorted(
        SUBMISSIONS[submission]
    )
    sentences = [pair if len(columns) == 2 else pair[0] for pair in PAIRS]
    expected = [predict.shown(p.label) for p in model.predict(sentences)]
    for path in (tmp_path / "out").iterdir():
        lines = path.read_text().splitlines()
        assert lines == ["index\tprediction", *(f"{i}\t{x}" for i, x in enumerate(expected))]
    if submission == "STS-B":
        assert all(0 <= float(number) <= 5 for number in expected)
    else:
        assert set(expected) <= set(names)


def test_a_submission_of_another_size_or_by_another_model_is_refused(trained, tmp_path):
    rows = [(i, SENTENCES[i % 200]) for i in range(1821)]
    where = ["--output", str(tmp_path / "out"), "--glue-dir", str(tmp_path)]
    glue(tmp_path / "SST-2", "test.tsv", ("index", "sentence"), rows)
    with pytest.raises(SystemExit, match=r"says negative or positive, SST-2 wants 0 or 1$"):
        main(["predict", str(trained), "--glue-submission", "SST-2", *where])
    glue(tmp_path / "SST-2", "test.tsv", ("index", "sentence"), rows[:-1])
    with pytest.raises(SystemExit, match=r"test.tsv has 1,820 rows, the published set 1,821"):
        main(["predict", str(trained), "--glue-submission", "SST-2", *where])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere"], r"nowhere: no such file"),
        (["RUN", "--batch-size", "0"], r"--batch-size 0 must be at least 1"),
        (["RUN", "nowhere.txt"], r"nowhere.txt cannot be read"),
        (["RUN", "--sentence", "a"], r"--sentence is for files with named columns.*; - has a sent"),
        (
            ["RUN", "a.txt", "--sentence2", "b"],
            r"--sentence2 is for .*; a.txt has a sentence a line",
        ),
        (["RUN", "--glue-submission", "SST"], r"--glue-submission SST must be one of CoLA"),
        (["RUN", "--glue-submission", "AX"], r"--glue-submission needs --glue-dir and --output"),
    ],
)
def test_a_wrong_call_is_told_in_one_line(trained, monkeypatch, arguments, told):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"fine\n")))
    with pytest.raises(SystemExit, match=told):
        main(["predict", *[str(trained) if a == "RUN" else a for a in arguments]])


def test_a_checkpoint_without_its_companions_is_refused(trained, tmp_path):
    shutil.copy(trained / saved.BEST, tmp_path)
    with pytest.raises(UserError, match=r"inference is missing"):
        load(tmp_path)
