"""Trees of made-up results, summarised and rendered."""

import csv
import dataclasses
import io
import json
import os
import re
from dataclasses import dataclass
from html.parser import HTMLParser

import numpy as np
import pytest
from scipy import stats

import fairseq_scl.plugin  # noqa: F401  (before the modules of fairseq's that it registers)
from fairseq_scl.cli import main
from fairseq_scl.criterions.sentence_prediction_scl import SentencePredictionSclConfig
from fairseq_scl.reports import frame, paper
from fairseq_scl.reports.report import RENDERERS, number, p_value, report
from fairseq_scl.reports.results import Outcome
from fairseq_scl.tasks.few_shot_glue import FewShotGlueConfig

pytestmark = pytest.mark.filterwarnings("error")


@dataclass
class Tree:
    """A folder of runs."""

    root: object

    def config(
        self, *, weight=0.0, temperature=0.3, draw=1, seed=1, data="SST-2", protocol="few-shot",
        shots=20, noise="none", translated=None, lr=1e-5, batch_size=16, metric="accuracy",
        maximize=True, task=(), criterion=(), optimizer=(),
    ):  # fmt: skip
        """As much of fairseq's configuration as a report reads."""
        return {
            "common": {"seed": seed},
            "task": {
                "data": f"/somewhere/{data}", "protocol": protocol, "num_shots": shots,
                "shots_seed": draw, "noise": noise, "label_noise": 0.0, "token_noise": 0.1,
                "noise_temperature": translated, **dict(task),
            },
            "criterion": {
                "scl_weight": weight, "scl_temperature": temperature, **dict(criterion),
            },
            "model": {"_name": "roberta_large", "dropout": 0.1},
            "optimizer": {"_name": "adam", "weight_decay": 0.1, **dict(optimizer)},
            "dataset": {"batch_size": batch_size},
            "optimization": {"lr": [lr], "max_update": 200},
            "checkpoint": {
                "best_checkpoint_metric": metric, "maximize_best_checkpoint_metric": maximize,
            },
        }  # fmt: skip

    def write(self, folder, name, content):
        path = self.root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))

    def evaluated(self, folder, valid, test, mismatched=None, seconds=60.0, more=(), **config):
        metric = config.get("metric", "accuracy")
        result = {
            "config": self.config(**config),
            "valid": valid,
            "split": None if test is None else "test",
            "test": None if test is None else {metric: test, "ce_loss": 0.5},
            "test1": None if mismatched is None else {metric: mismatched},
            "seconds": seconds,
        }
        self.write(folder, "result.json", result | dict(more))

    def failed(self, folder, error, **config):
        self.write(folder, "failed.json", {"config": self.config(**config), "error": error})

    def draws(self, folder, tests, valids=None, **config):
        """One evaluated run for each value, draws from 1."""
        for draw, test in enumerate(tests, 1):
            valid = valids[draw - 1] if valids else 80.0
            self.evaluated(f"{folder}/draw{draw}", valid, test, draw=draw, **config)

    @property
    def report(self):
        return report(frame(self.root), self.root)

    def numbers(self):
        """The unrounded rows."""
        return self.report.summary.to_dict("records")

    def rows(self):
        """The rows of the Markdown table, by title."""
        lines = RENDERERS["markdown"](self.report).splitlines()
        cells = [
            [cell.strip() for cell in line.split("|")[1:-1]]
            for line in lines
            if line.startswith("|")
        ]
        return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path / "runs")


CE = [80.0, 82.5, 79.0, 81.0, 83.0]
SCL = [84.0, 83.5, 82.0, 80.5, 86.0]
VALID = [70.0, 75.0, 71.0, 75.0, 75.0]


def ce_and_scl(tree):
    tree.draws("ce", CE, VALID)
    tree.draws("scl", SCL, VALID[::-1], weight=0.9)
    return tree


def shown(values):
    return f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"


def test_means_are_over_all_draws_and_over_the_three_best_on_validation(tree):
    ce, scl = ce_and_scl(tree).rows()
    assert (ce["loss"], scl["loss"]) == ("CE", "CE+SCL (λ 0.9, τ 0.3)")
    assert ce["draws"] == scl["draws"] == "5"
    assert ce["validation"] == shown(VALID)
    assert ce["test"] == shown(CE) and scl["test"] == shown(SCL)
    assert ce["test, top 3"] == shown([82.5, 81.0, 83.0])
    assert scl["test, top 3"] == shown([84.0, 83.5, 80.5])
    assert ce["seconds"] == "60.0 ± 0.0"


def test_scl_is_compared_with_ce_of_the_same_setting(tree):
    ce, scl = ce_and_scl(tree).rows()
    test = stats.ttest_rel(SCL, CE)
    low, high = test.confidence_interval()
    assert scl["pairs"] == "5"
    assert scl["difference [95 %]"] == f"+2.1 [{low:+.1f}, {high:+.1f}]".replace("-", "−")
    assert scl["p, t-test"] == f"{test.pvalue:.3f}"
    assert scl["p, Wilcoxon"] == f"{stats.wilcoxon(SCL, CE).pvalue:.3f}" == "0.125"
    assert ce["pairs"] == ce["difference [95 %]"] == ce["p, t-test"] == ""


