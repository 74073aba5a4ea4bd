"""What every loss asks of its batch before it computes anything."""

import torch
from torch import Tensor

from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.loss.kernels import EdgePlan, first_fault


def check_batch(
    logits: Tensor, targets: Tensor, hierarchy: Hierarchy, known: Tensor | None = None
) -> None:
    """Refuse logits and targets of which a loss would be meaningless.

    Args:
        logits: should be `[members, batch, nodes]`; their values are not looked at.
        targets: should be `[batch, nodes]`, as `check_targets` has it.
        hierarchy: the nodes' hierarchy.
        known: should be `[batch, nodes]` bool and true where targets are 1, or None.

    Raises:
        ValueError: shapes that do not fit each other or the hierarchy, an empty batch, what
            `check_targets` refuses, and targets that are 1 where they are unknown.

    """
    nodes = len(hierarchy)
    fits = logits.ndim == 3 and logits.shape[2] == nodes and logits.shape[1:] == targets.shape
    if not fits or targets.numel() == 0:
        one_member = logits.ndim == 2 and logits.shape == targets.shape
        hint = "; logits.unsqueeze(0) are those of one member" if one_member else ""
        raise ValueError(
            f"logits [members, batch, nodes] and targets [batch, nodes] must fit each other and the "
            f"{nodes} nodes of the hierarchy, found {tuple(logits.shape)} and {tuple(targets.shape)}"
            f"{hint}"
        )
    check_targets(targets, hierarchy)
    if known is not None:
        _check_known(known, targets, hierarchy)


def _check_known(known: Tensor, targets: Tensor, hierarchy: Hierarchy) -> None:
    if known.shape != targets.shape or known.dtype != torch.bool:
        raise ValueError(
            f"known must be bool of shape {tuple(targets.shape)} as the targets, found {known.dtype} "
            f"of shape {tuple(known.shape)}"
        )
    both = (targets.bool() & ~known).nonzero()
    if len(both):
        example, node = both[0].tolist()
        raise ValueError(
            f"targets must be 0 where they are unknown, found 1 at example {example}, node "
            f"{hierarchy.nodes[node]!r}"
        )


def check_targets(targets: Tensor, hierarchy: Hierarchy) -> None:
    """Refuse targets that are not 0 or 1, or not ancestor-closed.

    Takes O(batch · edges), a few thousandths of a training step. On a GPU it waits for the targets
    to be there.

    Args:
        targets: `[batch, nodes]`, of any type, on any device.
        hierarchy: the nodes' hierarchy.

    Raises:
        ValueError: another shape, or the first example at fault, with a node of it.

    """
    if torch.compiler.is_compiling():
        # Nothing to trace. As a decorator it would load the tracer, for seconds, in every process.
        torch.compiler.disable(_refuse_faults)(targets, hierarchy)
    else:
        _refuse_faults(targets, hierarchy)


def _refuse_faults(targets: Tensor, hierarchy: Hierarchy) -> None:
    if targets.ndim != 2 or targets.shape[1] != len(hierarchy):
        raise ValueError(
            f"targets must be [batch, {len(hierarchy)} nodes], found shape {tuple(targets.shape)}"
        )
    if targets.device.type == "cpu":
        example = first_fault(targets, EdgePlan.of(hierarchy))
    else:
        example = _first_fault_by_tensors(targets, hierarchy)
    if example >= 0:
        raise ValueError(_fault_of(targets[example].tolist(), example, hierarchy))


def _first_fault_by_tensors(targets: Tensor, hierarchy: Hierarchy) -> int:
    child, parent = hierarchy.edge_index.to(targets.device).unbind(1)
    # Nodes first: gathering whole rows is many times faster.
    by_node = targets.T.contiguous()
    neither = (by_node != 0) & (by_node != 1)  # holds of NaN too
    wrong = neither.any(dim=0) | (by_node[child] > by_node[parent]).any(dim=0)
    return int(wrong.int().argmax()) if wrong.any() else -1


def _fault_of(values: list, example: int, hierarchy: Hierarchy) -> str:
    """What is wrong with an example, in words."""
    for node, value in zip(hierarchy.nodes, values, strict=True):
        if value not in (0, 1):
            return f"targets must be 0 or 1, found {value} at example {example}, node {node!r}"
    child, parent = next(
        (child, parent)
        for child, parent in hierarchy.edges
        if values[hierarchy.index[child]] > values[hierarchy.index[parent]]
    )
    return (
        f"targets must be ancestor-closed, but example {example} has node {child!r} without its "
        f"parent {parent!r}: hierarchy.close(targets) adds it"
    )
