"""The embedding against PyTorch, its padding, its order of summation and its errors."""

import re

import numpy as np
import pytest

import minibng as bng
from minibng import grad, hvp, nn, vjp
from minibng.nn.embedding import add_rows, embed

RNG = np.random.default_rng(0)


def rows_added(table, tokens, rows):
    """One row after another, the slow way: the order that fixes every bit."""
    out = np.array(table)
    for token, row in zip(tokens.reshape(-1), rows.reshape(-1, table.shape[1]), strict=True):
        out[token] += row
    return out


@pytest.mark.peer
@pytest.mark.parametrize("padding", [None, 2])
def test_values_and_two_derivatives_are_torch_s(torch, padding, device):
    tokens = np.array([[3, 2, 3, 0], [2, 2, 1, 3]])
    layer = nn.Embedding(5, 4, padding=padding)
    params = layer.init(seed=1, dtype="float64")
    theirs = torch.nn.Embedding(5, 4, padding_idx=padding, dtype=torch.float64)
    theirs.weight.data.copy_(torch.tensor(params["W"]))
    weights, v = RNG.standard_normal((2, 4, 4)), RNG.standard_normal((5, 4))

    y = theirs(torch.tensor(tokens))
    g = torch.autograd.grad((torch.tensor(weights) * torch.tanh(y)).sum(), theirs.weight, create_graph=True)[0]
    second = torch.autograd.grad((g * torch.tensor(v)).sum(), theirs.weight)[0]

    x, factors = device.array(tokens), device.array(weights)

    def loss(p):
        return np.sum(factors * np.tanh(layer(p, x)))

    params, direction = params.to(device.name), bng.Params.of({"W": v}).to(device.name)
    with device.no_sync():
        own, slope = layer(params, x), grad(loss)(params)
        curved = hvp(loss)(params, direction)
    np.testing.assert_array_equal(device.host(own), y.detach().numpy())
    np.testing.assert_allclose(device.host(slope["W"]), g.detach().numpy(), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(device.host(curved["W"]), second.numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("often", [False, True])
@pytest.mark.parametrize("vocab, dim, count", [(90, 64, 200), (300, 200, 400), (5, 80, 60), (7, 3, 90), (1, 64, 5)])
def test_rows_are_added_in_the_order_of_the_tokens_to_the_last_bit(vocab, dim, count, often, dtype, device):
    """Also of those that are added many at once, and where some come often."""
    tokens = RNG.integers(0, vocab, count)
    if often:
        tokens = np.minimum(RNG.geometric(0.05, count) - 1, vocab - 1)
    rows = RNG.standard_normal((count, dim)).astype(dtype)
    made = device.host(add_rows(device.array(rows), device.array(tokens), None, (vocab, dim)))
    np.testing.assert_array_equal(made, rows_added(np.zeros((vocab, dim), dtype), tokens, rows))
    assert made.dtype == dtype


def test_scattering_adds_to_what_is_there_and_knows_negative_indices(device):
    table, rows = RNG.standard_normal((6, 70)), RNG.standard_normal((4, 2, 70))
    index = np.array([[0, -1], [5, 2], [-1, -6], [2, 2]])
    once = rows_added(table, index, rows)
    moved = [device.array(a) for a in (table, index, rows)]
    device.backend.scatter_add(*moved)
    np.testing.assert_array_equal(device.host(moved[0]), once)
    device.backend.scatter_add(moved[0], moved[1], device.array(np.ones(70)))  # one row for every index
    np.testing.assert_array_equal(device.host(moved[0]), rows_added(once, index, np.ones((8, 70))))


def test_a_row_named_where_there_is_none_is_refused_by_the_host():
    with pytest.raises(IndexError):
        bng.ops.scatter_add(np.zeros((3, 64)), np.array([0, 3]), np.ones((2, 64)))


def test_padding_is_zero_has_no_gradient_and_stays(device):
    layer = nn.Embedding(6, 3, padding=4)
    params = layer.init(seed=0, dtype="float64", device=device.name)
    assert not np.any(device.host(params["W"])[4])
    assert np.all(device.host(params["W"])[[0, 1, 2, 3, 5]])
    params["W"][4] = 7.0  # whatever stands there
    x = device.array(np.array([[4, 1], [4, 4]]))
    with device.no_sync():
        y, slope = layer(params, x), grad(lambda p: np.sum(layer(p, x)))(params)
    np.testing.assert_array_equal(device.host(y)[np.array([[1, 0], [1, 1]]) == 1], 0)
    np.testing.assert_array_equal(device.host(slope["W"])[:, 0], [0, 1, 0, 0, 0, 0])


def test_the_two_operations_are_each_other_s_adjoint():
    tokens, g, w = np.array([3, 1, 3, 0, 2]), RNG.standard_normal((5, 2)), RNG.standard_normal((4, 2))
    for padding in (None, 3):
        there = np.sum(embed(w, tokens, padding) * g)
        np.testing.assert_allclose(np.sum(add_rows(g, tokens, padding, w.shape) * w), there, rtol=1e-14)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "int64", "uint64"])
