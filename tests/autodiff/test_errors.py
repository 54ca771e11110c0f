"""Where a derivative would be lost or is not defined: an error that says what to do, and no silent zero.

On a device the same is said as on the host.
"""

import copy
import math
import pickle

import numpy as np
import pytest

import minibng as bng
from minibng import TraceError, check_grads, grad, hvp, ops, primitive, value_and_grad, vjp

X = np.array([0.5, 1.5, 2.5])


def fails(error, match, f, *args):
    with pytest.raises(error, match=match):
        grad(f)(*(args or (X,)))


def write(x):
    x[0] = 1.0
    return np.sum(x)


def write_augmented(x):
    x[0] += 1.0
    return np.sum(x)


def add_in_place(x):
    total = np.zeros(3)
    total += x
    return np.sum(total)


def assign_into(x):
    total = np.zeros(3)
    total[:] = x
    return np.sum(total)


LOST = {
    "write": (write, "np.where or np.concatenate"),
    "augmented write": (write_augmented, "np.where or np.concatenate"),
    "array += traced": (add_in_place, "array = array \\+ traced"),
    "array[:] = traced": (assign_into, "derivative would be lost"),
    "out=": (lambda x: np.sum(np.exp(x, out=np.zeros(3))), "np.exp cannot write to an array"),
    "sum out=": (lambda x: np.sum(x, axis=0, out=np.zeros(())), "np.sum cannot write to an array"),
    "np.asarray": (lambda x: np.sum(np.asarray(x)), "has_aux=True"),
    "np.array": (lambda x: np.sum(np.array(x)), "np.stack"),
    "np.array of list": (lambda x: np.sum(np.array([x[0], x[1]])), "np.stack"),
    "float": (lambda x: float(x[0]), "np.exp for math.exp"),
    "math.exp": (lambda x: math.exp(x[0]), "np.exp for math.exp"),
    "np.median": (lambda x: np.median(x), "no derivative is known for np.median: .*np.sort"),
    "np.linalg.svd": (lambda x: np.linalg.svd(x[:, None]), "no derivative is known for np.linalg.svd: .*singular"),
    "np.fft.fft": (lambda x: np.fft.fft(x), "no derivative is known for np.fft.fft: .*complex"),
    "a user's ufunc": (lambda x: np.frompyfunc(abs, 1, 1)(x), "no derivative is known .*bng.primitive"),
    "sum dtype=": (lambda x: np.sum(x, dtype="float64"), "np.sum of a traced value takes no dtype=: .*astype"),
    "mean where=": (lambda x: np.mean(x, where=x > 1), "np.mean of a traced value takes no where=: .*np.where"),
    "exp where=": (lambda x: np.sum(np.exp(x, where=x > 1)), "np.exp of a traced value takes no where="),
    "prod initial=": (lambda x: np.prod(x, initial=2.0), "takes no initial=: combine"),
    "reshape order=": (lambda x: np.sum(np.reshape(x, (3, 1), order="F")), "takes no order=: .*np.transpose"),
    "take mode=": (lambda x: np.sum(np.take(x, [7], mode="wrap")), "takes no mode=: .*np.clip"),
    "x.sort()": (lambda x: x.sort(), "use np.sort"),
    "x.fill": (lambda x: x.fill(0), "np.where or np.concatenate"),
    "x.tolist": (lambda x: x.tolist(), "has_aux=True"),
    "x.item": (lambda x: x[0].item(), "has_aux=True"),
    "np.copyto": (lambda x: np.copyto(np.zeros(3), x), "not written to in place"),
    "np.put_along_axis": (lambda x: np.put_along_axis(x, np.array([0]), 1.0, 0), "scatter_add"),
    "np.add.reduce": (lambda x: np.add.reduce(x), "np.add.reduce has no derivative .* np.sum"),
    "np.multiply.outer": (lambda x: np.sum(np.multiply.outer(x, x)), "np.multiply.outer has no derivative"),
    "np.add.at": (lambda x: np.add.at(np.zeros(3), [0, 0, 1], x), "np.add.at has no derivative"),
}


@pytest.mark.parametrize("name", LOST)
def test_what_would_lose_the_derivative_is_refused(name, device):
    f, match = LOST[name]
    fails(TraceError, match, f, device.array(X))


