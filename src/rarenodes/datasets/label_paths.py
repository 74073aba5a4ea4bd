"""Labels as whole paths, such as `animal > mammal > dog`, and the hierarchy they imply."""

from collections.abc import Iterable
from pathlib import Path

from rarenodes.datasets.edge_lists import EdgeListError, NamedHierarchy, under_one_root
from rarenodes.datasets.files import FileFault, brief
from rarenodes.loss.hierarchy import Hierarchy

# Between the steps of a node's name.
BETWEEN = " > "
# Of a path. Each of its nodes is named by its whole path, so that long ones take their length squared.
MOST_STEPS = 200


def path_of(label: str, separator: str) -> str:
    """The name of the node that a path leads to: its steps, with `>` between them.

    Two nodes whose last steps are the same, in two places, stay two.

    Args:
        label: such as `animal/mammal/dog`.
        separator: what stands between the steps, here `/`.

    Raises:
        ValueError: an empty step, or more than `MOST_STEPS`.

    """
    steps = [step.strip() for step in label.split(separator)]
    if not all(steps):
        raise ValueError("an empty step")
    if len(steps) > MOST_STEPS:
        raise ValueError(f"{len(steps)} steps, more than {MOST_STEPS},")
    return BETWEEN.join(steps)


def hierarchy_of_paths(file: Path, paths: Iterable[str]) -> NamedHierarchy:
    """The tree of all nodes on some paths; each is called by its last step.

    Where paths start at several nodes, a node `root` is put above them.

    Args:
        file: where the paths come from, for messages.
        paths: from `path_of`.

    Raises:
        EdgeListError: there is no edge, or a node is called like the root to be put above.

    """
    edges: dict[tuple[str, str], None] = {}
    names: dict[str, str] = {}
    for path in sorted(set(paths)):
        steps = path.split(BETWEEN)
        nodes = [BETWEEN.join(steps[: i + 1]) for i in range(len(steps))]
        names |= dict(zip(nodes, steps, strict=True))
        edges |= dict.fromkeys(zip(nodes[1:], nodes[:-1], strict=True))
    try:
        return NamedHierarchy(Hierarchy(under_one_root(file, list(edges), names)), names)
    except FileFault as fault:
        raise EdgeListError(str(fault)) from None
    except ValueError as error:
        raise EdgeListError(
            f"{file}: {brief(error)}: expected labels of at least two nodes, as `a > b`"
        ) from None
