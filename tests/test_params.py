"""The vector x = (x^1, …, x^B): where each tensor lies, which block it belongs to, what shares memory with what."""

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibng import Layout, Params, grad, hvp, nn, value_and_grad, vjp
from minibng.autodiff import Traced, flatten
from minibng.backend import Group, asarray, backend_of
from minibng.names import UnknownNameError
from minibng.params import PARTITIONS as NAMES
from minibng.params import layer_of, partition

SHAPES = {"0.W": (2, 3), "0.b": (3,), "2.body.W": (3, 1), "2.body.b": (), "4.W": (0, 2)}


def filled(shapes=None, dtype="float64", blocks="layer", buffers=None, up=np.asarray):
    """1, 2, 3, …; ``up`` brings them to a device."""
    layout = Layout(shapes or SHAPES, blocks)
    return Params(layout, up(np.arange(1.0, layout.size + 1).astype(dtype)), buffers)


# Layout


def test_offsets_sizes_and_total():
    layout = Layout(SHAPES)
    assert layout.names == tuple(SHAPES)
    assert layout.shapes == tuple(SHAPES.values())
    assert layout.sizes == (6, 3, 3, 1, 0)
    assert layout.offsets == (0, 6, 9, 12, 13)
    assert layout.size == 13


PARTITIONS = {
    "layer": [("0", (0, 1)), ("2.body", (2, 3)), ("4", (4,))],
    "tensor": [("0.W", (0,)), ("0.b", (1,)), ("2.body.W", (2,)), ("2.body.b", (3,)), ("4.W", (4,))],
    "global": [("all", (0, 1, 2, 3, 4))],
}


@pytest.mark.parametrize("blocks", PARTITIONS)
def test_partitions(blocks):
    expected = tuple(Group.whole(*b, list(SHAPES.values())) for b in PARTITIONS[blocks])
    assert Layout(SHAPES, blocks).groups == expected
    assert partition(SHAPES, blocks) == expected
    assert list(Layout(SHAPES, blocks).block_names) == [name for name, _ in PARTITIONS[blocks]]
    assert Layout(SHAPES).with_blocks(blocks) == Layout(SHAPES, blocks)


def test_the_layer_is_the_default_block():
    assert Layout(SHAPES).groups == Layout(SHAPES, "layer").groups
    assert [layer_of(n) for n in ("3.conv.W", "0.b", "W")] == ["3.conv", "0", "."]


def test_a_layer_whose_tensors_are_apart_is_one_block_of_several_stretches(device):
    params = filled({"a.W": (2,), "b.W": (3,), "a.b": (1,)}, up=device.array)
    blocks = dict(params.blocks())
    assert list(blocks) == ["a", "b"]
    assert np.concatenate(blocks["a"]).tolist() == [1, 2, 6]
    assert [v.shape for v in blocks["a"]] == [(2,), (1,)]


def test_an_unknown_partition_offers_the_nearest():
    with pytest.raises(UnknownNameError, match="unknown partition 'layers'; did you mean 'layer'"):
        Layout(SHAPES, "layers")


def test_the_table_lists_blocks_tensors_shapes_and_sizes():
    assert repr(Layout({"0.W": (784, 100), "0.b": (100,), "2.W": (100, 10)})).splitlines() == [
        "block  tensor  shape         size",
        "0      0.W     (784, 100)  78,400",
        "       0.b     (100,)         100",
        "2      2.W     (100, 10)    1,000",
        "2 blocks, 3 tensors, 79,500 numbers",
    ]


def test_layouts_are_equal_where_names_shapes_and_blocks_are():
    assert Layout(SHAPES) == Layout(SHAPES)
    assert hash(Layout(SHAPES)) == hash(Layout(SHAPES))
    others = [Layout(SHAPES, "tensor"), Layout({**SHAPES, "0.b": (4,)}), Layout(dict(reversed(SHAPES.items())))]
    assert all(Layout(SHAPES) != other for other in others)
    assert Layout(SHAPES) != "a layout"


