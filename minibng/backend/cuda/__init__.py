"""What a GPU is told: CUDA C from formulas, the kernels in the files beside this one, and their tables of tiles.

Nothing here needs CuPy or a GPU. The sources are compiled with every operation rounded by itself (`OPTIONS`), so that a
formula gives the bits that NumPy gives, except in exp, log and tanh, which every library rounds in its own way, and in
the sign of maximum(0, −0) and minimum(0, −0).
"""

from __future__ import annotations

import ast
import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minibng.backend.base import Group, HostArray
from minibng.backend.kernel import COMPARE, Expression, Formula

BLOCK = 256
"""Threads of a thread block; as in the sources."""

DEPTH = 4
"""Entries of each array that a thread of a step reads before it writes: what it waits for, it waits for at once."""

STEP_TILE = 2 * DEPTH * BLOCK
"""Most entries of a tensor that a thread block steps."""

NORM_TILE = 4096
"""About as many entries go into one partial sum of a block's norm."""

OPTIONS = ("--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true")
"""As IEEE 754 has it: each operation rounded by itself, subnormal numbers kept."""

_TYPES = {"float16": "Half", "float32": "float", "float64": "double", "uint32": "unsigned int"}
_INFIX = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "bitwise_xor": "^", "right_shift": ">>"}
_TESTS = dict(zip(COMPARE.values(), ("<", "<=", ">", ">=", "==", "!="), strict=True))
_CALLS = {"sqrt": "sqrt", "abs": "fabs", "exp": "exp", "log": "log", "tanh": "tanh"}
_CALLS |= {name: f"np_{name}" for name in ("sign", "maximum", "minimum")}
_RESERVED = """
    T alignas alignof and asm auto bool break case catch char class const constexpr continue decltype default delete do
    double else enum explicit export extern false float for friend goto if inline int long mutable namespace new
    noexcept not nullptr operator or private protected public register return short signed sizeof static struct switch
    template this throw true try typedef typeid typename union unsigned using virtual void volatile while xor BLOCK NONE
"""
_KEYWORDS = frozenset(_RESERVED.split())

# Formulas --------------------------------------------------------------------------------------------------


def inputs(formula: Formula) -> tuple[str, ...]:
    """Return the arrays whose old entries a formula reads."""
    read, assigned = set[str](), set[str]()
    for target, expression, _ in formula.statements:
        read |= set(_names(expression)) - assigned
        assigned.add(target)
    return tuple(a for a in formula.arrays if a in read)


def _names(expression: Expression) -> Iterator[str]:
    if isinstance(expression, str):
        yield expression
    else:
        for operand in expression[1:]:
            yield from _names(operand)


def _name(name: str) -> str:
    """Return a name as C++ takes it."""
    plain = "".join(c if c.isascii() else f"u{ord(c):04x}" for c in name)
    return f"{plain}_" if plain in _KEYWORDS else plain


def _function(formula: Formula) -> str:
    return f"formula_{_name(formula.name)}"


def _c(expression: Expression, test: bool = False) -> str:
    """Return an expression in C++; a comparison is 1 or 0 of type T, except as the condition of ``where``."""
    if isinstance(expression, str):
        return _name(expression)
    operation, *operands = expression
    a, *others = [_c(o, operation == "where" and k == 0) for k, o in enumerate(operands)]
    match operation:
        case "where":
            return f"({a} ? {others[0]} : {others[1]})"
        case "negative":
            return f"(-{a})"
        case "square":
            return f"np_square({a})"
        case _ if operation in _INFIX:
            return f"({a} {_INFIX[operation]} {others[0]})"
        case _ if operation in _TESTS:
            compared = f"({a} {_TESTS[operation]} {others[0]})"
            return compared if test else f"T{compared}"
    return f"{_CALLS[operation]}({', '.join([a, *others])})"


@functools.cache
def c_function(formula: Formula) -> str:
    """Return a formula as a device function of one entry of each array, then the constants.

    Examples
    --------
    >>> from minibng.backend.kernel import parse
    >>> def descend(x, u, *, lr):
    ...     x = x - lr * u
    ...     return x
    >>> print(c_function(parse(descend)))
    __device__ inline void formula_descend(T& x, T u, const T lr)
    {
        // x = x - lr * u
        x = x - (lr * u);
    }
    """
    parameters = [f"T{'&' * (a in formula.written)} {_name(a)}" for a in formula.arrays]
    parameters += [f"const T {_name(c)}" for c in formula.constants]
    lines, known = list[str](), set(formula.arrays)
    for target, expression, text in formula.statements:
        value = _c(expression)
        bare = not isinstance(expression, str) and value[0] == "("  # around all of it, as around every operation
        lines += [f"// {text}", f"{'' if target in known else 'T '}{_name(target)} = {value[1:-1] if bare else value};"]
        known.add(target)
    told = [f"// {_name(name)} = {text}" for name, text in formula.constants.items() if name != text]
    head = f"__device__ inline void {_function(formula)}({', '.join(parameters)})"
    return "\n".join([head, "{", *(f"    {line}" for line in told + lines), "}"])


