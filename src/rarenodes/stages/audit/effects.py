"""Scores of every variant, and the effect of every switch on them."""

from collections.abc import Mapping, Sequence

import pandas as pd

from rarenodes.inference.verdict import Rule, judged
from rarenodes.scores.catalogue import RARE, Key, labels
from rarenodes.scores.metrics import RARITY_BINS
from rarenodes.stages.audit.switches import Pair
from rarenodes.stages.material import Material

# What is compared in every pair. On one data set Holm's correction is over all pairs of one of these:
# one family are the effects of single switches, whatever else is on, another those of whole methods.
COMPARED: Mapping[Key, str] = labels("audited")

_AT_THRESHOLD = [
    *(
        (measure, nodes)
        for measure in ("macro_recall", "macro_precision", "macro_f1")
        for nodes in ("all", "with_positives", RARE)
    ),
    ("micro_precision", "all"),
    ("micro_recall", "all"),
]
_RANKED = [
    *(("macro_average_precision", nodes) for nodes in ("all", "with_positives", RARE)),
    ("micro_average_precision", "all"),
]
_BY_RARITY = {"macro_average_precision": "average_precision", "macro_recall": "recall_half"}


def score_table(material: Material) -> pd.DataFrame:
    """A row per variant, score and threshold: mean over seeds, interval, spread over seeds.

    At tuned thresholds all is NaN where a variant has none.
    """
    tables = []
    for variant, scores in material.half.items():
        tables.append(material.with_intervals(variant, scores, _AT_THRESHOLD).assign(at="half"))
        if variant in material.tuned:
            table = material.with_intervals(variant, material.tuned[variant], _AT_THRESHOLD)
        else:
            table = pd.DataFrame(_AT_THRESHOLD, columns=["measure", "nodes"])
        tables.append(table.assign(at="tuned", variant=variant))
        tables.append(material.with_intervals(variant, scores, _RANKED).assign(at="none"))
    order = ["variant", "measure", "nodes", "at", "score", "lower", "upper", "seed_spread"]
    return pd.concat(tables, ignore_index=True).reindex(columns=order)


def rarity_scores(material: Material) -> pd.DataFrame:
    """Average precision, and recall at 0.5, over the nodes of a rarity bin with test positives."""
    tested = material.support > 0
    sizes = {name: int((mask & tested).sum()) for name, mask in material.groups.items()}
    bins = [name for name in RARITY_BINS if sizes.get(name, 0)]
    tables = []
    for measure, name in _BY_RARITY.items():
        columns = [(measure, group) for group in bins]
        tables += [
            material.with_intervals(variant, scores, columns).assign(measure=name)
            for variant, scores in material.half.items()
        ]
    table = pd.concat(tables, ignore_index=True).rename(columns={"nodes": "rarity"})
    table["nodes"] = table["rarity"].map(sizes)
    order = ["measure", "rarity", "nodes", "variant", "score", "lower", "upper", "seed_spread"]
    return table[order]


def effect_table(material: Material, pairs: Sequence[Pair], rule: Rule) -> pd.DataFrame:
    """A row per pair and score of `COMPARED`: `on − off`, with interval, p-value and verdict.

    Pairs without tuned thresholds have no row at these.
    """
    tables = []
    for pair in pairs:
        for at, scores in (
            ("half", material.half),
            ("tuned", material.tuned),
            ("none", material.half),
        ):
            if pair.on in scores and pair.off in scores:
                columns = [(measure, nodes) for measure, nodes, where in COMPARED if where == at]
                table = material.compared(scores, [pair.on], pair.off, columns)
                tables.append(table.assign(kind=pair.kind, switch=pair.switch, at=at))
    table = pd.concat(tables, ignore_index=True).dropna(subset="difference")
    table["whole"] = table["kind"] == "whole"
    table = judged(table, rule, ["measure", "nodes", "at", "whole"])
    names = {
        "variant": "on",
        "baseline": "off",
        "score": "on_score",
        "baseline_score": "off_score",
    }
    first = ["kind", "switch", "off", "on", "measure", "nodes", "at", "off_score", "on_score"]
    judgement = ["tests", "verdict", "clear", "margin", "resolution"]
    order = [*first, "difference", "lower", "upper", "p", "holm_p", *judgement]
    return table.rename(columns=names)[order]
