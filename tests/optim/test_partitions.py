"""Partitions: each entry in one block, views that write through, and every way of naming the same blocks."""

import math
import pickle
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibng import optim
from minibng.backend import to_host
from minibng.params import Layout, Params

LR = 0.05
NAMED = ["layer", "tensor", "unit", "coordinate", "global"]
SHAPES = {"0.W": (4, 3), "1.c.W": (2, 2, 3, 5), "0.b": (3,), "1.c.b": (5,), "2.W": (5, 1), "2.b": (1,)}
ANY = (ValueError, TypeError)


def params(kit, dtype="float64", seed=0, shapes=SHAPES, **settings):
    return Params.of(dict(zip(shapes, kit.numbers(seed, dtype, shapes=shapes.values()), strict=True)), **settings)


def gradients(kit, steps, dtype="float64", shapes=SHAPES):
    every = kit.gradients(steps, dtype, shapes=tuple(shapes.values()))
    return [Params.of(dict(zip(shapes, g, strict=True))) for g in every]


def numbered(layout, up=np.asarray):
    """Params whose entries are their own positions; ``up`` brings them to a device."""
    return Params(layout, up(np.arange(layout.size, dtype="float64")))


def members(p):
    """Block → the positions of its entries, in the order of its views."""
    return {name: [int(v) for view in views for v in view.ravel()] for name, views in p.blocks()}


def grouping(p):
    return sorted(sorted(entries) for entries in members(p).values() if entries)


# --- a partition is a partition ------------------------------------------------------------------------------

tensor_names = st.builds(
    "{}{}".format, st.sampled_from(["", "0.", "1.c.", "10."]), st.sampled_from(["0", "W", "a", "b"])
)
shapes = st.one_of(
    st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple), st.lists(st.integers(0, 3), max_size=3).map(tuple)
)
layouts = st.dictionaries(tensor_names, shapes, min_size=1, max_size=7)
partitions = st.sampled_from(
    [*NAMED, lambda name: name[0], {"*": "rest"}, {"?*": "A", "*": "B"}, re.compile("."), re.compile("(a|b|W|0|1)")]
)


@given(layouts, partitions)
def test_every_entry_lies_in_exactly_one_block(device, shapes, blocks):
    p = numbered(Layout(shapes, blocks), device.array)
    found = list(p.blocks())
    assert len({name for name, _ in found}) == len(found)
    assert sorted(v for _, views in found for view in views for v in view.tolist()) == list(range(p.layout.size))
    for _, views in found:
        assert all(v.ndim == 1 and (v.size == 0 or np.may_share_memory(v, p.flat)) for v in views)


@given(layouts, st.sampled_from([*NAMED, "unit", "unit"]))
def test_blocks_hold_what_their_names_say(shapes, blocks):
    """By the definition, entry by entry: two entries share a block where, and only where, their keys are equal."""
    p, keys, position = numbered(Layout(shapes, blocks)), {}, 0
    for name, shape in shapes.items():
        layer = name.rpartition(".")[0]
        for index in np.ndindex(*shape):
            if blocks == "unit" and not shape:
                return  # an array without axes has no last index: any block of its layer, or one of its own
            unit = (layer, shape[-1:], index[-1:])  # tensors of a layer with as many neurons share them
            key = {"layer": layer, "tensor": name, "unit": unit, "coordinate": position, "global": 0}
            keys.setdefault(key[blocks], []).append(position)
            position += 1
    assert grouping(p) == sorted(sorted(entries) for entries in keys.values())


@given(layouts, partitions)
def test_writing_into_the_views_writes_into_the_vector(device, shapes, blocks):
    p = numbered(Layout(shapes, blocks), device.array)
    for i, (_, views) in enumerate(p.blocks()):
        for v in views:
            v[...] = -1 - i
    assert np.all(p.flat < 0)
    sizes = [sum(v.size for v in views) for _, views in p.blocks()]
    assert [int(np.sum(p.flat == -1 - i)) for i in range(len(sizes))] == sizes


