"""Time of a whole training step against the same step with plain BCE, and what its parts take."""

import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from benches.shapes import FUN, GO, leveled
from benches.timing import summary
from rarenodes.loss.coherent import Focal, RareNodeLoss
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.training.ensemble import Ensemble, Shape

# Features and hidden units are the paper's.
NETWORKS = {"FUN": (FUN, 500), "GO": (GO, 1000)}
FEATURES = 77
WARM_UP = 3
PARTS = ("network", "loss", "optimiser")


class Step:
    """One training step with a given loss, timed by its parts."""

    def __init__(self, hierarchy: Hierarchy, hidden: int, members: int, batch: int, loss: Callable):
        shape = Shape(FEATURES, hidden, 2, len(hierarchy), 0.7)
        self.streams = [torch.Generator().manual_seed(m) for m in range(members)]
        self.ensemble = Ensemble(shape, self.streams)
        self.adam = torch.optim.Adam(self.ensemble.parameters(), lr=1e-4, fused=True)
        self.inputs = torch.randn(batch, FEATURES)
        labels = torch.rand(batch, len(hierarchy)) < 3 / len(hierarchy)
        self.targets = hierarchy.close(labels).float()
        self.loss = loss

    def __call__(self) -> dict[str, float]:
        """Seconds of each part; the loss with its gradient is taken apart from the network's."""
        start = time.perf_counter()
        logits = self.ensemble(self.inputs, self.streams)
        forward = time.perf_counter()
        leaf = logits.detach().requires_grad_()
        self.loss(leaf, self.targets).backward()
        loss = time.perf_counter()
        self.adam.zero_grad()
        logits.backward(leaf.grad)
        backward = time.perf_counter()
        self.adam.step()
        end = time.perf_counter()
        return {
            "network": forward - start + backward - loss,
            "loss": loss - forward,
            "optimiser": end - backward,
            "step": end - start,
        }


def steps(turns: int) -> pd.DataFrame:
    """Alternating turns of all losses; `ratio` is to the step with plain BCE."""
    rows = []
    for name, (size, hidden) in NETWORKS.items():
        hierarchy = leveled(**size)
        for members in (1, 10):
            taken = _alternate(hierarchy, hidden, members, 64, turns)
            whole = {way: times["step"].to_numpy() for way, times in taken.items()}
            rows += [
                {
                    "hierarchy": name,
                    "nodes": len(hierarchy),
                    "hidden": hidden,
                    "members": members,
                    "batch": 64,
                    "way": way,
                    **summary(whole[way], whole["plain BCE"]),
                    **{f"ms_{part}": 1e3 * times[part].median() for part in PARTS},
                }
                for way, times in taken.items()
            ]
    return pd.DataFrame(rows)


def _alternate(
    hierarchy: Hierarchy, hidden: int, members: int, batch: int, turns: int
) -> dict[str, pd.DataFrame]:
    """By loss, the seconds of each part in each turn."""
    timed = {
        way: Step(hierarchy, hidden, members, batch, loss)
        for way, loss in _losses(hierarchy).items()
    }
    taken: dict[str, list[dict[str, float]]] = {way: [] for way in timed}
    for _ in range(WARM_UP + turns):
        for way, step in timed.items():
            taken[way].append(step())
    return {way: pd.DataFrame(times[WARM_UP:]) for way, times in taken.items()}


def _losses(hierarchy: Hierarchy) -> dict[str, Callable]:
    weight = torch.from_numpy(np.random.default_rng(0).random(len(hierarchy), np.float32)) + 0.25
    coherent = RareNodeLoss(hierarchy)
    return {
        "plain BCE": _plain_bce,
        "coherent": coherent,
        "coherent, weights, gmu": RareNodeLoss(
            hierarchy, positive_weight=weight, focal=Focal("gmu")
        ),
        "reference": coherent.reference,
    }


def _plain_bce(logits: Tensor, targets: Tensor) -> Tensor:
    """What the step costs without a hierarchy."""
    targets = targets.expand_as(logits)
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
