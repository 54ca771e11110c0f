"""The two sides of a benchmark do the same work."""

import inspect

import numpy as np
import pytest

from minibng import nn
from tests.benchmarks import works


@pytest.mark.peer
def test_both_sides_of_resnet20_are_the_same_network(torch, monkeypatch):
    """Where theirs starts from our weights, it has our loss."""
    monkeypatch.setattr(works, "IMAGES", 4)
    theirs = inspect.getclosurevars(works.torch_resnet()).nonlocals
    model = nn.models.resnet(20)
    params = model.init(0)
    for (_, own), tensor in zip(params.items(), theirs["net"].parameters(), strict=True):
        axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[own.ndim]
        tensor.data.copy_(torch.tensor(own.transpose(axes)))
    images, labels = works._images()
    expected = theirs["loss"](theirs["net"](theirs["x"]), theirs["y"]).item()
    np.testing.assert_allclose(nn.cross_entropy(model(params, images, train=True), labels), expected, rtol=1e-5)


def copied(torch, own, tensor, axes):
    """Give PyTorch's tensor the values of ours."""
    tensor.data.copy_(torch.tensor(own.transpose(axes) if axes else own))


@pytest.mark.peer
def test_both_sides_of_lstm_are_the_same_network(torch):
    theirs = inspect.getclosurevars(works.torch_lstm()).nonlocals
    model = nn.models.lstm_lm(works.WORDS, works.UNITS, works.UNITS, 2)
    params = model.init(0)
    copied(torch, params["embedding.W"], theirs["embedding"].weight, None)
    for k in range(2):
        for name, own in (("weight_ih", "W"), ("weight_hh", "U")):
            copied(torch, params[f"lstm.{k}.{own}"], getattr(theirs["lstm"], f"{name}_l{k}"), (1, 0))
        copied(torch, params[f"lstm.{k}.b"], getattr(theirs["lstm"], f"bias_ih_l{k}"), None)
        getattr(theirs["lstm"], f"bias_hh_l{k}").data.zero_()
    copied(torch, params["head.W"], theirs["head"].weight, (1, 0))
    copied(torch, params["head.b"], theirs["head"].bias, None)
    logits = theirs["head"](theirs["lstm"](theirs["embedding"](theirs["x"]))[0]).reshape(-1, works.WORDS)
    x, y = works._text(works.WORDS, works.ROWS, works.TIMES, works.WORDS)
    expected = theirs["loss"](logits, theirs["y"].reshape(-1)).item()
    np.testing.assert_allclose(nn.cross_entropy(model(params, x, train=True), y), expected, rtol=1e-5)


@pytest.mark.peer
def test_both_sides_of_textcnn_are_the_same_network(torch):
    theirs = inspect.getclosurevars(works.torch_textcnn()).nonlocals
    model = nn.models.textcnn(works.LEXICON, 128, maps=works.MAPS, padding=None)
    params = model.init(0)
    copied(torch, params["embedding.W"], theirs["embedding"].weight, None)
    vectors = theirs["embedding"](theirs["x"]).transpose(1, 2)
    for conv, width in zip(theirs["convolutions"], (3, 4, 5), strict=True):
        copied(torch, params[f"conv{width}.W"], conv.weight, (2, 1, 0))
        copied(torch, params[f"conv{width}.b"], conv.bias, None)
    copied(torch, params["head.W"], theirs["head"].weight, (1, 0))
    copied(torch, params["head.b"], theirs["head"].bias, None)
    features = torch.cat([torch.relu(conv(vectors)).amax(2) for conv in theirs["convolutions"]], 1)
    x, y = works._text(works.LEXICON, works.SENTENCES, works.LENGTH, 2)
    expected = theirs["loss"](theirs["head"](features), theirs["y"]).item()
    np.testing.assert_allclose(nn.cross_entropy(model(params, x), y), expected, rtol=1e-5)