# Sources ---------------------------------------------------------------------------------------------------


@functools.cache
def _file(name: str) -> str:
    return (Path(__file__).parent / f"{name}.cu").read_text(encoding="utf-8")


def _source(dtype: Any, *parts: str) -> str:
    return "\n".join([f"#define TYPE {_TYPES[np.dtype(dtype).name]}", _file("common"), *parts])


def norms_source(dtype: Any) -> str:
    """Return the kernels ``partial_norms`` and ``block_norms``."""
    return _source(dtype, f"#define SCALED {int(np.dtype(dtype) == np.float64)}", _file("norms"))


def rows_source(dtype: Any) -> str:
    """Return the kernel ``add_rows``."""
    return _source(dtype, _file("rows"))


def map_source(formula: Formula, dtype: Any) -> str:
    """Return the kernel ``map``: of n entries; the arrays that are read, those that are written, the constants."""
    read = inputs(formula)
    at = {a: k for k, a in enumerate(formula.arrays)}
    parameters = [f"const T* __restrict__ a{at[a]}" for a in read]
    parameters += [f"T* __restrict__ a{at[a]}" for a in formula.written]
    parameters += [f"const T c{k}" for k in range(len(formula.constants))]
    local = [f"T v{k}{f' = a{k}[i]' if a in read else ''};  // {a}" for a, k in at.items()]
    called = [f"v{k}" for k in at.values()] + [f"c{k}" for k in range(len(formula.constants))]
    body = [*local, f"{_function(formula)}({', '.join(called)});"]
    body += [f"a{at[a]}[i] = v{at[a]};" for a in formula.written]
    return _source(
        dtype,
        c_function(formula),
        f"""
extern "C" __global__ void map(const long long n, {", ".join(parameters)})
{{
    const long long stride = gridDim.x * (long long)BLOCK;
    for (long long i = blockIdx.x * (long long)BLOCK + threadIdx.x; i < n; i += stride) {{
        {(chr(10) + " " * 8).join(body)}
    }}
}}
""",
    )


def step_source(formula: Formula, dtype: Any, own: Sequence[int], scaled: bool) -> str:
    """Return the kernel ``step``: tiles, cuts, offsets, number of tensors, then what the parts below name.

    Parameters
    ----------
    formula, dtype
        What is stepped.
    own
        Which of the constants each tensor has its own of; the kernel takes a table of those behind the others.
    scaled
        Whether the gradient g is brought to another length first.
    """
    read = inputs(formula)
    at = {a: k for k, a in enumerate(formula.arrays)}
    shared = [k for k in range(len(formula.constants)) if k not in own]
    lengths = ["const double* roots", "const int* exponents", "const double* lengths"] if scaled else []
    parameters = ["const Tile* tiles", "const Cut* cuts", "const long long* offsets", "const int tensors"]
    parameters += ["const long long* bad", "long long* record", "const long long step", *lengths]
    parameters += [f"T* first{k}" for k in at.values()] + [f"const T c{k}" for k in shared]
    parameters += ["const T* owned"] if own else []
    arrays = [f"T* const a{k} = at(first{k}, offsets[{k} * tensors + t]);  // {a}" for a, k in at.items()]
    arrays += [f"const T c{k} = owned[{n} * tensors + t];" for n, k in enumerate(own)]
    if scaled:
        arrays += ["const Lengths given = {roots, exponents, lengths};", "const Cut cut = cuts[t];"]
        arrays += ["const Scale whole = cut.n == 1 ? scale_of(cut.first, cut, given) : Scale();"]
    loads = [f"v{k}[d] = a{k}[i];" for a, k in at.items() if a in read]
    g = f"v{at['g']}[d]" if scaled else ""
    steps = [f"{g} = scaled({g}, cut.n == 1 ? whole : scale_of(block_of(i, cut), cut, given));"] if scaled else []
    called = [f"v{k}[d]" for k in at.values()] + [f"c{k}" for k in range(len(formula.constants))]
    steps += [f"{_function(formula)}({', '.join(called)});"]
    steps += [f"a{at[a]}[i] = v{at[a]}[d];" for a in formula.written]
    return _source(
        dtype,
        _file("step"),
        c_function(formula),
        f"""
extern "C" __global__ void step({", ".join(parameters)})
{{
    if (suppressed(bad, record, step))
        return;
    const Tile tile = tiles[blockIdx.x];
    const long long t = tile.tensor;
    {_lines(arrays, 4)}
    for (long long i0 = tile.start + threadIdx.x; i0 < tile.stop; i0 += {DEPTH} * BLOCK) {{
        T {", ".join(f"v{k}[{DEPTH}]" for k in at.values())};
#pragma unroll
        for (int d = 0; d < {DEPTH}; ++d) {{
            const long long i = i0 + d * BLOCK;
            if (i < tile.stop) {{
                {_lines(loads, 16)}
            }}
        }}
#pragma unroll
        for (int d = 0; d < {DEPTH}; ++d) {{
            const long long i = i0 + d * BLOCK;
            if (i < tile.stop) {{
                {_lines(steps, 16)}
            }}
        }}
    }}
}}
""",
    )