@pytest.mark.parametrize("name", LOST)
def test_the_same_is_refused_inside_a_second_derivative(name):
    f, match = LOST[name]
    with pytest.raises(TraceError, match=match):
        grad(lambda x: np.sum(grad(f)(x)))(X)


def test_trace_error_is_a_type_error_and_public():
    assert issubclass(bng.TraceError, TypeError)


def test_conversion_to_integers_is_refused_or_stops_the_gradient():
    """A truncated value has derivative 0 almost everywhere; the identity's gradient would be wrong."""
    try:
        g = grad(lambda x: np.sum(x.astype("int64") * 1.0))(X)
    except TypeError:
        return
    np.testing.assert_array_equal(g, np.zeros(3))


@pytest.mark.parametrize("convert", [int, round, complex])
def test_other_conversions_of_a_traced_value_fail(convert):
    fails(TypeError, "[Tt]raced", lambda x: x * convert(x), 2.5)


# A value that has left its trace


def leak(x=X):
    kept = []

    def f(x):
        kept.append(x * 2)
        return np.sum(x)

    grad(f)(x)
    return kept[0]


@pytest.mark.parametrize(
    "use",
    [
        lambda t: t + 1,
        lambda t: 1.0 * t,
        lambda t: X * t,
        lambda t: np.exp(t),
        lambda t: t.sum(),
        lambda t: t[0],
        lambda t: -t,
        lambda t: X @ t,
        lambda t: np.concatenate([X, t]),
        lambda t: bng.nn.sigmoid(t),
        lambda t: grad(lambda x: np.sum(x * t))(X),
        lambda t: vjp(lambda x: t, X),
        lambda t: grad(lambda x: t[0])(X),
        list,
    ],
)
def test_a_leaked_value_is_refused_when_used(use, device):
    with pytest.raises(TraceError, match=r"after its trace had ended.*has_aux"):
        use(leak(device.array(X)))


def test_a_value_leaked_from_an_inner_trace_is_refused_in_the_outer():
    def outer(x):
        kept = []
        grad(lambda y: kept.append(y) or np.sum(y * x))(x)
        return np.sum(kept[0] * x)

    fails(TraceError, "after its trace had ended", outer)


def test_a_pullback_used_after_its_outer_trace_is_refused():
    kept = []

    def f(x):
        kept.append(vjp(lambda y: y * y * x, x)[1])
        return np.sum(x)

    grad(f)(X)
    with pytest.raises(TraceError, match="after its trace had ended"):
        kept[0](np.ones(3))


# Results


@pytest.mark.parametrize("shape", [(3,), (1,), (2, 3), (0,), (1, 1)])
def test_a_loss_that_is_not_a_scalar_names_its_shape(shape, device):
    with pytest.raises(ValueError, match="scalar.*" + str(shape).replace("(", r"\(").replace(")", r"\)")):
        grad(lambda x: x * 2)(device.array(np.ones(shape)))


NOT_A_LOSS = {
    "None": (lambda x: None, "returned None.*return"),
    "numpy bool": (lambda x: x[0] > 0, "floating-point scalar.*bool"),
    "python bool": (lambda x: bool(x[0] > 0), "floating-point scalar.*bool"),
    "list": (lambda x: [x[0]], "floating-point scalar.*list"),
    "tuple": (lambda x: (x[0], x[1]), "floating-point scalar.*tuple"),
    "text": (lambda x: "loss", "floating-point scalar.*str"),
    "complex": (lambda x: 1j, "floating-point scalar.*complex"),
}


@pytest.mark.parametrize("name", NOT_A_LOSS)
def test_a_result_that_is_no_number_is_refused(name, device):
    f, match = NOT_A_LOSS[name]
    fails(TypeError, match, f, device.array(X))


def test_has_aux_needs_a_pair():
    for f in (np.sum, lambda x: (x[0], x, x), lambda x: [x[0], x]):
        with pytest.raises(TypeError, match=r"has_aux=True needs .*\(value, aux\)"):
            grad(f, has_aux=True)(X)


# Inputs

NOT_FLOATING = {
    "int": (2, "int"),
    "int array": (np.array([1, 2]), r"int64 array of shape \(2,\)"),
    "bool array": (np.array([True]), "bool"),
    "bool": (True, "bool"),
    "complex": (1j, "complex"),
    "None": (None, "NoneType"),
    "text": ("x", "str"),
    "int in a list": ([X, 3], "leaf 1 is an int"),
    "None in a dict": ({"a": X, "b": None}, "leaf 1 is a NoneType"),
    "object array": (np.array([1.0, None]), "object"),
}


