"""The compiled part: uncertainty, loss and gradient of float32 logits on one thread.

Everything numba compiles that calls one another is in this file, because numba's cache notices a
change only in the file of the function it loads.
"""

import numpy as np
from numba import njit

from rarenodes.kernels.lanes import (
    add,
    as_written,
    both,
    equal,
    larger,
    load,
    same_sign,
    splat,
    store,
    where,
)

# Nodes worked on at once where intermediate values are kept, so that these stay in the first cache.
CHUNK = 128

KINDS = ("bbma", "entropy", "aleatoric", "jsd", "kl", "gmu", "mutual_information")
_BBMA, _ENTROPY, _ALEATORIC, _JSD, _KL, _GMU, _MUTUAL_INFORMATION = range(1, len(KINDS) + 1)

# `contract` lets multiplications and additions fuse; NaN, infinities and the order of sums stay.
_numba = njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")


def _compiled(function):
    return _numba(as_written(function))


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
    """Entropy in bits, with the ε of `rarenodes.uncertainty`."""
    q = _ONE - p
    bits = -(p * log(p + _EPSILON) + q * log(q + _EPSILON)) * _PER_LN2
    return _ZERO if bits < _ZERO else bits


# --- Uncertainty of a chunk of nodes of one example: `p` [members, CHUNK] → `u` [CHUNK].
# The formulas are those of `rarenodes.uncertainty`, kind by kind.


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


# --- Signed weights: all that the loss knows of an element beside its logit.


@_compiled
def class_weights(nodes, batch, positive, negative, evaluated):
    """`[2, nodes]`: what negatives and positives weigh, before any focal weight.

    Empty `positive`, `negative` and `evaluated` stand for 1 everywhere. The average over the batch
    is part of the weights.
    """
    weights = np.full((2, nodes), _ONE / np.float32(batch), dtype=np.float32)
    if negative.size:
        weights[0] *= negative
    if positive.size:
        weights[1] *= positive
    if evaluated.size:
        for j in range(nodes):
            if not evaluated[j]:
                weights[:, j] = _ZERO
    return weights


@_compiled
def _probabilities(logits, example, chunk, p):
    for m in range(logits.shape[0]):
        # One slice of the whole array: numba knows that it lies in one piece.
        row = logits[m, example, chunk]
        for i in range(row.size):
            p[m, i] = sigmoid(row[i])


@_compiled
def _focal_weights(u, power, floor):
    if power == _ONE:
        for i in range(CHUNK):
            u[i] += floor
    elif power == _TWO:
        for i in range(CHUNK):
            u[i] = floor + u[i] * u[i]
    else:
        for i in range(CHUNK):
            u[i] = floor + u[i] ** power


@_compiled
def _sign_tile(logits, targets, place, weights, focal, first, width, signed):
    """Fill the signed weights `[nodes, lanes]` of `width` examples from `first` on.

    Magnitude is the element's weight, sign + for negative targets and − for positive ones, also
    where the weight is 0. The examples repeat as often as they fit in the lanes.
    """
    kind, power, floor = focal
    members, batch, nodes = logits.shape
    used = signed.shape[1] - signed.shape[1] % width
    p = np.full((members, CHUNK), _HALF, dtype=np.float32)
    factor = np.ones(CHUNK, dtype=np.float32)
    scratch = np.empty(CHUNK, dtype=np.float32)
    for lane in range(min(width, batch - first)):
        for start in range(0, nodes, CHUNK):
            chunk = slice(start, min(start + CHUNK, nodes))
            if kind:
                _probabilities(logits, first + lane, chunk, p)
                _uncertainty(kind, p, scratch, factor)
                _focal_weights(factor, np.float32(power), np.float32(floor))
            _sign(targets[first + lane, chunk], weights[:, chunk], factor, scratch)
            for repeat in range(lane, used, width):
                for i, k in enumerate(place[chunk]):
                    signed[k, repeat] = scratch[i]


@_compiled
def _sign(targets, weights, focal, signed):
    negative, positive = weights[0], weights[1]
    for i in range(targets.size):
        w = focal[i] * (positive[i] if targets[i] else negative[i])
        signed[i] = -w if targets[i] else w


# --- The loss of a tile: rows of logits in lanes, nodes in bottom-up order.


@_compiled
def _load_tile(logits, place, rows, lanes, best):
    for j in range(place.size):
        k = place[j]
        for lane in range(len(lanes)):
            best[k, lane] = logits[rows[lane], j]


@_compiled
def _pass_up(first_child, children, signs, lanes, best, winner):
    """Maximum over agreeing descendants, and the position of the child it came from, or its own."""
    for k in range(first_child.size - 1):
        value, came_from, sign = load(best, k, lanes), splat(k, lanes), load(signs, k, lanes)
        for edge in range(first_child[k], first_child[k + 1]):
            child = children[edge]
            offer = load(best, child, lanes)
            take = both(same_sign(sign, load(signs, child, lanes)), larger(offer, value))
            value = where(take, offer, value)
            came_from = where(take, splat(child, lanes), came_from)
        store(best, k, value)
        store(winner, k, came_from)


