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


def test_a_linear_map_is_its_own_jacobian(device):
    a, x, ones = device.arrays([A, X, np.ones(4)])
    with device.no_sync():
        rows = jacobian(lambda x: a @ x)(x)
        columns = jacobian(lambda x: x @ a)(ones)  # the argument has more entries
        value, tangent = jvp(lambda x: a @ x, [x], [x + 1])
    np.testing.assert_array_equal(device.host(rows), A)
    np.testing.assert_array_equal(device.host(columns), A.T)
    np.testing.assert_allclose(device.host(value), A @ X)
    np.testing.assert_allclose(device.host(tangent), A @ (X + 1))


@pytest.mark.parametrize(
    "shapes", [((2, 3), (4,)), ((4,), (2, 3)), ((), (3,)), ((3,), ()), ((), ()), ((1, 2), (2, 1, 2))]
)
def test_axes_of_the_result_come_first(shapes, device):
    into, of = shapes
    w = np.random.default_rng(0).standard_normal((*into, *of))
    weights, ones = device.arrays([w, np.ones(of)])
    got = jacobian(lambda x: np.tensordot(weights, x, axes=len(of)))(ones)
    assert np.shape(got) == (*into, *of)
    np.testing.assert_allclose(device.host(got), w)


@pytest.mark.parametrize("shapes", [((0,), (3,)), ((3,), (0,)), ((0, 2), (0,))])
def test_empty_results_and_arguments(shapes, device):
    into, of = shapes
    zeros, ones = device.arrays([np.zeros(into), np.ones(of)])
    got = jacobian(lambda x: zeros + np.sum(x))(ones)
    assert got.shape == (*into, *of)
    assert type(got) is type(ones)


def test_containers_nest_the_argument_in_the_result(device):
    x, y = X, np.array([0.3, 0.7])
    for argnums in (0, 1, (0, 1), (1, 0), [-1]):
        j = device.host(jacobian(several, argnums)(*device.arrays([x, y])))
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


def test_both_directions_give_the_same(device):
    """Few results are pulled back, few arguments pushed forward; a padded result or argument changes the side."""
    f = lambda x: np.stack([x[0] * x[1], np.exp(x[2]), x[1] ** 3])  # noqa: E731
    x, zeros = device.arrays([X, np.zeros(9)])
    by_rows = device.host(jacobian(lambda x: f(x[:3]))(np.concatenate([x, zeros])))[:, :3]
    by_columns = device.host(jacobian(lambda x: np.concatenate([f(x), zeros]))(x))[:3]
    np.testing.assert_allclose(by_rows, by_columns, rtol=1e-15)
    np.testing.assert_allclose(by_rows, [[X[1], X[0], 0], [0, 0, np.exp(X[2])], [0, 3 * X[1] ** 2, 0]])


@pytest.mark.peer
def test_value_jacobian_and_hessian_agree_with_torch(device):
    def f(m, x, w):
        return m.tanh(w @ x) * m.sum(x**2) if m is np else torch.tanh(w @ x) * torch.sum(x**2)

    w = np.random.default_rng(1).standard_normal((5, 3))
    tx, tw = torch.tensor(X), torch.tensor(w)
    given = device.arrays([X, w])
    theirs = torch.autograd.functional.jacobian(lambda x, w: f(torch, x, w), (tx, tw))
    ours = jacobian(lambda x, w: f(np, x, w), (0, 1))(*given)
    for a, b in zip(device.host(ours), theirs, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-12, atol=1e-14)
    theirs = torch.autograd.functional.hessian(lambda x, w: f(torch, x, w).sum(), (tx, tw))
    ours = hessian(lambda x, w: np.sum(f(np, x, w)), (0, 1))(*given)
    for row, their_row in zip(device.host(ours), theirs, strict=True):
        for a, b in zip(row, their_row, strict=True):
            np.testing.assert_allclose(a, b.numpy(), rtol=1e-12, atol=1e-13)
    direction = (X + 1, w[::-1].copy())
    theirs = torch.autograd.functional.jvp(lambda x, w: f(torch, x, w), (tx, tw), tuple(map(torch.tensor, direction)))
    ours = jvp(lambda x, w: f(np, x, w), given, device.arrays(direction))
    for a, b in zip(device.host(ours), theirs, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-12)


