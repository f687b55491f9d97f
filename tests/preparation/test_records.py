"""records: every column of a file, of each kind, with the numbers of its rows."""

import gzip
import json

import pandas
import pytest

from fairseq_scl.errors import UserError
from fairseq_scl.preparation.records import read_records

RECORDS = [{"text": "fine, and\nfunny", "n": "1"}, {"text": "dull", "n": ""}]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.parquet", "a.csv.gz"])
def test_every_kind_gives_the_same(tmp_path, name):
    frame, path = pandas.DataFrame(RECORDS), tmp_path / name
    if name.startswith("a.csv"):
        frame.to_csv(path, index=False)
    elif name == "a.parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=name == "a.jsonl")
    header, rows = read_records(path)
    assert header == ["text", "n"]
    assert [values for _, values in rows] == [list(record.values()) for record in RECORDS]


def test_rows_have_their_numbers_in_the_file(tmp_path):
    (tmp_path / "a.tsv").write_text(' text \tn\n\n"a\t1\nb\nc\t2\t3\n')
    header, rows = read_records(tmp_path / "a.tsv")
    assert header == ["text", "n"]
    assert list(rows) == [(3, ['"a', "1"]), (4, ["b"]), (5, ["c", "2", "3"])]
    (tmp_path / "a.csv").write_text('text;n\n"a\nb";1\n\nc;2\n', encoding="utf-16")
    assert list(read_records(tmp_path / "a.csv", ";", "utf-16").rows) == [
        (3, ["a\nb", "1"]), (5, ["c", "2"]),
    ]  # fmt: skip


def test_objects_of_json_may_lack_values_or_have_more(tmp_path):
    lines = [{"a": 1, "b": [2]}, {"b": None}, {"c": 3, "a": 4}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = read_records(tmp_path / "a.jsonl").rows
    assert list(rows) == [(1, [1, [2]]), (2, [None, None]), (3, [4, None, 3])]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", b"", "a.csv is empty"),
        ("a.json", b"[]", "a.json is empty"),
        ("a.csv", b"a,b\n1\n", "a.csv, row 2: 1 fields, there are 2 columns"),
        ("a.csv", b"a;b\n1;2\n1,5;2\n", "a.csv: one column, 'a;b'; is it --delimiter ';'?"),
        ("a.csv", b'a,b\n"1,2\n', "a.csv, row 2: not CSV (unexpected end of data)"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', "a.jsonl, row 2: not a JSON object"),
        ("a.jsonl", b'{"a": 1}\n{"a"\n', "a.jsonl, row 2: not JSON"),
        ("a.csv", b"a\nb\n\xe9\n", "a.csv, row 3: not UTF-8"),
        ("a.parquet", b"PAR1", "a.parquet cannot be read"),
        ("a.csv.gz", gzip.compress(b"a\nb\n", mtime=0)[:-4], "a.csv.gz cannot be read"),
        ("a.ods", b"PK", "a.ods: save it as CSV (UTF-8) in the spreadsheet program"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as stop:
        list(read_records(tmp_path / name).rows)
    assert told in str(stop.value)
