"""Formulas as CUDA C, compiled by g++, against the same formulas as NumPy calls: bit for bit.

NaN may differ in sign and payload, which NumPy leaves open too; ties of maximum and minimum between 0 and −0 may differ
in sign, since NumPy's vector instructions give either. exp, log and tanh are held to 4 units in the last place.
"""

import itertools

import numpy as np
import pytest
from numpy import abs, exp, log, maximum, minimum, sign, sqrt, tanh, where

from minibng.backend import cuda
from minibng.backend.base import Group
from minibng.backend.chain import CHAINS
from minibng.backend.kernel import numpy_kernel, parse, parse_map
from minibng.nn import activations as _chains  # noqa: F401  (they are registered when defined)
from minibng.optim import optimizer, relatives, rules

DTYPES = ["float32", "float64"]


# fmt: off
def arithmetic(a, b, c, *, k):
    a = k * a - b / c + (a - k) * (b + 2.0)
    b = -a + c**2 - b * -k
    return a, b
def roots(a, b, c, *, k):
    a = sqrt(abs(a)) * sign(b) - sqrt(b)
    b = sign(a - k) / abs(c)
    return a, b
def extremes(a, b, c, *, k):
    a = maximum(a, b) - minimum(b, k)
    b = minimum(maximum(c, k), 0.5)
    return a, b
def choices(a, b, c, *, k):
    a = where(a < b, where(b <= k, c, -k), where(c > a, a, 1.0))
    b = where(b >= c, a, where(a == b, b, where(b != k, k, c)))
    return a, b
def factors(a, b, c, *, k):
    a = (a > b) * c + c * (b <= k)
    b = (a == c) * b - (c != b) * a + a * (b >= c) - (a < k) * c
    return a, b
def names(new, T, λ, *, double, this):
    old = new
    new = T * λ - old * double
    T = this - old + λ
    return new, T
def transcendental(a, b, *, k):
    a = exp(a * k)
    b = log(abs(b)) + tanh(b) * 0.0
    return a, b
def hyperbolic(a, *, k):
    a = tanh(a * k)
    return a
def mixed(x, y, *, k):
    x = (x ^ y * k) >> 3
    y = (x + 2654435769) ^ (y >> 16) - k
    return x, y
# fmt: on

OPERATIONS = [arithmetic, roots, extremes, choices, factors, names]


def everything(dtype):
    """Numbers of all kinds, few enough that all triples of them can be tried."""
    f = np.finfo(dtype)
    plain = [
        0.0,
        1.0,
        0.3,
        7.5,
        f.tiny,
        f.smallest_subnormal,
        3 * f.smallest_subnormal,
        f.eps,
        f.max,
        f.max / 3,
        np.inf,
    ]
    return np.array([s * x for x in plain for s in (1, -1)] + [np.nan], dtype)


def step(gpu, formula, arrays, scalars, edit=None):
    """What a formula makes of arrays (name → vector) in the kernel of a step; outputs start with nonsense in them."""
    like = next(iter(arrays.values()))
    columns = {n: [gpu.asarray(arrays.get(n, np.full_like(like, 7)))] for n in formula.arrays}
    group = Group.whole("all", [0], [like.shape])
    gpu.stepper(formula, columns[formula.arrays[0]], [group])(columns, scalars)
    return {n: columns[n][0].get() for n in formula.arrays}


def numpy_step(formula, arrays, scalars):
    like = next(iter(arrays.values()))
    copies = {n: arrays[n].copy() if n in arrays else np.full_like(like, 7) for n in formula.arrays}
    kernel = numpy_kernel(formula)
    with np.errstate(all="ignore"):
        kernel.bind(like.dtype, **scalars)(kernel.scratch(like.size, like.dtype), *copies.values())
    return copies


def assert_same_bits(got, expected, ties=False):
    """``ties``: whether 0 and −0 are the same."""
    for name, want in expected.items():
        have, nan = got[name], np.isnan(want)
        assert have.dtype == want.dtype
        np.testing.assert_array_equal(np.isnan(have), nan, err_msg=name)
        if ties:
            np.testing.assert_array_equal(have[~nan], want[~nan], err_msg=name)
        else:
            bits = f"u{want.itemsize}"
            np.testing.assert_array_equal(have[~nan].view(bits), want[~nan].view(bits), err_msg=name)


def triples(dtype, names):
    product = np.array(list(itertools.product(everything(dtype), repeat=3))).T
    rng = np.random.default_rng(0)
    rows = [product[k] if k < 3 else rng.permutation(product[0]) for k in range(len(names))]
    noise = rng.standard_normal((len(names), 2000)) * np.exp(rng.uniform(-20, 20, (len(names), 2000)))
    return dict(zip(names, np.concatenate([rows, noise], axis=1).astype(dtype), strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", OPERATIONS, ids=lambda f: f.__name__)
def test_every_operation_gives_numpys_bits(gpu, function, dtype):
    formula = parse(function)
    arrays = triples(dtype, formula.arrays)
    for k in (0.7, 0.0, -1e30):
        scalars = dict.fromkeys(formula.scalars, k)
        expected = numpy_step(formula, arrays, scalars)
        assert_same_bits(step(gpu, formula, arrays, scalars), expected, ties=function is extremes)


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_log_and_tanh_are_near(gpu, dtype):
    x = np.concatenate([np.linspace(-80, 80, 10_001), np.geomspace(1e-30, 1e30, 1001)]).astype(dtype)
    for formula, names in [(parse(transcendental), "ab"), (parse(hyperbolic), "a")]:
        got = step(gpu, formula, dict.fromkeys(names, x), {"k": 1.0})
        expected = numpy_step(formula, dict.fromkeys(names, x), {"k": 1.0})
        for name in names:
            np.testing.assert_array_max_ulp(got[name][np.isfinite(expected[name])],
                                            expected[name][np.isfinite(expected[name])], 4)  # fmt: skip
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan], dtype)
    for formula, names in [(parse(transcendental), "ab"), (parse(hyperbolic), "a")]:
        arrays = dict.fromkeys(names, special)
        assert_same_bits(step(gpu, formula, arrays, {"k": 1.0}), numpy_step(formula, arrays, {"k": 1.0}))