@pytest.mark.parametrize("name", NOT_FLOATING)
@pytest.mark.parametrize(
    "derivative", [grad, value_and_grad, lambda f: lambda x: vjp(f, x), lambda f: lambda x: hvp(f)(x, x)]
)
def test_input_that_is_not_floating_is_refused_by_name(name, derivative, device):
    x, match = NOT_FLOATING[name]
    x = device.array(x) if type(x) is np.ndarray and x.dtype != object else x
    with pytest.raises(TypeError, match=f"argument 0.*{match}.*floating"):
        derivative(lambda x: 1.0)(x)


def test_other_arguments_may_be_integers():
    np.testing.assert_array_equal(grad(lambda x, n, t: np.sum(x[t]) * n)(X, 2, np.array([0, 0])), [4.0, 0.0, 0.0])


@pytest.mark.parametrize("argnums", [1, -2, (0, 1), 7])
def test_argnums_out_of_range_are_refused(argnums):
    with pytest.raises(TypeError, match=r"argnums names argument .* called with 1"):
        grad(np.sum, argnums=argnums)(X)


@pytest.mark.parametrize("argnums", [(0, 0), (0, -2)])
def test_an_argument_named_twice_gets_its_gradient_twice_or_an_error(argnums):
    try:
        g = grad(lambda x, y: np.sum(x * y), argnums=argnums)(X, X)
    except (TypeError, ValueError):
        return
    np.testing.assert_array_equal(g, [X, X])


@pytest.mark.parametrize("g", [np.ones(2), np.ones((3, 1)), 1.0, [np.ones(3)] * 2, np.ones((1, 3))])
def test_a_cotangent_of_another_shape_is_refused(g, device):
    _, pull = vjp(lambda x: x * 2, device.array(X))
    with pytest.raises(ValueError, match=r"cotangent has shapes .*value.*\(3,\)"):
        pull(g)


def test_a_direction_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="the direction has shapes"):
        hvp(np.sum)(X, np.ones(2))


# Devices

MET = {
    "operator": lambda x: x * X,
    "reflected operator": lambda x: X - x,
    "function": lambda x: np.maximum(x, X),
    "matmul": lambda x: x @ X,
    "list": lambda x: x * [1.0, 2.0, 3.0],
    "where": lambda x: np.where(np.array([True, False, True]), x, 0.0),
    "concatenate": lambda x: np.concatenate([x, X]),
    "einsum": lambda x: np.einsum("i,i->i", x, X),
    "second derivative": lambda x: grad(lambda y: np.sum(y * y * X))(x),
}


@pytest.mark.parametrize("name", MET)
def test_arrays_of_two_devices_are_refused_and_told_to_be_brought_to_one(name, device):
    if device.name == "cpu":
        return
    with pytest.raises(TypeError) as error:
        grad(lambda x: np.sum(MET[name](x)))(device.array(X))
    if name != "list":
        assert f"arrays on cpu and {device.backend.device} met" in error.value.__notes__[0]
        assert "bng.asarray(x, device=…)" in error.value.__notes__[0]


# Keyword arguments and conditions

KEYWORD = {
    "add b": lambda x: ops.add(x, b=x),
    "add a": lambda x: ops.add(b=x, a=x),
    "where b": lambda x: ops.where(np.array([True, False, True]), x, b=x * 3),
    "where a, b": lambda x: ops.where(np.array([True, False, True]), a=x * 2, b=x * 3),
    "matmul b": lambda x: ops.matmul(x, b=x),
    "clip": lambda x: ops.clip(x * 2, a_min=x, a_max=x * 1.5),
    "sum x": lambda x: ops.sum(x=x * x),
    "affine b": lambda x: bng.nn.affine(x, np.ones((3, 3)), b=x),
    "affine w": lambda x: bng.nn.affine(x, w=np.ones((3, 3)) * x, b=np.zeros(3)),
    "sigmoid x": lambda x: bng.nn.sigmoid(x=x),
    "np.where": lambda x: np.where(x > 1, x, x * x),
}


