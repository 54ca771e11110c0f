"""Sequential, Residual, Flatten, layers of one's own, and what all of them say of themselves."""

import numpy as np
import pytest

from minibng import Params, check_grads, grad, nn

RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, 4))


def test_names_nest():
    model = nn.Sequential(
        nn.Linear(4, 3),
        nn.Residual(nn.Sequential(nn.Linear(3, 3), nn.relu, nn.Dropout(0.1)), nn.Linear(3, 3, bias=False)),
        nn.Sequential(nn.Sequential(nn.Linear(3, 2))),
    )
    params = model.init(seed=0)
    assert list(params) == ["0.W", "0.b", "1.body.0.W", "1.body.0.b", "1.shortcut.W", "2.0.0.W", "2.0.0.b"]
    assert list(params.buffers) == ["1.body.2.counter"]
    assert list(params.layout.block_names) == ["0", "1.body.0", "1.shortcut", "2.0.0"]
    assert repr(model) == (
        "Sequential(Linear(4, 3), Residual(Sequential(Linear(3, 3), relu, Dropout(0.1)), "
        "Linear(3, 3, bias=False)), Sequential(Sequential(Linear(3, 2))))"
    )


def test_a_sequence_is_the_composition_of_its_layers(device):
    model = nn.Sequential(nn.Linear(4, 3), nn.tanh, lambda x: x * 2, nn.Linear(3, 2))
    p = model.init(seed=0, dtype="float64")
    expected = 2 * np.tanh(X @ p["0.W"] + p["0.b"]) @ p["3.W"] + p["3.b"]
    p, x = p.to(device.name), device.array(X)
    np.testing.assert_allclose(device.host(model(p, x)), expected, rtol=1e-13)
    check_grads(lambda p, x: model(p, x), p, x)


def test_layers_of_a_sequence_may_have_names(device):
    model = nn.Sequential(nn.Flatten(), body=nn.Sequential(nn.Linear(4, 3), act=nn.tanh), head=nn.Linear(3, 2))
    p = model.init(seed=0, dtype="float64")
    assert list(p) == ["body.0.W", "body.0.b", "head.W", "head.b"]
    expected = np.tanh(X @ p["body.0.W"] + p["body.0.b"]) @ p["head.W"] + p["head.b"]
    np.testing.assert_allclose(device.host(model(p.to(device.name), device.array(X))), expected)
    told = "Sequential(Flatten(), body=Sequential(Linear(4, 3), act=tanh), head=Linear(3, 2))"
    assert repr(model) == told
    with pytest.raises(TypeError, match="layer 'head' of Sequential is the class Flatten"):
        nn.Sequential(head=nn.Flatten)
    for name in ("0", "a.b"):
        with pytest.raises(ValueError, match=f"named like a variable, got '{name}'"):
            nn.Sequential(nn.relu, **{name: nn.relu})


def test_an_empty_sequence_is_the_identity(device):
    model = nn.Sequential()
    x = device.array(X)
    assert model(model.init(device=device.name), x) is x


@pytest.mark.parametrize("layer", [None, 3, "relu"])
def test_what_cannot_be_a_layer_is_refused_by_position(layer):
    with pytest.raises(TypeError, match=f"layer 1 of Sequential is a {type(layer).__name__}"):
        nn.Sequential(nn.relu, layer)


def test_residual_adds_its_shortcut(device):
    plain = nn.Residual(nn.Linear(4, 4))
    p, x = plain.init(seed=0, dtype="float64"), device.array(X)
    y = device.host(plain(p.to(device.name), x))
    np.testing.assert_allclose(y, X @ p["body.W"] + p["body.b"] + X)
    mapped = nn.Residual(nn.Sequential(nn.Linear(4, 3), nn.tanh), nn.Linear(4, 3))
    p = mapped.init(seed=0, dtype="float64")
    expected = np.tanh(X @ p["body.0.W"] + p["body.0.b"]) + X @ p["shortcut.W"] + p["shortcut.b"]
    p = p.to(device.name)
    np.testing.assert_allclose(device.host(mapped(p, x)), expected)
    check_grads(lambda p, x: mapped(p, x), p, x)
    np.testing.assert_allclose(device.host(nn.Residual(nn.tanh)(Params.of({}), x)), np.tanh(X) + X)


