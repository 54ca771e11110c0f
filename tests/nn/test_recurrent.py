"""Recurrent layers against PyTorch to second order; states that are carried, masks, dropout, and what is refused."""

import math

import numpy as np
import pytest

from minibng import grad, nn, value_and_grad, vjp
from minibng.autodiff.tracer import FUSED
from minibng.backend import asarray, forbid_sync

KINDS = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "tanh": nn.RNN,
    "relu": lambda *args, **settings: nn.RNN(*args, activation="relu", **settings),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def made(kind, *sizes, seed=1, dtype="float64", device="cpu", **settings):
    """A layer and its parameters, of which none is zero."""
    layer = KINDS[kind](*sizes, **settings)
    params = layer.init(seed, dtype=dtype, device=str(device))
    params.flat[...] += asarray(normal(params.flat.size, seed=seed) * 0.3, dtype=dtype, device=str(device))
    return layer, params


def some_state(layer, n, seed=5):
    """A state that is not zero: h, or (h, c)."""
    parts = [normal(layer.depth, n, layer.hidden, seed=seed + k) for k in range(len(layer.state))]
    return tuple(parts) if len(parts) > 1 else parts[0]


def as_list(state):
    return list(state) if isinstance(state, tuple) else [state]


def close(got, want, tolerance=1e-12):
    want = want.detach().numpy() if hasattr(want, "detach") else want
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * max(1.0, np.abs(want).max(initial=0)))


# Against PyTorch ------------------------------------------------------------------------------------------------------


def of_torch(torch, kind, layer, params):
    """PyTorch's layer with our weights; of its second bias only what a GRU's n has of its own may differ from zero."""
    names = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "tanh": torch.nn.RNN, "relu": torch.nn.RNN}
    settings = {"nonlinearity": kind} if kind in ("tanh", "relu") else {}
    theirs = names[kind](layer.inputs, layer.hidden, layer.depth, batch_first=True, dtype=torch.float64, **settings)
    leaves = {}
    for k in range(layer.depth):
        for ours, other in {"W": "weight_ih", "U": "weight_hh", "b": "bias_ih"}.items():
            value = getattr(theirs, f"{other}_l{k}")
            value.data[...] = torch.tensor(np.asarray(params[f"{k}.{ours}"]).T)
            leaves[f"{k}.{ours}"] = value
        second = getattr(theirs, f"bias_hh_l{k}")
        second.data[...] = 0
        if kind == "gru":
            second.data[2 * layer.hidden :] = torch.tensor(params[f"{k}.c"])
            leaves[f"{k}.c"] = second
    return theirs, leaves


def in_our_order(name, g, hidden):
    """A derivative by one of PyTorch's tensors as one by ours."""
    return g.T if name[-1] in "WU" else g[2 * hidden :] if name[-1] == "c" else g


@pytest.mark.peer
@each_kind
@pytest.mark.parametrize("sizes", [(3, 6, 4, 5, 2), (1, 1, 1, 1, 1), (2, 9, 3, 2, 3)], ids=str)
def test_values_first_and_second_derivatives_are_torch_s(torch, kind, sizes):
    n, steps, inputs, hidden, layers = sizes
    layer, params = made(kind, inputs, hidden, layers)
    theirs, leaves = of_torch(torch, kind, layer, params)
    x, state = normal(n, steps, inputs), some_state(layer, n)
    weights = [normal(n, steps, hidden, seed=2), *[normal(*s.shape, seed=3) for s in as_list(state)]]
    names = list(params)
    along = [normal(*a.shape, seed=4) for a in (x, *as_list(state), *[params[name] for name in names])]

    def loss(x, *rest):
        parts, tensors = rest[: len(layer.state)], rest[len(layer.state) :]
        y, after = layer.run(dict(zip(names, tensors, strict=True)), x, parts if len(parts) > 1 else parts[0])
        return sum(np.sum(w * np.square(v)) for w, v in zip(weights, [y, *as_list(after)], strict=True))

    args = [x, *as_list(state), *[params[name] for name in names]]
    every = tuple(range(len(args)))

    def slope(*args):
        return sum(np.sum(g * v) for g, v in zip(grad(loss, every)(*args), along, strict=True))

    value, first = value_and_grad(loss, every)(*args)
    second = grad(slope, every)(*args)

    tx, *ts = [torch.tensor(a, requires_grad=True) for a in (x, *as_list(state))]
    ty, after = theirs(tx, tuple(ts) if len(ts) > 1 else ts[0])
    outs = [ty, *as_list(after)]
    y, ours_after = layer.run(params, x, state)
    for mine, other in zip([y, *as_list(ours_after)], outs, strict=True):
        close(mine, other, 1e-8)
    tloss = sum((torch.tensor(w) * v**2).sum() for w, v in zip(weights, outs, strict=True))
    close(value, tloss, 1e-8)
    tleaves = [tx, *ts, *[leaves[name] for name in names]]
    tfirst = torch.autograd.grad(tloss, tleaves, create_graph=True)
    turn = [lambda g: g] * (1 + len(ts)) + [lambda g, name=name: in_our_order(name, g, hidden) for name in names]
    tslope = sum((f(g) * torch.tensor(v)).sum() for f, g, v in zip(turn, tfirst, along, strict=True))
    tsecond = torch.autograd.grad(tslope, tleaves)
    for f, mine, other in zip(turn * 2, [*first, *second], [*tfirst, *tsecond], strict=True):
        close(mine, f(other), 1e-8)


