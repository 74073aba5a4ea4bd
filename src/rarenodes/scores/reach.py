"""How deep predictions reach: example by example, how far down its true paths a prediction gets.

Scores of nodes give every node the same weight, wherever it lies. Whoever reads a prediction for one
example asks otherwise: how far down does it go rightly, how many levels short of what is true does
it stop, and if only the deepest node of which the model is sure enough is taken, is that node right?
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from rarenodes.scores.metrics import Scores, Targets, checked, predicted

# What the deepest node is asked for: a probability above these.
CONFIDENCES = (0.5, 0.8, 0.95)

Depths = Int[np.ndarray, " nodes"]
OfExamples = Int[np.ndarray, " examples"]


@dataclass(frozen=True)
class Reach:
    """Depths, example by example; 0 stands for nothing, as the root would.

    Attributes:
        true: `[examples]`, depth of the deepest true node.
        reached: `[examples]`, depth of the deepest predicted node that is true.
        answered: `[examples]`, depth of the deepest predicted node, true or not: the answer. Of
            several at that depth, the most probable one.
        right: `[examples]`, whether the answer is true; False where there is none.
        predicted_true: predicted nodes that are true, over all examples.
        predicted: predicted nodes.
        positives: true nodes.

    """

    true: OfExamples
    reached: OfExamples
    answered: OfExamples
    right: Bool[np.ndarray, " examples"]
    predicted_true: int
    predicted: int
    positives: int

    @property
    def levels_short(self) -> OfExamples:
        """`[examples]`, how many levels the reached node lies above the deepest true one."""
        return self.true - self.reached


def reach(
    scores: Scores,
    targets: Targets,
    depth: Depths,
    threshold: float | Float[np.ndarray, " nodes"],
) -> Reach:
    """How deep the predictions of one run reach.

    Args:
        scores: `[examples, nodes]` in [0, 1], coherent.
        targets: `[examples, nodes]`, 0/1, closed.
        depth: `[nodes]`, levels from the top, at least 1.
        threshold: a node is predicted above it; one for all, or `[nodes]`.

    Raises:
        ValueError: scores or targets that are none, or a depth below 1.

    """
    scores, true = checked(scores, targets)
    if (depth < 1).any():
        raise ValueError(f"depths must be at least 1, found {depth.min()}")
    found = predicted(scores, threshold)
    answered = _deepest(found, depth)
    candidates = found & (depth == answered[:, None])
    answer = np.where(candidates, scores, -1).argmax(axis=1)
    hits = found & true
    return Reach(
        true=_deepest(true, depth),
        reached=_deepest(hits, depth),
        answered=answered,
        right=true[np.arange(len(true)), answer] & (answered > 0),
        predicted_true=int(hits.sum()),
        predicted=int(found.sum()),
        positives=int(true.sum()),
    )


def summary(
    found: Reach, examples: Bool[np.ndarray, " examples"] | None = None
) -> dict[str, float]:
    """Means over examples that have a true node.

    Args:
        found: of a run.
        examples: which of them count; all if None.

    Returns:
        `examples`, how many count; `true_depth` and `reached_depth`, means; `levels_short`, their
        difference; `to_the_end`, the share of examples whose deepest true node is found;
        `answered`, the share that gets an answer; `answer_depth`, its mean depth among these; and
        `answer_right`, the share of answers that are true (NaN without answers).

    """
    chosen = found.true > 0
    if examples is not None:
        chosen = chosen & examples
    given = chosen & (found.answered > 0)
    return {
        "examples": float(chosen.sum()),
        "true_depth": _mean(found.true[chosen]),
        "reached_depth": _mean(found.reached[chosen]),
        "levels_short": _mean(found.levels_short[chosen]),
        "to_the_end": _mean(found.levels_short[chosen] == 0),
        "answered": _mean(found.answered[chosen] > 0),
        "answer_depth": _mean(found.answered[given]),
        "answer_right": _mean(found.right[given]),
    }


def hierarchical_scores(found: Reach) -> dict[str, float]:
    """Hierarchical precision, recall and F1: of all pairs of example and node, ancestors included.

    `hP = Σ |P ∩ T| / Σ |P|`, `hR = Σ |P ∩ T| / Σ |T|`, summed over examples, with the predicted nodes
    `P` and the true ones `T`, both closed under ancestors. 0 where nothing is predicted.

    Source: Silla and Freitas, Data Mining and Knowledge Discovery 22, 2011.
    """
    precision = found.predicted_true / found.predicted if found.predicted else 0.0
    recall = found.predicted_true / found.positives if found.positives else 0.0
    total = precision + recall
    return {
        "hierarchical_precision": precision,
        "hierarchical_recall": recall,
        "hierarchical_f1": 2 * precision * recall / total if total else 0.0,
    }


def shares_short(found: Reach, examples: Bool[np.ndarray, " examples"] | None = None) -> pd.Series:
    """Shares of examples by how many levels short of the deepest true node the prediction stops.

    Args:
        found: of a run.
        examples: which of them count; all with a true node if None.

    Returns:
        By `short`: `0`, found to the end; `1`; `2`; `3 or more`; and `nothing`, not one true node.
        They add up to 1.

    """
    chosen = found.true > 0
    if examples is not None:
        chosen = chosen & examples
    short, reached = found.levels_short[chosen], found.reached[chosen]
    some = reached > 0
    masks = {
        "0": some & (short == 0),
        "1": some & (short == 1),
        "2": some & (short == 2),
        "3 or more": some & (short >= 3),
        "nothing": ~some,
    }
    return pd.Series({name: _mean(mask) for name, mask in masks.items()}, name="share")


def _deepest(chosen: Bool[np.ndarray, "examples nodes"], depth: Depths) -> OfExamples:
    return (chosen * depth).max(axis=1, initial=0)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