def network(device):
    model = nn.Sequential(nn.Linear(3, 4), nn.tanh, nn.Linear(4, 2))
    rng = np.random.default_rng(0)
    x, t = device.array(rng.standard_normal((5, 3))), device.array(rng.integers(0, 2, 5))
    params = model.init(seed=0, dtype="float64", device=device.name)
    return model, params, x, lambda p: nn.cross_entropy(model(p, x), t)


def direction_for(params, device, seed):
    return Params(params.layout, device.array(np.random.default_rng(seed).standard_normal(params.layout.size)))


def test_params_count_as_one_vector(device):
    model, params, x, loss = network(device)
    n = params.layout.size
    v = direction_for(params, device, 1)
    with device.no_sync():
        slope, gradient = jacobian(loss)(params), grad(loss)(params)
        outputs = jacobian(lambda p: model(p, x))(params)
        _, pushed = jvp(lambda p: model(p, x), [params], [v])
    assert slope.shape == (n,)
    np.testing.assert_allclose(device.host(slope), device.host(gradient.flat))
    assert outputs.shape == (5, 2, n)
    np.testing.assert_allclose(device.host(outputs @ v.flat), device.host(pushed), atol=1e-14)


def test_the_hessian_of_params_is_a_symmetric_matrix_that_gives_the_products(device):
    _, params, _, loss = network(device)
    before = device.host(params.flat.copy())
    h = hessian(loss)(params)
    n = params.layout.size
    assert h.shape == (n, n)
    np.testing.assert_allclose(device.host(h), device.host(h.T), atol=1e-15)
    for seed in range(3):
        v = direction_for(params, device, seed)
        expected = device.host(h @ v.flat)
        np.testing.assert_allclose(expected, device.host(hvp(loss)(params, v).flat), atol=1e-13)
        np.testing.assert_allclose(expected, device.host(jvp(grad(loss), [params], [v])[1].flat), atol=1e-13)
    np.testing.assert_array_equal(device.host(params.flat), before)


def test_params_inside_a_container(device):
    _, params, _, loss = network(device)
    n = params.layout.size
    h = hessian(lambda t: loss(t["p"]) * t["s"] ** 2)({"p": params, "s": 1.5})
    assert {k: {j: np.shape(b) for j, b in row.items()} for k, row in h.items()} == {
        "p": {"p": (n, n), "s": (n,)},
        "s": {"p": (n,), "s": ()},
    }
    mixed, gradient = device.host(h["p"]["s"]), device.host(grad(loss)(params).flat)
    np.testing.assert_allclose(mixed, device.host(h["s"]["p"]), atol=1e-15)
    np.testing.assert_allclose(mixed, 3.0 * gradient)
    assert float(h["s"]["s"]) == pytest.approx(2 * float(loss(params)))


def test_a_tangent_has_the_structure_of_the_value(device):
    _, params, _, loss = network(device)
    v = params.copy()
    value, tangent = jvp(lambda p, s: {"g": grad(loss)(p), "pair": (s * 2, [p["0.W"]])}, [params, 1.0], [v, 3.0])
    assert isinstance(tangent["g"], Params) and isinstance(tangent["pair"], tuple)
    assert tangent["pair"][0] == 6.0
    np.testing.assert_array_equal(device.host(tangent["pair"][1][0]), device.host(v["0.W"]))
    np.testing.assert_allclose(device.host(tangent["g"].flat), device.host(hvp(loss)(params, v).flat), atol=1e-14)
    assert not any(isinstance(leaf, Traced) for leaf in flatten(value)[0] + flatten(tangent)[0])