@pytest.mark.parametrize("name", KEYWORD)
def test_a_traced_keyword_argument_keeps_its_derivative_or_is_refused(name):
    f = KEYWORD[name]
    try:
        _, pull = vjp(f, X)
    except TypeError:
        return
    try:
        got = pull(np.ones_like(f(X)))[0]
    except TypeError:
        return
    h = 1e-6
    measured = [np.sum(f(X + h * e) - f(X - h * e)) / (2 * h) for e in np.eye(3)]
    np.testing.assert_allclose(got, measured, rtol=1e-6)


def test_a_traced_keyword_of_a_user_s_primitive_keeps_its_derivative_or_is_refused():
    @primitive(lambda g, y, x, shift=0.0: g)
    def shifted(x, shift=0.0):
        return x + shift

    try:
        g = grad(lambda x: np.sum(shifted(x, shift=x * 2)))(X)
    except TypeError:
        return
    np.testing.assert_array_equal(g, [3.0, 3.0, 3.0])


def test_a_traced_condition_is_refused(device):
    fails(TypeError, "condition|argument 0", lambda x: np.sum(np.where(x, x, 0.0)), device.array(X))
    fails(TypeError, "condition|argument 0", lambda x: np.sum(ops.where(x, 1.0, 0.0)), device.array(X))


def test_a_primitive_without_a_rule_for_an_argument_names_it():
    @primitive(lambda g, y, a, b: g)
    def one_sided(a, b):
        return a + b

    np.testing.assert_array_equal(grad(lambda x: np.sum(one_sided(x, X)))(X), np.ones(3))
    fails(TraceError, "one_sided has no derivative with respect to argument 1", lambda x: np.sum(one_sided(X, x)))


def test_a_rule_that_returns_another_shape_is_found():
    @primitive(lambda g, y, x: g[:2])
    def wrong(x):
        return x * 1.0

    fails(ValueError, "a rule returned a cotangent of shape", lambda x: np.sum(wrong(x)))


