"""Rendered kernels against the plain formula functions they come from: bit for bit."""

import tracemalloc
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy import abs, exp, log, maximum, minimum, sign, sqrt, tanh, where

from minibng.backend.kernel import FormulaError, numpy_kernel, parse, parse_map

# --- formulas -------------------------------------------------------------------------------------------


def scaled(g, *, scale):
    g = scale * g
    return g


def adam(g, m, v, *, beta1, beta2, eps, step):
    """Adam, with sums instead of means."""
    m = beta1 * m + g
    v = beta2 * v + g * g
    u = step * m / (sqrt(v) + eps)
    return m, v, u


def adam_means(g, m, v, *, beta1, beta2, eps):
    c = 1 - beta2
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + c * g**2
    u = m / (sqrt(v / c) + eps)
    return m, v, u


def swapped(g, m, v, *, beta1, beta2, eps, step):
    """A planted fault: Adam with the operands of its last division exchanged."""
    m = beta1 * m + g
    v = beta2 * v + g * g
    u = (sqrt(v) + eps) / (step * m)
    return m, v, u


def momentum(g, m, *, beta):
    m = beta * m + g
    u = m
    return m, u


def adadelta(g, sq, acc, *, rho, eps):
    sq = rho * sq + (1 - rho) * g * g
    u = sqrt(acc + eps) / sqrt(sq + eps) * g
    acc = rho * acc + (1 - rho) * u * u
    return sq, acc, u


def descend(x, u, *, lr):
    x = x - lr * u
    return x


def twice(a, b):
    a = b * a - a * a
    return a


def right(a, b):
    a = a - b * a
    return a


def old_value(a, b, *, k):
    old = a
    a = a * b - k
    b = old - a
    return a, b


def swap(a, b):
    t = a
    a = b
    b = t
    return a, b


def late(a, b):
    t = a
    a = a * b
    b = (t - b) * (t + b)
    return a, b


def functions(a, b, *, k):
    a = sign(a) * log(abs(a) + k) - exp(-abs(b))
    b = maximum(b, tanh(a)) + minimum(-b, 0.5) * -k + (2.0 - k) ** 2
    return a, b


def choice(a, b, *, k):
    b = where(a <= b * k, a - b, where(b != 0.0, -k, a))
    a = where(k > a, 1.0, b)
    return a, b


def gated(a, b, *, k):
    a = (a > b * k) * a - b * (a <= k)
    b = where(a < b, a * (b != 0.0), b)
    return a, b


def hashed(bits, *, key):
    bits = (bits ^ key) * 0x85EBCA6B
    bits = bits ^ (bits >> 13)
    return bits


def local(g, m):
    t = g + m
    g = t * t
    m = m - g
    return m


def local_too(t, g, *, scale):
    t = t + scale * g
    return t


ADAM = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "step": 0.1}
CASES = [  # functions, scalars, read-only names
    ([adam, descend], {**ADAM, "lr": 1e-3}, ["g"]),
    ([scaled, adam, descend], {**ADAM, "lr": 1e-3, "scale": 1.7}, ["g"]),
    ([adam_means, descend], {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "lr": 0.1}, []),
    ([momentum, descend], {"beta": 0.9, "lr": 0.1}, ["g"]),
    ([scaled, adadelta, descend], {"rho": 0.95, "eps": 1e-6, "lr": 1.0, "scale": 0.3}, ["g"]),
    ([twice], {}, []),
    ([right], {}, []),
    ([right, twice], {}, ["b"]),
    ([old_value], {"k": 0.3}, []),
    ([swap], {}, []),
    ([late], {}, []),
    ([functions], {"k": 0.7}, []),
    ([choice], {"k": 0.7}, []),
    ([gated], {"k": 0.7}, []),
    ([local, local_too], {"scale": 0.1}, []),
]
IDS = ["_".join(f.__name__ for f in case[0]) for case in CASES]


def render(*functions, **options):
    return numpy_kernel(parse(*functions, **options))


def pure(chain, arrays, scalars):
    """The plain functions, one after the other, over a dictionary of arrays."""
    seen = dict(arrays)
    for f in chain:
        code = f.__code__
        names = code.co_varnames
        positional, keywords = (
            names[: code.co_argcount],
            names[code.co_argcount :][: code.co_kwonlyargcount],
        )
        result = f(*(seen[n] for n in positional), **{n: scalars[n] for n in keywords})
        seen |= zip(returns(f), result if isinstance(result, tuple) else (result,), strict=True)
    return seen


