"""The nine rules against torch.optim 2.13: default and other settings, decay in its places, clipping, both dtypes."""

import math

import numpy as np
import pytest

from minibng import optim
from minibng.backend import to_host
from minibng.params import Params

pytestmark = pytest.mark.peer

SHAPES = [(5, 4), (4,), (2, 3, 2), ()]
LR = 0.03
RTOL = {"float64": 1e-10, "float32": 1e-4}

# rule → (its name in torch.optim, what must be said there of its defaults, settings other than the defaults)
PEERS = {
    "SGD": ("SGD", {}, {}),
    "Momentum": ("SGD", {"momentum": 0.9}, {"momentum": 0.5}),
    "Nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}, {"momentum": 0.5}),
    "AdaGrad": ("Adagrad", {}, {"eps": 1e-3}),
    "RMSProp": ("RMSprop", {}, {"alpha": 0.7, "eps": 1e-2, "momentum": 0.6, "centered": True}),
    "AdaDelta": ("Adadelta", {}, {"rho": 0.6, "eps": 1e-3}),
    "Adam": ("Adam", {}, {"beta1": 0.5, "beta2": 0.9, "eps": 1e-2}),
    "AMSGrad": ("Adam", {"amsgrad": True}, {"beta1": 0.5, "beta2": 0.6, "eps": 1e-2}),
    "NAdam": ("NAdam", {}, {"beta1": 0.5, "beta2": 0.9, "eps": 1e-2, "momentum_decay": 0.1}),
}
# settings of one rule, each alone: where two change together, one may hide the other
ALONE = [
    ("RMSProp", {"momentum": 0.9}),
    ("RMSProp", {"centered": True}),
    ("RMSProp", {"momentum": 0.5, "centered": True, "alpha": 0.9}),
    ("NAdam", {"momentum_decay": 0.0}),
    ("NAdam", {"momentum_decay": 1.0}),
    ("AMSGrad", {"beta2": 0.5}),
    ("Nesterov", {"momentum": 0.99}),
    ("Adam", {"beta1": 0.0}),
]


@pytest.fixture(autouse=True)
def float64_everywhere(torch):
    """NAdam keeps its product of momenta in torch's default dtype, float32 unless told."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def in_torch(torch, rule, tensors, settings, **more):
    name, said, _ = PEERS[rule]
    translated = {k: v for k, v in settings.items() if k not in ("beta1", "beta2")}
    if "beta1" in settings or "beta2" in settings:
        translated["betas"] = (settings.get("beta1", 0.9), settings.get("beta2", 0.999))
    return getattr(torch.optim, name)(tensors, lr=LR, **said | translated | more)


class Pair:
    """Our arrays and their tensors from one start, and the comparison after each step."""

    def __init__(self, torch, kit, dtype="float64"):
        self.torch, self.kit, self.dtype = torch, kit, dtype
        self.arrays = kit.numbers(3, dtype, shapes=SHAPES)
        self.tensors = [torch.tensor(to_host(a).copy(), requires_grad=True) for a in self.arrays]
        self.start = [a.copy() for a in self.arrays]

    def run(self, ours, theirs, steps, between=lambda t: None):
        far = [np.abs(to_host(a)).astype(float) for a in self.arrays]
        for t, grads in enumerate(self.kit.gradients(steps, self.dtype, seed=4, shapes=SHAPES)):
            before = [a.copy() for a in self.arrays]
            self.kit.step(ours, grads)
            far = [f + np.abs(to_host(a - b)) for f, a, b in zip(far, self.arrays, before, strict=True)]
            for tensor, g in zip(self.tensors, grads, strict=True):
                tensor.grad = self.torch.tensor(to_host(g))
            between(t)
            theirs.step()
            if t % 10 in (0, 9) or steps < 50:
                self.agree(far)
        assert all(np.all(a != s) for a, s in zip(self.arrays, self.start, strict=True))

    def agree(self, far):
        """Float64 to 1e-10 of an array's largest entry; float32 to 1e-4 of the longest way that an entry has gone.

        Both sides round: in 200 steps a moment whose weight is within a thousandth of one gathers 3·200 roundings of
        υ = 6e-8, half of which the root takes away, which makes 2e-5; the sums of steps gather as much again.
        """
        if self.dtype == "float64":
            self.kit.assert_close(self.arrays, [t.detach().numpy() for t in self.tensors], 1e-10)
        for a, t, f in zip(map(to_host, self.arrays), self.tensors, far, strict=True):
            theirs = t.detach().numpy()
            assert a.dtype == theirs.dtype == self.dtype
            assert np.abs(a - theirs).max() <= RTOL[self.dtype] * f.max()


@pytest.mark.parametrize("defaults", [True, False], ids=["defaults", "other settings"])
def test_two_hundred_steps_or_sixty_agree_with_torch(torch, kit, rule, dtype, defaults):
    settings = {} if defaults else PEERS[rule][2]
    pair = Pair(torch, kit, dtype)
    steps = 200 if defaults else 60
    pair.run(getattr(optim, rule)(pair.arrays, lr=LR, **settings), in_torch(torch, rule, pair.tensors, settings), steps)


@pytest.mark.parametrize("name, settings", ALONE, ids=str)
def test_each_setting_alone_agrees_with_torch(torch, kit, name, settings):
    pair = Pair(torch, kit)
    pair.run(getattr(optim, name)(pair.arrays, lr=LR, **settings), in_torch(torch, name, pair.tensors, settings), 60)


def test_every_rule_has_its_peer(rule):
    assert rule in PEERS


def test_defaults_are_those_of_torch(torch, rule):
    """Read off both constructors; momentum alone differs, 0.9 for torch's 0 (said to torch above)."""
    import inspect

    ours = {k: p.default for k, p in inspect.signature(getattr(optim.rules, rule)).parameters.items()}
    name, said, _ = PEERS[rule]
    theirs = {k: p.default for k, p in inspect.signature(getattr(torch.optim, name)).parameters.items()} | said
    betas = theirs.get("betas", ())
    theirs |= dict(zip(("beta1", "beta2"), betas, strict=False))
    assert ours == {k: theirs[k] for k in ours}


