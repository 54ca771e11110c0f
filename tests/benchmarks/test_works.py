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
