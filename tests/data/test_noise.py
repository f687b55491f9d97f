"""Noise in training data, and that it stays there."""

import numpy as np
import pytest
from conftest import configure
from fairseq import tasks
from fairseq.tasks.sentence_prediction import SentencePredictionTask
from hypothesis import given
from hypothesis import strategies as st

from fairseq_scl.data.corruption import corrupt_tokens, flip_labels

MASK, SPECIAL = 99, 4


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=80),
    st.floats(0, 1),
    st.integers(0, 999),
)
def test_flips_so_many_labels_and_no_other(labels, share, seed):
    labels = np.array(labels)
    noisy, flipped = flip_labels(labels, 5, share, seed)
    assert len(flipped) == round(share * len(labels))
    assert np.array_equal(np.flatnonzero(noisy != labels), flipped)
    assert ((noisy >= 0) & (noisy < 5)).all()
    again = flip_labels(labels, 5, share, seed)
    assert np.array_equal(noisy, again[0])


def test_each_other_class_is_as_likely():
    labels = np.zeros(30_000, int)
    counts = np.bincount(flip_labels(labels, 4, 1.0, 0)[0])
    assert counts[0] == 0
    assert (abs(counts[1:] - 10_000) < 400).all()


@pytest.mark.parametrize(("share", "classes"), [(-0.1, 2), (1.1, 2), (float("nan"), 2), (0.5, 1)])
def test_impossible_flips_are_refused(share, classes):
    with pytest.raises(ValueError, match=r"in \[0, 1\]|one class"):
        flip_labels(np.zeros(4, int), classes, share, 0)


def pair(rng):
    """`<s> A </s> </s> B </s>`."""
    first, second = (rng.integers(SPECIAL, 90, rng.integers(1, 9)) for _ in range(2))
    return np.r_[0, first, 2, 2, second, 2]


@given(st.integers(0, 9999), st.floats(0, 1))
def test_special_tokens_stay_and_no_sentence_is_lost(seed, probability):
    rng = np.random.default_rng(seed)
    tokens = pair(rng)
    noisy = corrupt_tokens(tokens, probability, MASK, SPECIAL, rng)
    assert noisy[noisy < SPECIAL].tolist() == [0, 2, 2, 2]
    middle = np.flatnonzero(noisy == 2)
    assert middle[0] > 1
    assert middle[2] - middle[1] > 1
    assert set(noisy) <= set(tokens) | {MASK}
    assert len(noisy) <= len(tokens)


def test_without_probability_nothing_changes():
    tokens = pair(np.random.default_rng(1))
    assert np.array_equal(
        corrupt_tokens(tokens, 0.0, MASK, SPECIAL, np.random.default_rng(0)), tokens
    )


def test_each_kind_of_noise_takes_a_third():
    tokens = np.r_[0, np.arange(SPECIAL, SPECIAL + 30_000), 2]
    noisy = corrupt_tokens(tokens, 0.03, 10**6, SPECIAL, np.random.default_rng(0))
    assert abs((noisy == 10**6).sum() - 300) < 60
    assert abs(len(tokens) - len(noisy) - 300) < 60
    kept = noisy[(noisy != 10**6) & (noisy >= SPECIAL)]
    assert abs((np.diff(kept) < 0).sum() - 300) < 70  # a few swaps meet another fate as well


# --- in the task


@pytest.fixture
def task_of(recipe, tmp_path):
    return lambda *more: tasks.setup_task(configure(recipe.flags(tmp_path, *more)).task)


def tokens_of(dataset) -> list[list[int]]:
    return [dataset[i]["net_input.src_tokens"].tolist() for i in range(len(dataset))]


def labels_of(dataset) -> list[int]:
    return [int(dataset[i]["target"]) for i in range(len(dataset))]


def test_label_noise_flips_training_labels_only(task_of):
    clean, noisy = task_of(), task_of("--noise", "label", "--label-noise", 0.3)
    before, after = (labels_of(task.load_dataset("train")) for task in (clean, noisy))
    assert sum(a != b for a, b in zip(before, after, strict=True)) == 6
    for split in ("valid", "test"):
        same = [labels_of(task.load_dataset(split)) for task in (clean, noisy)]
        assert same[0] == same[1]


def test_token_noise_changes_every_epoch_and_repeats_with_its_seed(task_of):
    task, again = (task_of("--noise", "tokens", "--token-noise", 0.5) for _ in range(2))
    train = task.load_dataset("train")
    found = []
    for epoch in (1, 2):
        train.set_epoch(epoch)
        found.append(tokens_of(train))
    assert found[0] != found[1]
    other = again.load_dataset("train")
    other.set_epoch(2)
    assert tokens_of(other) == found[1]
    for split in ("valid", "test"):
        assert tokens_of(task.load_dataset(split)) == tokens_of(task_of().load_dataset(split))


