"""Tests and verdicts of committed results, made anew with SciPy from the tables that lie beside them.

Nothing of `rarenodes` is used here but for the names of verdicts in the tables: whoever doubts a page can
read how little its numbers need. What only the trained networks have, the bootstrap over test
examples, enters by the tables' standard errors.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import nct, t, ttest_ind, ttest_rel

REPOSITORY = Path(__file__).parents[1]
STUDIES = [
    folder
    for folder in (REPOSITORY, *sorted(REPOSITORY.glob("studies/*")))
    if (folder / "reports" / "compare" / "tables" / "differences.csv").exists()
]
SCORE = ["dataset", "measure", "nodes", "at"]
# Tables hold six significant digits.
DIGITS = {"rtol": 2e-5, "atol": 2e-6}


@pytest.fixture(scope="module", params=STUDIES, ids=lambda folder: folder.name)
def study(request) -> Path:
    return request.param


@pytest.fixture(scope="module")
def differences(study) -> pd.DataFrame:
    return pd.read_csv(study / "reports" / "compare" / "tables" / "differences.csv")


@pytest.fixture(scope="module")
def seeds(study, differences) -> list[tuple[np.ndarray, np.ndarray]]:
    """The scores of each row's variant and of its baseline, seed by seed."""
    scores = pd.read_csv(study / "reports" / "scores.csv")
    by_name = {key: rows["score"].to_numpy() for key, rows in scores.groupby([*SCORE, "variant"])}
    return [
        tuple(
            by_name[(row.dataset, row.measure, row.nodes, row.at, name)]
            for name in (row.variant, row.baseline)
        )
        for row in differences.itertuples()
    ]


def test_there_are_committed_comparisons():
    assert len(STUDIES) >= 2


def test_differences_and_spreads_are_those_of_the_seeds(differences, seeds):
    for column, expected in (
        ("score", [own.mean() for own, _ in seeds]),
        ("baseline_score", [base.mean() for _, base in seeds]),
        ("difference", [own.mean() - base.mean() for own, base in seeds]),
        ("seed_spread", [own.std(ddof=1) if len(own) > 1 else np.nan for own, _ in seeds]),
    ):
        np.testing.assert_allclose(differences[column], expected, **DIGITS, err_msg=column)


def test_intervals_and_p_values_are_students(differences):
    error, freedom = differences["standard_error"], differences["degrees_of_freedom"]
    half = t.ppf(0.975, freedom) * error
    for column, sign in (("lower", -1), ("upper", 1)):
        expected = differences["difference"] + sign * half
        tested = error > 0
        np.testing.assert_allclose(
            differences[column][tested], expected[tested], rtol=1e-3, atol=1e-5
        )
    p = 2 * t.sf(abs(differences["difference"]) / error, freedom)
    tested = error > 0
    np.testing.assert_allclose(differences["p"][tested], p[tested], rtol=1e-3, atol=1e-9)


def test_no_difference_is_surer_than_its_seeds_alone_make_it(differences, seeds):
    # What test examples add can only widen an interval: SciPy's own tests over seeds are never the
    # more cautious ones by their standard error.
    for row, (own, base) in zip(differences.itertuples(), seeds, strict=True):
        if min(len(own), len(base)) < 2:
            continue
        test = ttest_rel if len(own) == len(base) else ttest_ind
        kind = {} if test is ttest_rel else {"equal_var": False}
        statistic = abs(test(own, base, **kind).statistic)
        if np.isfinite(statistic) and row.standard_error > 0:
            assert abs(row.difference) / row.standard_error <= statistic * (1 + 1e-3) + 1e-6


def families(differences: pd.DataFrame):
    """Rows that are corrected together: a data set, a score, whatever is compared."""
    return differences.groupby(SCORE, sort=False)


def test_corrections_are_holms_over_all_that_is_compared_on_a_score(differences):
    for name, family in families(differences):
        order = family["p"].sort_values().index  # what could not be tested counts for nothing
        known = family["p"].notna().sum()
        running = 0.0
        for place, at in enumerate(order[:known]):
            running = max(running, min(1.0, (known - place) * family["p"][at]))
            assert family["holm_p"][at] == pytest.approx(running, rel=1e-4, abs=1e-9), name
        assert set(family["tests"]) == {known}


def test_what_could_have_been_shown_is_found_four_times_in_five(differences):
    # With the noncentral t, at the level that the first step of Holm asks for. It is found more often
    # where not the noise limits it but a step, of one positive example found or lost.
    rows = differences[(differences["standard_error"] > 0) & differences["resolution"].notna()]
    freedom = rows["degrees_of_freedom"]
    critical = t.isf(0.05 / rows["tests"] / 2, freedom)
    power = nct.sf(critical, freedom, rows["resolution"] / rows["standard_error"])
    assert (power > 0.795).all()
    assert np.mean(power < 0.805) > 0.9


def test_words_follow_from_the_rule_in_the_parameters(study, differences):
    rule = yaml.safe_load((study / "params.yaml").read_text())["evaluation"].get("rule", {})
    level, share = rule.get("level", 0.05), rule.get("equivalence", 0.05)
    floor, blunt = rule.get("floor", 0.002), rule.get("blunt", 10)
    for row in differences.itertuples():
        margin = max(floor, share * abs(row.baseline_score))
        assert row.margin == pytest.approx(margin, rel=1e-4)
        clear = row.holm_p <= level
        within = -margin <= row.lower and row.upper <= margin
        if row.verdict == "same":
            assert within
        elif row.verdict in ("better", "worse"):
            assert clear
            assert (row.difference > 0) == (row.verdict == "better")
        elif row.verdict == "unclear":
            assert not clear
            assert row.resolution <= blunt * margin * (1 + 1e-4)
        else:
            assert row.verdict == "untestable"
            assert not clear or np.isnan(row.holm_p)
            assert not row.resolution <= blunt * margin * (1 - 1e-4)
