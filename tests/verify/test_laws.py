"""minibng keeps the laws that theory promises of it; where a law does not hold for a rule, the difference is shown."""

import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from minibng import optim, verify
from minibng.optim.forms import FORMS
from minibng.verify import LAWS, Gradient, Target, Violation, bounds, run, search, strategies
from minibng.verify.laws import Law

RULES = tuple(rule.__name__ for rule in optim.rules.RULES)


def normalize_blocks(blocks):
    with np.errstate(all="warn", under="ignore"):  # warnings are errors here: the package has to keep them to itself
        return optim.normalize_blocks(blocks)


NORMALIZER = Target.of(normalize_blocks)
OPTIMIZERS = [Target.of(getattr(optim, rule + form)) for rule in RULES for form in FORMS]
NG = [t for t in OPTIMIZERS if "NG" in t.name]


def pairs(targets):
    return [pytest.param(name, t, id=f"{t.name}-{name}") for t in targets for name in t.promises]


def keeps(name, target, device, examples):
    """Try a law on a device; the arithmetic of those that are no host is tried on fewer examples."""
    run(LAWS[name], replace(target, device=device.name), examples=examples if device.backend.on_host else 1)


@pytest.mark.parametrize("name", NORMALIZER.promises)
def test_normalizer_keeps(name, device):
    keeps(name, NORMALIZER, device, 60)


@pytest.mark.parametrize(("name", "target"), pairs(NG))
def test_block_normalized_optimizer_keeps(name, target, device):
    keeps(name, target, device, 5)


@pytest.mark.parametrize(("name", "target"), pairs(t for t in OPTIMIZERS if t not in NG))
def test_raw_and_clipped_optimizer_keeps(name, target, device):
    keeps(name, target, device, 2)


@pytest.mark.parametrize(
    "target",
    [
        Target.of(optim.MomentumNG, "short memory", momentum=0.5),
        Target.of(optim.MomentumNG, "no memory", momentum=0.0),
        Target.of(optim.SGDNGAdaptive, "no floor", floor=0.0),
        Target.of(optim.SGDNGAdaptive, "high floor", floor=4.0),
    ],
    ids=lambda t: t.name,
)
def test_settings_are_known_to_laws(target):
    for name in {"step-length", "adaptive-length", "adaptive-scaling"} & set(target.promises):
        run(LAWS[name], target, examples=15)


def test_adam_with_tiny_epsilon_cancels_a_constant_factor():
    run(LAWS["constant-factor"], Target.of(optim.AdamNGAdaptive, eps=1e-30), examples=10)


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
]


@pytest.mark.parametrize(("law", "name"), [(law, name) for law, names in BREAKS for name in names.split()])
def test_law_that_is_not_promised_is_broken(law, name):
    target = Target.of(getattr(optim, name))
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


# The kit itself


def test_laws_are_told():
    assert list(LAWS) == [law.name for law in LAWS.values()]
    for law in LAWS.values():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", law.name)
        assert re.fullmatch(r"I\d+|–", law.number)
        assert law.statement.endswith(".") and law.formula
        assert law.source == "derived" or law.source.startswith("arXiv:1707.04822")
        assert law.tolerance is None or law.tolerance.__doc__
    assert {law.number for law in LAWS.values()} >= {f"I{k}" for k in range(1, 12)}


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
    with pytest.raises(TypeError, match="'resume' is about steps; normalize_blocks is a normalizer"):
        run(LAWS["resume"], NORMALIZER)


@pytest.mark.parametrize(("dtype", "d"), [("float32", 4), ("float64", 16), ("float16", 1)])
def test_bounds_are_the_documented_numbers(dtype, d):
    v, s = np.finfo(dtype).eps / 2, float(np.finfo(dtype).smallest_subnormal)
    expected = 0.0 if d == 1 else (4 + d**0.5) * v + d**0.5 * s
    assert bounds.unit(np.dtype(dtype), d) == pytest.approx(float(expected), rel=1e-12)


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