def returns(f):
    formula = {scaled: "g", adam: "m v u", adam_means: "m v u", swapped: "m v u", momentum: "m u"}
    formula |= {
        adadelta: "sq acc u",
        descend: "x",
        twice: "a",
        right: "a",
        old_value: "a b",
        swap: "a b",
        late: "a b",
    }
    formula |= {functions: "a b", choice: "a b", gated: "a b", local: "m", local_too: "t"}
    return formula[f].split()


def run(kernel, arrays, scalars):
    """The kernel over copies of the arrays; missing ones (outputs) start as garbage."""
    like = next(iter(arrays.values()))
    copies = {n: arrays[n].copy() if n in arrays else np.full_like(like, 7) for n in kernel.formula.arrays}
    kernel.bind(like.dtype, **scalars)(kernel.scratch(like.size + 3, like.dtype), *copies.values())
    return copies


def assert_same_bits(a, b):
    """NaN in the same places (NumPy leaves its sign and payload open); all other entries equal as bits."""
    assert a.dtype == b.dtype and a.shape == b.shape
    nan = np.isnan(a)
    np.testing.assert_array_equal(nan, np.isnan(b))
    assert a[~nan].tobytes() == b[~nan].tobytes()


# --- the law: both give the same bits -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("chain", "scalars", "readonly"), CASES, ids=IDS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_rendered_equals_plain_bit_for_bit(chain, scalars, readonly, dtype, data):
    outputs = [n for n in returns(chain[-1]) if n == "u"]
    kernel = render(*chain, readonly=readonly, outputs=outputs)
    special = st.sampled_from([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 1e-40, 1e30])
    width = 8 * np.dtype(dtype).itemsize
    entries = special.map(dtype) | st.floats(width=width)
    n = data.draw(st.integers(0, 37))
    names = [n for n in kernel.formula.arrays if n not in outputs]
    arrays = dict(
        zip(names, data.draw(hnp.arrays(dtype, (len(names), n), elements=entries, fill=entries)), strict=True)
    )
    scalars = {name: data.draw(st.sampled_from([value, 0.0, -2.0, 1e-30])) for name, value in scalars.items()}
    with np.errstate(all="ignore"):
        try:
            expected = pure(chain, arrays, scalars)
        except ArithmeticError as error:
            with pytest.raises(type(error)):
                kernel.bind(dtype, **scalars)
            return
        found = run(kernel, arrays, scalars)
    for name in kernel.formula.arrays:
        assert_same_bits(found[name], expected[name] if name in kernel.formula.written else arrays[name])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("chain", "scalars", "readonly"), CASES, ids=IDS)
def test_long_arrays_of_ordinary_numbers(chain, scalars, readonly, dtype):
    kernel, rng = render(*chain, readonly=readonly), np.random.default_rng(0)
    arrays = {n: rng.standard_normal(10_001).astype(dtype) for n in kernel.formula.arrays}
    with np.errstate(all="ignore"):
        expected, found = pure(chain, arrays, scalars), run(kernel, arrays, scalars)
    for name in kernel.formula.written:
        assert_same_bits(found[name], expected[name])
    for name in readonly:
        assert found[name].tobytes() == arrays[name].tobytes()


def test_pieces_give_the_bits_of_the_whole():
    kernel, rng = render(adam, descend), np.random.default_rng(1)
    whole = [abs(rng.standard_normal(1000)).astype(np.float32) for _ in range(4)]
    pieces = [a.copy() for a in whole]
    step = kernel.bind(np.float32, **ADAM, lr=0.1)
    step(kernel.scratch(1000, np.float32), *whole)
    scratch = kernel.scratch(300, np.float32)
    for start in range(0, 1000, 300):
        step(scratch, *(a[start : start + 300] for a in pieces))
    for a, b in zip(whole, pieces, strict=True):
        assert_same_bits(a, b)


@given(st.lists(st.integers(0, 2**32 - 1), max_size=20), st.integers(0, 2**32 - 1))
def test_bits_of_unsigned_integers_wrap_around(entries, key):
    """Against Python's integers, which do not."""
    expected = [(b ^ key) * 0x85EBCA6B % 2**32 for b in entries]
    found = run(render(hashed), {"bits": np.array(entries, np.uint32)}, {"key": key})["bits"]
    assert found.tolist() == [h ^ h >> 13 for h in expected] and found.dtype == np.uint32


