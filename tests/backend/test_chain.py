"""Chains: a formula out of place gives the bits of the same lines as NumPy runs them, on every device."""

import numpy as np
import pytest
from numpy import abs, exp, log, maximum, minimum, sqrt, tanh, where

from minibng.backend import DeviceError, get_backend
from minibng.backend.chain import CHAINS, Chain
from minibng.backend.kernel import FormulaError
from minibng.backend.numpy import STEP_PIECE


def line(x, *, slope, shift):
    y = slope * x + shift
    return y


def bell(g, x, *, width):
    """A slope and its curvature: two outputs, of which one is read by the other."""
    z = x / width
    d = -(g * z) / (1 + z**2)
    c = d * d + abs(g)
    return d, c


def several(a, b, c):
    top = maximum(a, minimum(b, c))
    root = sqrt(abs(top)) + 0.5
    chosen = where(a < b, root * (a > c), -c)
    return top, root, chosen


def transcendental(x):
    y = tanh(x) * exp(-abs(x)) + log(abs(x) + 1)
    return y


def mixed(bits, *, key):
    h = (bits ^ key) * 0x85EBCA6B
    out = h ^ (h >> 16)
    return out


PLAIN = {f.__name__: f for f in (line, bell, several, transcendental, mixed)}
CHAIN = {name: Chain(f) for name, f in PLAIN.items()}
for made in CHAIN.values():
    CHAINS.remove(made)  # the list is of the package's own

SCALARS = {"line": {"slope": 0.3, "shift": -1.7}, "bell": {"width": 0.7}}
ELEMENTWISE = ["line", "bell", "several"]  # no function that every library rounds in its own way
REAL = [*ELEMENTWISE, "transcendental"]
ONE_PIECE = STEP_PIECE // 4
SHAPES = [(), (0,), (3, 0, 2), (1,), (5, 7), (2, 3, 4), (ONE_PIECE,), (ONE_PIECE + 1,), (3, ONE_PIECE)]


def inputs(name, shape, dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(shape) * 3).astype(dtype) for _ in CHAIN[name].inputs]


def many(result):
    return list(result) if isinstance(result, tuple) else [result]


def expected(name, arrays):
    """What the plain function gives, line by line; on the host."""
    return [np.asarray(a) for a in many(PLAIN[name](*arrays, **SCALARS.get(name, {})))]


def found(device, name, arrays):
    with device.no_sync():
        made = many(CHAIN[name](*arrays, **SCALARS.get(name, {})))
    assert all(type(a) is device.backend.array_type for a in made)
    return device.host(made)