def test_a_residual_may_end_in_an_activation(device):
    layer = nn.Residual(nn.Linear(4, 4), activation=nn.relu)
    p = layer.init(seed=0, dtype="float64")
    y = layer(p.to(device.name), device.array(X))
    np.testing.assert_allclose(device.host(y), np.maximum(X @ p["body.W"] + p["body.b"] + X, 0))
    check_grads(lambda p, x: layer(p, x), p.to(device.name), device.array(X))
    assert repr(layer) == "Residual(Linear(4, 4), activation=relu)"
    with pytest.raises(TypeError, match="the activation of Residual is a str"):
        nn.Residual(nn.Linear(4, 4), activation="relu")


def test_a_residual_of_two_shapes_is_refused_with_both():
    layer = nn.Residual(nn.Linear(4, 3))
    with pytest.raises(ValueError, match=r"Residual.*\(5, 3\).*\(5, 4\)"):
        layer(layer.init(dtype="float64"), X)
    broadcasts = nn.Residual(lambda x: x[:1])
    with pytest.raises(ValueError, match=r"\(1, 4\).*\(5, 4\)"):
        broadcasts(Params.of({}), X)


@pytest.mark.parametrize("shape, to", [((5, 2, 3), (5, 6)), ((5, 4), (5, 4)), ((5,), (5, 1)), ((0, 2, 3), (0, 6))])
def test_flatten_keeps_the_batch(shape, to, device):
    x = device.array(np.arange(float(np.prod(shape))).reshape(shape))
    y = nn.Flatten()(Params.of({}), x)
    assert y.shape == to
    np.testing.assert_array_equal(device.host(y.reshape(-1)), device.host(x.reshape(-1)))
    check_grads(lambda x: nn.Flatten()(Params.of({}), x), x)
    assert repr(nn.Flatten()) == "Flatten()"


class Scale:
    """A layer of one's own, with a buffer that counts; it derives from nothing."""

    def tensors(self):
        return {"s": nn.Spec((4,), lambda rng, shape: np.full(shape, 2.0))}

    def buffers(self):
        return {"calls": lambda rng: 0, "largest": lambda rng: np.zeros(1)}

    def __call__(self, p, x, *, train=False):
        if train:
            p.buffers["calls"] += 1
            p.buffers["largest"] = np.maximum(p.buffers["largest"], x.shape[0])
        return x * p["s"]


def test_a_layer_of_one_s_own_is_any_object_with_the_methods(device):
    model = nn.Sequential(nn.Linear(4, 4), Scale(), np.tanh)
    p = model.init(seed=0, dtype="float64")
    assert list(p) == ["0.W", "0.b", "1.s"] and set(p.buffers) == {"1.calls", "1.largest"}
    expected, p, x = np.tanh((X @ p["0.W"] + p["0.b"]) * 2), p.to(device.name), device.array(X)
    np.testing.assert_allclose(device.host(model(p, x)), expected)
    check_grads(lambda p, x: model(p, x), p, x)
    with device.no_sync():
        grad(lambda p: np.sum(model(p, x, train=True)))(p)
    assert p.buffers["1.calls"] == 1 and device.host(p.buffers["1.largest"]) == 5
    assert p.buffers["1.largest"].dtype == np.float64
    assert "0 calls" not in repr(model)


