"""minibng keeps the laws that theory promises of it; where a law does not hold for a rule, the difference is shown."""

import re
import subprocess
import sys
import threading
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from minibng import optim, verify
from minibng.train.parallel import Workers
from minibng.verify import LAWS, Gradient, Target, Violation, bounds, run, search, strategies
from minibng.verify.bounds import Arithmetic
from minibng.verify.laws import Law
from minibng.verify.promises import EVERY, promised, withheld
from minibng.verify.strategies import Dice
from minibng.verify.target import averaged


def normalize_blocks(blocks):
    with np.errstate(all="warn", under="ignore"):  # warnings are errors here: the package has to keep them to itself
        return optim.normalize_blocks(blocks)


def target_of(cls, name=None, **settings):
    """The target of an optimizer; means over workers are taken as those of micro-batches are."""
    return replace(Target.of(cls, name, **settings), workers=averaged)


NORMALIZER = Target.of(normalize_blocks)
OPTIMIZERS = [target_of(optim.get(name), name) for name in optim.names()]


class Plain(Dice):
    """Dice of one generator: what is thrown is not shrunk, and may be shared by many targets."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def number(self, n):
        return int(self.rng.integers(n))


@cache
def examples(name, k, like):
    """Example k of a law, for targets that are like this one in what examples depend on."""
    return LAWS[name].examples(Plain([k, list(LAWS).index(name)]), Target("like", make=len, **dict(like)))


def keeps(target, count, device="cpu", first=0):
    """Try all that is promised of a target and can be posed on some examples."""
    like = tuple((field, getattr(target, field)) for field in ("dtypes", "partition", "clip"))
    for name in target.promises:
        for k in range(first, first + count) if not LAWS[name].posed(target) else ():
            try:
                with np.errstate(all="ignore"):
                    LAWS[name].check(replace(target, device=device), *examples(name, k, like))
            except Exception as error:
                error.add_note(f"law {name!r}, example {k}")
                raise


@pytest.mark.parametrize("name", NORMALIZER.promises)
def test_normalizer_keeps(name, device):
    target = replace(NORMALIZER, device=device.name)
    run(LAWS[name], target, examples=50 if device.backend.on_host else 1)


@pytest.mark.parametrize("target", OPTIMIZERS, ids=lambda t: t.name)
def test_optimizer_keeps_what_is_promised(target, device):
    keeps(target, (5 if "-ng" in target.name else 2) if device.backend.on_host else 1, device.name)


SETTINGS = [
    *[("sgd-ng", {"norm": norm}) for norm in ("rms", 1, "inf")],
    *[("adam-ng", {"norm": norm}) for norm in ("rms", 1)],
    *[("nesterov-ng-adaptive", {"norm": norm}) for norm in ("rms", 1, "inf")],
    *[("momentum-ng", {"weight_decay": 0.01, "decay": decay}) for decay in ("decoupled", "after", "before")],
    *[("sgd-ng-adaptive", {"weight_decay": 0.01, "decay": decay}) for decay in ("decoupled", "after", "before")],
    *[("adagrad-ng-adaptive", {"weight_decay": 0.01, "decay": decay}) for decay in ("decoupled", "after")],
    *[(name, {"weight_decay": 0.01}) for name in ("sgd", "adam-clip", "lars", "lamb", "novograd", "signsgd")],
    *[(name, {"normalize": "clip-global", "clip": 2.0}) for name in ("sgd", "nesterov", "adam")],
    *[("momentum-clip", {"clip": clip}) for clip in (1e-3, 1e20)],
    *[(name, {"normalize": "unit", "blocks": "coordinate"}) for name in ("momentum", "adam")],
    ("sgd-ng", {"blocks": "global"}),
    ("sgd-ng-adaptive", {"floor": 0.0}),
    ("adam-ng-adaptive", {"floor": 4.0}),
    ("adam-ng-adaptive", {"eps": 1e-30}),
    ("momentum-ng", {"momentum": 0.5}),
    ("momentum-ng", {"momentum": 0.0}),
]


@pytest.mark.filterwarnings("ignore:decay='before'")
@pytest.mark.parametrize(("name", "settings"), SETTINGS, ids=str)
def test_promises_know_the_settings(name, settings):
    target = target_of(optim.get(name), name, **settings)
    keeps(target, 1, first=5)


def test_what_is_not_promised_has_a_reason():
    for name in optim.names():
        optimizer = optim.get(name)([np.zeros(2)], lr=1.0)
        reasons = withheld(optimizer)
        assert {*promised(optimizer), *reasons} == set(LAWS) == set(EVERY)
        assert not set(promised(optimizer)) & set(reasons) and all(reasons.values())
    assert "loss-scale" in withheld(optim.SGDNG([np.zeros(2)], lr=1.0, exclude="array 0"))

    class Own(optim.rules.SGD):
        pass

    assert set(promised(optim.Optimizer([np.zeros(2)], Own(), 1.0, normalize="unit"))) == {
        *("power-of-two-invariance", "block-independence", "loss-scale", "resume", "inputs-preserved")
    }


def test_the_mean_over_workers_is_a_mean_over_workers():
    """Workers in threads, each with its own share of the batch, and a sum for MPI's."""

    def mean(grads, weights):
        size, sent, means = len(grads), {}, {}
        barrier = threading.Barrier(size)

        class Comm:
            def __init__(self, rank):
                self.rank, self.size = rank, size

            def Allreduce(self, mine, total):
                sent[self.rank] = mine
                barrier.wait(30)
                total[...] = sum(sent[k] for k in range(size))

        def work(rank):
            _, means[rank] = Workers(Comm(rank)).mean(0.0, grads[rank], weights[rank] / sum(weights))

        threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return means[0]

    run(LAWS["workers"], replace(Target.of(optim.AdamNG), workers=mean), examples=10)
    run(LAWS["workers"], replace(Target.of(optim.SGD), workers=mean), examples=10)


