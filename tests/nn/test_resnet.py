"""Residual networks: their sizes, their names, and training runs that must follow PyTorch's step for step."""

from collections import OrderedDict
from itertools import pairwise

import numpy as np
import pytest

from minibng import Params, check_grads, grad, nn, optim, value_and_grad
from minibng.nn.models.resnet import IMAGENET, Block, Identity, _spread, _subsample, resnet
from minibng.params import layer_of

RNG = np.random.default_rng(0)


# Sizes


def size_of(model):
    return sum(int(np.prod(spec.shape)) for spec in model.tensors().values())


def of_cifar(n, projection, width=16, classes=10):
    """Count by hand a 3×3 stem, three stages of n basic blocks, their batch norms and the linear layer."""
    total, inputs = 27 * width + 2 * width, width
    for outputs in (width, 2 * width, 4 * width):
        total += (9 * inputs + (2 * n - 1) * 9 * outputs) * outputs + 2 * n * 2 * outputs
        total += projection * (inputs != outputs) * (inputs * outputs + 2 * outputs)
        inputs = outputs
    return total + inputs * classes + classes


def of_imagenet(counts, bottleneck, classes=1000):
    """The same with a 7×7 stem, four stages, and projections where the number of channels changes."""
    total, inputs = 7 * 7 * 3 * 64 + 2 * 64, 64
    for i, count in enumerate(counts):
        narrow = 64 * 2**i
        outputs = narrow * (4 if bottleneck else 1)
        for k in range(count):
            if bottleneck:
                total += inputs * narrow + 9 * narrow * narrow + narrow * outputs + 2 * (2 * narrow + outputs)
            else:
                total += 9 * inputs * outputs + 9 * outputs * outputs + 2 * (outputs + outputs)
            total += (k == 0 and inputs != outputs) * (inputs * outputs + 2 * outputs)
            inputs = outputs
    return total + inputs * classes + classes


@pytest.mark.parametrize("depth, published", [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.73)])
def test_cifar_nets_have_the_published_sizes(depth, published):
    """He et al. (2016), table 6, in millions."""
    size = size_of(resnet(depth))
    assert size == of_cifar((depth - 2) // 6, projection=False)
    assert round(size / 1e6, 2) == published
    assert size_of(resnet(depth, shortcut="projection")) == of_cifar((depth - 2) // 6, projection=True)


def test_resnet_20_has_as_many_parameters_as_everywhere():
    assert size_of(resnet(20)) == 269_722
    assert size_of(resnet(20, shortcut="projection")) == 272_474
    assert size_of(resnet(8, classes=3, width=8)) == of_cifar(1, False, 8, 3)


@pytest.mark.parametrize(
    "depth, published",
    [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160), (152, 60_192_808)],
)
def test_imagenet_nets_have_the_published_sizes(depth, published):
    """Those of PyTorch's model zoo."""
    assert size_of(resnet(depth, classes=1000)) == published == of_imagenet(IMAGENET[depth], depth >= 50)


def test_the_family_of_a_depth_can_be_told():
    assert size_of(resnet(50, style="cifar")) == of_cifar(8, projection=False)
    assert size_of(resnet(50)) == of_imagenet(IMAGENET[50], True, classes=10)


@pytest.mark.parametrize("depth, style", [(19, "auto"), (2, "auto"), (0, "auto"), (18, "cifar"), (20, "imagenet")])
def test_a_depth_that_does_not_exist_is_refused_with_those_that_do(depth, style):
    with pytest.raises(ValueError, match=f"depth of (6n \\+ 2: 8, 14, 20|18, 34, 50).*; got {depth}"):
        resnet(depth, style=style)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="unknown style 'cifr'; did you mean 'cifar'"):
        resnet(20, style="cifr")
    with pytest.raises(ValueError, match="unknown shortcut 'identiy'; did you mean 'identity'"):
        resnet(20, shortcut="identiy")
    with pytest.raises(TypeError, match=r"whole numbers.*20\.0"):
        resnet(20.0)
    with pytest.raises(ValueError, match="can add channels, not take them away: 8 → 4"):
        Block(8, 4, shortcut="identity")
    with pytest.raises(ValueError, match="a bottleneck has a multiple of 4 outputs, got 6"):
        Block(4, 6, bottleneck=True)


