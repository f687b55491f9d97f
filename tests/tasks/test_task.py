"""The task: draws, splits, batches, and what it refuses."""

import shutil
from collections import Counter

import numpy as np
import pytest
from conftest import SHARED, build, configure, prepare, run, train
from fairseq import tasks

from fairseq_scl.cli import main
from fairseq_scl.data import manifest
from fairseq_scl.errors import UserError


def task_of(flags):
    return tasks.setup_task(configure(flags).task)


@pytest.fixture
def flags(recipe, tmp_path):
    return lambda *more: recipe.flags(tmp_path / "run", *more)


@pytest.fixture
def changed(recipe, tmp_path):
    """Flags for a copy of the data that a test may damage."""
    copy = tmp_path / "data"
    shutil.copytree(recipe.data, copy)
    return copy, lambda *more: [str(copy), *recipe.flags(tmp_path / "run", *more)[1:]]


def labels_of(dataset) -> list[int]:
    return [int(dataset[i]["target"]) for i in range(len(dataset))]


def rows_of(dataset) -> list[int]:
    return dataset.rows.tolist()


def epoch(task, number: int, seed: int = 1) -> list[list[int]]:
    """Rows of each training batch of an epoch."""
    iterator = task.get_batch_iterator(
        task.dataset("train"), max_sentences=8, seed=seed, epoch=number
    )
    return [batch["id"].tolist() for batch in iterator.next_epoch_itr(shuffle=True)]


@pytest.mark.parametrize("multiple", [1, 3, 8])
@pytest.mark.parametrize("limits", [{"max_sentences": 16}, {"max_tokens": 200}])
def test_no_row_is_lost_by_a_multiple(flags, multiple, limits):
    """fairseq's batches leave out the last rows."""
    dataset = task_of(flags()).load_dataset("valid")
    order = dataset.ordered_indices()
    batches = dataset.batch_by_size(order, required_batch_size_multiple=multiple, **limits)
    assert np.concatenate(batches).tolist() == order.tolist()
    widest = [len(batch) * dataset.num_tokens_vec(batch).max() for batch in batches]
    assert max(widest) <= limits.get("max_tokens", np.inf)
    assert max(map(len, batches)) <= limits.get("max_sentences", np.inf)


def test_a_draw_is_deterministic_and_changes_with_its_seed(flags):
    one, again, other = (
        rows_of(task_of(flags("--shots-seed", seed)).load_dataset("train")) for seed in (1, 1, 2)
    )
    assert one == again != other
    assert len(set(one)) == 20


def test_a_draw_does_not_change_with_the_training_seed(flags):
    one, other = (rows_of(task_of(flags("--seed", seed)).load_dataset("train")) for seed in (1, 2))
    assert one == other


def test_a_draw_keeps_the_label_distribution(flags):
    dataset = task_of(flags()).load_dataset("train")
    assert Counter(labels_of(dataset)) == {0: 10, 1: 10}


def test_class_ids_follow_the_label_dictionary_for_every_draw(flags, recipe):
    from conftest import PACKAGE

    lines = (PACKAGE / "sample_data" / "train.tsv").read_text().splitlines()[1:]
    written = [line.split("\t")[1] for line in lines]
    for seed in range(3):
        task = task_of(flags("--shots-seed", seed))
        dataset = task.load_dataset("train")
        names = [task.class_names[label] for label in labels_of(dataset)]
        assert names == [written[row] for row in dataset.rows]


def test_without_num_shots_every_row_is_used(recipe, tmp_path):
    flags = recipe.flags(tmp_path)
    at = flags.index("--num-shots")
    task = task_of(flags[:at] + flags[at + 2 :])
    assert rows_of(task.load_dataset("train")) == list(range(450))


def test_batches_are_regrouped_every_epoch_and_cover_every_row(flags):
    task = task_of(flags())
    rows = rows_of(task.load_dataset("train"))
    neighbours = set()
    for number in range(1, 6):
        batches = epoch(task, number)
        assert sorted(row for batch in batches for row in batch) == rows
        neighbours.add(frozenset(frozenset(batch) for batch in batches))
    assert len(neighbours) == 5


