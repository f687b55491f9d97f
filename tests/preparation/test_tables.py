"""Reading GLUE's files and a user's own."""

import csv
import gzip
import io
import json
import os
import re
import tracemalloc

import pyarrow
import pyarrow.parquet
import pytest
from conftest import SHARED
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairseq_scl.errors import UserError
from fairseq_scl.preparation import tables
from fairseq_scl.preparation.glue import GLUE, glue_tables, unlike_published
from fairseq_scl.preparation.records import read_records
from fairseq_scl.preparation.tables import Columns, file_table, read_file

GLUE_DIR = SHARED / "glue"
SINGLE = Columns(("sentence",), "label")
PAIR = Columns(("sentence1", "sentence2"), "label")
STSB_HEADER = (
    "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
)
MNLI_START = (
    "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t"
    "sentence1_parse\tsentence2_parse\tsentence1\tsentence2"
)
MNLI_TRAIN = MNLI_START + "\tlabel1\tgold_label\n"
MNLI_DEV = MNLI_START + "\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label\n"
# any text that may stand in a field, but for the characters that end a field or a row
FIELD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\n\r"))


def mnli_row(labels, gold):
    """A row of MNLI whose unused columns are filled, so that a wrong column is seen."""
    start = ["7", "p", "q", "fiction", "b1", "b2", "t1", "t2", "It rained.", "The road was wet."]
    return "\t".join([*start, *labels, gold]) + "\n"


def write_task(folder, task, **files):
    """`DIR/TASK/NAME.tsv` for each of `files`, exactly as given."""
    (folder / task).mkdir()
    for name, text in files.items():
        (folder / task / f"{name}.tsv").write_bytes(text.encode())
    return folder


def read_tables(task, folder):
    """The rows of each split."""
    return {split: list(rows) for split, rows in glue_tables(task, folder).items()}


def read_task(folder, task):
    """Sentences and label of each row of each split."""
    return {
        split: [(*row.sentences, row.label) for row in rows]
        for split, rows in read_tables(task, folder).items()
    }


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def message(call, *arguments):
    """What the user is told: one line."""
    with pytest.raises(UserError) as error:
        call(*arguments)
    text = str(error.value)
    assert text.startswith("fairseq-scl: error: ")
    assert len(text.splitlines()) == 1
    return text.removeprefix("fairseq-scl: error: ")


# --- GLUE, as published


def test_cola_has_no_header_but_in_test(tmp_path):
    row = "gj04\t{}\t{}\t{}\n"
    write_task(
        tmp_path,
        "CoLA",
        train=row.format(1, "", "The boat drifted.") + row.format(0, "*", "Boat the drifted."),
        dev=row.format(1, "", "She knows it."),
        test="index\tsentence\n0\tWho left early?\n1\tThe left early who.\n",
    )
    assert read_task(tmp_path, "CoLA") == {
        "train": [("The boat drifted.", "1"), ("Boat the drifted.", "0")],
        "valid": [("She knows it.", "1")],
        "test": [("Who left early?", None), ("The left early who.", None)],
    }


def test_cola_counts_rows_from_the_first_line(tmp_path):
    write_task(tmp_path, "CoLA", train="a\t1\t\tOne.\nb\t0\t*\tTwo.\n", dev="c\t1\t\tThree.\n")
    assert [row.line for row in glue_tables("CoLA", tmp_path)["train"]] == [1, 2]


def test_sst2_loses_its_trailing_spaces(tmp_path):
    write_task(
        tmp_path,
        "SST-2",
        train="sentence\tlabel\na warm and patient film \t1\nslow , then slower \t0\n",
        dev="sentence\tlabel\nnot a minute wasted\t1\n",
        test="index\tsentence\n0\tnothing happens twice\n",
    )
    assert read_task(tmp_path, "SST-2") == {
        "train": [("a warm and patient film", "1"), ("slow , then slower", "0")],
        "valid": [("not a minute wasted", "1")],
        "test": [("nothing happens twice", None)],
    }


def test_mrpc_starts_with_a_byte_order_mark(tmp_path):
    header = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    write_task(
        tmp_path,
        "MRPC",
        train=header + '1\t11\t12\tHe said "no".\t"No", he said.\n',
        dev=header + "0\t13\t14\tSales rose.\tSales fell.\n",
        test="\ufeffindex\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t15\t16\tHe ran.\tShe ran.\n",
    )
    assert read_task(tmp_path, "MRPC") == {
        "train": [('He said "no".', '"No", he said.', "1")],
        "valid": [("Sales rose.", "Sales fell.", "0")],
        "test": [("He ran.", "She ran.", None)],
    }