# Laws that do not hold, and the difference

BREAKS = [
    ("orthogonal-equivariance", "AdaGradNG AdamNG"),  # they step by coordinates: signed permutations only
    ("same-direction", "AdamNG AdaDeltaNG"),
    ("unit-norm", "AdamNG SGDNGAdaptive SGD SGDClip"),
    ("inner-product", "SGDNGAdaptive"),
    ("power-of-two-invariance", "SGD SGDClip AdaDelta"),
    ("loss-scale", "SGD Momentum SGDClip Adam"),  # Adam: at every step another scale, which its memory feels
    ("step-length", "Momentum MomentumNGAdaptive"),
    ("constant-factor", "SGDNGAdaptive"),
    ("coordinate-is-sign", "SGDNGAdaptive NesterovNG"),
    ("nonzero-stays-nonzero", "Adam RMSProp"),
    ("idempotence", "AdamNG Nesterov"),
    ("adaptive-length", "AdamNGAdaptive LARS"),
]


@pytest.mark.parametrize(("law", "name"), [(law, name) for law, names in BREAKS for name in names.split()])
def test_law_that_is_not_promised_is_broken(law, name):
    settings = {"weight_decay": 0.1} if name == "LARS" else {}
    target = replace(Target.of(getattr(optim, name), **settings), floor=0.0 if law == "adaptive-length" else 1e-3)
    assert law not in target.promises
    found = search(LAWS[law], target, examples=150, shrink=False)
    assert found is not None and isinstance(found.error, Violation), str(found)


@pytest.mark.parametrize(("law", "name"), [("loss-scale", "Momentum"), ("unit-norm", "SGDClip")])
def test_a_broken_law_is_found_on_every_device(law, name, device):
    found = search(LAWS[law], Target.of(getattr(optim, name), device=device.name), examples=60, shrink=False)
    assert found is not None and isinstance(found.error, Violation), str(found)


def writes_to_its_input(blocks):
    out = optim.normalize_blocks(blocks)
    for g in blocks:
        g *= 2
    return out


