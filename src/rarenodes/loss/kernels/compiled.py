"""The compiled part: uncertainty, loss and gradient of float32 logits on one thread.

Everything numba compiles that calls one another is in this file, because numba's cache notices a
change only in the file of the function it loads.
"""

import numpy as np
from numba import njit

from rarenodes.loss.kernels.lanes import (
    add,
    as_written,
    bits_of,
    both,
    larger,
    load,
    load_at,
    mask_of,
    multiply,
    not_zero,
    prefetch,
    splat,
    store,
    store_at,
    transpose,
    where,
)

# Nodes worked on at once where intermediate values are kept, so that these stay in the first cache.
CHUNK = 128

# How many nodes ahead values are fetched from memory, so that they are there when their turn comes.
AHEAD = 256

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


_ALL_LANES = np.uint16(0xFFFF)

# --- What a tile holds of the batch beside logits: the same for all members.


@_compiled
def class_weights(place, batch, positive, negative, evaluated):
    """`[2, positions]`: what negatives and positives weigh, before any focal weight.

    Empty `positive`, `negative` and `evaluated` stand for 1 everywhere. The average over the batch
    is part of the weights.
    """
    weights = np.full((2, place.size), _ONE / np.float32(batch), dtype=np.float32)
    for j in range(place.size):
        k = place[j]
        if negative.size:
            weights[0, k] *= negative[j]
        if positive.size:
            weights[1, k] *= positive[j]
        if evaluated.size and not evaluated[j]:
            weights[0, k] = weights[1, k] = _ZERO
    return weights


@_compiled
def _mark_positives(targets, place, first, width, lanes, positive):
    """Fill `positive` `[positions]`: a bit for each lane, 1 where its example is positive.

    Lanes hold `width` examples from `first` on, again and again as often as they fit.
    """
    batch, nodes = targets.shape
    examples = np.empty(len(lanes), dtype=np.int64)
    there = np.uint64(0)
    for lane in range(len(lanes)):
        example = first + lane % width
        if example < batch and lane < len(lanes) - len(lanes) % width:
            there |= np.uint64(1 << lane)
        examples[lane] = min(example, batch - 1)
    square = np.empty((len(lanes), len(lanes)), dtype=targets.dtype)
    whole = nodes - nodes % len(lanes)
    for j in range(0, whole, len(lanes)):
        for lane in range(len(lanes)):
            store(square, lane, load_at(targets, examples[lane] * nodes + j, lanes))
        transpose(square, 0, lanes)
        for i in range(len(lanes)):
            positive[place[j + i]] = bits_of(not_zero(load(square, i, lanes))) & there
    for j in range(whole, nodes):
        positive[place[j]] = 0
        for lane in range(len(lanes)):
            if targets[examples[lane], j] != 0:
                positive[place[j]] |= there & np.uint64(1 << lane)


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
def _focal_tile(logits, place, focal, first, width, lanes, factor):
    """Fill the focal weights `[positions, lanes]` of the examples that `_mark_positives` takes."""
    kind, power, floor = focal
    members, batch, nodes = logits.shape
    p = np.full((members, CHUNK), _HALF, dtype=np.float32)
    u = np.empty(CHUNK, dtype=np.float32)
    scratch = np.empty(CHUNK, dtype=np.float32)
    # Zeros, because nothing fills the lanes that hold no example.
    block = np.zeros((CHUNK, len(lanes)), dtype=np.float32)
    for start in range(0, nodes, CHUNK):
        chunk = slice(start, min(start + CHUNK, nodes))
        for lane in range(min(width, batch - first)):
            _probabilities(logits, first + lane, chunk, p)
            _uncertainty(kind, p, scratch, u)
            _focal_weights(u, np.float32(power), np.float32(floor))
            for repeat in range(lane, len(lanes) - len(lanes) % width, width):
                for i in range(CHUNK):
                    block[i, repeat] = u[i]
        places = place[chunk]
        for i in range(places.size):
            store(factor, places[i], load(block, i, lanes))


# --- The loss of a tile: rows of logits in lanes, nodes in bottom-up order, a chunk of them at a time.
# On the way up a chunk is loaded and takes up its children's maxima; on the way down it becomes
# the slope of the loss, takes up what its parents hand down, and is stored.


