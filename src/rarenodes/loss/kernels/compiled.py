"""The compiled part: uncertainty, loss and gradient of float32 logits on one thread.

Everything numba compiles that calls one another is in this file, because numba's cache notices a
change only in the file of the function it loads.
"""

import inspect

import numpy as np
from numba import njit

# Nodes worked on at once where intermediate values are kept, so that these stay in the first cache.
CHUNK = 128

KINDS = ("bbma", "entropy", "aleatoric", "jsd", "kl", "gmu", "mutual_information")
_BBMA, _ENTROPY, _ALEATORIC, _JSD, _KL, _GMU, _MUTUAL_INFORMATION = range(1, len(KINDS) + 1)

# `contract` lets multiplications and additions fuse; NaN, infinities and the order of sums stay.
_numba = njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")


def _compiled(function):
    # Without what a type checker wrapped round it, as the tests' does, which numba cannot compile.
    return _numba(inspect.unwrap(function))


_ZERO, _HALF, _ONE, _TWO = (np.float32(c) for c in (0, 0.5, 1, 2))
_EPSILON = np.float32(1e-10)
_PER_LN2 = np.float32(1.4426950408889634)


# --- Elementary functions, without branches or calls, so that loops over them become vector code.

# ln 2 in two parts, the first with so few bits that its products with exponents are exact.
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(-2.1219444005469057e-4)
# Adding it rounds a small float to an integer, which then stands in the low bits.
_ROUNDER = np.float32(12582912)
_EXP_UNDERFLOW = np.float32(-87)
_SQRT_HALF_BITS = np.int32(0x3F3504F3)
_ONE_BITS = np.int32(0x3F800000)
_MANTISSA_BITS = np.int32(0x007FFFFF)

# Least squares, reweighted until the largest relative error is least.
# exp(r) = 1 + r + r² E(r), |r| ≤ ln(2) / 2: error 3e-9.
_E0, _E1, _E2, _E3, _E4 = (
    np.float32(c)
    for c in (0.4999999341284, 0.1666652010778, 0.0416683942143, 0.0083687804145, 0.0013814466888)
)
# atanh(s) = s + s³ A(s²), s ≤ 1/3: error 4.6e-9.
_A0, _A1, _A2, _A3 = (
    np.float32(c) for c in (0.3333320656639, 0.2001084952846, 0.1399957054850, 0.1401222939327)
)
# The same for |s| ≤ 0.172: error 8.3e-10.
_B0, _B1, _B2 = (np.float32(c) for c in (0.3333338912240, 0.1998864333298, 0.1493958384612))


@_compiled
def exp_of_negative(t):
    """`exp(t)` for t ≤ 0; 0 below −87; NaN for NaN."""
    rounded = t * _PER_LN2 + _ROUNDER
    n = rounded - _ROUNDER
    r = (t - n * _LN2_HIGH) - n * _LN2_LOW
    e = r + r * r * (_E0 + r * (_E1 + r * (_E2 + r * (_E3 + r * _E4))))
    power = np.int32((np.float32(rounded).view(np.int32) << 23) + _ONE_BITS)
    return _ZERO if t < _EXP_UNDERFLOW else (_ONE + e) * power.view(np.float32)


@_compiled
def log_one_plus(e):
    """`log(1 + e)` for e in [0, 1]."""
    s = e / (_TWO + e)
    z = s * s
    twice = s + s
    return twice + twice * z * (_A0 + z * (_A1 + z * (_A2 + z * _A3)))


@_compiled
def log(x):
    """`log(x)` for normal x > 0."""
    bits = np.int32(np.float32(x).view(np.int32) - _SQRT_HALF_BITS)
    exponent = np.float32(np.int32(bits >> 23))
    m = np.int32((bits & _MANTISSA_BITS) + _SQRT_HALF_BITS).view(np.float32)
    s = (m - _ONE) / (m + _ONE)
    z = s * s
    twice = s + s
    log_m = twice + twice * z * (_B0 + z * (_B1 + z * _B2))
    return exponent * _LN2_HIGH + (log_m + exponent * _LN2_LOW)


