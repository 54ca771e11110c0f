"""A rule of one's own: `init` and `update` are all that it takes."""

from typing import NamedTuple

import numpy as np
import pytest

from minibng import optim
from minibng.names import UnknownNameError
from minibng.params import Params

LR = 0.05


class SignDescent:
    """u = sign(g); nothing to remember."""

    def init(self, like):
        return ()

    def update(self, state, g):
        return np.sign(g), state


class Trace(NamedTuple):
    mean: np.ndarray
    count: int


class RunningMean:
    """u = strength times the mean of all gradients so far."""

    def __init__(self, strength: float = 2.0) -> None:
        self.strength = strength

    def init(self, like):
        return Trace(np.zeros_like(like), 0)

    def update(self, state, g):
        count = state.count + 1
        mean = state.mean + (g - state.mean) / count
        return self.strength * mean, Trace(mean, count)


class Lion:
    """Two coefficients, one dict of state."""

    def __init__(self, beta1: float = 0.9, beta2: float = 0.99) -> None:
        self.beta1, self.beta2 = beta1, beta2

    def init(self, like):
        return {"m": np.zeros_like(like)}

    def update(self, state, g):
        u = np.sign(self.beta1 * state["m"] + (1 - self.beta1) * g)
        return u, {"m": self.beta2 * state["m"] + (1 - self.beta2) * g}


OWN = {"SignDescent": SignDescent, "RunningMean": RunningMean, "Lion": Lion}


@pytest.fixture(params=OWN)
def own(request):
    rule = OWN[request.param]
    assert optim.register(rule) is rule
    yield rule
    optim.unregister(request.param)


def shape_by_hand(form, g, x):
    n = np.linalg.norm(g)
    if form == "" or n == 0:
        return g
    lengths = {"Clip": min(n, 1.0), "NG": 1.0, "NGAdaptive": max(np.linalg.norm(x), 1e-3 * np.sqrt(g.size))}
    return g * (lengths[form] / n)


def test_a_rule_of_ones_own_gets_its_four_forms(own, form):
    name = own.__name__
    words = {"": [], "Clip": ["clip"], "NG": ["ng"], "NGAdaptive": ["ng", "adaptive"]}[form]
    command = "-".join([name.lower(), *words])
    assert command in optim.names() and name + form in dir(optim)
    assert optim.get(command) is getattr(optim, name + form)


def test_a_rule_of_ones_own_follows_a_loop_by_hand(kit, device, own, form, dtype):
    x = kit.numbers(0, dtype, shapes=[(5, 4), (3,)])
    want = [a.astype(float) for a in device.host(x)]
    opt = getattr(optim, own.__name__ + form)(x, lr=LR)
    rule = own()
    states = [rule.init(w) for w in want]
    for g in kit.gradients(20, dtype, shapes=[(5, 4), (3,)]):
        kit.step(opt, g)
        for i, a in enumerate(device.host(g)):
            u, states[i] = rule.update(states[i], shape_by_hand(form, a.astype(float), want[i]))
            want[i] = want[i] - LR * u
    assert all(a.dtype == dtype for a in x)
    kit.assert_close(x, want, {"float32": 1e-4, "float64": 1e-10}[dtype])


def test_a_rule_of_ones_own_normalizes_the_block_not_the_array(device):
    optim.register(RunningMean)
    try:
        p = Params.of(device.arrays({"0.W": np.zeros((2, 2)), "0.b": np.zeros(2)}))
        optim.RunningMeanNG(p, lr=1.0, strength=1.0).step(
            Params.of(device.arrays({"0.W": np.full((2, 2), 2.0), "0.b": np.array([3.0, 0])}))
        )
        np.testing.assert_allclose(device.host(p.flat), [-0.4, -0.4, -0.4, -0.4, -0.6, 0], rtol=1e-15)
    finally:
        optim.unregister("RunningMean")


def test_a_rule_of_ones_own_resumes_bit_for_bit(kit, own, form, dtype):
    every, x = kit.gradients(12, dtype), kit.numbers(0, dtype)
    opt = getattr(optim, own.__name__ + form)(x, lr=LR)
    for g in every[:5]:
        opt.step(g)
    y = [a.copy() for a in x]
    resumed = getattr(optim, own.__name__ + form)(y, lr=LR)
    resumed.load_state_dict(opt.state_dict())
    for g in every[5:]:
        opt.step(g)
        resumed.step(g)
    assert kit.same_bits(x, y) and opt.steps == resumed.steps == 12


def test_the_state_dict_of_a_rule_of_ones_own_is_copies(kit, own):
    x, y, every = kit.numbers(0), kit.numbers(0), kit.gradients(4)
    one, two = getattr(optim, own.__name__)(x, lr=LR), getattr(optim, own.__name__)(y, lr=LR)
    for opt in (one, two):
        opt.step(every[0])
    held = one.state_dict()

    def spoil(node):
        if isinstance(node, np.ndarray):
            node[...] = 99
        elif isinstance(node, dict):
            for v in node.values():
                spoil(v)
        elif isinstance(node, list | tuple):
            for v in node:
                spoil(v)

    spoil(held)
    for g in every[1:]:
        one.step(g)
        two.step(g)
    assert kit.same_bits(x, y)