@given(st.lists(shapes, min_size=1, max_size=5), st.sampled_from([None, "tensor", "unit", "coordinate", "global"]))
def test_plain_arrays_are_cut_by_the_definition_too(device, shapes, blocks):
    """Seen from outside: of N(g), the largest size in each block is 1 in the norm of the maximum."""
    rng = np.random.default_rng(0)
    g = [np.array(rng.uniform(1, 2, s)) for s in shapes]
    x = [device.array(np.zeros(s)) for s in shapes]
    opt = optim.SGDNG(x, lr=1.0, norm="inf", blocks=blocks)
    with device.no_sync():
        opt.step(device.arrays(g))
    assert len(opt.block_names) == len(set(opt.block_names))
    for a, u in zip(g, device.host(x), strict=True):
        if blocks == "unit" and a.ndim:
            largest = a.reshape(math.prod(a.shape[:-1]), a.shape[-1]).max(axis=0, initial=0)
        elif blocks == "coordinate":
            largest = a
        elif blocks == "global":
            largest = max(b.max(initial=0) for b in g)
        else:
            largest = a.max(initial=0)
        if a.size:
            np.testing.assert_allclose(-u, a / largest, rtol=1e-15)


# --- views ---------------------------------------------------------------------------------------------------


def test_contiguous_blocks_are_one_view(device):
    p = numbered(Layout({"0.W": (2, 3), "0.b": (3,), "1.W": (3, 2), "1.b": (2,)}), device.array)
    assert [(name, [v.tolist() for v in views]) for name, views in p.blocks()] == [
        ("0", [list(map(float, range(9)))]),
        ("1", [list(map(float, range(9, 17)))]),
    ]


def test_units_are_strided_views_of_weights_and_bias(device):
    p = numbered(Layout({"0.W": (2, 3), "0.b": (3,)}, "unit"), device.array)
    assert [[v.tolist() for v in views] for _, views in p.blocks()] == [
        [[0, 3], [6]],
        [[1, 4], [7]],
        [[2, 5], [8]],
    ]
    for (_, views), j in zip(p.blocks(), range(3), strict=True):
        views[0] *= 10
        views[1] += 0.5
        assert p["0.W"][:, j].tolist() == [10.0 * j, 10.0 * (j + 3)] and p["0.b"][j].tolist() == 6.5 + j


def test_a_unit_of_a_convolution_is_a_filter_with_its_bias():
    p = numbered(Layout({"c.W": (2, 2, 3, 5), "c.b": (5,)}, "unit"))
    for j, (_, views) in enumerate(p.blocks()):
        got = np.concatenate([v.ravel() for v in views])
        assert np.array_equal(np.sort(got), np.sort([*p["c.W"][..., j].ravel(), p["c.b"][j]]))


def test_the_optimizer_names_its_blocks_as_the_parameters_do(kit):
    for blocks in NAMED:
        p = params(kit, blocks=blocks)
        opt = optim.SGDNG(p, lr=LR)
        opt.step(params(kit, seed=1))
        assert list(opt.block_names) == [name for name, _ in p.blocks()]
        got = to_host(opt.norms.values())
        want = [
            float(np.linalg.norm(np.concatenate(views))) for _, views in params(kit, seed=1, blocks=blocks).blocks()
        ]
        np.testing.assert_allclose(got, want, rtol=1e-14)


# --- what is normalized --------------------------------------------------------------------------------------


def direction(kit, p, g, **settings):
    """u of one step from where p stands, without the rounding of x."""
    p = p.copy()
    p.flat[...] = 0
    optim.SGDNG(p, lr=1.0, **settings).step(g)
    p.flat *= -1
    return p


@pytest.mark.parametrize("blocks", NAMED)
def test_each_block_has_length_one(kit, blocks):
    u = direction(kit, params(kit, blocks=blocks), params(kit, seed=1))
    count = 0
    for _, views in u.blocks():
        assert abs(np.linalg.norm(to_host(np.concatenate(views))) - 1) <= 1e-14
        count += 1
    assert count == {"layer": 3, "tensor": 6, "unit": 9, "coordinate": 86, "global": 1}[blocks]


def test_each_neuron_and_filter_has_length_one_with_its_bias(kit):
    u = direction(kit, params(kit), params(kit, seed=1), blocks="unit")
    for layer, width in {"0": 3, "1.c": 5, "2": 1}.items():
        W, b = to_host(u[layer + ".W"]).reshape(-1, width), to_host(u[layer + ".b"])
        np.testing.assert_allclose(np.sqrt((W**2).sum(axis=0) + b**2), np.ones(width), rtol=1e-14)


def test_units_of_a_layer_with_one_output_are_the_layer(kit, rule, form, dtype):
    shapes = {"0.W": (7, 1), "0.b": (1,), "1.W": (2, 3, 1)}
    one, two = params(kit, dtype, shapes=shapes, blocks="layer"), params(kit, dtype, shapes=shapes, blocks="unit")
    a, b = getattr(optim, rule + form)(one, lr=LR), getattr(optim, rule + form)(two, lr=LR)
    for g in gradients(kit, 10, dtype, shapes):
        a.step(g)
        b.step(g)
    kit.assert_close([two.flat], [one.flat], {"float32": 1e-5, "float64": 1e-13}[dtype])


