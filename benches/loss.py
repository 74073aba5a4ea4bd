"""Time and memory of the loss with its gradient.

- plain BCE: binary cross-entropy on logits, `mean` reduction, dense float32 targets
- coherent, and coherent with node weights and the `gmu` focal term: `RareNodeLoss`, by its kernel,
  targets checked
- the same in PyTorch operations, the reference
- dense: the definition with a closure matrix `[nodes, nodes]`, float32, by `max` or by `amax`
- hmc-torch, where it is installed (`pip install --no-deps hmc-torch==0.0.11`): its matrix
  constraint in training's two maxima, double precision, as it comes

Every example is in about five nodes and their ancestors.
"""

import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

from benches.shapes import FUN, GO, chain, leveled, star
from benches.timing import interleaved, resident, summary
from rarenodes.loss.coherent import Focal, RareNodeLoss, bce
from rarenodes.loss.hierarchy import Hierarchy

try:
    from hmc.models.global_classifier.constraint.utils import get_constr_out
except ImportError:
    get_constr_out = None

GMU = Focal("gmu")
LABELS = 5
KERNEL = ("plain BCE", "coherent", "coherent, weights, gmu")
SIZES = (500, 1_600, 5_000, 16_000, 50_000)


class Case:
    """Logits, targets and weights for one hierarchy, and each way to a loss and its gradient."""

    def __init__(self, hierarchy: Hierarchy, members: int, batch: int):
        generator = torch.Generator().manual_seed(0)
        nodes = len(hierarchy)
        self.hierarchy = hierarchy
        self.logits = torch.randn(members, batch, nodes, generator=generator, requires_grad=True)
        labels = torch.zeros(batch, nodes)
        labels.scatter_(1, torch.randint(nodes, (batch, LABELS), generator=generator), 1.0)
        self.targets = hierarchy.close(labels).contiguous()
        self.weight = 0.25 + torch.rand(nodes, generator=generator)
        coherent = RareNodeLoss(hierarchy)
        weighted = RareNodeLoss(hierarchy, positive_weight=self.weight, focal=GMU)
        self.ways = {
            "plain BCE": self._plain,
            "coherent": lambda: coherent(self.logits, self.targets),
            "coherent, weights, gmu": lambda: weighted(self.logits, self.targets),
            "reference": self._reference,
            "reference, weights, gmu": self._reference_weighted,
            "dense, max": lambda: self._dense(lambda products: products.max(-1).values),
            "dense, amax": lambda: self._dense(lambda products: products.amax(-1)),
            "hmc-torch": self._hmc_torch,
        }

    def step(self, way: str) -> None:
        """Loss and gradient once."""
        torch.autograd.grad(self.ways[way](), self.logits)

    def _plain(self) -> torch.Tensor:
        targets = self.targets.expand_as(self.logits)
        return functional.binary_cross_entropy_with_logits(self.logits, targets)

    def _reference(self) -> torch.Tensor:
        return self._reference_elements().sum(-1).mean(-1).sum()

    def _reference_weighted(self) -> torch.Tensor:
        weight = torch.where(self.targets.bool(), self.weight, 1.0) * GMU.weight(self.logits)
        return (self._reference_elements() * weight).sum(-1).mean(-1).sum()

    def _reference_elements(self) -> torch.Tensor:
        coherent = self.hierarchy.max_over_agreeing_descendants(self.logits, self.targets)
        return bce(coherent, self.targets)

    def _dense(self, maximum) -> torch.Tensor:
        """By the definition: maxima over a row of the closure matrix for every node."""
        targets, p = self.targets, torch.sigmoid(self.logits)
        everywhere = maximum(p.unsqueeze(-2) * self.closure)
        in_positives = maximum((p * targets).unsqueeze(-2) * self.closure)
        return self._bce(torch.where(targets.bool(), in_positives, everywhere))

    def _hmc_torch(self) -> torch.Tensor:
        p, targets = torch.sigmoid(self.logits[0]), self.targets
        everywhere = get_constr_out(p, self.closure.unsqueeze(0))
        in_positives = get_constr_out(p * targets, self.closure.unsqueeze(0))
        return self._bce(torch.where(targets.bool(), in_positives, everywhere))

    def _bce(self, coherent: torch.Tensor) -> torch.Tensor:
        targets = self.targets.to(coherent.dtype).expand_as(coherent)
        return (
            functional.binary_cross_entropy(coherent, targets, reduction="none")
            .sum(-1)
            .mean(-1)
            .sum()
        )

    @property
    def closure(self) -> torch.Tensor:
        """`[nodes, nodes]`, 1 where the column is the row or a descendant of it."""
        if not hasattr(self, "_closure"):
            self._closure = self.hierarchy.close(torch.eye(len(self.hierarchy))).T.contiguous()
        return self._closure


