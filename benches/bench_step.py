"""Time of a whole training step (network, loss, optimiser) against the same step with plain BCE.

Ratios come from turns that alternate within one run, so that a noisy machine slows both alike.
"""

import argparse
import platform
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rarenodes.datasets.synthetic import random_hierarchy
from rarenodes.ensemble import Ensemble, Shape
from rarenodes.hierarchy import Hierarchy
from rarenodes.losses import Focal, RareNodeLoss

# Nodes, share of nodes with several parents, features and hidden units, as in the paper's protocol.
SIZES = {
    "FUN": {"nodes": 500, "depth": 6, "multi_parent": 0.0, "features": 77, "hidden": 500},
    "GO": {"nodes": 4126, "depth": 12, "multi_parent": 0.36, "features": 77, "hidden": 1000},
}


class Step:
    """One training step with a given loss, timed by its parts."""

    def __init__(self, size: dict, hierarchy: Hierarchy, members: int, batch: int, loss: Callable):
        shape = Shape(size["features"], size["hidden"], 2, len(hierarchy), 0.7)
        self.streams = [torch.Generator().manual_seed(m) for m in range(members)]
        self.ensemble = Ensemble(shape, self.streams)
        self.adam = torch.optim.Adam(self.ensemble.parameters(), lr=1e-4, fused=True)
        self.inputs = torch.randn(batch, size["features"])
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


def plain_bce(logits: Tensor, targets: Tensor) -> Tensor:
    """What the step costs without a hierarchy."""
    targets = targets.expand_as(logits)
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum")


def losses(hierarchy: Hierarchy) -> dict[str, Callable]:
    """Plain BCE first; the others are compared with it."""
    weight = torch.rand(len(hierarchy)) + 0.25
    full = RareNodeLoss(hierarchy, positive_weight=weight, focal=Focal("gmu"))
    coherent = RareNodeLoss(hierarchy)
    return {
        "plain BCE": plain_bce,
        "coherent": coherent,
        "weights, gmu": full,
        "coherent, reference": coherent.reference,
    }


def bench(size: dict, members: int, batch: int, turns: int) -> None:
    """Print medians of alternating turns."""
    hierarchy = random_hierarchy(
        size["nodes"],
        np.random.default_rng(0),
        depth=size["depth"],
        multi_parent=size["multi_parent"],
    )
    steps = {
        name: Step(size, hierarchy, members, batch, loss)
        for name, loss in losses(hierarchy).items()
    }
    times: dict[str, list[dict]] = {name: [] for name in steps}
    for turn in range(turns + 3):
        for name, step in steps.items():
            seconds = step()
            if turn >= 3:
                times[name].append(seconds)
    print(f"\n{hierarchy}, hidden {size['hidden']}, M {members}, B {batch}, milliseconds:")
    whole = {name: np.array([t["step"] for t in taken]) for name, taken in times.items()}
    for name, taken in times.items():
        parts = "  ".join(
            f"{part} {1e3 * np.median([t[part] for t in taken]):7.2f}"
            for part in ("network", "loss", "optimiser")
        )
        low, middle, high = 1e3 * np.quantile(whole[name], [0.25, 0.5, 0.75])
        ratio = np.median(whole[name] / whole["plain BCE"])
        print(
            f"  {name:20} step {middle:7.2f} [{low:.2f}, {high:.2f}]  {parts}  × plain {ratio:.2f}"
        )


def main() -> None:
    """Measure all sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"torch {torch.__version__}, python {platform.python_version()}, "
        f"{options.threads} thread(s), {options.turns} turns; median [quartiles]"
    )
    for size in SIZES.values():
        for members in (1, 10):
            bench(size, members, 64, options.turns)


if __name__ == "__main__":
    main()