def test_each_variant_is_compared_and_p_values_are_corrected_for_all(tree):
    ce_and_scl(tree)
    other = [81.0, 82.0, 80.5, 84.0, 83.5]
    tree.draws("other", other, weight=0.5, temperature=0.1)
    rows = tree.numbers()
    losses = ["CE", "CE+SCL (λ 0.5, τ 0.1)", "CE+SCL (λ 0.9, τ 0.3)"]
    assert [row["loss"] for row in rows] == losses
    tests = {"t_test_p": stats.ttest_rel, "wilcoxon_p": stats.wilcoxon}
    for column, test in tests.items():
        larger, smaller = (test(values, CE).pvalue for values in (other, SCL))
        assert smaller < larger
        assert rows[2][column] == pytest.approx(2 * smaller)
        assert rows[1][column] == pytest.approx(max(larger, 2 * smaller))


def test_another_setting_is_not_compared(tree):
    tree.draws("ce", CE, lr=1e-5)
    tree.draws("scl", SCL, lr=2e-5, weight=0.9)
    assert "pairs" not in tree.rows()[1]
    assert [row["learning rate"] for row in tree.rows()] == ["1e-05", "2e-05"]


def test_seeds_of_draw_and_training_make_the_pair(tree):
    for seed in (1, 2):
        for folder, weight, test in (("ce", 0, 80.0), ("scl", 0.9, 80.0 + seed)):
            tree.evaluated(f"{folder}{seed}", 70, test, seed=seed, shots=None, weight=weight)
    assert tree.numbers()[1]["difference_mean"] == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("ours", "pairs", "difference", "p_wilcoxon"),
    [
        ([81.0], "1", "+1.0", "–"),
        ([80.0, 82.5], "2", "+0.0", "–"),
        ([81.0, 83.5], "2", "+1.0", "0.500"),
    ],
)
def test_what_is_undefined_is_a_dash(tree, ours, pairs, difference, p_wilcoxon):
    tree.draws("ce", CE[:2])
    tree.draws("scl", ours, weight=0.9)
    row = tree.rows()[1]
    assert (row["pairs"], row["difference [95 %]"]) == (pairs, difference)
    assert (row["p, t-test"], row["p, Wilcoxon"]) == ("–", p_wilcoxon)


def test_without_a_common_draw_there_is_no_difference(tree):
    tree.evaluated("ce", 70, 80.0, draw=1)
    tree.evaluated("scl", 70, 80.0, draw=2, weight=0.9)
    row = tree.rows()[1]
    assert (row["pairs"], row["difference [95 %]"], row["p, t-test"]) == ("0", "–", "–")


def test_missing_and_failed_draws_are_counted_and_listed(tree):
    tree.draws("ce", CE)
    tree.draws("scl", SCL[:3], weight=0.9)
    tree.failed("scl/draw4", "CUDA out of memory\nTraceback", draw=4, weight=0.9)
    draws = [f"draws_{part}" for part in ("evaluated", "expected", "failed")]
    assert tree.report.summary[draws].to_numpy().tolist() == [[5, 5, 0], [3, 5, 1]]
    assert tree.rows()[1]["draws"] == "3/5"
    assert tree.rows()[1]["pairs"] == "3"
    assert tree.report.notes == [
        "failed: scl/draw4: CUDA out of memory",
        "missing: CE+SCL (λ 0.9, τ 0.3): draw 5/1",
    ]


def test_a_draw_that_failed_with_one_loss_is_missing_with_the_other(tree):
    tree.draws("ce", CE[:2])
    tree.draws("scl", SCL[:2], weight=0.9)
    tree.failed("scl/draw3", "", draw=3, weight=0.9)
    assert tree.report.notes == ["failed: scl/draw3: ", "missing: CE: draw 3/1"]


def test_each_setting_expects_its_own_draws(tree):
    tree.draws("20", CE)
    tree.draws("100/ce", CE[:3], shots=100)
    tree.draws("100/scl", SCL[:2], shots=100, weight=0.9)
    assert tree.report.notes == ["missing: N 100, CE+SCL (λ 0.9, τ 0.3): draw 3/1"]


def test_a_run_that_failed_first_and_has_a_result_is_evaluated(tree):
    tree.draws("ce", CE)
    tree.failed("ce/draw1", "killed", draw=1)
    assert tree.report.notes == []
    assert tree.rows()[0]["draws"] == "5"


def test_only_failures_are_a_row_of_dashes(tree):
    tree.failed("ce", "no space left", draw=1)
    assert tree.rows() == [{"loss": "CE", "draws": "0/1", "validation": "–"}]
    for render in RENDERERS.values():
        assert "CE" in render(tree.report)


