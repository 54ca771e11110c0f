"""jvp, jacobian and hessian against closed forms, against each other, and against PyTorch's."""

import numpy as np
import pytest

from minibng import check_grads, grad, hessian, hvp, jacobian, jvp, nn, ops, value_and_grad, vjp
from minibng.autodiff import Traced, flatten
from minibng.params import Params

try:
    import torch
except ImportError:
    torch = None

X = np.array([0.5, 1.5, 2.5])
A = np.arange(12.0).reshape(4, 3) / 7


def several(x, y):
    """Results of three shapes from arguments of two."""
    return {"m": np.outer(x, y), "s": [np.sum(x**3) * y[0]], "y": np.sin(y)}


def test_a_linear_map_is_its_own_jacobian():
    np.testing.assert_array_equal(jacobian(lambda x: A @ x)(X), A)
    np.testing.assert_array_equal(jacobian(lambda x: x @ A)(np.ones(4)), A.T)  # the argument has more entries
    value, tangent = jvp(lambda x: A @ x, [X], [X + 1])
    np.testing.assert_allclose(value, A @ X)
    np.testing.assert_allclose(tangent, A @ (X + 1))


@pytest.mark.parametrize(
    "shapes", [((2, 3), (4,)), ((4,), (2, 3)), ((), (3,)), ((3,), ()), ((), ()), ((1, 2), (2, 1, 2))]
)
def test_axes_of_the_result_come_first(shapes):
    into, of = shapes
    w = np.random.default_rng(0).standard_normal((*into, *of))
    f = lambda x: np.tensordot(w, x, axes=len(of))  # noqa: E731
    got = jacobian(f)(np.ones(of))
    assert np.shape(got) == (*into, *of)
    np.testing.assert_allclose(got, w)


@pytest.mark.parametrize("shapes", [((0,), (3,)), ((3,), (0,)), ((0, 2), (0,))])
def test_empty_results_and_arguments(shapes):
    into, of = shapes
    got = jacobian(lambda x: np.zeros(into) + np.sum(x))(np.ones(of))
    assert got.shape == (*into, *of)


def test_containers_nest_the_argument_in_the_result():
    x, y = X, np.array([0.3, 0.7])
    for argnums in (0, 1, (0, 1), (1, 0), [-1]):
        j = jacobian(several, argnums)(x, y)
        wanted = list(argnums) if isinstance(argnums, (tuple, list)) else [argnums]
        assert list(j) == ["m", "s", "y"] and isinstance(j["s"], list)
        for name, get in (("m", lambda t: t["m"]), ("s", lambda t: t["s"][0]), ("y", lambda t: t["y"])):
            blocks = get(j) if isinstance(argnums, (tuple, list)) else (get(j),)
            assert isinstance(blocks, tuple)
            for i, block in zip(wanted, blocks, strict=True):
                args = [x, y]

                def moved(h, k, i=i, get=get, args=args):
                    shifted = [a.copy() for a in args]
                    shifted[i][k] += h
                    return get(several(*shifted))

                columns = [(moved(1e-5, k) - moved(-1e-5, k)) / 2e-5 for k in range(args[i].size)]
                np.testing.assert_allclose(block, np.stack(columns, axis=-1), atol=1e-8, err_msg=name)


def test_both_directions_give_the_same():
    """Few results are pulled back, few arguments pushed forward; a padded result or argument changes the side."""
    f = lambda x: np.stack([x[0] * x[1], np.exp(x[2]), x[1] ** 3])  # noqa: E731
    by_rows = jacobian(lambda x: f(x[:3]))(np.concatenate([X, np.zeros(9)]))[:, :3]
    by_columns = jacobian(lambda x: np.concatenate([f(x), np.zeros(9)]))(X)[:3]
    np.testing.assert_allclose(by_rows, by_columns, rtol=1e-15)
    np.testing.assert_allclose(by_rows, [[X[1], X[0], 0], [0, 0, np.exp(X[2])], [0, 3 * X[1] ** 2, 0]])