def test_qqp_rows_that_lack_fields_are_skipped(tmp_path):
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    good = "1\t2\t3\tHow do owls hunt?\tHow does an owl hunt?\t1\n"
    write_task(
        tmp_path,
        "QQP",
        train=header + good + "4\t5\t6\tHow far is it?\n" + good + "stray words\n",
        dev=header + "7\t8\t9\tWhy knit?\tWhy sew?\t0\n10\t11\n",
        test="id\tquestion1\tquestion2\n0\tWhy knit?\tWhy not?\n",
    )
    same = ("How do owls hunt?", "How does an owl hunt?", "1")
    assert read_task(tmp_path, "QQP") == {
        "train": [same, same],
        "valid": [("Why knit?", "Why sew?", "0")],
        "test": [("Why knit?", "Why not?", None)],
    }


def test_rows_after_a_skipped_one_keep_their_line_numbers(tmp_path):
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    good = "1\t2\t3\tHow?\tWhy?\t1\n"
    write_task(tmp_path, "QQP", train=header + good + "4\t5\n" + good, dev=header + good)
    assert [row.line for row in glue_tables("QQP", tmp_path)["train"]] == [2, 4]


def test_stsb_is_a_regression(tmp_path):
    source = "\tnews\tf\t2031\t4\ts1\ts2"
    write_task(
        tmp_path,
        "STS-B",
        train=STSB_HEADER + f"0{source}\tA man walks.\tA man strolls.\t4.250\n",
        dev=STSB_HEADER + f"1{source}\tA cup.\tA star.\t0.000\n",
        test=STSB_HEADER.replace("\tscore", "") + f"2{source}\tA cat.\tA kitten.\n",
    )
    assert GLUE["STS-B"].regression
    assert read_task(tmp_path, "STS-B") == {
        "train": [("A man walks.", "A man strolls.", "4.250")],
        "valid": [("A cup.", "A star.", "0.000")],
        "test": [("A cat.", "A kitten.", None)],
    }


def test_only_stsb_is_a_regression():
    assert [task for task in GLUE if GLUE[task].regression] == ["STS-B"]


def test_mnli_has_matched_and_mismatched_sets(tmp_path):
    dev_row = mnli_row(["contradiction"] * 5, "entailment")
    write_task(
        tmp_path,
        "MNLI",
        train=MNLI_TRAIN + mnli_row(["contradiction"], "neutral"),
        dev_matched=MNLI_DEV + dev_row,
        dev_mismatched=MNLI_DEV + dev_row * 2,
        test_matched=MNLI_START + "\n" + mnli_row([], "").rstrip() + "\n",
        test_mismatched=MNLI_START + "\n" + (mnli_row([], "").rstrip() + "\n") * 3,
    )
    pair = ("It rained.", "The road was wet.")
    assert read_task(tmp_path, "MNLI") == {
        "train": [(*pair, "neutral")],
        "valid": [(*pair, "entailment")],
        "valid1": [(*pair, "entailment")] * 2,
        "test": [(*pair, None)],
        "test1": [(*pair, None)] * 3,
    }


def test_qnli_keeps_a_stray_leading_quote(tmp_path):
    header = "index\tquestion\tsentence\tlabel\n"
    write_task(
        tmp_path,
        "QNLI",
        train=header
        + '0\tWho wrote it?\t"It was written at sea.\tnot_entailment\n'
        + "1\tWhere is it?\tIt is in the attic.\tentailment\n",
        dev=header + '2\t"Who came?\tNobody came.\tentailment\n',
        test='index\tquestion\tsentence\n3\tWhy?\t"Because.\n',
    )
    assert read_task(tmp_path, "QNLI") == {
        "train": [
            ("Who wrote it?", '"It was written at sea.', "not_entailment"),
            ("Where is it?", "It is in the attic.", "entailment"),
        ],
        "valid": [('"Who came?', "Nobody came.", "entailment")],
        "test": [("Why?", '"Because.', None)],
    }