def test_centered_rmsprop_makes_no_nan_of_a_constant_gradient(device, dtype):
    """v − a² falls to nothing and rounds below 0, at step 3,225 here; torch takes the root of that, which is NaN."""
    x, g = device.arrays([np.zeros(4, dtype), np.array([1.0, 0.1, 0.3, 0.7], dtype)])
    opt = optim.RMSProp([x], lr=0.01, centered=True)
    for _ in range(4000):
        opt.step([g])
    assert np.all(np.isfinite(x)) and np.all(x < -1)


# --- weight decay ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight_decay", [0.01, 0.5])
@pytest.mark.parametrize("name", ["Adam", "AMSGrad", "NAdam"])
def test_decoupled_decay_is_that_of_torch(torch, kit, dtype, name, weight_decay):
    pair = Pair(torch, kit, dtype)
    ours = getattr(optim, name)(pair.arrays, lr=LR, weight_decay=weight_decay)
    if name == "NAdam":
        theirs = torch.optim.NAdam(pair.tensors, lr=LR, weight_decay=weight_decay, decoupled_weight_decay=True)
    else:
        theirs = torch.optim.AdamW(pair.tensors, lr=LR, weight_decay=weight_decay, amsgrad=name == "AMSGrad")
    pair.run(ours, theirs, 100)


@pytest.mark.parametrize("decay", ["before", "after"])
def test_decay_inside_the_rule_is_the_penalty_of_torch(torch, kit, rule, dtype, decay):
    """Without a normalizer both places are one: the gradient of λ‖x‖²/2 is added to g."""
    pair = Pair(torch, kit, dtype)
    ours = getattr(optim, rule)(pair.arrays, lr=LR, weight_decay=0.2, decay=decay)
    pair.run(ours, in_torch(torch, rule, pair.tensors, {}, weight_decay=0.2), 60)


def test_decay_by_name_is_that_of_parameter_groups(torch, kit):
    names = ["0.W", "0.b", "1.W", "1.scale"]
    pair = Pair(torch, kit)
    params = Params.of(dict(zip(names, pair.arrays, strict=True)))
    pair.arrays = [v for _, v in params.items()]
    opt = optim.Adam(params, lr=LR, weight_decay={"1.W": 0.4, "*.W": 0.1, "*.b": 0.05})
    groups = [{"params": [t], "weight_decay": w} for t, w in zip(pair.tensors, (0.1, 0.05, 0.4, 0.0), strict=True)]

    class Ours:
        def step(self, grads):
            opt.step(Params.of(dict(zip(names, grads, strict=True))))

    pair.run(Ours(), torch.optim.AdamW(groups, lr=LR), 60)


# --- clipping, rates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [2, 1, math.inf])
def test_clipping_all_blocks_together_is_the_clipping_of_torch(torch, kit, norm):
    """Torch divides by ‖g‖ + 1e-6 where we divide by ‖g‖: the gradients here are long, which leaves 1e-6/‖g‖."""
    pair = Pair(torch, kit)
    scale, longest = 1e8, 3e7
    grads = [[scale * g for g in every] for every in kit.gradients(20, seed=4, shapes=SHAPES)]
    ours = optim.Momentum(pair.arrays, lr=1e-8, normalize="clip-global", clip=longest, norm=norm)
    theirs = torch.optim.SGD(pair.tensors, lr=1e-8, momentum=0.9)
    clipped = 0
    for every in grads:
        ours.step(every)
        for tensor, g in zip(pair.tensors, every, strict=True):
            tensor.grad = torch.tensor(to_host(g))
        clipped += float(torch.nn.utils.clip_grad_norm_(pair.tensors, longest, norm_type=norm)) > longest
        theirs.step()
        kit.assert_close(pair.arrays, [t.detach().numpy() for t in pair.tensors], 1e-12)
    assert 10 < clipped < 20


def test_a_schedule_moves_the_rate_as_torch_does(torch, kit, rule):
    """Moments lie outside the rate in both."""
    rates = [LR / (1 + t) ** 0.5 for t in range(40)]
    pair = Pair(torch, kit)
    theirs = in_torch(torch, rule, pair.tensors, {})

    def set_rate(t):
        theirs.param_groups[0]["lr"] = rates[t]

    pair.run(getattr(optim, rule)(pair.arrays, lr=lambda t: rates[t]), theirs, 40, set_rate)