def test_the_difference_of_two_layouts_is_told_in_words():
    layout = Layout(SHAPES)
    assert layout.difference(Layout(SHAPES, "global")) is None
    assert "'0.b' has shape (3,) in one and (4,) in the other" in layout.difference(Layout({**SHAPES, "0.b": (4,)}))
    assert "tensor 0 is '0.W' in one and 'W' in the other" in layout.difference(Layout({"W": (2, 3)}))
    assert "one has 5 tensors and the other 6" in layout.difference(Layout({**SHAPES, "5.W": (1,)}))


names = st.sampled_from(["a.W", "a.b", "b.W", "b.c.W", "b.c.b", "W"])
shapes = st.dictionaries(names, st.lists(st.integers(0, 3), max_size=3).map(tuple))


@given(shapes, st.sampled_from(NAMES))
def test_tensors_and_blocks_cover_the_vector_exactly_once(device, shapes, blocks):
    layout = Layout(shapes, blocks)
    params = Params(layout, device.array(np.zeros(layout.size)))
    for name, tensor in params.items():
        assert tensor.shape == shapes[name]
        params[name] = params[name] + 1
    assert params.flat.tolist() == [1] * layout.size
    found = list(params.blocks())
    assert [name for name, _ in found] == list(layout.block_names)
    for _, views in found:
        for view in views:
            assert view.ndim == 1 and (blocks == "unit" or view.flags.c_contiguous)
            view += 1
    assert params.flat.tolist() == [2] * layout.size
    assert sorted(i for group in layout.groups for i in group.tensors) == list(range(len(shapes)))


# Views


def test_tensors_and_blocks_are_views_of_one_vector(device):
    params = filled(up=device.array)
    assert params.flat.flags.c_contiguous and params.flat.ndim == 1
    assert all(np.may_share_memory(t, params.flat) for t in params._tensors.values() if t.size)
    params["0.W"][1, 2] = 99.0
    assert params.flat[5] == 99.0
    params.flat[12] = -1.0
    assert params["2.body.b"] == -1.0
    dict(params.blocks())["0"][0][:] = 0.0
    assert not params["0.W"].any() and not params["0.b"].any()
    params.flat += 1.0
    assert params["2.body.b"] == 0.0


@pytest.mark.parametrize("blocks", PARTITIONS)
def test_contiguous_blocks_are_one_view(device, blocks):
    params = filled(blocks=blocks, up=device.array)
    assert [name for name, _ in params.blocks()] == [name for name, _ in PARTITIONS[blocks]]
    assert all(len(views) == 1 for _, views in params.blocks())


def test_writing_a_tensor_by_name_keeps_the_view(device):
    params = filled(up=device.array)
    view = params["0.b"]
    params["0.b"] = device.array([7.0, 8.0, 9.0])
    assert view.tolist() == [7.0, 8.0, 9.0]
    assert params.flat[6:9].tolist() == [7.0, 8.0, 9.0]
    params["0.b"] *= 2
    assert params.flat[6:9].tolist() == [14.0, 16.0, 18.0]
    for wrong in (np.ones(4), np.ones(1), np.ones((1, 3))):
        with pytest.raises(ValueError, match=r"0.b has shape \(3,\), the value written to it"):
            params["0.b"] = device.array(wrong)
    params["0.b"] = 0.5
    assert view.tolist() == [0.5, 0.5, 0.5]
    with pytest.raises(ValueError, match="flat has shape"):
        params.flat = device.array(np.ones(2))


def test_it_is_a_mapping_of_names():
    params = filled()
    assert list(params) == list(SHAPES) and len(params) == 5
    assert "0.W" in params and "W" not in params
    assert [n for n, _ in params.items()] == list(SHAPES)
    assert repr(params) == repr(params.layout)


def test_an_unknown_tensor_offers_the_nearest():
    params = filled()
    with pytest.raises(UnknownNameError, match=r"unknown tensor '0.w'; did you mean '0.[Wb]'.*Known: 0.W, 0.b"):
        params["0.w"]
    with pytest.raises(UnknownNameError, match="unknown tensor"):
        params["nonsense"] = 1.0