@pytest.mark.parametrize(
    ("task", "labels"), [("RTE", ("entailment", "not_entailment")), ("WNLI", ("1", "0"))]
)
def test_rte_and_wnli(tmp_path, task, labels):
    header = "index\tsentence1\tsentence2\tlabel\n"
    write_task(
        tmp_path,
        task,
        train=header + f"0\tThe jug fell as it was full.\tThe jug was full.\t{labels[0]}\n",
        dev=header + f"1\tThe jug fell.\tThe jug flew.\t{labels[1]}\n",
        test="index\tsentence1\tsentence2\n2\tIt fell.\tIt broke.\n",
    )
    assert read_task(tmp_path, task) == {
        "train": [("The jug fell as it was full.", "The jug was full.", labels[0])],
        "valid": [("The jug fell.", "The jug flew.", labels[1])],
        "test": [("It fell.", "It broke.", None)],
    }


def test_windows_line_ends_leave_no_trace(tmp_path):
    text = "sentence\tlabel\r\ngood soup\t1\r\nbad soup\t0\r\n"
    write_task(tmp_path, "SST-2", train=text, dev=text)
    assert read_task(tmp_path, "SST-2")["train"] == [("good soup", "1"), ("bad soup", "0")]


def test_the_last_row_needs_no_line_end(tmp_path):
    text = "sentence\tlabel\ngood soup\t1"
    write_task(tmp_path, "SST-2", train=text, dev=text)
    assert read_task(tmp_path, "SST-2")["valid"] == [("good soup", "1")]


def test_glue_test_sets_are_optional(tmp_path):
    text = "sentence\tlabel\ngood soup\t1\n"
    write_task(tmp_path, "SST-2", train=text, dev=text)
    assert list(glue_tables("SST-2", tmp_path)) == ["train", "valid"]


def test_glue_tells_the_file_of_each_split(tmp_path):
    text = "sentence\tlabel\ngood soup\t1\n"
    write_task(tmp_path, "SST-2", train=text, dev=text)
    assert glue_tables("SST-2", tmp_path)["valid"].path == tmp_path / "SST-2" / "dev.tsv"


@pytest.mark.parametrize("missing", ["train", "dev"])
def test_glue_training_and_dev_sets_must_exist(tmp_path, missing):
    text = "sentence\tlabel\ngood soup\t1\n"
    write_task(tmp_path, "SST-2", **{({"train", "dev"} - {missing}).pop(): text})
    assert f"{missing}.tsv cannot be read" in message(read_tables, "SST-2", tmp_path)


def test_unknown_glue_task_lists_the_nine(tmp_path):
    told = message(read_tables, "SST2", tmp_path)
    assert told.startswith("--data glue:SST2: ")
    assert all(task in told for task in GLUE)
    assert len(GLUE) == 9


def test_a_short_glue_row_outside_qqp_is_an_error(tmp_path):
    text = "index\tsentence1\tsentence2\tlabel\n0\tOne.\tTwo.\tentailment\n1\tOne.\tTwo.\n"
    write_task(tmp_path, "RTE", train=text, dev=text)
    told = message(read_tables, "RTE", tmp_path)
    assert "train.tsv, row 3: 3 fields, at least 4 are needed" in told


@pytest.mark.needs_shared_data
@pytest.mark.parametrize(
    ("task", "rows", "labels"),
    [
        ("SST-2", {"train": 67349, "valid": 872, "test": 1821}, {"0", "1"}),
        ("RTE", {"train": 2490, "valid": 277, "test": 3000}, {"entailment", "not_entailment"}),
        ("QNLI", {"train": 8999, "valid": 5463, "test": 5463}, {"entailment", "not_entailment"}),
        ("MNLI", {"train": 8999, "valid": 9815}, {"entailment", "neutral", "contradiction"}),
    ],
)
def test_real_glue(task, rows, labels):
    splits = read_tables(task, GLUE_DIR)
    assert {split: len(found) for split, found in splits.items()} == rows
    for split, found in splits.items():
        assert {row.label for row in found} == ({None} if split == "test" else labels)
        assert all(all(row.sentences) for row in found)


# --- GLUE's published numbers


@pytest.mark.parametrize("task", GLUE)
def test_every_split_of_every_task_has_a_published_number_of_rows(task):
    rows = GLUE[task].published_rows
    assert list(rows) == list(GLUE[task].files)
    for split, number in rows.items():
        assert unlike_published(task, split, number) is None
        assert unlike_published(task, split, number - 1).endswith(": a subset?")


def test_fewer_rows_than_published_may_be_a_subset():
    told = "train has 8,999 rows, the published set 104,743: a subset?"
    assert unlike_published("QNLI", "train", 8999) == told


