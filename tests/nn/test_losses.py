import math

import numpy as np
import pytest

from minibng import asarray, check_grads, debug, grad, hvp, nn, value_and_grad, vjp
from minibng.backend import synchronizations
from minibng.nn import losses

RNG = np.random.default_rng(0)
Z = RNG.standard_normal((6, 4)) * 3
T = np.array([0, 3, 1, 1, 2, 0])


def three(device, loss, z, v, *targets):
    """Value, gradient and product of the Hessian with v, worked out on a device without waiting, as the host's."""
    z, v, *targets = device.arrays([z, v, *targets])
    with device.no_sync():
        value, gradient = value_and_grad(loss)(z, *targets)
        alone, product = loss(z, *targets), hvp(loss)(z, v, *targets)
    value, alone, gradient, product = device.host([value, alone, gradient, product])
    np.testing.assert_array_equal(value, alone)
    return value, gradient, product


def two(device, loss, z, *targets):
    """Value and gradient, as the host's."""
    return three(device, loss, z, np.ones_like(z), *targets)[:2]


def torch_three(torch, f, x, v):
    t = torch.tensor(x, requires_grad=True)
    value = f(t)
    (g,) = torch.autograd.grad(value, t, create_graph=True)
    (h,) = torch.autograd.grad((g * torch.tensor(v)).sum(), t)
    return value.item(), g.detach().numpy(), h.numpy()


@pytest.mark.peer
@pytest.mark.parametrize("shape", [(6, 4), (1, 4), (3, 2, 4), (4,), (2, 1)])
def test_cross_entropy_and_two_derivatives_are_torch_s(torch, shape, device):
    z, v = RNG.standard_normal(shape) * 4, RNG.standard_normal(shape)
    t = np.asarray(RNG.integers(0, shape[-1], shape[:-1]))
    flat = torch.tensor(t.reshape(-1))
    value, g, h = torch_three(torch, lambda x: torch.nn.functional.cross_entropy(x.reshape(-1, shape[-1]), flat), z, v)
    ours, gradient, product = three(device, nn.cross_entropy, z, v, t)
    np.testing.assert_allclose(ours, value, rtol=1e-13)
    np.testing.assert_allclose(gradient, g, rtol=1e-11, atol=1e-15)
    np.testing.assert_allclose(product, h, rtol=1e-10, atol=1e-15)


@pytest.mark.peer
def test_mse_and_two_derivatives_are_torch_s(torch, device):
    y, t, v = RNG.standard_normal((3, 5, 4))
    value, g, h = torch_three(torch, lambda x: torch.nn.functional.mse_loss(x, torch.tensor(t)), y, v)
    ours, gradient, product = three(device, nn.mse, y, v, t)
    np.testing.assert_allclose(ours, value, rtol=1e-14)
    np.testing.assert_allclose(gradient, g, rtol=1e-13)
    np.testing.assert_allclose(product, h, rtol=1e-13)
    backwards = grad(nn.mse, argnums=1)(device.array(y), device.array(t))
    np.testing.assert_allclose(device.host(backwards), -g, rtol=1e-13)