def test_noisy_batches_tell_their_true_lengths(task_of):
    task = task_of("--noise", "tokens", "--token-noise", 0.9)
    train = task.load_dataset("train")
    batch = train.collater([train[i] for i in range(len(train))])
    tokens = batch["net_input"]["src_tokens"]
    lengths = tokens.ne(task.dictionary.pad()).sum(1)
    assert batch["net_input"]["src_lengths"].tolist() == lengths.tolist()
    assert batch["ntokens"] == int(lengths.sum())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--noise", "label", "--label-noise", 1.5), "--label-noise 1.5: the share"),
        (("--noise", "tokens", "--token-noise", -1), "--token-noise -1.0 must be in"),
        (("--noise", "back-translation"), "--noise-temperature None must be above 0"),
        (
            ("--noise", "back-translation", "--noise-temperature", 0),
            "--noise-temperature 0.0 must be above 0",
        ),
        (
            ("--noise", "back-translation", "--noise-temperature", 0.3, "--noise-ratio", 0),
            "--noise-ratio 0 must be at least 1",
        ),
        (
            ("--noise", "back-translation", "--noise-temperature", 0.3),
            r"back-translation/T0.3/index.json is missing",
        ),
        (("--samples-per-class", 3), "--samples-per-class 3: a batch of 8 is no multiple"),
        (("--samples-per-class", 2), "2 of each of 4 classes, the data has 2"),
    ],
)
def test_impossible_noise_is_refused(task_of, flags, message):
    with pytest.raises(SystemExit, match=message):
        task_of(*flags).load_dataset("train")


def test_samples_per_class_holds_in_every_batch_and_epoch(task_of):
    task = task_of("--samples-per-class", 4, "--shots-sampling", "random", "--shots-seed", 3)
    dataset = task.load_dataset("train")
    label = dict(zip(dataset.rows.tolist(), labels_of(dataset), strict=True))
    memberships = []
    for epoch in (1, 2):
        iterator = task.get_batch_iterator(dataset, max_sentences=8, seed=1, epoch=epoch)
        batches = [batch["id"].tolist() for batch in iterator.next_epoch_itr(shuffle=True)]
        assert {row for batch in batches for row in batch} == set(dataset.rows.tolist())
        for batch in batches:
            assert sorted(label[row] for row in batch) == [0] * 4 + [1] * 4
        memberships.append({frozenset(batch) for batch in batches})
    assert memberships[0] != memberships[1]


# --- back-translations, as `fairseq-scl back-translate` stores them


@pytest.fixture
def translated(data, encoder, tmp_path):
    """Prepared data with two translations at T = 0.3 of each of its first 300 training rows."""
    import json
    import shutil

    from fairseq_scl.encoders.tokenizers import load_tokenizer
    from fairseq_scl.preparation.binarize import write_sentences
    from fairseq_scl.preparation.tables import Row

    copy = tmp_path / "translated"
    shutil.copytree(data, copy)
    folder = copy / "back-translation" / "T0.3"
    folder.mkdir(parents=True)
    pairs = [(row, number) for row in range(300) for number in range(2)]
    rows = [Row(0, (f"row {row} translated {number}",), None) for row, number in pairs]
    dictionary = SentencePredictionTask.load_dictionary(str(copy / "input0" / "dict.txt"))
    tokenizer = load_tokenizer(encoder, dictionary.symbols)
    write_sentences(rows, len(rows), tokenizer, len(dictionary), 64, [folder / "input0"], "T0.3")
    index = {"rows": [row for row, _ in pairs], "copies": [number for _, number in pairs]}
    (folder / "index.json").write_text(json.dumps(index))
    return copy


def translating(recipe, tmp_path, data, *more):
    flags = ("--noise", "back-translation", "--noise-temperature", 0.3, "--noise-ratio", 2, *more)
    return tasks.setup_task(
        configure([str(data), *recipe.flags(tmp_path / "run", *flags)[1:]]).task
    )


def from_the_first_300(recipe):
    """A seed whose draw of 20 is among the translated rows."""
    from fairseq_scl.data.rows import Choices, Rows

    for seed in range(1, 200_000):
        drawn = Rows(recipe.data, Choices(num_shots=4, shots_seed=seed)).of("train").rows
        if drawn.max() < 300:
            return ("--num-shots", 4, "--shots-seed", seed), drawn
    raise AssertionError("no such seed")