@_compiled
def _load_chunk(logits, order, rows, start, stop, lanes, best):
    nodes, straight = order
    for k in range(start, stop, len(lanes)):
        # Positions whose nodes follow each other, as nearly all do in trees, come as a square.
        if straight[k] >= len(lanes):
            for lane in range(len(lanes)):
                place = rows[lane] * logits.shape[1] + nodes[k]
                prefetch(logits, place + AHEAD)
                store(best, k + lane, load_at(logits, place, lanes))
            transpose(best, k, lanes)
        else:
            for lane in range(len(lanes)):
                row = logits[rows[lane]]
                for i in range(k, min(k + len(lanes), stop)):
                    best[i, lane] = row[nodes[i]]


@_compiled
def _pass_up(start, stop, down, positive, lanes, best, taken, own):
    """Maximum over agreeing descendants, and where it came from.

    Of every edge `taken` notes in which lanes the parent's maximum came along it, and `own` of
    every position in which lanes it is the position's own.
    """
    first_child, children, parents, slots = down
    for k in range(start, stop):
        value = load(best, k, lanes)
        for edge in range(first_child[k], first_child[k + 1]):
            child = children[edge]
            offer = load(best, child, lanes)
            agree = mask_of(~(positive[k] ^ positive[child]), lanes)
            take = both(agree, larger(offer, value))
            value = where(take, offer, value)
            taken[slots[edge]] = bits_of(take)
        store(best, k, value)
        own[k] = _ALL_LANES
    # Of several edges that were taken one after the other, the last brought the maximum. One loop
    # over the edges of all parents, because many short ones would end unforeseen by the processor.
    parent, free = np.uint32(stop), _ALL_LANES
    for edge in range(np.int64(first_child[stop]) - 1, np.int64(first_child[start]) - 1, -1):
        free = free if parents[edge] == parent else _ALL_LANES
        parent = parents[edge]
        final = np.uint16(taken[slots[edge]] & free)
        taken[slots[edge]] = final
        free = np.uint16(free & ~final)
        own[parent] = free


@_compiled
def _signed_weights(start, stop, weights, positive, factor, lanes, signed):
    """One number for each position and lane that says all the loss needs beside the logit.

    Its magnitude is the weight, its sign + for negative targets and − for positive ones, also where
    the weight is 0.
    """
    for k in range(start, stop):
        positives = mask_of(positive[k], lanes)
        weight = where(positives, splat(-weights[1, k], lanes), splat(weights[0, k], lanes))
        if factor.size:
            weight = multiply(weight, load(factor, k, lanes))
        store(signed, k - start, weight)


@_compiled
def _loss_and_slope(signed, lanes, best, losses, total):
    """Add the weighted losses of a chunk; `best`, coherent logits, becomes its derivative by them.

    With `a` the coherent logit, negated for positive targets, and `s` the signed weight, these are
    `|s| softplus(a)` and `s sigmoid(a)`.
    """
    # Flat slices, because numba's test for negative indices would stand in the way of vector code.
    values, flat_losses = best.reshape(-1), losses.reshape(-1)
    weights = signed.reshape(-1)[: values.size]
    for i in range(values.size):
        s, x = weights[i], values[i]
        a = -x if np.float32(s).view(np.int32) < 0 else x
        e = exp_of_negative(-abs(a))
        flat_losses[i] = abs(s) * ((_ZERO if a < _ZERO else a) + log_one_plus(e))
        values[i] = s * ((e if a < _ZERO else _ONE) / (_ONE + e))
    part = splat(_ZERO, lanes)
    for k in range(best.shape[0]):
        part = add(part, load(losses, k, lanes))
    store(losses, 0, part)
    for lane in range(len(lanes)):
        total[lane] += losses[0, lane]


@_compiled
def _hand_down(start, stop, up, taken, lanes, slope):
    """Every node adds the slopes of those parents whose maximum came from it."""
    first_parent, parents = up
    zero = splat(_ZERO, lanes)
    for k in range(stop - 1, start - 1, -1):
        value = load(slope, k, lanes)
        for slot in range(first_parent[k], first_parent[k + 1]):
            from_here = mask_of(taken[slot], lanes)
            value = add(value, where(from_here, load(slope, parents[slot], lanes), zero))
        store(slope, k, value)