def test_whole_numbers_wrap_as_numpys_do(gpu):
    rng = np.random.default_rng(0)
    formula = parse(mixed)
    arrays = {n: rng.integers(0, 2**32, 5000, dtype=np.uint32) for n in "xy"}
    got, expected = step(gpu, formula, arrays, {"k": 40503}), numpy_step(formula, arrays, {"k": 40503})
    for name in "xy":
        np.testing.assert_array_equal(got[name], expected[name])


RMSPROPS = [rules.RMSProp(momentum=m, centered=c) for m in (0.0, 0.5) for c in (False, True)]
ALL_RULES = [*RMSPROPS, *(rule() for rule in rules.RULES if rule is not rules.RMSProp)]
CHANGES = {
    "none": lambda rule: (rule, optimizer.descend),
    "decoupled": lambda rule: (rule, optimizer.descend_and_decay),
    "after": lambda rule: (optimizer.add_decay, rule, optimizer.descend),
}


def formula_of(rule, decay):
    return optimizer.parse_once(*CHANGES[decay](rule.formula))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("decay", [pytest.param(d, marks=pytest.mark.slow) if d != "none" else d for d in CHANGES])
@pytest.mark.parametrize("rule", ALL_RULES, ids=lambda rule: rule.formula.__name__)
def test_every_rule_gives_numpys_bits(gpu, rule, decay, dtype):
    formula = formula_of(rule, decay)
    arrays = triples(dtype, formula.arrays)
    for t in (1, 1000):
        scalars = {**rule.scalars(t), "lr": 0.01}
        scalars |= {"decay": 1e-3} if decay != "none" else {}
        expected = numpy_step(formula, arrays, scalars)
        assert_same_bits(step(gpu, formula, arrays, scalars), expected, ties="maximum" in cuda.c_function(formula))


@pytest.mark.parametrize("dtype", DTYPES)
def test_lamb_is_rendered_too(gpu, dtype):
    formula = optimizer.parse_once(rules.adam, relatives.regularize, outputs=("u",))
    arrays = triples(dtype, [a for a in formula.arrays if a != "u"])
    scalars = {**rules.Adam().scalars(3), "decay": 0.1}
    assert_same_bits(step(gpu, formula, arrays, scalars), numpy_step(formula, arrays, scalars))


def test_the_source_is_the_formula_as_its_author_wrote_it():
    assert cuda.c_function(parse(names)).splitlines() == [
        "__device__ inline void formula_names(T& new_, T& T_, T u03bb, const T double_, const T this_)",
        "{",
        "    // old = new",
        "    T names__old = new_;",
        "    // new = T * λ - old * double",
        "    new_ = (T_ * u03bb) - (names__old * double_);",
        "    // T = this - old + λ",
        "    T_ = (this_ - names__old) + u03bb;",
        "}",
    ]


# Maps ------------------------------------------------------------------------------------------------------


def damp(x, y, *, rate):
    a = x * rate - y
    b = where(a > x, a, -y)
    return a, b


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0, 3), (5, 7), (300, 400)])
def test_a_map_makes_new_arrays_in_one_launch(gpu, shape, dtype):
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    formula, before = parse_map(damp), gpu.launches
    a, b = gpu.map(formula, {"x": gpu.asarray(x), "y": gpu.asarray(y)}, {"rate": 0.3})
    assert gpu.launches - before == (x.size > 0)
    expected = damp(x, y, rate=np.dtype(dtype).type(0.3))
    for got, want in zip((a, b), expected, strict=True):
        assert got.shape == shape and got.dtype == dtype
        np.testing.assert_array_equal(got.get(), want)


def test_a_map_takes_what_is_not_contiguous(gpu):
    x = np.arange(12.0).reshape(3, 4)
    a, _ = gpu.map(parse_map(damp), {"x": gpu.asarray(x).T, "y": gpu.asarray(x).T}, {"rate": 2.0})
    np.testing.assert_array_equal(a.get(), x.T)


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: chain.__name__)
def test_every_chain_gives_what_it_gives_on_the_host(gpu, chain):
    rng = np.random.default_rng(0)
    scalars = {name: float(k + 2) for k, name in enumerate(chain.formula.scalars)}
    for dtype in ["uint32"] if chain.kind == "u" else DTYPES:
        host = [(10 * rng.standard_normal(3000)).astype("int64").astype(dtype) if chain.kind == "u"
                else rng.standard_normal(3000).astype(dtype) for _ in chain.inputs]  # fmt: skip
        expected, got = chain(*host, **scalars), chain(*[gpu.asarray(x) for x in host], **scalars)
        for want, have in zip(*[r if isinstance(r, tuple) else (r,) for r in (expected, got)], strict=True):
            assert type(have) is gpu.array_type and have.dtype == want.dtype
            if chain.kind == "u":
                np.testing.assert_array_equal(have.get(), want)
            else:
                np.testing.assert_allclose(
                    have.get(), want, rtol=20 * np.finfo(dtype).eps, atol=20 * np.finfo(dtype).eps
                )
