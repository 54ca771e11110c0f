"""The three sums of a convolution: adjoint to each other, equal to plain loops, and the same by the fast way of the
host as by that of every device; nothing but the result is written, and the margins stay zero."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minibng.backend import convolution, get_backend, images, polyphase
from minibng.backend.base import Backend
from minibng.backend.convolution import Geometry

CPU = get_backend("cpu")


class Generic(type(CPU)):
    """NumPy without its fast way."""

    surrounded, empty_images = Backend.surrounded, Backend.empty_images
    convolve, convolve_input, convolve_weight = Backend.convolve, Backend.convolve_input, Backend.convolve_weight


GENERIC = Generic()


def by_loops(x, w, geometry):
    """The definition, output pixel by output pixel."""
    (sh, sw), pads, groups = geometry.stride, geometry.pads, geometry.groups
    kh, kw, c, k = w.shape
    x = np.pad(x, ((0, 0), *pads, (0, 0)))
    y = np.zeros((len(x), (x.shape[1] - kh) // sh + 1, (x.shape[2] - kw) // sw + 1, k), x.dtype)
    for p in range(y.shape[1]):
        for q in range(y.shape[2]):
            window = x[:, p * sh : p * sh + kh, q * sw : q * sw + kw]
            for m in range(k):
                r = m // (k // groups)
                y[:, p, q, m] = np.sum(window[..., r * c : (r + 1) * c] * w[..., m], axis=(1, 2, 3))
    return y


@st.composite
def problems(draw, plain=False):
    """(x, w, g, geometry) in float64; ``plain`` ones are those of the fast way."""
    size = st.integers(1, 4)
    kernel = draw(st.tuples(size, size))
    groups = 1 if plain else draw(st.sampled_from([1, 1, 2, 3]))
    stride = (1, 1) if plain else draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    pads = tuple(tuple(draw(st.integers(0, k - 1 if plain else k + 1)) for _ in range(2)) for k in kernel)
    height, width = (draw(st.integers(max(1, k - sum(p)), 7)) for k, p in zip(kernel, pads, strict=True))
    n, c, k = draw(st.integers(1, 3)), groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 16)))
    geometry = Geometry(stride, pads, groups)
    x, w = rng.standard_normal((n, height, width, c)), rng.standard_normal((*kernel, c // groups, k))
    return x, w, rng.standard_normal(geometry.outputs(x.shape, w.shape)), geometry


def inner(a, b):
    return float(np.sum(a * b))


def three(backend, x, w, g, geometry, there=lambda a: a):
    """What the three sums give, with no bias."""
    x, w, g = there(x), there(w), there(g)
    y = backend.convolve(x, w, None, geometry)
    return y, backend.convolve_input(g, w, geometry, x.shape), backend.convolve_weight(x, g, geometry, w.shape)


@given(problems())
def test_they_are_the_definition_and_its_adjoints(device, problem):
    x, w, g, geometry = problem
    with device.no_sync():
        made = three(device.backend, *problem, there=device.array)
    assert all(type(a) is type(device.array(x)) for a in made)
    y, dx, dw = device.host(made)
    np.testing.assert_allclose(y, by_loops(x, w, geometry), rtol=1e-12, atol=1e-12)
    assert dx.shape == x.shape and dw.shape == w.shape
    np.testing.assert_allclose([inner(dx, x), inner(dw, w)], inner(y, g), rtol=1e-11, atol=1e-11)


@settings(max_examples=100)
@given(problems(plain=True), st.integers(0, 2), st.integers(0, 2))
def test_the_fast_way_gives_what_the_other_gives(problem, below, right):
    x, w, g, geometry = problem
    px, pg = images.padded(x.shape, x.dtype, below, right), images.padded(g.shape, g.dtype, right, below)
    px[...], pg[...] = x, g
    for inputs in ((x, w, g), (px, w, g), (px, w, pg), (x, w, pg), (px[:, ::-1], w[:, ::-1], pg[..., ::-1])):
        expected = three(GENERIC, *[np.ascontiguousarray(a) for a in inputs], geometry)
        for a, b in zip(three(CPU, *inputs, geometry), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_pieces_of_a_few_pixels_give_the_same(monkeypatch):
    rng = np.random.default_rng(1)
    x, w, geometry = (
        rng.standard_normal((5, 6, 7, 2)),
        rng.standard_normal((3, 2, 2, 4)),
        Geometry((1, 1), ((1, 2), (1, 0))),
    )
    g = rng.standard_normal(geometry.outputs(x.shape, w.shape))
    expected = three(GENERIC, x, w, g, geometry)
    for piece in (1, 100, 1000):
        monkeypatch.setattr(polyphase, "PIECE", piece)
        monkeypatch.setattr(convolution, "HOST_COLUMNS", 10 * piece)
        for backend in (CPU, GENERIC):
            for a, b in zip(three(backend, x, w, g, geometry), expected, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@given(problems(), st.sampled_from(["float32", "float64"]))
def test_dtypes_stay_and_inputs_are_not_written(device, problem, dtype):
    *arrays, geometry = problem
    arrays = [device.array(a.astype(dtype)) for a in arrays]
    bias = device.array(np.ones(arrays[1].shape[-1], dtype))
    before = [device.host(a).copy() for a in arrays]
    made = three(device.backend, *arrays, geometry)
    with_bias = device.backend.convolve(arrays[0], arrays[1], bias, geometry)
    assert {a.dtype for a in (*made, with_bias)} == {np.dtype(dtype)}
    np.testing.assert_array_equal(device.host(with_bias), device.host(made[0] + 1))
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(device.host(a), b)


def margins_are_zero(x):
    memory = images.memory_of(x)
    if memory is None:
        return True
    kept = x.copy()
    x[...] = 0
    clean = not np.asarray(memory).any()
    x[...] = kept
    return clean


@settings(max_examples=100)
@given(st.data())
def test_margins_are_zero_after_any_sequence_of_operations(data):
    """Convolutions of every kind, their adjoints, and new arrays like them: each reads what an earlier one has left."""
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    x = rng.standard_normal((2, 6, 5, 2))
    for _ in range(data.draw(st.integers(1, 6))):
        k, s = data.draw(st.sampled_from([(1, 1), (2, 1), (3, 1), (3, 2), (1, 2), (5, 1)]))
        pads = ((k - 1) // 2, k // 2)
        geometry = Geometry((s, s), (pads, pads))
        w, b = rng.standard_normal((k, k, 2, 2)), data.draw(st.sampled_from([None, np.ones(2)]))
        what = data.draw(st.sampled_from(["convolve", "input", "new"]))
        if what == "convolve":
            y, expected = CPU.convolve(x, w, b, geometry), GENERIC.convolve(x.copy(), w, b, geometry)
        elif what == "input":
            shape = (2, x.shape[1] * s, x.shape[2] * s, 2)
            y, expected = (
                CPU.convolve_input(x, w, geometry, shape),
                GENERIC.convolve_input(x.copy(), w, geometry, shape),
            )
        else:
            y, expected = CPU.empty_images(x), x * 2
            np.multiply(x, 2, out=y)
        np.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())
        assert margins_are_zero(y) and margins_are_zero(x)
        x = y


def test_a_weight_that_is_not_finite_does_not_reach_the_margins():
    x = images.padded((2, 4, 4, 3), "float64", 1, 1)
    x[...] = 1
    for k in (1, 3):
        w = np.full((k, k, 3, 2), np.nan)
        y = CPU.convolve(x, w, None, Geometry((1, 1), (((k - 1) // 2,) * 2,) * 2))
        assert np.isnan(y).all() and margins_are_zero(y)


def test_samples_do_not_see_each_other(device):
    rng = np.random.default_rng(2)
    x, w = rng.standard_normal((4, 5, 6, 3)), rng.standard_normal((3, 3, 3, 2))
    for geometry in (Geometry((1, 1), ((1, 1), (1, 1))), Geometry((2, 2), ((1, 1), (1, 1))), Geometry()):
        g = rng.standard_normal(geometry.outputs(x.shape, w.shape))
        spoilt_x, spoilt_g = x.copy(), g.copy()
        spoilt_x[1], spoilt_g[1] = np.inf, np.nan
        clean = device.host(three(device.backend, x, w, g, geometry, there=device.array))
        with np.errstate(invalid="ignore"):
            y = device.backend.convolve(device.array(spoilt_x), device.array(w), None, geometry)
            dx = device.backend.convolve_input(device.array(spoilt_g), device.array(w), geometry, x.shape)
        others = [0, 2, 3]
        np.testing.assert_allclose(device.host(y)[others], clean[0][others], rtol=1e-13)
        np.testing.assert_allclose(device.host(dx)[others], clean[1][others], rtol=1e-13)
        alone = device.host(device.backend.convolve(device.array(x[2:3]), device.array(w), None, geometry))
        np.testing.assert_allclose(alone, clean[0][2:3], rtol=1e-13)


@pytest.mark.parametrize("geometry", [Geometry((1, 1), ((1, 1), (1, 1))), Geometry((2, 2)), Geometry(groups=2)])
def test_a_batch_of_none_gives_none_and_zero_gradients(geometry, device):
    x, w = np.zeros((0, 5, 6, 4)), np.ones((3, 3, 4 // geometry.groups, 2))
    g = np.zeros(geometry.outputs(x.shape, w.shape))
    y, dx, dw = device.host(three(device.backend, x, w, g, geometry, there=device.array))
    assert y.shape == g.shape and dx.shape == x.shape
    np.testing.assert_array_equal(dw, np.zeros(w.shape))


SAME = Geometry((1, 1), ((1, 1), (1, 1)))


def copies(monkeypatch, work):
    """How many memories with margins a piece of work makes."""
    made, memory_with = [], images.memory_with

    def counting(*args):
        made.append(args)
        return memory_with(*args)

    monkeypatch.setattr(images, "memory_with", counting)
    monkeypatch.setattr(polyphase, "memory_with", counting)
    work()
    monkeypatch.undo()
    return len(made)


def test_what_has_margins_is_read_in_place(monkeypatch):
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((2, 8, 8, 3)), rng.standard_normal((3, 3, 3, 3))
    y = CPU.convolve(x, w, None, SAME)
    assert copies(monkeypatch, lambda: CPU.convolve(x, w, None, SAME)) == 2  # the input's and the output's
    assert copies(monkeypatch, lambda: CPU.convolve(y, w, None, SAME)) == 1
    assert copies(monkeypatch, lambda: CPU.convolve_input(y, w, SAME, x.shape)) == 1
    assert copies(monkeypatch, lambda: CPU.convolve_weight(y, y, SAME, w.shape)) == 0
    halved = CPU.convolve(y, w, None, Geometry((2, 2), ((1, 1), (1, 1))))
    assert copies(monkeypatch, lambda: CPU.convolve(halved, w, None, SAME)) == 1
    text, wide = rng.standard_normal((2, 1, 9, 4)), rng.standard_normal((1, 3, 4, 5))
    assert copies(monkeypatch, lambda: CPU.convolve(text, wide, None, Geometry())) == 1  # nothing lies outside


@pytest.mark.parametrize("stride", [1, 2])
def test_the_columns_are_never_there_all_at_once(stride):
    x, w = np.ones((64, 32, 32, 8), "float32"), np.ones((3, 3, 8, 8), "float32")
    geometry = Geometry((stride, stride), ((1, 1), (1, 1)))
    g = np.ones(geometry.outputs(x.shape, w.shape), "float32")
    for work in (
        lambda: CPU.convolve(x, w, None, geometry),
        lambda: CPU.convolve_input(g, w, geometry, x.shape),
        lambda: CPU.convolve_weight(x, g, geometry, w.shape),
    ):
        tracemalloc.start()
        work()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 3.5 * x.nbytes, f"{peak / x.nbytes:.1f} times the input; all columns would be {9 / stride**2:.1f}"