def test_more_rows_than_published_are_no_subset():
    told = "test1 has 10,000 rows, the published set 9,847"
    assert unlike_published("MNLI", "test1", 10_000) == told


def test_some_copies_of_qqp_have_three_rows_more():
    for rows, odd in {363_845: True, 363_846: False, 363_849: False, 363_850: True}.items():
        assert bool(unlike_published("QQP", "train", rows)) is odd


@pytest.mark.needs_shared_data
@pytest.mark.parametrize(
    ("task", "subsets"), [("SST-2", []), ("RTE", []), ("QNLI", ["train"]), ("MNLI", ["train"])]
)
def test_real_glue_has_the_published_numbers_but_for_subsets(task, subsets):
    splits = read_tables(task, GLUE_DIR)
    odd = [split for split, rows in splits.items() if unlike_published(task, split, len(rows))]
    assert odd == subsets
    assert len({row.label for row in splits["train"]}) == len(GLUE[task].labels)


# --- a user's own files


def test_tsv_takes_quotes_and_commas_as_they_are(tmp_path):
    path = write(tmp_path / "a.tsv", 'label\tsentence\n1\t"Well", she said, "no.\n')
    assert read_file(path, SINGLE) == [(2, ('"Well", she said, "no.',), "1")]


def test_csv_quoting(tmp_path):
    path = write(
        tmp_path / "a.csv",
        'sentence,label\n"Salt, pepper, and ""luck""",pos\nplain,neg\n',
    )
    assert [row[1:] for row in read_file(path, SINGLE)] == [
        (('Salt, pepper, and "luck"',), "pos"),
        (("plain",), "neg"),
    ]


def test_csv_field_may_hold_a_line_end(tmp_path):
    path = write(tmp_path / "a.csv", 'sentence,label\n"first\nsecond",1\nthird,0\n')
    assert [row[1:] for row in read_file(path, SINGLE)] == [
        (("first\nsecond",), "1"),
        (("third",), "0"),
    ]


def test_csv_with_a_byte_order_mark_and_windows_line_ends(tmp_path):
    path = write(tmp_path / "a.csv", '\ufeff"sentence",label\r\nfine,1\r\n')
    assert read_file(path, SINGLE) == [(2, ("fine",), "1")]


def test_json_lines(tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        '{"sentence1": "One\\nline.", "sentence2": "\\u00e9t\\u00e9", "label": "x", "id": 3}\n'
        '{"sentence1": "Two.", "sentence2": "Three."}\n',
    )
    assert read_file(path, PAIR) == [
        (1, ("One\nline.", "été"), "x"),
        (2, ("Two.", "Three."), None),
    ]


def test_json_numbers_serve_as_labels(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"sentence": "Two.", "label": 2}\n')
    assert read_file(path, SINGLE)[0].label == "2"


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_a_file_without_the_label_column_is_unlabelled(tmp_path, name):
    path = write(tmp_path / name, "sentence\nOne.\n")
    assert read_file(path, SINGLE) == [(2, ("One.",), None)]


def test_columns_are_found_by_name(tmp_path):
    path = write(tmp_path / "a.tsv", "class\tb\ta\nyes\tsecond\tfirst\n")
    assert read_file(path, Columns(("a", "b"), "class")) == [(2, ("first", "second"), "yes")]


@pytest.mark.parametrize(
    ("name", "row"),
    [("a.tsv", "  One. \t 1 "), ("a.csv", "  One. , 1 ")],
)
def test_spaces_around_a_field_are_dropped(tmp_path, name, row):
    path = write(tmp_path / name, f"sentence{row[7]}label\n{row}\n")
    assert read_file(path, SINGLE) == [(2, ("One.",), "1")]


def test_spaces_around_a_json_field_are_dropped(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"sentence": "  One. ", "label": " 1 "}\n')
    assert read_file(path, SINGLE) == [(1, ("One.",), "1")]


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl"])
def test_blank_lines_are_no_rows(tmp_path, name):
    header, row = {
        "a.tsv": ("sentence\tlabel\n", "One.\t1\n"),
        "a.csv": ("sentence,label\n", "One.,1\n"),
        "a.jsonl": ("", '{"sentence": "One.", "label": "1"}\n'),
    }[name]
    path = write(tmp_path / name, header + row + "\n" + row + "\n")
    lines = [row.line for row in read_file(path, SINGLE)]
    assert len(lines) == 2
    assert lines[1] - lines[0] == 2