def test_a_planted_fault_is_seen():
    rng = np.random.default_rng(0)
    arrays = {n: abs(rng.standard_normal(50)) for n in "gmv"}
    found = run(render(swapped, outputs=["u"]), arrays, ADAM)
    with pytest.raises(AssertionError):
        assert_same_bits(found["u"], pure([adam], arrays, ADAM)["u"])


# --- scalars --------------------------------------------------------------------------------------------


def test_scalars_are_combined_in_double_and_then_rounded():
    formula = parse(adam_means)
    assert formula.constants == {"beta1": "beta1", "_c1": "1 - beta1", "beta2": "beta2", "_c3": "1 - beta2"}
    values = formula.evaluate(beta1=0.9, beta2=0.999, eps=0.0)
    assert values == (0.9, 1 - 0.9, 0.999, 1 - 0.999)
    arrays = {n: np.ones(3, np.float32) for n in "gmv"}
    found = run(numpy_kernel(formula), arrays, {"beta1": 0.0, "beta2": 0.999, "eps": 0.0})["v"]
    assert found[0] == np.float32(0.999) + np.float32(1 - 0.999)
    assert np.float32(1) - np.float32(0.999) != np.float32(1 - 0.999)


def test_scalars_of_numpy_keep_the_dtype_of_the_arrays():
    found = run(render(scaled), {"g": np.ones(3, np.float32)}, {"scale": np.float64(0.1)})
    assert found["g"].dtype == np.float32


def inverse(g, *, beta):
    g = g * (1 / (1 - beta))
    return g


def test_a_division_by_a_zero_scalar_fails_as_the_plain_function_does():
    with pytest.raises(ZeroDivisionError):
        inverse(np.ones(2), beta=1.0)
    with pytest.raises(ZeroDivisionError, match=r"inverse: .*zero in one of \(1 / \(1 - beta\)\) at {'beta': 1.0}"):
        render(inverse).bind(np.float64, beta=1.0)


@pytest.mark.parametrize("scalars", [{}, {"scale": 1.0, "lr": 1.0}])
def test_missing_and_unknown_scalars(scalars):
    with pytest.raises(TypeError, match=r"scaled\(\)"):
        render(scaled).bind(np.float32, **scalars)


# --- the rendering --------------------------------------------------------------------------------------


def test_source():
    assert render(adadelta, outputs=["u"]).source.splitlines() == [
        "def bind(rho, _c1, eps):",
        "    # _c1 = 1 - rho",
        "    def adadelta(_scratch, g, sq, acc, u):",
        "        _n = g.size",
        "        _0 = _scratch[0][:_n]",
        "        # sq = rho * sq + (1 - rho) * g * g",
        "        multiply(rho, sq, out=sq)",
        "        multiply(_c1, g, out=_0)",
        "        multiply(_0, g, out=_0)",
        "        add(sq, _0, out=sq)",
        "        # u = sqrt(acc + eps) / sqrt(sq + eps) * g",
        "        add(acc, eps, out=u)",
        "        sqrt(u, out=u)",
        "        add(sq, eps, out=_0)",
        "        sqrt(_0, out=_0)",
        "        divide(u, _0, out=u)",
        "        multiply(u, g, out=u)",
        "        # acc = rho * acc + (1 - rho) * u * u",
        "        multiply(rho, acc, out=acc)",
        "        multiply(_c1, u, out=_0)",
        "        multiply(_0, u, out=_0)",
        "        add(acc, _0, out=acc)",
        "    return adadelta",
    ]


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (partial(render, scaled), 0),
        (partial(render, momentum), 0),
        (partial(render, momentum, descend), 1),
        (partial(render, adam), 1),
        (partial(render, adam, descend, readonly=["g"]), 2),
        (partial(render, scaled, adam, descend, readonly=["g"]), 2),
        (partial(render, adadelta, descend), 2),
        (partial(render, twice), 1),
        (partial(render, right), 1),
        (partial(render, old_value), 1),
        (partial(render, swap), 1),
        (partial(render, late), 2),
    ],
)
def test_number_of_temporaries(make, count):
    kernel = make()
    assert kernel.temporaries == count == len(kernel.scratch(5, np.float32))


def test_unused_assignments_are_left_out():
    assert "divide" not in render(adam).source
    assert set(parse(adam).constants) == {"beta1", "beta2"}
    assert parse(adam).scalars == ("beta1", "beta2", "eps", "step")