def compare(
    name: str,
    hierarchy: Hierarchy,
    members: int,
    batch: int,
    ways: Sequence[str],
    seconds: float,
) -> list[dict]:
    """A row for each way; `ratio` is to the first."""
    case = Case(hierarchy, members, batch)
    taken = interleaved({way: lambda way=way: case.step(way) for way in ways}, seconds)
    return [
        {
            "hierarchy": name,
            "nodes": len(hierarchy),
            "edges": hierarchy.num_edges,
            "members": members,
            "batch": batch,
            "way": way,
            **summary(times, taken[ways[0]]),
            "ns_per_node": 1e9 * float(np.median(times)) / case.logits.numel(),
        }
        for way, times in taken.items()
    ]


def losses(seconds: float) -> pd.DataFrame:
    """The yeast benchmarks' sizes, small batches and large; `ratio` is to plain BCE."""
    rows = []
    for name, size in {"FUN": FUN, "GO": GO}.items():
        hierarchy = leveled(**size)
        references = ["reference", "reference, weights, gmu"]
        rows += compare(name, hierarchy, 10, 64, [*KERNEL, *references], seconds)
        dense = ["dense, max", "dense, amax", *(["hmc-torch"] if get_constr_out else [])]
        rows += compare(name, hierarchy, 1, 4, [*KERNEL, *references, *dense], seconds)
    return pd.DataFrame(rows)


def sizes(seconds: float, chosen: Iterable[int] = SIZES) -> pd.DataFrame:
    """From hundreds of nodes to tens of thousands, at one depth."""
    rows = []
    for nodes in chosen:
        shapes = {"tree": leveled(nodes, 6), "DAG": leveled(nodes, 6, int(1.4 * nodes))}
        for name, hierarchy in shapes.items():
            for members in (1, 10):
                rows += compare(name, hierarchy, members, 64, KERNEL, seconds)
    return pd.DataFrame(rows)


def shapes(seconds: float, nodes: int = 5_000) -> pd.DataFrame:
    """Shallow and deep hierarchies of one size."""
    of_shape = {f"tree, depth {depth}": leveled(nodes, depth) for depth in (3, 6, 10, 30)}
    of_shape |= {"chain": chain(nodes), "star": star(nodes)}
    rows = []
    for name, hierarchy in of_shape.items():
        rows += compare(name, hierarchy, 10, 64, KERNEL, seconds)
    return pd.DataFrame(rows)


# --- memory: the high-water mark of a fresh process while a step runs ---------------------------


def memory(
    chosen: Iterable[int] = SIZES,
    members: int = 10,
    batch: int = 64,
    ways: Iterable[str] = KERNEL,
) -> pd.DataFrame:
    """What a step adds at its highest, in tensors of the logits' size, for trees (Linux only).

    Memory that the process had freed but kept is not seen, so this is for tensors too large for it.
    """
    rows = []
    for nodes in chosen:
        for way in ways:
            found = _peak_in_process(way, members, batch, nodes)
            tensors = found / (4 * members * batch * nodes)
            row = {"nodes": nodes, "members": members, "batch": batch, "way": way}
            rows.append({**row, "extra_bytes": found, "tensors": tensors})
    return pd.DataFrame(rows)


def _peak_in_process(way: str, members: int, batch: int, nodes: int) -> int:
    command = [sys.executable, "-m", "benches.loss", way, *map(str, (members, batch, nodes))]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _print_peak(way: str, members: int, batch: int, nodes: int) -> None:
    torch.set_num_threads(1)
    Case(leveled(50, 6), members, batch).step(way)  # loads the compiled code
    case = Case(leveled(nodes, 6), members, batch)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    case.step(way)
    print(resident("VmHWM") - before)


if __name__ == "__main__":
    _print_peak(sys.argv[1], *map(int, sys.argv[2:]))