@_compiled
def _store_chunk(order, rows, start, stop, own, slope, lanes, square, gradient):
    nodes, straight = order
    zero = splat(_ZERO, lanes)
    for first in range(start, stop, len(lanes)):
        last = min(first + len(lanes), stop)
        for k in range(first, last):
            # What came from a child has been handed down to it.
            store(square, k - first, where(mask_of(own[k], lanes), load(slope, k, lanes), zero))
        if straight[first] >= len(lanes):
            transpose(square, 0, lanes)
            for lane in range(len(lanes)):
                if rows[lane] >= 0:
                    place = rows[lane] * gradient.shape[1] + nodes[first]
                    prefetch(gradient, place - AHEAD)
                    store_at(gradient, place, load(square, lane, lanes))
        else:
            for lane in range(len(lanes)):
                if rows[lane] >= 0:
                    row = gradient[rows[lane]]
                    for k in range(first, last):
                        row[nodes[k]] = square[k - first, lane]


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
    a block follow each other, and share what they hold of its examples.
    """
    place, order, down, up = edges
    members, batch, nodes = logits.shape
    flat_logits = logits.reshape(members * batch, nodes)
    flat_gradient = gradient.reshape(-1, nodes)
    groups = -(-members // (len(lanes) // width))
    rows = np.empty(len(lanes), dtype=np.int64)
    positive = np.empty(nodes, dtype=np.uint16)
    factor = np.empty((nodes if focal[0] else 0, len(lanes)), dtype=np.float32)
    best = np.empty((nodes, len(lanes)), dtype=np.float32)
    taken = np.empty(up[1].size, dtype=np.uint16)
    own = np.empty(nodes, dtype=np.uint16)
    signed = np.empty((CHUNK, len(lanes)), dtype=np.float32)
    block_of_chunk = np.empty((CHUNK, len(lanes)), dtype=np.float32)
    total = np.empty(len(lanes), dtype=np.float64)
    for tile in range(first, last):
        block, group = tile // groups, tile % groups
        if tile == first or group == 0:
            _mark_positives(targets, place, block * width, width, lanes, positive)
            if focal[0]:
                _focal_tile(logits, place, focal, block * width, width, lanes, factor)
        _rows_of_tile(members, batch, width, block, group, lanes, rows)
        # Lanes without a row repeat the first; nothing reads what comes of them.
        sources = np.maximum(rows, rows[0])
        for start in range(0, nodes, CHUNK):
            stop = min(start + CHUNK, nodes)
            _load_chunk(flat_logits, order, sources, start, stop, lanes, best)
            _pass_up(start, stop, down, positive, lanes, best, taken, own)
        total[:] = 0
        for start in range((nodes - 1) // CHUNK * CHUNK, -1, -CHUNK):
            stop = min(start + CHUNK, nodes)
            _signed_weights(start, stop, weights, positive, factor, lanes, signed)
            _loss_and_slope(signed, lanes, best[start:stop], block_of_chunk, total)
            if flat_gradient.size:
                _hand_down(start, stop, up, taken, lanes, best)
                _store_chunk(
                    order, rows, start, stop, own, best, lanes, block_of_chunk, flat_gradient
                )
        losses[tile] = 0
        for lane in range(len(lanes)):
            if rows[lane] >= 0:
                losses[tile] += total[lane]


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
    members, batch = logits.shape[:2]
    width, count = layout(members, batch, lanes)
    weights = class_weights(edges[0], batch, positive, negative, evaluated)
    losses = np.empty(count, dtype=np.float64)
    tiles(logits, targets, edges, weights, focal, lanes, width, 0, count, losses, gradient)
    return total(losses)


@_compiled
def maximum_over_descendants(scores, edges, lanes, first, last, out):
    """Rows `first` to `last` of `[rows, nodes]` coherent scores."""
    place, order, down, up = edges
    nodes = place.size
    best = np.empty((nodes, len(lanes)), dtype=np.float32)
    positive = np.zeros(nodes, dtype=np.uint16)
    taken = np.empty(up[1].size, dtype=np.uint16)
    own = np.empty(nodes, dtype=np.uint16)
    rows = np.empty(len(lanes), dtype=np.int64)
    for row in range(first, last, len(lanes)):
        for lane in range(len(lanes)):
            rows[lane] = min(row + lane, last - 1)
        for start in range(0, nodes, CHUNK):
            stop = min(start + CHUNK, nodes)
            _load_chunk(scores, order, rows, start, stop, lanes, best)
            _pass_up(start, stop, down, positive, lanes, best, taken, own)
            places, tile = order[0][start:stop], best[start:stop]
            for lane in range(len(lanes)):
                coherent = out[rows[lane]]
                for i in range(places.size):
                    coherent[places[i]] = tile[i, lane]
