"""All runs as a table with a row for each setting and loss, in numbers."""

import pandas as pd
from pandas import DataFrame

from fairseq_scl.reports import paper
from fairseq_scl.reports.results import SETTING, numbered, refuse_twins
from fairseq_scl.reports.statistics import Comparison, best, compare, holm

TOP = 3  # the paper's habit
KEYS = ["case", "loss"]  # a case is a setting's number
AVERAGED = [
    "validation", "test", "knn", "probe", "refit", "mismatched", "ECE before", "ECE after",
    "seconds",
]  # fmt: skip
P = ["t_test_p", "wilcoxon_p"]


def summarise(runs: DataFrame) -> DataFrame:
    """Compare the losses in each setting, CE+SCL with CE over their common draws.

    Args:
        runs: as `read_runs` gives them.

    Returns:
        By case and loss, in the order of the runs: `SETTING`, and of each column of a report its
        parts, as `validation_mean` and `validation_std`; NaN where undefined.

    Raises:
        UserError: if two runs are the same draw of the same setting and loss.
    """
    refuse_twins(runs, *SETTING)
    runs = runs.assign(case=numbered(runs, *SETTING))
    tested = runs.dropna(subset="test")
    groups = runs.groupby(KEYS, sort=False)
    expected = runs.groupby("case")["draw"].nunique()
    draws = DataFrame({"evaluated": groups.size() - groups["error"].count()})
    draws["expected"] = draws.index.get_level_values("case").map(expected)
    draws["failed"] = groups["error"].count()
    means = groups[AVERAGED].agg(["mean", "std"])
    means.columns = ["_".join(column) for column in means.columns]
    ranked = best(tested.dropna(subset="validation"), KEYS, TOP)
    top = ranked.groupby(KEYS)["test"].agg(["mean", "std"])
    table = groups.head(1).set_index(KEYS, drop=False)[[*SETTING, "loss"]]
    parts = [draws.add_prefix("draws_"), means, top.add_prefix("test_top3_"), compared(tested)]
    parts.append(over_probe(tested).add_prefix("over_probe_"))
    table = table.join(parts)
    printed = DataFrame(map(printed_in_paper, table.index, table.to_dict("records")), table.index)
    return table.join(printed.set_axis(["paper_mean", "paper_std"], axis=1))


def compared(tested: DataFrame) -> DataFrame:
    """Each loss beside the CE of its setting, Holm's correction over all."""
    tests = dict(iter(tested.set_index("draw").groupby(KEYS)["test"]))
    index = pd.MultiIndex.from_tuples(tests, names=KEYS) if tests else tested.set_index(KEYS).index
    rows = [
        compare(tests[key], tests[key[0], "CE"])
        if key[1] != "CE" and (key[0], "CE") in tests
        else Comparison(None)
        for key in index
    ]
    columns = ["pairs", "difference_mean", "difference_low", "difference_high", *P]
    table = DataFrame(rows, index, columns, dtype=float)
    return table.astype({"pairs": "Int64"}).assign(**{name: holm(table[name]) for name in P})


def over_probe(tested: DataFrame) -> DataFrame:
    """Each loss but CE beside the probe of its own draws, without a test."""
    runs = tested[tested["loss"] != "CE"].dropna(subset="probe").set_index("draw")
    found = {key: compare(own["test"], own["probe"]) for key, own in runs.groupby(KEYS)}
    rows = [[part.mean, part.low, part.high] for part in found.values()]
    index = pd.MultiIndex.from_tuples(found, names=KEYS) if found else tested.set_index(KEYS).index
    return DataFrame(rows, index[: len(rows)], ["mean", "low", "high"], dtype=float)


def printed_in_paper(key: tuple[int, str], row: dict) -> tuple[float | None, float | None]:
    """The paper's mean and standard deviation beside a tested row."""
    if row["metric"] != "accuracy" or pd.isna(row["test_mean"]):
        return None, None
    loss = key[1].partition(" ")[0]
    setting = row["data"], row["protocol"], row["N"], row["noise"]
    return paper.accuracy(*setting, loss) or (None, None)
