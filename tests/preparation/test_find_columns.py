"""find_columns: spreadsheets as people have them; in doubt, an error that names the flags."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairseq_scl.errors import UserError
from fairseq_scl.preparation.find_columns import find_columns, label_column, text_column

TEXTS = [
    "the room was clean and quiet",
    "we waited an hour for cold soup",
    "staff were kind",
    "never again, the bed was broken",
    "a lovely garden with old trees",
    "too loud at night",
    "breakfast was fine",
    "they lost my booking twice",
]
LABELS = ["good", "bad"] * 4
SHORT = ["Ann Lee", "Bo Chan", "Cy Diaz", "Di Moss", "Ed Frost", "Flo Ray", "Gus Hahn", "Hal Wu"]
CHINESE = [
    "房间很干净也很安静",
    "等了一个小时才上菜",
    "服务员非常友好",
    "再也不会来了",
    "花园很漂亮",
    "晚上太吵了",
    "早餐还可以",
    "我的预订丢了两次",
]
DATES = [f"2024-03-{day:02}" for day in range(1, 9)]
WORDY_DATES = [f"Mon, March {day}, 2024 10:15 AM" for day in range(1, 9)]
SAME_DATES = ["2024-03-01", "2024-03-02"] * 4
SCORES = ["1", "5", "4", "4", "5", "1", "1", "5"]
REALS = ["0.31", "0.5", "0.77", "0.12", "0.93", "0.44", "0.05", "0.6"]
NUMBERS = list(map(str, range(1, 9)))
LINKS = [f"https://example.org/reviews/{i}" for i in range(8)]
CODES = [f"A-{i}" for i in range(8)]


def rows_of(columns: dict[str, list[str]]) -> list[dict[str, str]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"sentence": TEXTS, "label": LABELS}, ("sentence", "label")),
        ({"comment": TEXTS, "topic": LABELS}, ("comment", "topic")),
        ({"Sentence": TEXTS, "Label": LABELS}, ("Sentence", "Label")),
        ({"topic": LABELS, "comment": TEXTS}, ("comment", "topic")),
        ({"REVIEWS": TEXTS, "Classes": LABELS}, ("REVIEWS", "Classes")),
        ({" text ": TEXTS, " class": LABELS}, (" text ", " class")),
        ({"id": NUMBERS, "text": TEXTS, "label": LABELS}, ("text", "label")),
        (
            {"id": NUMBERS, "what guests say": TEXTS, "verdict": LABELS},
            ("what guests say", "verdict"),
        ),
        ({"id": CODES, "said": TEXTS, "on": DATES, "was": LABELS}, ("said", "was")),
        ({"said": TEXTS, "when": WORDY_DATES, "was": LABELS}, ("said", "was")),
        ({"said": TEXTS, "when": SAME_DATES, "was": LABELS}, ("said", "was")),
        ({"said": TEXTS, "weight": REALS}, ("said", None)),
        ({"said": TEXTS, "score": SCORES}, ("said", "score")),
        ({"review": SCORES, "said": TEXTS}, ("said", "review")),
        ({"said": TEXTS, "by": SHORT, "was": LABELS}, ("said", "was")),
        ({"author": SHORT, "said": TEXTS, "link": LINKS}, ("said", None)),
        ({"title": TEXTS[::-1], "text": TEXTS, "label": LABELS}, ("text", "label")),
        ({"review_id": CODES, "review": TEXTS, "class": LABELS}, ("review", "class")),
        ({"评论": CHINESE, "类别": LABELS}, ("评论", "类别")),
        (
            {"sentence": TEXTS, "text": TEXTS, "label": LABELS, "class": LABELS},
            ("sentence", "label"),
        ),
        ({"text": ["fine", "dull"] * 4, "label": LABELS}, ("text", "label")),
        ({"said": TEXTS}, ("said", None)),
        ({"word": ["fine", "dull"] * 4}, ("word", None)),
        (
            {"said": [*TEXTS[:4], "", "", "", ""], "was": ["good", "bad"] * 2 + [""] * 4},
            ("said", "was"),
        ),
        ({"said": TEXTS, "empty": [""] * 8, "was": LABELS}, ("said", "was")),
        ({"said": TEXTS, "same": ["hotel"] * 8, "was": LABELS}, ("said", "was")),
    ],
)
def test_no_doubt(columns, found):
    assert find_columns("f.csv", list(columns), rows_of(columns)) == found


HEAD = "f.csv: no column 'sentence'; the columns are"


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (
            {"what": TEXTS, "why not": TEXTS[::-1]},
            f"{HEAD} what, why not; name one: --sentence what or --sentence 'why not'",
        ),
        (
            {"review": TEXTS, "comment": TEXTS},
            f"{HEAD} review, comment; name one: --sentence review or --sentence comment",
        ),
        ({"a": NUMBERS, "b": DATES}, f"{HEAD} a, b; name one: --sentence NAME"),
        ({"a": NUMBERS}, f"{HEAD} a; name one: --sentence NAME"),
        ({"a": [], "b": []}, f"{HEAD} a, b; name one: --sentence NAME"),
        (
            {"comment;topic": [f"a b {i};c" for i in range(8)]},
            "f.csv: one column, 'comment;topic'; is it --delimiter ';'?",
        ),
        (
            {"comment\ttopic": ["a b\tc"]},
            "f.csv: one column, 'comment\\ttopic'; is it --delimiter tab?",
        ),
        (
            {"text": TEXTS, "topic": LABELS, "sentiment": LABELS},
            "f.csv: no column 'label'; the columns are text, topic, sentiment; name one: "
            "--label topic or --label sentiment",
        ),
        (
            {"text": TEXTS, "stars": SCORES, "verdict": LABELS},
            "f.csv: no column 'label'; the columns are text, stars, verdict; name one: "
            "--label stars or --label verdict",
        ),
    ],
)
def test_in_doubt_the_flags_are_named(columns, told):
    with pytest.raises(UserError) as stop:
        find_columns("f.csv", list(columns), rows_of(columns))
    assert str(stop.value) == f"fairseq-scl: error: {told}"


def test_of_many_rows_a_third_may_be_labels():
    few, many = [str(i % 40) for i in range(120)], [str(i % 41) for i in range(120)]
    for labels, found in ((few, "b"), (many, None)):
        rows = [{"a": f"text number {i}", "b": label} for i, label in enumerate(labels)]
        assert label_column("f.csv", ["a", "b"], rows, "a") == found


NAMES = st.lists(st.text(max_size=8), min_size=1, max_size=4, unique=True)


@given(st.data(), NAMES)
def test_any_spreadsheet_gives_its_columns_or_an_error(data, header):
    row = st.fixed_dictionaries({name: st.text(max_size=12) for name in header})
    rows = data.draw(st.lists(row, max_size=5))
    try:
        text, label = find_columns("f.csv", header, rows)
    except UserError:
        return
    assert text in header and label in {*header, None} - {text}
    assert text == text_column("f.csv", header, rows)
