"""Optimizers on devices: nothing waits, the numbers are the host's, and what is not finite is told late.

On the host an optimizer looks at its norms and raises at once. On a device it may not look: the step is taken by the
device only where all is finite, it counts until `check`, and that tells. The tests hold on both: they step, then check.
"""

import copy

import numpy as np
import pytest

import minibng as bng
from minibng import optim
from minibng.backend import asarray, backend_of
from minibng.optim import NonFiniteError
from minibng.params import Params

LR = 0.05
ROWS = 1000  # all of each table, on every device
FORMS = {"": None, "-clip": "clip", "-ng": "unit", "-ng-adaptive": "adaptive"}


class Lion:
    """A rule without a formula, and with a state."""

    def init(self, like):
        return {"m": np.zeros_like(like)}

    def update(self, state, g):
        return np.sign(0.9 * state["m"] + 0.1 * g), {"m": 0.99 * state["m"] + 0.01 * g}


class Tracing(Lion):
    """A rule whose state is made by its first step, in a tuple."""

    def init(self, like):
        return None

    def update(self, state, g):
        m = g if state is None else 0.5 * state[0] + g
        return m, (m,)


OWN = {rule.__name__.lower() + form: (rule, normalize) for rule in (Lion, Tracing) for form, normalize in FORMS.items()}
EVERY = [*optim.names(), *OWN]
every = pytest.mark.parametrize("name", EVERY)
resumable = pytest.mark.parametrize("name", [n for n in EVERY if not n.startswith("tracing")])
of_parameters = pytest.mark.parametrize("name", [n for n in EVERY if n.endswith("adaptive")] + ["lars", "lamb"])


def made(name, target, **settings):
    if name in OWN:
        rule, normalize = OWN[name]
        return optim.Optimizer(target, rule(), LR, normalize=normalize, **settings)
    return optim.get(name)(target, lr=LR, **settings)


def params(kit, seed=0, dtype="float64"):
    return Params.of(dict(zip(kit.SHAPES, kit.numbers(seed, dtype), strict=True)))


def spoilt(kit, bad, name="1.W", seed=2):
    """A gradient with a number that is not finite."""
    g = params(kit, seed)
    g[name][-1, 1] = bad
    return g


def held(device, opt, p):
    """A copy of all numbers of an optimizer, on the host; the number of steps is not among them."""

    def numbers(state):
        if isinstance(state, dict):
            return {k: numbers(v) for k, v in state.items() if k != "step"}
        return [numbers(v) for v in state] if isinstance(state, tuple) else state

    return copy.deepcopy(device.host([p.flat, numbers(opt.state), opt.memory]))


def agree(kit, device, got, want, dtype="float64"):
    """Bit for bit where the arithmetic is the host's; sums in another order on a GPU."""
    if device.name in ("cpu", "strict"):
        assert kit.same_bits(got, want)
    else:
        kit.assert_close([got], [want], {"float32": 1e-4, "float64": 1e-11}[dtype])


# --- the same numbers, and nobody waits ----------------------------------------------------------------------

PARTITIONS = {
    "layer": ("float32", {"blocks": "layer", "weight_decay": 0.1}),
    "unit": ("float64", {"blocks": "unit", "weight_decay": {"*.W": 0.1}}),
    "tensor": ("float64", {"blocks": "tensor"}),
    "global": ("float32", {"blocks": "global", "nonfinite": "skip"}),
}