def test_every_kind_of_integer_is_a_token(kind, device):
    layer = nn.Embedding(5, 70)
    params, tokens = layer.init(device=device.name), np.array([[4, 0, 4]], dtype=kind)
    y, back = vjp(lambda p: layer(p, device.array(tokens)), params)
    np.testing.assert_array_equal(device.host(y), device.host(params["W"])[[[4, 0, 4]]])
    (g,) = back(np.ones_like(y))
    np.testing.assert_array_equal(device.host(g["W"])[:, 0], [1, 0, 0, 0, 2])
    assert y.dtype == g.dtype == "float32"


def test_no_tokens_give_no_vectors(device):
    layer = nn.Embedding(5, 3, padding=0)
    params, x = layer.init(device=device.name), device.array(np.zeros((2, 0), int))
    assert layer(params, x).shape == (2, 0, 3)
    assert not np.any(device.host(grad(lambda p: np.sum(layer(p, x)))(params).flat))


def test_a_unit_is_a_row_and_the_default_is_normal():
    params = nn.Embedding(3, 5).init(blocks="unit")
    assert list(params.layout.block_names) == [".[0]", ".[1]", ".[2]"]
    w = nn.Embedding(200, 100).init(seed=0, dtype="float64")["W"]
    assert abs(w.var() - 1) < 5 * np.sqrt(2 / w.size)
    assert abs(w.mean()) < 5 / np.sqrt(w.size)
    assert np.all(nn.Embedding(2, 2, init="zeros").init()["W"] == 0)
    assert np.all(nn.Embedding(2, 2, init=nn.init.ones, padding=1).init()["W"] == [[1, 1], [0, 0]])


@pytest.mark.parametrize(
    "arguments, error, told",
    [
        ((0, 3), ValueError, "at least one token and one dimension, got 0 and 3"),
        ((4.0, 3), TypeError, "whole numbers"),
        ((4, 3, 4), ValueError, "padding is a token, 0 … 3, got 4"),
        ((4, 3, 1.5), TypeError, "whole numbers"),
        ((4, 3, None, "nrmal"), ValueError, "unknown initializer 'nrmal'; did you mean 'normal'"),
    ],
)
def test_what_is_no_embedding_is_refused(arguments, error, told):
    vocab, dim, padding, init = (*arguments, None, "normal")[:4] if len(arguments) < 4 else arguments
    with pytest.raises(error, match=told):
        nn.Embedding(vocab, dim, padding=padding, init=init)


@pytest.mark.parametrize(
    "tokens, error, told",
    [
        (np.array([[1, 10]]), IndexError, "layer 'words', Embedding(10, 2): tokens must lie in 0 … 9, got 10"),
        (np.array([-1]), IndexError, "layer 'words', Embedding(10, 2): tokens must lie in 0 … 9, got -1"),
        (np.array([[1.0, 2.0]]), TypeError, "takes tokens, an array of integers, got float64 of shape (1, 2)"),
        (np.array([True]), TypeError, "got bool of shape (1,)"),
        ([1, 2], TypeError, "the input is a list, not an array of tokens"),
    ],
)
def test_what_are_no_tokens_is_refused_by_the_layer_s_name(tokens, error, told):
    model = nn.Sequential(words=nn.Embedding(10, 2))
    with pytest.raises(error, match=re.escape(told)):
        model(model.init(), tokens)


def test_tokens_on_another_device_are_refused_and_on_a_device_looked_at_only_under_debug():
    layer = nn.Embedding(4, 2)
    params = layer.init(device="strict")
    with pytest.raises(TypeError, match=r"the tokens are on 'cpu', the parameters are on 'strict': use bng\.asarray"):
        layer(params, np.array([1]))
    with bng.debug(), pytest.raises(IndexError, match="got 4"):
        layer(params, bng.asarray(np.array([4]), device="strict"))


def test_traced_tokens_are_refused():
    layer = nn.Embedding(4, 2)
    with pytest.raises(TypeError, match="an array of integers, got float64"):
        grad(lambda x: np.sum(layer(layer.init(dtype="float64"), x)))(np.ones(3))