def test_a_blank_line_of_one_column_is_an_empty_cell(tmp_path):
    path = write(tmp_path / "a.csv", "sentence\n\nOne.\n\n\nTwo.\n\n")
    rows = read_file(path, SINGLE)
    assert [row.sentences[0] for row in rows] == ["", "One.", "", "", "Two."]
    assert [row.line for row in rows] == [2, 3, 4, 5, 6]
    assert [values for _, values in read_records(path).rows] == [[s] for (_, (s,), _) in rows]


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1e"])
@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl"])
def test_no_other_character_ends_a_row(tmp_path, name, character):
    text = f"before{character}after"
    content = {
        "a.tsv": f"sentence\tlabel\n{text}\t1\n",
        "a.csv": f"sentence,label\n{text},1\n",
        "a.jsonl": json.dumps({"sentence": text, "label": "1"}, ensure_ascii=character < "~"),
    }[name]
    rows = read_file(write(tmp_path / name, content), SINGLE)
    assert [row[1:] for row in rows] == [((text,), "1")]


def test_a_lone_carriage_return_ends_no_row(tmp_path):
    path = write(tmp_path / "a.tsv", "sentence\tlabel\nbefore\rafter\t1\n")
    assert read_file(path, SINGLE) == [(2, ("before\rafter",), "1")]


def test_no_other_character_ends_a_glue_row(tmp_path):
    text = "sentence\tlabel\nbefore\u2028after\u0085end\t1\n"
    write_task(tmp_path, "SST-2", train=text, dev=text)
    assert read_task(tmp_path, "SST-2")["train"] == [("before\u2028after\u0085end", "1")]


def as_tsv(rows):
    return "sentence\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows)


def as_csv(rows):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("sentence", "label"), *rows])
    return text.getvalue()


def as_json_lines(rows):
    records = [{"sentence": text, "label": label} for text, label in rows]
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


@pytest.mark.parametrize(
    ("name", "written"), [("a.tsv", as_tsv), ("a.csv", as_csv), ("a.jsonl", as_json_lines)]
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=5))
def test_what_was_written_is_read(tmp_path, name, written, rows):
    path = write(tmp_path / name, written(rows))
    expected = [(text.strip(), label.strip()) for text, label in rows]
    assert [(*row.sentences, row.label) for row in read_file(path, SINGLE)] == expected


ROWS = [("Good, really.", "pos"), ("Œuvre", "neg")]


def as_json(rows):
    return json.dumps([{"sentence": text, "label": label} for text, label in rows])


@pytest.mark.parametrize(
    ("name", "written"),
    [("a.TSV", as_tsv), ("a.Csv", as_csv), ("a.JSONL", as_json_lines), ("a.Json", as_json)],
)
def test_the_ending_may_be_of_capitals_or_compressed(tmp_path, name, written):
    plain = write(tmp_path / name, written(ROWS))
    packed = write(tmp_path / f"{name}.GZ", gzip.compress(written(ROWS).encode()))
    for path in (plain, packed):
        assert [(*row.sentences, row.label) for row in read_file(path, SINGLE)] == ROWS


@pytest.mark.parametrize(
    ("name", "header", "hint"),
    [
        ("a.csv", "sentence;label", "; try --delimiter ';'"),
        ("a.csv", "sentence\tlabel", "; try --delimiter tab"),
        ("a.tsv", "sentence,label", "; name it .csv and try --delimiter ','"),
        ("a.csv", "Sentence,label", "; try --sentence Sentence"),
        ("a.csv", "The SENTENCES,label", "; try --sentence 'The SENTENCES'"),
        ("a.csv", "a,b", "columns are a, b"),
    ],
)
def test_what_may_help_where_a_column_is_missing(tmp_path, name, header, hint):
    told = message(read_file, write(tmp_path / name, f"{header}\nGood.,x\n"), SINGLE)
    assert told.endswith(hint)


def test_a_missing_second_sentence_has_its_own_flag(tmp_path):
    path = write(tmp_path / "a.csv", "sentence1,Sentence2,label\nA,B,x\n")
    assert message(read_file, path, PAIR).endswith("; try --sentence2 Sentence2")


def test_a_column_that_stands_there_twice(tmp_path):
    path = write(tmp_path / "a.csv", "sentence,label,label\nA,x,y\n")
    assert message(read_file, path, SINGLE) == f"{path}: there are 2 columns 'label'"
    path.write_text("sentence,,\nA,x,y\n", encoding="utf-8")
    assert read_file(path, Columns(("sentence",), "")) == [(2, ("A",), None)]