def test_settings_of_a_rule_of_ones_own_are_settings_of_its_optimizers(device):
    optim.register(RunningMean)
    try:
        x = device.array([0.0, 0.0])
        optim.RunningMean([x], lr=1.0, strength=0.5).step([device.array([2.0, 4.0])])
        assert x.tolist() == [-1, -2]
        with pytest.raises((TypeError, ValueError), match="strenth"):
            optim.RunningMean([x], lr=1.0, strenth=0.5)
    finally:
        optim.unregister("RunningMean")


def test_a_gradient_that_is_not_finite_leaves_a_rule_of_ones_own_alone(host_kit, own):
    x = host_kit.numbers(0)
    opt = getattr(optim, own.__name__ + "NG")(x, lr=LR)
    opt.step(host_kit.numbers(1))
    before, state = [a.copy() for a in x], repr(opt.state_dict())
    bad = host_kit.numbers(2)
    bad[1][0, 0] = np.nan
    with pytest.raises(optim.NonFiniteError):
        opt.step(bad)
    assert host_kit.same_bits(x, before) and repr(opt.state_dict()) == state and opt.steps == 1


def test_unregister_takes_all_four_forms_away():
    before = optim.names()
    optim.register(SignDescent)
    assert len(optim.names()) == len(before) + 4
    optim.unregister("SignDescent")
    assert optim.names() == before and "SignDescentNG" not in dir(optim)
    with pytest.raises(AttributeError):
        _ = optim.SignDescentNG
    with pytest.raises(UnknownNameError):
        optim.get("signdescent")


def test_a_name_that_is_taken_is_refused():
    class Adam(SignDescent):
        pass

    before = optim.Adam
    with pytest.raises(ValueError, match="Adam"):
        optim.register(Adam)
    assert optim.Adam is before and issubclass(before, optim.Optimizer)


def test_unregistering_what_is_not_there_is_refused():
    with pytest.raises((ValueError, KeyError), match="NoSuchRule"):
        optim.unregister("NoSuchRule")


def test_an_object_without_init_and_update_is_refused():
    class Nothing:
        pass

    before = optim.names()
    with pytest.raises((TypeError, ValueError), match="Nothing"):
        optim.register(Nothing)
    assert optim.names() == before


class Optimistic:
    """u = 2g − (the gradient before): its state *is* the gradient, which a pure rule may say."""

    def init(self, like):
        return np.zeros_like(like)

    def update(self, state, g):
        return 2 * g - state, g


def test_a_rule_may_remember_the_gradient_itself(kit, form):
    """Though the caller writes every gradient into one buffer."""
    optim.register(Optimistic)
    try:
        x, y, buffer = kit.numbers(0), kit.numbers(0), kit.numbers(0)
        reused, fresh = getattr(optim, "Optimistic" + form)(x, lr=LR), getattr(optim, "Optimistic" + form)(y, lr=LR)
        for g in kit.gradients(5):
            for into, a in zip(buffer, g, strict=True):
                into[...] = a
            reused.step(buffer)
            fresh.step(g)
        assert kit.same_bits(x, y)
    finally:
        optim.unregister("Optimistic")


def test_an_instance_may_be_registered_with_its_settings(device):
    rule = RunningMean(strength=0.5)
    assert optim.register(rule) is rule
    try:
        x = device.array([0.0, 0.0])
        optim.RunningMeanNG([x], lr=1.0).step([device.array([3.0, 4.0])])
        np.testing.assert_allclose(device.host(x), [-0.3, -0.4], rtol=1e-15)
    finally:
        optim.unregister("RunningMean")


def test_a_rule_that_fails_in_mid_step_has_changed_nothing(kit):
    class Failing(RunningMean):
        def update(self, state, g):
            if g.shape == (3, 2) and state.count == 1:
                raise RuntimeError("out of order")
            return super().update(state, g)

    optim.register(Failing)
    try:
        x = kit.numbers(0)
        opt = optim.Failing(x, lr=LR)
        opt.step(kit.numbers(1))
        before, state = [a.copy() for a in x], repr(opt.state_dict())
        with pytest.raises(RuntimeError, match="out of order"):
            opt.step(kit.numbers(2))
        assert kit.same_bits(x, before) and repr(opt.state_dict()) == state
    finally:
        optim.unregister("Failing")


def test_a_rule_whose_direction_has_another_shape_is_refused_by_name(device):
    class Flat(SignDescent):
        def update(self, state, g):
            return g[0], state

    optim.register(Flat)
    try:
        x = device.array(np.ones((2, 2)))
        with pytest.raises(ValueError, match="array 0") as caught:
            optim.Flat([x], lr=LR).step([np.ones_like(x)])
        assert "(2,)" in str(caught.value) and "(2, 2)" in str(caught.value) and np.all(x == 1)
    finally:
        optim.unregister("Flat")


@pytest.mark.parametrize("name", ["ADAM", "adam"])
def test_a_name_that_differs_only_in_case_does_not_take_the_place_of_another(name, monkeypatch):
    """On the command line both would be `adam`."""
    from minibng.optim import forms

    for table in ("_BY_NAME", "_BY_CLASS"):  # so that a failure spoils no other test
        monkeypatch.setattr(forms, table, dict(getattr(forms, table)))
    with pytest.raises(ValueError, match=name):
        optim.register(type(name, (SignDescent,), {}))
    assert optim.get("adam") is optim.Adam
