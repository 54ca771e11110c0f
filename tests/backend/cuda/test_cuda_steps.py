"""Whole steps by the CUDA kernels: every rule, form, partition and norm; what is launched, sent up and waited for."""

import math

import numpy as np
import pytest

import minibng as bng
from minibng import optim
from minibng.backend import cuda, get_backend
from minibng.backend.base import BlockNorms
from minibng.backend.guard import NONE
from minibng.backend.kernel import parse
from minibng.optim import optimizer, rules
from minibng.params import partition

CPU = get_backend("cpu")
DTYPES = ["float32", "float64"]
SHAPES = {"1.W": (40, 30), "1.b": (30,), "2.W": (3, 5, 4, 10), "3.s": (), "4.e": (0, 7), "5.v": (5001,)}
PARTITIONS = ["layer", "tensor", "unit", "coordinate", "global"]

# One step of a stepper, given the same norms: bit for bit -------------------------------------------------


def made(dtype, names, seed=0):
    rng = np.random.default_rng(seed)
    return {n: [rng.standard_normal(s).astype(dtype) for s in SHAPES.values()] for n in names}


def scaled_in_double(arrays, groups, norms, lengths):
    """What the device makes of a float32 gradient: multiplied in double, rounded once."""
    wide = [a.astype("float64") for a in arrays]
    return [a.astype(arrays[0].dtype) for a in CPU.scale_blocks(wide, groups, norms, lengths)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("blocks", PARTITIONS)
@pytest.mark.parametrize("rule", [rules.Momentum(), rules.Adam(), rules.RMSProp(momentum=0.5, centered=True)], ids=repr)
def test_a_step_gives_the_hosts_bits(gpu, rule, blocks, dtype):
    formula = optimizer.parse_once(rule.formula, optimizer.descend_and_decay)
    groups = partition(SHAPES, blocks)
    columns = made(dtype, formula.arrays)
    columns |= {n: [np.array(abs(a)) for a in columns[n]] for n in columns if n in "va"}
    columns["g"][0][:, 2] = columns["g"][1][2] = 0
    norms = CPU.block_norms(columns["g"], groups)
    rng = np.random.default_rng(1)
    lengths = rng.uniform(0.5, 2, len(norms.root))
    lengths[::3] = norms.root[::3]
    lengths[1::5] *= 1e-39
    up = {n: [gpu.asarray(a) for a in arrays] for n, arrays in columns.items()}
    on_gpu = BlockNorms(gpu.asarray(norms.root), gpu.asarray(norms.exponent), gpu.asarray(np.int64(NONE)))
    scalars = {**rule.scalars(3), "lr": 0.01, "decay": [0.1, 0.0, 0.1, 0.2, 0.0, 0.3]}
    before = gpu.launches
    gpu.stepper(formula, up["x"], groups)(up, scalars, on_gpu, gpu.asarray(lengths))
    assert gpu.launches - before == 1
    if dtype == "float32":
        columns["g"] = scaled_in_double(columns["g"], groups, norms, lengths)
        CPU.stepper(formula, columns["x"], groups)(columns, scalars)
    else:
        CPU.stepper(formula, columns["x"], groups)(columns, scalars, norms, lengths)
    for name in formula.written:
        for got, want in zip(up[name], columns[name], strict=True):
            np.testing.assert_array_equal(got.get(), want)  # 0 and −0 are the same here


# Whole optimizers ------------------------------------------------------------------------------------------


def trajectories(make, dtype, steps=4, device="cuda", tensors=None):
    """Parameters of an optimizer after some steps on the host and on the device, and the two optimizers."""
    start = list(tensors) if tensors else [np.array(a) for a in made(dtype, "x", 5)["x"]]
    both = []
    for place in ("cpu", device):
        x = [bng.asarray(a.copy(), device=place) for a in start]
        opt = make(x)
        rng = np.random.default_rng(7)
        for k in range(steps):
            grads = [rng.standard_normal(a.shape).astype(dtype) * 10.0**-k for a in start]
            opt.step([bng.asarray(g.astype(dtype), device=place) for g in grads])
        opt.check()
        both.append((opt, [bng.to_host(a) for a in x]))
    return both


def assert_near(make, dtype, bits=False, **settings):
    """Equal up to what the norms' roundings make of it: norms are summed in another order, float32 in double."""
    (host, expected), (device, got) = trajectories(make, dtype, **settings)
    assert device.steps == host.steps
    for a, b in zip(expected, got, strict=True):
        assert a.dtype == b.dtype == dtype
        if bits:
            np.testing.assert_array_equal(a, b)
        else:
            rtol = 1e-12 if dtype == "float64" else 1e-5
            np.testing.assert_allclose(b, a, rtol=rtol, atol=rtol * 1e-1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", optim.class_names())
def test_every_optimizer_steps_as_on_the_host(gpu, name, dtype):
    raw = name in {rule.__name__ for rule in rules.RULES}  # no norm enters: the same bits
    assert_near(lambda x: optim.by_class(name)(x, lr=0.01), dtype, bits=raw or name == "SignSGD")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", [2, *(pytest.param(norm, marks=pytest.mark.slow) for norm in ("rms", 1, "inf"))])
@pytest.mark.parametrize("blocks", ["tensor", "unit", "coordinate", "global"])
@pytest.mark.parametrize("normalize", ["unit", "adaptive", "clip", "clip-global"])
def test_every_partition_and_norm(gpu, normalize, blocks, norm, dtype):
    assert_near(lambda x: optim.Momentum(x, lr=0.01, normalize=normalize, blocks=blocks, norm=norm), dtype)


@pytest.mark.parametrize("decay", ["decoupled", "after", "before"])
@pytest.mark.filterwarnings("ignore:decay='before'")
def test_weight_decay_is_each_tensors_own(gpu, decay):
    table = {"array 0": 1e-2, "array 4": 1.0, "array 5": 1e-1}
    assert_near(lambda x: optim.AdamNG(x, lr=0.01, weight_decay=table, decay=decay), "float64")


@pytest.mark.parametrize("name", ["Adam", "AdamNG", "SGDNG"])
@pytest.mark.parametrize("seed", [0, 5])
def test_the_order_of_threads_and_blocks_changes_no_bit(make_gpu, monkeypatch, request, name, seed):
    from minibng import backend

    runs = []
    for s in (0, seed + 1):
        gpu = make_gpu(seed=s)
        monkeypatch.setitem(backend._MADE, "cuda:0", gpu)
        monkeypatch.setitem(backend._BY_NUMBER, 0, gpu)
        runs.append(trajectories(lambda x: getattr(optim, name)(x, lr=0.01, blocks="unit"), "float32")[1][1])
    for a, b in zip(*runs, strict=True):
        assert a.tobytes() == b.tobytes()


# Launches, uploads, waiting --------------------------------------------------------------------------------


def params(device, dtype="float32"):
    model = bng.nn.models.mlp(20, [15] * 3, 5)
    return model.init(seed=0, device=device)


@pytest.mark.parametrize("blocks", PARTITIONS)
@pytest.mark.parametrize("name", [r.__name__ + "NG" for r in rules.RULES])
def test_a_step_of_ng_is_at_most_three_launches_and_neither_uploads_nor_waits(gpu, name, blocks, request):
    emulated = hasattr(gpu.xp, "calls")
    waits = request.getfixturevalue("emulator").SYNCHRONIZED if emulated else []
    calls = gpu.xp.calls if emulated else []
    x = params("cuda")
    opt = getattr(optim, name)(x, lr=0.01, blocks=blocks, weight_decay=1e-3)
    rng = np.random.default_rng(0)
    for k in range(4):
        grad = x.copy()
        grad.flat[...] = gpu.asarray(rng.standard_normal(grad.flat.size).astype("float32"))
        before = gpu.launches
        waits.clear()
        calls.clear()
        opt.step(grad)
        assert gpu.launches - before <= 3
        assert not waits
        if k > 1 and emulated:
            assert calls == ["partial_norms", "block_norms", "step"]
    opt.check()


@pytest.mark.parametrize("name", ["Adam", "AdamClip", "AdamNGAdaptive"])
def test_other_forms_are_few_launches_too(gpu, name):
    x = params("cuda")
    opt = getattr(optim, name)(x, lr=0.01)
    for _ in range(3):
        before = gpu.launches
        opt.step(x.copy())
        assert gpu.launches - before == (5 if "Adaptive" in name else 3)  # it measures the parameters too


def test_gradients_that_lie_elsewhere_at_every_step(gpu):
    """Plain arrays: their distances in memory change, and with them the table of offsets."""
    keep = []

    def make(x):
        opt = optim.AdamNG(x, lr=0.01)
        if type(x[0]) is gpu.array_type:
            step = opt.step

            def scattered(grads):
                sizes = np.random.default_rng(len(keep)).integers(1, 5000, 20)
                keep.append([gpu.empty(int(n), "float32") for n in sizes])
                step([gpu.asarray(g.get()) for g in grads])

            opt.step = scattered
        return opt

    assert_near(make, "float64")


def test_a_gradient_out_of_order_in_memory_is_taken_in_order(gpu):
    rng = np.random.default_rng(0)
    x, g = rng.standard_normal((2, 6, 5))
    results = []
    for device in ("cpu", "cuda"):
        at, by = bng.asarray(x.copy(), device=device), bng.asarray(g.T.copy(), device=device).T
        optim.SGDNG([at], lr=0.1).step([by])
        results.append(bng.to_host(at))
    np.testing.assert_allclose(*results, rtol=1e-14)


# The guard -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["AdamNG", "Adam", "MomentumNGAdaptive", "SGDClip", "LAMB", "LARS", "NovoGrad"])
def test_a_step_that_is_not_finite_changes_nothing_and_is_told_at_check(gpu, name, value):
    x = params("cuda")
    opt = getattr(optim, name)(x, lr=0.01)
    opt.step(x.copy())
    before, state = x.flat.get(), opt.state_dict()["state"]
    for k in range(2):
        grad = x.copy()
        grad["1.W" if "1.W" in x.layout.names else x.layout.names[2]].reshape(-1)[7 + k] = value
        opt.step(grad)
    np.testing.assert_array_equal(x.flat.get(), before)
    with pytest.raises(optim.NonFiniteError, match=r"step 1: .*block '2'.*nothing was changed") as error:
        opt.check()
    assert "2 steps" in str(error.value)
    for n, slots in opt.state_dict()["state"].items():
        for slot, array in slots.items():
            if slot != "step":
                np.testing.assert_array_equal(array, state[n][slot])
    opt.step(x.copy())
    opt.check()
    assert not np.array_equal(x.flat.get(), before)


def test_the_record_is_of_the_first_bad_step_and_counts_all(gpu):
    formula = parse(optimizer.descend, readonly=("u",))
    groups = partition({"a": (3000,)}, "tensor")
    x = [gpu.asarray(np.ones(3000))]
    stepper, guard = gpu.stepper(formula, x, groups), gpu.guard(1)
    for step, bad in enumerate([NONE, 4, NONE, 2, NONE + 5]):
        guard.begin(step)
        guard._bad = gpu.asarray(np.int64(bad))
        stepper({"x": x, "u": [gpu.asarray(np.ones(3000))]}, {"lr": 1.0}, guard=guard)
        stepper({"x": x, "u": [gpu.asarray(np.zeros(3000))]}, {"lr": 1.0}, guard=guard)  # a second one of the same step
    assert guard.record.get().tolist() == [1, 4, 2]
    np.testing.assert_array_equal(x[0].get(), -2.0)


def test_no_tensors_with_entries_are_no_launch(gpu):
    x = [gpu.asarray(np.zeros((0, 3)))]
    before = gpu.launches
    gpu.stepper(parse(optimizer.descend), x, partition({"a": (0, 3)}, "tensor"))({"x": x, "u": x}, {"lr": 1.0})
    assert gpu.launches == before


# Scattering ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", *DTYPES])
@pytest.mark.parametrize("kind", ["int64", "int32", "uint8"])
@pytest.mark.parametrize("shape", [(11,), (11, 5), (11, 3, 4)])
def test_rows_are_added_in_their_order_like_numpys(gpu, shape, kind, dtype):
    rng = np.random.default_rng(0)
    target = rng.standard_normal(shape).astype(dtype)
    index = rng.integers(0 if kind == "uint8" else -11, 11, (40, 25)).astype(kind)
    values = (rng.standard_normal((*index.shape, *shape[1:])) * 10.0 ** rng.integers(-6, 3)).astype(dtype)
    at = gpu.asarray(target)
    before = gpu.launches
    gpu.scatter_add(at, gpu.asarray(index), gpu.asarray(values))
    assert gpu.launches - before == 1
    np.add.at(target, index, values)
    np.testing.assert_array_equal(at.get(), target)


def test_a_table_of_more_rows_than_the_index_s_dtype_holds(gpu):
    target, index = np.zeros((300, 2)), np.array([0, 255, 255], "uint8")
    there = gpu.asarray(target)
    gpu.scatter_add(there, gpu.asarray(index), gpu.asarray(np.ones((3, 2))))
    np.add.at(target, index, 1)
    assert np.array_equal(gpu.to_host(there), target)


def test_other_ways_of_scattering(gpu):
    target = np.zeros((5, 4))
    at = gpu.asarray(target)
    gpu.scatter_add(at, gpu.asarray(np.array([1, 1, 3])), gpu.asarray(np.float64(2.0)))  # one value for all
    np.add.at(target, np.array([1, 1, 3]), 2.0)
    gpu.scatter_add(at, (slice(None), gpu.asarray(np.array([0, 0]))), gpu.asarray(np.ones((5, 2))))
    np.add.at(target, (slice(None), np.array([0, 0])), np.ones((5, 2)))
    gpu.scatter_add(at, gpu.asarray(np.zeros((0,), int)), gpu.asarray(np.zeros((0, 4))))
    np.testing.assert_array_equal(at.get(), target)


# The backend itself ----------------------------------------------------------------------------------------


def test_what_the_backend_is(gpu):
    assert gpu.device == "cuda:0" and gpu.xp.ndarray is gpu.array_type and not gpu.on_host
    assert gpu.guard(3) is not None
    with gpu.training_step():
        pass
    gpu.synchronize()
    assert getattr(gpu.xp, "calls", ["synchronize"])[-1] == "synchronize"
    x = gpu.asarray([1.0, 2.0])
    assert gpu.asarray(x) is x and gpu.asarray(x, "float32").dtype == np.float32
    assert type(gpu.to_host(x)) is np.ndarray
    with bng.debug(), pytest.raises(IndexError, match=r"labels must lie in 0 … 1, got 7"):
        gpu.check_indices(gpu.asarray(np.array([0, 7])), 2, "labels")
    gpu.check_indices(gpu.asarray(np.array([0, 7])), 2, "labels")


def test_a_kernel_is_compiled_once(make_gpu):
    gpu = make_gpu()
    x = [gpu.asarray(np.ones(10))]
    for _ in range(3):
        stepper = gpu.stepper(parse(optimizer.descend), x, partition({"a": (10,)}, "tensor"))
        for lr in (0.1, 0.2):
            stepper({"x": x, "u": x}, {"lr": lr})
    assert gpu.xp.calls.count("compile") == 1


def test_tables_cover_every_entry_once():
    groups = partition(SHAPES, "unit")
    tiles, cuts = cuda.step_tables(groups)
    for t, shape in enumerate(SHAPES.values()):
        covered = np.concatenate([np.arange(a, b) for tensor, a, b in tiles if tensor == t] or [np.zeros(0)])
        np.testing.assert_array_equal(covered, np.arange(math.prod(shape)))
    assert len(cuts) == len(SHAPES) and tiles.dtype == cuts.dtype == np.int64
