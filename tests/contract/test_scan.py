"""No call in the parts that run on device arrays needs what CuPy lacks; and the scan finds what is planted."""

import importlib.util
import sys
from pathlib import Path

import pytest


def module(name):
    """A program of this folder, by its path: tests are no package."""
    spec = importlib.util.spec_from_file_location(f"contract_{name}", Path(__file__).with_name(f"{name}.py"))
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


scan, generate = module("scan"), module("generate")


def test_the_package_calls_only_what_cupy_has():
    assert not scan.scan()


PLANTED = {
    "xp.sum(x, where=m)": "sum takes no where=",
    "np.sum(x, axis=0, where=m)": "sum takes no where=",
    "np.max(x, initial=0)": "max takes no initial=",
    "np.clip(x, min=0)": "clip takes no min=",
    "xp.vecdot(a, b)": "no vecdot",
    "np.unstack(x)": "no unstack",
    "xp.linalg.vector_norm(x)": "no linalg.vector_norm",
    "xp.sort(x, stable=True)": "sort takes no stable=",
    "np.maximum.reduce(x)": "no maximum.reduce",
    "xp.multiply.at(x, i, 2)": "no multiply.at",
    "xp.add.reduceat(x, i)": "no add.reduceat",
    "np.add.reduce(x, initial=0.0)": "add.reduce takes no initial=",
    "np.add(x, y, where=m)": "add takes no where=",
    "np.exp(x, order='F')": "exp takes no order=",
    "np.einsum('ij->i', x, out=y)": "einsum takes no out=",
    "np.reshape(x, shape=(2, 3))": "reshape takes no shape=",
    "np.zeros_like(x, device='cpu')": "zeros_like takes no device=",
    "np.sum(x, 0, None, None, True, 0)": "no more than 5 arguments",
    "backend.xp.zeros(3, device='cpu')": "zeros takes no device=",
    "self._backend.xp.unstack(x)": "no unstack",
    "backend_of(x).xp.geomspace(1, 2)": "no geomspace",
    "indices_for(x).vecdot(x, x)": "no vecdot",
    "x.sum(where=m)": "sum() takes no where=",
    "(x * y).max(axis=0, initial=0)": "max() takes no initial=",
    "x.astype('float32', casting='safe')": "astype() takes no casting=",
    "f(x).sort(stable=True)": "sort() takes no stable=",
    "spacing = elementwise(np.spacing, rule)": "no spacing",
}


@pytest.mark.parametrize("line", PLANTED)
def test_a_planted_violation_is_found_with_its_line(line):
    (found,) = scan.violations(f"import numpy as np\n\n\ndef f(x, y):\n    {line}\n", "planted.py")
    assert found.startswith("planted.py:5: ") and PLANTED[line] in found and found.endswith(line)


@pytest.mark.parametrize(
    "line",
    [
        *("np.exp(x, out=x)", "xp.sum(x, axis=0, keepdims=True)", "np.sort(x, kind='stable')", "xp.add.at(x, i, 1)"),
        *("np.add.reduce(x, axis=1)", "x.sum(axis=0)", "x.reshape(2, 3)", "np.einsum(s, *xs, optimize=True)"),
        *("np.linalg.norm(x, axis=0)", "xp.lib.stride_tricks.as_strided(x, shape, strides)", "xp.uint32(7)"),
        *("np.random.default_rng(0).normal(size=3)", "np.errstate(over='ignore')", "np.finfo(x.dtype)"),
        *("np.array(x, order='C', copy=True)", "rows.sort(key=len, reverse=True)", "np.sum(x, **kwargs)"),
        *("f(np.vecdot)", "composed(np.vecdot)(vecdot)", "np.sum(*args)"),
        "np.max(x, initial=0)  # host: sizes are Python's numbers",
    ],
)
def test_what_cupy_has_and_what_is_of_the_host_passes(line):
    assert not scan.violations(f"import numpy as np\n\n{line}\n", "fine.py")


def test_a_mark_without_a_reason_does_not_count():
    assert scan.violations("y = np.max(x, initial=0)  # host:", "a.py")


def test_a_module_s_function_is_no_method_of_an_array():
    assert not scan.violations("from minibng.autodiff import ops\nops.sum(x, where=m)\n", "a.py")


def test_every_file_that_meets_device_arrays_is_read():
    read = {str(path.relative_to(scan.PACKAGE)) for path in scan.files()}
    assert {"params.py", "backend/guard.py", "autodiff/ops/linalg.py", "nn/losses.py", "optim/optimizer.py"} <= read
    assert not read & set(scan.HOST_FILES)
    assert all((scan.PACKAGE / name).exists() for name in scan.HOST_FILES)
    assert all(list(scan.PACKAGE.glob(pattern)) for pattern in scan.SCANNED)


# The list of CuPy's names ----------------------------------------------------------------------------------------


def test_the_committed_list_is_as_the_generator_writes_it():
    text = generate.FILE.read_text(encoding="utf-8")
    assert generate.text_of(generate.json.loads(text)) == text


def test_differences_are_told_one_by_one():
    committed = {"version": "1", "functions": {"a": ["x"], "b": []}, "others": ["pi"]}
    installed = {"version": "2", "functions": {"a": ["x", "y"], "c": []}, "others": ["e"]}
    told = generate.differences(committed, installed)
    assert len(told) == 6
    assert "functions: a: committed ['x'], installed ['x', 'y']" in told
    assert not generate.differences(committed, committed)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("ndarray.sum(self, axis=None, dtype=None) -> ndarray\n\nmore", ["axis", "dtype"]),
        ("ndarray.sort(self, int axis=-1, kind=None)", ["axis", "kind"]),
        ("from_dlpack(array, *, device=None, copy=None)", ["array", "device", "copy"]),
        ("ndarray.reshape(self, *shape, order='C')", ["*shape", "order"]),
        ("ndarray.item(self)", []),
        ("no signature here", None),
    ],
)
def test_parameters_are_read_from_the_docstrings_of_compiled_functions(text, expected):
    assert generate.from_docstring(text) == expected
