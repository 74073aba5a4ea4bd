"""Which scores exist, on which nodes, at which threshold, and what readers should call them.

Evaluation, comparison, audit, tables, plots and `metrics.json` all read this table, so a score has
one name everywhere. Its key is `(measure, nodes, at)`:

* `measure`: `macro_…` gives every node the same weight, `micro_…` pools all of them;
* `nodes`: `all` evaluated nodes, those without test positives counting 0 in macro scores, as in the
  paper's code; `with_positives` leaves these out; so do `rare` and all other groups (`GROUPS`);
* `at`: the threshold, `half` (0.5) or `tuned` on validation data, or `none` for what needs none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

# Nodes with 1 to 10 positive training examples, counted as `evaluation.rarity_counted_in` says.
RARE = "rare"
RARE_BINS = ("1–5", "6–10")

Key = tuple[str, str, str]  # measure, nodes, at
# By which the best variant for rare nodes is told.
RARE_RANKING: Key = ("macro_average_precision", RARE, "none")
Family = tuple[tuple[str, str], ...]

# Who shows a score: the families of the comparison (Holm's correction is over all pairs of one score
# on one data set), the audit, the table of pooled scores, and `metrics.json`.
Shown = Literal["compared", "audited", "pooled", "headline"]


@dataclass(frozen=True)
class Score:
    """One score and its names.

    Attributes:
        measure: what is measured.
        nodes: on which nodes.
        at: at which threshold.
        label: what a sentence or an axis calls it.
        shown: who shows it.
        short: its name where columns are narrow.

    """

    measure: str
    nodes: str
    at: str
    label: str
    shown: frozenset[Shown] = field(default_factory=frozenset)
    short: str = ""

    @property
    def key(self) -> Key:
        """(measure, nodes, at)."""
        return self.measure, self.nodes, self.at

    @property
    def column(self) -> str:
        """Its column in a table of pooled scores."""
        return column(self.key)


def column(key: Key) -> str:
    """The column of a score in a table of pooled scores."""
    measure, nodes, at = key
    if measure == "micro_average_precision" and nodes == "all":
        return measure
    return "_".join((measure, nodes) if at == "none" else (measure, nodes, at))


def _score(key: str, label: str, *shown: Shown, short: str = "") -> Score:
    return Score(*key.split(), label, frozenset(shown), short)


SCORES: tuple[Score, ...] = (
    _score(
        "macro_recall rare half", "recall of rare nodes at 0.5",
        "compared", "audited", "headline", short="rare recall at 0.5",
    ),
    _score(
        "macro_f1 with_positives half", "macro F1 at 0.5",
        "compared", "audited", "pooled", "headline", short="F1 at 0.5",
    ),
    _score(
        "macro_f1 with_positives tuned", "macro F1 at tuned threshold",
        "compared", "audited", "pooled", "headline", short="F1 tuned",
    ),
    _score(
        "macro_average_precision with_positives none", "average precision",
        "compared", "audited", "pooled", "headline", short="macro AP",
    ),
    _score(
        "macro_average_precision rare none", "average precision of rare nodes",
        "compared", "audited", "headline", short="rare AP",
    ),
    _score(
        "micro_average_precision all none", "micro AU(PRC)",
        "audited", "pooled", "headline", short="micro AP",
    ),
    _score(
        "macro_recall with_positives half", "macro recall at 0.5",
        "audited", "pooled", "headline", short="recall at 0.5",
    ),
    _score(
        "macro_precision with_positives half", "macro precision at 0.5",
        "audited", "pooled", short="precision at 0.5",
    ),
    _score("macro_f1 all half", "macro F1 at 0.5, all nodes", "pooled", short="F1 at 0.5, all nodes"),
    _score(
        "macro_recall with_positives tuned", "macro recall at tuned threshold",
        "pooled", short="recall tuned",
    ),
    _score(
        "macro_f1 all tuned", "macro F1 at tuned threshold, all nodes",
        "pooled", short="F1 tuned, all nodes",
    ),
)  # fmt: skip


def shown(where: Shown) -> tuple[Score, ...]:
    """The scores that are shown somewhere, in reading order."""
    return tuple(score for score in SCORES if where in score.shown)


def labels(where: Shown) -> Mapping[Key, str]:
    """What readers call the scores that are shown somewhere."""
    return {score.key: score.label for score in shown(where)}


def family(where: Shown, at: str) -> Family:
    """`(measure, nodes)` of the scores that are shown somewhere at one threshold."""
    return tuple((score.measure, score.nodes) for score in shown(where) if score.at == at)


# Scores of single nodes, whose macro means are shown by rarity and by depth.
NODE_SCORES: Mapping[str, str] = {
    "recall_half": "recall at 0.5",
    "precision_half": "precision at 0.5",
    "f1_half": "F1 at 0.5",
    "f1_tuned": "F1 at tuned threshold",
    "average_precision": "average precision",
}