def test_runs_without_test_show_validation_only(tree):
    tree.draws("ce", [None] * 3, VALID)
    tree.draws("scl", [None] * 3, VALID, weight=0.9)
    assert list(tree.rows()[0]) == ["loss", "draws", "validation", "seconds"]
    assert tree.report.notes == []


def test_an_untested_run_among_tested_ones_is_listed(tree):
    tree.draws("ce", [80.0, None, 82.0])
    assert tree.rows()[0]["test"] == shown([80.0, 82.0])
    assert tree.report.notes == ["not tested: CE: draw 2/1"]


def test_mnlis_mismatched_set_has_a_column(tree):
    for draw, value in enumerate([70.0, 72.0], 1):
        tree.evaluated(f"{draw}", 70, 80.0, mismatched=value, draw=draw, data="MNLI")
    assert tree.rows()[0]["mismatched"] == shown([70.0, 72.0])


def test_knn_has_a_column_where_some_row_has_it(tree):
    ce_and_scl(tree)
    assert "kNN" not in tree.rows()[0]
    for draw, value in enumerate([60.0, 64.0], 1):
        knn = {"k": 5, "accuracy": value, "f1": 0.0}
        tree.evaluated(f"scl/draw{draw}", 70, 80.0, draw=draw, weight=0.9, more={"knn": knn})
    ce, scl = tree.rows()
    assert (ce["kNN"], scl["kNN"]) == ("", shown([60.0, 64.0]))
    title, legend = "kNN", "kNN: test, by the class of most of the five nearest training sentences."
    rendered = {name: render(tree.report) for name, render in RENDERERS.items()}
    for name in ("markdown", "latex", "html"):
        assert title in rendered[name] and legend in rendered[name]
    assert r"62.0 $\pm$ 2.8" in rendered["latex"]
    row = list(csv.DictReader(io.StringIO(rendered["csv"])))[1]
    assert (float(row["knn_mean"]), float(row["knn_std"])) == (62.0, np.std([60, 64], ddof=1))
    summary, runs = Page(rendered["html"]).tables
    assert summary[2][summary[0].index(title)] == shown([60.0, 64.0])
    assert [one[runs[0].index(title)] for one in runs[-5:-3]] == ["60.0", "64.0"]


def test_the_probe_has_columns_and_its_own_paired_difference(tree):
    for draw, (value, base) in enumerate([(82.0, 80.0), (85.0, 81.0), (84.0, 84.0)], 1):
        measured = {
            name: {"C": 1.0, "valid": None, "test": {"accuracy": base + more}}
            for name, more in (("probe", 0.0), ("refit", 1.0))
        }
        for loss, weight in (("ce", 0.0), ("scl", 0.9)):
            tree.evaluated(f"{loss}/{draw}", 70, value, draw=draw, weight=weight, more=measured)
    ce, scl = tree.rows()
    assert ce["probe"] == scl["probe"] == shown([80.0, 81.0, 84.0])
    assert scl["refit"] == shown([81.0, 82.0, 85.0])
    interval = stats.ttest_1samp([2.0, 4.0, 0.0], 0).confidence_interval(0.95)
    low, high = (f"{bound:+.1f}".replace("-", "−") for bound in interval)
    assert (ce["over probe [95 %]"], scl["over probe [95 %]"]) == ("", f"+2.0 [{low}, {high}]")


@pytest.mark.parametrize(("metric", "shown"), [("mcc", "45.0"), ("loss", None)])
def test_knn_is_of_the_metric_of_the_row(tree, metric, shown):
    knn = {"k": 5, "accuracy": 80.0, "mcc": 45.0}
    tree.evaluated("ce", 70, 60.0, metric=metric, more={"knn": knn})
    assert tree.rows()[0].get("kNN") == shown


def test_metrics_are_never_mixed(tree):
    tree.draws("mcc", [60.0, 62.0], data="CoLA", metric="mcc")
    tree.draws("accuracy", [84.0, 85.0], data="CoLA", metric="accuracy")
    rows = tree.rows()
    assert [(row["metric"], row["test"]) for row in rows] == [
        ("accuracy", shown([84.0, 85.0])),
        ("mcc", shown([60.0, 62.0])),
    ]


def test_a_loss_is_better_when_lower_and_shown_with_three_decimals(tree):
    tests = [0.5, 0.6, 0.7, 0.8]
    tree.draws("runs", tests, [0.4, 0.1, 0.2, 0.3], metric="loss", maximize=False)
    row = tree.rows()[0]
    assert row["test, top 3"] == "0.700 ± 0.100"
    assert "metric loss" in RENDERERS["markdown"](tree.report)


