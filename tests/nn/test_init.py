import numpy as np
import pytest

from minibng.nn import init

CASES = [
    (init.he, (300, 200), 2 / 300),
    (init.he, (3, 3, 50, 60), 2 / 450),
    (init.xavier, (300, 200), 2 / 500),
    (init.xavier, (3, 3, 50, 60), 2 / 990),
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
    for draw in (init.he, init.xavier, init.Normal(1.0)):
        w = draw(rng, (300, 200))
        kurtosis = np.mean(w**4) / np.mean(w**2) ** 2
        assert abs(kurtosis - 3) < 5 * np.sqrt(24 / w.size)


def test_zeros_and_small_shapes():
    rng = np.random.default_rng(0)
    assert not init.zeros(rng, (3,)).any()
    assert init.he(rng, (1, 1)).shape == (1, 1)


@pytest.mark.parametrize("draw", [init.he, init.xavier])
def test_a_fan_in_needs_two_axes(draw):
    with pytest.raises(ValueError, match=r"two axes \(in, out\), got shape \(3,\)"):
        draw(np.random.default_rng(0), (3,))


def test_relu_layers_drawn_as_he_et_al_keep_the_second_moment():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 400))
    for _ in range(6):
        x = np.maximum(x @ init.he(rng, (400, 400)), 0)
    assert 0.7 < np.mean(x**2) < 1.4  # the variance doubles in the product, and relu halves it