@pytest.mark.peer
@each_kind
def test_a_mask_at_the_end_is_torch_s_packed_sequence(torch, kind):
    layer, params = made(kind, 4, 5, 2)
    theirs, leaves = of_torch(torch, kind, layer, params)
    lengths = [6, 2, 5, 1]
    x, mask = normal(4, 6, 4), np.arange(6) < np.array(lengths)[:, None]
    weights = normal(4, 6, 5, seed=2)
    names = list(params)

    def loss(x, *tensors):
        y, after = layer.run(dict(zip(names, tensors, strict=True)), x, mask=mask)
        return np.sum(weights * y) + sum(np.sum(np.square(part)) for part in as_list(after))

    value, gs = value_and_grad(loss, tuple(range(1 + len(names))))(x, *[params[name] for name in names])
    tx = torch.tensor(x, requires_grad=True)
    rnn = torch.nn.utils.rnn
    packed, after = theirs(rnn.pack_padded_sequence(tx, lengths, batch_first=True, enforce_sorted=False))
    ty, _ = rnn.pad_packed_sequence(packed, batch_first=True)
    tloss = (torch.tensor(weights) * ty).sum() + sum((part**2).sum() for part in as_list(after))
    close(value, tloss, 1e-8)
    tgs = torch.autograd.grad(tloss, [tx, *[leaves[name] for name in names]])
    close(gs[0], tgs[0], 1e-8)
    for name, mine, other in zip(names, gs[1:], tgs[1:], strict=True):
        close(mine, in_our_order(name, other, 5), 1e-8)


# States ---------------------------------------------------------------------------------------------------------------


@each_kind
def test_carried_states_make_one_long_sequence(kind, device):
    layer, params = made(kind, 3, 4, 2, device=device)
    x, weights = device.array(normal(2, 13, 3)), device.array(normal(2, 13, 4, seed=2))

    def whole(params, x):
        y, after = layer.run(params, x)
        return np.sum(weights * y), after

    def in_parts(params, x):
        total, state, start = 0.0, None, 0
        for steps in (1, 6, 2, 4):
            here = slice(start, start + steps)
            y, state = layer.run(params, x[:, here], state)
            total, start = total + np.sum(weights[:, here] * y), start + steps
        return total, state

    with forbid_sync():
        found = [value_and_grad(f, has_aux=True)(params, x) for f in (whole, in_parts)]
    ((value, after), slopes), ((value_2, after_2), slopes_2) = found
    close(device.host(value_2), device.host(value))
    for mine, other in zip(as_list(after_2), as_list(after), strict=True):
        close(device.host(mine), device.host(other))
    close(device.host(slopes_2.flat), device.host(slopes.flat))


@each_kind
def test_the_state_is_that_of_the_last_step_and_its_own_memory(kind):
    layer, params = made(kind, 3, 4, 2)
    y, after = layer.run(params, normal(2, 5, 3))
    h = as_list(after)[0]
    np.testing.assert_array_equal(h[-1], y[:, -1])
    kept = y.copy()
    for part in as_list(after):
        part[...] = 9
    np.testing.assert_array_equal(y, kept)
    np.testing.assert_array_equal(y, layer(params, normal(2, 5, 3)))