def test_jvp_and_vjp_are_adjoint(device):
    rng = np.random.default_rng(2)
    f = lambda x, y: [np.outer(np.sin(x), y), np.cumsum(x * x)]  # noqa: E731
    x, y, v, w = X, rng.standard_normal(2), rng.standard_normal(3), rng.standard_normal(2)
    g = [rng.standard_normal((3, 2)), rng.standard_normal(3)]
    _, pull = vjp(f, *device.arrays([x, y]))
    _, push = jvp(f, device.arrays([x, y]), device.arrays([v, w]))
    back = device.host(pull(device.arrays(g)))
    forward = sum(np.sum(a * b) for a, b in zip(g, device.host(push), strict=True))
    assert forward == pytest.approx(sum(np.sum(a * b) for a, b in zip(back, (v, w), strict=True)), rel=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtypes_are_kept(dtype, device):
    x, none = device.arrays([X.astype(dtype), np.zeros(0, dtype)])
    value, tangent = jvp(lambda x: np.exp(x) * 2, [x], [x])
    assert (value.dtype, tangent.dtype) == (dtype, dtype)
    assert jacobian(lambda x: np.exp(x)[:2])(x).dtype == dtype
    assert jacobian(lambda x: np.stack([x[0], x[1], x[2], x[0] * x[1]]))(x).dtype == dtype
    assert hessian(lambda x: np.sum(x**3))(x).dtype == dtype
    assert jacobian(lambda x: none * x[0])(x).dtype == dtype


def test_they_can_be_differentiated_and_nested(device):
    trace = lambda x: np.trace(hessian(lambda z: np.sum(z**4))(x))  # noqa: E731
    x = device.array(X)
    with device.no_sync():
        gradient = grad(trace)(x)
    np.testing.assert_allclose(device.host(gradient), 24 * X)
    check_grads(trace, x)
    check_grads(lambda x: np.linalg.det(jacobian(lambda z: np.stack([z[0] * z[1], z[1] ** 2 * z[2], z[2]]))(x)), x)
    check_grads(lambda x, v: jvp(lambda z: np.sin(z) * x, [x], [v])[1], x, x + 1)
    third = jvp(lambda x: jvp(lambda x: jvp(lambda x: x**5, [x], [1.0])[1], [x], [1.0])[1], [2.0], [1.0])
    assert third == (160.0, 240.0)
    third = jacobian(jacobian(jacobian(lambda x: np.prod(x))))(x)
    assert third.shape == (3, 3, 3)
    assert third[0, 1, 2] == 1.0


def test_constants_have_derivative_zero(device):
    x, ones, whole, five = device.arrays([X, np.ones(2), np.array([1, 2]), np.ones(5)])
    for constant in (ones, whole):
        np.testing.assert_array_equal(device.host(jacobian(lambda x, c=constant: c)(x)), np.zeros((2, 3)))
        np.testing.assert_array_equal(device.host(jvp(lambda x, c=constant: c, [x], [x])[1]), np.zeros(2))
    np.testing.assert_array_equal(device.host(jacobian(lambda x: five)(x)), np.zeros((5, 3)))
    assert jvp(lambda x: 3, [2.0], [1.0]) == (3, 0.0)
    np.testing.assert_array_equal(device.host(hessian(lambda x: np.sum(x))(x)), np.zeros((3, 3)))


def test_results_are_the_caller_s_own(device):
    x, v = device.arrays([X.copy(), X + 1])
    _, tangent = jvp(lambda x: [x, x], [x], [v])
    tangent[0] *= 7
    np.testing.assert_array_equal(device.host(tangent[1]), X + 1)
    np.testing.assert_array_equal(device.host(v), X + 1)
    j = jacobian(lambda x: x)(x)
    j += 1
    np.testing.assert_array_equal(device.host(x), X)


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


def test_a_direction_or_cotangent_on_another_device_is_refused_and_told_where_to_go(device):
    if device.name == "cpu":
        return
    x, at = device.array(X), device.backend.device
    for compute, what in (
        (lambda: jvp(np.sum, [x], [X]), "the tangent"),
        (lambda: hvp(np.sum)(x, X), "the direction"),
        (lambda: vjp(np.sin, x)[1](X), "the cotangent"),
    ):
        with pytest.raises(ValueError, match=rf"{what} is on 'cpu', .* on '{at}': use bng.asarray\(x, device='{at}'\)"):
            compute()


def test_a_row_is_the_gradient_of_one_entry(device):
    a, x = device.arrays([A, X])
    f = lambda x: ops.tanh(a @ x)  # noqa: E731
    j = device.host(jacobian(f)(x))
    for i in range(4):
        value, g = value_and_grad(lambda x, i=i: f(x)[i])(x)
        np.testing.assert_allclose(j[i], device.host(g), rtol=1e-15)
        assert value == f(x)[i]
