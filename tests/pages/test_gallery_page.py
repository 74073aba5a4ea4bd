"""The gallery's sentences take their numbers from the table of best constants."""

import pandas as pd

from rarenodes.pages.prose import render

POSITIVES, NEGATIVES = "weights on positives (paper)", "weights on negatives (code)"
OTHERS = "other losses, no weights"
ROWS = [
    ("no weights", "no weights", 0.004, 0.04, 0.4),
    (POSITIVES, "class-wise", 0.0035, 0.013, 0.14),
    (POSITIVES, "binary", 0.33, 0.32, 0.143),
    (NEGATIVES, "class-wise", 0.0046, 0.12, 0.73),
    (OTHERS, "focal (Lin)", 0.11, 0.2, 0.3),
    (OTHERS, "negative-tolerant", 0.24, 0.2, 0.3),
    (OTHERS, "asymmetric", 0.27, 0.2, 0.3),
    (OTHERS, "logit-adjusted", 0.5, 0.5, 0.5),
]
TABLE = pd.DataFrame(ROWS, columns=["group", "name", "rare", "medium", "common"])


def test_constants_are_those_of_the_table():
    text = render("gallery_constants", {"table": TABLE})
    assert (
        "the medium node** from 4 % to 1.3 %. The same weights on negatives move it to 12 %" in text
    )
    assert "rare node at 33 % and the medium one at 32 %" in text
    assert "the common one from 40 % to 14 %" in text
    assert "11 % (focal), 24 % (negative-tolerant) and 27 % (asymmetric)" in text
    assert text.endswith("Logit adjustment puts it at 50 %.")


def test_the_opening_is_about_the_rare_node():
    text = render("gallery_opening", {"table": TABLE})
    assert "ends at 0.4 % without weights, at 33.0 % with binary weights on positives" in text
    assert "these leave it at 0.5 %." in text
    assert (
        "asymmetric 27.0 %, negative-tolerant 24.0 %, focal 11.0 %, logit-adjusted 50.0 %." in text
    )
    assert len(text.splitlines()) == 4