def test_rows_are_sorted(tree):
    settings = [
        {"data": "RTE", "shots": 20},
        {"protocol": "full", "shots": None},
        {"shots": 20},
        {"shots": 20, "weight": 0.9},
        {"shots": 100},
        {"shots": 100, "noise": "back-translation", "translated": 0.5},
        {"shots": 100, "noise": "label"},
        {"shots": 1000},
        {"shots": None},
    ]
    for place, setting in enumerate(reversed(settings)):
        tree.evaluated(str(place), 70, 80.0, **setting)
    keys = ("data", "protocol", "N", "noise", "loss")
    scl = "CE+SCL (λ 0.9, τ 0.3)"
    assert [tuple(row[key] for key in keys) for row in tree.rows()] == [
        ("RTE", "few-shot", "20", "none", "CE"),
        ("SST-2", "few-shot", "20", "none", "CE"),
        ("SST-2", "few-shot", "20", "none", scl),
        ("SST-2", "few-shot", "100", "none", "CE"),
        ("SST-2", "few-shot", "100", "back-translation 0.5", "CE"),
        ("SST-2", "few-shot", "100", "label 0", "CE"),
        ("SST-2", "few-shot", "1000", "none", "CE"),
        ("SST-2", "few-shot", "all", "none", "CE"),
        ("SST-2", "full", "all", "none", "CE"),
    ]


def test_what_is_constant_stands_in_the_caption(tree):
    tree.draws("20", CE)
    tree.draws("100", CE, shots=100)
    caption = RENDERERS["markdown"](tree.report).splitlines()[0]
    assert caption == (
        "data SST-2, protocol few-shot, noise none, encoder roberta_large, batch size 16, "
        "learning rate 1e-05, updates 200, options none, metric accuracy"
    )
    assert list(tree.rows()[0])[:2] == ["N", "loss"]


def test_batches_without_a_fixed_size_are_a_setting_too(tree):
    tree.draws("by sentences", CE)
    tree.draws("by tokens", CE, batch_size=None)
    assert [row["batch size"] for row in tree.rows()] == ["16", "None"]


@pytest.mark.parametrize(
    ("setting", "printed"),
    [
        (("sst-2", "few-shot", 20, "none", "CE+SCL"), (88.1, 3.3)),
        (("QNLI", "few-shot", 1000, "none", "CE"), (89.2, 0.6)),
        (("MNLI", "few-shot", 100, "back-translation 0.9", "CE+SCL"), (53.0, 2.1)),
        (("sst2", "few-shot", 100, "back-translation 0.5", "CE"), (91.4, 1.0)),
        (("CoLA", "full", "all", "none", "CE"), (86.0, 0.5)),
        (("MRPC", "full", "all", "none", "CE+SCL"), (89.5, 0.9)),
        (("Yelp-2", "given", 40, "none", "CE+SCL"), (91.2, 0.4)),
        (("RTE", "few-shot", 20, "none", "CE"), None),
        (("SST-2", "given", 20, "none", "CE"), None),
        (("SST-2", "few-shot", 20, "back-translation 0.5", "CE"), None),
    ],
)
def test_the_papers_numbers(setting, printed):
    assert paper.accuracy(*setting) == printed


def test_the_papers_average_over_noise_follows_from_its_parts():
    """Its row averages are printed too, and so a check of what was copied."""
    averages = {"SST-2": (91.3, 91.7), "QNLI": (79.0, 81.5), "MNLI": (52.7, 59.7)}
    for data, printed in averages.items():
        for loss, average in zip(("CE", "CE+SCL"), printed, strict=True):
            means = [
                paper.accuracy(data, "few-shot", 100, f"back-translation {t}", loss)[0]
                for t in (0.3, 0.5, 0.7, 0.9)
            ]
            assert np.mean(means) == pytest.approx(average, abs=0.051)


def test_the_papers_numbers_stand_beside_ours_and_are_marked(tree):
    ce_and_scl(tree)
    tree.draws("50", CE, shots=50)
    assert [row["paper"] for row in tree.rows()] == ["85.9 ± 2.1", "88.1 ± 3.3", ""]
    assert "Paper: RoBERTa-large as printed" in RENDERERS["markdown"](tree.report)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"scl_features": "head"}, "CE+SCL (λ 0.9, τ 0.3, --scl-features head)"),
        ({"scl_reduction": "sum"}, "CE+SCL (λ 0.9, τ 0.3, --scl-reduction sum)"),
    ],
)
def test_another_form_of_the_loss_is_another_row_beside_the_same_ce(tree, option, told):
    ce_and_scl(tree)
    tree.draws("other", CE, weight=0.9, criterion=option)
    rows = {row["loss"]: row for row in tree.rows()}
    assert list(rows) == ["CE", "CE+SCL (λ 0.9, τ 0.3)", told]
    assert rows[told]["pairs"] == "5"
    assert rows[told]["difference [95 %]"].startswith("+0.0")