# Names and blocks


def test_each_convolution_each_batch_norm_and_the_linear_layer_is_a_block():
    params = resnet(20, width=2).init()
    blocks = list(params.layout.block_names)
    assert len(blocks) == 19 + 19 + 1
    assert blocks[:5] == ["stem.conv", "stem.norm", "stage1.0.conv1", "stage1.0.norm1", "stage1.0.conv2"]
    assert blocks[-1] == "head"
    assert not any(name.endswith("conv.b") for name in params)
    assert len(resnet(20, width=2, shortcut="projection").init().layout.block_names) == 39 + 4
    assert len(resnet(50, width=2).init().layout.block_names) == 2 * (1 + 48 + 4) + 1


@pytest.mark.parametrize("depth, style", [(8, "cifar"), (18, "imagenet"), (50, "imagenet")])
def test_every_batch_norm_is_told_the_convolution_before_it(depth, style):
    model = resnet(depth, width=2, style=style, shortcut="projection")
    params = model.init()
    blocks = list(params.layout.block_names)
    assert model.pairs == {norm: conv for conv, norm in pairwise(blocks) if "norm" in norm}
    for norm, conv in model.pairs.items():
        assert params[f"{conv}.W"].shape[-1:] == params[f"{norm}.gamma"].shape == params[f"{norm}.beta"].shape
    merged = params.layout.with_blocks(lambda tensor: model.pairs.get(layer_of(tensor), layer_of(tensor)))
    assert list(merged.block_names) == [*model.pairs.values(), "head"]


def test_convolutions_are_drawn_with_variance_two_over_fan_in():
    params = resnet(8, width=32).init(seed=0)
    for name, w in params.items():
        if name.endswith(("conv.W", "conv1.W", "conv2.W")):
            assert abs(w.var() * np.prod(w.shape[:-1]) / 2 - 1) < 5 * np.sqrt(2 / w.size), name


# The shortcut without parameters


@pytest.mark.parametrize("stride, shape, channels", [(2, (2, 4, 4, 3), 6), (2, (1, 5, 3, 2), 2), (3, (2, 7, 4, 1), 4)])
def test_the_identity_takes_every_second_pixel_and_adds_empty_channels(stride, shape, channels, device):
    x = RNG.standard_normal(shape)
    layer = Identity(shape[3], channels, stride)
    y = device.host(layer(Params.of({}), device.array(x)))
    np.testing.assert_array_equal(y[..., : shape[3]], x[:, ::stride, ::stride])
    np.testing.assert_array_equal(y[..., shape[3] :], 0)
    g = RNG.standard_normal(y.shape)
    back = device.host(_spread(device.array(g), stride, shape))
    np.testing.assert_allclose(np.vdot(g, y), np.vdot(back, x), rtol=1e-13)
    check_grads(lambda x: _subsample(x, stride, channels), device.array(x))


# Against PyTorch


def torch_block(torch, block):
    """The same block, its parts called as ours are."""
    made = OrderedDict()
    for name, layer in block.layers.items():
        if name.startswith("conv"):
            made[name] = torch_conv(torch, layer)
        elif name.startswith("norm"):
            made[name] = torch.nn.BatchNorm2d(layer.channels)
        elif not isinstance(layer, Identity):
            conv, norm = layer.layers["conv"], layer.layers["norm"]
            parts = {"conv": torch_conv(torch, conv), "norm": torch.nn.BatchNorm2d(norm.channels)}
            made[name] = torch.nn.Sequential(OrderedDict(parts))
    stride, more = block.stride, block.outputs - block.inputs

    class TorchBlock(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name, part in made.items():
                self.add_module(name, part)

        def forward(self, x):
            skip = x
            if "shortcut" in made:
                skip = self.shortcut(x)
            elif "shortcut" in block.layers:
                skip = torch.nn.functional.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, more))
            for i in range(1, block.count + 1):
                x = getattr(self, f"norm{i}")(getattr(self, f"conv{i}")(x))
                x = torch.relu(x + skip if i == block.count else x)
            return x

    return TorchBlock()