def test_a_subject_gets_its_arrays_where_it_asks_for_them_and_is_caught_there(device):
    seen = []

    def looking(blocks):
        seen.extend(type(g) for g in blocks)
        return optim.normalize_blocks(blocks)

    run(LAWS["finite"], Target.of(looking, device=device.name), examples=5)
    assert set(seen) == {device.backend.array_type}
    found = search(LAWS["inputs-preserved"], Target.of(writes_to_its_input, device=device.name), examples=20)
    assert found is not None and "gradient 0 after the call = gradient 0 before it" in str(found)


def test_reflection_turns_sgd_but_not_adam():
    g, mirrored = np.array([3.0, 4.0]), np.array([4.0, 3.0]) * [1, -1]
    turned = np.array([5.0, 0.0])  # a rotation of g, no signed permutation
    u = {name: [_first(name, v) for v in (g, mirrored, turned)] for name in ("SGDNG", "AdamNG")}
    np.testing.assert_allclose(u["SGDNG"], [[0.6, 0.8], [0.8, -0.6], [1.0, 0.0]], atol=1e-15)
    np.testing.assert_allclose(u["AdamNG"], [[1, 1], [1, -1], [1, 0]], atol=1e-7)  # lengths √2, √2 and 1


def _first(name, g):
    return Target.of(getattr(optim, name)).directions(Gradient((g,), ((0,),)))[0]


def test_momentum_moves_a_block_whose_gradient_has_become_zero():
    x = np.zeros(2)
    opt = optim.MomentumNG([x], lr=1.0)
    opt.step([np.array([3.0, 4.0])])
    opt.step([np.zeros(2)])
    np.testing.assert_allclose(x, [-0.6 * 1.9, -0.8 * 1.9], rtol=1e-15)


# Each new law is broken by something


def ours(**fields):
    return replace(target_of(optim.SGDNG), **fields)


def stepping(direction, lr=None):
    """A target that steps along a function of the list of gradients, at a rate of its own if there is one."""

    class Stepping:
        def __init__(self, params, rate, blocks):
            self.params, self.blocks, self.steps = params, blocks, 0
            self.lr = rate if callable(rate) else lambda step: rate

        def step(self, grads):
            for p, u in zip(self.params, direction(grads, self.blocks), strict=True):
                p -= p.dtype.type(lr or self.lr(self.steps)) * u
            self.steps += 1

        def state_dict(self):
            return self.steps

        def load_state_dict(self, saved):
            self.steps = saved

    return Target(direction.__name__, make=Stepping, rate=lr, partition="tensor")


def tensors_alone(grads, blocks):
    return optim.normalize_blocks(grads)


def no_biases(grads, blocks):
    return [g if g.size == 1 else optim.normalize_blocks([g])[0] for g in grads]


def small_skipped(grads, blocks):
    return [g if np.abs(g).max(initial=0) > 1e-10 else np.zeros_like(g) for g in grads]


def clip_to(clip, inside=1.0, outside=1.0):
    def clipped(grads, blocks):
        norms = [float(np.sqrt(np.sum(g.astype(np.longdouble) ** 2))) for g in grads]
        pairs = zip(grads, norms, strict=True)
        return [g * g.dtype.type(inside if n <= clip else outside * clip / n) for g, n in pairs]

    return clipped


def unweighted(grads, weights):
    return [sum(parts) / len(grads) for parts in zip(*grads, strict=True)]


def normalized_first(grads, weights):
    return averaged([optim.normalize_blocks(g) for g in grads], weights)


def rough_elsewhere():
    target = ours(devices=("cpu", "strict"))

    def make(params, lr, blocks):
        return (target if type(params[0]) is np.ndarray else Target.of(optim.Momentum)).make(params, lr, blocks)

    return replace(target, make=make)