@pytest.mark.parametrize(
    ("part", "option", "told"),
    [
        ("criterion", {"scl_views": 2}, "--scl-views 2"),
        ("task", {"noise_ratio": 1, "noise_replace": True}, "--noise-ratio 1 --noise-replace"),
        ("task", {"shots_sampling": "balanced"}, "--shots-sampling balanced"),
        ("task", {"samples_per_class": 4}, "--samples-per-class 4"),
        ("criterion", {"class_weights": "balanced"}, "--class-weights balanced"),
        ("task", {"head_init": "probe"}, "--head-init probe"),
        ("task", {"keep_head": True, "no_shuffle": True}, "--no-shuffle --keep-head"),
    ],
)
def test_other_options_are_another_setting(tree, part, option, told):
    ce_and_scl(tree)
    tree.draws("other", SCL, weight=0.9, **{part: option})
    rows = tree.rows()
    assert [row["options"] for row in rows] == [told, "none", "none"] or [
        row["options"] for row in rows
    ] == ["none", "none", told]
    [other] = [row for row in rows if row["options"] == told]
    assert other["pairs"] == ""  # there is no CE with these options


TOLD = {  # options of task and criterion that a report tells otherwise than by their names
    "data", "protocol", "num_shots", "shots_seed", "fold", "noise", "label_noise", "token_noise",
    "noise_temperature", "scl_weight", "scl_temperature", "batch_size",
}  # fmt: skip
ALIKE = {  # that do not change what is learned, or that the encoder and the data decide on
    "_name", "num_classes", "init_token", "separator_token", "shorten_method",
    "shorten_data_split_list", "add_prev_output_tokens", "max_positions", "regression_target",
    "classification_head_name", "seed", "d2v2_multi", "compile", "save_dir", "restore_file",
    "finetune_from_model", "reset_optimizer", "fp16", "amp", "cpu", "report_mcc",
    "report_acc_and_f1", "report_pearson_and_spearman", "scl_chunk_size",
}  # fmt: skip


def test_no_option_of_task_or_criterion_is_forgotten():
    """Else runs with and without it would count as draws of one setting."""
    fields = {
        field.name
        for config in (FewShotGlueConfig, SentencePredictionSclConfig)
        for field in dataclasses.fields(config)
    }
    assert fields - ALIKE - TOLD <= set(Outcome.model_fields)


def test_runs_of_one_setting_and_unlike_recipes_are_told(tree):
    ce_and_scl(tree)
    assert not tree.report.notes
    tree.draws("other", SCL, weight=0.5, optimizer={"weight_decay": 0.01})
    assert tree.report.notes == ["not alike: --weight-decay 0.1 and 0.01"]


@pytest.mark.parametrize("setting", [{"shots": 50}, {"metric": "f1"}, {"data": "mine"}])
def test_without_a_number_of_the_paper_it_is_not_mentioned(tree, setting):
    tree.draws("ce", CE, **setting)
    assert "paper" not in RENDERERS["markdown"](tree.report).lower()


def test_two_runs_of_one_draw_are_refused(tree):
    tree.evaluated("a", 70, 80.0)
    tree.evaluated("b", 70, 80.0)
    with pytest.raises(SystemExit, match=r"runs/a and .*runs/b are the same draw"):
        main(["report", str(tree.root)])


@pytest.mark.parametrize(
    ("tests", "shown"),
    [
        ([-0.04], "0.0"),
        ([-0.04, -0.04], "0.0 ± 0.0"),
        ([-12.34], "−12.3"),
    ],
)
def test_a_spread_as_text(tree, tests, shown):
    tree.draws("ce", tests)
    assert tree.rows()[0]["test"] == shown


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        (p_value(0.00099), "<0.001"),
        (p_value(0.0012), "0.001"),
        (p_value(np.nan), "–"),
        (number(-0.04, 1, "+"), "+0.0"),
        (number(-1.26, 1, "+"), "−1.3"),
        (number(np.nan, 1), "–"),
    ],
)
def test_cells_as_text(cell, shown):
    assert cell == shown


DAMAGED_KNN = json.dumps(
    {"config": Tree(None).config(), "valid": 1, "test": None, "seconds": None, "knn": 3}
)
HOSTILE = "a<b>&\"'|*`[x](y)_{$%#~^\\"


def hostile(tree):
    """Names with everything that some format takes for markup."""
    tree.draws("20", CE, data=HOSTILE)
    tree.draws("100", CE, shots=100, data="plain, with comma")
    tree.failed(f"x {HOSTILE}", HOSTILE, draw=6, data=HOSTILE)
    return tree.report


def test_markdown_takes_names_for_no_markup(tree):
    text = RENDERERS["markdown"](hostile(tree))
    header, *rows = [line for line in text.splitlines() if line.startswith("|")]
    bars = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
    assert bars == {header.count("|")}
    assert re.sub(r"\\([\\`*<|\]])", r"\1", text).count(HOSTILE) == 3
    assert not re.search(r"(?<!\\)([*`<]|\]\()", text)


