"""Convex problems whose minimizer is known exactly: what the theorems of the convex case are tried on.

Every problem is f(x) = f(x*) + h(e), e = x − x*, and h is worked out from e alone, in extended precision:

    h(e) = w·Σ_k [φ(z_k + a_k·e) − φ(z_k) − φ′(z_k)·a_k·e] + ρ/2·‖e‖²,   φ convex, w > 0, ρ ≥ 0.

The bracket is what φ lies above its tangent at z_k. So e = 0 is a minimizer whatever A and z are, no minimizer has to
be searched for, and gradients, rounded once to the dtype of x, are right to υ an entry. Least squares, logistic
regression, Huber's loss and absolute values are this with another φ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from minibng.backend import HostArray
from minibng.names import choose
from minibng.verify.example import told
from minibng.verify.strategies import Dice

UP = 1 + 2.0**-30
"""Constants that come from eigenvalues are rounded in the safe direction by this factor."""


class Loss(NamedTuple):
    """A convex φ of one real number, its derivative (at a kink a subgradient), and the largest φ″; None: φ′ jumps."""

    value: Callable[[HostArray], HostArray]
    slope: Callable[[HostArray], HostArray]
    curvature: float | None


def _square(r: HostArray) -> HostArray:
    return r * r / 2


def _same(r: HostArray) -> HostArray:
    return r


def _huber(r: HostArray) -> HostArray:
    size = np.minimum(np.abs(r), 1)
    return size * (np.abs(r) - size / 2)


def _clipped(r: HostArray) -> HostArray:
    return np.clip(r, -1, 1)


def _softplus(r: HostArray) -> HostArray:
    return np.asarray(np.maximum(r, 0) + np.log1p(np.exp(-np.abs(r))))


def _sigmoid(r: HostArray) -> HostArray:
    small = np.exp(-np.abs(r))
    return np.asarray(np.where(r >= 0, 1, small) / (1 + small))


LOSSES: dict[str, Loss] = {
    "squares": Loss(_square, _same, 1.0),
    "huber": Loss(_huber, _clipped, 1.0),
    "logistic": Loss(_softplus, _sigmoid, 0.25),
    "absolute": Loss(np.abs, np.sign, None),
}
"""Name → φ: r²/2; the same up to |r| = 1 and straight from there; log(1 + e^r); |r|."""


class Objective(Protocol):
    """h, as a function of e = x − x* (…, d), in extended precision: convex, 0 at 0 and nowhere below."""

    def gap(self, e: HostArray) -> HostArray:
        """Return h (…)."""

    def slope(self, e: HostArray) -> HostArray:
        """Return a gradient, or subgradient, of h (…, d), in the precision of e."""

    def noise(self, e: HostArray) -> HostArray:
        """Return how far rounding in extended precision may have carried h(e), and ⟨slope(e), e⟩ (…)."""

    def rescaled(self, k: float) -> Objective:
        """Return e ↦ h(e/k)."""


@dataclass(frozen=True, eq=False)
class Rows:
    """The objective of the module's formula: A (m, d), z (m,), both in extended precision."""

    loss: str
    rows: HostArray
    offsets: HostArray
    weight: float = 1.0
    ridge: float = 0.0
    heights: HostArray = field(init=False)
    slopes: HostArray = field(init=False)
    """φ(z_k) and φ′(z_k)."""
    double: tuple[HostArray, ...] = field(init=False)
    """A, z and φ′(z) in double, for gradients at points in double."""

    def __post_init__(self) -> None:
        φ = LOSSES[self.loss]
        object.__setattr__(self, "heights", φ.value(self.offsets))
        object.__setattr__(self, "slopes", φ.slope(self.offsets))
        A, z = (a.astype(np.float64) for a in (self.rows, self.offsets))
        object.__setattr__(self, "double", (A, z, φ.slope(z)))

    def gap(self, e: HostArray) -> HostArray:
        """Return h (…)."""
        r = e @ self.rows.T
        above = LOSSES[self.loss].value(self.offsets + r) - self.heights - self.slopes * r
        return np.asarray(self.weight * np.maximum(above, 0).sum(axis=-1) + self.ridge / 2 * (e * e).sum(axis=-1))

    def slope(self, e: HostArray) -> HostArray:
        """Return the gradient, or a subgradient, (…, d), in the precision of e."""
        A, z, slopes = self.double if e.dtype == np.float64 else (self.rows, self.offsets, self.slopes)
        change = LOSSES[self.loss].slope(z + e @ A.T) - slopes
        return np.asarray(self.weight * (change @ A) + self.ridge * e)

    def noise(self, e: HostArray) -> HostArray:
        """Return (m + d + 8)·υ times the sum of all that is added, υ that of extended precision (…)."""
        φ, (A, z, slopes), e = LOSSES[self.loss], self.double, e.astype(np.float64)
        there, r = z + e @ A.T, np.abs(e) @ np.abs(A).T
        size = np.abs(φ.value(there)) + np.abs(φ.value(z)) + (np.abs(φ.slope(there)) + np.abs(slopes)) * r
        summed = self.weight * size.sum(axis=-1) + self.ridge * (e * e).sum(axis=-1)
        return np.asarray((sum(self.rows.shape) + 8) * np.finfo(np.longdouble).eps / 2 * summed)

    def rescaled(self, k: float) -> Rows:
        """Return e ↦ h(e/k)."""
        return replace(self, rows=self.rows / np.longdouble(k), ridge=self.ridge / k**2)


