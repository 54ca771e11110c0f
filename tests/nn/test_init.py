import numpy as np
import pytest

from minibng import nn
from minibng.nn import init

CASES = [
    (init.he, (300, 200), 2 / 300),
    (init.he, (3, 3, 50, 60), 2 / 450),
    (init.xavier, (300, 200), 2 / 500),
    (init.xavier, (3, 3, 50, 60), 2 / 990),
    (init.he_uniform, (300, 200), 2 / 300),
    (init.he_uniform, (3, 3, 50, 60), 2 / 450),
    (init.xavier_uniform, (300, 200), 2 / 500),
    (init.xavier_uniform, (3, 3, 50, 60), 2 / 990),
    (init.Normal(0.3), (200, 100), 0.09),
    (init.Uniform(0.5), (200, 100), 0.25 / 3),
]


@pytest.mark.parametrize("draw, shape, variance", CASES)
def test_mean_and_variance_are_right_within_five_sigma(draw, shape, variance):
    w = draw(np.random.default_rng(0), shape)
    assert w.shape == shape
    n = w.size
    assert abs(w.mean()) < 5 * np.sqrt(variance / n)
    fourth = np.mean((w - w.mean()) ** 4) / variance**2
    assert abs(w.var() / variance - 1) < 5 * np.sqrt((fourth - 1) / n)


def test_uniform_stays_inside_and_the_others_are_normal():
    rng = np.random.default_rng(1)
    assert np.abs(init.Uniform(0.5)(rng, (1000, 10))).max() < 0.5
    for draw, limit in ((init.he_uniform, np.sqrt(6 / 300)), (init.xavier_uniform, np.sqrt(6 / 500))):
        assert 0.999 * limit < np.abs(draw(rng, (300, 200))).max() < limit
    for draw in (init.he, init.xavier, init.Normal(1.0)):
        w = draw(rng, (300, 200))
        kurtosis = np.mean(w**4) / np.mean(w**2) ** 2
        assert abs(kurtosis - 3) < 5 * np.sqrt(24 / w.size)


def test_zeros_and_small_shapes():
    rng = np.random.default_rng(0)
    assert not init.zeros(rng, (3,)).any()
    assert init.ones(rng, (2, 3)).tolist() == [[1, 1, 1], [1, 1, 1]]
    assert init.he(rng, (1, 1)).shape == (1, 1)


@pytest.mark.parametrize("draw", [init.he, init.xavier, init.he_uniform, init.xavier_uniform, init.Orthogonal()])
def test_a_fan_in_needs_two_axes(draw):
    with pytest.raises(ValueError, match=r"two axes \(in, out\), got shape \(3,\)"):
        draw(np.random.default_rng(0), (3,))


def test_relu_layers_drawn_as_he_et_al_keep_the_second_moment():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 400))
    for _ in range(6):
        x = np.maximum(x @ init.he(rng, (400, 400)), 0)
    assert 0.7 < np.mean(x**2) < 1.4  # the variance doubles in the product, and relu halves it


@pytest.mark.parametrize("gain", [1.0, 0.5, 2**0.5])
@pytest.mark.parametrize("shape", [(5, 5), (200, 30), (30, 200), (3, 3, 4, 7), (3, 3, 1, 20), (1, 1), (6, 1), (1, 6)])
def test_orthogonal_is_orthogonal_to_rounding(shape, gain):
    w = init.Orthogonal(gain)(np.random.default_rng(0), shape)
    assert w.shape == shape and w.dtype == np.float64
    m = w.reshape(-1, shape[-1])
    product = m.T @ m if m.shape[0] >= m.shape[1] else m @ m.T
    np.testing.assert_allclose(product, gain**2 * np.eye(min(m.shape)), atol=1e-14 * max(m.shape))
    np.testing.assert_allclose(np.linalg.svd(m, compute_uv=False), gain, rtol=1e-13)


def test_orthogonal_is_uniform():
    """Over the rotations and reflections of the plane: every angle as often, det = ±1 as often. QR alone is neither."""
    rng = np.random.default_rng(0)
    drawn = np.array([init.Orthogonal()(rng, (2, 2)) for _ in range(4000)])
    angles = np.arctan2(drawn[:, 1, 0], drawn[:, 0, 0])
    quarters = np.histogram(angles, bins=4, range=(-np.pi, np.pi))[0]
    assert np.abs(quarters - 1000).max() < 5 * np.sqrt(4000 * 3 / 16)
    assert abs(np.linalg.det(drawn).round().mean()) < 5 / np.sqrt(4000)
    assert (np.abs(drawn.mean(axis=0)) < 5 * np.sqrt(0.5 / 4000)).all()


def test_orthogonal_layers_keep_every_length():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((7, 30))
    y = x
    for _ in range(50):
        y = y @ init.Orthogonal()(rng, (30, 30))
    np.testing.assert_allclose(np.linalg.norm(y, axis=1), np.linalg.norm(x, axis=1), rtol=1e-12)


def test_every_initializer_is_known_by_name_and_reaches_a_layer():
    assert set(init.INITIALIZERS) == {"he", "he_uniform", "xavier", "xavier_uniform", "orthogonal", "zeros"}
    for name, draw in init.INITIALIZERS.items():
        w = nn.Linear(4, 3, init=name).init(seed=5, dtype="float64")["W"]
        assert w.shape == (4, 3) and np.array_equal(w, nn.Linear(4, 3, init=draw).init(seed=5, dtype="float64")["W"])
