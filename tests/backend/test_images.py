"""Images with zeros between them: found again by their memory, never mistaken for others, margins always zero."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibng.backend import get_backend, images

RNG = np.random.default_rng(0)


def filled(shape, below=1, right=1, dtype="float64"):
    x = images.padded(shape, dtype, below, right)
    x[...] = RNG.standard_normal(shape)
    return x


def outside(memory):
    """Everything in a memory but the images."""
    inside = np.zeros(memory.shape[0], bool)
    m = memory.margins
    n, h, w = m.images
    for i in range(n):
        for p in range(h):
            start = m.guard + (i * m.rows + p) * m.pitch
            inside[start : start + w] = True
    return np.asarray(memory)[~inside]


sizes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
margins = st.integers(0, 2)


@given(sizes, margins, margins, st.sampled_from(["float32", "float64"]))
def test_a_padded_array_is_an_ordinary_one_with_zeros_around(shape, below, right, dtype):
    x = filled(shape, below, right, dtype)
    assert type(x) is np.ndarray and x.shape == shape and x.dtype == dtype
    memory = images.memory_of(x)
    assert memory is not None and not outside(memory).any()
    assert len(outside(memory)) + x[..., 0].size == len(memory)
    np.testing.assert_array_equal(images.view_of(memory), x)
    assert (x + 1).flags.c_contiguous


@given(sizes, margins, margins, margins, margins)
def test_what_surrounds_the_images_is_what_np_pad_puts_there(shape, top, bottom, left, right):
    x = filled(shape, 2, 2)
    pads = ((top, bottom), (left, right))
    np.testing.assert_array_equal(images.surrounded(x, pads), np.pad(x, ((0, 0), *pads, (0, 0))))


def test_the_zeros_must_be_there_to_be_used_in_place():
    x = filled((2, 3, 4, 5), below=1, right=2)
    assert np.shares_memory(images.surrounded(x, ((1, 1), (2, 2))), x)
    assert images.surrounded(x, ((2, 0), (0, 0))) is None
    assert images.surrounded(x, ((0, 0), (3, 0))) is None
    assert images.surrounded(np.ones((2, 3, 4, 5)), ((0, 0), (0, 1))) is None
    padded = get_backend("cpu").surrounded(x, ((2, 0), (0, 0)))
    np.testing.assert_array_equal(padded, np.pad(x, ((0, 0), (2, 0), (0, 0), (0, 0))))


@given(sizes, margins, margins)
def test_a_plane_holds_every_pixel_where_it_says(shape, below, right):
    x = filled(shape, 1, 1)
    for source in (x, x.copy(), x[:, ::-1]):
        plane = images.plane_of(source, below, right)
        assert plane.rows >= shape[1] + below and plane.pitch >= shape[2] + right
        n, p, q = (RNG.integers(k) for k in shape[:3])
        start = plane.start + (n * plane.rows + p) * plane.pitch + q
        np.testing.assert_array_equal(plane.flat.reshape(-1, shape[3])[start], source[n, p, q])
    in_place = below <= 1 and right <= 1
    assert np.shares_memory(images.plane_of(x, below, right).flat, x) == in_place
    exact = images.plane_on(x, shape[1] + below, shape[2] + right)
    assert (exact.rows, exact.pitch) == (shape[1] + below, shape[2] + right)


def test_contiguous_images_without_need_of_margins_are_a_plane_as_they_are():
    x = RNG.standard_normal((2, 3, 4, 5))
    plane = images.plane_of(x, 0, 0)
    assert np.shares_memory(plane.flat, x) and plane.start == 0


PARTS = {
    "fewer images": lambda x: x[:1],
    "later images": lambda x: x[1:],
    "fewer channels": lambda x: x[..., :2],
    "an inner part": lambda x: x[:, 1:, 1:],
    "every second pixel": lambda x: x[:, ::2, ::2],
    "mirrored": lambda x: x[:, :, ::-1],
    "turned": lambda x: x.transpose(0, 2, 1, 3),
    "another shape": lambda x: x.reshape(2, 3, 12),
    "other numbers": lambda x: x.view("int64"),
    "a copy": lambda x: x.copy(),
    "a deep copy": copy.deepcopy,
    "what was sent to a process": lambda x: pickle.loads(pickle.dumps(x)),
    "a result": lambda x: x * 2,
}


@pytest.mark.parametrize("part", PARTS)
def test_parts_and_copies_are_not_taken_for_the_whole(part):
    x = filled((2, 3, 4, 3))
    assert images.memory_of(PARTS[part](x)) is None


def test_the_whole_is_known_again_through_views_of_it():
    x = filled((2, 1, 4, 3))
    memory = images.memory_of(x)
    for same in (x[:], x[...], x.view(), x.reshape(2, 4, 3)[:, np.newaxis], x[:, 0][:, np.newaxis]):
        assert images.memory_of(same) is memory
    assert images.memory_of(None) is images.memory_of(1.0) is images.memory_of([1.0]) is None


def test_new_images_lie_as_the_old_ones_do(device):
    backend = device.backend
    flat = device.array(np.ones((2, 3, 4, 5), "float32"))
    made = backend.empty_images(flat)
    assert made.shape == flat.shape and made.dtype == flat.dtype and type(made) is type(flat)
    if device.name == "cpu":
        x = filled((2, 3, 4, 5), below=2, right=1, dtype="float32")
        made = backend.empty_images(x)
        made[...] = x
        assert made.strides == x.strides and not np.shares_memory(made, x)
        assert images.memory_of(made).margins == images.memory_of(x).margins
        assert not outside(images.memory_of(made)).any()


def test_margins_are_cleared_and_images_are_not():
    x = filled((2, 3, 4, 5))
    before, memory = x.copy(), images.memory_of(x)
    kept = x.copy()
    memory[...] = 7
    x[...] = kept
    assert outside(memory).all()
    images.clear_margins(memory)
    assert not outside(memory).any()
    np.testing.assert_array_equal(x, before)