def test_a_vector_that_does_not_fit_is_refused(device):
    layout = Layout(SHAPES)
    for flat in (np.zeros(12), np.zeros((13, 1)), np.zeros(0)):
        with pytest.raises(ValueError, match="layout holds 13 numbers, the vector has shape"):
            Params(layout, device.array(flat))
    with pytest.raises(TypeError, match="int64"):
        Params(layout, device.array(np.zeros(13, dtype="int64")))


def test_a_vector_with_gaps_is_refused(device):
    with pytest.raises(ValueError, match=r"must be contiguous in memory: pass np\.ascontiguousarray"):
        Params(Layout(SHAPES), device.array(np.zeros(26))[::2])


# of


def test_of_copies_arrays_in_their_order(device):
    w, b = device.arrays([np.ones((2, 1)), np.zeros(1)])
    params = Params.of({"0.W": w, "0.b": b}, blocks="tensor")
    params.flat[:] = 5.0
    assert w[0, 0] == 1.0 and b[0] == 0.0
    assert params.layout == Layout({"0.W": (2, 1), "0.b": (1,)}, "tensor")
    assert Params.of({"x": device.array(np.ones(2, "float32"))}).dtype == np.float32
    assert Params.of({"x": [1.0, 2.0], "y": 3.0}).flat.tolist() == [1.0, 2.0, 3.0]
    assert Params.of({"x": device.array(np.ones((3, 2))).T})["x"].flags.c_contiguous


def test_of_refuses_mixed_dtypes_by_name(device):
    with pytest.raises(TypeError, match=r"'a' is float32, 'c' is float64.*astype"):
        Params.of(device.arrays({"a": np.ones(1, "float32"), "b": np.ones(1, "float32"), "c": np.ones(1)}))
    with pytest.raises(TypeError, match=r"floating.*int64"):
        Params.of({"a": device.array([1, 2])})


def test_of_refuses_mixed_devices_by_name(device):
    other = "strict" if device.name == "cpu" else "cpu"
    with pytest.raises(TypeError, match=f"'a' is on '{device.name}.*', 'c' on '{other}'; use bng.asarray"):
        Params.of({"a": device.array([1.0]), "b": device.array([1.0]), "c": asarray([1.0], device=other)})


def test_a_value_from_another_device_is_not_written(device):
    params, other = filled(up=device.array), "strict" if device.name == "cpu" else "cpu"
    for name, write in {"0.b": Params.__setitem__, "flat": Params.flat.fset}.items():
        value = asarray(np.ones(3 if name == "0.b" else 13), device=other)
        with pytest.raises(TypeError, match=f"{name} is on '{device.name}.*', the value written to it on '{other}'"):
            write(params, *([name] if name == "0.b" else []), value)
    np.testing.assert_array_equal(device.host(params.flat), filled().flat)
    params["0.b"] = np.float64(0.5)
    assert params["0.b"].tolist() == [0.5] * 3


# Copies and files


def there_again(params):
    return params.to(backend_of(params.flat).device)


@pytest.mark.parametrize("duplicate", [Params.copy, copy.deepcopy, copy.copy, there_again])
def test_copies_are_independent(device, duplicate):
    buffers = {"3.mean": device.array(np.ones(2, "float32")), "4.counter": 7}
    params = filled(dtype="float32", blocks="tensor", buffers=buffers, up=device.array)
    other = duplicate(params)
    assert other.layout == params.layout and other.dtype == np.float32
    np.testing.assert_array_equal(*device.host([other.flat, params.flat]))
    if duplicate is copy.copy:  # a shallow copy may share, but only as a whole
        return
    other.flat[:] = 0.0
    other["0.b"] = 3.0
    other.buffers["3.mean"][0] = 5.0
    other.buffers["4.counter"] = 8
    assert params.flat[0] == 1.0 and params["0.b"][0] == 7.0
    assert params.buffers["3.mean"][0] == 1.0 and params.buffers["4.counter"] == 7
    assert np.may_share_memory(other["0.W"], other.flat)


