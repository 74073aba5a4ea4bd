"""The compiled part of training and searching some rows of a last layer alone, on one thread.

A row is a node's weights, with its bias as last column: `weight[member, node]`, `[width + 1]`. Pairs
of an example and a node lie example by example; `order` lists them node by node. Every example, and
every row, is worked on by one thread in a fixed order, so that the bits are the same with any number
of threads.
"""

import inspect
from heapq import heappop, heappush

import numpy as np
from numba import njit

_numba = njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
# Sums may be split, so that they become vector code: in a way that is fixed when it is compiled.
_numba_sum = njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})


def _compiled(function):
    # Without what a type checker wrapped round it, as the tests' does, which numba cannot compile.
    return _numba(inspect.unwrap(function))


def _compiled_sum(function):
    return _numba_sum(inspect.unwrap(function))


@_compiled_sum
def _logit(row, hidden):
    total = np.float32(0)
    for i in range(hidden.size):
        total += row[i] * hidden[i]
    return total + row[hidden.size]


@_compiled
def logits(hidden, weight, starts, nodes, first, last, out):
    """Logits of the pairs of examples `first` to `last`, into `out` `[members, pairs]`; as `pairs`."""
    for m in range(hidden.shape[0]):
        for b in range(first, last):
            for p in range(starts[b], starts[b + 1]):
                out[m, p] = _logit(weight[m, nodes[p]], hidden[m, b])


@_compiled
def pairs(
    hidden, weight, starts, nodes, positive, shift, factors, first, last, losses, slopes, back
):
    """Binary cross-entropy of the pairs of examples `first` to `last`, and its gradients.

    Args:
        hidden: `[members, batch, width]`.
        weight: `[members, nodes, width + 1]`.
        starts: `[batch + 1]`, as in `rarenodes.loss.active_nodes.ActiveNodes`.
        nodes: `[pairs]`, as there.
        positive: `[pairs]`, as there.
        shift: `[nodes]`, added to the logits; of no length for none.
        factors: `[pairs]`, what the cross-entropies are multiplied by; of no length for 1.
        first: example.
        last: example after the last one.
        losses: `[members, batch]` float64, receives sums over an example's pairs.
        slopes: `[members, pairs]`, receives derivatives by the logits; of no length to leave them out.
        back: `[members, batch, width]`, receives derivatives by `hidden`, where there are slopes.

    """
    zero, one = np.float32(0), np.float32(1)
    for m in range(hidden.shape[0]):
        for b in range(first, last):
            example = hidden[m, b]
            loss = 0.0
            for p in range(starts[b], starts[b + 1]):
                row = weight[m, nodes[p]]
                z = _logit(row, example)
                if shift.size:
                    z += shift[nodes[p]]
                factor = factors[p] if factors.size else one
                e = np.exp(-abs(z))
                y = np.float32(positive[p])
                loss += factor * (max(z, zero) - y * z + np.log1p(e))
                if slopes.size:
                    slope = factor * ((one if z >= zero else e) / (one + e) - y)
                    slopes[m, p] = slope
                    for i in range(example.size):
                        back[m, b, i] += slope * row[i]
            losses[m, b] = loss


@_compiled
def rest(weight, means, squares, rows, latest, now, adam, reach, first, last):
    """Adam's steps before `now` in which `rows[first:last]` rested: with a gradient of 0.

    A row moves for `reach` steps at most; after that only its moments and its decay go on, by powers
    of their factors.
    """
    rate, beta1, beta2, epsilon, kept = adam
    for u in range(first, last):
        j = rows[u]
        rested = now - 1 - latest[j]
        if rested > 0:
            moving = min(rested, reach)
            for m in range(weight.shape[0]):
                row, mean, square = weight[m, j], means[m, j], squares[m, j]
                for t in range(latest[j] + 1, latest[j] + 1 + moving):
                    _move(row, mean, square, rate, beta1, beta2, epsilon, kept, t)
                left = rested - moving
                if left > 0:
                    factor = np.float32(kept**left)
                    old1, old2 = np.float32(beta1**left), np.float32(beta2**left)
                    for i in range(row.size):
                        row[i] *= factor
                        mean[i] *= old1
                        square[i] *= old2
            latest[j] = now - 1


@_compiled
def _move(row, mean, square, rate, beta1, beta2, epsilon, kept, t):
    step = np.float32(rate / (1 - beta1**t))
    of_root = np.float32(1 / np.sqrt(1 - beta2**t))
    b1, b2 = np.float32(beta1), np.float32(beta2)
    small, factor = np.float32(epsilon), np.float32(kept)
    for i in range(row.size):
        mean[i] *= b1
        square[i] *= b2
        row[i] = row[i] * factor - step * mean[i] / (np.sqrt(square[i]) * of_root + small)