TWO = np.ones(2)
BAD_ARGUMENTS = {
    "split": (lambda x: ops.split(x, 2), "axis 0 of shape .* no 2 equal parts: use array_split"),
    "split backwards": (lambda x: ops.split(x, [2, 1]), "must not decrease"),
    "split into none": (lambda x: ops.array_split(x, 0), "cannot split into 0"),
    "pad": (lambda x: ops.pad(x, 1, mode="mean"), "modes constant, edge, reflect, symmetric and wrap, got 'mean'"),
    "diff": (lambda x: ops.diff(x, -1), "n ≥ 0, got -1"),
    "tensordot": (lambda x: ops.tensordot(x, TWO, 1), r"\[-1\] of \(3,\) and \[0\] of \(2,\) differ"),
    "nuclear norm": (lambda x: ops.linalg.norm(x[:, None], "nuc"), "no ord='nuc' here.*singular values"),
    "norm of three axes": (lambda x: ops.linalg.norm(x[:, None, None], 1), r"axes \(0, 1, 2\).*no ord=1"),
    "einsum": (lambda x: np.einsum("ij->i", x), "einstein sum subscripts"),
    "reshape": (lambda x: np.reshape(x, (2, 2)), "cannot reshape"),
    "matmul": (lambda x: x @ TWO, "mismatch|not aligned|matmul"),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_arguments_that_make_no_sense_are_refused_traced_and_plain(name, device, monkeypatch):
    f, match = BAD_ARGUMENTS[name]
    monkeypatch.setitem(globals(), "TWO", device.array(TWO))
    with pytest.raises(ValueError, match=match if device.name != "cuda" else ""):  # some are CuPy's words
        f(device.array(X))
    fails(ValueError, match if device.name != "cuda" else "", lambda x: np.sum(f(x)), device.array(X))


@pytest.mark.parametrize("f", [np.linalg.inv, lambda a: np.linalg.solve(a, a[0]), lambda a: np.linalg.cholesky(-a)])
def test_matrices_that_cannot_be_factored_raise_numpy_s_error(f, device):
    a = device.array(np.ones((2, 2)))
    if device.name == "cuda":  # nobody looks, and what comes out means nothing
        assert grad(lambda a: np.sum(f(a)))(a).shape == (2, 2)
    else:
        fails(np.linalg.LinAlgError, "[Ss]ingular|positive definite", lambda a: np.sum(f(a)), a)


def test_an_error_in_the_function_leaves_nothing_behind():
    def broken(x):
        y = x * x
        grad(lambda z: np.sum(z * y) / 0)(x)  # warns, and warnings are errors here
        return np.sum(y)

    with pytest.raises(RuntimeWarning):
        grad(broken)(X)

    def raises(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        grad(raises)(X)
    np.testing.assert_array_equal(grad(lambda x: np.sum(x * x))(X), 2 * X)
    check_grads(np.exp, X)


# Calls that fit NumPy and not us, and what is not an array's

COMPLEX = "complex value met a traced one.*real and imaginary part"
WAVE = np.exp(-2j * np.pi * np.outer(np.arange(3), np.arange(3)) / 3)
SAID = {
    "modulus": (lambda x: np.abs(x[0] + 1j * x[1]), COMPLEX),
    "modulus, second-order": (lambda x: np.sum(grad(lambda x: np.abs(x[0] + 1j * x[1]))(x)), COMPLEX),
    "complex matrix": (lambda x: np.sum(np.abs(WAVE @ x) ** 2), COMPLEX),
    "np.real": (lambda x: np.sum(np.real(WAVE @ x)), COMPLEX),
    ".real": (lambda x: np.sum((WAVE @ x).real), COMPLEX),
    "np.conj": (lambda x: np.sum(np.abs(np.conj(WAVE @ x))), COMPLEX),
    ".conjugate()": (lambda x: np.sum(np.abs((WAVE @ x).conjugate())), COMPLEX),
    "astype complex": (lambda x: np.sum(x.astype(complex)), COMPLEX),
    "complex()": (lambda x: complex(x[0]), COMPLEX),
    "pickle": (lambda x: pickle.dumps(x), "cannot be pickled"),
    "percent format": (lambda x: "%.3f" % x[0], "has_aux=True"),  # noqa: UP031
    "x.sum(dtype=)": (lambda x: x.sum(dtype=float), r"x.sum\(\) .* takes no dtype=: .*astype"),
    "x.mean(0, float)": (lambda x: x.mean(0, float), "takes no dtype=: .*astype"),
    "np.sum(x, 0, float)": (lambda x: np.sum(x, 0, np.float64), "np.sum .* takes no dtype=: .*astype"),
    "x.reshape(order=)": (lambda x: x.reshape((3, 1), order="F"), r"x.reshape\(\) .* takes no order=: .*transpose"),
    "x.reshape(newshape=)": (lambda x: x.reshape(newshape=(3, 1)), r"takes no newshape=: .*x.reshape\(shape\)"),
    "np.reshape(x, s, 'F')": (lambda x: np.reshape(x, (3, 1), "F"), "takes no order=: .*transpose"),
    "x.flatten('F')": (lambda x: x.flatten("F"), r"x.flatten\(\) .* takes no order="),
    "x.sum(out=)": (lambda x: x.sum(out=np.zeros(())), "takes no out=: .*use the result"),
    "x.sum(unknown=)": (lambda x: x.sum(unknown=1), r"takes \(x, axis=None, \*, keepdims=False\): .*'unknown'"),
    "np.where(x)": (lambda x: np.where(x), r"write np.nonzero\(x\)"),
    "np.where(x, a, b)": (lambda x: np.sum(np.where(x, x, 0.0)), "write x != 0"),
    "round": (lambda x: round(x[0]), r"np.round\(x\)"),
    "int": (lambda x: int(x[0]), r"np.floor\(x\)"),
    "divmod": (lambda x: divmod(x, 2.0), "a // b and a % b"),
    "divmod, reversed": (lambda x: divmod(2.0, x), "a // b and a % b"),
    "item": (lambda x: x[0].item(), r"x.item\(\) would lose its derivative"),
    "key of a dict": (lambda x: {x: 1}, "not hashable"),
}


@pytest.mark.parametrize("name", SAID)
def test_the_message_says_what_to_write(name, device, monkeypatch):
    f, match = SAID[name]
    monkeypatch.setitem(globals(), "WAVE", device.array(WAVE))
    fails(TraceError, match, f, device.array(X))


def test_a_complex_cotangent_of_a_python_number_is_refused():
    fails(TraceError, COMPLEX, lambda x: np.abs(1 + 1j * x), 2.0)


def test_copies_keep_the_derivative(device):
    g = grad(lambda x: np.sum(copy.deepcopy(x) * copy.copy(x) * copy.deepcopy([x])[0]))(device.array(X))
    np.testing.assert_allclose(device.host(g), 3 * X**2)


def test_writing_a_traced_value_into_an_array_says_stack():
    def assign(x):
        out = np.zeros(3)
        out[0] = x[0]
        return np.sum(out)

    with pytest.raises(ValueError, match="setting an array element") as error:
        grad(assign)(X)
    assert "collect values in a list and np.stack them" in str(error.value.__cause__)


@pytest.mark.parametrize("use", [float, np.array, np.asarray, lambda v: v.item(), lambda v: np.array([v])])
def test_a_stored_value_says_which_one_to_store(use, device):
    with pytest.raises(TraceError, match="append the value that value_and_grad returns"):
        use(stored(device.array(X)))


def stored(x):
    kept = []
    grad(lambda x: kept.append(np.sum(x)) or np.sum(x))(x)
    return kept[0]


def test_formatting_shows_the_value(device):
    seen, x = [], device.array(X)
    grad(lambda x: seen.extend([f"{x[1]:.3f}", f"{x[1]}"]) or np.sum(x))(x)
    assert seen[0] == "1.500" and "Traced" in seen[1] and "1.5" in seen[1]
    assert f"{stored(x):.1f}" == "4.5"


ATTRIBUTES = {
    "exp": r"NumPy's methods: np.exp\(x\)",
    "median": r"np.sort",
    "imag": "real and imaginary part",
    "detach": "bng.autodiff.raw",
    "backward": r"bng.grad\(f\)\(x\)",
    "foo": "'Traced' object has no attribute 'foo'",
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_attribute_that_there_is_not_says_where_to_look(name):
    fails(AttributeError, ATTRIBUTES[name], lambda x: getattr(x, name))


def test_probes_for_protocols_find_none(device):
    names = ["__array_interface__", "__array_struct__", "__array_priority__", "__cuda_array_interface__", "__dlpack__"]
    seen = []
    grad(lambda x: seen.extend(hasattr(x, n) for n in [*names, "__leaves__", "anything"]) or np.sum(x))(device.array(X))
    assert not any(seen)


# The derivatives themselves, and rules

CALLED = {
    "grad(f, x)": (lambda: grad(np.sum, X), r"position of an argument, not an ndarray; write bng.grad\(f\)\(x\)"),
    "grad(f)(x=)": (lambda: grad(lambda x: x)(x=2.0), "called with 0: give arguments to be differentiated by position"),
    "tuple": (lambda: grad(lambda x: (x[0], x))(X), "returned tuple; with has_aux=True"),
    "bool": (lambda: grad(lambda x: x[0] > 0)(X), "returned bool; comparisons and argmax carry no derivative"),
    "argmax": (lambda: grad(np.argmax)(X), "returned int64; comparisons and argmax carry no derivative"),
    "jvp of arrays": (lambda: bng.jvp(np.sin, X, X), r"primals and tangents are lists: \[x\], \[v\]"),
    "integers": (lambda: grad(np.sum)(np.arange(3)), "is an int64 array"),
}


@pytest.mark.parametrize("name", CALLED)
def test_a_derivative_called_wrongly_says_how_to_call_it(name):
    call, match = CALLED[name]
    with pytest.raises(TypeError, match=match):
        call()


def test_a_primitive_without_its_rule_is_refused():
    @primitive
    def cube(x):
        return x**3

    for call in (lambda: cube(X), lambda: cube(X, 2), lambda: grad(lambda x: np.sum(cube(x)))(X)):
        with pytest.raises(TraceError, match=r"@bng.primitive\(rule, …\)"):
            call()


@pytest.mark.parametrize("x", [X, np.array(2.0), 2.0])
def test_a_rule_that_returns_none_is_refused(x, device):
    @primitive(lambda g, y, x: None)
    def forgetful(x):
        return x * 1.0

    x = x if type(x) is float else device.array(x)
    fails(TraceError, "a rule returned None", lambda x: np.sum(forgetful(x)), x)


@pytest.mark.parametrize("x", [X, X[:2]])
def test_a_fused_forward_without_a_residual_is_refused(x):
    @bng.fused(lambda x: x * 2, lambda g, y, residual, argnums, x: [g * 2])
    def doubled(x):
        return x * 2

    for call in (lambda: doubled(x), lambda: vjp(doubled, x)):
        with pytest.raises(TraceError, match=r"forward returns \(y, residual\), this one returned ndarray"):
            call()
