import itertools
import math

import numpy as np
import pytest

from minibng import data
from minibng.verify import Problem, least_squares, logistic, random_problem
from minibng.verify.problems import LOSSES, Rolled, linear_model

SOME = range(40)


def drawn(seed, **kinds) -> Problem:
    return random_problem(Rolled(np.random.default_rng(seed)), **kinds)


def points(problem, seed=0, n=6):
    d = problem.flat(problem.minimizer).size
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.longdouble)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_slope_is_the_derivative_of_the_gap(loss):
    for seed in SOME[:10]:
        p = drawn(seed, losses=(loss,))
        for e, v in zip(points(p), points(p, 1), strict=True):
            h = np.longdouble(2.0**-20)
            difference = (p.objective.gap(e + h * v) - p.objective.gap(e - h * v)) / (2 * h)
            size = np.abs(p.objective.slope(e)).sum() + (p.L or 0)
            assert abs(difference - p.objective.slope(e) @ v) <= 1e-6 * size * np.abs(v).sum()


def test_the_minimizer_is_one_and_slopes_are_subgradients():
    for seed in SOME:
        p = drawn(seed)
        zero, e = np.zeros_like(points(p)[0]), points(p)
        assert p.objective.gap(zero) == 0 and not p.objective.slope(zero).any()
        h, noise = p.objective.gap(e), 1e-15 * (1 + p.objective.gap(e).max())
        assert (h >= 0).all()
        for a in range(len(e)):  # h(b) ≥ h(a) + ⟨h′(a), b − a⟩
            assert (h + noise >= h[a] + (e - e[a]) @ p.objective.slope(e[a])).all()


def test_the_constants_are_constants():
    smooth = 0
    for seed in SOME:
        p = drawn(seed)
        if p.L is None:
            assert isinstance(p.objective.loss, str) and p.objective.loss == "absolute" and p.mu == 0
            continue
        smooth += 1
        e = points(p) * 3
        for a, b in itertools.pairwise(e):
            above = p.objective.gap(b) - p.objective.gap(a) - p.objective.slope(a) @ (b - a)
            square = (b - a) @ (b - a)
            noise = 1e-12 * (p.L * square + p.objective.gap(b))
            assert p.mu / 2 * square - noise <= above <= p.L / 2 * square + noise
    assert smooth > 20


def test_the_radius_of_level_sets_is_one_and_for_squares_the_smallest():
    for seed in SOME[:15]:
        p = drawn(seed, losses=("squares", "logistic"), conditioned=True)
        e, members = points(p, n=200), p.members()
        distances = np.sqrt((e * e @ members).max(axis=1))
        assert (distances <= [p.radius(float(g)) for g in p.objective.gap(e)]).all()
        if p.objective.loss != "squares":
            continue
        hessian = p.objective.weight * p.objective.rows.T @ p.objective.rows + p.objective.ridge * np.eye(e.shape[1])
        inverse = np.linalg.inv(hessian.astype(float))
        found = []
        d = e.shape[1]
        for own in members.T:  # the longest block of an ellipsoid: H⁻¹ times a vector of that block alone
            own = np.flatnonzero(own)
            v = np.zeros(d)
            v[own] = np.linalg.eigh(inverse[np.ix_(own, own)])[1][:, -1]
            far = (inverse @ v).astype(np.longdouble)
            found.append(np.linalg.norm(far[own].astype(float)) / p.radius(float(p.objective.gap(far))))
        assert max(found) == pytest.approx(1, rel=1e-6)


def test_separable_functions_are_sums_over_the_blocks_and_others_are_not():
    kinds = set()
    for seed in SOME:
        p = drawn(seed)
        (e, *_), members = points(p), p.members()
        parts = sum(p.objective.gap(e * own) for own in members.T)
        assert p.separable == bool(np.isclose(float(parts), float(p.objective.gap(e)), rtol=1e-12))
        kinds.add((p.separable, len(p.blocks) > 1))
    assert {(True, True), (False, True)} <= kinds