def test_latex_is_balanced_escaped_and_spells_symbols(tree):
    hostile(tree)
    tree.draws("scl", SCL, data=HOSTILE, weight=0.9)
    text = RENDERERS["latex"](tree.report)
    environments = re.findall(r"\\(begin|end)\{(\w+)\}", text)
    assert environments == [
        ("begin", "table"), ("begin", "adjustbox"), ("begin", "tabular"),
        ("end", "tabular"), ("end", "adjustbox"), ("end", "table"),
    ]  # fmt: skip
    assert text.isascii()
    for told in (r"$\pm$", r"CE+SCL ($\lambda$ 0.9, $\tau$ 0.3)", r"[95 \%", "\\toprule"):
        assert told in text.replace("{[}", "[")
    plain = re.sub(r"\\[&%$#_{}]", "", text)
    assert plain.count("{") == plain.count("}")
    assert plain.count("$") % 2 == 0
    table = plain.partition(r"\toprule")[2].partition(r"\bottomrule")[0]
    rows = [line for line in table.splitlines() if line.endswith(r"\\")]
    alignment = re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)[1]
    assert len(rows) == 4
    assert {row.count("&") + 1 for row in rows} == {len(alignment)}


def test_single_runs_are_listed_by_draw_failed_ones_as_well(tree):
    tree.draws("ce", [80.0] * 10)
    tree.failed("ce/draw11", "no space", draw=11)
    runs = tree.report.runs
    assert runs["draw"].tolist() == [f"{i}/1" for i in range(1, 12)]
    assert runs[runs["error"] != ""]["folder"].tolist() == ["ce/draw11"]


def test_csv_holds_unrounded_numbers_and_the_whole_setting(tree):
    ce_and_scl(tree)
    tree.failed("scl/draw6", "x", draw=6, weight=0.9)
    text = RENDERERS["csv"](tree.report)
    ce, scl = csv.DictReader(io.StringIO(text))
    assert (ce["data"], ce["N"], ce["batch_size"], ce["metric"]) == (
        "SST-2", "20", "16", "accuracy",
    )  # fmt: skip
    assert float(ce["test_mean"]) == np.mean(CE)
    assert float(ce["test_std"]) == pytest.approx(np.std(CE, ddof=1), rel=1e-15)
    test = stats.ttest_rel(SCL, CE)
    assert float(scl["t_test_p"]) == pytest.approx(test.pvalue, rel=1e-9)
    assert float(scl["difference_low"]) == pytest.approx(test.confidence_interval().low, rel=1e-9)
    assert (ce["difference_mean"], ce["wilcoxon_p"]) == ("", "")
    counts = [scl[f"draws_{part}"] for part in ("evaluated", "expected", "failed")]
    assert counts == ["5", "6", "1"]
    assert (scl["paper_mean"], scl["paper_std"]) == ("88.1", "3.3")


def test_csv_quotes_names(tree):
    rows = list(csv.DictReader(io.StringIO(RENDERERS["csv"](hostile(tree)))))
    assert [row["data"] for row in rows] == [HOSTILE, "plain, with comma"]
    assert all(None not in row and None not in row.values() for row in rows)


class Page(HTMLParser):
    """Cells of each table, and whatever would be fetched; unbalanced tags are an error."""

    VOID = ("meta",)

    def __init__(self, text):
        super().__init__()
        self.tables, self.items, self.fetched, self.open = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.fetched += [value for name, value in attrs if name in ("src", "href")]
        if tag in self.VOID:
            return
        self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
        elif tag == "li":
            self.items.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in ("th", "td"):
            self.tables[-1][-1][-1] = self.tables[-1][-1][-1].strip()

    def handle_data(self, data):
        if self.open and self.open[-1] in ("th", "td"):
            self.tables[-1][-1][-1] += data
        elif self.open and self.open[-1] == "li":
            self.items[-1] += data


def test_html_holds_the_table_the_notes_and_every_run(tree):
    tree.draws("ce", CE)
    tree.evaluated("scl/1", 70, 80.0, weight=0.9, more={"updates_per_second": 3.25})
    tree.evaluated(
        "scl/2", 70, 81.0, weight=0.9, draw=2, more={"peak_memory_mib": 812.4}, seconds=None
    )
    tree.failed("scl/3", "out of memory\n...", draw=3, weight=0.9)
    text = RENDERERS["html"](tree.report)
    page = Page(text)
    summary, runs = page.tables
    assert [row[0] for row in summary] == ["loss", "CE", "CE+SCL (λ 0.9, τ 0.3)"]
    assert runs[0] == [
        "folder", "loss", "draw", "validation", "test", "seconds", "updates/s", "peak MiB", "error",
    ]  # fmt: skip
    assert len(runs) == 1 + 5 + 3
    scl = "CE+SCL (λ 0.9, τ 0.3)"
    assert runs[-3:] == [
        ["scl/1", scl, "1/1", "70.0", "80.0", "60.0", "3.2", "", ""],
        ["scl/2", scl, "2/1", "70.0", "81.0", "", "", "812.4", ""],
        ["scl/3", scl, "3/1", "", "", "", "", "", "out of memory"],
    ]
    assert page.items == tree.report.notes
    assert page.fetched == [] and "url(" not in text and "@import" not in text
    assert "color-scheme: light dark" in text


def scores(recall):
    return {"precision": 80.0, "recall": recall, "f1": 75.0, "support": 40}