# Masks ----------------------------------------------------------------------------------------------------------------


@each_kind
def test_a_mask_anywhere_is_the_sequence_without_those_entries(kind, device):
    """Whatever stands in a masked entry, NaN too, reaches neither values nor derivatives."""
    layer, params = made(kind, 3, 4, 2, device=device)
    n, steps = 4, 7
    mask = np.random.default_rng(3).random((n, steps)) < 0.6
    mask[1], mask[2] = False, True
    x, weights = normal(n, steps, 3), normal(n, steps, 4, seed=2)
    x[~mask] = np.nan
    start = some_state(layer, n)
    x_there, mask_there, w_there = (device.array(a) for a in (x, mask, weights))
    state = tuple(map(device.array, start)) if isinstance(start, tuple) else device.array(start)

    def masked(params, x, state):
        y, after = layer.run(params, x, state, mask=mask_there)
        return np.sum(w_there * y) + sum(np.sum(np.square(s)) for s in as_list(after)), (y, after)

    with forbid_sync():
        (_, (y, after)), (slopes, dx) = value_and_grad(masked, (0, 1), has_aux=True)(params, x_there, state)
    y, after, slopes, dx = device.host(y), device.host(as_list(after)), device.host(slopes.flat), device.host(dx)
    assert not y[~mask].any() and not dx[~mask].any()

    layer, params = made(kind, 3, 4, 2)
    total = np.zeros_like(slopes)
    for row in range(n):
        real = mask[row]
        first = [part[:, row : row + 1] for part in as_list(start)]
        if not real.any():
            for mine, other in zip(after, first, strict=True):
                np.testing.assert_array_equal(mine[:, row : row + 1], other)
            continue

        def alone(params, x, row=row, real=real, first=first):
            y, after = layer.run(params, x, tuple(first) if len(first) > 1 else first[0])
            return np.sum(weights[row, real] * y) + sum(np.sum(np.square(s)) for s in as_list(after)), (y, after)

        (_, (y_one, last)), (slopes_one, dx_one) = value_and_grad(alone, (0, 1), has_aux=True)(
            params, x[row : row + 1, real]
        )
        close(y[row, real], y_one[0])
        close(dx[row, real], dx_one[0])
        for mine, other in zip(after, as_list(last), strict=True):
            close(mine[:, row : row + 1], other)
        total += slopes_one.flat
    close(slopes, total)


# Numbers --------------------------------------------------------------------------------------------------------------


@each_kind
def test_float32_stays_float32(kind, device):
    layer, params = made(kind, 3, 4, 2, dtype="float32", device=device, dropout=0.5)
    x, mask = device.array(normal(2, 6, 3), "float32"), device.array(np.ones((2, 6), bool))

    def loss(params, x):
        y, after = layer.run(params, x, mask=mask, train=True)
        return np.sum(y) + sum(np.sum(s) for s in as_list(after)), (y, after)

    (value, (y, after)), (slopes, dx) = value_and_grad(loss, (0, 1), has_aux=True)(params, x)
    assert {a.dtype for a in (value, y, *as_list(after), slopes.flat, dx)} == {np.dtype("float32")}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@each_kind
def test_gates_that_saturate_stay_finite(kind, dtype):
    layer, params = made(kind, 2, 3, dtype=dtype)
    params.flat[...] *= 1e4
    x = normal(4, 6, 2).astype(dtype) * 1e3
    if kind == "relu":
        x, params.flat[...] = x / 1e3, params.flat / 1e4
    (_, y), (slopes, dx) = value_and_grad(lambda p, x: (np.sum(y := layer(p, x)), y), (0, 1), has_aux=True)(params, x)
    assert all(np.isfinite(a).all() for a in (y, slopes.flat, dx))
    if kind != "relu":
        assert np.abs(y).max() <= 1


