"""What is asked of the parameters after a step."""

import numpy as np
import pytest

from minibng import Params, nn, optim, value_and_grad

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_columns_above_the_limit_are_shortened_to_it_and_the_others_keep_their_bits(kind, device):
    w = (RNG.standard_normal((30, 8)) * np.geomspace(0.01, 10, 8)).astype(kind)
    w[:, 3] = 0
    params = Params.of({"0.W": w.copy(), "head.W": w.copy(), "head.b": np.full(8, 9, kind)}).to(device.name)
    with device.no_sync():
        optim.max_norm(params, "head.W", 1.5)
    own, norms = device.host(params["head.W"]), np.linalg.norm(w.astype("float64"), axis=0)
    free = norms <= 1.5
    assert 0 < free.sum() < 8
    np.testing.assert_array_equal(own[:, free], w[:, free])
    np.testing.assert_allclose(own[:, ~free], w[:, ~free] / norms[~free] * 1.5, rtol=4 * np.finfo(kind).eps)
    assert own.dtype == kind
    np.testing.assert_array_equal(device.host(params["0.W"]), w)
    assert np.all(device.host(params["head.b"]) == 9)


def test_units_of_every_kind_of_tensor(device):
    """Filters, the rows of a table, and a bias entry by entry."""
    model = nn.Sequential(table=nn.Embedding(5, 4), conv=nn.Conv1d(4, 3, 2))
    params = model.init(seed=0, dtype="float64")
    params["conv.b"][...] = [-3, 0.1, 2]
    before = params.copy()
    params = params.to(device.name)
    optim.max_norm(params, "*", 0.5)
    for name, axes in (("table.W", 1), ("conv.W", (0, 1))):
        norms = np.sqrt(np.sum(before[name] ** 2, axis=axes, keepdims=True))
        expected = before[name] * np.minimum(1, 0.5 / norms)
        np.testing.assert_allclose(device.host(params[name]), expected, rtol=1e-14)
    np.testing.assert_array_equal(device.host(params["conv.b"]), [-0.5, 0.1, 0.5])


def test_norms_beyond_the_dtype_are_no_zeros_and_a_tensor_of_one_number_is_a_unit():
    params = Params.of({"W": np.full((4, 1), 1e30, "float32"), "s": np.array(-7.0, "float32")})
    optim.max_norm(params, "*", 2.0)
    np.testing.assert_allclose(params["W"], 1.0, rtol=1e-6)
    assert params["s"] == -2
    params["W"][0] = np.inf
    optim.max_norm(params, "W", 2.0)
    assert not np.all(np.isfinite(params["W"]))


def test_a_limit_in_a_training_loop_holds_after_each_step(device):
    """As in Kim (2014): the last layer alone."""
    model = nn.models.textcnn(9, dim=4, maps=3)
    params = model.init(device=device.name)
    opt = optim.Adam(params, lr=0.3)
    x, y = device.arrays([RNG.integers(0, 9, (6, 8)), RNG.integers(0, 2, 6)])
    step = value_and_grad(lambda p: nn.cross_entropy(model(p, x, train=True), y))
    for _ in range(5):
        with device.no_sync():
            opt.step(step(params)[1])
            optim.max_norm(params, "head.W", 0.7)
        assert np.all(np.linalg.norm(device.host(params["head.W"]), axis=0) <= 0.7 * (1 + 1e-6))


def test_what_is_no_limit_is_refused():
    params = nn.Linear(3, 2).init()
    with pytest.raises(TypeError, match="max_norm takes a Params, such as"):
        optim.max_norm("W", params, 3)
    for limit in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="must be above 0, got"):
            optim.max_norm(params, "W", limit)
    with pytest.raises(ValueError, match=r"the pattern 'head\.W' fits none of W, b"):
        optim.max_norm(params, "head.W", 3)