def _lines(lines: Sequence[str], indent: int) -> str:
    return ("\n" + " " * indent).join(lines)


def own_constants(formula: Formula, own: Sequence[str]) -> tuple[int, ...]:
    """Return which constants depend on one of these scalars."""
    trees = [ast.walk(ast.parse(text)) for text in formula.constants.values()]
    names = [{node.id for node in tree if isinstance(node, ast.Name)} for tree in trees]
    return tuple(k for k, found in enumerate(names) if found & set(own))


# Tables of tiles -------------------------------------------------------------------------------------------


def step_tables(groups: Sequence[Group]) -> tuple[HostArray, HostArray]:
    """Return the tiles and the cuts of ``step``: int64 rows, in the order of the structs' fields."""
    tiles, cuts, first = list[HostArray](), dict[int, tuple[int, ...]](), 0
    for group in groups:
        for tensor, (before, n, after) in zip(group.tensors, group.cuts, strict=True):
            size = before * n * after
            starts = np.arange(0, size, STEP_TILE)
            tiles.append(np.stack([np.full_like(starts, tensor), starts, np.minimum(starts + STEP_TILE, size)], axis=1))
            cuts[tensor] = first, n, after, group.size
        first += group.count
    return np.concatenate(tiles), np.array([cuts[tensor] for tensor in sorted(cuts)], np.int64)


class NormTables(NamedTuple):
    """The tiles of ``partial_norms``, the blocks of ``block_norms``, and the number of partial results."""

    tiles: HostArray
    blocks: HostArray
    partials: int


def norm_tables(groups: Sequence[Group], norm: float) -> NormTables:
    """Return the tables of the two kernels of a norm: int64 rows, in the order of the structs' fields.

    Partial results of a group stand chunk by chunk, each with one for every block of the group.
    """
    tiles, blocks = list[tuple[int, ...]](), list[tuple[int, ...]]()
    slot = first = 0
    for group in groups:
        n = group.count
        code = 0 if norm == math.inf else 1 if group.size == 1 else int(norm)  # one entry is its own norm, exactly
        chunks = 0
        for tensor, cut in zip(group.tensors, group.cuts, strict=True):
            for rows, columns, entries, lanes in _norm_tiles(cut):
                for j in range(0, n, columns):
                    box = (*rows, j, min(j + columns, n), *entries)
                    tiles.append((tensor, *box, n, cut[2], *lanes, code, slot + chunks * n))
                chunks += 1
        lanes_each = BLOCK // _power_of_two(min(n, 32 if chunks > 32 else BLOCK))
        columns = max(BLOCK // lanes_each, NORM_TILE // max(chunks, 1))
        for j in range(0, n, columns):
            blocks.append((j, min(j + columns, n), n, first, slot, chunks, lanes_each, code, group.size))
        slot, first = slot + chunks * n, first + n
    none = [(0,) * 9 + (1, 1, 0, 0)]  # a first launch is needed in any case: it begins
    return NormTables(np.array(tiles or none, np.int64), np.array(blocks, np.int64), slot)


def _norm_tiles(cut: tuple[int, int, int]) -> Iterator[tuple[tuple[int, int], int, tuple[int, int], tuple[int, int]]]:
    """Yield (rows, blocks at a time, entries, (rows at a time, lanes)) for every chunk of a tensor's cut.

    Long runs of a block's entries are shared by the lanes of a team. Where neighbours in memory belong to different
    blocks, they go to different teams, and lanes share rows.
    """
    before, n, after = cut
    if not before * n * after:
        return
    span = min(after, NORM_TILE)
    if after >= 32:
        rows_at_once, lanes = 1, min(BLOCK, _power_of_two(after + 1) // 2)
    else:
        rows_at_once = lanes = BLOCK // _power_of_two(min(n, BLOCK))
    columns = max(BLOCK // lanes, NORM_TILE // (span * before))
    rows = max(1, NORM_TILE // (min(columns, n) * span))
    for a in range(0, before, rows):
        for c in range(0, after, span):
            yield (a, min(a + rows, before)), columns, (c, min(c + span, after)), (rows_at_once, lanes)


def _power_of_two(least: int) -> int:
    """Return the least power of two that is not below a number.

    >>> [_power_of_two(n) for n in (1, 2, 3, 256)]
    [1, 2, 4, 256]
    """
    return 1 << (max(least, 1) - 1).bit_length()