@each_kind
def test_a_pullback_may_be_called_again_and_values_do_not_depend_on_the_trace(kind):
    layer, params = made(kind, 3, 4, 2)
    x, g = normal(2, 6, 3), normal(2, 6, 4, seed=2)
    y, pull = vjp(lambda x: layer(params, x), x)
    (first,), (again,) = pull(g), pull(g)
    np.testing.assert_array_equal(again, first)
    np.testing.assert_array_equal(layer(params, x), y)


def test_without_a_trace_no_slopes_are_kept(monkeypatch):
    kept = []
    for name in ("lstm", "gru"):
        forward = FUSED[name]
        monkeypatch.setattr(
            f"minibng.nn.recurrences.{name}", lambda *a, f=forward, keep: kept.append(keep) or f(*a, keep=keep)
        )
        layer, params = made(name, 3, 4)
        layer(params, normal(2, 6, 3))
        grad(lambda p, layer=layer: np.sum(layer(p, normal(2, 6, 3))))(params)
    assert kept == [False, True] * 2


# Layers ---------------------------------------------------------------------------------------------------------------


def test_tensors_are_named_by_layer_and_each_layer_is_a_block():
    params = nn.LSTM(3, 4, 2, dropout=0.5).init()
    shapes = {name: params[name].shape for name in params}
    assert shapes == {"0.W": (3, 16), "0.U": (4, 16), "0.b": (16,), "1.W": (4, 16), "1.U": (4, 16), "1.b": (16,)}
    assert params.layout.block_names == ("0", "1")
    assert list(params.buffers) == ["drop0.counter"]
    assert {n: v.shape for n, v in nn.GRU(3, 4).init().items()} == {
        "0.W": (3, 12), "0.U": (4, 12), "0.b": (12,), "0.c": (4,),
    }  # fmt: skip
    assert [v.shape for _, v in nn.RNN(3, 4).init().items()] == [(3, 4), (4, 4), (4,)]


def test_first_values_are_uniform_and_the_forget_gate_is_open():
    with pytest.raises(TypeError, match="NoneType"):
        nn.LSTM(30, 64, forget_bias=None)
    params = nn.LSTM(30, 64, forget_bias=2.0).init(dtype="float64")
    for name in ("0.W", "0.U"):
        limit = 1 / math.sqrt(64)
        assert 0.98 * limit < np.abs(params[name]).max() <= limit
        assert abs(params[name].std() / (limit / math.sqrt(3)) - 1) < 0.03
    np.testing.assert_array_equal(params["0.b"], np.repeat([0.0, 2.0, 0.0, 0.0], 64))
    assert nn.LSTM(2, 1).init()["0.b"].tolist() == [0, 1, 0, 0]
    assert not nn.GRU(2, 3).init()["0.b"].any()


@each_kind
def test_dropout_is_between_layers_only(kind, device):
    layer, params = made(kind, 3, 4, 3, dropout=0.5, device=device)
    x = device.array(normal(2, 5, 3))
    bare = KINDS[kind](3, 4, 3)
    np.testing.assert_array_equal(device.host(layer(params, x)), device.host(bare(params, x)))
    counters = dict(params.buffers)
    y = layer(params, x, train=True)
    assert {n: c - counters[n] for n, c in params.buffers.items()} == {"drop0.counter": 1, "drop1.counter": 1}

    for name, counter in counters.items():
        params.buffers[name] = counter
    for k in range(3):  # the same by hand
        one = KINDS[kind](3 if k == 0 else 4, 4)
        x = one({f"0.{n.partition('.')[2]}": params[n] for n in params if n.startswith(f"{k}.")}, x)
        x = nn.Dropout(0.5)(params.scope(f"drop{k}"), x, train=True) if k < 2 else x
    np.testing.assert_array_equal(device.host(y), device.host(x))


def test_in_a_sequence_of_layers():
    model = nn.Sequential(nn.LSTM(3, 4, 2), nn.GRU(4, 5), nn.RNN(5, 2, activation="relu"), nn.Linear(2, 1))
    assert repr(model) == "Sequential(LSTM(3, 4, 2), GRU(4, 5), RNN(5, 2, activation='relu'), Linear(2, 1))"
    params = model.init()
    assert params.layout.block_names == ("0.0", "0.1", "1.0", "2.0", "3")
    assert model(params, np.zeros((2, 6, 3), "float32")).shape == (2, 6, 1)
    assert repr(nn.LSTM(3, 4, dropout=0.1, forget_bias=0.0)) == "LSTM(3, 4, dropout=0.1, forget_bias=0)"


