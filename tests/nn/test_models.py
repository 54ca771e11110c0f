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


@pytest.mark.peer
@pytest.mark.parametrize("inputs, kernel", [((8, 8, 3), 3), ((11, 6, 1), 5), ((9, 4, 2), 2)])
def test_training_of_a_cnn_follows_torch(torch, inputs, kernel, device):
    model = nn.models.cnn(inputs, 3, maps=(4, 5), kernel=kernel)
    params = model.init(seed=0, dtype="float64")
    height, width, channels = inputs
    convolutions = [torch.nn.Conv2d(a, b, kernel, dtype=torch.float64) for a, b in ((channels, 4), (4, 5))]
    linear = torch.nn.Linear(5 * (height // 4) * (width // 4), 3, dtype=torch.float64)
    with torch.no_grad():
        for name, conv in zip(("0", "3"), convolutions, strict=True):
            conv.weight.copy_(torch.tensor(params[f"{name}.W"]).permute(3, 2, 0, 1))
            conv.bias.copy_(torch.tensor(params[f"{name}.b"]))
        linear.weight.copy_(torch.tensor(params["7.W"].T))
        linear.bias.copy_(torch.tensor(params["7.b"]))
    around = ((kernel - 1) // 2, kernel // 2) * 2

    def theirs(x):
        for conv in convolutions:
            x = torch.nn.functional.max_pool2d(torch.relu(conv(torch.nn.functional.pad(x, around))), 2)
        return linear(x.permute(0, 2, 3, 1).flatten(1))

    params = params.to(device.name)
    optimizer = torch.optim.SGD([t for m in (*convolutions, linear) for t in m.parameters()], lr=0.1)
    step = value_and_grad(lambda p, x, t: nn.cross_entropy(model(p, x, train=True), t))
    rng = np.random.default_rng(0)
    for _ in range(5):
        x, t = rng.standard_normal((6, *inputs)), rng.integers(0, 3, 6)
        batch = device.arrays([x, t])
        with device.no_sync():
            value, g = step(params, *batch)
            params.flat[:] -= 0.1 * g.flat
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(theirs(torch.tensor(x).permute(0, 3, 1, 2)), torch.tensor(t))
        loss.backward()
        optimizer.step()
        np.testing.assert_allclose(device.host(value), loss.item(), rtol=1e-10)
    expected = linear.weight.detach().numpy().T
    np.testing.assert_allclose(device.host(params["7.W"]), expected, rtol=1e-10, atol=1e-12)


def test_a_cnn_has_as_many_poolings_as_maps():
    def size(k, c, outputs):
        return k * k * c * outputs + outputs

    model = nn.models.cnn((28, 28, 1), 10, maps=(6, 16, 20), kernel=5)
    assert model.init().layout.size == size(5, 1, 6) + size(5, 6, 16) + size(5, 16, 20) + 3 * 3 * 20 * 10 + 10
    assert nn.models.cnn((2, 3, 4), 5, maps=()).init().layout.size == 24 * 5 + 5


@pytest.mark.parametrize(
    "settings, error, told",
    [
        ({"inputs": (28, 28)}, TypeError, r"inputs are \(H, W, C\)"),
        ({"inputs": 784}, TypeError, r"inputs are \(H, W, C\).*got 784"),
        ({"maps": 16}, TypeError, r"maps is a list of channels.*got 16"),
        ({"inputs": (28, 3, 1)}, ValueError, r"2 poolings need images of 4 × 4 pixels or more, got 28 × 3"),
        ({"classes": 2.0}, TypeError, r"whole numbers"),
    ],
)
def test_what_a_cnn_cannot_be_made_of_is_refused(settings, error, told):
    with pytest.raises(error, match=told):
        nn.models.cnn(**settings)


def test_a_width_in_place_of_the_list_of_widths_is_refused():
    with pytest.raises(TypeError, match=r"hidden is a list of widths.*got 3"):
        nn.models.mlp(4, 3, 2)