def test_calibration_and_classes_are_told_as_means_over_draws(tree):
    for draw, (before, after, recall) in enumerate([(0.2, 0.05, 70.0), (0.1, 0.03, 60.0)], 1):
        told = {"temperature": 2.0, "fitted_on": "valid", "rows": 9}
        told |= {"ece_before": before, "ece_after": after}
        classes = {"so <b>": scores(recall), "no": scores(90.0)}
        more = {"calibration": told, "per_class": classes, "confusion": [[1, 2], [3, 4]]}
        tree.evaluated(f"ce/{draw}", 70, 80.0, draw=draw, more=more)
    tree.evaluated("scl/1", 70, 80.0, weight=0.9)
    ce, scl = tree.rows()
    assert (ce["ECE, %"], scl["ECE, %"]) == ("15.0 → 4.0", "")
    assert r"15.0 $\to$ 4.0" in RENDERERS["latex"](tree.report)
    [row, _] = csv.DictReader(io.StringIO(RENDERERS["csv"](tree.report)))
    assert float(row["ECE_before_mean"]) == pytest.approx(0.15)
    _, classes, runs = Page(RENDERERS["html"](tree.report)).tables
    assert classes == [
        ["loss", "class", "precision", "recall", "F1", "rows"],
        ["CE", "so <b>", "80.0", "65.0", "75.0", "40"],
        ["CE", "no", "80.0", "90.0", "75.0", "40"],
    ]
    assert [dict(zip(runs[0], run, strict=True))["ECE, %"] for run in runs[1:]] == [
        "20.0 → 5.0", "10.0 → 3.0", "",
    ]  # fmt: skip


def test_runs_without_validation_have_a_test_but_no_top_3(tree):
    for draw in (1, 2):
        tree.evaluated(f"ce/{draw}", None, 80.0 + draw, draw=draw)
    [row] = tree.rows()
    assert (row["validation"], row["draws"]) == ("–", "2") and "test, top 3" not in row


def test_html_escapes_names(tree):
    page = Page(RENDERERS["html"](hostile(tree)))
    assert page.tables[0][1][0] == HOSTILE
    assert page.items[0] == f"failed: x {HOSTILE}: {HOSTILE}"


@pytest.mark.parametrize(
    ("suffix", "start"),
    [("md", "data SST-2"), ("tex", "% needs"), ("csv", "data,"), ("html", "<!DOCTYPE html>")],
)
def test_the_suffix_names_the_format(tree, tmp_path, capsys, suffix, start):
    output = tmp_path / f"table.{suffix}"
    output.write_text("old")
    (tmp_path / "link").hardlink_to(output)
    main(["report", str(ce_and_scl(tree).root), "--output", str(output)])
    assert capsys.readouterr().out == f"{output}\n"
    assert output.read_text().startswith(start)
    assert (tmp_path / "link").read_text() == "old"  # the file was replaced, not written into
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "link", output.name}


def test_the_format_is_printed_or_overrides_the_suffix(tree, tmp_path, capsys):
    ce_and_scl(tree)
    for name, render in RENDERERS.items():
        main(["report", str(tree.root), "--format", name])
        assert capsys.readouterr().out == render(tree.report)
        output = tmp_path / "table.txt"
        main(["report", str(tree.root), "--format", name, "--output", str(output)])
        assert output.read_text() == render(tree.report)
        capsys.readouterr()


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("table.txt", r"--output .*table.txt: the name must end in .md, .tex, .csv, .html"),
        ("nowhere/table.md", r"--output .*table.md: .*nowhere is not a folder"),
    ],
)
def test_a_place_it_cannot_write_to_is_told_in_one_line(tree, tmp_path, output, told):
    with pytest.raises(SystemExit, match=told) as stop:
        main(["report", str(tree.root), "--output", str(tmp_path / output)])
    assert "\n" not in str(stop.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "result.json: the whole: Invalid JSON"),
        ("[]", "result.json: the whole: Input should be an object"),
        (DAMAGED_KNN, r"result.json: knn: Input should be an object"),
        ('{"valid": 1}', r"result.json: config.task.data: Field required"),
    ],
)
def test_a_damaged_result_is_named(tree, content, told):
    ce_and_scl(tree)
    (tree.root / "ce" / "draw1" / "result.json").write_text(content)
    with pytest.raises(SystemExit, match=told):
        main(["report", str(tree.root)])


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("config", 3, "config.task.data: Field required"),
        ("config.task.data", 3, "config.task.data: Input should be a valid string"),
        ("config.task.num_shots", "20", "config.task.num_shots: Input should be a valid integer"),
        ("config.task.num_shots", 10**400, "config.task.num_shots: "),
        ("config.optimization.lr", [], "config.optimization.lr.0: Field required"),
        ("config.optimization.lr", [np.nan], "config.optimization.lr.0: Input should be a finite"),
        ("valid", "80", "valid: Input should be a valid number"),
        ("valid", np.nan, "valid: Input should be a finite number"),
        ("valid", 1e300, "valid: Input should be less than or equal to 1000000000000000"),
        ("test", {"f1": 1.0}, "test: .*must hold 'accuracy'"),
        ("test", {"accuracy": np.nan}, "test: .*must hold 'accuracy', a number up to"),
        ("test", {"accuracy": True}, "test.accuracy: Input should be a valid number"),
        ("knn", {"accuracy": np.inf}, "knn.accuracy: Input should be a finite number"),
        ("curves", {"valid": {"loss": [[1]]}}, "curves.valid.loss.0.1: Field required"),
        ("classes", "ab", "classes: Input should be a valid array"),
    ],
)
def test_a_wrong_value_is_told_with_its_key(tree, key, value, told):
    tree.draws("ce", CE)
    path = tree.root / "ce" / "draw1" / "result.json"
    result = json.loads(path.read_text())
    *parents, last = key.split(".")
    place = result
    for parent in parents:
        place = place[parent]
    place[last] = value
    path.write_text(json.dumps(result))
    with pytest.raises(SystemExit, match=f"result.json: {told}") as stop:
        frame(tree.root)
    assert "\n" not in str(stop.value)