def test_a_call_allocates_nothing():
    kernel, n = render(scaled, adam, descend, readonly=["g"], outputs=["u"]), 65_536
    arrays = [np.ones(n, np.float32) for _ in kernel.formula.arrays]
    step, scratch = kernel.bind(np.float32, **ADAM, lr=0.1, scale=2.0), kernel.scratch(n, np.float32)
    step(scratch, *arrays)
    tracemalloc.start()
    try:
        step(scratch, *arrays)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000


# --- composition ----------------------------------------------------------------------------------------


def test_names_of_a_composition():
    formula = parse(scaled, adam, descend, readonly=("g",))
    assert formula.name == "scaled_adam_descend"
    assert formula.arrays == ("g", "m", "v", "x")
    assert formula.written == ("m", "v", "x")
    assert formula.scalars == ("scale", "beta1", "beta2", "eps", "step", "lr")
    assert [s.target for s in formula.statements] == ["g", "m", "v", "u", "x"]
    assert formula.statements[1] == ("m", ("add", ("multiply", "beta1", "m"), "g"), "m = beta1 * m + g")


def test_outputs_come_last_and_are_written():
    formula = parse(adam, descend, outputs=("u",))
    assert formula.arrays == ("g", "m", "v", "x", "u")
    assert formula.written == ("m", "v", "x", "u")


def both(g, x, *, k):
    t = g * (x > k)
    d = t * x
    c = d - t
    return d, c


def test_a_map_writes_new_arrays_only():
    formula = parse_map(both)
    assert (formula.arrays, formula.written, formula.scalars) == (("g", "x", "d", "c"), ("d", "c"), ("k",))
    arrays = {"g": np.float32([1, 2, 3]), "x": np.float32([-1, 0.5, 2])}
    found = run(numpy_kernel(formula), arrays, {"k": 1.0})
    assert [found[name].tolist() for name in "gxdc"] == [[1, 2, 3], [-1, 0.5, 2], [0, 0, 6], [0, 0, 3]]
    with pytest.raises(FormulaError, match="right: a asked for, but an input or not returned"):
        parse_map(right)


def test_names_that_are_not_returned_stay_private():
    formula = parse(local, local_too)
    assert formula.arrays == ("g", "m", "t")
    assert formula.written == ("m", "t")
    assert [s.target for s in formula.statements] == ["local__t", "local__g", "m", "t"]


# --- errors ---------------------------------------------------------------------------------------------
# fmt: off
def branch(g):
    if g:
        g = -g
    return g
def loop(g):
    for _ in range(3):
        g = g + g
    return g
def augmented(g):
    g += 1
    return g
def unpacked(g, m):
    g, m = m, g
    return g, m
def indexed(g):
    g = g[0]
    return g
def attribute(g):
    g = np.sqrt(g)
    return g
def power(g):
    g = g**3
    return g
def unknown_call(g):
    g = np.sum(g)
    return g
def keyword(g):
    g = sqrt(g, dtype=float)
    return g
def arity(g):
    g = maximum(g)
    return g
def negation(g):
    g = (not g) * g
    return g
def chained(g):
    g = where(0 < g < 1, g, 0.0)
    return g
def plus(g):
    g = +g
    return g
def sum_of_tests(g):
    g = (g > 0) + (g < 1)
    return g
def product_of_tests(g):
    g = (g > 0) * (g < 1)
    return g
def function_of_test(g):
    g = g * exp(g > 0)
    return g
def negative_test(g):
    g = g * -(g > 0)
    return g
def compared_test(g):
    g = g * ((g > 1) > 0)
    return g
def branch_test(g):
    g = where(g > 0, g < 1, g)
    return g
def scaled_test(g, *, b):
    g = g + b * (g > 0)
    return g
def named_test(g):
    p = g > 0
    g = g * p
    return g
def text(g):
    g = g * "2"
    return g
def truth(g):
    g = g * True
    return g
def unknown_name(g):
    g = g * h  # noqa: F821
    return g
def scalar_call(g, *, b):
    g = g * sqrt(b)
    return g
def scalar_where(g, *, b):
    g = where(g > b, b, 0.0)
    return g
def scalar_test(g, *, b):
    g = where(b > 0, g, -g)
    return g
def scalar_result(g, *, b):
    c = 2 * b
    return g, c
def not_a_name(g):
    return g + 1
def no_return(g):
    g = -g
def default(g, *, b=1.0):
    g = b * g
    return g