def test_no_sequences_at_all():
    layer, params = made("lstm", 3, 4)
    y, (h, c) = layer.run(params, np.zeros((0, 5, 3)))
    assert y.shape == (0, 5, 4) and h.shape == c.shape == (1, 0, 4)


# What is refused ------------------------------------------------------------------------------------------------------


X = np.zeros((2, 5, 3))
ZEROS = np.zeros((2, 2, 4))
REFUSED = {
    "tokens": ((np.zeros((2, 5), int),), {}, TypeError, r"LSTM\(3, 4, 2\) takes vectors .*int64 .*nn.Embedding"),
    "one sequence": ((X[0],), {}, ValueError, r"takes \(N, T, D\), got shape \(5, 3\): one sequence is x\[None\]"),
    "other size": ((np.zeros((2, 5, 4)),), {}, ValueError, r"3 in axis -1, got shape \(2, 5, 4\)"),
    "dtype": ((X.astype("float32"),), {}, TypeError, r"input is float32, the parameters are float64"),
    "no steps": ((X[:, :0],), {}, ValueError, r"at least one step, got shape \(2, 0, 3\)"),
    "a list": (([[1.0]],), {}, TypeError, r"is a list, not an array \(N, T, D\)"),
    "mask shape": ((X,), {"mask": np.ones((5, 2), bool)}, ValueError, r"mask of shape \(2, 5\), got \(5, 2\)"),
    "mask dtype": ((X,), {"mask": np.ones((2, 5))}, TypeError, r"an array of booleans .*tokens != 0, got float64"),
    "mask list": ((X,), {"mask": [[True] * 5] * 2}, TypeError, r"an array of booleans .*got list"),
    "half a state": ((X, ZEROS), {}, TypeError, r"the state is \(h, c\), each \(L, N, H\), got a ndarray"),
    "no array": ((X, (ZEROS, None)), {}, TypeError, r"got a NoneType for c"),
    "other batch": ((X, (ZEROS, np.zeros((2, 3, 4)))), {}, ValueError, r"c has shape \(2, 3, 4\).*\(2, 2, 4\).*None"),
    "other depth": ((X, (ZEROS[:1], ZEROS[:1])), {}, ValueError, r"h has shape \(1, 2, 4\), needed is \(2, 2, 4\)$"),
    "state dtype": ((X, (ZEROS, ZEROS.astype("float32"))), {}, TypeError, r"c is float32, the parameters are float64"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(name):
    args, settings, error, told = REFUSED[name]
    layer = nn.LSTM(3, 4, 2)
    with pytest.raises(error, match=told):
        layer.run(layer.init(dtype="float64"), *args, **settings)


def test_a_state_or_mask_of_another_device_is_refused():
    layer, params = made("gru", 3, 4, device="strict")
    x = asarray(X, device="strict")
    with pytest.raises(TypeError, match=r"h is on 'cpu', the parameters are on 'strict': use bng.asarray\(h"):
        layer.run(params, x, np.zeros((1, 2, 4)))
    with pytest.raises(TypeError, match="mask is on 'cpu'"):
        layer.run(params, x, mask=np.ones((2, 5), bool))


def test_sizes_that_make_no_layer_are_refused():
    with pytest.raises(ValueError, match="GRU needs at least one input, one hidden unit and one layer, got 3, 0 and 1"):
        nn.GRU(3, 0)
    with pytest.raises(TypeError, match="LSTM takes whole numbers"):
        nn.LSTM(3.5, 4)
    with pytest.raises(ValueError, match="did you mean 'relu'"):
        nn.RNN(3, 4, activation="rely")
    with pytest.raises(ValueError, match="rate must lie in"):
        nn.LSTM(3, 4, 2, dropout=1.0)


def test_a_message_names_the_layer_in_its_model():
    model = nn.Sequential(nn.Linear(2, 3), nn.GRU(3, 4))
    with pytest.raises(ValueError, match=r"layer '1', GRU\(3, 4\) takes \(N, T, D\), got shape \(5, 3\)"):
        model(model.init(), np.zeros((5, 2), "float32"))