def test_parameters_go_to_a_device_and_back(device):
    params = filled(dtype="float32", blocks="unit", buffers={"3.mean": np.arange(2.0), "4.counter": 7})
    there = params.to(device.name)
    assert backend_of(there.flat) is backend_of(there["0.W"]) is backend_of(there.buffers["3.mean"]) is device.backend
    assert there.layout == params.layout and there.dtype == np.float32 and there.buffers["4.counter"] == 7
    there.flat += 1
    there.buffers["3.mean"] += 1
    assert np.may_share_memory(there["0.W"], there.flat)
    np.testing.assert_array_equal(params.flat, np.arange(1.0, 14))
    back = there.to("cpu")
    assert type(back.flat) is type(back.buffers["3.mean"]) is np.ndarray
    np.testing.assert_array_equal(back.flat, params.flat + 1)
    assert back.buffers["3.mean"].tolist() == [1, 2] and params.buffers["3.mean"].tolist() == [0, 1]


def test_state_dict_is_a_copy_and_goes_round(device):
    buffers = {"3.mean": device.array([0.0, 1.0]), "4.counter": 2**61 + 1}
    params = filled(dtype="float32", buffers=buffers, up=device.array)
    state = params.state_dict()
    assert set(state) == {"tensors", "buffers"}
    assert all(type(v) is np.ndarray for v in state["tensors"].values())
    fresh = filled(dtype="float32", buffers={"3.mean": device.array([0.0, 0.0]), "4.counter": 0}, up=device.array)
    fresh.flat[:] = 0.0
    vector = fresh.flat
    params.flat[:] = -1.0
    params.buffers["3.mean"][:] = -1.0
    fresh.load_state_dict(state)
    assert fresh.flat is vector
    np.testing.assert_array_equal(device.host(fresh.flat), filled(dtype="float32").flat)
    assert fresh.buffers["3.mean"].tolist() == [0.0, 1.0]
    assert fresh.buffers["4.counter"] == 2**61 + 1
    fresh.buffers["3.mean"][0] = 9.0
    assert state["buffers"]["3.mean"][0] == 0.0


def without(d, key):
    return {k: v for k, v in d.items() if k != key}