@pytest.mark.parametrize("name", ["a.xlsx", "a.XLS", "a.ods"])
def test_a_spreadsheet(tmp_path, name):
    told = f"{tmp_path / name}: save it as CSV (UTF-8) in the spreadsheet program"
    assert message(read_file, tmp_path / name, SINGLE) == told


@pytest.mark.parametrize("value", ["5", "true", "NaN", "null", '{"a": 1}', '["A"]'])
def test_text_that_is_no_text(tmp_path, value):
    path = write(tmp_path / "a.jsonl", f'{{"sentence": {value}, "label": "x"}}\n')
    assert message(read_file, path, SINGLE) == (
        f"{path}, row 1: 'sentence' must be a string, not {value}"
    )


def test_spaces_around_a_name_are_dropped(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"sentence": "A", " label": "x"}\n')
    assert read_file(path, SINGLE) == [(1, ("A",), "x")]
    path = write(tmp_path / "a.csv", "sentence, label\nA,x\n")
    assert read_file(path, SINGLE) == [(2, ("A",), "x")]


def test_a_huge_number_is_told_in_short(tmp_path):
    told = str(UserError(f"--n {'9' * 5000} is too large"))
    assert told == f"fairseq-scl: error: --n {'9' * 30}... (5,000 characters) is too large"


def write_parquet(path, **columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_parquet(tmp_path):
    path = write_parquet(
        tmp_path / "a.Parquet",
        id=[1, 2, 3],
        label=pyarrow.array([1, 0, None]),
        sentence=pyarrow.array(["One.", " Two. ", "Three."]).dictionary_encode(),
    )
    expected = [(1, ("One.",), "1"), (2, ("Two.",), "0"), (3, ("Three.",), None)]
    assert read_file(path, SINGLE) == expected


def test_an_empty_cell_that_pandas_wrote_is_no_label(tmp_path):
    table = {"sentence": ["a", "b"], "label": [1.0, float("nan")]}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "a.parquet")
    lines = "".join(
        json.dumps({"sentence": s, "label": v}) + "\n" for s, v in zip(*table.values(), strict=True)
    )
    (tmp_path / "a.jsonl").write_text(lines)
    for name, label in {"a.parquet": "1", "a.jsonl": "1.0"}.items():
        labels = [row.label for row in read_file(tmp_path / name, Columns(("sentence",), "label"))]
        assert labels == [label, None]


def test_half_a_character_in_a_label(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"sentence": "a", "label": "\\ud800"}\n')
    with pytest.raises(UserError, match="row 1: 'label' holds half a character"):
        read_file(tmp_path / "a.jsonl", Columns(("sentence",), "label"))


def test_fractions_in_parquet_are_as_short_as_they_were(tmp_path):
    for kind in (pyarrow.float32(), pyarrow.float64()):
        label = pyarrow.array([3.8, 0.1, None], kind)
        path = write_parquet(tmp_path / "a.parquet", sentence=["a", "b", "c"], label=label)
        assert [row.label for row in read_file(path, SINGLE)] == ["3.8", "0.1", None]


def test_parquet_is_read_a_batch_at_a_time(tmp_path):
    many = 40 * tables.BATCH
    path = write_parquet(
        tmp_path / "a.parquet", sentence=["a" * 300] * many, label=[0, 1] * (many // 2)
    )
    tracemalloc.start()
    assert sum(1 for _ in file_table(path, SINGLE)) == many
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 300 * tables.BATCH


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"text": ["a"], "label": [1]}, ": no column 'sentence'; the columns are text, label"),
        ({"sentence": ["a", None]}, ", row 2: 'sentence' must be a string, not null"),
        ({"sentence": [b"a"]}, """, row 1: 'sentence' must be a string, not "b'a'\""""),
        ({"sentence": ["a"], "label": [[1]]}, ", row 1: 'label' must be a string or a number"),
        ({"sentence": pyarrow.array([], pyarrow.string())}, " has no rows"),
    ],
)
def test_parquet_that_holds_something_else(tmp_path, columns, told):
    path = write_parquet(tmp_path / "a.parquet", **columns)
    assert message(read_file, path, SINGLE) == f"{path}{told}"