def torch_conv(torch, layer):
    (k, _), (s, _) = layer.kernel, layer.stride
    return torch.nn.Conv2d(layer.inputs, layer.outputs, k, s, padding=(k - 1) // 2, bias=False)


def torch_resnet(torch, model):
    """The same network, its modules called as our layers are."""
    stem = model.layers["stem"].layers
    parts = {"conv": torch_conv(torch, stem["conv"]), "norm": torch.nn.BatchNorm2d(stem["conv"].outputs)}
    made = {"stem": torch.nn.Sequential(OrderedDict(parts)), "relu": torch.nn.ReLU()}
    if "pool" in model.layers:
        made["pool"] = torch.nn.MaxPool2d(3, 2, padding=1)
    for name, stage in model.layers.items():
        if name.startswith("stage"):
            made[name] = torch.nn.Sequential(*[torch_block(torch, block) for block in stage.layers.values()])
    head = model.layers["head"]
    made |= {"mean": torch.nn.AdaptiveAvgPool2d(1), "flat": torch.nn.Flatten()}
    made["head"] = torch.nn.Linear(head.inputs, head.outputs)
    return torch.nn.Sequential(OrderedDict(made)).to(torch.float64)


CALLED = {"W": "weight", "b": "bias", "gamma": "weight", "beta": "bias", "mean": "running_mean", "var": "running_var"}


def in_torch(net, name):
    """PyTorch's tensor of our name, with the axes as ours."""
    layer, _, short = name.rpartition(".")
    tensor = getattr(net.get_submodule(layer), CALLED[short]).detach()
    return tensor.permute(*{4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[tensor.ndim])


def follow(torch, model, shape, steps, device, rtol=1e-8):
    """Train both from the same weights on the same batches; hold losses, parameters and running statistics together."""
    params = model.init(seed=0, dtype="float64")
    net = torch_resnet(torch, model)
    for name, value in params.items():
        in_torch(net, name).copy_(torch.tensor(value))
    params = params.to(device.name)
    opt, theirs = optim.Momentum(params, lr=0.05), torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    step = value_and_grad(lambda p, x, t: nn.cross_entropy(model(p, x, train=True), t))
    rng = np.random.default_rng(0)
    for _ in range(steps):
        x, t = rng.standard_normal(shape), rng.integers(0, 5, shape[0])
        batch = device.arrays([x, t])
        with device.no_sync():
            value, g = step(params, *batch)
            opt.step(g)
        theirs.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(torch.tensor(x).permute(0, 3, 1, 2)), torch.tensor(t))
        loss.backward()
        theirs.step()
        np.testing.assert_allclose(device.host(value), loss.item(), rtol=rtol)
    params = params.to("cpu")
    for name, value in [*params.items(), *params.buffers.items()]:
        if np.ndim(value):
            expected = in_torch(net, name).numpy()
            assert np.abs(value - expected).max() <= rtol * np.abs(expected).max(), name
    net.eval()
    expected = net(torch.tensor(x).permute(0, 3, 1, 2)).detach().numpy()
    np.testing.assert_allclose(model(params, x), expected, rtol=rtol, atol=rtol * np.abs(expected).max())


@pytest.mark.peer
@pytest.mark.parametrize("shortcut", ["identity", "projection"])
def test_training_of_resnet_20_follows_torch_for_twenty_steps(torch, shortcut, device):
    follow(torch, resnet(20, 5, width=4, shortcut=shortcut), (6, 8, 8, 3), 20, device)


@pytest.mark.peer
@pytest.mark.parametrize("depth, shortcut", [(18, "auto"), (50, "auto"), (50, "identity")])
def test_training_of_imagenet_nets_follows_torch(torch, depth, shortcut, device):
    follow(torch, resnet(depth, 5, width=2, channels=2, shortcut=shortcut), (4, 36, 31, 2), 2, device)


# Derivatives, evaluation, buffers


@pytest.mark.parametrize("shortcut", ["identity", "projection"])
def test_derivatives_of_two_orders(shortcut):
    model = resnet(8, 2, width=2, channels=1, shortcut=shortcut)
    params, x = model.init(seed=1, dtype="float64"), RNG.standard_normal((3, 4, 5, 1))
    for train in (True, False):
        check_grads(lambda p, x, t=train: nn.cross_entropy(model(p, x, train=t), np.array([0, 1, 1])), params, x)


def test_in_evaluation_no_sample_knows_of_another(device):
    model = resnet(8, 3, width=2)
    params = model.init(seed=0, dtype="float64", device=device.name)
    x = device.array(RNG.standard_normal((4, 8, 8, 3)))
    model(params, x, train=True)
    before = device.host(params.copy().buffers)
    whole = device.host(model(params, x))
    for i in range(4):
        np.testing.assert_allclose(device.host(model(params, x[i : i + 1]))[0], whole[i], rtol=1e-12, atol=1e-12)
    leaked = device.host(grad(lambda x: np.sum(model(params, x)[1]))(x))
    assert np.abs(leaked[1]).max() > 0
    np.testing.assert_array_equal(leaked[[0, 2, 3]], 0)
    for name, value in device.host(params.buffers).items():
        np.testing.assert_array_equal(value, before[name])
    mixed = device.host(grad(lambda x: np.sum(model(params, x, train=True)[1]))(x))
    assert np.abs(mixed[[0, 2, 3]]).max() > 0  # in training they do: by the batch's mean


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_running_statistics_go_where_the_parameters_go(dtype, device):
    model = resnet(8, 3, width=2)
    params = model.init(seed=0, dtype=dtype, device=device.name)
    x = device.array(RNG.standard_normal((4, 8, 8, 3)).astype(dtype))
    fresh = model(params, x)
    with device.no_sync():
        model(params, x, train=True)
    y = device.host(model(params, x))
    assert y.dtype == dtype and not np.array_equal(y, device.host(fresh))
    for again in (params.copy(), params.to(device.name)):
        np.testing.assert_array_equal(device.host(model(again, x)), y)
    tolerance = 1e-5 if dtype == "float32" else 1e-12  # the host adds up in another order
    np.testing.assert_allclose(model(params.to("cpu"), device.host(x)), y, tolerance, tolerance)
    loaded = model.init(seed=1, dtype=dtype, device=device.name)
    loaded.load_state_dict(params.state_dict())
    np.testing.assert_array_equal(device.host(model(loaded, x)), y)
    assert {name.rpartition(".")[0] for name in params.buffers} == set(model.pairs)


# What it says of itself


def test_summary_has_a_line_a_block():
    text = resnet(14, 10, width=4).summary(np.zeros((2, 16, 16, 3), "float32"))
    rows = [line.split("  ") for line in text.splitlines()]
    assert [row[0] for row in rows[1:-1]] == [
        *("stem.conv", "stem.norm", "stage1.0", "stage1.1", "stage2.0", "stage2.1", "stage3.0", "stage3.1"),
        *("mean", "head"),
    ]
    told = {row[0]: [cell.strip() for cell in row if cell.strip()][1:] for row in rows[1:-1]}
    assert told["stage2.0"] == ["Block(4, 8, stride=2, shortcut='identity')", "(2, 8, 8, 8)", "896"]
    assert told["head"] == ["Linear(16, 10)", "(2, 10)", "170"]
    assert rows[-1] == [f"{of_cifar(2, False, 4):,} parameters in 27 blocks"]


def test_blocks_tell_how_they_were_made():
    assert repr(Block(4, 4)) == "Block(4, 4)"
    assert repr(Block(4, 8, 2)) == "Block(4, 8, stride=2)"
    assert repr(Block(4, 16, bottleneck=True)) == "Block(4, 16, bottleneck=True)"
    assert repr(resnet(8, width=2)).startswith("ResNet(stem=Sequential(conv=Conv2d(3, 2,")


def test_swapped_arguments_are_told_the_order():
    model = resnet(8, width=2)
    x = np.zeros((2, 8, 8, 3), "float32")
    for layer in (model, model.layers["stage1"].layers["0"], model.layers["stage2"].layers["0"]):
        with pytest.raises(TypeError, match=r"call model\(params, x\), in this order: params is a ndarray"):
            layer(x, model.init())


def test_images_that_do_not_fit_are_told_the_layer():
    model = resnet(8, width=2)
    with pytest.raises(ValueError, match=r"layer 'stem.conv', Conv2d\(3, 2.*got shape \(2, 3, 8, 8\)"):
        model(model.init(), np.zeros((2, 3, 8, 8), "float32"))
