"""The likeliest nodes of an example, without the scores of all nodes.

A node's probability is that of `rarenodes.loss.output.Output("product")`: of every member

    p_j = q_j · min over parents k of p_k,    q_j = sigmoid(z_j), or a constant,

and the mean over members. Each member's falls along every edge, hence the mean does too. So the
likeliest node that has not been looked at always hangs below one that has, and a search that goes on
from the likeliest node it knows meets nodes by descending probability: what it has passed when it
stops is exact, in trees and in DAGs, where a node is looked at once all its parents have been passed.

An example costs the logits of the children of the nodes passed, however many nodes there are; on a
thread, `members + 1` numbers a node are kept for all examples together.

Source: *uniform-cost* search in label trees: Dembczyński, Waegeman, Cheng and Hüllermeier, *An
Analysis of Chaining in Multi-Label Classification*, ECAI 2012; Jasinska et al., ICML 2016.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int32, Int64
from torch import Tensor

from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.loss.kept import KeptWithHierarchy
from rarenodes.loss.kernels import rows as kernel
from rarenodes.loss.kernels.threads import spread


@dataclass(frozen=True)
class Likeliest:
    """Nodes of some examples, example after example, each with its likeliest first.

    Attributes:
        starts: where each example's nodes begin, and where the last one's end.
        nodes: the nodes; of equally likely ones, an ancestor first.
        probabilities: of the nodes, mean over members.

    """

    starts: Int64[np.ndarray, " examples_and_end"]
    nodes: Int32[np.ndarray, " found"]
    probabilities: Float64[np.ndarray, " found"]

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.starts) - 1

    def of(self, example: int) -> tuple[Int32[np.ndarray, " found"], Float64[np.ndarray, " found"]]:
        """Nodes and probabilities of one example."""
        part = slice(self.starts[example], self.starts[example + 1])
        return self.nodes[part], self.probabilities[part]

    @classmethod
    def joined(cls, parts: "Sequence[Likeliest]") -> "Likeliest":
        """Those of several batches, one after another; at least one batch."""
        counts = np.concatenate([np.zeros(1, np.int64), *(np.diff(part.starts) for part in parts)])
        return cls(
            np.cumsum(counts),
            np.concatenate([part.nodes for part in parts]),
            np.concatenate([part.probabilities for part in parts]),
        )


def likeliest(
    hidden: Float[Tensor, "members examples width"],
    weight: Float[Tensor, "members nodes columns"],
    hierarchy: Hierarchy,
    *,
    most: int | None = None,
    above: float = 0.0,
    constant: Tensor | None = None,
    counted: Tensor | None = None,
) -> Likeliest:
    """The `most` likeliest nodes of every example, as far as they are likelier than `above`.

    Args:
        hidden: `[members, examples, width]`, float32, on the CPU: what the layer below gives.
        weight: `[members, nodes, width + 1]`, float32, on the CPU; the last column is the bias.
        hierarchy: the nodes' hierarchy.
        most: most nodes of an example, at least 1; None means all that are likelier than `above`.
        above: probability that every node exceeds, in [0, 1). Without `most`, 0 finds nearly all
            nodes.
        constant: `[nodes]`, `q_j` where the layer does not decide, NaN where it does, as in `Output`.
        counted: `[nodes]` bool, nodes to be found; None means all. Those above them are passed, but
            not found.

    Raises:
        ValueError: shapes or types that do not fit each other or the hierarchy, or a number outside
            its range.

    """
    nodes = len(hierarchy)
    _check(hidden, weight, nodes, most, above)
    constant = torch.full((nodes,), torch.nan) if constant is None else constant
    counted = torch.ones(nodes, dtype=torch.bool) if counted is None else counted
    for name, value in (("constant", constant), ("counted", counted)):
        if tuple(value.shape) != (nodes,):
            raise ValueError(f"{name} must have shape ({nodes},), found {tuple(value.shape)}")
    given = (
        hidden.detach().contiguous().numpy(),
        weight.detach().contiguous().numpy(),
        _Edges.of(hierarchy).arrays,
        constant.double().numpy(),
        counted.numpy(),
        nodes if most is None else most,
        float(above),
    )
    parts: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def work(first: int, last: int) -> None:
        parts[first] = kernel.search(*given, first, last)

    spread(torch.get_num_threads(), hidden.shape[1], work)
    counts, found, likely = (np.concatenate(part) for part in zip(*_sorted(parts), strict=True))
    return Likeliest(np.concatenate([[0], np.cumsum(counts)]), found, likely)


class _Edges(KeptWithHierarchy):
    """A hierarchy as the search walks it."""

    def __init__(self, hierarchy: Hierarchy):
        nodes = len(hierarchy)
        child, parent = hierarchy.edge_index.numpy().T
        children = child[np.argsort(parent, kind="stable")].astype(np.int32)
        starts = np.concatenate([[0], np.cumsum(np.bincount(parent, minlength=nodes))])
        parents = np.bincount(child, minlength=nodes).astype(np.int32)
        roots = np.flatnonzero(parents == 0)
        self.arrays = starts, children, parents, roots


def _sorted(parts: dict[int, tuple]) -> list[tuple]:
    """What the threads found, by example."""
    return [parts[first] for first in sorted(parts)]


def _check(hidden: Tensor, weight: Tensor, nodes: int, most: int | None, above: float) -> None:
    fits = (
        hidden.ndim == 3
        and hidden.shape[1] > 0
        and tuple(weight.shape) == (hidden.shape[0], nodes, hidden.shape[2] + 1)
        and all(t.dtype == torch.float32 and t.device.type == "cpu" for t in (hidden, weight))
    )
    if not fits:
        raise ValueError(
            f"hidden [members, examples, width] and weight [members, {nodes} nodes, width + 1] must "
            f"fit each other and be float32 on the CPU, found {tuple(hidden.shape)} {hidden.dtype} "
            f"and {tuple(weight.shape)} {weight.dtype}"
        )
    if most is not None and most < 1:
        raise ValueError(f"most must be at least 1, or None for all, found {most}")
    if not 0 <= above < 1:
        raise ValueError(f"above must be at least 0 and below 1, found {above}")