def test_the_same_seed_repeats_the_batches(flags):
    one, again = task_of(flags()), task_of(flags())
    one.load_dataset("train"), again.load_dataset("train")
    assert epoch(one, 3) == epoch(again, 3)
    assert epoch(one, 3, seed=2) != epoch(one, 3)


def test_fairseqs_own_task_never_regroups(recipe, tmp_path):
    """What this task exists to change; if fairseq mends it, ours can go."""
    flags = recipe.flags(tmp_path, "--num-classes", 2)
    flags[flags.index("few_shot_glue")] = "sentence_prediction"
    at = flags.index("--num-shots")
    task = task_of(flags[:at] + flags[at + 2 :])
    task.load_dataset("train")
    one, two = (frozenset(map(frozenset, epoch(task, number))) for number in (1, 2))
    assert one == two


def test_validation_is_sorted_by_length(flags):
    dataset = task_of(flags()).load_dataset("valid")
    assert (np.diff(dataset.sizes[dataset.ordered_indices()]) >= 0).all()


@pytest.mark.needs_shared_data
def test_few_shot_protocol_halves_sst2s_validation_set(encoder, recipe, tmp_path):
    data = prepare(
        tmp_path / "sst2", encoder, "--data", "glue:SST-2", "--glue-dir", SHARED / "glue",
        "--max-length", 64,
    )  # fmt: skip
    found = []
    for seed in (1, 2):
        more = ("--protocol", "few-shot", "--shots-seed", seed)
        task = task_of([str(data), *recipe.flags(tmp_path / "run", *more)[1:]])
        test, valid = (task.load_dataset(split) for split in ("test", "valid"))
        assert not set(rows_of(test)) & set(rows_of(valid))
        assert (len(test), len(valid)) == (436, 436)
        assert abs(Counter(labels_of(test))[1] - 444 / 2) <= 1
        found.append((rows_of(test), rows_of(valid)))
    assert found[0] == found[1]


def refusal(action) -> str:
    with pytest.raises(SystemExit) as error:
        action()
    message = str(error.value)
    assert message.startswith("fairseq-scl: error: ")
    assert "\n" not in message
    return message


def test_num_classes_is_checked_against_the_data(flags):
    assert "--num-classes 3, but" in refusal(lambda: task_of(flags("--num-classes", 3)))
    assert task_of(flags("--num-classes", 2)).cfg.num_classes == 2


@pytest.mark.parametrize(
    ("shots", "message"),
    [
        (451, "451 rows asked for, but the data has 450"),
        (1, "1 rows asked for, fewer than the 2 classes"),
        (0, "0 rows asked for, fewer"),
        (-5, "-5 rows asked for, fewer"),
    ],
)
def test_an_impossible_draw_is_refused(flags, shots, message):
    task = task_of(flags("--num-shots", shots))
    assert f"--num-shots {shots} of" in (told := refusal(lambda: task.load_dataset("train")))
    assert message in told


@pytest.mark.parametrize("name", ["input0/train.bin", "input0/train.idx", "label/train.bin"])
def test_a_missing_file_is_named(changed, name):
    data, flags = changed
    (data / name).unlink()
    assert f"{data / name} is missing" in refusal(lambda: task_of(flags()).load_dataset("train"))


@pytest.mark.parametrize("name", ["input0/dict.txt", "label/dict.txt"])
def test_a_missing_dictionary_is_named(changed, name):
    data, flags = changed
    (data / name).unlink()
    assert f"{data / name} is missing" in refusal(lambda: task_of(flags()))


def test_a_missing_split_is_named(flags):
    task = task_of(flags())
    assert "input0/holdout.bin is missing" in refusal(lambda: task.load_dataset("holdout"))


def test_a_label_beyond_the_dictionary_is_named(changed):
    data, flags = changed
    first = (data / "label" / "dict.txt").read_text().splitlines()[0]
    (data / "label" / "dict.txt").write_text(first + "\n")
    told = refusal(lambda: task_of(flags()).load_dataset("train"))
    assert "a label that is not in" in told
    assert "label/train.bin, row " in told