def test_a_composite_of_one_s_own_names_its_parts(device):
    class Twice(nn.Composite):
        def __init__(self):
            self.layers = {"first": nn.Linear(4, 4), "second": Scale()}

        def __call__(self, p, x, *, train=False):
            y = self.layers["first"](p.scope("first"), x)
            return self.layers["second"](p.scope("second"), y, train=train)

    model = nn.Sequential(Twice(), nn.tanh)
    p = model.init(seed=0, dtype="float64")
    assert list(p.layout.block_names) == ["0.first", "0.second"] and "0.second.calls" in p.buffers
    expected = np.tanh((X @ p["0.first.W"] + p["0.first.b"]) * 2)
    np.testing.assert_allclose(device.host(model(p.to(device.name), device.array(X))), expected)
    assert repr(model) == "Sequential(Twice(), tanh)"


def test_train_reaches_every_layer():
    model = nn.Sequential(nn.Residual(nn.Sequential(Scale())), Scale())
    p = model.init(dtype="float64")
    model(p, X)
    assert [p.buffers["0.body.0.calls"], p.buffers["1.calls"]] == [0, 0]
    model(p, X, train=True)
    assert [p.buffers["0.body.0.calls"], p.buffers["1.calls"]] == [1, 1]


# init


def test_the_same_seed_gives_the_same_parameters():
    model = nn.Sequential(nn.Linear(4, 3), nn.relu, nn.Dropout(0.5), nn.Linear(3, 2))
    a, b, c = model.init(seed=1), model.init(seed=1), model.init(seed=2)
    np.testing.assert_array_equal(a.flat, b.flat)
    assert a.buffers == b.buffers and a.buffers != c.buffers
    assert not np.array_equal(a.flat, c.flat) and not np.shares_memory(a.flat, b.flat)
    np.testing.assert_array_equal(model.init(seed=1, dtype="float64").flat.astype("float32"), a.flat)
    np.testing.assert_array_equal(model.init(seed=1, blocks="tensor").flat, a.flat)
    assert a.dtype == np.float32


def test_parameters_and_buffers_are_the_same_on_every_device(device):
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), Scale(), nn.LayerNorm(3))
    here, there = model.init(seed=1), model.init(seed=1, device=device.name)
    assert type(there.flat) is type(there["0.W"]) is device.backend.array_type
    np.testing.assert_array_equal(device.host(there.flat), here.flat)
    assert device.host(there.buffers) == here.buffers


def test_making_parameters_leaves_the_global_generator_alone():
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    nn.Linear(4, 3).init(seed=0)
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_init_takes_the_partition_and_refuses_other_dtypes_and_devices():
    model = nn.Sequential(nn.Linear(4, 3))
    assert len(model.init(blocks="global").layout.block_names) == 1
    for dtype in ("float16", "int64"):
        with pytest.raises(TypeError, match=f"float32 or float64, got {dtype}"):
            model.init(dtype=dtype)
    with pytest.raises(ValueError, match="unknown device 'cpuu'; did you mean 'cpu'"):
        model.init(device="cpuu")
    with pytest.raises(ValueError, match="unknown partition"):
        model.init(blocks="neurons")


# summary


def test_summary_lists_layers_shapes_and_parameters():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.relu, nn.Residual(nn.Linear(3, 3)), Scale())
    assert model.summary().splitlines()[-1] == "31 parameters in 3 blocks"
    lines = nn.Sequential(nn.Linear(4, 3), nn.relu).summary(X.astype("float32")).splitlines()
    assert [line.split() for line in lines[:-1]] == [
        ["name", "layer", "output", "parameters"],
        ["0", "Linear(4,", "3)", "(5,", "3)", "15"],
        ["1", "relu", "(5,", "3)", "0"],
    ]
    assert lines[-1] == "15 parameters in 1 block"
    assert nn.Linear(4, 3).summary().splitlines()[-1] == "15 parameters in 1 block"


