"""Reading Amazon-2 and Yelp-2 in the forms in which they are published."""

import bz2

import pytest

from fairseq_scl.errors import UserError
from fairseq_scl.preparation.reviews import review_tables

GOOD = "__label__2 Sturdy: It held for years.\n"
BAD = "__label__1 Weak: It broke at once.\n"
PAIR = {"1": "Weak: It broke at once.", "2": "Sturdy: It held for years."}


def write(folder, **files):
    """`DIR/SPLIT.SUFFIX` for each of `files`; `_` stands for a dot."""
    for name, text in files.items():
        content = text.encode()
        path = folder / name.replace("_", ".")
        path.write_bytes(bz2.compress(content) if path.suffix == ".bz2" else content)
    return folder


def read(name, folder):
    return {split: list(rows) for split, rows in review_tables(name, folder).items()}


def refused(name, folder):
    with pytest.raises(UserError) as error:
        read(name, folder)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value).removeprefix("fairseq-scl: error: ")


@pytest.mark.parametrize("suffix", ["ft_txt", "ft_txt_bz2"])
@pytest.mark.parametrize("name", ["amazon-2", "yelp-2"])
def test_fasttext(tmp_path, name, suffix):
    write(tmp_path, **{f"train_{suffix}": (BAD + GOOD) * 20, f"test_{suffix}": GOOD})
    splits = read(name, tmp_path)
    assert [len(rows) for rows in splits.values()] == [38, 2, 1]
    rows = splits["train"] + splits["valid"]
    assert sorted(row.line for row in rows) == list(range(1, 41))
    assert all(row.sentences == (PAIR[row.label],) for row in rows)
    assert all(row.label == "12"[row.line % 2 == 0] for row in rows)
    assert splits["test"] == [(1, (PAIR["2"],), "2")]


def test_amazon_csv_gives_what_fasttext_gives(tmp_path):
    bad, good = '"1","Weak","It broke at once."\n', '"2","Sturdy","It held for years."\n'
    (tmp_path / "csv").mkdir()
    (tmp_path / "ft").mkdir()
    write(tmp_path / "csv", train_csv=(bad + good) * 20, test_csv=good)
    write(tmp_path / "ft", train_ft_txt=(BAD + GOOD) * 20, test_ft_txt=GOOD)
    assert read("amazon-2", tmp_path / "csv") == read("amazon-2", tmp_path / "ft")


@pytest.mark.parametrize(
    ("published", "sentence"),
    [
        ('"Said ""wow"", twice."', 'Said "wow", twice.'),
        (r'"One.\n\nTwo."', "One.\n\nTwo."),
        (r'"A \""deal\"", they say.\n"', 'A "deal", they say.'),
        (r'"5\6 of a cake"', r"5\6 of a cake"),
    ],
)
def test_yelp_csv_escapes(tmp_path, published, sentence):
    train = '"1","Cold."\n"2","Warm."\n' * 20
    write(tmp_path, train_csv=train, test_csv=f'"2",{published}\n"1","Next."\n')
    assert read("yelp-2", tmp_path)["test"] == [(1, (sentence,), "2"), (2, ("Next.",), "1")]


def test_amazon_review_without_a_title(tmp_path):
    train = '"1","Cold","x"\n"2","","Warm."\n' * 20
    write(tmp_path, train_csv=train, test_csv='"2","","Warm."\n')
    assert read("amazon-2", tmp_path)["test"][0].sentences == ("Warm.",)


def test_the_validation_set_keeps_the_labels_shares_and_is_the_same_again(tmp_path):
    write(tmp_path, train_ft_txt=(BAD + GOOD * 3) * 100, test_ft_txt=GOOD)
    first, second = read("yelp-2", tmp_path), read("yelp-2", tmp_path)
    assert first == second
    assert [row.label for row in first["valid"]].count("1") == 5
    assert len(first["valid"]) == 20
    lines = [row.line for split in ("train", "valid") for row in first[split]]
    assert sorted(lines) == list(range(1, 401))
    assert [row.line for row in first["train"]] == sorted(row.line for row in first["train"])


def test_the_validation_set_has_at_most_2000_rows(tmp_path):
    write(tmp_path, train_ft_txt=(BAD + GOOD) * 20_500, test_ft_txt=GOOD)
    assert [len(rows) for rows in read("yelp-2", tmp_path).values()] == [39_000, 2000, 1]


# --- mistakes


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_file(tmp_path, split):
    write(tmp_path, **{{"train": "test", "test": "train"}[split] + "_ft_txt": BAD + GOOD})
    told = f"{tmp_path} holds no {split}.ft.txt, {split}.ft.txt.bz2 or {split}.csv"
    assert refused("amazon-2", tmp_path) == told


@pytest.mark.parametrize("line", ["__label__3 Odd.", "Odd.", "__label__10 Odd."])
def test_a_line_that_is_not_fasttexts(tmp_path, line):
    write(tmp_path, train_ft_txt=GOOD + line + "\n", test_ft_txt=GOOD)
    told = f"{tmp_path / 'train.ft.txt'}, row 2: it must begin with __label__1 or __label__2"
    assert refused("yelp-2", tmp_path) == told


def test_an_empty_review_is_a_row(tmp_path):
    write(tmp_path, train_ft_txt=(BAD + GOOD) * 20, test_ft_txt="__label__2\n")
    assert read("yelp-2", tmp_path)["test"] == [(1, ("",), "2")]


def test_an_unknown_label_in_csv(tmp_path):
    write(tmp_path, train_csv='"0","Odd."\n', test_csv='"1","Even."\n')
    assert refused("yelp-2", tmp_path).endswith("train.csv, row 1: label '0' must be 1 or 2")


@pytest.mark.parametrize(("name", "columns"), [("amazon-2", 3), ("yelp-2", 2)])
def test_the_csv_of_the_other_set(tmp_path, name, columns):
    row = '"1","Cold."\n' if name == "amazon-2" else '"1","Cold","It was."\n'
    write(tmp_path, train_csv=row, test_csv=row)
    told = f"train.csv, row 1: {5 - columns} fields, there are {columns} columns"
    assert told in refused(name, tmp_path)


def test_a_set_too_small_for_a_validation_set(tmp_path):
    write(tmp_path, train_ft_txt=(BAD + GOOD) * 10, test_ft_txt=GOOD)
    told = f"{tmp_path / 'train.ft.txt'}: no validation set can be set apart (1 rows asked for"
    assert refused("yelp-2", tmp_path).startswith(told)


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_file(tmp_path, split):
    write(tmp_path, train_ft_txt=(BAD + GOOD) * 20, test_ft_txt=GOOD)
    (tmp_path / f"{split}.ft.txt").write_text("\n")
    assert refused("yelp-2", tmp_path) == f"{tmp_path / split}.ft.txt has no rows"


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: b"no" + data])
def test_a_damaged_bz2(tmp_path, damage):
    path = tmp_path / "train.ft.txt.bz2"
    path.write_bytes(damage(bz2.compress((BAD + GOOD).encode() * 2000)))
    assert refused("yelp-2", write(tmp_path, test_ft_txt=GOOD)).startswith(
        f"{path} cannot be read ("
    )