@_compiled
def sigmoid(x):
    """`1 / (1 + exp(−x))`."""
    e = exp_of_negative(-abs(x))
    return (e if x < _ZERO else _ONE) / (_ONE + e)


@_compiled
def binary_entropy(p):
    """Entropy in bits, with the ε of `rarenodes.loss.uncertainty`."""
    q = _ONE - p
    bits = -(p * log(p + _EPSILON) + q * log(q + _EPSILON)) * _PER_LN2
    return _ZERO if bits < _ZERO else bits


# --- Uncertainty of a chunk of nodes of one example: `p` [members, CHUNK] → `u` [CHUNK].
# The formulas are those of `rarenodes.loss.uncertainty`, kind by kind.


@_compiled
def _mean(p, out):
    out[:] = _ZERO
    for m in range(p.shape[0]):
        for i in range(CHUNK):
            out[i] += p[m, i]
    members = np.float32(p.shape[0])
    for i in range(CHUNK):
        out[i] /= members


@_compiled
def _margin_closeness(p, u):
    _mean(p, u)
    for i in range(CHUNK):
        u[i] = _ONE - abs(_TWO * u[i] - _ONE)


@_compiled
def _total_entropy(p, u):
    _mean(p, u)
    for i in range(CHUNK):
        u[i] = binary_entropy(u[i])


@_compiled
def _mean_entropy(p, u):
    u[:] = _ZERO
    for m in range(p.shape[0]):
        for i in range(CHUNK):
            u[i] += binary_entropy(p[m, i])
    members = np.float32(p.shape[0])
    for i in range(CHUNK):
        u[i] /= members


@_compiled
def _mutual_information(p, scratch, u):
    _mean_entropy(p, scratch)
    _total_entropy(p, u)
    for i in range(CHUNK):
        u[i] = max(u[i] - scratch[i], _ZERO)


@_compiled
def _gated_margin(p, mean, u):
    _mean(p, mean)
    u[:] = _ZERO
    # Deviations from the mean, not sums of squares: members may agree to the last digits.
    for m in range(p.shape[0]):
        for i in range(CHUNK):
            u[i] += (p[m, i] - mean[i]) * (p[m, i] - mean[i])
    freedom = np.float32(p.shape[0] - 1)
    for i in range(CHUNK):
        margin = abs(_TWO * mean[i] - _ONE)
        gate = _ONE - exp_of_negative(-margin / (_TWO * np.sqrt(u[i] / freedom) + _EPSILON))
        u[i] = _ONE - gate * margin


@_compiled
def _pairwise_kl(p, u):
    sums = np.zeros((3, CHUNK), dtype=np.float32)  # of p, log p, log (1 − p)
    u[:] = _ZERO
    for m in range(p.shape[0]):
        for i in range(CHUNK):
            q = _ONE - p[m, i]
            log_p, log_q = log(p[m, i] + _EPSILON), log(q + _EPSILON)
            u[i] += p[m, i] * log_p + q * log_q
            sums[0, i] += p[m, i]
            sums[1, i] += log_p
            sums[2, i] += log_q
    members = np.float32(p.shape[0])
    scale = _PER_LN2 / (members * (members - _ONE))
    for i in range(CHUNK):
        crossed = sums[0, i] * sums[1, i] + (members - sums[0, i]) * sums[2, i]
        u[i] = max(scale * (members * u[i] - crossed), _ZERO)


