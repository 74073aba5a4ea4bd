import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, t

from rarenodes.inference.verdict import (
    Rule,
    Verdict,
    Word,
    judged,
    smallest_detectable,
    verdicts_of,
)
from rarenodes.settings import SettingsError, read_settings

RULE = Rule(level=0.05, equivalence=0.1, floor=0.005, blunt=10)


def verdict(difference, half_width, holm_p, score=0.2, resolution=0.05, step=0.0):
    return RULE.verdict(
        difference=difference,
        lower=difference - half_width,
        upper=difference + half_width,
        holm_p=holm_p,
        baseline_score=score,
        resolution=resolution,
        step=step,
    )


@pytest.mark.parametrize(
    ("found", "word", "symbol"),
    [
        (verdict(0.10, 0.05, 0.01), Word.BETTER, "+"),
        (verdict(-0.10, 0.05, 0.05), Word.WORSE, "−"),
        (verdict(0.10, 0.05, 0.051), Word.UNCLEAR, "?"),
        # The region is a tenth of 0.2: ±0.02.
        (verdict(0.005, 0.015, 0.6), Word.SAME, "≈"),
        (verdict(0.005, 0.0151, 0.6), Word.UNCLEAR, "?"),
        (verdict(-0.005, 0.015, 0.6), Word.SAME, "≈"),
        (verdict(-0.005, 0.0151, 0.6), Word.UNCLEAR, "?"),
        # One positive moves the score by more than the region.
        (verdict(0.005, 0.015, 0.6, step=0.03), Word.UNCLEAR, "?"),
        # Ten times the region is 0.2.
        (verdict(0.05, 0.2, 0.6, resolution=0.2), Word.UNCLEAR, "?"),
        (verdict(0.05, 0.2, 0.6, resolution=0.21), Word.CANNOT_TELL, "·"),
        (verdict(0.0, 0.0, 1.0, resolution=0.0, step=0.5), Word.CANNOT_TELL, "·"),
        (verdict(np.nan, 0.1, 0.5), Word.CANNOT_TELL, "·"),
        (verdict(0.1, 0.1, np.nan), Word.CANNOT_TELL, "·"),
        (verdict(0.1, 0.1, 0.5, resolution=np.nan), Word.CANNOT_TELL, "·"),
    ],
)
def test_the_rule_by_hand(found, word, symbol):
    assert found.word is word
    assert found.cell() == symbol


def test_symbols_are_told_apart_without_colour():
    assert len({word.symbol for word in Word}) == len(Word)


def test_a_clear_difference_that_matters_to_nobody_is_the_same_and_said_to_be_clear():
    found = verdict(0.01, 0.005, 0.001)
    assert found.word is Word.SAME
    assert found.clear
    assert found.sentence() == (
        "practically the same (+0.010, within ±0.020), though the difference is clear"
    )


def test_the_region_grows_with_the_score_and_has_a_floor():
    assert RULE.margin(0.5) == pytest.approx(0.05)
    assert RULE.margin(0.01) == 0.005
    np.testing.assert_allclose(RULE.margin(np.array([0.5, 0.0])), [0.05, 0.005])
    assert verdict(0.01, 0.005, 0.01, score=0.5).word is Word.SAME
    assert verdict(0.01, 0.005, 0.01, score=0.05).word is Word.BETTER


def test_sentences_say_what_the_sample_could_have_shown():
    assert verdict(0.1, 0.05, 0.01).sentence() == "better (+0.100)"
    assert verdict(0.05, 0.2, 0.6, resolution=0.21).sentence() == (
        "cannot tell (+0.050): differences from 0.210 would have been found in four of five samples"
    )
    assert verdict(np.nan, 0.1, 0.5).sentence() == (
        "cannot tell: the sample has nothing to compare"
    )


def test_settings_of_the_rule_are_checked():
    with pytest.raises(SettingsError, match=r"params\.yaml: evaluation: level: expected"):
        read_settings(Rule, {"level": 0.0}, "params.yaml: evaluation")