MISFITS = {
    "missing tensor": lambda t, b: (without(t, "4.W"), b),
    "extra tensor": lambda t, b: ({**t, "9.W": np.ones(1)}, b),
    "shape": lambda t, b: ({**t, "2.body.W": np.ones((1, 3))}, b),
    "dtype": lambda t, b: ({**t, "2.body.W": np.ones((3, 1), "float32")}, b),
    "missing buffer": lambda t, b: (t, without(b, "n")),
    "extra buffer": lambda t, b: (t, {**b, "m": 1}),
    "buffer's shape": lambda t, b: (t, {**b, "mean": np.ones(3)}),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(device, name):
    params = filled(buffers={"mean": device.array(np.zeros(2)), "n": 1}, up=device.array)
    state = filled(buffers={"mean": np.ones(2), "n": 2}).state_dict()
    state["tensors"]["0.W"] += 100.0
    tensors, buffers = MISFITS[name](state["tensors"], state["buffers"])
    with pytest.raises(ValueError, match="saved"):
        params.load_state_dict({"tensors": tensors, "buffers": buffers})
    np.testing.assert_array_equal(device.host(params.flat), filled().flat)
    assert params.buffers["n"] == 1
    assert params.buffers["mean"].tolist() == [0, 0]


# Scope and buffers


def test_a_scope_shows_a_layer_its_own():
    params = filled(buffers={"2.body.mean": 1.0, "2.n": 5, "20.n": 6})
    scope = params.scope("2")
    assert scope.scope("body")["W"] is params["2.body.W"]
    assert dict(scope.buffers) == {"body.mean": 1.0, "n": 5}
    scope.buffers["n"] += 1
    scope.scope("body").buffers["mean"] = 2.0
    assert params.buffers == {"2.body.mean": 2.0, "2.n": 6, "20.n": 6}
    with pytest.raises(UnknownNameError, match=r"'2\.W'"):
        scope["W"]
    with pytest.raises(TypeError, match="cannot be removed"):
        del scope.buffers["n"]
    with pytest.raises(KeyError):
        scope.buffers["nothing"]


# Derivatives


def test_each_gradient_is_a_new_params_with_its_own_vector(device):
    params = filled({"0.W": (2, 3), "0.b": (3,), "1.W": (2,)}, dtype="float32", buffers={"n": 1}, up=device.array)
    step = value_and_grad(lambda p, k: k * np.sum(p["0.W"] * p["0.b"]))
    with device.no_sync():
        _, first = step(params, 1.0)
        kept = first.flat.copy()
        _, second = step(params, 2.0)
    assert isinstance(first, Params) and first.layout == params.layout and first.dtype == np.float32
    vectors = [params.flat, first.flat, second.flat]
    assert not any(np.may_share_memory(a, b) for i, a in enumerate(vectors) for b in vectors[:i])
    np.testing.assert_array_equal(*device.host([first.flat, kept]))
    np.testing.assert_array_equal(*device.host([second.flat, 2 * kept]))
    assert first.buffers == {}
    first.flat += second.flat
    assert first["0.W"].tolist() == [[3 * b for b in params["0.b"].tolist()]] * 2
    assert first["1.W"].tolist() == [0, 0]
    assert np.may_share_memory(first["0.W"], first.flat)
    first["0.W"] = 1.0


def test_a_penalty_on_the_vector_is_differentiated(device):
    params = filled(up=device.array)
    g = grad(lambda p: np.sum(p.flat**2))(params)
    np.testing.assert_array_equal(*device.host([g.flat, 2 * params.flat]))
    v = Params(params.layout, device.array(np.linspace(-1, 1, 13)))
    product = hvp(lambda p: np.sum(p.flat**3))(params, v)
    np.testing.assert_allclose(*device.host([product.flat, 6 * params.flat * v.flat]))


def test_a_penalty_on_blocks_and_tensors_is_differentiated(device):
    params = filled(up=device.array)
    g = grad(lambda p: sum(np.sum(v**2) * (name == "0") for name, views in p.blocks() for v in views))(params)
    np.testing.assert_array_equal(device.host(g.flat), np.where(np.arange(13) < 9, 2 * device.host(params.flat), 0))
    g = grad(lambda p: sum(np.sum(t) for n, t in p.items() if n.endswith("W")))(params)
    assert g["0.W"].tolist() == [[1, 1, 1]] * 2
    assert not g["0.b"].any()


def test_inside_a_trace_it_holds_traced_tensors_and_the_same_names(device):
    seen = []

    def f(p):
        seen.append((type(p), type(p["0.W"]), type(p.flat), p.dtype, list(p), p.layout == params.layout, "0.W" in p))
        return np.sum(p.flat)

    params = filled(dtype="float32", up=device.array)
    grad(f)(params)
    assert seen == [(Params, Traced, Traced, np.dtype("float32"), list(SHAPES), True, True)]


def test_writing_inside_a_trace_is_refused(device):
    def f(p):
        p["0.W"] = 0.0
        return np.sum(p.flat)

    params = filled(up=device.array)
    with pytest.raises(TypeError, match="cannot be written to while it is being differentiated"):
        grad(f)(params)
    np.testing.assert_array_equal(device.host(params.flat), filled().flat)


def test_its_leaves_are_its_tensors_as_views(device):
    params = filled(up=device.array)
    leaves, rebuild = flatten(params)
    assert all(leaf is params[name] for leaf, name in zip(leaves, params, strict=True))
    made = rebuild([leaf * 2 for leaf in leaves])
    np.testing.assert_array_equal(*device.host([made.flat, 2 * params.flat]))
    assert not np.may_share_memory(made.flat, params.flat)


def test_vjp_of_a_function_that_returns_params(device):
    params = filled(up=device.array)
    value, pull = vjp(lambda p: p.__rebuild__([t * t for _, t in p.items()]), params)
    np.testing.assert_array_equal(*device.host([value.flat, params.flat**2]))
    (g,) = pull(Params(params.layout, device.array(np.full(13, 3.0))))
    np.testing.assert_array_equal(*device.host([g.flat, 6 * params.flat]))


def test_buffers_written_in_a_trace_are_the_model_s_and_plain(device):
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    params = model.init(seed=0, dtype="float64").to(device.name)
    start = params.buffers["1.counter"]
    x = device.array(np.ones((3, 2)))
    with device.no_sync():
        grad(lambda p: np.sum(model(p, x, train=True)))(params)
    assert params.buffers["1.counter"] == start + 1
    assert type(params.buffers["1.counter"]) is int


def test_params_without_tensors_are_allowed(device):
    params = nn.Dropout(0.5).init(seed=0).to(device.name)
    assert (len(params), params.flat.shape, list(params.blocks())) == (0, (0,), [])
    assert grad(lambda p: 1.0)(params).flat.shape == (0,)


def test_a_state_in_another_order_loads_by_name(device):
    params, other = filled(up=device.array), filled(up=device.array)
    other.flat *= 3
    state = other.state_dict()
    params.load_state_dict({"tensors": dict(reversed(state["tensors"].items())), "buffers": state["buffers"]})
    np.testing.assert_array_equal(*device.host([params.flat, other.flat]))


def test_a_state_that_lacks_a_part_is_refused():
    with pytest.raises(ValueError, match="they lack buffers"):
        filled().load_state_dict({"tensors": filled().state_dict()["tensors"]})


def test_a_state_of_bare_arrays_is_told_the_form_of_a_state():
    with pytest.raises(
        ValueError, match=r'they lack tensors and buffers; pass {"tensors": {name: array, …}, "buffers"'
    ):
        filled().load_state_dict(dict(filled().items()))


@pytest.mark.parametrize("copied", [Params.copy, copy.deepcopy], ids=["copy", "deepcopy"])
def test_a_copy_inside_a_loss_is_refused(device, copied):
    with pytest.raises(TypeError, match="copy the parameters before differentiating; inside a loss"):
        grad(lambda p: np.sum(copied(p).flat))(filled(up=device.array))


USED_AS_ARRAY = {
    "sum": np.sum,
    "mean": np.mean,
    "norm": np.linalg.norm,
    "exp": np.exp,
    "array": np.array,
    "add": lambda p: p + 1,
    "radd": lambda p: 1 + p,
    "rate": lambda p: 0.1 * p,
    "NumPy rate": lambda p: np.float32(0.1) * p,
    "array product": lambda p: np.ones(13) * p,
    "difference": lambda p: p - p,
    "quotient": lambda p: p / 2,
    "power": lambda p: p**2,
    "negative": lambda p: -p,
    "matrix product": lambda p: np.ones(13) @ p,
}


@pytest.mark.parametrize("use", USED_AS_ARRAY.values(), ids=USED_AS_ARRAY)
def test_what_takes_it_for_an_array_is_told_of_its_vector(device, use):
    params = filled(up=device.array)
    with pytest.raises(TypeError, match=r"a Params is no array: use p\.flat"):
        use(params)
    with pytest.raises(TypeError, match=r"a Params is no array: use p\.flat"):
        params -= use(params)
    np.testing.assert_array_equal(device.host(params.flat), filled().flat)


def test_an_attribute_of_arrays_is_told_of_its_vector():
    for name in ("shape", "sum", "T"):
        assert not hasattr(filled(), name)
        with pytest.raises(AttributeError, match=f"no attribute '{name}': a Params is no array: use p.flat"):
            getattr(filled(), name)