def test_a_class_without_example_is_named(changed):
    data, flags = changed
    with open(data / "label" / "dict.txt", "a", encoding="utf-8") as file:
        file.write("mixed 0\n")
    assert "class 'mixed' has no example" in refusal(lambda: task_of(flags()).load_dataset("train"))


def test_splits_of_unequal_length_are_refused(changed):
    data, flags = changed
    for suffix in ("bin", "idx"):
        shutil.copy(data / "label" / f"valid.{suffix}", data / "label" / f"train.{suffix}")
    told = refusal(lambda: task_of(flags()).load_dataset("train"))
    assert "rows differ: input0 450, label 100" in told


def test_a_row_too_long_for_the_model_is_named(flags):
    told = refusal(lambda: task_of(flags("--max-positions", 12)).load_dataset("train"))
    assert "tokens, more than --max-positions 12" in told


def test_filler_in_a_label_dictionary_is_no_class(changed):
    """fairseq-preprocess pads dictionaries to a multiple of eight."""
    data, flags = changed
    with open(data / "label" / "dict.txt", "a", encoding="utf-8") as file:
        file.write("madeupword0000 0\nmadeupword0001 0\n")
    assert task_of(flags()).cfg.num_classes == 2


def test_the_command_tells_a_mistake_in_one_line_and_writes_nothing(recipe, tmp_path):
    result = run("fairseq-train", *recipe.flags(tmp_path / "run", "--num-shots", 1000))
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("fairseq-scl: error: --num-shots 1000 of")
    assert not list((tmp_path / "run").glob("*"))


def test_an_architecture_without_heads_is_refused(flags):
    assert "this --arch has no classification head" in refusal(
        lambda: build(flags("--arch", "bert_base"))
    )


def test_killed_and_started_again_it_goes_on(recipe, tmp_path):
    """--finetune-from-model, unlike --restore-file, gives way to the last checkpoint."""
    import torch

    train(recipe.flags(tmp_path, "--max-update", 4))
    train(recipe.flags(tmp_path, "--max-update", 5))
    state = torch.load(tmp_path / "checkpoint_last.pt", weights_only=True)
    assert state["optimizer_history"][-1]["num_updates"] == 5


def test_a_fold_is_trained_without_validation_and_tests_the_rest(recipe, tmp_path):
    flags = recipe.flags(
        tmp_path / "run", "--protocol", "folds", "--fold", "2/5", "--disable-validation"
    )
    train([*flags[: flags.index("--num-shots")], *flags[flags.index("--num-shots") + 2 :]])
    task = task_of([f for f in flags if f not in ("--num-shots", "20")])
    trained, tested = (task.load_dataset(split) for split in ("train", "test"))
    assert len(trained) == 360 and len(tested) == 90
    assert not set(rows_of(trained)) & set(rows_of(tested))
    said = manifest.read(tmp_path / "run" / manifest.NAME)
    assert set(said.splits) == {"train", "test"} and said.choices.fold == "2/5"
    main(["verify", str(tmp_path / "run" / manifest.NAME), "--data", str(recipe.data)])


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--protocol", "folds"], "--fold and --protocol folds need each other"),
        (["--fold", "1/5"], "--fold and --protocol folds need each other"),
        (["--protocol", "folds", "--fold", "6/5"], "--fold 6/5 must be K/N"),
        (["--protocol", "folds", "--fold", "1/1"], "--fold 1/1 must be K/N"),
        (["--protocol", "folds", "--fold", "two"], "--fold two must be K/N"),
    ],
)
def test_a_fold_that_cannot_be_is_refused(flags, more, told):
    with pytest.raises(UserError, match=told):
        task_of(flags(*more))


def test_a_class_with_fewer_rows_than_folds_is_refused(flags):
    task = task_of(flags("--protocol", "folds", "--fold", "1/400"))
    with pytest.raises(UserError, match=r"--fold 1/400 of .*: a class has \d+ rows, fewer than"):
        task.load_dataset("train")
