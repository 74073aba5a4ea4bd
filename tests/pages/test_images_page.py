"""What is said of encoders and shares of the data, against values worked out by hand."""

import pandas as pd
import pytest

from rarenodes.pages.comparison import SPOKEN_OF
from rarenodes.pages.images import SCORES, claim_table, conditions_of, image_values
from rarenodes.pages.plots.images import baseline_grid, by_rarity, gain_grid
from rarenodes.pages.prose import render

SYMBOLS = {"better": "+", "worse": "−", "same": "≈", "unclear": "?"}


def rows(blend, share, variant, paper=True, **verdicts):
    """A row for each score; what is not said is practically the same."""
    for number, name in enumerate(SCORES):
        measure, nodes, at = SPOKEN_OF[name]
        verdict = verdicts.get(name, "same")
        sign = {"better": 1, "worse": -1}.get(verdict, 0)
        yield {
            "dataset": f"{blend} {share}",
            "blend": blend,
            "share": share,
            "measure": measure,
            "nodes": nodes,
            "at": at,
            "variant": variant,
            "baseline": "mcm",
            "baseline_score": 0.2 + number / 100,
            "difference": sign * 0.05,
            "lower": sign * 0.05 - 0.01,
            "upper": sign * 0.05 + 0.01,
            "verdict": verdict,
            "symbol": SYMBOLS[verdict],
            "paper": paper,
        }


@pytest.fixture
def gains():
    table = [
        *rows(0.0, 1.0, "weighted", found="better", half_f1="better", ranked="worse"),
        *rows(0.0, 1.0, "focal", found="worse"),
        *rows(0.5, 1.0, "weighted", found="better", ranked="better", tuned_f1="better"),
        *rows(0.5, 1.0, "focal"),
        *rows(0.5, 0.2, "weighted", found="better"),
        # Found by one variant and ranked by another is not both by one.
        *rows(0.5, 0.2, "focal", ranked="better"),
        *rows(0.5, 0.2, "linear", paper=False, found="better", ranked="better"),
    ]
    return pd.DataFrame(table)


def test_conditions_run_from_good_encoders_with_many_images_to_bad_with_few(gains):
    assert conditions_of(gains.sample(frac=1, random_state=0)) == [
        (0.0, 1.0),
        (0.5, 1.0),
        (0.5, 0.2),
    ]


def test_values_count_conditions(gains):
    values = image_values(gains, "mcm", 0.05)
    assert values["conditions"] == 3
    assert values["variants"] == ["weighted", "focal"]
    assert (values["found_better"], values["found_worse"]) == (3, 0)
    assert (values["half_f1_better"], values["tuned_f1_better"]) == (1, 1)
    assert (values["ranked_better"], values["ranked_worse"]) == (2, 1)
    assert (values["all_ranked_better"], values["all_ranked_worse"]) == (0, 0)
    assert values["kept"] == [(0.5, 1.0, ["weighted"])]
    assert values["threshold_only"] == [(0.0, 1.0)]
    assert values["others_kept"] == [(0.5, 0.2, ["linear"])]


def test_the_verdict_names_its_conditions(gains):
    said = render("images_opening", image_values(gains, "mcm", 0.05))
    assert "Of 3 conditions (" in said
    assert "clearly better than `mcm` in 3 by recall of rare nodes at 0.5, in 1 by macro F1" in said
    assert "and ranks them better: λ = 0.5 with 100 % of the data (`weighted`)." in said
    assert "**Found more, not ranked clearly better**: λ = 0 with 100 % of the data." in said
    assert "these do both: λ = 0.5 with 20 % of the data (`linear`)." in said


def test_a_claim_that_does_not_hold_is_said_not_to(gains):
    none = gains[(gains["blend"] == 0.0)]
    said = render("images_opening", image_values(none, "mcm", 0.05))
    assert "Of 1 condition (" in said
    assert "**In no condition** does one of the paper's variants both" in said
    assert "not the paper's" not in said


def test_the_table_shows_the_largest_gain_of_the_papers_variants(gains):
    table = claim_table(gains)
    assert list(table.index) == [("0", "1"), ("0.5", "1"), ("0.5", "0.2")]
    cell = table.loc[("0", "1"), "recall of rare nodes at 0.5"]
    assert cell == "0.200 +0.050 [+0.040, +0.060] + weighted"
    assert table.loc[("0.5", "0.2"), "average precision of rare nodes"].endswith("+ focal")
    assert "linear" not in table.to_string()


def texts(axis) -> list[str]:
    return [text.get_text() for text in axis.texts]


def test_a_panel_has_encoders_across_and_shares_upwards(gains):
    figure = gain_grid(gains, ["weighted", "focal"])
    axes = figure.axes
    assert len(axes) == 2 * len(SCORES)
    first = axes[0]
    assert first.get_title(loc="left") == "recall of rare nodes\nat 0.5"
    places = {t.get_text(): t.get_position() for t in axes[3].texts}
    assert places["▼ −5.0"] == (0, 1)  # λ = 0, all data: ranked worse
    assert places["▲ +5.0"] == (1, 1)
    assert places["≈ 0.0"] == (1, 0)
    assert [label.get_text() for label in first.get_yticklabels()] == ["0.2", "1"]
    assert texts(axes[5])[0] == "▼ −5.0"  # of focal


def test_what_is_not_clear_has_no_colour(gains):
    gains.loc[gains["verdict"] == "worse", "verdict"] = "unclear"
    shades = gain_grid(gains, ["weighted"]).axes[3].images[0].get_array()
    assert shades[1].tolist() == [0.0, pytest.approx(5.0)]


def test_the_baselines_own_scores(gains):
    figure = baseline_grid(gains)
    assert texts(figure.axes[0]) == ["20.0"] * 3
    assert texts(figure.axes[3]) == ["23.0"] * 3


def test_gains_by_rarity_are_differences_from_the_baseline():
    table = pd.DataFrame(
        [
            {
                "blend": b,
                "share": s,
                "rarity": r,
                "variant": v,
                "recall_half": x,
                "average_precision": y,
            }
            for b in (0.0, 1.0)
            for s in (0.2, 1.0)
            for r in ("1–5", "> 50")
            for v, x, y in (("mcm", 0.1, 0.3), ("weighted", 0.1 + s / 10 + b / 100, 0.3 - b / 10))
        ]
    )
    figure = by_rarity(table, "weighted", "mcm")
    lines = {
        (axis, line.get_label()): line.get_ydata().round(6).tolist()
        for axis, ax in enumerate(figure.axes)
        for line in ax.lines
    }
    assert lines[0, "λ = 0"] == [2.0, 2.0]
    assert lines[1, "λ = 1"] == [11.0, 11.0]
    assert lines[2, "λ = 1"] == [-10.0, -10.0]