@pytest.mark.parametrize("partition", PARTITIONS)
@every
def test_steps_on_a_device_are_those_of_the_host_and_nobody_waits(kit, host_kit, device, name, partition):
    of, settings = PARTITIONS[partition]
    if name == "signsgd":  # it has a partition of its own
        settings = {k: v for k, v in settings.items() if k != "blocks"}
    if name == "lars" and "weight_decay" in settings:
        settings = settings | {"weight_decay": 0.1}
    p, q = params(kit, dtype=of), params(host_kit, dtype=of)
    opt, host = made(name, p, **settings), made(name, q, **settings)
    for g, h in zip(kit.gradients(5, of), host_kit.gradients(5, of), strict=True):
        kit.step(opt, Params.of(dict(zip(kit.SHAPES, g, strict=True))))
        host.step(Params.of(dict(zip(kit.SHAPES, h, strict=True))))
        agree(kit, device, p.flat, q.flat, of)
    opt.check()
    assert backend_of(opt.norms.root) is device.backend and p.dtype == of and opt.skipped == 0
    agree(kit, device, opt.norms.values(), host.norms.values(), of)
    assert kit.same_bits(opt.norms.exponent, host.norms.exponent)


@resumable
def test_a_state_goes_from_device_to_device(kit, host_kit, device, name):
    """Saved on the device, gone on with on the host, and the other way round."""
    ends = []
    for start, end in [(kit, host_kit), (host_kit, kit)]:
        p = params(start)
        one = made(name, p)
        for g in start.gradients(4)[:2]:
            one.step(Params.of(dict(zip(start.SHAPES, g, strict=True))))
        q = p.to("cpu" if end is host_kit else device.name)
        two = made(name, q)
        two.load_state_dict(one.state_dict())
        for g in end.gradients(4)[2:]:
            two.step(Params.of(dict(zip(end.SHAPES, g, strict=True))))
        ends.append(device.host(q.flat))
    agree(kit, device, *ends)


# --- what is not finite --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@every
def test_a_gradient_that_is_not_finite_changes_nothing_and_later_steps_go_on(kit, host_kit, device, name, bad):
    p, q = params(kit), params(host_kit)
    opt, host = made(name, p, nonfinite="skip"), made(name, q, nonfinite="skip")
    opt.step(params(kit, 1))
    host.step(params(host_kit, 1))
    before, wrong = held(device, opt, p), spoilt(kit, bad)
    kit.step(opt, wrong)
    assert kit.same_bits(held(device, opt, p), before)
    assert kit.same_bits(wrong.flat, spoilt(host_kit, bad).flat)
    opt.steps = host.steps = 2  # the host does not count it, nor the device from `check` on
    kit.step(opt, params(kit, 3))
    host.step(params(host_kit, 3))
    agree(kit, device, p.flat, q.flat)
    opt.check()
    assert opt.skipped == 1 and np.any(p.flat != device.array(before[0])) and np.all(np.isfinite(p.flat))


@every
def test_the_very_first_step_may_be_the_bad_one(kit, device, name):
    p = params(kit)
    opt = made(name, p, nonfinite="skip")
    kit.step(opt, spoilt(kit, np.nan))
    assert kit.same_bits(p.flat, params(kit).flat)
    assert not any((a > 0).any() for a in arrays_in(held(device, opt, p)[1:]))  # NovoGrad's memory starts below 0
    for seed in (1, 3):
        opt.step(params(kit, seed))
    opt.check()
    assert opt.skipped == 1 and np.all(np.isfinite(p.flat)) and np.any(p.flat != params(kit).flat)


def arrays_in(node):
    if isinstance(node, np.ndarray):
        return [node]
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else []
    return [a for child in children for a in arrays_in(child)]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@of_parameters
def test_parameters_that_are_not_finite_stay_as_they_are_and_are_named(kit, device, name, bad):
    p = params(kit)
    opt = made(name, p)
    opt.step(params(kit, 1))
    p["1.W"][0, 1] = bad
    before = held(device, opt, p)
    with pytest.raises(NonFiniteError, match="step 1: the parameters of block '1' are not finite") as caught:
        kit.step(opt, params(kit, 2))
        opt.check()
    assert caught.value.step == 1 and kit.same_bits(held(device, opt, p), before)


