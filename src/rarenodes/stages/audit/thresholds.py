"""How much recall each switch brings, and how much a moved threshold alone."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from rarenodes.inference.bootstrap import BootstrapScores
from rarenodes.scores import metrics
from rarenodes.scores.catalogue import RARE
from rarenodes.scores.run_tables import HALF
from rarenodes.stages.audit.switches import Pair, main_pairs
from rarenodes.stages.material import Material

RECALL = ("macro_recall", "with_positives")

# Names of rows that are no switches.
TUNED, ORACLE, BEYOND = "tuned threshold", "oracle threshold", "beyond the oracle"


class _Recall(NamedTuple):
    """Macro recall of a variant at some threshold."""

    variant: str
    scores: BootstrapScores

    @property
    def value(self) -> float:
        return float(self.scores.estimate()[RECALL])


def decomposition(material: Material, pairs: Sequence[Pair]) -> pd.DataFrame:
    """What single switches, and thresholds alone, do to macro recall at 0.5.

    The rows `there` add up to the gain of the whole way exactly. Rows `back` and `elsewhere` need not,
    as effects depend on what else is on.

    Rows `threshold` move the threshold of `off` alone: to one tuned on validation data, or to that of
    an *oracle*, the lowest at which its pooled precision is that of `on` at 0.5, by seed. The oracle
    looks at the test examples, so no one could have known it, and its interval does not cover that
    it was found there. It and what `on` has beyond it add up to the gain of the pair. Between
    pairs that are not trained alike, what is beyond need not be the method's.

    `share` is in units of a gain as measured: of the whole way, and in rows `threshold` of the pair.
    Without a clear gain, one whose interval leaves out 0, there are no shares: they would be
    quotients of noise.

    Args:
        material: of a data set.
        pairs: from `switch_pairs`.

    Returns:
        A row per single switch, the whole way, and threshold of `main_pairs`: `kind`, `part`, `off`,
        `on`, `off_recall`, `on_recall`, `difference` with `lower` and `upper`, and `share` likewise.

    """
    half = {variant: _Recall(variant, scores) for variant, scores in material.half.items()}
    main = main_pairs(pairs)
    whole = main[0]
    gain = _gain(material, half[whole.off], half[whole.on])
    rows = [
        _contribution(material, pair.kind, pair.switch, pair, half[pair.off], half[pair.on], gain)
        for pair in pairs
        if pair.kind != "whole" or pair == whole
    ]
    for pair in main:
        start, end = half[pair.off], half[pair.on]
        steps = []
        if pair.off in material.tuned:
            tuned = _Recall(pair.off, material.tuned[pair.off])
            steps.append((TUNED, start, tuned))
        thresholds = _oracle_thresholds(material, pair.off, pair.on)
        if thresholds is not None:
            oracle = _Recall(pair.off, material.scored(pair.off, thresholds))
            steps += [(ORACLE, start, oracle), (BEYOND, oracle, end)]
        gain = _gain(material, start, end)
        rows += [
            _contribution(material, "threshold", part, pair, without, having, gain)
            for part, without, having in steps
        ]
    return pd.DataFrame(rows)


def _change(material: Material, without: _Recall, having: _Recall) -> tuple[float, float, float]:
    """The difference in macro recall, and its interval."""
    found = material.difference(
        having.variant, having.scores, without.variant, without.scores, [RECALL]
    )
    lower, upper = found.interval(material.confidence)
    return float(found.value[0]), float(lower[0]), float(upper[0])


def _gain(material: Material, without: _Recall, having: _Recall) -> float:
    """The unit of shares: a gain as measured, NaN where it is not clear."""
    gain, lower, _ = _change(material, without, having)
    # A quotient by each replicate's own gain would have no mean to speak of.
    return gain if lower > 0 else np.nan


def _contribution(
    material: Material,
    kind: str,
    part: str,
    pair: Pair,
    without: _Recall,
    having: _Recall,
    gain: float,
) -> dict[str, object]:
    difference, lower, upper = _change(material, without, having)
    return {
        "kind": kind,
        "part": part,
        "off": pair.off,
        "on": pair.on,
        "off_recall": without.value,
        "on_recall": having.value,
        "difference": difference,
        "lower": lower,
        "upper": upper,
        "share": difference / gain,
        "share_lower": lower / gain,
        "share_upper": upper / gain,
    }


# --- matched precision --------------------------------------------------------------------------


def matched_table(material: Material, references: Sequence[str]) -> pd.DataFrame:
    """Recall of every variant at the lowest threshold that keeps a reference's pooled precision.

    A gain in recall that is left here is not explained by a shift of one threshold for all nodes.
    The precision is that of all nodes together, at 0.5. A match among rare nodes alone would be
    empty: where the reference predicts none of them, its precision there is 0, and any threshold
    keeps it.

    Args:
        material: of a data set.
        references: variants whose precision is kept.

    Returns:
        A row per reference and variant: the reference's `precision`, the `threshold`, `recall`
        (macro, nodes with test positives) and `rare_recall`, all means over seeds, and the recalls'
        spread over them; NaN where the reference is never right.

    """
    support, targets = material.support, material.targets.toarray().astype(bool)
    groups = {"recall": support > 0, "rare_recall": material.groups[RARE] & (support > 0)}
    rows = []
    for reference in dict.fromkeys(references):
        precisions = [
            metrics.micro_precision(p, material.targets, HALF) for p in material.test[reference]
        ]
        for variant in material.test:
            lowest = _lowest_scores(material, variant, reference)
            recalls = np.array(
                [
                    np.count_nonzero((p >= score) & targets, axis=0) / np.maximum(support, 1)
                    for p, score in zip(material.test[variant], lowest, strict=False)
                    if not np.isnan(score)
                ]
            )
            row = {"reference": reference, "precision": np.mean(precisions), "variant": variant}
            row["threshold"] = np.mean(lowest[~np.isnan(lowest)]) if len(recalls) else np.nan
            for name, chosen in groups.items():
                known = len(recalls) > 0 and chosen.any()
                by_seed = recalls[:, chosen].mean(axis=1) if known else np.array([np.nan])
                row[name] = by_seed.mean()
                row[f"{name}_spread"] = by_seed.std(ddof=1) if len(by_seed) > 1 else np.nan
            rows.append(row)
    return pd.DataFrame(rows)


def _oracle_thresholds(material: Material, variant: str, reference: str) -> list[float] | None:
    """For each seed the lowest threshold that keeps the reference's pooled precision at 0.5.

    None where there is nothing to match, or the reference has fewer seeds.
    """
    lowest = _lowest_scores(material, variant, reference)
    if np.isnan(lowest).any() or len(lowest) < len(material.test[variant]):
        return None
    # What scores exactly this is predicted: the threshold is just below, in the scores' own type.
    kind = np.promote_types(material.test[variant].dtype, np.float32)
    return np.nextafter(lowest.astype(kind), kind.type(-np.inf)).tolist()


def _lowest_scores(material: Material, variant: str, reference: str) -> Float[np.ndarray, " seeds"]:
    """The lowest score predicted in each seed; NaN where the reference is never right."""
    lowest = []
    runs = material.test[variant], material.test[reference]
    for own, others in zip(*runs, strict=False):
        precision = metrics.micro_precision(others, material.targets, HALF)
        match = metrics.recall_at_matched_precision(own, material.targets, precision)
        lowest.append(match.lowest_score if precision > 0 else np.nan)
    return np.array(lowest)