def test_coordinates_are_signs_bit_for_bit(kit, dtype):
    g = params(kit, dtype, seed=1)
    g["0.W"][1, 1] = 0
    g["1.c.b"][0] = np.finfo(dtype).smallest_subnormal
    g["1.c.b"][1] = -np.finfo(dtype).max
    for norm in (2, "rms", 1, "inf"):
        u = direction(kit, params(kit, dtype), g, blocks="coordinate", norm=norm)
        assert np.array_equal(to_host(u.flat), np.sign(to_host(g.flat)))


@pytest.mark.parametrize("name", ["MomentumNG", "AdamNG"])
def test_coordinates_feed_the_rule_with_signs(kit, name):
    one, two = params(kit), params(kit)
    a = getattr(optim, name)(one, lr=LR, blocks="coordinate")
    b = getattr(optim, name.removesuffix("NG"))(two, lr=LR)
    for g in gradients(kit, 10):
        a.step(g)
        g = g.copy()
        g.flat[...] = np.sign(g.flat)
        b.step(g)
        kit.assert_close([one.flat], [two.flat], 1e-14)


@pytest.mark.parametrize("blocks", NAMED)
def test_the_partition_of_the_layout_and_of_the_optimizer_make_the_same_bits(kit, rule, blocks, dtype):
    one, two, three = params(kit, dtype, blocks=blocks), params(kit, dtype), params(kit, dtype, blocks="global")
    opts = [getattr(optim, rule + "NG")(one, lr=LR), getattr(optim, rule + "NG")(two, lr=LR, blocks=blocks)]
    opts.append(getattr(optim, rule + "NG")(three, lr=LR, blocks=blocks))
    for g in gradients(kit, 8, dtype):
        for opt in opts:
            opt.step(g)
    assert kit.same_bits(one.flat, two.flat) and kit.same_bits(one.flat, three.flat)


def test_without_a_normalizer_the_partition_is_not_seen(kit, rule, dtype):
    made = []
    for blocks in NAMED:
        p = params(kit, dtype, blocks=blocks)
        opt = getattr(optim, rule)(p, lr=LR)
        for g in gradients(kit, 5, dtype):
            opt.step(g)
        made.append(p.flat)
    assert all(kit.same_bits(flat, made[0]) for flat in made)


def told(words):
    """A name without an address in it: rows are drawn by their names."""
    return "a function" if callable(words) else str(words)


@pytest.mark.parametrize("shape", [(300, 200), (3, 3, 40, 64), (70_000, 2)], ids=told)
@pytest.mark.parametrize("normalize, name", [("unit", "SGD"), ("adaptive", "Adam"), ("clip", "Momentum")])
def test_units_of_large_layers_follow_the_naive_loop(kit, shape, normalize, name, dtype):
    """Wide and tall beside the size of a piece, in which the optimizer works."""
    width = shape[-1]
    shapes = {"0.W": shape, "0.b": (width,), "1.W": (5, 2)}
    p = params(kit, dtype, shapes=shapes)
    arrays = [v for _, v in p.items()]
    blocks = kit.entries(list(shapes.values()), "unit", list(shapes))
    settings = {"clip": 0.5} if normalize == "clip" else {}
    naive = kit.NaiveLoop(name, normalize, arrays, blocks, LR, **settings)
    opt = optim.Optimizer(p, getattr(optim.rules, name)(), LR, normalize=normalize, blocks="unit", **settings)
    for seed in (1, 2):
        g = kit.numbers(seed, dtype, shapes=shapes.values())
        opt.step(Params.of(dict(zip(shapes, g, strict=True))))
        naive.step(g)
    kit.assert_follows(arrays, naive, dtype)


def test_very_many_units_have_length_one_each(kit, dtype):
    shapes = {"0.W": (2, 70_000), "0.b": (70_000,)}
    u = direction(kit, params(kit, dtype, shapes=shapes), params(kit, dtype, seed=1, shapes=shapes), blocks="unit")
    W, b = (to_host(u[name]).astype(float) for name in shapes)
    lengths = np.sqrt((W**2).sum(axis=0) + b**2)
    assert np.abs(lengths - 1).max() <= (4 + 3**0.5) * np.finfo(dtype).eps / 2


# --- the same blocks by other words ----------------------------------------------------------------------------

