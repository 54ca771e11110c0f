"""Models, and a training run that must follow PyTorch's step for step."""

import math

import numpy as np
import pytest

from minibng import nn, value_and_grad


def test_parameter_counts():
    twelve = nn.models.mlp(784, [100] * 12, 10).init()
    assert twelve.layout.size == 784 * 100 + 100 + 11 * (100 * 100 + 100) + 100 * 10 + 10
    assert len(twelve.layout.block_names) == 13
    assert nn.models.logistic(784, 10).init().layout.size == 7850
    assert nn.models.mlp(3, [], 2).init().layout.size == 8


def test_the_first_loss_of_logistic_regression_is_log_k(device):
    model = nn.models.logistic(6, 5)
    z = model(model.init(device=device.name), device.array(np.ones((3, 6), "float32")))
    loss = nn.cross_entropy(z, device.array([0, 1, 4]))
    np.testing.assert_allclose(device.host(loss), math.log(5), rtol=1e-6)


@pytest.mark.parametrize(
    "activation, variance",
    [("relu", 2 / 200), ("leaky_relu", 2 / 200), ("gelu", 2 / 200), ("tanh", 2 / 500), ("sigmoid", 2 / 500)],
)
def test_activation_chooses_the_initializer(activation, variance):
    model = nn.models.mlp(200, [300], 2, activation=activation)
    w = model.init(seed=0)["0.W"]
    assert abs(w.var() / variance - 1) < 5 * np.sqrt(2 / w.size)
    assert repr(model) == f"Sequential(Linear(200, 300), {activation}, Linear(300, 2))"


def test_an_unknown_activation_offers_the_nearest():
    with pytest.raises(ValueError, match="unknown activation 'rellu'; did you mean 'relu'"):
        nn.models.mlp(4, [3], 2, activation="rellu")


@pytest.mark.peer
@pytest.mark.parametrize("activation", nn.ACTIVATIONS)
def test_training_follows_torch_for_twenty_steps(torch, activation, device):
    model = nn.models.mlp(8, [16, 12], 4, activation=activation)
    params = model.init(seed=0, dtype="float64")
    kinds = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh, "sigmoid": torch.nn.Sigmoid}
    kinds |= {"leaky_relu": torch.nn.LeakyReLU, "gelu": lambda: torch.nn.GELU(approximate="tanh")}
    linears = [torch.nn.Linear(a, b, dtype=torch.float64) for a, b in ((8, 16), (16, 12), (12, 4))]
    act = kinds[activation]
    theirs = torch.nn.Sequential(linears[0], act(), linears[1], act(), linears[2])
    with torch.no_grad():
        for name, linear in zip(("0", "2", "4"), linears, strict=True):
            linear.weight.copy_(torch.tensor(params[f"{name}.W"].T))
            linear.bias.copy_(torch.tensor(params[f"{name}.b"]))
    params = params.to(device.name)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    step = value_and_grad(lambda p, x, t: nn.cross_entropy(model(p, x, train=True), t))
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, t = rng.standard_normal((10, 8)), rng.integers(0, 4, 10)
        batch = device.arrays([x, t])
        with device.no_sync():
            value, g = step(params, *batch)
            params.flat[:] -= 0.1 * g.flat
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(theirs(torch.tensor(x)), torch.tensor(t))
        loss.backward()
        optimizer.step()
        np.testing.assert_allclose(device.host(value), loss.item(), rtol=1e-10)
    params = params.to("cpu")
    for name, linear in zip(("0", "2", "4"), linears, strict=True):
        np.testing.assert_allclose(params[f"{name}.W"], linear.weight.detach().numpy().T, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(params[f"{name}.b"], linear.bias.detach().numpy(), rtol=1e-10, atol=1e-12)


def test_a_width_in_place_of_the_list_of_widths_is_refused():
    with pytest.raises(TypeError, match=r"hidden is a list of widths.*got 3"):
        nn.models.mlp(4, 3, 2)