@pytest.mark.peer
def test_value_jacobian_and_hessian_agree_with_torch():
    def f(m, x, w):
        return m.tanh(w @ x) * m.sum(x**2) if m is np else torch.tanh(w @ x) * torch.sum(x**2)

    w = np.random.default_rng(1).standard_normal((5, 3))
    tx, tw = torch.tensor(X), torch.tensor(w)
    theirs = torch.autograd.functional.jacobian(lambda x, w: f(torch, x, w), (tx, tw))
    ours = jacobian(lambda x, w: f(np, x, w), (0, 1))(X, w)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-12, atol=1e-14)
    theirs = torch.autograd.functional.hessian(lambda x, w: f(torch, x, w).sum(), (tx, tw))
    ours = hessian(lambda x, w: np.sum(f(np, x, w)), (0, 1))(X, w)
    for row, their_row in zip(ours, theirs, strict=True):
        for a, b in zip(row, their_row, strict=True):
            np.testing.assert_allclose(a, b.numpy(), rtol=1e-12, atol=1e-13)
    direction = (X + 1, w[::-1].copy())
    theirs = torch.autograd.functional.jvp(lambda x, w: f(torch, x, w), (tx, tw), tuple(map(torch.tensor, direction)))
    for a, b in zip(jvp(lambda x, w: f(np, x, w), (X, w), direction), theirs, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-12)


def network():
    model = nn.Sequential(nn.Linear(3, 4), nn.tanh, nn.Linear(4, 2))
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((5, 3)), rng.integers(0, 2, 5)
    params = model.init(seed=0, dtype="float64")
    return model, params, x, lambda p: nn.cross_entropy(model(p, x), t)


def test_params_count_as_one_vector():
    model, params, x, loss = network()
    n = params.layout.size
    assert jacobian(loss)(params).shape == (n,)
    np.testing.assert_allclose(jacobian(loss)(params), grad(loss)(params).flat)
    outputs = jacobian(lambda p: model(p, x))(params)
    assert outputs.shape == (5, 2, n)
    v = Params(params.layout, np.random.default_rng(1).standard_normal(n))
    np.testing.assert_allclose(outputs @ v.flat, jvp(lambda p: model(p, x), [params], [v])[1], atol=1e-14)


def test_the_hessian_of_params_is_a_symmetric_matrix_that_gives_the_products():
    _, params, _, loss = network()
    before = params.flat.copy()
    h = hessian(loss)(params)
    n = params.layout.size
    assert h.shape == (n, n)
    np.testing.assert_allclose(h, h.T, atol=1e-15)
    for seed in range(3):
        v = Params(params.layout, np.random.default_rng(seed).standard_normal(n))
        np.testing.assert_allclose(h @ v.flat, hvp(loss)(params, v).flat, atol=1e-13)
        np.testing.assert_allclose(h @ v.flat, jvp(grad(loss), [params], [v])[1].flat, atol=1e-13)
    np.testing.assert_array_equal(params.flat, before)


def test_params_inside_a_container():
    _, params, _, loss = network()
    n = params.layout.size
    h = hessian(lambda t: loss(t["p"]) * t["s"] ** 2)({"p": params, "s": 1.5})
    assert {k: {j: np.shape(b) for j, b in row.items()} for k, row in h.items()} == {
        "p": {"p": (n, n), "s": (n,)},
        "s": {"p": (n,), "s": ()},
    }
    np.testing.assert_allclose(h["p"]["s"], h["s"]["p"], atol=1e-15)
    np.testing.assert_allclose(h["p"]["s"], 3.0 * grad(loss)(params).flat)
    assert h["s"]["s"] == pytest.approx(2 * loss(params))


def test_a_tangent_has_the_structure_of_the_value():
    _, params, _, loss = network()
    v = params.copy()
    value, tangent = jvp(lambda p, s: {"g": grad(loss)(p), "pair": (s * 2, [p["0.W"]])}, [params, 1.0], [v, 3.0])
    assert isinstance(tangent["g"], Params) and isinstance(tangent["pair"], tuple)
    assert tangent["pair"][0] == 6.0
    np.testing.assert_array_equal(tangent["pair"][1][0], v["0.W"])
    np.testing.assert_allclose(tangent["g"].flat, hvp(loss)(params, v).flat, atol=1e-14)
    assert not any(isinstance(leaf, Traced) for leaf in flatten(value)[0] + flatten(tangent)[0])