def test_smallest_detectable_by_hand_and_by_simulation():
    # 1.960 + 0.842 standard errors with a known one.
    found = smallest_detectable(np.array([1.0, 0.5]), np.array([np.inf, np.inf]))
    np.testing.assert_allclose(found, [norm.ppf(0.975) + norm.ppf(0.8)] * np.array([1, 0.5]))
    assert smallest_detectable(np.zeros(1), np.array([np.nan])) == 0
    assert np.isnan(smallest_detectable(np.array([np.nan]), np.array([3.0])))
    # Three seeds: two degrees of freedom.
    rng = np.random.default_rng(0)
    size = smallest_detectable(np.array([1 / 3**0.5]), np.array([2.0])).item()
    draws = rng.normal(size, 1, (40_000, 3))
    ratio = draws.mean(axis=1) / (draws.std(axis=1, ddof=1) / 3**0.5)
    assert np.mean(ratio > t.ppf(0.975, 2)) == pytest.approx(0.8, abs=0.01)


def rows(**changed):
    table = pd.DataFrame(
        {
            "dataset": ["a", "a", "b"],
            "variant": ["x", "y", "x"],
            "difference": [0.10, 0.10, 0.10],
            "lower": [0.02, 0.02, 0.02],
            "upper": [0.18, 0.18, 0.18],
            "p": [0.03, 0.01, 0.03],
            "standard_error": [0.04, 0.04, 0.04],
            "degrees_of_freedom": [np.inf, np.inf, np.inf],
            "positives": [1000.0, 1000.0, 1000.0],
            "baseline_score": [0.2, 0.2, 0.2],
        }
    )
    return table.assign(**changed)


def test_families_are_corrected_apart():
    table = judged(rows(), RULE, ["dataset"])
    np.testing.assert_allclose(table["holm_p"], [0.03, 0.02, 0.03])
    assert list(table["tests"]) == [2, 2, 1]
    one_family = judged(rows(p=[0.03, 0.01, 0.04]), RULE, ["difference"])
    np.testing.assert_allclose(one_family["holm_p"], [0.06, 0.03, 0.06])
    assert list(one_family["symbol"]) == ["?", "+", "?"]
    # One difference alone in a family of two must reach half the level.
    expected = 0.04 * (norm.ppf([0.9875, 0.9875, 0.975]) + norm.ppf(0.8))
    np.testing.assert_allclose(table["resolution"], expected)
    np.testing.assert_allclose(table["margin"], 0.02)


def test_tests_that_could_not_be_made_do_not_count():
    table = judged(rows(p=[0.03, np.nan, 0.03]), RULE, ["dataset"])
    assert list(table["tests"]) == [1, 1, 1]
    assert list(table["verdict"]) == ["better", "untestable", "better"]


def test_few_positives_are_a_coarse_sample():
    table = judged(rows(p=[0.5, 0.5, 0.5], positives=[4.0, 0.0, 100.0]), RULE, ["dataset"])
    assert list(table["verdict"]) == ["untestable", "unclear", "unclear"]
    assert table["resolution"].iloc[0] == 0.25


def test_verdicts_survive_a_file(tmp_path):
    table = judged(rows(), RULE, ["dataset"])
    table.to_csv(tmp_path / "t.csv", index=False)
    again = verdicts_of(pd.read_csv(tmp_path / "t.csv"))
    assert again[0] == Verdict(Word.BETTER, 0.1, True, again[0].margin, again[0].resolution)
    assert again[0].resolution == pytest.approx(table["resolution"][0])
    assert again[0].margin == pytest.approx(0.02)
    assert [v.cell() for v in again] == ["+", "+", "+"]


def test_an_unknown_family_is_named():
    with pytest.raises(ValueError, match="family: no column 'data set'"):
        judged(rows(), RULE, ["data set"])