@pytest.mark.parametrize(
    "name", ["sgd", "adam-ng", "momentum-ng-adaptive", "lion-ng", "signsgd", "lars", "lamb", "novograd"]
)
def test_the_error_names_the_first_bad_step_and_block_and_comes_once(kit, device, name):
    p = params(kit)
    opt = made(name, p)
    every = [params(kit, seed) for seed in range(7)]
    every[3]["2.scale"][...] = np.nan
    every[3]["1.W"][1, 0] = -np.inf
    every[5]["0.b"][0] = np.nan
    with pytest.raises(NonFiniteError) as caught:
        for g in every:
            kit.step(opt, g)
        opt.check()
    block = "1.W[2]" if name == "signsgd" else "1"
    assert f"step 3: the gradient of block {block!r} is not finite" in str(caught.value) and caught.value.step == 3
    assert "nothing was changed" in str(caught.value) and "nonfinite='skip'" in str(caught.value)
    assert ("2 steps since the last check" in str(caught.value)) == (device.name != "cpu")
    assert opt.steps == (3 if device.name == "cpu" else 5)  # the device took those between and behind
    opt.check()
    opt.state_dict()
    again = spoilt(kit, np.nan, "0.W")
    finished = opt.steps
    with pytest.raises(NonFiniteError, match=f"step {finished}: the gradient of block '0"):
        opt.step(again)
        opt.check()


def test_decay_that_overflows_is_told_apart(kit, device):
    """Both checks of LARS: of the gradient, and of the gradient with its decay."""
    p = params(kit)
    p["1.W"] = 1e300
    opt, g = optim.LARS(p, lr=LR, weight_decay=1e10), params(kit, 1)
    with pytest.raises(NonFiniteError, match="step 0: the gradient, decay included, of block '1' is not finite"):
        opt.step(g)
        opt.check()
    p["1.W"] = 1e308  # its norm is beyond the largest double
    with pytest.raises(NonFiniteError, match="the parameters of block '1' are not finite"):
        opt.step(g)
        opt.check()
    g["2.scale"] = np.nan  # behind it, but in the check that comes first
    with pytest.raises(NonFiniteError, match="the gradient of block '2' is not finite"):
        opt.step(g)
        opt.check()


@pytest.mark.parametrize("name", ["sgd", "adam-clip", "rmsprop-ng", "lion-ng-adaptive", "lars", "lamb", "novograd"])
def test_skipped_steps_are_counted_by_check(kit, device, name):
    p, late = params(kit), device.name != "cpu"
    opt = made(name, p, nonfinite="skip")
    for g in (params(kit, 1), spoilt(kit, np.nan), params(kit, 3), spoilt(kit, np.inf), spoilt(kit, np.nan)):
        kit.step(opt, g)
    assert (opt.skipped, opt.steps) == ((0, 5) if late else (3, 2))
    opt.check()
    opt.check()
    assert (opt.skipped, opt.steps) == (3, 2)
    opt.step(spoilt(kit, np.nan))
    assert opt.state_dict()["skipped"] == opt.skipped == 4


def test_a_state_is_not_saved_before_it_is_checked(kit, device):
    opt = optim.AdamNG(params(kit), lr=LR)
    with pytest.raises(NonFiniteError, match="step 0"):
        opt.step(spoilt(kit, np.nan))
        opt.state_dict()
    assert opt.state_dict()["skipped"] == 0


@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_loading_a_state_forgets_what_was_kept_back(kit, device, nonfinite):
    """It is of steps that are no longer counted."""
    opt = optim.AdamNG(params(kit), lr=LR, nonfinite=nonfinite)
    opt.step(params(kit, 1))
    saved = opt.state_dict()
    if nonfinite == "skip" or device.name != "cpu":
        opt.step(spoilt(kit, np.nan))
    opt.load_state_dict(saved)
    opt.check()
    assert (opt.steps, opt.skipped) == (1, 0) and kit.same_bits(opt.state_dict(), saved)