@pytest.mark.parametrize("damage", ["cut", "text", "flipped", "gone", "folder"])
def test_parquet_that_is_damaged(tmp_path, damage):
    path = write_parquet(tmp_path / "a.parquet", sentence=["a" * 99, "b"] * 9, label=[0, 1] * 9)
    whole = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "gone":
        middle = whole[: len(whole) // 4] + bytes(40) + whole[len(whole) // 4 + 40 :]
        path.write_bytes({"cut": whole[:-9], "text": b"not parquet", "flipped": middle}[damage])
    assert f"{path} cannot be read" in message(read_file, path, SINGLE)


def test_spaces_before_a_quote_are_the_writers_habit(tmp_path):
    path = write(tmp_path / "a.csv", 'sentence, "label"\nlovely, "pos"\n "a, b", neg\n')
    assert [row[1:] for row in read_file(path, SINGLE)] == [
        (("lovely",), "pos"),
        (("a, b",), "neg"),
    ]


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_spaces_in_a_header_are_dropped(tmp_path, name):
    separator = "\t" if name == "a.tsv" else ","
    path = write(tmp_path / name, f" sentence {separator} label\nOne.{separator}1\n")
    assert read_file(path, SINGLE) == [(2, ("One.",), "1")]


def test_a_long_csv_field(tmp_path):
    path = write(tmp_path / "a.csv", f'sentence,label\n"{"a" * 200_000}",1\n')
    assert len(read_file(path, SINGLE)[0].sentences[0]) == 200_000


def test_another_delimiter(tmp_path):
    path = write(tmp_path / "a.csv", 'label;sentence\n1;One, two\n0;"a; b"\n')
    rows = list(file_table(path, SINGLE, delimiter=";"))
    assert [row[1:] for row in rows] == [(("One, two",), "1"), (("a; b",), "0")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "cp1252", "utf-8-sig"])
@pytest.mark.parametrize(
    ("name", "written"),
    [("a.tsv", as_tsv), ("a.csv", as_csv), ("a.jsonl", as_json_lines), ("a.json", as_json)],
)
def test_another_encoding(tmp_path, name, written, encoding):
    path = write(tmp_path / name, written(ROWS).encode(encoding))
    rows = list(file_table(path, SINGLE, encoding=encoding))
    assert [(*row.sentences, row.label) for row in rows] == ROWS


# --- mistakes


@pytest.mark.parametrize("encoding", ["utf-16", "ascii", "utf-7", "shift_jis"])
def test_another_encoding_than_was_told(tmp_path, encoding):
    path = write(tmp_path / "a.tsv", "sentence\tlabel\nGrüße \U0001f600\t1\n".encode())
    told = message(list, file_table(path, SINGLE, encoding=encoding))
    assert told.startswith(f"{path}, row 2: not {encoding.upper()} (") or encoding == "utf-16"
    assert "--encoding names another" in told


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("sentence\tlabel\nfine\t1\n".encode("utf-16-le"), "row 1: a zero byte; --encoding names"),
        (b"sentence\tlabel\rfine\t1\r", "row 1: lines that end in a carriage return alone"),
    ],
)
def test_bytes_of_no_text(tmp_path, content, told):
    path = write(tmp_path / "a.tsv", content)
    assert message(list, file_table(path, SINGLE)).startswith(f"{path}, {told}")


def test_damaged_gzip(tmp_path):
    packed = gzip.compress(as_tsv(ROWS * 100).encode())
    for i, content in enumerate([packed[:-20], b"no gzip", packed[:40] + bytes(9) + packed[49:]]):
        path = write(tmp_path / f"{i}.tsv.gz", content)
        assert f"{path} cannot be read (" in message(read_file, path, SINGLE)


def test_a_pipe_cannot_be_read_twice(tmp_path):
    os.mkfifo(tmp_path / "a.tsv")
    path = tmp_path / "a.tsv"
    assert message(read_file, path, SINGLE) == f"{path}: not a regular file"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", " is empty"),
        ("[]", " has no rows"),
        ('{"sentence": "a"}', ": not a JSON array"),
        ('{"sentence": "a"}\n{"sentence": "b"}\n', ": not a JSON array (Extra data"),
        ("[" * 100_000, ": not a JSON array ("),
        ('[{"sentence": "a"}, 3]', ", row 2: not a JSON object"),
        ('[{"text": "a"}]', ": no column 'sentence'; the columns are text"),
    ],
)
def test_json_that_is_no_array_of_objects(tmp_path, text, told):
    path = write(tmp_path / "a.json", text)
    assert message(read_file, path, SINGLE).startswith(f"{path}{told}")