@_compiled
def update(
    hidden, slopes, scale, order, examples, bounds, weight, means, squares, rows, latest, now, adam,
    first, last,
):  # fmt: skip
    """Gradient and Adam's step number `now` of `rows[first:last]`.

    Args:
        hidden: `[members, batch, width]`.
        slopes: `[members, pairs]`.
        scale: what they are multiplied by.
        order: `[pairs]`, the pairs node by node, and by example within a node.
        examples: `[pairs]`, the example of each pair.
        bounds: `[rows + 1]`, where the pairs of each row begin in `order`.
        weight: `[members, nodes, width + 1]`, updated in place.
        means: as `weight`, Adam's first moment.
        squares: as `weight`, Adam's second moment.
        rows: nodes, each once.
        latest: `[nodes]`, the step at which a row's moments are.
        now: number of the step, from 1.
        adam: learning rate, β₁, β₂, ε, and what a step of decay leaves of a weight.
        first: place in `rows`.
        last: place after the last one.

    """
    rate, beta1, beta2, epsilon, kept = adam
    width = hidden.shape[2]
    step = np.float32(rate / (1 - beta1**now))
    of_root = np.float32(1 / np.sqrt(1 - beta2**now))
    new1, new2 = np.float32(1 - beta1), np.float32(1 - beta2)
    small, factor = np.float32(epsilon), np.float32(kept)
    gradient = np.empty(width + 1, dtype=np.float32)
    for u in range(first, last):
        j = rows[u]
        passed = now - latest[j]
        old1, old2 = np.float32(beta1**passed), np.float32(beta2**passed)
        for m in range(hidden.shape[0]):
            gradient[:] = np.float32(0)
            for k in range(bounds[u], bounds[u + 1]):
                slope = slopes[m, order[k]] * scale
                example = hidden[m, examples[order[k]]]
                for i in range(width):
                    gradient[i] += slope * example[i]
                gradient[width] += slope
            row, mean, square = weight[m, j], means[m, j], squares[m, j]
            for i in range(width + 1):
                g = gradient[i]
                mean[i] = old1 * mean[i] + new1 * g
                square[i] = old2 * square[i] + new2 * g * g
                row[i] = row[i] * factor - step * mean[i] / (np.sqrt(square[i]) * of_root + small)
        latest[j] = now


@_compiled
def search(hidden, weight, hierarchy, constant, counted, most, above, first, last):
    """Likeliest nodes of examples `first` to `last`, by best-first search from the roots.

    Args:
        hidden: `[members, batch, width]`.
        weight: `[members, nodes, width + 1]`.
        hierarchy: where each node's children begin `[nodes + 1]`, the children `[edges]`, every
            node's number of parents `[nodes]`, the roots.
        constant: `[nodes]`, probabilities given the parents that stand in for the layer's; NaN: none.
        counted: `[nodes]`, whether a node is to be found; others are only passed.
        most: most nodes of an example.
        above: probability that all have to exceed.
        first: example.
        last: example after the last one.

    Returns:
        How many nodes each example has, the nodes, and their probabilities.

    """
    starts, children, parents, roots = hierarchy
    members, nodes = weight.shape[0], weight.shape[1]
    # Of the nodes that this example reached: parents not yet passed, and, by member, the least of
    # the parents' probabilities, then the node's own.
    waiting = parents.copy()
    at = np.ones((nodes, members))
    reached, heap = [np.int64(0)], [(0.0, np.int64(0))]
    counts = np.zeros(last - first, dtype=np.int64)
    found, likely = np.empty(64, dtype=np.int32), np.empty(64, dtype=np.float64)
    total = 0
    for b in range(first, last):
        heap.clear()
        reached.clear()
        for root in roots:
            reached.append(root)
            p = _arrive(hidden, weight, constant, at, b, root)
            if p > above:
                heappush(heap, (-p, root))
        while heap and counts[b - first] < most:
            p, node = heappop(heap)
            if counted[node]:
                if total == found.size:
                    found = np.concatenate((found, np.empty_like(found)))
                    likely = np.concatenate((likely, np.empty_like(likely)))
                found[total], likely[total] = node, -p
                total += 1
                counts[b - first] += 1
            for edge in range(starts[node], starts[node + 1]):
                child = np.int64(children[edge])
                if waiting[child] == parents[child]:
                    reached.append(child)
                waiting[child] -= 1
                for m in range(members):
                    at[child, m] = min(at[child, m], at[node, m])
                if waiting[child] == 0:
                    p = _arrive(hidden, weight, constant, at, b, child)
                    if p > above:
                        heappush(heap, (-p, child))
        for node in reached:
            waiting[node] = parents[node]
            at[node] = 1.0
    return counts, found[:total], likely[:total]


@_compiled
def _arrive(hidden, weight, constant, at, b, node):
    """Turn the parents' least into the node's own, by member; their mean."""
    total = 0.0
    for m in range(at.shape[1]):
        q = constant[node]
        if np.isnan(q):
            z = np.float64(_logit(weight[m, node], hidden[m, b]))
            e = np.exp(-abs(z))
            q = (1.0 if z >= 0 else e) / (1.0 + e)
        at[node, m] *= q
        total += at[node, m]
    return total / at.shape[1]