def test_an_error_before_the_step_leaves_no_trace(kit, device):
    """A step that was refused is not recorded, though its gradient was bad."""
    opt = optim.AdamNG(params(kit), lr=lambda t: LR if t < 1 else None)
    opt.step(params(kit, 1))
    with pytest.raises(TypeError, match="learning rate at step 1"):
        opt.step(spoilt(kit, np.nan))
    opt.check()
    opt.lr = LR
    opt.step(params(kit, 3))
    opt.check()
    assert opt.steps == 2


# --- one device ----------------------------------------------------------------------------------------------


def elsewhere(device):
    return "strict" if device.name == "cpu" else "cpu"


def test_parameters_on_two_devices_are_refused_by_name(device):
    here, there = device.array([1.0, 2.0]), asarray([3.0], device=elsewhere(device))
    told = f"array 1 is on '{elsewhere(device)}', array 0 on '{device.backend.device}': parameters are on one device"
    with pytest.raises(TypeError, match=told):
        optim.AdamNG([here, there, here.copy()], lr=LR)


def test_gradients_from_another_device_are_refused_by_name(kit, device):
    p = params(kit)
    opt, plain = optim.AdamNG(p, lr=LR), kit.numbers(0)
    other = optim.AdamNG(plain, lr=LR)
    there, here = elsewhere(device), device.backend.device
    with pytest.raises(TypeError, match=rf"gradient of 0\.W is on '{there}', 0\.W on '{here}': use bng\.asarray"):
        opt.step(params(kit, 1).to(there))
    mixed = kit.numbers(1)
    mixed[2] = asarray(mixed[2], device=there)
    with pytest.raises(TypeError, match=f"gradient of array 2 is on '{there}', array 2 on '{here}'"):
        other.step(mixed)
    assert opt.steps == other.steps == 0
    assert kit.same_bits(p.flat, params(kit).flat) and kit.same_bits(plain, kit.numbers(0))


def test_gradients_of_one_batch_are_on_one_device(kit, device):
    total = optim.Accumulator()
    total.add(kit.numbers(1))
    with pytest.raises(ValueError, match=f"one is on {device.backend.device}, the other on {elsewhere(device)}"):
        total.add([asarray(g, device=elsewhere(device)) for g in kit.numbers(2)])
    assert kit.same_bits(total.mean(), kit.numbers(1))


def test_gradients_are_averaged_and_normalized_where_they_are(kit, host_kit, device):
    means = []
    for k in (kit, host_kit):
        total = optim.Accumulator()
        for seed in (1, 2, 3):
            with device.no_sync():
                total.add(k.numbers(seed), weight=seed)
        means.append(total.mean())
    assert all(backend_of(a) is device.backend for a in means[0]) and kit.same_bits(*means)
    for norm in (2, "rms", 1, "inf"):
        for got, want in zip(*(optim.normalize_blocks(mean, norm=norm) for mean in means), strict=True):
            agree(kit, device, got, want)


def test_novograd_begins_with_the_first_gradient_that_is_finite(device):
    ends = []
    for where in ("cpu", device.name):
        x = bng.asarray(np.array([3.0, 4.0]), device=where)
        opt = optim.NovoGrad([x], lr=0.1, nonfinite="skip")
        for g in ([np.nan, 0.0], [3.0, 4.0], [6.0, 8.0]):
            opt.step([bng.asarray(np.array(g), device=where)])
        opt.check()
        ends.append((bng.to_host(x).tolist(), opt.steps, opt.skipped))
    assert ends[0] == ends[1]


def test_arrays_that_share_memory_are_refused_on_every_device(device):
    whole = device.array(np.ones((4, 3)))
    optim.SGD([whole[0], whole[2], whole[1]], lr=1.0)
    with pytest.raises(ValueError, match="array 1 and array 0 share memory"):
        optim.SGD([whole[1:3], whole[:2]], lr=1.0)