def test_missing_file(tmp_path):
    path = tmp_path / "gone.tsv"
    assert message(read_file, path, SINGLE) == f"{path} cannot be read (No such file or directory)"


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl"])
def test_empty_file(tmp_path, name):
    path = write(tmp_path / name, "")
    assert message(read_file, path, SINGLE).startswith(str(path))


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_file_with_only_a_header(tmp_path, name):
    path = write(tmp_path / name, "sentence,label\n".replace(",", "\t" if "tsv" in name else ","))
    assert message(read_file, path, SINGLE) == f"{path} has no rows"


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_wrong_column_lists_the_columns(tmp_path, name):
    separator = "\t" if name == "a.tsv" else ","
    path = write(tmp_path / name, separator.join(["text", "class"]) + "\n")
    told = message(read_file, path, SINGLE)
    assert told == f"{path}: no column 'sentence'; the columns are text, class"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a.tsv", "row 3: 1 fields, at least 2 are needed"),
        ("a.csv", "row 3: 1 fields, there are 2 columns"),
    ],
)
def test_too_few_fields(tmp_path, name, told):
    separator = "\t" if name == "a.tsv" else ","
    rows = [["sentence", "label"], ["One.", "1"], ["Two."]]
    path = write(tmp_path / name, "".join(separator.join(row) + "\n" for row in rows))
    assert message(read_file, path, SINGLE) == f"{path}, {told}"


def test_an_unquoted_comma_is_refused(tmp_path):
    path = write(tmp_path / "a.csv", "sentence,label\nOne, two.,1\n")
    told = "3 fields, there are 2 columns; quote a text that holds ','"
    assert message(read_file, path, SINGLE) == f"{path}, row 2: {told}"


@pytest.mark.parametrize(
    ("name", "header", "row"),
    [
        ("a.tsv", "sentence\tlabel\n", "caf\xe9\t1\n"),
        ("a.csv", "sentence,label\n", "caf\xe9,1\n"),
        ("a.jsonl", '{"sentence": "One."}\n', '{"sentence": "caf\xe9"}\n'),
    ],
)
def test_not_utf8(tmp_path, name, header, row):
    path = write(tmp_path / name, (header + row).encode("latin-1"))
    assert f"{path}, row 2: not UTF-8" in message(read_file, path, SINGLE)


def test_not_utf8_tells_the_row(tmp_path):
    rows = b"sentence\tlabel\n" + b"a plain enough sentence\t1\n" * 9 + b"caf\xe9\t1\n"
    path = write(tmp_path / "a.tsv", rows)
    assert re.search(r"row 1[01]\b", message(read_file, path, SINGLE))


def test_unclosed_csv_quote(tmp_path):
    path = write(tmp_path / "a.csv", 'sentence,label\n"One.,1\nTwo.,0\n')
    assert f"{path}, row 3: not CSV" in message(read_file, path, SINGLE)


def test_not_json(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"sentence": "One."}\n{"sentence": "Two.}\n')
    assert f"{path}, row 2: not JSON" in message(read_file, path, SINGLE)


@pytest.mark.parametrize("record", ["[1, 2]", '"One."', "3", "null"])
def test_json_that_is_no_object(tmp_path, record):
    path = write(tmp_path / "a.jsonl", f'{{"sentence": "One."}}\n{record}\n')
    assert message(read_file, path, SINGLE) == f"{path}, row 2: not a JSON object"


@pytest.mark.parametrize("record", ['{"sentence": 3}', '{"sentence": null}', '{"text": "Two."}'])
def test_json_sentence_that_is_no_string(tmp_path, record):
    path = write(tmp_path / "a.jsonl", f'{{"sentence": "One."}}\n{record}\n')
    given = json.dumps(json.loads(record).get("sentence"))
    told = f"{path}, row 2: 'sentence' must be a string, not {given}"
    assert message(read_file, path, SINGLE) == told


@pytest.mark.parametrize("name", ["a.txt", "a", "a.tsv.bz2", "a.gz", "a.parquet.gz", ".csv"])
def test_unknown_suffix(tmp_path, name):
    path = write(tmp_path / name, "sentence\tlabel\nOne.\t1\n")
    told = message(read_file, path, SINGLE)
    kinds = ".tsv, .csv, .jsonl, .json, .parquet (text also with .gz)"
    assert told == f"{path}: the name must end in {kinds}"


def test_a_folder_is_no_table(tmp_path):
    (tmp_path / "a.tsv").mkdir()
    assert "a.tsv cannot be read" in message(read_file, tmp_path / "a.tsv", SINGLE)
