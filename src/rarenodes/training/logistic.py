"""Penalised logistic regressions of many nodes on the same examples, solved side by side."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import sparse
from scipy.special import expit

Features = Float[np.ndarray, "examples features"] | sparse.sparray | sparse.spmatrix

# Examples × nodes at once: what is held for a block of nodes are a dozen arrays of that size.
BLOCK = 2**20
TOLERANCE = 1e-6
NEWTON_STEPS = 50
CONJUGATE_STEPS = 100
ACCURACY = 0.1  # of a step; LIBLINEAR asks for as much
HALVINGS = 30


class Logistic(NamedTuple):
    """Weights of every node: its logit is `features @ weights + intercept`."""

    weights: Float[np.ndarray, "features nodes"]
    intercept: Float[np.ndarray, " nodes"]


def fit_logistic(
    features: Features,
    targets: sparse.csr_array,
    penalty: float,
    advance: Callable[[int], object] = lambda nodes: None,
) -> Logistic:
    """Logistic regressions of all nodes on the same examples.

    Each node's weights `w` and intercept `b` minimise, over the examples `x` with target `y`,

        Σ softplus(z) − y z + penalty/2 · |w|²,   z = w·x + b,

    which is scikit-learn's `LogisticRegression(C=1 / penalty)`; the intercept is not penalised.

    The solver is a truncated Newton method: steps from conjugate gradients, which need products
    with the features alone, shortened where they do not decrease the loss enough. All nodes take
    them together, so that the work is matrix products, and leave when their gradient is a
    `TOLERANCE` of what it was. Dense features are first turned into the principal axes of the
    examples, in which the Hessian of a node is nearly a multiple of a known diagonal plus the
    penalty; with that as preconditioner a handful of conjugate steps do, however correlated the
    features are. Where there are more features than examples this also leaves no more coordinates
    than examples, without loss: weights outside their span only cost penalty.

    Args:
        features: `[examples, features]`, dense or scipy sparse, without an intercept's column.
        targets: `[examples, nodes]` 0/1; every node has positives and negatives.
        penalty: above 0.
        advance: told how many nodes more are done, as they are.

    Returns:
        float64 weights `[features, nodes]` and intercepts `[nodes]`.

    Raises:
        ValueError: a node whose targets are all alike, for which there is no finite intercept.

    Source:
        Lin, Weng and Keerthi, *Trust region Newton method for large-scale logistic regression*,
        JMLR 9 (2008), here with a line search; the fixed curvature that the preconditioner scales
        is of Böhning and Lindsay, *Monotonicity of quadratic-approximation algorithms*, 1988.

    """
    examples, nodes = targets.shape
    positives = np.asarray(targets.sum(axis=0), dtype=np.float64).ravel()
    alike = np.flatnonzero((positives == 0) | (positives == examples))
    if len(alike):
        raise ValueError(
            f"node {alike[0]} has {positives[alike[0]]:.0f} positives among {examples} examples: "
            "logistic regression needs positives and negatives; leave the node out"
        )
    axes = _principal_axes(features)
    columns = targets.tocsc()
    width = max(1, BLOCK // examples)
    weights = np.empty((axes.coordinates.shape[1], nodes))
    intercept = np.empty(nodes)
    for start in range(0, nodes, width):
        block = slice(start, min(start + width, nodes))
        y = columns[:, block].toarray().astype(np.float64)
        weights[:, block], intercept[block] = _newton(axes, y, penalty)
        advance(y.shape[1])
    return axes.in_features(weights, intercept)


class _Axes(NamedTuple):
    """The examples in coordinates that suit the solver.

    Attributes:
        coordinates: `[examples, coordinates]`.
        squares: `[coordinates]`, sums of squares over the examples.
        turn: `[features, coordinates]`, whose product with weights of coordinates are those of
            features; None where they are the same.
        centre: `[features]`, what was subtracted; None for nothing.

    """

    coordinates: np.ndarray | sparse.csr_array
    squares: np.ndarray
    turn: np.ndarray | None
    centre: np.ndarray | None

    def in_features(self, weights: np.ndarray, intercept: np.ndarray) -> Logistic:
        if self.turn is None:
            return Logistic(weights, intercept)
        weights = self.turn @ weights
        return Logistic(weights, intercept - self.centre @ weights)


def _principal_axes(features: Features) -> _Axes:
    if sparse.issparse(features):
        # Axes of sparse features would be dense.
        stored = sparse.csr_array(features, dtype=np.float64)
        return _Axes(stored, np.asarray(stored.multiply(stored).sum(axis=0)).ravel(), None, None)
    features = np.asarray(features, dtype=np.float64)
    centre = features.mean(axis=0)
    centred = features - centre
    if len(centred) >= centred.shape[1]:
        squares, turn = np.linalg.eigh(centred.T @ centred)
        return _Axes(centred @ turn, np.maximum(squares, 0), turn, centre)
    squares, left = np.linalg.eigh(centred @ centred.T)
    kept = squares > 1e-12 * max(squares[-1], 1e-300)
    squares, left = squares[kept], left[:, kept]
    length = np.sqrt(squares)
    return _Axes(left * length, squares, centred.T @ (left / length), centre)


def _newton(axes: _Axes, y: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights `[coordinates, nodes]` and intercepts `[nodes]` for targets `[examples, nodes]`."""
    x = axes.coordinates
    count, nodes = y.shape
    # The last row of every array of parameters is the intercept's.
    found = np.zeros((x.shape[1] + 1, nodes))
    found[-1] = np.log(y.mean(axis=0)) - np.log1p(-y.mean(axis=0))
    ridge = np.append(np.full(x.shape[1], penalty), 0.0)[:, None]
    squares = np.append(axes.squares, count)[:, None]

    at, theta = np.arange(nodes), found.copy()
    z = np.broadcast_to(theta[-1], y.shape).copy()
    first = None
    for _ in range(NEWTON_STEPS):
        p = expit(z)
        gradient = _back(x, p - y) + ridge * theta
        size = np.linalg.norm(gradient, axis=0)
        first = size if first is None else first
        found[:, at] = theta
        going = size > TOLERANCE * first
        if not going.any():
            break
        if not going.all():
            at, theta, z, y = at[going], theta[:, going], z[:, going], y[:, going]
            p, gradient, first, size = p[:, going], gradient[:, going], first[going], size[going]
        curvature = p * (1 - p)
        scale = squares * curvature.mean(axis=0) + ridge
        step, moved = _conjugate(x, curvature, ridge, scale, -gradient)
        length = _line_search(theta, z, y, step, moved, gradient, ridge)
        theta = theta + length * step
        z = z + length * moved
    found[:, at] = theta
    return found[:-1], found[-1]