SAME = [
    ("layer", lambda name: name.rpartition(".")[0]),
    ("layer", {"0.*": "a", "1.c.*": "b", "2.*": "c"}),
    ("layer", {"0.W": "a", "0.b": "a", "1.c.W": "b", "1.*": "b", "*": "c"}),
    ("layer", re.compile(r"(.*)\.")),
    ("layer", re.compile(r"\d")),
    ("tensor", lambda name: name),
    ("tensor", {name: name for name in SHAPES}),
    ("tensor", re.compile(r".*")),
    ("tensor", re.compile(r"(.+)")),
    ("global", lambda name: "all"),
    ("global", {"*": "one"}),
    ("global", re.compile(r"()")),
]


@pytest.mark.parametrize("name, words", SAME, ids=told)
def test_the_same_blocks_by_other_words_make_the_same_bits(kit, name, words, form):
    assert grouping(numbered(Layout(SHAPES, name))) == grouping(numbered(Layout(SHAPES, words)))
    one, two = params(kit, blocks=name), params(kit, blocks=words)
    three = params(kit)
    opts = [getattr(optim, "Adam" + form)(p, lr=LR) for p in (one, two)]
    opts.append(getattr(optim, "Adam" + form)(three, lr=LR, blocks=words))
    for g in gradients(kit, 6):
        for opt in opts:
            opt.step(g)
    assert kit.same_bits(one.flat, two.flat) and kit.same_bits(one.flat, three.flat)


def test_the_first_pattern_that_matches_names_the_block():
    layout = Layout(SHAPES, {"0.W": "first", "*.W": "weights", "0.*": "layer 0", "*": "rest"})
    sizes = {name: sum(v.size for v in views) for name, views in numbered(layout).blocks()}
    assert sizes == {"first": 12, "weights": 65, "layer 0": 3, "rest": 6 - 3 + 3}


def test_the_text_that_an_expression_matches_names_the_block():
    assert set(members(numbered(Layout(SHAPES, re.compile(r"\d\.\w"))))) == {"0.W", "0.b", "1.c", "2.W", "2.b"}
    assert set(members(numbered(Layout(SHAPES, re.compile(r"\d\.(?:c\.)?(\w)"))))) == {"W", "b"}


def test_a_function_names_the_block():
    assert set(members(numbered(Layout(SHAPES, lambda name: name[-1])))) == {"W", "b"}


def test_a_model_takes_every_partition():
    from minibng import nn

    model = nn.Sequential(nn.Linear(4, 3), nn.relu, nn.Linear(3, 2))
    for blocks, count in [
        ("layer", 2),
        ("tensor", 4),
        ("unit", 5),
        ("coordinate", 23),
        ("global", 1),
        (lambda name: name[-1], 2),
        ({"*.W": "W", "*": "b"}, 2),
        (re.compile(r"\d"), 2),
    ]:
        p = model.init(seed=0, blocks=blocks)
        assert len(list(p.blocks())) == count
        assert np.array_equal(p.flat, model.init(seed=0).flat)


def test_copies_and_gradients_keep_the_partition(kit):
    for blocks in [*NAMED, lambda name: name[-1], {"*": "all"}, re.compile(r"\d")]:
        p = params(kit, blocks=blocks)
        assert [n for n, _ in p.copy().blocks()] == [n for n, _ in p.blocks()]
        q = params(kit)
        q.load_state_dict(p.state_dict())
        assert kit.same_bits(q.flat, p.flat)


def test_layouts_with_the_same_blocks_are_equal():
    assert Layout(SHAPES, "unit") == Layout(SHAPES, "unit") != Layout(SHAPES, "layer")
    assert Layout(SHAPES, "coordinate") != Layout(SHAPES, "unit") != Layout(SHAPES, "tensor")
    assert len({Layout(SHAPES, b) for b in [*NAMED, *NAMED]}) == 5


@pytest.mark.parametrize("blocks", [*NAMED, re.compile(r"\d")], ids=told)
def test_the_table_of_a_layout_counts_its_blocks(blocks):
    layout = Layout(SHAPES, blocks)
    count = len(list(numbered(layout).blocks()))
    assert f"{count} block{'s' * (count != 1)}, 6 tensors, 86 numbers" in repr(layout)


# --- I11: saving and resuming, whatever the partition ----------------------------------------------------------

RESUMED = [*NAMED, lambda name: name[-1], {"*.W": "W", "*": "b"}, re.compile(r"\d")]