@dataclass(frozen=True, eq=False)
class Problem:
    """A convex function with one known minimizer, cut into tensors and blocks.

    The functions of this module make problems whose facts are sure. Of one made by hand they are the maker's word: that
    f is convex, or separable, L, μ and the reach are not checked, and a wrong one shows as a failure of the optimizer.
    Only that x* is a minimizer is checked, at the points of a run, where a theorem rests on it.

    Parameters
    ----------
    name
        What it is, in words.
    objective
        f(x) − f(x*) as a function of x − x*.
    minimizer
        x*, one array a tensor, all of one dtype, which is that of x and of the gradients.
    blocks
        The partition: the positions of each block's tensors.
    L
        f is L-smooth; None where it is not smooth.
    mu
        f is μ-strongly convex; 0 where it is only convex.
    reach
        A number c with max_i ‖x^i − x*^i‖² ≤ 2ac wherever f(x) − f(x*) ≤ a, such as 1/μ; None where none is known.
    separable
        Whether f is a sum of functions of one block each.
    minimum
        f(x*).
    precise
        Gradients are worked out in extended precision and rounded once; False: in double, faster for many rows.

    Examples
    --------
    >>> p = least_squares([[2.0, 0.0], [0.0, 1.0]], [2.0, 3.0])
    >>> p.minimizer[0].tolist(), p.f([np.array([1.0, 1.0])]), p.grad([np.array([1.0, 1.0])])[0].tolist()
    ([1.0, 3.0], 1.0, [0.0, -1.0])
    """

    name: str
    objective: Objective
    minimizer: tuple[HostArray, ...]
    blocks: tuple[tuple[int, ...], ...]
    L: float | None = None
    mu: float = 0.0
    reach: float | None = None
    separable: bool = False
    minimum: float = 0.0
    precise: bool = True

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of x and of the gradients."""
        return self.minimizer[0].dtype

    def flat(self, x: Sequence[HostArray]) -> HostArray:
        """Return tensors as one vector (d,)."""
        return np.concatenate([t.ravel() for t in x])

    def tensors(self, vector: HostArray) -> list[HostArray]:
        """Return a vector (d,) as tensors, copied."""
        return [part.copy() for part in _tensors(vector, [t.shape for t in self.minimizer])]

    def members(self) -> HostArray:
        """Return (d, B): 1 where an entry belongs to a block, in extended precision."""
        block_of = {t: b for b, block in enumerate(self.blocks) for t in block}
        of_entry = np.repeat([block_of[t] for t in range(len(self.minimizer))], [t.size for t in self.minimizer])
        return np.asarray(of_entry[:, None] == np.arange(len(self.blocks)), dtype=np.longdouble)

    def error(self, vectors: HostArray) -> HostArray:
        """Return e = x − x* in extended precision, of vectors (…, d)."""
        return np.asarray(vectors.astype(np.longdouble) - self.flat(self.minimizer))

    def f(self, x: Sequence[HostArray]) -> float:
        """Return f(x), x a list of tensors."""
        return float(self.minimum + self.objective.gap(self.error(self.flat(x))))

    def grad(self, x: Sequence[HostArray]) -> list[HostArray]:
        """Return ∇f(x), or a subgradient, one array a tensor."""
        return self.tensors(self.gradient(self.flat(x)))

    def gradient(self, x: HostArray) -> HostArray:
        """Return ∇f, or a subgradient, of a vector (d,)."""
        e = self.error(x)
        return self.objective.slope(e if self.precise else e.astype(np.float64)).astype(self.dtype)

    def radius(self, gap: float) -> float | None:
        """Return an R with ‖x^i − x*^i‖ ≤ R for all blocks wherever f(x) − f(x*) ≤ gap; None where none is known.

        R is 0 for a gap below 0, which there is nowhere.
        """
        return None if self.reach is None else math.sqrt(max(2 * gap * self.reach, 0.0)) * UP

    def rescaled(self, k: float) -> Problem:
        """Return the problem in other units, x ↦ f(x/k): distances are k times as large, gradients a k-th."""
        minimizer = tuple(np.asarray(t * np.longdouble(k), dtype=t.dtype) for t in self.minimizer)
        return replace(
            self,
            objective=self.objective.rescaled(k),
            minimizer=minimizer,
            L=self.L and self.L / k**2,
            mu=self.mu / k**2,
            reach=self.reach and self.reach * k**2,
        )

    def lines(self) -> Iterator[str]:
        """Tell the problem in words."""
        sizes = [sum(self.minimizer[t].size for t in block) for block in self.blocks]
        constants = f"L {'none' if self.L is None else f'{self.L:.4g}'}, μ {self.mu:.4g}"
        yield f"{self.name}, blocks of {', '.join(map(str, sizes))}, {constants}"
        yield f"x* = {told(self.flat(self.minimizer))}"
        if isinstance(self.objective, Rows) and self.objective.rows.size <= 16:
            yield f"A = {self.objective.rows.astype(np.float64).tolist()}"


def linear_model(
    loss: str,
    rows: ArrayLike,
    offsets: ArrayLike,
    minimizer: Sequence[HostArray],
    blocks: Sequence[Sequence[int]] | None = None,
    *,
    name: str | None = None,
    weight: float = 1.0,
    ridge: float = 0.0,
    minimum: float = 0.0,
    precise: bool = True,
) -> Problem:
    """Return the problem of the module's formula, with its constants.

    L = w·φ″_max·λ_max(AᵀA) + ρ; μ = w·λ_min(AᵀA) + ρ for squares, else ρ. The reach is 1/μ, and for squares the largest
    eigenvalue of the blocks of the inverse Hessian H⁻¹: the ellipsoid ½⟨e, He⟩ ≤ a has a block of length √(2a·that),
    and none longer.

    Parameters
    ----------
    loss
        φ, a name of `LOSSES`.
    rows, offsets
        A (m, d) and z (m,).
    minimizer
        x*, one array a tensor.
    blocks
        The partition; default one block for each tensor.
    name
        What to call it; default the loss.
    weight, ridge, minimum
        w, ρ and f(x*).
    precise
        As of `Problem`.
    """
    φ, cut = choose(LOSSES, loss, "loss"), tuple(map(tuple, blocks or [(i,) for i in range(len(minimizer))]))
    A, z = np.asarray(rows, dtype=np.longdouble), np.asarray(offsets, dtype=np.longdouble)
    objective = Rows(loss, A, z, float(weight), float(ridge))
    problem = Problem(name or loss, objective, tuple(minimizer), cut, minimum=float(minimum), precise=precise)
    member = problem.members()
    separable = bool((((A != 0) @ member > 0).sum(axis=1) <= 1).all())
    if φ.curvature is None:
        return replace(problem, separable=separable)
    gram = weight * np.asarray(A.T @ A, dtype=np.float64)
    low, high = np.linalg.eigvalsh(gram)[[0, -1]].tolist()
    least = max(low - (UP - 1) * high, 0.0) if loss == "squares" else 0.0
    mu = least + ridge
    reach = 1 / mu if mu else None
    if mu and loss == "squares":
        inverse = np.linalg.inv(gram + ridge * np.eye(len(gram)))
        parts = [inverse[np.ix_(own, own)] for own in (np.flatnonzero(column) for column in member.T)]
        reach = max(float(np.linalg.eigvalsh(part)[-1]) for part in parts) * (1 + 1e-15 * high / mu) * UP
    L = (φ.curvature * high + ridge) * UP
    return replace(problem, L=L, mu=float(mu), reach=reach, separable=separable)


def least_squares(
    A: ArrayLike,
    b: ArrayLike,
    shapes: Sequence[tuple[int, ...]] | None = None,
    blocks: Sequence[Sequence[int]] | None = None,
    *,
    ridge: float = 0.0,
    dtype: Any = np.float64,
    name: str = "least squares",
    precise: bool = True,
) -> Problem:
    """Return f(x) = ‖Ax − b‖²/(2N) + ρ/2·‖x‖², with its minimizer.

    x* is rounded to the dtype; the f here has the gradient 0 exactly there, which at x* as it was before would be off
    by as much as rounding it does.

    Parameters
    ----------
    A, b
        The data, (N, d) and (N,) or (N, 1).
    shapes
        Of the tensors that x consists of, in the order of A's columns; default one vector.
    blocks
        The partition, as positions of tensors; default one block a tensor.
    ridge
        ρ.
    dtype
        Of x.
    name
        What to call it.
    precise
        As of `Problem`.

    Raises
    ------
    ValueError
        Where the columns of A are not independent and there is no ridge, so that the minimizer is not unique.
    """
    A, b = np.asarray(A, dtype=np.longdouble), np.asarray(b, dtype=np.longdouble).reshape(-1)

    def derivatives(x: HostArray) -> tuple[HostArray, HostArray]:
        return A.T @ (A @ x - b) / len(b) + ridge * x, A.T @ A / len(b) + ridge * np.eye(A.shape[1])

    x = _newton(derivatives, A.shape[1], name).astype(dtype)
    z = A @ x - b
    known = {"weight": 1 / len(b), "ridge": ridge, "minimum": z @ z / (2 * len(b)) + ridge / 2 * (x @ x)}
    return linear_model("squares", A, z, _tensors(x, shapes), blocks, name=name, precise=precise, **known)


def logistic(
    X: ArrayLike,
    y: ArrayLike,
    shapes: Sequence[tuple[int, ...]] | None = None,
    blocks: Sequence[Sequence[int]] | None = None,
    *,
    ridge: float,
    dtype: Any = np.float64,
    name: str = "logistic regression",
    precise: bool = True,
) -> Problem:
    """Return f(x) = mean_k log(1 + exp(−y_k·a_k·x)) + ρ/2·‖x‖², with its minimizer, which Newton's method finds.

    Parameters
    ----------
    X, y
        The data, (N, d), and labels (N,), 0 and 1 or −1 and +1.
    shapes, blocks, dtype, name, precise
        As `least_squares` takes them.
    ridge
        ρ > 0, for all of x: without it there is no minimizer where the classes can be separated.

    Raises
    ------
    ValueError
        For a ridge that is not positive.
    """
    if not ridge > 0:
        raise ValueError(f"logistic regression needs a ridge above 0 for a minimizer to be sure, got {ridge}")
    A = np.asarray(X, dtype=np.longdouble) * np.where(np.asarray(y).reshape(-1) > 0, -1, 1)[:, None]

    def derivatives(x: HostArray) -> tuple[HostArray, HostArray]:
        p = _sigmoid(A @ x)
        hessian = (A * (p * (1 - p))[:, None]).T @ A / len(A) + ridge * np.eye(A.shape[1])
        return A.T @ p / len(A) + ridge * x, hessian

    x = _newton(derivatives, A.shape[1], name).astype(dtype)
    z = A @ x
    known = {"weight": 1 / len(A), "ridge": ridge, "minimum": _softplus(z).mean() + ridge / 2 * (x @ x)}
    return linear_model("logistic", A, z, _tensors(x, shapes), blocks, name=name, precise=precise, **known)


def _newton(derivatives: Callable[[HostArray], tuple[HostArray, HostArray]], d: int, name: str) -> HostArray:
    """Return where a gradient is 0: Newton steps, solved in double, of gradients in extended precision."""
    x = np.zeros(d, dtype=np.longdouble)
    for _ in range(100):
        gradient, hessian = derivatives(x)
        values = np.linalg.eigvalsh(hessian.astype(np.float64))
        if values[0] <= d * 2.0**-50 * values[-1]:
            raise ValueError(f"{name}: the minimizer is not unique (columns that depend on each other): give a ridge")
        step = np.linalg.solve(hessian.astype(np.float64), gradient.astype(np.float64))
        x = x - step
        if np.linalg.norm(step) <= 2.0**-54 * np.linalg.norm(x.astype(np.float64)):
            return x
    raise ValueError(f"{name}: Newton's method has not found the minimizer in 100 steps: give a larger ridge")


def _tensors(x: HostArray, shapes: Sequence[tuple[int, ...]] | None) -> list[HostArray]:
    """Return a vector as views of these shapes; default as one."""
    shapes, sizes = ([x.shape], [x.size]) if shapes is None else (list(shapes), [math.prod(s) for s in shapes])
    if sum(sizes) != x.size:
        raise ValueError(f"tensors of shapes {shapes} have {sum(sizes)} entries, the data {x.size} columns")
    ends = accumulate(sizes)
    return [x[end - size : end].reshape(shape) for shape, size, end in zip(shapes, sizes, ends, strict=True)]


# Random problems


def generator(dice: Dice) -> np.random.Generator:
    """Return a generator for entries that need not shrink one by one."""
    return np.random.default_rng(dice.number(1000))


class Rolled(Dice):
    """Dice thrown by a NumPy generator, where nothing is to be shrunk and Hypothesis is not needed."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def number(self, n: int) -> int:
        """Return a number in 0 … n−1."""
        return int(self._rng.integers(n))


