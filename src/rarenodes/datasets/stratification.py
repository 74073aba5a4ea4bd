"""Parts of a split in which every node has its share of examples."""

import heapq
from collections.abc import Mapping

import numpy as np
from scipy import sparse


def stratified_parts(
    targets: sparse.csr_array,
    shares: Mapping[str, float],
    generator: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Every part gets about its share of each node's examples, and the first part one of each at least.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas, ECML PKDD 2011): the node with the
    fewest examples that are not placed yet comes first, as nothing can be mended for it later; each of
    its examples goes to the part that still wants most of them, and counts there for all its nodes.
    Two things differ. Where no part wants a whole example any more, chance decides, in proportion to
    what they want: a part with a small share would otherwise never get an example of a rare node. And
    an example goes to the first part if it is the last of a node of which that part has none.

    Args:
        targets: `[examples, nodes]`, sparse 0/1, ancestor-closed.
        shares: of every part, summing to 1; the first is the one to learn from.
        generator: order of examples of a node, and the draws.

    Returns:
        Rows by part, not sorted. The first part may be larger than its share, by the nodes that it
        had to have an example of.

    """
    return _Placing(targets, shares, generator).parts()


class _Placing:
    """What is placed so far, and what each part still wants."""

    def __init__(
        self,
        targets: sparse.csr_array,
        shares: Mapping[str, float],
        generator: np.random.Generator,
    ):
        examples = targets.shape[0]
        self.names = list(shares)
        self.generator = generator
        self.nodes_of = np.split(targets.indices, targets.indptr[1:-1])
        by_node = targets.tocsc()
        self.rows_of = np.split(by_node.indices, by_node.indptr[1:-1])
        self.left = np.diff(by_node.indptr).astype(np.int64)
        part = np.array(list(shares.values()))
        self.wanted = part[:, None] * self.left  # [parts, nodes]
        self.room = part * examples
        self.learnt = np.zeros(len(self.left), dtype=bool)
        self.part_of = np.full(examples, -1)

    def parts(self) -> dict[str, np.ndarray]:
        rarest = [(count, node) for node, count in enumerate(self.left.tolist()) if count]
        heapq.heapify(rarest)
        while rarest:
            count, node = heapq.heappop(rarest)
            # A count that fell since it was noted is noted anew; there is no entry to look for.
            if count != self.left[node]:
                if self.left[node]:
                    heapq.heappush(rarest, (int(self.left[node]), node))
                continue
            for row in self.generator.permutation(self.rows_of[node]).tolist():
                if self.part_of[row] < 0:
                    self._place(row, self._choice(row, self.wanted[:, node]))
        for row in self.generator.permutation(np.flatnonzero(self.part_of < 0)).tolist():
            self._place(row, self._choice(row, self.room))
        return {name: np.flatnonzero(self.part_of == i) for i, name in enumerate(self.names)}

    def _choice(self, row: int, wanted: np.ndarray) -> int:
        """The part for an example, of what each wants of the node it is looked at for."""
        nodes = self.nodes_of[row]
        if (~self.learnt[nodes] & (self.left[nodes] == 1)).any():
            return 0
        if wanted.max() >= 1:
            return max(range(len(wanted)), key=lambda part: (wanted[part], self.room[part]))
        chances = np.maximum(wanted, 0)
        if not chances.sum():
            chances = np.maximum(self.room, 0) if self.room.max() > 0 else np.ones(len(wanted))
        return int(self.generator.choice(len(chances), p=chances / chances.sum()))

    def _place(self, row: int, part: int) -> None:
        nodes = self.nodes_of[row]
        self.part_of[row] = part
        self.left[nodes] -= 1
        self.wanted[part, nodes] -= 1
        self.room[part] -= 1
        if part == 0:
            self.learnt[nodes] = True