@pytest.mark.parametrize("labels", ["int8", "uint8", "int32", "int64", "uint64"])
def test_every_kind_of_integer_label_is_accepted(labels, device):
    for found, expected in zip(*[two(device, nn.cross_entropy, Z, t) for t in (T.astype(labels), T)], strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_losses_keep_the_dtype(dtype, device):
    z = Z.astype(dtype)
    for loss, target in ((nn.cross_entropy, T), (nn.mse, z * 2)):
        assert [a.dtype for a in three(device, loss, z, z, target)] == [dtype] * 3


def test_equal_logits_cost_log_k_whatever_their_size(device):
    for level in (0.0, 1e30, -1e30, 1e4):
        value, g = two(device, nn.cross_entropy, np.full((2, 5), level, "float32"), np.array([0, 4]))
        np.testing.assert_allclose(value, math.log(5), rtol=1e-6)
        np.testing.assert_allclose(g.sum(axis=1), 0, atol=1e-7)


@pytest.mark.parametrize("dtype, big", [("float32", 1e30), ("float64", 1e30), ("float32", 3e38), ("float64", 1.7e308)])
def test_huge_logits_are_safe_to_second_order(dtype, big, device):
    z = np.array([[big, -big, 0.0], [-big, big, 0.0]], dtype)
    value, g, h = three(device, nn.cross_entropy, z, np.ones_like(z), np.array([0, 1]))
    assert value == 0.0
    np.testing.assert_array_equal(g, np.zeros((2, 3)))
    np.testing.assert_array_equal(h, np.zeros((2, 3)))


def test_a_confident_mistake_costs_the_difference_of_the_logits(device):
    z = np.array([[1e30, -1e30, 0.0]], "float32")
    value, g = two(device, nn.cross_entropy, z, np.array([2]))
    assert value == np.float32(1e30)
    np.testing.assert_array_equal(g, [[1.0, 0.0, -1.0]])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("offset", [0, 13, -13, 33, 60, -60, 75, -75, 90, 300])
@pytest.mark.parametrize("spread", [1, 8, 18, 200])
def test_the_loss_is_as_exact_wherever_the_logits_lie(dtype, offset, spread, device, monkeypatch):
    """Exponentials are taken without their largest entry where that is safe: nobody may notice where it ends."""
    monkeypatch.setattr(losses, "LARGE", 0)
    z = (np.random.default_rng(0).standard_normal((40, 30)) * spread + offset).astype(dtype)
    labels = np.random.default_rng(1).integers(0, 30, 40)
    labels[:20] = np.argmax(z[:20], axis=1)  # losses near 0
    for row in (slice(0, 20), slice(20, 40)):
        wide = z[row].astype("longdouble")
        e = np.exp(wide - wide.max(axis=1, keepdims=True))
        p = e / e.sum(axis=1, keepdims=True)
        target = np.arange(20), labels[row]
        each = np.log(e.sum(axis=1)) - (wide - wide.max(axis=1, keepdims=True))[target]
        slope = p.copy()
        slope[target] -= 1
        value, g = value_and_grad(nn.cross_entropy)(device.array(z[row]), device.array(labels[row]))
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(device.host(value), float(each.mean()), rtol=8 * eps, atol=8 * eps)
        np.testing.assert_allclose(device.host(g), (slope / 20).astype(dtype), rtol=1e3 * eps, atol=eps / 4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_loss_of_two_logits_is_as_exact_wherever_they_lie(dtype, monkeypatch):
    """−log p = log(1 + exp(gap)) for the smaller, log(1 + exp(−gap)) for the larger, whatever lies in the middle."""
    monkeypatch.setattr(losses, "LARGE", 0)
    for middle in (-70, -35, 0, 20, 35, 70):
        for gap in range(0, 180, 6):
            z = np.array([[middle + gap / 2, middle - gap / 2]], dtype)
            for label, expected in ((0, math.log1p(math.exp(-gap))), (1, gap + math.log1p(math.exp(-gap)))):
                loss = nn.cross_entropy(z, np.array([label]))
                np.testing.assert_allclose(loss, expected, rtol=4 * np.finfo(dtype).eps, atol=2 * np.finfo(dtype).eps)


@pytest.mark.peer
@pytest.mark.parametrize("scale", [1, 300])
@pytest.mark.parametrize("options", [{}, {"ignore_index": 3}, {"label_smoothing": 0.1}])
def test_many_logits_are_torch_s(torch, scale, options, device):
    """As many as a language model has, where the host has a way of its own; some in ignored rows are no numbers."""
    rng = np.random.default_rng(2)
    z, labels = rng.standard_normal((70, losses.LARGE // 70 + 1)) * scale, rng.integers(0, 5, 70)
    if "ignore_index" in options:
        z[labels == 3, 7] = np.nan
    t = torch.tensor(z, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(t, torch.tensor(labels), **options)
    (slope,) = torch.autograd.grad(expected, t)
    value, g = two(device, lambda z, t: nn.cross_entropy(z, t, **options), z, labels)
    np.testing.assert_allclose(value, expected.item(), rtol=1e-12)
    np.testing.assert_allclose(g, np.nan_to_num(slope.numpy()), rtol=1e-10, atol=1e-15)


def test_the_pullback_of_cross_entropy_may_be_called_twice(device):
    z, labels = device.arrays([np.random.default_rng(3).standard_normal((4, 3)), np.array([0, 2, 1, 1])])
    _, back = vjp(lambda z: nn.cross_entropy(z, labels), z)
    first, second = (device.host(back(device.array(1.0))[0]) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_nan_in_the_logits_is_not_hidden(device):
    z = Z.copy()
    z[2, 1] = np.nan
    value, g = two(device, nn.cross_entropy, z, T)
    assert np.isnan(value) and np.isnan(g[2]).all() and np.isfinite(g[0]).all()


def test_cross_entropy_does_not_write_into_its_arguments():
    z, t = Z.copy(), T.copy()
    z.setflags(write=False)
    t.setflags(write=False)
    grad(nn.cross_entropy)(z, t)
    hvp(nn.cross_entropy)(z, Z, t)


def test_derivatives_are_exact(device):
    z, t = device.array(Z), device.array(T)
    check_grads(lambda z: nn.cross_entropy(z, t), z, order=3)
    check_grads(lambda y: nn.mse(y, z + 1), z)
    check_grads(nn.mse, z, z + 1)


@pytest.mark.parametrize(
    "labels, match", [([0, 3, 1, 1, 2, 4], "0 … 3, got 4"), ([0, -1, 1, 1, 2, 0], "0 … 3, got -1")]
)
def test_labels_out_of_range_name_the_label(labels, match, device):
    for call in (nn.cross_entropy, grad(nn.cross_entropy)):
        with pytest.raises(IndexError, match=f"labels for 4 classes must lie in {match}"), debug():
            call(device.array(Z), device.array(labels))


def test_on_a_device_labels_are_looked_at_only_under_debug():
    """It would make the host wait. The strict device refuses what CuPy would wrap around."""
    z, t = asarray(Z, device="strict"), asarray(T, device="strict")
    before = synchronizations()
    nn.cross_entropy(z, t, ignore_index=1), nn.multiclass_hinge(z, t)
    nn.binary_cross_entropy(z[:, 0], t), nn.hinge(z[:, 0], 2 * t - 1)
    assert synchronizations() == before
    with debug():
        with pytest.raises(ValueError, match=r"\[0, 1\], got 0.0 to 3.0"):
            nn.binary_cross_entropy(z[:, 0], t)
        with pytest.raises(ValueError, match=r"−1 and \+1, got 0.0"):
            nn.hinge(z[:, 0], t)
        with pytest.raises(ValueError, match="all 6 labels are 7"):
            nn.cross_entropy(z, t * 0 + 7, ignore_index=7)
        with pytest.raises(IndexError, match="0 … 3, got 4"):
            nn.multiclass_hinge(z, t + 1)


@pytest.mark.parametrize("here, there", [("cpu", "strict"), ("strict", "cpu")])
def test_labels_on_another_device_are_refused(here, there):
    z, s = asarray(Z, device=here), asarray(Z[:, 0], device=here)
    t, y, ones = asarray(T, device=there), asarray(Z[:, 0] > 0, device=there), asarray(np.ones(6), device=there)
    told = r"the {} are on '{}', the {} on '{}': use bng\.asarray\({}, device='{}'\)".format
    for loss in (nn.cross_entropy, nn.multiclass_hinge, grad(nn.cross_entropy), grad(nn.multiclass_hinge)):
        with pytest.raises(TypeError, match=told("logits", here, "labels", there, "labels", here)):
            loss(z, t)
    for loss, target in ((nn.mse, ones), (nn.binary_cross_entropy, y), (nn.hinge, ones), (grad(nn.hinge), ones)):
        with pytest.raises(TypeError, match=told("outputs", here, "targets", there, "targets", here)):
            loss(s, target)


@pytest.mark.parametrize(
    "labels, kind", [(T.astype(float), "float64"), (T > 1, "bool"), (T.tolist(), "list"), (3, "int")]
)
def test_labels_that_are_no_integers_are_refused(labels, kind):
    with pytest.raises(TypeError, match=f"labels are integers, got {kind}"):
        nn.cross_entropy(Z, labels)


@pytest.mark.parametrize("shape", [(5,), (6, 1), (1, 6), (6, 4), ()])
def test_labels_of_another_shape_are_refused_with_both_shapes(shape, device):
    with pytest.raises(ValueError) as caught:
        nn.cross_entropy(device.array(Z), device.array(np.zeros(shape, int)))
    assert all(str(s) in str(caught.value) for s in ((6, 4), (6,), shape))


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="empty batch"):
        nn.cross_entropy(np.zeros((0, 4)), np.zeros(0, int))


def test_the_mean_squared_error_of_nothing_is_refused():
    with pytest.raises(ValueError, match="empty"):
        nn.mse(np.zeros((0, 4)), np.zeros((0, 4)))


@pytest.mark.parametrize("shape", [(6,), (6, 1), (1, 4), (4,), ()])
def test_mse_refuses_shapes_that_would_broadcast(shape):
    with pytest.raises(ValueError, match=r"equal shapes, got \(6, 4\) and"):
        nn.mse(Z, np.zeros(shape))


def test_zero_dimensional_logits_are_refused():
    with pytest.raises(ValueError, match="logits"):
        nn.cross_entropy(np.array(1.0), np.array(0))


# label smoothing and ignored labels

OPTIONS = [
    {"label_smoothing": 0.1},
    {"label_smoothing": 1.0},
    {"ignore_index": 1},
    {"ignore_index": -100},
    {"label_smoothing": 0.3, "ignore_index": 2},
    {"label_smoothing": 0.05, "ignore_index": -1},
]


@pytest.mark.peer
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", [(6, 4), (3, 2, 4), (1, 4)])
def test_smoothing_and_ignoring_and_two_derivatives_are_torch_s(torch, shape, options, device):
    z, v = RNG.standard_normal(shape) * 4, RNG.standard_normal(shape)
    t = RNG.integers(0, 4, shape[:-1])
    t.reshape(-1)[0] = 3  # at least one counts
    if t.size > 1:
        t.reshape(-1)[-1] = options.get("ignore_index", 0)
    flat, theirs = torch.tensor(t.reshape(-1)), {"ignore_index": -100, **options}
    f = lambda x: torch.nn.functional.cross_entropy(x.reshape(-1, 4), flat, **theirs)  # noqa: E731
    value, g, h = torch_three(torch, f, z, v)
    loss = lambda z, t: nn.cross_entropy(z, t, **options)  # noqa: E731
    ours, gradient, product = three(device, loss, z, v, t)
    np.testing.assert_allclose(ours, value, rtol=1e-13, atol=2e-15)  # a sum of numbers of size 1
    np.testing.assert_allclose(gradient, g, rtol=1e-11, atol=1e-15)
    np.testing.assert_allclose(product, h, rtol=1e-10, atol=1e-15)
    labels = device.array(t)
    check_grads(lambda z: loss(z, labels), device.array(z), order=2)


@pytest.mark.peer
@pytest.mark.parametrize(
    "options", [{}, {"label_smoothing": 0.1}, {"label_smoothing": 0.1, "ignore_index": 0}], ids=str
)
def test_float32_and_large_logits_are_torch_s(torch, options, device):
    z = np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [1e4, 1e4, 9e3], [0.0, 1e-3, -20.0]], "float32")
    t = np.array([1, 2, 0, 0])
    tz = torch.tensor(z, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(tz, torch.tensor(t), **options)
    expected.backward()
    value, g = two(device, lambda z, t: nn.cross_entropy(z, t, **options), z, t)
    assert value.dtype == g.dtype == np.float32
    np.testing.assert_allclose(value, expected.item(), rtol=1e-6)
    np.testing.assert_allclose(g, tz.grad.numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_options_keep_the_dtype(dtype, options, device):
    z = Z.astype(dtype)
    loss = lambda z, t: nn.cross_entropy(z, t, **options)  # noqa: E731
    assert [a.dtype for a in three(device, loss, z, z, T)] == [dtype] * 3


def test_an_ignored_sample_is_as_if_it_were_not_there(device):
    keep = np.array([True, False, True, True, False, True])
    t = np.where(keep, T, -5)
    poisoned = np.where(keep[:, None], Z, np.nan)
    for options in ({}, {"label_smoothing": 0.2}):
        expected, g = value_and_grad(lambda z, o=options: nn.cross_entropy(z, T[keep], **o))(Z[keep])
        loss = lambda z, t, o=options: nn.cross_entropy(z, t, ignore_index=-5, **o)  # noqa: E731
        value, gradient, product = three(device, loss, poisoned, np.ones_like(Z), t)
        np.testing.assert_allclose(value, expected, rtol=1e-14)
        np.testing.assert_allclose(gradient[keep], g, rtol=1e-14)
        assert not gradient[~keep].any()
        assert np.isfinite(product).all()


def test_smoothing_is_the_cross_entropy_to_the_smoothed_labels(device):
    """−Σ q log p with q = (1−ε)·onehot + ε/K; its gradient is (p − q)/N."""
    eps, q = 0.2, 0.8 * np.eye(4)[T] + 0.2 / 4
    p = nn.softmax(Z)
    value, g = two(device, lambda z, t: nn.cross_entropy(z, t, label_smoothing=eps), Z, T)
    np.testing.assert_allclose(value, -np.sum(q * np.log(p)) / 6, rtol=1e-13)
    np.testing.assert_allclose(g, (p - q) / 6, atol=1e-16)


def test_without_the_options_nothing_changes(device):
    for options in ({"label_smoothing": 0.0}, {"label_smoothing": 0}, {"ignore_index": None}, {"ignore_index": -1}):
        found = two(device, lambda z, t, o=options: nn.cross_entropy(z, t, **o), Z, T)
        for a, b in zip(found, two(device, nn.cross_entropy, Z, T), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", ["uint8", "uint64", "int8", "int64"])
def test_an_ignored_label_of_every_kind(kind, device):
    ignoring = lambda t, i=None: two(device, lambda z, t: nn.cross_entropy(z, t, ignore_index=i), Z, t)  # noqa: E731
    high = np.where(T == 1, 120, T).astype(kind)
    for found, expected in ((ignoring(high, 120), ignoring(T, 1)), (ignoring(T.astype(kind), -100), ignoring(T))):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_options_are_checked():
    for smoothing in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"label_smoothing must lie in \[0, 1\], got"):
            nn.cross_entropy(Z, T, label_smoothing=smoothing)
    with pytest.raises(TypeError, match="float"):
        nn.cross_entropy(Z, T, ignore_index=1.0)
    with pytest.raises(IndexError, match="labels for 4 classes must lie in 0 … 3, got 7"):
        nn.cross_entropy(Z, np.array([0, 7, 1, -1, 2, 0]), ignore_index=-1)
    with pytest.raises(ValueError, match="all 6 labels are -1, the ignored one: there is nothing to average"):
        nn.cross_entropy(Z, np.full(6, -1), ignore_index=-1)


# binary cross-entropy


@pytest.mark.peer
@pytest.mark.parametrize("shape", [(6,), (3, 2), (), (5, 1)])
@pytest.mark.parametrize("soft", [False, True])
def test_binary_cross_entropy_and_two_derivatives_are_torch_s(torch, shape, soft, device):
    z, v = RNG.standard_normal(shape) * 4, RNG.standard_normal(shape)
    y = RNG.uniform(0, 1, shape) if soft else np.asarray(RNG.integers(0, 2, shape))
    ty = torch.tensor(y.astype("float64"))
    value, g, h = torch_three(torch, lambda x: torch.nn.functional.binary_cross_entropy_with_logits(x, ty), z, v)
    ours, gradient, product = three(device, nn.binary_cross_entropy, z, v, np.asarray(y))
    np.testing.assert_allclose(ours, value, rtol=1e-13)
    np.testing.assert_allclose(gradient, g, rtol=1e-11, atol=1e-15)
    np.testing.assert_allclose(product, h, rtol=1e-10, atol=1e-15)
    labels = device.array(y)
    check_grads(lambda z: nn.binary_cross_entropy(z, labels), device.array(z), order=2)


@pytest.mark.peer
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extreme_logits_of_binary_cross_entropy_are_torch_s(torch, dtype, device):
    z = np.array([1e4, 1e4, -1e4, -1e4, 0.0, -0.0, 30.0, -30.0, 90.0, -90.0, 1e38, -1e38], dtype)
    y = np.array([0, 1, 0, 1] * 3)
    tz = torch.tensor(z, requires_grad=True)
    losses = torch.nn.functional.binary_cross_entropy_with_logits(tz, torch.tensor(y.astype(dtype)), reduction="none")
    losses.sum().backward()
    for i in range(len(z)):
        value, g, h = three(device, nn.binary_cross_entropy, z[i : i + 1], z[i : i + 1] * 0 + 1, y[i : i + 1])
        assert value.dtype == g.dtype == dtype
        np.testing.assert_allclose(value, losses[i].item(), rtol=1e-6)
        np.testing.assert_allclose(g[0], tz.grad[i].item(), rtol=1e-6, atol=1e-7)
        assert np.isfinite(h).all()


def test_logits_of_zero_are_no_kink(device):
    """A model that starts at zero gives exactly these: the slope is ½ − y and the curvature ¼."""
    z, y = np.zeros(2), np.array([0, 1])
    value, g, h = three(device, nn.binary_cross_entropy, z, np.array([1.0, 0.0]), y)
    np.testing.assert_allclose(value, math.log(2), rtol=1e-15)
    np.testing.assert_array_equal(g, [0.25, -0.25])
    np.testing.assert_allclose(h, [1 / 8, 0], rtol=1e-15)


def test_two_classes_by_either_cross_entropy(device):
    """K = 2 logits (0, z) and the one logit z are the same question."""
    z, y = RNG.standard_normal(9) * 5, RNG.integers(0, 2, 9)
    pairs = np.stack([np.zeros(9), z], axis=1)
    a, ga = two(device, nn.binary_cross_entropy, z, y)
    b, gb = two(device, nn.cross_entropy, pairs, y)
    np.testing.assert_allclose(a, b, rtol=1e-14)
    np.testing.assert_allclose(ga, gb[:, 1], rtol=1e-12)


def test_a_confident_and_right_answer_keeps_its_small_loss_and_slope(device):
    value, g = two(device, nn.binary_cross_entropy, np.array([-60.0]), np.array([0]))
    np.testing.assert_allclose([value, g[0]], math.exp(-60), rtol=1e-14)


@pytest.mark.parametrize("kind", ["bool", "int8", "uint8", "int64", "float64"])
def test_every_kind_of_zero_and_one_is_accepted(kind, device):
    z, y = RNG.standard_normal(4), np.array([0, 1, 1, 0])
    for a, b in zip(*[two(device, nn.binary_cross_entropy, z, t) for t in (y.astype(kind), y)], strict=True):
        np.testing.assert_array_equal(a, b)
    assert two(device, nn.binary_cross_entropy, z.astype("float32"), y)[0].dtype == np.float32


@pytest.mark.parametrize("bad, told", [([-1, 1], "got -1.0 to 1.0"), ([0, 2], "to 2.0"), ([0.5, np.nan], "nan")])
def test_labels_outside_zero_and_one_are_refused(bad, told, device):
    for call in (nn.binary_cross_entropy, grad(nn.binary_cross_entropy)):
        with pytest.raises(ValueError, match=rf"\[0, 1\].*{told}.*nn\.hinge"), debug():
            call(device.array([0.0, 0.0]), device.array(bad))


# hinge losses


@pytest.mark.parametrize("labels", ["int8", "int64", "float64"])
def test_hinge_and_its_gradient(labels, device):
    """Inside, beyond and at the margin; and where the sign is wrong."""
    s, y = np.array([0.5, 2.0, 1.0, -1.0, -0.5, -3.0]), np.array([1, 1, 1, -1, 1, -1]).astype(labels)
    value, g, h = three(device, nn.hinge, s, np.ones(6), y)
    np.testing.assert_allclose(value, (0.5 + 0 + 0 + 0 + 1.5 + 0) / 6, rtol=1e-15)
    np.testing.assert_array_equal(g * 6, [-1, 0, 0, 0, -1, 0])  # 0 at the kinks, y·s = 1
    assert not h.any()


@pytest.mark.peer
def test_hinge_is_torch_s_and_multiclass_hinge_scikit_learn_s(torch, device):
    from sklearn.metrics import hinge_loss

    s, y = RNG.standard_normal(50) * 2, RNG.choice([-1, 1], 50)
    value, g, _ = torch_three(torch, lambda x: (1 - torch.tensor(y) * x).relu().mean() + 0 * (x * x).sum(), s, s)
    ours, gradient = two(device, nn.hinge, s, y)
    np.testing.assert_allclose([ours, hinge_loss(y, s)], value, rtol=1e-13)
    np.testing.assert_allclose(gradient, g, rtol=1e-13)
    z, t = RNG.standard_normal((50, 4)) * 2, np.arange(50) % 4
    ours, gradient = two(device, nn.multiclass_hinge, z, t)
    np.testing.assert_allclose(ours, hinge_loss(t, z), rtol=1e-13)

    def theirs(x):
        others = torch.where(torch.eye(4)[torch.tensor(t)] > 0, -torch.inf, x)
        return (1 + torch.amax(others, 1) - x[torch.arange(50), torch.tensor(t)]).relu().mean() + 0 * (x * x).sum()

    _, g, _ = torch_three(torch, theirs, z, z)
    np.testing.assert_allclose(gradient, g, rtol=1e-13)


def test_multiclass_hinge_by_hand(device):
    z = np.array([[3.0, 1.0, 2.5], [0.0, 4.0, 1.0], [2.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    t = np.array([0, 1, 1, 0])
    value, g = two(device, nn.multiclass_hinge, z, t)
    np.testing.assert_allclose(value, (0.5 + 0 + 3 + 2) / 4, rtol=1e-15)
    expected = [[-1, 0, 1], [0, 0, 0], [1, -1, 0], [-1, 0.5, 0.5]]  # ties share
    np.testing.assert_array_equal(g * 4, expected)
    _, at_the_kink = two(device, nn.multiclass_hinge, np.array([[2.0, 1.0]]), np.array([0]))
    np.testing.assert_array_equal(at_the_kink, [[-0.5, 0.5]])


def test_two_classes_by_either_hinge(device):
    """With K = 2 the margin is that of the score z₁ − z₀."""
    z, t = RNG.standard_normal((9, 2)), np.arange(9) % 2
    one, other = two(device, nn.multiclass_hinge, z, t), two(device, nn.hinge, z[:, 1] - z[:, 0], 2 * t - 1)
    np.testing.assert_allclose(one[0], other[0], rtol=1e-14)
    np.testing.assert_allclose(one[1], np.stack([-other[1], other[1]], axis=1), rtol=1e-14)


def test_derivatives_of_the_hinge_losses_are_exact(device):
    s, y = device.array([0.4, 1.7, -0.6, -2.0]), device.array([1, 1, -1, 1])
    z, t = device.array(Z), device.array(T)
    check_grads(lambda s: nn.hinge(s, y), s)
    check_grads(lambda z: nn.multiclass_hinge(z, t), z)
    check_grads(lambda z: nn.multiclass_hinge(z, t.reshape(2, 3)), z.reshape(2, 3, 4))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_new_losses_keep_the_dtype(dtype, device):
    z, y = Z[:, 0].astype(dtype), np.array([0, 1, 1, 0, 1, 0])
    cases = [(nn.binary_cross_entropy, z, y), (nn.hinge, z, 2 * y - 1), (nn.multiclass_hinge, Z.astype(dtype), T)]
    for loss, x, target in cases:
        assert [a.dtype for a in three(device, loss, x, x, target)] == [dtype] * 3


@pytest.mark.parametrize(
    "labels, told", [([0, 1], "got 0.0.*2\\*y - 1"), ([1, 3], "got 3.0"), ([1, np.nan], "got nan")]
)
def test_labels_other_than_minus_and_plus_one_are_refused(labels, told, device):
    with pytest.raises(ValueError, match=f"labels of hinge are −1 and \\+1, {told}"), debug():
        nn.hinge(device.array([0.0, 0.0]), device.array(labels))


PAIRS = [nn.binary_cross_entropy, nn.hinge]


@pytest.mark.parametrize("loss", PAIRS)
def test_pairs_that_do_not_fit_are_refused(loss):
    name = loss.__name__
    for z, y in ((np.zeros((6, 1)), np.ones(6)), (np.zeros(6), np.ones((6, 1)))):
        with pytest.raises(ValueError, match=rf"{name} needs two equal shapes, got \(6,.*output\[:, 0\]"):
            loss(z, y)
    with pytest.raises(TypeError, match=f"{name} needs one dtype, got float32 and float64"):
        loss(np.zeros(3, "float32"), np.ones(3))
    with pytest.raises(TypeError, match=f"{name} takes two arrays, got a list"):
        loss(np.zeros(2), [1, 1])
    with pytest.raises(ValueError, match="empty"):
        loss(np.zeros(0), np.zeros(0, int))


def test_multiclass_hinge_refuses_what_cross_entropy_refuses():
    with pytest.raises(TypeError, match="labels are integers, got float64"):
        nn.multiclass_hinge(Z, T.astype(float))
    with pytest.raises(ValueError, match=r"need labels of shape \(6,\), got \(5,\)"):
        nn.multiclass_hinge(Z, T[:5])
    with pytest.raises(IndexError, match="labels for 4 classes must lie in 0 … 3, got 9"):
        nn.multiclass_hinge(Z, T + 9 * (T == 3) - 3 * (T == 3))
    with pytest.raises(ValueError, match="empty"):
        nn.multiclass_hinge(Z[:0], T[:0])


def test_the_new_losses_do_not_write_into_their_arguments():
    z, t, s, y = Z.copy(), T.copy(), Z[:, 0].copy(), np.array([1, -1] * 3)
    for a in (z, t, s, y):
        a.setflags(write=False)
    grad(lambda z: nn.cross_entropy(z, t, label_smoothing=0.1, ignore_index=2))(z)
    grad(nn.multiclass_hinge)(z, t)
    grad(nn.hinge)(s, y)
    grad(nn.binary_cross_entropy)(s, y > 0)


def test_nan_is_not_hidden_by_the_new_losses(device):
    s = np.array([0.5, np.nan])
    for loss, y in ((nn.binary_cross_entropy, [0, 1]), (nn.hinge, [-1, 1])):
        value, gradient = two(device, loss, s, np.array(y))
        assert np.isnan(value) and np.isnan(gradient[1]) == (loss is nn.binary_cross_entropy)
    assert np.isnan(device.host(nn.multiclass_hinge(device.array([[1.0, np.nan]]), device.array([0]))))


@pytest.mark.parametrize("loss", [nn.cross_entropy, nn.multiclass_hinge])
def test_labels_in_another_form_are_told_what_to_do(loss):
    for onehot in (np.eye(4)[T], np.eye(4, dtype=int)[T]):
        with pytest.raises((TypeError, ValueError), match=r"by y\.argmax\(axis=1\)"):
            loss(Z, onehot)
    with pytest.raises(TypeError, match="labels are integers, got float64: the logits come first"):
        loss(T, Z)
    with pytest.raises(TypeError, match=r"got list: use np\.array\(labels\)"):
        loss(Z, T.tolist())
    with pytest.raises(TypeError, match=r"logits are an array \(…, K\), got a list: use np\.array"):
        loss(Z.tolist(), T)


def test_mse_of_one_output_is_told_what_to_do():
    for a, b in ((np.ones((6, 1)), np.ones(6)), (np.ones(6), np.ones((6, 1)))):
        with pytest.raises(ValueError, match=r"mse needs two equal shapes, got .*: .*output\[:, 0\]"):
            nn.mse(a, b)
    with pytest.raises(ValueError, match=r"got \(6, 4\) and \(6,\)$"):
        nn.mse(Z, np.ones(6))