WRONG = {
    "one-block-is-global": replace(stepping(tensors_alone), partition="any"),
    "coordinate-is-sign": stepping(no_biases),
    "nonzero-stays-nonzero": stepping(small_skipped),
    "clip-inside": replace(stepping(clip_to(1.0, inside=0.5)), clip=1.0),
    "clip-never-enlarges": replace(stepping(clip_to(1.0, outside=2.0)), clip=1.0),
    "devices-agree": rough_elsewhere(),
    "micro-batches": ours(accumulate=unweighted),
    "workers": ours(workers=normalized_first),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_law_finds_what_it_is_for(name):
    found = search(LAWS[name], WRONG[name], examples=60, shrink=False)
    assert found is not None and isinstance(found.error, Violation), str(found)


# Subjects with a rate of their own, with other partitions, in half precision


@pytest.mark.parametrize(("dtype", "lr"), [("float16", 0.1), ("float32", 0.1), ("float64", 0.1), ("float32", 3.0)])
def test_a_rate_of_its_own_adds_its_roundings(dtype, lr):
    def normalized(grads, blocks):
        return optim.normalize_blocks(grads)

    target = replace(stepping(normalized, lr), dtypes=(dtype,), accumulate=averaged)
    laws = [n for n in EVERY if not LAWS[n].posed(target)]
    assert {"unit-norm", "step-length", "micro-batches"} < set(laws)
    for name in laws:
        run(LAWS[name], target, examples=4)


def test_partitions_are_those_of_the_target():
    seen = {"any": [], "tensor": [], "global": []}
    law = Law("look", "–", "Look.", "", "", lambda t, g: seen[t.partition].append(g), strategies.gradients, None, False)
    for partition in seen:
        run(law, replace(Target.of(optim.SGDNG), partition=partition), examples=40)
    assert all(len(block) == 1 for g in seen["tensor"] for block in g.blocks)
    assert all(len(g.blocks) == 1 for g in seen["global"])
    assert any(len(g.blocks) > 1 for g in seen["tensor"]) and any(len(g.tensors) > 1 for g in seen["global"])


def test_a_law_that_cannot_be_posed_says_why():
    target = replace(Target.of(optim.SGDNG), keeps_state=False, accumulate=None, devices=("cpu",), partition="global")
    reasons = {name: law.posed(target) for name, law in LAWS.items() if law.posed(target)}
    assert reasons["resume"] == "it keeps no state that could be saved"
    assert reasons["clip-inside"].endswith("clip=") and reasons["adaptive-length"].endswith("floor=")
    assert set(reasons) == {
        *("block-independence", "resume", "devices-agree", "micro-batches", "workers"),
        *("clip-inside", "clip-never-enlarges", "adaptive-length", "adaptive-scaling", "constant-factor"),
    }
    assert LAWS["one-block-is-global"].posed(NORMALIZER) and LAWS["idle-block"].posed(NORMALIZER) == "it takes no steps"


def test_a_counterexample_tells_before_and_after_of_few_entries():
    found = search(LAWS["orthogonal-equivariance"], Target.of(optim.AdamNG), examples=30)
    told = r"g = \[\S+, \S+\] → u = \[1.0, 1.0\] \(float32, 2 entries\)\n +Qg = \[\S+, \S+\] → u = "
    assert re.search(told, str(found)), str(found)


# The kit itself


def test_laws_are_told():
    assert list(LAWS) == [law.name for law in LAWS.values()]
    for law in LAWS.values():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", law.name)
        assert re.fullmatch(r"I\d+|–", law.number)
        assert law.statement.endswith(".") and law.formula
        assert law.source == "derived" or re.match(r"arXiv:(1707\.04822|1211\.5063), ", law.source)
        assert law.proof.endswith((".", ")"))
        assert law.tolerance is None or law.tolerance.__doc__
    assert {law.number for law in LAWS.values()} >= {f"I{k}" for k in range(1, 13)}


def test_promises_are_laws_and_every_law_is_promised():
    promised = {name for t in (NORMALIZER, *OPTIMIZERS) for name in t.promises}
    assert promised == set(LAWS)
    assert all(len(set(t.promises)) == len(t.promises) for t in OPTIMIZERS)


def test_examples_cover_the_whole_range():
    seen = []

    def look(target, gradient):
        seen.append(gradient)

    law = Law("look", "–", "Look.", "", "", look, strategies.gradients, None, False)
    run(law, NORMALIZER, examples=300)
    vectors = [v for g in seen for v in g.vectors()]
    assert {v.dtype.name for v in vectors} == {"float16", "float32", "float64"}
    assert {0, 1, 2, 6, 60} <= {v.size for v in vectors} and max(v.size for v in vectors) > bounds.PIECE
    assert any(v.size > 1 and not v.any() for v in vectors)
    assert any(v.size > 6 and np.count_nonzero(v) == 1 for v in vectors)
    assert any(v.size > 6 and v.any() and (v == v[0]).all() for v in vectors)
    for dtype in ("float16", "float32", "float64"):
        info = np.finfo(dtype)
        sizes = np.concatenate([np.abs(v[v != 0]) for v in vectors if v.dtype == dtype])
        assert sizes.min() < info.smallest_subnormal * 4 and sizes.max() > info.max / 4


def test_partitions_with_several_tensors_a_block_are_tried():
    seen = []
    law = Law("look", "–", "Look.", "", "", lambda t, g: seen.append(g), strategies.gradients, None, False)
    run(law, Target.of(optim.SGDNG), examples=50)
    assert any(len(block) > 1 for g in seen for block in g.blocks) and any(len(g.blocks) > 1 for g in seen)


def halved(blocks):
    return [u / 2 for u in optim.normalize_blocks(blocks)]


def test_the_same_mark_twice_whatever_is_loaded(tmp_path, monkeypatch):
    def tried():
        seen = []
        law = Law("look", "–", "Look.", "", "", lambda t, g: seen.append(g), strategies.gradients, None, False)
        run(law, NORMALIZER, examples=60)
        return "\n".join(line for g in seen for line in g.lines())

    before = tried()
    (tmp_path / "constants_of_a_student.py").write_text("A = [3, 7, 11, 12345, 99, 2.5]")
    monkeypatch.syspath_prepend(tmp_path)
    __import__("constants_of_a_student")
    assert tried() == before
    found = [str(search(LAWS["inner-product"], Target.of(halved))) for _ in range(2)]
    assert found[0] == found[1]


def test_a_target_that_raises_is_told():
    def strict(blocks):
        raise KeyError("no such block")

    with pytest.raises(AssertionError, match=r"(?s)^Blocks that are not zero.*strict raised KeyError.*no such block"):
        run(LAWS["unit-norm"], Target.of(strict), examples=5)


def test_wrong_shapes_are_told():
    with pytest.raises(AssertionError, match="directions of shapes"):
        run(LAWS["unit-norm"], Target.of(lambda blocks: blocks[:-1], "lossy"), examples=5)


def test_shrinking_is_bounded():
    calls = 0

    def slow(blocks):
        nonlocal calls
        calls += 1
        return [u / 2 for u in optim.normalize_blocks(blocks)]

    assert search(LAWS["unit-norm"], Target.of(slow), examples=10) is not None
    assert calls <= 10 + verify.search.__globals__["SHRINKS"] + 1


def test_law_about_steps_refuses_a_normalizer():
    with pytest.raises(TypeError, match="'resume' cannot be posed to normalize_blocks: it takes no steps"):
        run(LAWS["resume"], NORMALIZER)


@pytest.mark.parametrize(("dtype", "d"), [("float32", 4), ("float64", 16), ("float16", 1)])
def test_bounds_are_the_documented_numbers(dtype, d):
    v, s = float(np.finfo(dtype).eps) / 2, float(np.finfo(dtype).smallest_subnormal)
    expected = 0.0 if d == 1 else (4 + d**0.5) * v + d**0.5 * s
    assert bounds.unit(Arithmetic(np.dtype(dtype)), d) == pytest.approx(float(expected), rel=1e-12)
    rated = 2 * (v + s * 11) if d == 1 else (6 + d**0.5) * v + d**0.5 * s * 11
    assert bounds.unit(Arithmetic(np.dtype(dtype), 0.1), d) == pytest.approx(float(rated), rel=1e-12)


def test_hypothesis_is_needed_only_to_run():
    code = (
        "import sys, minibng, minibng.verify as v; assert 'hypothesis' not in sys.modules\n"
        "sys.modules['hypothesis'] = None\n"
        "try: v.run(v.LAWS['finite'], v.Target.of(abs, 'f'))\n"
        "except ImportError as e: print(type(e).__name__, e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("MissingExtraError law 'finite' needs hypothesis")
    assert "minibng[verify]" in done.stdout
