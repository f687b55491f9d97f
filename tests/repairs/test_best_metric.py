"""The metric that the best checkpoint is chosen by is one, and is not chosen at its worst."""

import json

import pytest
from conftest import prepare, train

from fairseq_scl.cli import main


def without(flags: list, *names: str) -> list:
    return [flag for flag in flags if flag not in names]


@pytest.mark.parametrize(
    ("metric", "maximize", "told"),
    [
        ("accuracy", False, "accuracy needs --maximize-best-checkpoint-metric: more of it is bet"),
        ("f1", False, "f1 needs --maximize-best-checkpoint-metric"),
        ("scl_loss", True, "scl_loss goes without --maximize-best-checkpoint-metric: less of it"),
        ("acc", True, "--best-checkpoint-metric acc: there are loss, ce_loss, scl_loss, accuracy"),
        ("pearson", True, "--best-checkpoint-metric pearson: there are loss, ce_loss"),
    ],
)
def test_a_metric_that_cannot_choose_is_told_before_training(
    recipe, tmp_path, metric, maximize, told
):
    flags = recipe.flags(tmp_path / "run", "--best-checkpoint-metric", metric)
    if not maximize:
        flags = without(flags, "--maximize-best-checkpoint-metric")
    with pytest.raises(SystemExit, match=told):
        train(flags)
    assert not list(tmp_path.rglob("*.pt"))


def test_a_run_that_is_not_validated_has_none_to_choose(recipe, tmp_path):
    more = ("--best-checkpoint-metric", "acc", "--disable-validation", "--max-update", 1)
    train(recipe.flags(tmp_path / "run", *more))
    assert (tmp_path / "run" / "checkpoint_last.pt").is_file()


@pytest.mark.parametrize("metric", ["loss", "ce_loss", "acc_and_f1", "negative_similarity"])
def test_every_other_chooses(recipe, tmp_path, metric):
    flags = recipe.flags(tmp_path / "run", "--best-checkpoint-metric", metric, "--max-update", 2)
    if metric.endswith("loss"):
        flags = without(flags, "--maximize-best-checkpoint-metric")
    train(flags)
    main(["evaluate", str(tmp_path / "run")])
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["best_metric"] == metric and result["valid"] is not None


@pytest.mark.parametrize("regression", [False, True])
def test_those_that_are_told_are_those_that_are_logged(recipe, encoder, tmp_path, regression):
    from fairseq_scl.models import saved

    flags, run = recipe.flags(tmp_path / "run", "--max-update", 1), tmp_path / "run"
    if regression:
        rows = "".join(f"number {i} of them\t{i / 7}\n" for i in range(30))
        (tmp_path / "scores.tsv").write_text("sentence\tlabel\n" + rows)
        table = tmp_path / "scores.tsv"
        data = prepare(
            tmp_path / "data", encoder, "--train", table, "--valid", table, "--test", table,
            "--regression",
        )  # fmt: skip
        of_numbers = ("--scl-weight", 0, "--regression-target", "--best-checkpoint-metric")
        flags = [str(data), *recipe.flags(run, *of_numbers, "pearson", "--max-update", 1)[1:]]
    train(flags)
    main(["evaluate", str(run)])
    logged = json.loads((run / "result.json").read_text())["test"]
    criterion = saved.load(saved.checkpoint_of(run)).criterion
    assert set(criterion.validation_metrics) == set(logged) - {"num_updates"}
