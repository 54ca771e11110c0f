"""The six rules against torch.optim 2.13, in float64."""

import numpy as np
import pytest

from minibng import optim

pytestmark = pytest.mark.peer

# rule → (name and translated settings in torch.optim, settings other than the defaults)
PEERS = {
    "SGD": ("SGD", {}, {}),
    "Momentum": ("SGD", {"momentum": "momentum"}, {"momentum": 0.5}),
    "AdaGrad": ("Adagrad", {"eps": "eps"}, {"eps": 1e-3}),
    "RMSProp": ("RMSprop", {"alpha": "alpha", "eps": "eps"}, {"alpha": 0.7, "eps": 1e-2}),
    "AdaDelta": ("Adadelta", {"rho": "rho", "eps": "eps"}, {"rho": 0.6, "eps": 1e-3}),
    "Adam": ("Adam", {}, {"beta1": 0.5, "beta2": 0.9, "eps": 1e-2}),
}
SHAPES = [(5, 4), (4,), (2, 3, 2), ()]


def in_torch(torch, rule, tensors, lr, settings):
    name, words, _ = PEERS[rule]
    translated = {words[k]: v for k, v in settings.items() if k in words}
    if rule == "Momentum":
        translated.setdefault("momentum", 0.9)  # PyTorch's own default is none
    if rule == "Adam" and settings:
        translated = {"betas": (settings["beta1"], settings["beta2"]), "eps": settings["eps"]}
    return getattr(torch.optim, name)(tensors, lr=lr, **translated)


@pytest.mark.parametrize("defaults", [True, False], ids=["defaults", "other settings"])
def test_two_hundred_steps_agree_with_torch(torch, kit, rule, defaults):
    settings = {} if defaults else PEERS[rule][2]
    arrays = kit.numbers(3, shapes=SHAPES)
    tensors = [torch.tensor(a.copy(), requires_grad=True) for a in arrays]
    start = [a.copy() for a in arrays]
    ours, theirs = (
        getattr(optim, rule)(arrays, lr=0.03, **settings),
        in_torch(torch, rule, tensors, 0.03, settings),
    )
    for t, grads in enumerate(kit.gradients(200, seed=4, shapes=SHAPES)):
        ours.step(grads)
        for tensor, g in zip(tensors, grads, strict=True):
            tensor.grad = torch.tensor(g)
        theirs.step()
        if t % 10 in (0, 9):
            kit.assert_close(arrays, [tensor.detach().numpy() for tensor in tensors], 1e-10)
    assert all(np.all(a != s) for a, s in zip(arrays, start, strict=True))


def test_every_rule_has_its_peer(rule):
    assert rule in PEERS