def assert_same(name, device, ours, theirs):
    """Equal bits, but for the functions that a GPU rounds in its own way."""
    for a, b in zip(ours, theirs, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        if name in ELEMENTWISE or device.name in ("cpu", "strict"):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", REAL)
def test_chains_give_the_bits_of_the_plain_lines(name, shape, device):
    arrays = inputs(name, shape)
    assert_same(name, device, found(device, name, device.arrays(arrays)), expected(name, arrays))


@pytest.mark.parametrize("name", REAL)
def test_doubles_too(name, device):
    arrays = inputs(name, (2, STEP_PIECE // 8 + 3), "float64")
    assert_same(name, device, found(device, name, device.arrays(arrays)), expected(name, arrays))


VIEWS = {
    "transposed": lambda a: a.T,
    "every other": lambda a: a[::2, 1::3],
    "backwards": lambda a: a[::-1, ::-1],
    "one column": lambda a: a[:, 4],
    "an axis more": lambda a: a[:, None, :],
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("name", REAL)
def test_inputs_may_lie_in_memory_as_they_like(name, view, device):
    arrays = inputs(name, (300, 301))
    there = device.arrays(arrays)
    theirs = expected(name, [view(a) for a in arrays])
    assert_same(name, device, found(device, name, [view(a) for a in there]), theirs)
    for a, b in zip(there, arrays, strict=True):
        np.testing.assert_array_equal(device.host(a), b)  # inputs are left as they were


@pytest.mark.parametrize(
    "shapes",
    [((5, 1, 4), (3, 1), (1,)), ((2, 3), (), (3,)), ((0, 3), (1, 3), (1, 1)), ((1,), (300, 301), (301,))],
    ids=str,
)
def test_shapes_are_broadcast(shapes, device):
    arrays = [inputs("line", shape, seed=k)[0] for k, shape in enumerate(shapes)]
    for name, own in (("several", arrays), ("bell", arrays[:2])):
        full = [np.array(a) for a in np.broadcast_arrays(*own)]
        assert_same(name, device, found(device, name, device.arrays(own)), expected(name, full))


def test_shapes_that_do_not_fit_are_refused(device):
    with pytest.raises(ValueError, match=r"broadcast|shape"):
        CHAIN["bell"](*device.arrays([np.ones(3), np.ones(4)]), width=1.0)


@pytest.mark.parametrize(
    ("a", "b", "result"),
    [
        ("float32", "float64", "float64"),
        ("float32", "int32", "float64"),
        ("float32", "int16", "float32"),
        ("float32", "bool", "float32"),
        ("int64", "int64", "float64"),
        ("uint8", "bool", "float64"),
        ("float16", "float32", "float32"),
        ("float16", "float16", "float16"),
    ],
)
def test_dtypes_are_promoted_as_numpy_s(a, b, result, device):
    arrays = [np.array([2, 0, 1, 3]).astype(a), np.array([1, 3, 0, 2]).astype(b)]
    full = [x.astype(result) for x in arrays]
    assert np.result_type(*arrays, 0.0) == result
    assert_same("bell", device, found(device, "bell", device.arrays(arrays)), expected("bell", full))


def test_plain_numbers_and_lists_are_numbers_of_the_arrays_dtype(device):
    x = device.array(np.array([[0.5], [-2.0]], "float32"))
    for number in (2, 2.0, np.float32(2)):
        theirs = expected("bell", [np.full((2, 1), 2, "float32"), device.host(x)])
        assert_same("bell", device, found(device, "bell", [number, x]), theirs)
    assert CHAIN["line"](2, slope=0.5, shift=1.0) == CHAIN["line"]([2.0], slope=0.5, shift=1.0)[0] == 2.0
    assert CHAIN["line"](2, slope=0.5, shift=1.0).dtype == np.float64


def test_scalars_are_numbers_of_the_call(device):
    x = device.array(np.float32([1, 2]))
    for slope in (1, 0.1, np.float64(0.1), np.float32(3), True):
        y = device.host(CHAIN["line"](x, slope=slope, shift=0))
        np.testing.assert_array_equal(y, np.float32(slope) * np.float32([1, 2]))
        assert y.dtype == np.float32
    with pytest.raises(TypeError, match=r"line\(\)"):
        CHAIN["line"](x, slope=1.0)
    with pytest.raises(TypeError, match=r"line\(\)"):
        CHAIN["line"](x, slope=1.0, shift=1.0, other=1.0)


@pytest.mark.parametrize("size", [0, 1, 1000, ONE_PIECE + 1])
def test_bits_of_unsigned_integers_wrap_around(size, device):
    bits = np.random.default_rng(0).integers(0, 2**32, size, dtype=np.uint32)
    h = (bits.astype(np.uint64) ^ 0xDEADBEEF) * 0x85EBCA6B % 2**32
    with device.no_sync():
        out = CHAIN["mixed"](device.array(bits), key=0xDEADBEEF)
    assert out.dtype == np.uint32
    np.testing.assert_array_equal(device.host(out), h ^ (h >> 16))


@pytest.mark.parametrize(
    ("name", "x", "told"),
    [
        ("transcendental", np.ones(2, complex), "transcendental takes real numbers, got complex128"),
        ("mixed", np.ones(2, "int64"), "mixed takes unsigned integers, got int64"),
        ("mixed", np.ones(2), "mixed takes unsigned integers, got float64"),
    ],
)
def test_numbers_of_another_kind_are_refused(name, x, told, device):
    with pytest.raises(TypeError, match=f"^{told}$"):
        CHAIN[name](device.array(x), **({"key": 1} if name == "mixed" else {}))


@pytest.mark.parametrize("shapes", [((3,), (3,)), ((3,), (2, 3)), ((1, 3), (3,))], ids=str)
def test_arrays_of_two_devices_are_refused(shapes):
    strict = get_backend("strict")
    here, there = np.ones(shapes[0]), strict.asarray(np.ones(shapes[1]))
    for pair in ((here, there), (there, here)):
        with pytest.raises((TypeError, DeviceError), match=r"asarray|device"):
            CHAIN["bell"](*pair, width=1.0)


def test_nan_and_infinity_go_their_way(device):
    x = np.array([np.nan, np.inf, -np.inf, -0.0], "float32")
    with np.errstate(invalid="ignore"):
        theirs = expected("several", [x, x[::-1], x * 0 + 1])
        ours = found(device, "several", device.arrays([x, x[::-1], x * 0 + 1]))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_every_call_makes_new_arrays(device):
    x = device.array(np.float32([1, 2]))
    a, b = (CHAIN["line"](x, slope=1.0, shift=0.0) for _ in range(2))
    a[:] = 7.0
    assert [device.host(v).tolist() for v in (x, a, b)] == [[1, 2], [7, 7], [1, 2]]


def test_a_chain_tells_its_name_and_is_listed():
    before = len(CHAINS)

    @Chain
    def doubled(x):
        """Twice x."""
        y = x + x
        return y

    assert CHAINS.pop() is doubled and len(CHAINS) == before
    assert (repr(doubled), doubled.__name__, doubled.__doc__) == ("<chain doubled>", "doubled", "Twice x.")
    assert doubled.inputs == ("x",) and doubled.formula.written == ("y",)
    own = {chain.__name__ for chain in CHAINS}
    assert {"_hashed", "_sigmoid", "_sigmoid_slope", "_gelu", "_gelu_slope", "_leaky", "_leaky_slope"} <= own


def test_an_input_is_no_result():
    def in_place(x):
        x = x + 1
        return x

    with pytest.raises(FormulaError, match="in_place: x asked for, but an input or not returned"):
        Chain(in_place)