@pytest.mark.parametrize("replace", [False, True])
def test_translations_join_or_replace_their_originals(recipe, translated, tmp_path, replace):
    flags, drawn = from_the_first_300(recipe)
    more = [*flags, "--noise-replace"] if replace else flags
    task = translating(recipe, tmp_path, translated, *more)
    train = task.load_dataset("train")
    assert len(train) == len(drawn) * (2 if replace else 3)
    text = [task.dictionary.string(train[i]["net_input.src_tokens"]) for i in range(len(train))]
    assert sum("".join(t.split()).startswith("rowĠ") for t in text) == 2 * len(drawn)
    assert all(train[i]["net_input.src_tokens"][0] == 0 for i in range(len(train)))
    clean = [int(task.datasets["train"].split.datasets[0][int(r)]["target"]) for r in drawn]
    labels = labels_of(train)
    added = labels if replace else labels[len(drawn) :]
    assert added == [label for label in clean for _ in range(2)]
    batch = train.collater([train[i] for i in range(len(train))])
    assert batch["target"].view(-1).tolist() == labels


@pytest.mark.parametrize("replace", [False, True])
def test_evaluate_asks_translations_as_the_run_trained_on_them(
    recipe, translated, tmp_path, monkeypatch, replace
):
    from conftest import PACKAGE, train

    from fairseq_scl.cli import main
    from fairseq_scl.inference.classifier import load
    from fairseq_scl.preparation.tables import Columns, read_file
    from fairseq_scl.studies import evaluate

    flags, drawn = from_the_first_300(recipe)
    noise = ("--noise", "back-translation", "--noise-temperature", 0.3, "--noise-ratio", 2)
    more = ("--max-update", 1, *flags, *noise, *["--noise-replace"] * replace)
    folder = tmp_path / "run"
    train([str(translated), *recipe.flags(folder, *more)[1:]])
    asked = []
    monkeypatch.setattr(evaluate, "knn_metrics", lambda *known: asked.extend(known[:2]))
    main(["evaluate", str(folder)])
    rows = read_file(PACKAGE / "sample_data" / "train.tsv", Columns(("sentence",), "label"))
    classifier = load(folder)
    sentences, labels = [], []
    for row in drawn.tolist():
        originals = [] if replace else [rows[row].sentences[0]]
        group = [*originals, *(f"row {row} translated {number}" for number in range(2))]
        sentences += group
        labels += [classifier.classes.index(rows[row].label)] * len(group)
    expected = np.stack([one.embedding for one in classifier.predict(sentences)])
    known, classes = asked
    assert classes.tolist() == labels
    for row in np.unique(drawn):  # the rows of one source come in any order
        at = np.flatnonzero(np.repeat(drawn, len(group)) == row)
        distances = np.abs(known[at][:, None] - expected[at][None]).max(2)
        assert sorted(distances.argmin(1)) == list(range(len(group)))
        assert distances.min(1).max() < 1e-4


def test_a_ratio_beyond_what_is_stored_is_refused(recipe, translated, tmp_path):
    flags, drawn = from_the_first_300(recipe)
    task = translating(recipe, tmp_path, translated, *flags, "--noise-ratio", 3)
    with pytest.raises(SystemExit, match=f"row {drawn[0]} has 2 translations, --noise-ratio 3"):
        task.load_dataset("train")


def test_translations_stay_out_of_valid_and_test(recipe, translated, tmp_path):
    flags, _ = from_the_first_300(recipe)
    task = translating(recipe, tmp_path, translated, *flags)
    assert [len(task.load_dataset(split)) for split in ("valid", "test")] == [100, 200]


def test_a_manifest_knows_the_translations_that_were_used(recipe, translated, tmp_path, capsys):
    from conftest import train

    from fairseq_scl.cli import main

    flags, _ = from_the_first_300(recipe)
    noise = ("--noise", "back-translation", "--noise-temperature", 0.3, "--noise-ratio", 2)
    more = ("--max-update", 1, *flags, *noise)
    train([str(translated), *recipe.flags(tmp_path / "run", *more)[1:]])
    verify = ["verify", str(tmp_path / "run" / "manifest.json"), "--data", str(translated)]
    main(verify)
    assert "verified" in capsys.readouterr().out
    stored = translated / "back-translation" / "T0.3" / "input0.bin"
    content = bytearray(stored.read_bytes())
    content[: len(content) : 2] = b"\x09" * len(content[: len(content) : 2])
    stored.write_bytes(bytes(content))
    with pytest.raises(SystemExit, match="its noise is not what DATA and the seeds give"):
        main(verify)