@_compiled
def _loss_and_slope(signed, lanes, best, total):
    """Weighted loss of each lane; `best`, coherent logits, becomes its derivative by them.

    With `a` the coherent logit, negated for positive targets, and `s` the signed weight, these are
    `|s| softplus(a)` and `s sigmoid(a)`.
    """
    losses = np.empty((CHUNK, len(lanes)), dtype=np.float32)
    flat_losses = losses.reshape(-1)
    total[:] = 0
    for start in range(0, best.shape[0], CHUNK):
        # Slices, because numba's test for negative indices would stand in the way of vector code.
        weights = signed[start : start + CHUNK].reshape(-1)
        values = best[start : start + CHUNK].reshape(-1)
        for i in range(values.size):
            s, x = weights[i], values[i]
            a = -x if np.float32(s).view(np.int32) < 0 else x
            e = exp_of_negative(-abs(a))
            flat_losses[i] = abs(s) * ((_ZERO if a < _ZERO else a) + log_one_plus(e))
            values[i] = s * ((e if a < _ZERO else _ONE) / (_ONE + e))
        part = splat(_ZERO, lanes)
        for k in range(values.size // len(lanes)):
            part = add(part, load(losses, k, lanes))
        store(losses, 0, part)
        for lane in range(len(lanes)):
            total[lane] += losses[0, lane]


@_compiled
def _hand_down(first_parent, parents, winner, lanes, slope):
    """Every node adds the slopes of those parents whose maximum came from it."""
    zero = splat(_ZERO, lanes)
    for k in range(first_parent.size - 2, -1, -1):
        value, own = load(slope, k, lanes), splat(k, lanes)
        for edge in range(first_parent[k], first_parent[k + 1]):
            parent = parents[edge]
            from_here = equal(load(winner, parent, lanes), own)
            value = add(value, where(from_here, load(slope, parent, lanes), zero))
        store(slope, k, value)


@_compiled
def _store_tile(place, rows, winner, slope, lanes, gradient):
    for j in range(place.size):
        k = place[j]
        for lane in range(len(lanes)):
            if rows[lane] >= 0:
                # What came from a child has been handed down to it.
                own = winner[k, lane] == k
                gradient[rows[lane], j] = slope[k, lane] if own else _ZERO


@_compiled
def _rows_of_tile(members, batch, width, block, group, lanes, rows):
    """Row of the logits `[members · batch, nodes]` in each lane; −1 where there is none."""
    per_tile = len(lanes) // width
    for lane in range(len(lanes)):
        member, example = group * per_tile + lane // width, block * width + lane % width
        there = lane < per_tile * width and member < members and example < batch
        rows[lane] = member * batch + example if there else -1


@_compiled
def tiles(logits, targets, edges, weights, focal, lanes, width, first, last, losses, gradient):
    """Losses of tiles `first` to `last`, and their rows of the gradient unless it is empty.

    A tile holds a block of `width` examples for each of `len(lanes) // width` members. The tiles of
    a block follow each other, and share its signed weights.
    """
    place, first_child, children, first_parent, parents = edges
    members, batch, nodes = logits.shape
    flat_logits = logits.reshape(members * batch, nodes)
    flat_gradient = gradient.reshape(-1, nodes)
    groups = -(-members // (len(lanes) // width))
    rows = np.empty(len(lanes), dtype=np.int64)
    # Zeros, because nothing fills the lanes that hold no example.
    signed = np.zeros((nodes, len(lanes)), dtype=np.float32)
    best = np.empty((nodes, len(lanes)), dtype=np.float32)
    winner = np.empty((nodes, len(lanes)), dtype=np.int32)
    total = np.empty(len(lanes), dtype=np.float64)
    for tile in range(first, last):
        block, group = tile // groups, tile % groups
        if tile == first or group == 0:
            _sign_tile(logits, targets, place, weights, focal, block * width, width, signed)
        _rows_of_tile(members, batch, width, block, group, lanes, rows)
        # Lanes without a row repeat the first; nothing reads what comes of them.
        _load_tile(flat_logits, place, np.maximum(rows, rows[0]), lanes, best)
        _pass_up(first_child, children, signed.view(np.int32), lanes, best, winner)
        _loss_and_slope(signed, lanes, best, total)
        losses[tile] = 0
        for lane in range(len(lanes)):
            if rows[lane] >= 0:
                losses[tile] += total[lane]
        if flat_gradient.size:
            _hand_down(first_parent, parents, winner, lanes, best)
            _store_tile(place, rows, winner, best, lanes, flat_gradient)


# --- Whole batches.


@_compiled
def layout(members, batch, lanes):
    """Examples side by side in a tile, and number of tiles."""
    blocks = -(-batch // len(lanes))
    width = -(-batch // blocks)
    return width, blocks * -(-members // (len(lanes) // width))


@_compiled
def total(losses):
    """Sum in order."""
    return losses.sum()


@_compiled
def whole_loss(logits, targets, edges, positive, negative, evaluated, focal, lanes, gradient):
    """Loss of a batch on one thread, in one call, and its gradient unless that is empty."""
    members, batch, nodes = logits.shape
    width, count = layout(members, batch, lanes)
    weights = class_weights(nodes, batch, positive, negative, evaluated)
    losses = np.empty(count, dtype=np.float64)
    tiles(logits, targets, edges, weights, focal, lanes, width, 0, count, losses, gradient)
    return total(losses)


@_compiled
def maximum_over_descendants(scores, edges, lanes, first, last, out):
    """Rows `first` to `last` of `[rows, nodes]` coherent scores."""
    place, first_child, children = edges[0], edges[1], edges[2]
    nodes = place.size
    best = np.empty((nodes, len(lanes)), dtype=np.float32)
    winner = np.empty((nodes, len(lanes)), dtype=np.int32)
    signs = np.zeros((nodes, len(lanes)), dtype=np.int32)
    rows = np.empty(len(lanes), dtype=np.int64)
    for start in range(first, last, len(lanes)):
        for lane in range(len(lanes)):
            rows[lane] = min(start + lane, last - 1)
        _load_tile(scores, place, rows, lanes, best)
        _pass_up(first_child, children, signs, lanes, best, winner)
        for j in range(nodes):
            for lane in range(len(lanes)):
                out[rows[lane], j] = best[place[j], lane]