@pytest.mark.parametrize("name", ["result.json", "failed.json"])
def test_only_regular_files_of_bounded_depth_are_read(tree, name):
    tree.draws("ce", CE)
    path = tree.root / "scl" / name
    tree.write("scl", name, {})
    path.write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(SystemExit, match=f"{name}: .*recursion limit exceeded"):
        frame(tree.root)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(SystemExit, match=f"{name}: not a regular file"):
        frame(tree.root)


def test_a_failed_run_needs_no_configuration_that_makes_sense(tree):
    tree.draws("ce", CE)
    tree.failed("scl", "--scl-weight nan must be in [0, 1]", weight=np.nan, shots=-5)
    assert tree.report.notes[0] == "failed: scl: --scl-weight nan must be in [0, 1]"


def test_a_terminal_is_told_nothing_but_text(tree, capsys):
    tree.failed("ce", "\x1b[31mred\x9b2J")
    main(["report", str(tree.root)])
    assert r"- failed: ce: \x1b[31mred\x9b2J" in capsys.readouterr().out


def test_runs_tested_on_another_split_are_rows_of_their_own(tree):
    tree.draws("test", CE)
    tree.evaluated("train", 70, 99.0, weight=0.9, more={"split": "train"})
    ce, train = tree.rows()
    assert (ce["options"], train["options"]) == ("none", "--split train")
    assert train["test"] == "99.0" and "pairs" not in train


def test_report_without_results_says_what_to_do(tmp_path):
    with pytest.raises(SystemExit, match="run 'fairseq-scl evaluate' first"):
        main(["report", str(tmp_path)])


def test_every_column_has_one_meaning(tree):
    """Titles are unique, and so are the columns of CSV."""
    made = ce_and_scl(tree).report
    header = RENDERERS["csv"](made).splitlines()[0].split(",")
    for titles in (made.table.columns, made.runs.columns, header):
        assert len(set(titles)) == len(titles)
    assert not any(" " in name for name in header)


def test_the_summary_is_of_values_not_of_text(tree):
    ce = ce_and_scl(tree).numbers()[0]
    assert (ce["test_mean"], ce["test_std"]) == pytest.approx((np.mean(CE), np.std(CE, ddof=1)))


def test_the_frame_is_a_table_of_runs(tree):
    ce_and_scl(tree)
    tree.failed("scl/draw6", "killed\n...", draw=6, weight=0.9)
    runs = frame(str(tree.root))
    assert len(runs) == 11
    assert runs.groupby("loss")["test"].mean().tolist() == [np.mean(CE), np.mean(SCL)]
    assert runs["draw"].tolist() == [f"{draw}/1" for draw in (*range(1, 6), *range(1, 7))]
    failed = runs.iloc[-1]
    assert (failed["folder"], failed["error"]) == (tree.root / "scl/draw6", "killed")
    assert np.isnan(failed["validation"])
    assert runs["test"].dtype == runs["seconds"].dtype == float


def test_folds_are_draws_of_one_row_and_other_numbers_of_folds_another_row(tree):
    for folder, weight in (("ce", 0.0), ("scl", 0.9)):
        for folds in (3, 5):
            for fold in range(1, folds + 1):
                tree.evaluated(
                    f"{folder}/{folds}/{fold}", 80.0, 70.0 + fold, weight=weight, protocol="folds",
                    shots=None, task={"fold": f"{fold}/{folds}"},
                )  # fmt: skip
    rows = tree.rows()
    assert [row["draws"] for row in rows] == ["3", "3", "5", "5"]
    assert [row["options"] for row in rows] == ["--fold K/3"] * 2 + ["--fold K/5"] * 2
    assert list(frame(tree.root)["draw"][:3]) == ["1/1/1", "1/1/2", "1/1/3"]
    assert rows[0]["test"] == shown([71.0, 72.0, 73.0])