def test_jvp_and_vjp_are_adjoint():
    rng = np.random.default_rng(2)
    f = lambda x, y: [np.outer(np.sin(x), y), np.cumsum(x * x)]  # noqa: E731
    x, y, v, w = X, rng.standard_normal(2), rng.standard_normal(3), rng.standard_normal(2)
    g = [rng.standard_normal((3, 2)), rng.standard_normal(3)]
    _, pull = vjp(f, x, y)
    _, push = jvp(f, [x, y], [v, w])
    forward = sum(np.sum(a * b) for a, b in zip(g, push, strict=True))
    assert forward == pytest.approx(sum(np.sum(a * b) for a, b in zip(pull(g), (v, w), strict=True)), rel=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtypes_are_kept(dtype):
    x = X.astype(dtype)
    value, tangent = jvp(lambda x: np.exp(x) * 2, [x], [x])
    assert (value.dtype, tangent.dtype) == (dtype, dtype)
    assert jacobian(lambda x: np.exp(x)[:2])(x).dtype == dtype
    assert jacobian(lambda x: np.stack([x[0], x[1], x[2], x[0] * x[1]]))(x).dtype == dtype
    assert hessian(lambda x: np.sum(x**3))(x).dtype == dtype
    assert jacobian(lambda x: np.zeros((0,), dtype) * x[0])(x).dtype == dtype


def test_they_can_be_differentiated_and_nested():
    trace = lambda x: np.trace(hessian(lambda z: np.sum(z**4))(x))  # noqa: E731
    np.testing.assert_allclose(grad(trace)(X), 24 * X)
    check_grads(trace, X)
    check_grads(lambda x: np.linalg.det(jacobian(lambda z: np.stack([z[0] * z[1], z[1] ** 2 * z[2], z[2]]))(x)), X)
    check_grads(lambda x, v: jvp(lambda z: np.sin(z) * x, [x], [v])[1], X, X + 1)
    third = jvp(lambda x: jvp(lambda x: jvp(lambda x: x**5, [x], [1.0])[1], [x], [1.0])[1], [2.0], [1.0])
    assert third == (160.0, 240.0)
    assert jacobian(jacobian(jacobian(lambda x: np.prod(x))))(X).shape == (3, 3, 3)
    assert jacobian(jacobian(jacobian(lambda x: np.prod(x))))(X)[0, 1, 2] == 1.0


def test_constants_have_derivative_zero():
    for f in (lambda x: np.ones(2), lambda x: np.array([1, 2])):
        np.testing.assert_array_equal(jacobian(f)(X), np.zeros((2, 3)))
        np.testing.assert_array_equal(jvp(f, [X], [X])[1], np.zeros(2))
    np.testing.assert_array_equal(jacobian(lambda x: np.ones(5))(X), np.zeros((5, 3)))
    assert jvp(lambda x: 3, [2.0], [1.0]) == (3, 0.0)
    np.testing.assert_array_equal(hessian(lambda x: np.sum(x))(X), np.zeros((3, 3)))


def test_results_are_the_caller_s_own():
    x, v = X.copy(), X + 1
    _, tangent = jvp(lambda x: [x, x], [x], [v])
    tangent[0] *= 7
    np.testing.assert_array_equal(tangent[1], X + 1)
    np.testing.assert_array_equal(v, X + 1)
    j = jacobian(lambda x: x)(x)
    j += 1
    np.testing.assert_array_equal(x, X)


def test_further_arguments_are_passed_on():
    got = jacobian(lambda x, a, k=1: a * x**k, argnums=1)(X, 2.0, k=3)
    np.testing.assert_allclose(got, X**3)
    np.testing.assert_allclose(hessian(lambda x, n, k=1: np.sum(x**3) * n * k)(X, 2, k=2), np.diag(24 * X))


@pytest.mark.parametrize(
    "error, match, compute",
    [
        (
            ValueError,
            r"the tangent has shapes \[\(2,\)\], the point \[\(3,\)\]",
            lambda: jvp(np.sum, [X], [np.ones(2)]),
        ),
        (ValueError, "the tangent has shapes", lambda: jvp(np.sum, [X], [X, X])),
        (TypeError, r"argument 0 is an int64 array", lambda: jvp(np.sum, [np.arange(3)], [np.arange(3)])),
        (TypeError, "argument 0 is an int64 array", lambda: jacobian(np.sum)(np.arange(3))),
        (TypeError, "argnums names argument 1", lambda: jacobian(np.sum, 1)(X)),
        (ValueError, "names argument 0 twice", lambda: jacobian(np.sum, (0, 0))(X)),
        (ValueError, "needs a scalar", lambda: hessian(lambda x: x * 2)(X)),
    ],
)
def test_errors_name_what_is_wrong(error, match, compute):
    with pytest.raises(error, match=match):
        compute()


def test_a_row_is_the_gradient_of_one_entry():
    f = lambda x: ops.tanh(A @ x)  # noqa: E731
    j = jacobian(f)(X)
    for i in range(4):
        value, g = value_and_grad(lambda x, i=i: f(x)[i])(X)
        np.testing.assert_allclose(j[i], g, rtol=1e-15)
        assert value == f(X)[i]