def random_problem(
    dice: Dice,
    *,
    losses: Sequence[str] = tuple(LOSSES),
    partition: str = "any",
    separable: bool | None = None,
    conditioned: bool = False,
    most: int = 3,
    dtype: Any = np.float64,
) -> Problem:
    """Return a small random problem; the first sides of the dice make ½x² of one entry.

    Parameters
    ----------
    dice
        What it is drawn with: Hypothesis' (`Dice`), or ``Rolled(rng)``.
    losses
        Which φ there may be.
    partition
        "any": blocks of one or two tensors; "tensor": each tensor is a block; "global": one block.
    separable
        Whether it is to be a sum over the blocks; None: either.
    conditioned
        Whether a ridge is to keep L/μ at 2 or below, which keeps the numbers of steps of theorem 1 small. (Smooth
        losses only.)
    most
        The largest number of blocks (of tensors, where one block has them all).
    dtype
        Of x.
    """
    loss = dice.pick(losses)
    sizes = [1 + dice.number(4) for _ in range(1 + dice.number(most))]
    shapes: list[tuple[int, ...]] = []
    blocks: list[tuple[int, ...]] = []
    for size in sizes:
        cut = dice.number(size) if partition == "any" else 0
        parts = [cut, size - cut] if cut else [size]
        blocks.append(tuple(range(len(shapes), len(shapes) + len(parts))))
        shapes += [(n,) if n % 2 else (2, n // 2) for n in parts]
    if partition == "global":
        blocks = [tuple(range(len(shapes)))]
    rng, d = generator(dice), sum(sizes)
    plain = dice.number(3) == 0
    A = np.eye(d) if plain else rng.standard_normal((d + dice.number(4), d))
    if dice.number(2) == 0 if separable is None else separable:
        own = np.repeat(np.arange(len(blocks)), [sum(math.prod(shapes[t]) for t in b) for b in blocks])
        A = A * (own == own[np.arange(len(A)) % d][:, None])
    A = np.ldexp(A, dice.between(-4, 4))
    z = rng.standard_normal(len(A)) if loss == "logistic" else np.zeros(len(A))
    ridge = 0.0
    if conditioned or (loss == "logistic" and dice.number(2)):
        ridge = float(np.linalg.eigvalsh(A.T @ A)[-1]) * (LOSSES[loss].curvature or 0.0)
    x = np.ldexp(rng.standard_normal(d), dice.between(-3, 3)) if dice.number(4) else np.zeros(d)
    return linear_model(loss, A, z, _tensors(x.astype(dtype), shapes), blocks, ridge=ridge)
