"""What each loss and each weight does, on made-up data: the numbers behind the gallery's figures."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy import sparse
from torch import Tensor

from rarenodes.datasets.dataset import Dataset
from rarenodes.loss.coherent import RareNodeLoss
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.loss.schedules import Moment, Schedule
from rarenodes.loss.uncertainty import KINDS, uncertainty
from rarenodes.loss.weighting import WEIGHTINGS, DistributionBalance
from rarenodes.settings import read_settings
from rarenodes.training.variants import VariantSettings, build_loss

# Where the best constant is looked for, before it is refined.
LOGITS = torch.linspace(-16, 16, 801, dtype=torch.float64)
ORIENTATIONS = ("paper", "released")


def long_tail(num_nodes: int = 400, num_examples: int = 1000, most: int = 400) -> Dataset:
    """A made-up data set whose node `r`, of 1, 2, …, has `most / r` positives, rounded down.

    The hierarchy is a binary tree: below node `r` are nodes `2r` and `2r + 1`, which share out part
    of its examples. Every example is trained on; there are no features to learn from.

    Args:
        num_nodes: from 2 to `most`, so that every node has a positive.
        num_examples: at least `most`; the others belong to no node.
        most: positives of the root.

    Returns:
        The data set; nodes are called by their number, `"001"`.

    Raises:
        ValueError: numbers that do not fit each other.

    """
    if not 2 <= num_nodes <= most <= num_examples:
        raise ValueError(
            "a long tail needs 2 ≤ num_nodes ≤ most ≤ num_examples, found "
            f"{num_nodes}, {most} and {num_examples}"
        )
    name = {r: f"{r:03d}" for r in range(1, num_nodes + 1)}
    hierarchy = Hierarchy((name[r], name[r // 2]) for r in range(2, num_nodes + 1))
    first = {1: 0}
    for r in range(2, num_nodes + 1):
        # The right child's examples follow the left one's.
        first[r] = first[r // 2] + (r % 2) * (most // (r - 1))
    targets = sparse.lil_array((num_examples, num_nodes), dtype=np.uint8)
    for r in name:
        targets[first[r] : first[r] + most // r, hierarchy.index[name[r]]] = 1
    nothing = np.arange(0)
    return Dataset(
        name="long tail",
        features=np.zeros((num_examples, 1), dtype=np.float32),
        targets=targets.tocsr(),
        hierarchy=hierarchy,
        split={"train": np.arange(num_examples), "valid": nothing, "test": nothing},
        evaluated=np.ones(num_nodes, dtype=bool),
        card={"source": "made up"},
    )


def losses_of(
    variants: Mapping[str, Mapping[str, Any]], dataset: Dataset
) -> dict[str, RareNodeLoss]:
    """The losses of variants given as in `params.yaml`, without their `about`.

    Raises:
        SettingsError: a setting is unknown, of the wrong type or out of range.

    """
    return {
        name: build_loss(
            read_settings(VariantSettings, {"about": name, **values}, f"variants.{name}"), dataset
        )
        for name, values in variants.items()
    }


class Response(NamedTuple):
    """What a positive and a negative of each node cost at each logit, and what follows.

    Attributes:
        positive: `[grid, nodes]`, loss of a positive.
        negative: `[grid, nodes]`, loss of a negative.
        positive_gradient: `[grid, nodes]`, derivative of the first by the logit, at most 0.
        negative_gradient: `[grid, nodes]`, derivative of the second by the logit, at least 0.

    """

    positive: Float[Tensor, "grid nodes"]
    negative: Float[Tensor, "grid nodes"]
    positive_gradient: Float[Tensor, "grid nodes"]
    negative_gradient: Float[Tensor, "grid nodes"]


def response(loss: RareNodeLoss, logits: Float[Tensor, " grid"]) -> Response:
    """What a loss makes of logits on which all members and all nodes agree.

    With equal logits at all nodes the maximum constraint changes nothing, so that this is each
    node's own loss.

    Args:
        loss: without `balance`, for which an example's other labels matter.
        logits: `[grid]`.

    """
    if loss.balance is not None:
        raise ValueError("the response to one logit is undefined for a loss with `balance`")
    grid, nodes = len(logits), len(loss.hierarchy)
    scores = logits.detach().view(1, grid, 1).repeat(1, 2, nodes).requires_grad_()
    targets = torch.ones(2 * grid, nodes, dtype=torch.uint8)
    targets[grid:] = 0
    values = loss.elements(scores, targets)
    (gradient,) = torch.autograd.grad(values.sum(), scores)
    return Response(*values.detach()[0].split(grid), *gradient[0].split(grid))


def best_constants(loss: RareNodeLoss, dataset: Dataset) -> Float[Tensor, " nodes"]:
    """The probability that costs least if a node gets the same one for all training examples.

    For binary cross-entropy with weights `w₊` and `w₋` it is `w₊ n / (w₊ n + w₋ (N − n))`, the
    frequency `n / N` if they are equal; for other losses it is looked for on a grid of logits. It
    says how readily the loss has a node predicted of which the features tell nothing.

    Args:
        loss: without a focal term, whose weight the gradient does not see: what costs least is
            then not where training ends, which is `n / N`.
        dataset: gives `n` and `N`.

    Returns:
        `[nodes]`, in (0, 1).

    """
    if loss.focal is not None:
        raise ValueError("the best constant is not where training with a focal term ends")
    positives, examples = _counts(dataset)
    cost = response(loss, LOGITS)
    total = positives * cost.positive + (examples - positives) * cost.negative
    slope = positives * cost.positive_gradient + (examples - positives) * cost.negative_gradient
    best = total.argmin(dim=0, keepdim=True).clamp(1, len(LOGITS) - 2)
    # A secant step on the slope, which crosses 0 between the neighbours.
    low, here, high = (slope.gather(0, best + offset)[0] for offset in (-1, 0, 1))
    step = LOGITS[1] - LOGITS[0]
    return torch.sigmoid(LOGITS[best[0]] - here * 2 * step / (high - low))


def element_curves(
    losses: Mapping[str, RareNodeLoss],
    dataset: Dataset,
    nodes: Mapping[str, str],
    logits: Float[Tensor, " grid"],
) -> pd.DataFrame:
    """What losses make of a positive and of a negative, by the predicted probability.

    Args:
        losses: by what they are called.
        dataset: the one they are of.
        nodes: what nodes are called here → their names in the hierarchy. A loss that shifts logits
            by the node's rarity gets a curve for each; others are the same for all nodes.
        logits: `[grid]`.

    Returns:
        A row per loss, label and logit: `name`; `label`, `positive` or `negative`; `probability`;
        `loss`; `push`, the size of its derivative by the logit; and `weight`, the loss as a multiple
        of binary cross-entropy.

    """
    rows = []
    plain = response(RareNodeLoss(dataset.hierarchy), logits)
    for name, loss in losses.items():
        found = response(loss, logits)
        shown = nodes if loss.shift is not None else dict(list(nodes.items())[:1])
        for called, node in shown.items():
            column = dataset.hierarchy.index[node]
            for label in ("positive", "negative"):
                value = getattr(found, label)[:, column]
                values = {
                    "name": f"{name}, {called} node" if loss.shift is not None else name,
                    "label": label,
                    "probability": torch.sigmoid(logits),
                    "loss": value,
                    "push": getattr(found, f"{label}_gradient")[:, column].abs(),
                    "weight": value / getattr(plain, label)[:, column],
                }
                rows.append(pd.DataFrame(values))
    return pd.concat(rows, ignore_index=True)


def constant_curves(losses: Mapping[str, RareNodeLoss], dataset: Dataset) -> pd.DataFrame:
    """The best constant of losses by a node's number of positives.

    Args:
        losses: by what they are called.
        dataset: the one they are of.

    Returns:
        A row per loss and number of positives: `name`, `positives`, `best_constant`.

    """
    counts, nodes = _one_node_a_count(dataset)
    rows = [
        pd.DataFrame(
            {
                "name": name,
                "positives": counts,
                "best_constant": best_constants(loss, dataset)[nodes],
            }
        )
        for name, loss in losses.items()
    ]
    return pd.concat(rows, ignore_index=True)


def grouped_constants(
    groups: Mapping[str, Mapping[str, Mapping[str, Any]]], dataset: Dataset
) -> pd.DataFrame:
    """`constant_curves` of groups of variants, given as for `losses_of`; `group` is the first column."""
    curves = {
        group: constant_curves(losses_of(variants, dataset), dataset)
        for group, variants in groups.items()
    }
    return pd.concat(curves, names=["group"]).reset_index("group").reset_index(drop=True)


def scheduled_constants(
    losses: Mapping[str, RareNodeLoss], dataset: Dataset, moments: Mapping[str, Moment]
) -> pd.DataFrame:
    """`constant_curves` at some moments of a training; `moment`, what each is called, comes last."""
    rows = []
    for name, moment in moments.items():
        for loss in losses.values():
            loss.at(moment)
        rows.append(constant_curves(losses, dataset).assign(moment=name))
    return pd.concat(rows, ignore_index=True)


def constants_at(
    curves: pd.DataFrame, counts: Mapping[str, int], by: Sequence[str] = ("name",)
) -> pd.DataFrame:
    """Best constants for some numbers of positives.

    Args:
        curves: from `constant_curves`, further columns welcome.
        counts: numbers of positives that occur there, by what their nodes are called.
        by: the columns that tell losses apart.

    Returns:
        A row a loss, in the order of the curves; a column a number of positives.

    """
    wide = curves.pivot_table(
        index=list(by), columns="positives", values="best_constant", sort=False
    )
    return wide[list(counts.values())].set_axis(list(counts), axis=1)


def percent(probability: float) -> str:
    """A probability to two digits: `0.4 %`."""
    return f"{100 * probability:.2g} %"


def weight_curves(dataset: Dataset, modes: Sequence[str] = tuple(WEIGHTINGS)) -> pd.DataFrame:
    """Node weights by a node's number of positives, and what they add up to in an epoch.

    Args:
        dataset: gives the counts.
        modes: formulas, each with its default options.

    Returns:
        A row per formula, orientation (`paper` on positives, `released` on negatives) and number of
        positives `n`: `mode`, `orientation`, `positives`; `weight`, of the class that is weighted;
        `positives_total` and `negatives_total`, `n` and `N − n` times their weights.

    """
    counts, nodes = _one_node_a_count(dataset)
    examples, rows = len(dataset.split["train"]), []
    for mode, orientation in product(modes, ORIENTATIONS):
        settings = {"weights": {"mode": mode, "orientation": orientation}}
        loss = losses_of({mode: settings}, dataset)[mode]
        positive, negative = (
            np.ones(len(nodes)) if weight is None else weight[nodes].double().numpy()
            for weight in (loss.positive_weight, loss.negative_weight)
        )
        values = {
            "mode": mode,
            "orientation": orientation,
            "positives": counts,
            "weight": positive if orientation == "paper" else negative,
            "positives_total": counts * positive,
            "negatives_total": (examples - counts) * negative,
        }
        rows.append(pd.DataFrame(values))
    return pd.concat(rows, ignore_index=True)


class UncertaintyMaps(NamedTuple):
    """Uncertainties of ensembles of two camps, by where the camps lie.

    Attributes:
        mean: `[grid, grid]`, the members' mean probability.
        apart: `[grid, grid]`, distance of each camp from the mean.
        kinds: `[grid, grid]` by name of the uncertainty.

    """

    mean: Float[Tensor, "grid grid"]
    apart: Float[Tensor, "grid grid"]
    kinds: dict[str, Float[Tensor, "grid grid"]]


def uncertainty_maps(members: int = 4, grid: int = 101) -> UncertaintyMaps:
    """Every uncertainty for ensembles of two camps, over all mean probabilities and distances."""
    means = torch.linspace(0, 1, grid, dtype=torch.float64)
    furthest = torch.minimum(means, 1 - means)
    apart = torch.linspace(0, 1, grid, dtype=torch.float64).unsqueeze(1) * furthest
    mean = means.expand_as(apart)
    camps = two_camps(mean, apart, members)
    return UncertaintyMaps(mean, apart, {kind: uncertainty(camps, kind) for kind in KINDS})


def two_camps(
    mean: Float[Tensor, "rows columns"], apart: Float[Tensor, "rows columns"], members: int = 4
) -> Float[Tensor, "members rows columns"]:
    """Probabilities of an ensemble of which one half says `mean − apart`, the other `mean + apart`.

    Args:
        mean: `[rows, columns]`, in [0, 1].
        apart: `[rows, columns]`, from 0 to the distance of the mean from 0 or 1, the nearer of the two.
        members: an even number.

    Returns:
        `[members, rows, columns]`.

    Raises:
        ValueError: members that are no two halves, or camps outside [0, 1].

    """
    if members < 2 or members % 2:
        raise ValueError(f"two camps need an even number of members, found {members}")
    camps = torch.stack([mean - apart, mean + apart])
    if (camps < 0).any() or (camps > 1).any():
        raise ValueError("camps must be in [0, 1]: they are further apart than their mean allows")
    return camps.repeat_interleave(members // 2, dim=0)


def gradient_destinations(
    loss: RareNodeLoss, logits: Float[Tensor, " nodes"], targets: Tensor
) -> Float[Tensor, "examples loss_nodes logit_nodes"]:
    """Which logits the loss of each node moves.

    Args:
        loss: of one hierarchy.
        logits: `[nodes]`, of one member, the same for every example.
        targets: `[examples, nodes]`, ancestor-closed.

    Returns:
        `[examples, nodes, nodes]`: the derivative of the loss of the first node by the logit of the
        second.

    """
    scores = logits.detach().expand(1, *targets.shape).clone().requires_grad_()
    values = loss.elements(scores, targets)[0]
    rows = [
        torch.autograd.grad(values[:, node].sum(), scores, retain_graph=True)[0][0]
        for node in range(len(logits))
    ]
    return torch.stack(rows, dim=1)


def shares(schedule: Schedule, epochs: int, steps: int) -> list[float]:
    """The share of the first weights that a schedule keeps, at every step of a training."""
    return [
        schedule.share(Moment(epoch, epochs, step, steps))
        for epoch in range(epochs)
        for step in range(steps)
    ]


def balance_table(counts: Mapping[str, int]) -> pd.DataFrame:
    """Weights of the distribution-balanced loss, by an example's other labels, on a chain of nodes.

    Args:
        counts: positives of each node of the chain, from the root down.

    Returns:
        A row for the examples that end at each node, and for those without a label; a column a node.

    """
    nodes = list(counts)
    targets = torch.tril(torch.ones(len(nodes) + 1, len(nodes)), diagonal=-1)
    balance = DistributionBalance(torch.tensor(list(counts.values()), dtype=torch.float64))
    weights = balance.weight(targets)
    rows = ["no label", *(", ".join(nodes[: i + 1]) for i in range(len(nodes)))]
    return pd.DataFrame(weights.numpy(), index=pd.Index(rows, name="labels"), columns=nodes)


def _counts(dataset: Dataset) -> tuple[Float[Tensor, " nodes"], int]:
    """Positives of every node, and the number of examples."""
    return torch.from_numpy(dataset.counts("train")).double(), len(dataset.split["train"])


def _one_node_a_count(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of positives that occur, ascending, and the index of one node for each."""
    return np.unique(dataset.counts("train"), return_index=True)