@_compiled
def _pairwise_jsd(p, scratch, u):
    _mean_entropy(p, scratch)
    members = p.shape[0]
    u[:] = _ZERO
    for m in range(members):
        for other in range(m + 1, members):
            for i in range(CHUNK):
                u[i] += binary_entropy((p[m, i] + p[other, i]) * _HALF)
    pairs = np.float32(members * (members - 1) // 2)
    for i in range(CHUNK):
        u[i] = max(u[i] / pairs - scratch[i], _ZERO)


@_compiled
def _uncertainty(kind, p, scratch, u):
    alone = p.shape[0] == 1
    if kind == _BBMA or (kind == _GMU and alone):
        _margin_closeness(p, u)
    elif kind == _ENTROPY:
        _total_entropy(p, u)
    elif kind == _ALEATORIC:
        _mean_entropy(p, u)
    elif alone:
        u[:] = _ZERO
    elif kind == _GMU:
        _gated_margin(p, scratch, u)
    elif kind == _MUTUAL_INFORMATION:
        _mutual_information(p, scratch, u)
    elif kind == _KL:
        _pairwise_kl(p, u)
    else:
        _pairwise_jsd(p, scratch, u)


@_compiled
def _probabilities(logits, example, chunk, p):
    for m in range(logits.shape[0]):
        # One slice of the whole array: numba knows that it lies in one piece.
        row = logits[m, example, chunk]
        for i in range(row.size):
            p[m, i] = sigmoid(row[i])


@_compiled
def _to_weights(u, power, floor):
    """Uncertainties `u` become `floor + u^power`."""
    if power == _ONE:
        for i in range(CHUNK):
            u[i] += floor
    elif power == _TWO:
        for i in range(CHUNK):
            u[i] = floor + u[i] * u[i]
    else:
        for i in range(CHUNK):
            u[i] = floor + u[i] ** power


# --- The loss of rows of logits, one after another: the nodes of a row lie in one piece, so loops over
# them become vector code; the two walks over edges go one edge at a time.


@_compiled
def first_fault(targets, children, parents):
    """First example `[nodes]` that holds anything but 0 and 1 or is not closed; −1 if none."""
    for b in range(targets.shape[0]):
        y = targets[b]
        wrong = 0
        for j in range(y.size):
            wrong += not (y[j] == 0 or y[j] == 1)
        for e in range(children.size):
            wrong += y[children[e]] > y[parents[e]]
        if wrong:
            return b
    return -1


@_compiled
def class_weights(nodes, batch, positive, negative, evaluated):
    """`[2, nodes]`: what negatives and positives weigh, before any weight of the example.

    Empty `positive`, `negative` and `evaluated` stand for 1 everywhere. The average over the batch
    is part of the weights.
    """
    weights = np.full((2, nodes), _ONE / np.float32(batch), dtype=np.float32)
    for j in range(nodes):
        if negative.size:
            weights[0, j] *= negative[j]
        if positive.size:
            weights[1, j] *= positive[j]
        if evaluated.size and not evaluated[j]:
            weights[0, j] = weights[1, j] = _ZERO
    return weights


@_compiled
def _signed_weights(y, weights, factor, signed):
    """One number for each node that says all the loss needs beside the logit.

    Its magnitude is the weight, its sign + for negative targets and − for positive ones, also where
    the weight is 0.
    """
    for j in range(y.size):
        signed[j] = -weights[1, j] if y[j] != 0 else weights[0, j]
    if factor.size:
        for j in range(y.size):
            signed[j] *= factor[j]


@_compiled
def _positives(y, children, parents, nodes, edges):
    """List the positive nodes, and the edges between them; how many these are."""
    node_count = edge_count = 0
    for j in range(y.size):
        if y[j]:
            nodes[node_count] = j
            node_count += 1
    for e in range(children.size):
        if y[children[e]]:  # and so its parent
            edges[0, edge_count] = children[e]
            edges[1, edge_count] = parents[e]
            edge_count += 1
    return node_count, edge_count


@_compiled
def _pass_up(children, parents, count, itself, best, source):
    """Parents take the values of larger children, and note whose it was.

    One loop over the edges of all parents, and no branch in it: whether a child is larger, or the
    last of its parent, no processor can foresee. `itself`, the numbers from 0, only keeps the
    compiler from making a branch after all: it does where it need not load what it selects.
    """
    for e in range(count):
        child, parent = children[e], parents[e]
        larger = best[child] > best[parent]
        best[parent] = best[child] if larger else best[parent]
        source[parent] = itself[child] if larger else source[parent]


@_compiled
def _cost_and_slope(signed, values, costs):
    """Weighted losses of a row; `values`, coherent logits, become the derivatives by them.

    With `a` the coherent logit, negated for positive targets, and `s` the signed weight, these are
    `|s| softplus(a)` and `s sigmoid(a)`.
    """
    for i in range(values.size):
        s, x = signed[i], values[i]
        a = -x if np.float32(s).view(np.int32) < 0 else x
        e = exp_of_negative(-abs(a))
        costs[i] = abs(s) * ((_ZERO if a < _ZERO else a) + log_one_plus(e))
        values[i] = s * ((e if a < _ZERO else _ONE) / (_ONE + e))


@_compiled
def _sum(values):
    """Sum by halves, which is exact to a few digits of float32, in an order all machines share."""
    count = values.size
    while count > 1:
        half = (count + 1) // 2
        upper = values[half:count]
        for i in range(upper.size):
            values[i] += upper[i]
        count = half
    return values[0]


@_compiled
def _hand_down(children, parents, source, slope, gradient):
    """Every node adds the slopes of those parents whose maximum it brought, and keeps its own."""
    for e in range(children.size):
        child, parent = children[e], parents[e]
        slope[child] += slope[parent] if source[parent] == child else _ZERO
    for j in range(gradient.size):
        gradient[j] = slope[j] if source[j] == j else _ZERO


@_compiled
def rows(logits, targets, edges, weights, factor, first, last, losses, gradient):
    """Losses `[members, batch]` of examples `first` to `last`, and their gradient unless empty.

    Args:
        logits: `[members, batch, nodes]`.
        targets: `[batch, nodes]`, 0 or 1.
        edges: what `EdgePlan` has.
        weights: `[2, nodes]`, of negatives and positives.
        factor: `[batch, nodes]`, or `[1, 0]` for 1 everywhere.
        first: example.
        last: example after the last.
        losses: filled.
        gradient: `[members, batch, nodes]`, filled, or empty.

    """
    up, down = edges
    members, _, nodes = logits.shape
    best = np.empty(nodes, dtype=np.float32)
    costs = np.empty(nodes, dtype=np.float32)
    signed = np.empty(nodes, dtype=np.float32)
    source = np.empty(nodes, dtype=np.uint32)
    itself = np.arange(nodes).astype(np.uint32)
    positive = np.empty(nodes, dtype=np.uint32)
    inner = np.empty((2, up[0].size), dtype=np.uint32)
    for b in range(first, last):
        _signed_weights(targets[b], weights, factor[b % len(factor)], signed)
        positives, inners = _positives(targets[b], up[0], up[1], positive, inner)
        for m in range(members):
            best[:], source[:] = logits[m, b], itself
            _pass_up(up[0], up[1], up[0].size, itself, best, source)
            # That is right for negative nodes, below which all are negative. Positive ones, few,
            # start anew: they take values from positive children alone.
            for i in range(positives):
                best[positive[i]], source[positive[i]] = logits[m, b, positive[i]], positive[i]
            _pass_up(inner[0], inner[1], inners, itself, best, source)
            _cost_and_slope(signed, best, costs)
            losses[m, b] = _sum(costs)
            if gradient.size:
                _hand_down(down[0], down[1], source, best, gradient[m, b])


@_compiled
def maximum_over_descendants(scores, up, first, last, out):
    """Rows `first` to `last` of `[rows, nodes]` coherent scores."""
    children, parents = up[0], up[1]
    source = np.empty(scores.shape[1], dtype=np.uint32)
    itself = np.arange(scores.shape[1]).astype(np.uint32)
    for row in range(first, last):
        out[row] = scores[row]
        _pass_up(children, parents, children.size, itself, out[row], source)


@_compiled
def focal_weights(logits, focal, first, last, out):
    """Examples `first` to `last` of `[batch, nodes]` focal weights `floor + u^power`."""
    kind, power, floor = focal
    members, _, nodes = logits.shape
    p = np.full((members, CHUNK), _HALF, dtype=np.float32)
    u = np.empty(CHUNK, dtype=np.float32)
    scratch = np.empty(CHUNK, dtype=np.float32)
    for b in range(first, last):
        for start in range(0, nodes, CHUNK):
            chunk = slice(start, min(start + CHUNK, nodes))
            _probabilities(logits, b, chunk, p)
            _uncertainty(kind, p, scratch, u)
            _to_weights(u, np.float32(power), np.float32(floor))
            place = out[b, chunk]
            for i in range(place.size):
                place[i] = u[i]