@pytest.mark.parametrize("partition", ["any", "tensor", "global"])
def test_partitions_are_those_that_are_asked_for(partition):
    for seed in SOME[:20]:
        p = drawn(seed, partition=partition)
        assert sorted(t for block in p.blocks for t in block) == list(range(len(p.minimizer)))
        assert partition != "tensor" or all(len(block) == 1 for block in p.blocks)
        assert partition != "global" or len(p.blocks) == 1


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_least_squares_on_diabetes_is_what_numpy_solves(ridge):
    part = data.load("diabetes").train
    A, b = part.x.astype(float), part.y.astype(float)
    p = least_squares(A, b, [(10,)], ridge=ridge)
    augmented = np.vstack([A, math.sqrt(ridge * len(A)) * np.eye(10)])
    x, *_ = np.linalg.lstsq(augmented, np.concatenate([b[:, 0], np.zeros(10)]), rcond=None)
    assert np.allclose(p.minimizer[0], x, rtol=0, atol=1e-12)
    y = np.linspace(-1, 1, 10)
    assert p.f([y]) == pytest.approx(np.sum((A @ y - b[:, 0]) ** 2) / (2 * len(A)) + ridge / 2 * y @ y, rel=1e-13)
    assert np.allclose(p.grad([y])[0], A.T @ (A @ y - b[:, 0]) / len(A) + ridge * y, rtol=0, atol=1e-13)
    assert p.f(p.minimizer) == p.minimum and not p.grad(p.minimizer)[0].any()
    eigenvalues = np.linalg.eigvalsh(A.T @ A / len(A) + ridge * np.eye(10))
    assert (p.mu, p.L) == (pytest.approx(eigenvalues[0], rel=1e-6), pytest.approx(eigenvalues[-1], rel=1e-6))


def test_logistic_regression_on_breast_cancer_is_what_scikit_learn_fits():
    linear = pytest.importorskip("sklearn.linear_model")
    part, ridge = data.load("breast_cancer").train, 0.05
    X = part.x.astype(float)
    p = logistic(X, part.y, ridge=ridge)
    fitted = linear.LogisticRegression(C=1 / (ridge * len(X)), fit_intercept=False, tol=1e-10, max_iter=1000)
    assert np.allclose(p.minimizer[0], fitted.fit(X, part.y).coef_[0], rtol=0, atol=1e-5)
    y = np.linspace(-1, 1, 30)
    signed = np.where(part.y > 0, 1, -1)
    loss = np.logaddexp(0, -signed * (X @ y)).mean() + ridge / 2 * y @ y
    assert p.f([y]) == pytest.approx(loss, rel=1e-13)
    fast = logistic(X, part.y, ridge=ridge, precise=False)
    assert np.allclose(fast.grad([y])[0], p.grad([y])[0], rtol=0, atol=1e-14)
    assert (fast.grad([y])[0] != p.grad([y])[0]).any()
    assert logistic(X, signed, ridge=ridge).f([y]) == p.f([y])


def test_hubers_loss_is_scipys():
    special = pytest.importorskip("scipy.special")
    r = np.linspace(-3, 3, 61)
    assert np.allclose(LOSSES["huber"].value(r), special.huber(1.0, r), rtol=0, atol=1e-15)


def test_other_units_change_nothing_but_the_units():
    p = drawn(3, losses=("logistic",), conditioned=True)
    q, e = p.rescaled(4.0), points(p)
    assert np.allclose((q.objective.gap(4 * e)).astype(float), p.objective.gap(e).astype(float), rtol=1e-15)
    assert np.allclose(q.objective.slope(4 * e) * 4, p.objective.slope(e), rtol=1e-15)
    assert (q.L, q.mu, q.radius(1.0)) == pytest.approx((p.L / 16, p.mu / 16, 4 * p.radius(1.0)))


def test_gradients_have_the_shapes_and_the_dtype_of_the_tensors():
    for dtype in ("float32", "float64"):
        p = drawn(5, dtype=dtype)
        assert [(g.shape, g.dtype) for g in p.grad(p.minimizer)] == [(t.shape, t.dtype) for t in p.minimizer]


def test_what_has_no_single_minimizer_is_refused():
    with pytest.raises(ValueError, match="ridge"):
        least_squares(np.ones((5, 2)), np.ones(5))
    with pytest.raises(ValueError, match="ridge above 0"):
        logistic(np.eye(2), [0, 1], ridge=0.0)
    with pytest.raises(ValueError, match="3 entries, the data 2 columns"):
        least_squares(np.eye(2), np.ones(2), [(3,)])
    with pytest.raises(ValueError, match="did you mean 'squares'"):
        linear_model("square", np.eye(1), np.zeros(1), [np.zeros(1)])
