"""einsum with signatures drawn at random: any letters repeated, shared, summed or kept, with ellipses and without."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minibng import check_grads, grad, jacobian, vjp

try:
    import torch
except ImportError:
    torch = None

SIZES = {"i": 2, "j": 3, "k": 1, "l": 2}


@st.composite
def signatures(draw, ellipsis=True):
    """A signature and the shapes of its operands; an axis of length 1 may stand in for any length."""
    terms, shapes = [], []
    for _ in range(draw(st.integers(1, 3))):
        letters = draw(st.lists(st.sampled_from("ijkl"), max_size=3))
        hidden = draw(st.sampled_from([None, (), (2,), (3, 2), (3, 1)])) if ellipsis else None
        shape = [1 if letters.count(c) == 1 and draw(st.integers(0, 5)) == 0 else SIZES[c] for c in letters]
        at = draw(st.integers(0, len(letters)))
        if hidden is not None:
            letters.insert(at, "...")
            shape[at:at] = hidden
        terms.append("".join(letters))
        shapes.append(tuple(shape))
    left = ",".join(terms)
    if draw(st.booleans()):
        return left, shapes
    kept = draw(st.lists(st.sampled_from(sorted(set(left) & set(SIZES)) or ["i"]), unique=True))
    kept = [c for c in kept if c in left]
    if "..." in left:
        kept.insert(draw(st.integers(0, len(kept))), "...")
    return f"{left}->{''.join(kept)}", shapes


def operands(shapes):
    rng = np.random.default_rng(3)
    return [rng.standard_normal(s) for s in shapes]


@settings(max_examples=200)
@given(drawn=signatures(), optimize=st.booleans())
def test_two_derivatives_of_any_signature(device, drawn, optimize):
    signature, shapes = drawn
    check_grads(lambda *xs: np.einsum(signature, *xs, optimize=optimize), *device.arrays(operands(shapes)))


@pytest.mark.peer
@settings(max_examples=200)
@given(drawn=signatures())
def test_value_and_pullback_are_torch_s(device, drawn):
    signature, shapes = drawn
    xs = operands(shapes)
    g = np.random.default_rng(4).standard_normal(np.shape(np.einsum(signature, *xs)))
    cotangent, *given = device.arrays([g, *xs])
    with device.no_sync():
        y, pull = vjp(lambda *xs: np.einsum(signature, *xs), *given)
        ours = pull(cotangent)
    tensors = [torch.tensor(x, requires_grad=True) for x in xs]
    expected = torch.einsum(signature, *tensors)
    np.testing.assert_allclose(device.host(y), expected.detach().numpy(), atol=1e-12)
    theirs = torch.autograd.grad(expected, tensors, torch.tensor(g), allow_unused=True)
    for a, b, x in zip(device.host(ours), theirs, xs, strict=True):
        np.testing.assert_allclose(a, np.zeros_like(x) if b is None else b.numpy(), atol=1e-12)


def test_lists_of_axes_are_the_letters_in_their_order(device):
    host = operands([(2, 3, 4), (4, 3)])
    a, b = device.arrays(host)
    for call in (
        lambda m, a, b: m(a, [0, 1, 2], b, [2, 1]),
        lambda m, a, b: m(a, [51, 30, 2], b, [2, 7], [7, 51]),
        lambda m, a, b: m(a, [Ellipsis, 3], b, [3, 1], [1, Ellipsis]),
    ):
        y, pull = vjp(lambda a, b, call=call: call(np.einsum, a, b), a, b)
        np.testing.assert_allclose(device.host(y), call(np.einsum, *host))
        check_grads(lambda a, b, call=call: call(np.einsum, a, b), a, b)
        assert [g.shape for g in pull(y)] == [a.shape, b.shape]


def test_the_derivative_of_a_trace_is_the_unit_matrix(device):
    x = device.array(np.ones((3, 3), "float32"))
    g = grad(lambda x: np.einsum("ii", x))(x)
    assert g.dtype == np.float32
    np.testing.assert_array_equal(device.host(g), np.eye(3))
    rows = device.host(jacobian(lambda x: np.einsum("ii->i", x))(x))
    np.testing.assert_array_equal(rows[1], np.diag([0.0, 1.0, 0.0]))