@pytest.mark.parametrize("blocks", RESUMED, ids=told)
@pytest.mark.parametrize("name", ["NesterovNG", "AMSGradNGAdaptive", "NAdamClip"])
def test_resuming_continues_bit_for_bit(kit, name, blocks, dtype):
    every, p = gradients(kit, 10, dtype), params(kit, dtype)
    opt = getattr(optim, name)(p, lr=LR, blocks=blocks, weight_decay={"*.W": 0.1})
    for g in every[:4]:
        opt.step(g)
    q, state = p.copy(), pickle.loads(pickle.dumps(opt.state_dict()))
    resumed = getattr(optim, name)(q, lr=LR, blocks=blocks, weight_decay={"*.W": 0.1})
    resumed.load_state_dict(state)
    for g in every[4:]:
        opt.step(g)
        resumed.step(g)
        assert kit.same_bits(p.flat, q.flat)
    assert kit.same_bits(opt.state_dict(), resumed.state_dict())


OTHERS = [
    ("layer", "unit"),
    ("unit", "layer"),
    ("unit", "coordinate"),
    ("coordinate", "tensor"),
    ("tensor", "unit"),
    ("global", "coordinate"),
    ("layer", lambda name: name[-1]),
    ({"*.W": "W", "*": "b"}, "layer"),
    ({"*.W": "W", "*": "b"}, {"0.*": "W", "*": "b"}),
    (re.compile(r"[012]"), re.compile(r"..(\w)")),
]


@pytest.mark.parametrize("one, other", OTHERS, ids=told)
def test_a_state_does_not_load_into_another_partition(kit, one, other):
    p, q = params(kit), params(kit)
    saved = optim.AdamNG(p, lr=LR, blocks=one)
    saved.step(params(kit, seed=1))
    opt = optim.AdamNG(q, lr=LR, blocks=other)
    opt.step(params(kit, seed=2))
    before, x = opt.state_dict(), q.flat.copy()
    with pytest.raises(ValueError, match=r"blocks|partition"):
        opt.load_state_dict(saved.state_dict())
    assert kit.same_bits(opt.state_dict(), before) and kit.same_bits(q.flat, x)


@pytest.mark.parametrize("one, other", [("tensor", "unit"), ("unit", "coordinate"), ([[0, 1]], "tensor")], ids=told)
def test_a_state_of_plain_arrays_does_not_load_into_another_partition(kit, one, other):
    made = []
    for blocks in (one, other):
        opt = optim.MomentumNG(kit.numbers(0, shapes=[(3, 2), (2,)]), lr=LR, blocks=blocks)
        opt.step(kit.numbers(1, shapes=[(3, 2), (2,)]))
        made.append(opt)
    with pytest.raises(ValueError, match=r"blocks|partition"):
        made[1].load_state_dict(made[0].state_dict())


# --- refusals ------------------------------------------------------------------------------------------------

WRONG = {
    "a name that there is not": ("units", "unit"),
    "a mapping that leaves one out": ({"0.*": "a", "1.*": "b"}, "2.W"),
    "an empty mapping": ({}, "0.W"),
    "an expression that matches not all": (re.compile(r"[01]"), "2.W"),
    "a group that takes no part": (re.compile(r"(0)|[12]"), "1.c.W"),
    "a function that returns no name": (lambda name: 3, "0.W"),
    "a function that returns nothing": (lambda name: None, "0.W"),
    "a number": (3, "3"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_partition_is_refused_and_told(kit, case):
    blocks, word = WRONG[case]
    makers = [
        lambda: Layout(SHAPES, blocks),
        lambda: params(kit, blocks=blocks),
        lambda: optim.AdamNG(params(kit), lr=LR, blocks=blocks),
    ]
    for make in makers:
        with pytest.raises(ANY) as caught:
            make()
        assert word in str(caught.value), f"{word!r} is not in: {caught.value}"


@pytest.mark.parametrize("blocks", [{"0.*": "a", "1.*": "b"}, re.compile(r"[01]")], ids=told)
def test_a_tensor_without_a_block_is_a_value_error(blocks):
    with pytest.raises(ValueError, match=r"2\.W"):
        Layout(SHAPES, blocks)


@pytest.mark.parametrize("blocks", ["layers", "units", [[0], [0, 1]], [[0]], [[0, 1], [2]], [[0, 1], []], 3], ids=told)
def test_what_is_no_partition_of_plain_arrays_is_refused(kit, blocks):
    with pytest.raises(ANY, match=r"block|partition"):
        optim.AdamNG(kit.numbers(0, shapes=[(3, 2), (2,)]), lr=LR, blocks=blocks)
