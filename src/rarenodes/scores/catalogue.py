"""Which scores exist, on which nodes, at which threshold, and what readers should call them."""

from collections.abc import Mapping

# Nodes with 1 to 10 positive training examples.
RARE = "rare"
RARE_BINS = ("1–5", "6–10")

Key = tuple[str, str, str]  # measure, nodes, at

# All comparisons in reading order, and what readers should call them.
LABELS: Mapping[Key, str] = {
    ("macro_recall", RARE, "half"): "recall of rare nodes at 0.5",
    ("macro_f1", "with_positives", "half"): "macro F1 at 0.5",
    ("macro_f1", "with_positives", "tuned"): "macro F1 at tuned threshold",
    ("macro_average_precision", "with_positives", "none"): "average precision",
    ("macro_average_precision", RARE, "none"): "average precision of rare nodes",
}