def test_summary_tells_sequences_inside_by_their_own_layers():
    inner = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.tanh, last=nn.Linear(3, 2)))
    model = nn.Sequential(nn.Linear(4, 3), nn.Sequential(), nn.Residual(nn.Sequential(nn.relu)), part=inner)
    lines = model.summary(X.astype("float32")).splitlines()[1:-1]
    assert [line.split()[0] for line in lines] == ["0", "2", "part.0", "part.1.0", "part.1.last"]
    assert [line.split()[-1] for line in lines] == ["15", "0", "12", "0", "8"]
    assert lines[-1].split()[-3:-1] == ["(5,", "2)"]


def test_summary_of_a_residual_gives_its_parts_the_same_input():
    layer = nn.Residual(nn.Linear(4, 3), nn.Linear(4, 3, bias=False))
    text = layer.summary(X.astype("float32"))
    assert "27 parameters in 2 blocks" in text
    assert "(5, 3)" in text


def test_swapped_arguments_are_told_the_order():
    for model in (nn.Sequential(nn.Linear(4, 3)), nn.Residual(nn.Linear(4, 4)), nn.Linear(4, 3)):
        with pytest.raises(TypeError, match=r"call model\(params, x\), in this order: params is a ndarray"):
            model(X, model.init(dtype="float64"))


def test_bytes_are_told_how_they_become_numbers():
    with pytest.raises(TypeError, match=r"x\.astype\('float32'\) / 255, or.*scaled\(x\)"):
        nn.Linear(4, 3)(nn.Linear(4, 3).init(), np.zeros((5, 4), "uint8"))


def test_an_attribute_error_inside_a_layer_stays_what_it_is():
    model = nn.Sequential(lambda x: x.nothing)
    with pytest.raises(AttributeError, match="nothing"):
        model(model.init(), X)


def test_the_class_of_a_layer_is_no_layer():
    with pytest.raises(TypeError, match=r"layer 1 of Sequential is the class LayerNorm.*LayerNorm\(…\)"):
        nn.Sequential(nn.Linear(3, 4), nn.LayerNorm)
    with pytest.raises(TypeError, match=r"the shortcut of Residual is the class Flatten"):
        nn.Residual(nn.relu, nn.Flatten)
    with pytest.raises(TypeError, match="the body of Residual is a int"):
        nn.Residual(3)


class Told(nn.Layer):
    """A layer whose one tensor is what it is made with."""

    def __init__(self, spec):
        self.spec = spec

    def tensors(self):
        return {"s": self.spec}

    def __call__(self, p, x, *, train=False):
        return x * p["s"]


def test_a_tensor_that_is_no_spec_is_refused_by_name():
    for layer, name in ((Told(np.ones(4)), "s"), (nn.Sequential(nn.relu, Told(((4,), np.ones))), "1.s")):
        with pytest.raises(TypeError, match=rf"tensor '{name}' is told as a .*nn.Spec\(shape, init\)"):
            layer.init()


@pytest.mark.parametrize("shape", [(4,), (1, 3), (3, 1), (3,)])
def test_first_values_of_another_shape_are_refused_by_name(shape):
    layer = nn.Sequential(Told(nn.Spec((4, 3), lambda rng, _: np.ones(shape))))
    with pytest.raises(ValueError) as caught:
        layer.init()
    assert str(caught.value) == f"tensor '0.s' has shape (4, 3), its init returned {shape}"


def test_a_number_may_fill_a_tensor():
    assert Told(nn.Spec((2,), lambda rng, _: 3.0)).init().flat.tolist() == [3.0, 3.0]


@pytest.mark.parametrize("name, near", [("Relu", "relu"), ("ReLU", "relu"), ("crossentropy", "cross_entropy")])
def test_an_unknown_name_is_answered_with_the_nearest(name, near):
    with pytest.raises(AttributeError, match=f"unknown name in minibng.nn '{name}'; did you mean '{near}'"):
        getattr(nn, name)
    assert dir(nn) == sorted(nn.__all__) and not hasattr(nn, "__wrapped__")