def star(*g):
    return g
@partial
def decorated(g):
    return g
def reserved(g):
    add = g + g
    return add
def underscore(_g):
    return _g
def undefined(g):
    return m  # noqa: F821
# fmt: on

UNSUPPORTED = [
    (branch, 1, "if g:", "only `name = expression`"),
    (loop, 1, "for _ in range(3):", "only `name = expression`"),
    (augmented, 1, "g += 1", "only `name = expression`"),
    (unpacked, 1, "g, m = m, g", "only `name = expression`"),
    (indexed, 1, "g[0]", "a formula holds"),
    (attribute, 1, "np.sqrt(g)", "from numpy import sqrt"),
    (power, 1, "g**3", "a formula holds"),
    (unknown_call, 1, "np.sum(g)", "a formula holds"),
    (keyword, 1, "sqrt(g, dtype=float)", "a formula holds"),
    (arity, 1, "maximum(g)", "a formula holds"),
    (negation, 1, "not g", "a formula holds"),
    (chained, 1, "where(0 < g < 1, g, 0.0)", "a formula holds"),
    (plus, 1, "+g", "a formula holds"),
    (sum_of_tests, 1, "(g > 0) + (g < 1)", "one factor of a product"),
    (product_of_tests, 1, "(g > 0) * (g < 1)", "one factor of a product"),
    (function_of_test, 1, "exp(g > 0)", "one factor of a product"),
    (negative_test, 1, "-(g > 0)", "one factor of a product"),
    (compared_test, 1, "(g > 1) > 0", "one factor of a product"),
    (branch_test, 1, "where(g > 0, g < 1, g)", "one factor of a product"),
    (scaled_test, 1, "b * (g > 0)", "a comparison is a factor of an array"),
    (named_test, 1, "p = g > 0", "only `name = expression`"),
    (text, 1, '"2"', "a formula holds"),
    (truth, 1, "True", "a formula holds"),
    (unknown_name, 1, "h", "a formula holds"),
    (scalar_call, 1, "sqrt(b)", "sqrt of scalars only"),
    (scalar_where, 1, "where(g > b, b, 0.0)", "where of scalars only"),
    (scalar_test, 1, "where(b > 0, g, -g)", "greater of scalars only"),
    (scalar_result, 2, "return g, c", "c is not an array of this formula"),
    (not_a_name, 1, "return g + 1", "plain names"),
    (no_return, 1, "g = -g", "ends with `return"),
    (default, 0, "def default(g, *, b=1.0):", "no decorators, defaults"),
    (star, 0, "def star(*g):", "no decorators, defaults"),
    (reserved, 1, "add = g + g", "a new name is no function"),
    (underscore, 0, "_g", "a new name is no function"),
    (undefined, 1, "return m", "m is not an array of this formula"),
]


@pytest.mark.parametrize(
    ("function", "offset", "construct", "why"), UNSUPPORTED, ids=[case[0].__name__ for case in UNSUPPORTED]
)
def test_unsupported_constructs_are_named(function, offset, construct, why):
    with pytest.raises(FormulaError) as caught:
        parse(function)
    line = function.__code__.co_firstlineno + offset
    assert str(caught.value).startswith(f"{function.__name__}, line {line}: `{construct}`: ")
    assert why in str(caught.value)


def test_functions_without_a_source():
    space = {}
    exec("def made(g):\n    return g", space)
    for function in (space["made"], np.sqrt, decorated, lambda g: g):
        with pytest.raises(FormulaError, match=r"no source found|a formula is a plain `def`|no decorators"):
            parse(function)


def takes_u_as_scalar(g, *, u):
    g = u * g
    return g


@pytest.mark.parametrize(
    ("chain", "options", "message"),
    [
        ([momentum, takes_u_as_scalar], {}, "momentum_takes_u_as_scalar: u cannot be both array and scalar"),
        ([momentum], {"readonly": ["h"]}, "momentum: h read-only, but not among the inputs"),
        ([momentum], {"outputs": ["m"]}, "momentum: m asked for, but an input or not returned"),
        ([momentum], {"outputs": ["w"]}, "momentum: w asked for, but an input or not returned"),
        ([scaled], {"readonly": ["g"]}, "scaled: nothing is written; ask for outputs"),
    ],
)
def test_compositions_that_cannot_be(chain, options, message):
    with pytest.raises(FormulaError, match=f"^{message}$"):
        parse(*chain, **options)
