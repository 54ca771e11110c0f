"""What CuPy has, as it was read from the wheel: facts of CuPy 14.2 that the code relies on."""

import pytest

from minibng.backend.manifest import METHOD_KEYWORDS, load

CUPY = load()


def test_the_version_is_the_one_that_the_project_is_written_for():
    assert CUPY.version.startswith("14.2")


@pytest.mark.parametrize(
    "name", ["sum", "add", "matmul", "linalg.norm", "lib.stride_tricks.as_strided", "float32", "pi"]
)
def test_names_that_cupy_has(name):
    assert name in CUPY


@pytest.mark.parametrize(
    "name", ["vecdot", "unstack", "errstate", "linalg.vector_norm", "nditer", "geomspace", "spacing"]
)
def test_names_that_cupy_lacks(name):
    assert name not in CUPY


LACKING = [("sum", "where"), ("max", "initial"), ("clip", "min"), ("sort", "stable"), ("zeros", "device")]
LACKING += [("add", "where"), (".sum", "where"), (".max", "initial"), (".astype", "casting"), ("einsum", "out")]
HAVING = [("sum", "keepdims"), ("argsort", "kind"), ("einsum", "optimize"), ("matmul", "out"), ("add", "dtype")]
HAVING += [(".sum", "axis"), (".astype", "copy"), (".reshape", "order"), ("concatenate", "axis")]


@pytest.mark.parametrize("name, keyword", LACKING)
def test_keywords_that_cupy_lacks(name, keyword):
    assert CUPY.unknown_keywords(name, {keyword, *CUPY.functions.get(name, ())}) == [keyword]


@pytest.mark.parametrize("name, keyword", HAVING)
def test_keywords_that_cupy_has(name, keyword):
    assert CUPY.unknown_keywords(name, {keyword}) == []


def test_methods_of_elementwise_functions():
    having = {m: {u for u, methods in CUPY.ufuncs.items() if m in methods} for m in METHOD_KEYWORDS}
    assert having["reduce"] == having["accumulate"] == {"add", "multiply"}
    assert having["at"] == {"add", "subtract", "maximum", "minimum", "bitwise_and", "bitwise_or", "bitwise_xor"}
    assert having["outer"] == set(CUPY.ufuncs)
    assert "reduceat" not in METHOD_KEYWORDS


def test_a_name_stands_in_one_table():
    assert not set(CUPY.functions) & set(CUPY.ufuncs) and not set(CUPY.others) & {*CUPY.functions, *CUPY.ufuncs}
    assert not set(CUPY.methods) & set(CUPY.attributes)