def _conjugate(x, curvature, ridge, scale, aim) -> tuple[np.ndarray, np.ndarray]:
    """Solve Hessian · step = aim for all nodes; also the change of logits that the step makes."""
    step, moved = np.zeros_like(aim), np.zeros_like(curvature)
    residual = aim.copy()
    ready = residual / scale
    direction = ready.copy()
    product = (residual * ready).sum(axis=0)
    goal = ACCURACY * np.linalg.norm(aim, axis=0)
    for _ in range(CONJUGATE_STEPS):
        logits = _forward(x, direction)
        image = _back(x, curvature * logits) + ridge * direction
        energy = (direction * image).sum(axis=0)
        # A node that has arrived takes no further step while others go on.
        going = (np.linalg.norm(residual, axis=0) > goal) & (energy > 0)
        if not going.any():
            break
        length = np.where(going, product / np.where(going, energy, 1), 0)
        step += length * direction
        moved += length * logits
        residual -= length * image
        ready = residual / scale
        new = (residual * ready).sum(axis=0)
        direction = ready + np.where(going, new / np.where(product > 0, product, 1), 0) * direction
        product = new
    return step, moved


def _line_search(theta, z, y, step, moved, gradient, ridge) -> np.ndarray:
    """The longest of 1, ½, ¼, … that decreases each node's loss by enough (Armijo)."""
    before = _loss(theta, z, y, ridge)
    slope = (gradient * step).sum(axis=0)
    length = np.ones(len(before))
    for _ in range(HALVINGS):
        after = _loss(theta + length * step, z + length * moved, y, ridge)
        # Near the minimum differences drown in rounding, and the full step is right.
        short = after > before + 1e-4 * length * slope + 1e-12 * np.abs(before)
        if not short.any():
            break
        length[short] /= 2
    return length


def _loss(theta, z, y, ridge) -> np.ndarray:
    softplus = np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))
    return (softplus - y * z).sum(axis=0) + 0.5 * (ridge * theta**2).sum(axis=0)


def _forward(x, theta: np.ndarray) -> np.ndarray:
    return x @ theta[:-1] + theta[-1]


def _back(x, residual: np.ndarray) -> np.ndarray:
    return np.vstack([x.T @ residual, residual.sum(axis=0)])
