"""One formula, two renderings: a step rule is a plain function; from its source come in-place kernels.

``parse`` reads formula functions into a ``Formula``, which knows no array library; ``numpy_kernel`` renders
it as ufunc calls without temporaries. Both give the bits of the plain function: what holds only scalars is
computed on the host in double precision, as Python does it, and then rounded to the dtype of the arrays.
CUDA's rendering stands in ``cuda``.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple, NoReturn, TypeAlias

import numpy as np

OPERATORS: dict[type[ast.operator], tuple[str, str]] = {
    **{ast.Add: ("add", "+"), ast.Sub: ("subtract", "-")},
    **{ast.Mult: ("multiply", "*"), ast.Div: ("divide", "/")},
    **{ast.BitXor: ("bitwise_xor", "^"), ast.RShift: ("right_shift", ">>")},  # of unsigned integers
}
COMPARE: dict[type[ast.cmpop], str] = {
    **{ast.Lt: "less", ast.LtE: "less_equal", ast.Gt: "greater", ast.GtE: "greater_equal"},
    **{ast.Eq: "equal", ast.NotEq: "not_equal"},
}
FUNCTIONS = {"sqrt": 1, "abs": 1, "exp": 1, "log": 1, "tanh": 1, "sign": 1, "maximum": 2, "minimum": 2}
_HELPERS = ["negative", "square", "where", "copyto"]  # with the functions: no names for anything else
_HELPERS += [*COMPARE.values(), *(name for name, _ in OPERATORS.values())]
_COMPARISONS = frozenset(COMPARE.values())
_NUMPY = {name: getattr(np, name) for name in [*FUNCTIONS, *_HELPERS]}

Expression: TypeAlias = str | tuple[Any, ...]
"""A name, or (operation by its NumPy name, operand, …): ``("add", ("multiply", "beta", "m"), "g")``."""


class FormulaError(ValueError):
    """What cannot be rendered; the message names the function, the line and the construct."""


class Statement(NamedTuple):
    """One assignment; ``text`` is how its author wrote it."""

    target: str
    expression: Expression
    text: str


@dataclass(frozen=True, eq=False)
class Formula:
    """Assignments over arrays of one shape and dtype: all that a renderer needs to know.

    ``arrays`` are the array arguments in order, ``written`` those that are assigned, ``scalars`` what the
    caller gives. ``constants`` maps each scalar that a statement reads to its expression in ``scalars``.
    """

    name: str
    arrays: tuple[str, ...]
    written: tuple[str, ...]
    scalars: tuple[str, ...]
    constants: dict[str, str]
    statements: tuple[Statement, ...]

    @cached_property
    def _host(self) -> Callable[..., tuple[float, ...]]:
        scalars = ", ".join(["*", *self.scalars]) if self.scalars else ""
        values = "".join(f"{expression}, " for expression in self.constants.values())
        space: dict[str, Any] = {}
        exec(f"def {self.name}({scalars}): return ({values})", space)
        function: Callable[..., tuple[float, ...]] = space[self.name]
        return function

    def evaluate(self, **scalars: float) -> tuple[float, ...]:
        """Return the values of ``constants`` in double precision.

        Raises
        ------
        ArithmeticError
            As the plain function (ZeroDivisionError, OverflowError), with the expressions and scalars named.
        TypeError
            Where a scalar is missing or unknown.
        """
        given = {name: float(value) for name, value in scalars.items()}
        try:
            return self._host(**given)
        except ArithmeticError as error:
            computed = ", ".join(text for text in self.constants.values() if not text.isidentifier())
            raise type(error)(f"{self.name}: {error} in one of ({computed}) at {given}") from None


class _Scalar(str):
    """The Python text of an expression that holds only scalars."""


class _Reader:
    """Reads one formula function; names that it does not return get its own name in front."""

    def __init__(self, function: Callable[..., Any], constants: dict[str, str]) -> None:
        self.name = getattr(function, "__name__", repr(function))
        self.constants = constants  # text: name
        try:
            lines, self.first = inspect.getsourcelines(function)
            self.source = textwrap.dedent("".join(lines))
            tree = ast.parse(self.source).body[0]
        except (OSError, TypeError, SyntaxError) as error:
            raise FormulaError(f"{self.name}: no source found; write it as a `def` in a file") from error
        if not isinstance(tree, ast.FunctionDef):
            self.fail(tree, "a formula is a plain `def`")
        a = tree.args
        decorated = any(ast.unparse(d) != "Chain" for d in tree.decorator_list)
        if decorated or a.vararg or a.kwarg or a.defaults or any(a.kw_defaults):
            self.fail(tree, "a formula has no decorators, defaults, * or ** parameters")
        self.arrays = [self.new(p, p.arg) for p in a.posonlyargs + a.args]
        self.scalars = [self.new(p, p.arg) for p in a.kwonlyargs]
        self.env: dict[str, Expression] = {n: n for n in self.arrays}
        self.env |= {n: _Scalar(n) for n in self.scalars}
        body = tree.body[ast.get_docstring(tree) is not None :]
        self.body, self.end = body[:-1], (body or [tree])[-1]
        value = self.end.value if isinstance(self.end, ast.Return) else None
        names = value.elts if isinstance(value, ast.Tuple) else [value]
        self.returned = [n.id for n in names if isinstance(n, ast.Name)]
        if not names or len(self.returned) < len(names):
            self.fail(self.end, "a formula ends with `return a` or `return a, b`, plain names")

    def fail(self, node: ast.AST, why: str) -> NoReturn:
        line = self.first + getattr(node, "lineno", 1) - 1
        text = (ast.get_source_segment(self.source, node) or "").partition("\n")[0]
        raise FormulaError(f"{self.name}, line {line}: `{text}`: {why}")

    def new(self, node: ast.AST, name: str) -> str:
        if name in _NUMPY or name.startswith("_") or "__" in name:
            self.fail(node, "a new name is no function, begins with no _ and holds no __")
        return name

    def statements(self) -> Iterator[Statement]:
        for node in self.body:
            match node:
                case ast.Assign([ast.Name(name)], right) if not isinstance(right, ast.Compare):
                    value = self.read(right)
                case _:
                    self.fail(node, "only `name = expression` stands between docstring and return")
            shared = self.new(node, name)
            if name not in self.returned:
                shared = f"{self.name}__{name}"
            self.env[name] = value if isinstance(value, _Scalar) else shared
            if not isinstance(value, _Scalar):
                yield Statement(shared, value, ast.unparse(node))
        for name in self.returned:
            if isinstance(self.env.get(name, _Scalar()), _Scalar):
                self.fail(self.end, f"{name} is not an array of this formula")

    def read(self, node: ast.AST) -> Expression:
        match node:
            case ast.Name(name) if name in self.env:
                return self.env[name]
            case ast.Constant(value) if type(value) in (int, float):
                return _Scalar(ast.unparse(node))
            case ast.UnaryOp(ast.USub(), a):
                return self.apply(node, "negative", [a], "(-{})")
            case ast.BinOp(a, ast.Pow(), ast.Constant(2)):
                return self.apply(node, "square", [a], "({} ** 2)")
            case ast.BinOp(a, op, b) if type(op) in OPERATORS:
                name, sign = OPERATORS[type(op)]
                return self.apply(node, name, [a, b], f"({{}} {sign} {{}})")
            case ast.Call(ast.Name("where"), [ast.Compare(a, [op], [b]), x, y], []) if type(op) in COMPARE:
                test = self.apply(node, COMPARE[type(op)], [a, b])
                return ("where", test, *self.apply(node, "where", [x, y])[1:])
            case ast.Compare(a, [op], [b]) if type(op) in COMPARE:
                return self.apply(node, COMPARE[type(op)], [a, b])
            case ast.Call(ast.Name(name), args, []) if FUNCTIONS.get(name) == len(args):
                return self.apply(node, name, args)
        known = f"+ - * /, **2, {', '.join(FUNCTIONS)}, where(a < b, x, y), a < b as 1 or 0, ^ and >>"
        known += "; functions by plain names: from numpy import sqrt"
        self.fail(node, f"a formula holds numbers, names defined in it, {known}")

    def apply(self, node: ast.AST, operation: str, args: Sequence[ast.AST], text: str = "") -> Expression:
        if sum(isinstance(a, ast.Compare) for a in args) > (operation == "multiply"):
            self.fail(node, "a comparison is the condition of where, or one factor of a product: it is 1 or 0 there")
        operands = [self.read(a) for a in args]
        if any(isinstance(a, ast.Compare) for a in args) and any(isinstance(a, _Scalar) for a in operands):
            self.fail(node, "a comparison is a factor of an array; write where(a < b, x, y) for a number")
        if all(isinstance(a, _Scalar) for a in operands):
            return _Scalar(text.format(*operands)) if text else self.fail(node, f"{operation} of scalars only")
        return (operation, *(self.constant(a) if isinstance(a, _Scalar) else a for a in operands))

    def constant(self, scalar: str) -> str:
        text = ast.unparse(ast.parse(scalar))
        return self.constants.setdefault(text, text if text.isidentifier() else f"_c{len(self.constants)}")


def _names(expression: Expression) -> set[str]:
    if isinstance(expression, str):
        return {expression}
    return set().union(*(_names(operand) for operand in expression[1:]))


def _live(statements: Sequence[Statement], written: Sequence[str]) -> tuple[Statement, ...]:
    live, kept = set(written), list[Statement]()
    for statement in reversed(statements):
        if statement.target in live:
            live = live - {statement.target} | _names(statement.expression)
            kept.append(statement)
    return tuple(reversed(kept))


def parse(*functions: Callable[..., Any], readonly: Sequence[str] = (), outputs: Sequence[str] = ()) -> Formula:
    """Return the composition of formula functions, joined by the names of their arrays.

    Positional parameters are arrays, keyword-only ones scalars. What a function returns, the ones after it
    see; its other names are its own. A returned array that was an input is written in place; an assignment
    that nothing reads is left out.

    Parameters
    ----------
    *functions
        The functions, first to last.
    readonly
        Inputs that are never written: where assigned to, they become temporaries.
    outputs
        Returned names, not inputs, that become further arguments, written and not read.

    Raises
    ------
    FormulaError
        For anything that a formula may not hold.

    Examples
    --------
    >>> def momentum(g, m, *, beta):
    ...     m = beta * m + g
    ...     return m
    >>> def descend(x, m, *, lr):
    ...     x = x - lr * m
    ...     return x
    >>> formula = parse(momentum, descend)
    >>> formula.name, formula.arrays, formula.written, formula.scalars
    ('momentum_descend', ('g', 'm', 'x'), ('m', 'x'), ('beta', 'lr'))
    """
    hoisted: dict[str, str] = {}
    readers = [_Reader(function, hoisted) for function in functions]
    name = "_".join(reader.name for reader in readers)
    statements = [statement for reader in readers for statement in reader.statements()]
    is_input: dict[str, bool] = {}
    for reader in readers:
        is_input = dict.fromkeys(reader.returned, False) | dict.fromkeys(reader.arrays, True) | is_input
    scalars = tuple(dict.fromkeys(scalar for reader in readers for scalar in reader.scalars))
    inputs = dict.fromkeys(a for reader in readers for a in reader.arrays if is_input[a])
    arrays = (*inputs, *outputs)
    written = tuple(a for a in arrays if a not in readonly and any(a == s.target for s in statements))
    for wrong, why in [
        (set(scalars) & set(is_input), "cannot be both array and scalar"),
        (set(readonly) - set(inputs), "read-only, but not among the inputs"),
        (set(outputs) - {a for a in is_input if not is_input[a]}, "asked for, but an input or not returned"),
        (set() if written else {"nothing"}, "is written; ask for outputs"),
    ]:
        if wrong:
            raise FormulaError(f"{name}: {', '.join(sorted(wrong))} {why}")
    kept = _live(statements, written)
    read = set().union(*(_names(s.expression) for s in kept))
    constants = {c: text for text, c in hoisted.items() if c in read}
    return Formula(name, arrays, written, scalars, constants, kept)


def parse_map(function: Callable[..., Any]) -> Formula:
    """Return a formula function whose results are new arrays: none of them is an input.

    Examples
    --------
    >>> def slope(g, y):
    ...     d = g * (1 - y * y)
    ...     return d
    >>> parse_map(slope).arrays, parse_map(slope).written
    (('g', 'y', 'd'), ('d',))
    """
    return parse(function, outputs=_Reader(function, {}).returned)


@dataclass(frozen=True)
class Kernel:
    """A formula as NumPy calls; ``source`` is the code that runs, ``temporaries`` counts its scratch rows."""

    formula: Formula
    source: str
    temporaries: int
    factory: Callable[..., Callable[..., None]]

    def scratch(self, n: int, dtype: Any) -> list[np.ndarray[Any, Any]]:
        """Return the rows for pieces of at most ``n`` entries; each thread needs its own."""
        return [np.empty(n, dtype) for _ in range(self.temporaries)]

    def bind(self, dtype: Any, /, **scalars: float) -> Callable[..., None]:
        """Return ``f(scratch, *arrays)`` for one piece: distinct 1-D arrays of equal length and this dtype.

        Raises
        ------
        ArithmeticError, TypeError
            As ``Formula.evaluate``.
        """
        return self.factory(*[np.array(value, dtype) for value in self.formula.evaluate(**scalars)])


_Value: TypeAlias = str | int  # the name of an input, or the number of the operation that makes it


def _operations(formula: Formula) -> tuple[list[tuple[str, list[_Value], Statement]], dict[str, _Value]]:
    """Return the NumPy calls (template, operands, statement) in order, and the value each name ends with."""
    values: dict[str, _Value] = {name: name for name in (*formula.arrays, *formula.constants)}
    calls: list[tuple[str, list[_Value], Statement]] = []

    def add(expression: Expression, statement: Statement) -> _Value:
        if isinstance(expression, str):
            return values[expression]
        operation, *operands = expression
        holes = ["{}"] * len(operands)
        for k, operand in enumerate(expression[1:]):
            if operand[0] in _COMPARISONS:  # made on the way: as bytes, where an array for it would be of numbers
                holes[k] = f"{operand[0]}({{}}, {{}})"
        operands = [a for o in operands for a in (o[1:] if o[0] in _COMPARISONS else (o,))]
        call = f"{operation}({', '.join(holes)}, out={{out}})"
        if operation == "where":  # it has no out
            call = f"copyto({{out}}, where({', '.join(holes)}))"
        elif operation == "copyto":
            call = "copyto({out}, {})"
        calls.append((call, [add(operand, statement) for operand in operands], statement))
        return len(calls) - 1

    for statement in formula.statements:
        target, expression, _ = statement
        copied = isinstance(expression, str) and target in formula.written  # else a second name is free
        values[target] = add(("copyto", expression) if copied else expression, statement)
    return calls, values


@cache
def numpy_kernel(formula: Formula) -> Kernel:
    """Return ``formula`` as ufunc calls that write into the arrays themselves or into reused scratch rows.

    A call writes into its target's own array once nothing reads the old value there any more, else into a row
    whose value is used up (its operands' first), else into a new row.

    Examples
    --------
    >>> def descend(x, g, *, lr):
    ...     x = x - lr * g
    ...     return x
    >>> kernel = numpy_kernel(parse(descend))
    >>> x, g = np.ones(3), np.arange(3.0)
    >>> kernel.bind(x.dtype, lr=0.5)(kernel.scratch(3, x.dtype), x, g)
    >>> x
    array([1. , 0.5, 0. ])
    >>> print(kernel.source)
    def bind(lr):
        def descend(_scratch, x, g):
            _n = x.size
            _0 = _scratch[0][:_n]
            # x = x - lr * g
            multiply(lr, g, out=_0)
            subtract(x, _0, out=x)
        return descend
    """
    calls, values = _operations(formula)
    final = {name: values[name] for name in formula.written}
    last = {operand: k for k, (_, operands, _) in enumerate(calls) for operand in operands}
    last |= dict.fromkeys(final.values(), len(calls))
    place: dict[_Value, str] = {name: name for name in (*formula.arrays, *formula.constants)}
    holds: dict[str, _Value] = {name: name for name in formula.arrays}
    rows, body = list[str](), list[str]()
    for k, (call, operands, statement) in enumerate(calls):
        own = [statement.target] if statement.target in final else []
        places = own + [place[o] for o in operands if place[o] in rows] + rows
        out = next((p for p in places if last.get(holds[p], -1) <= k), f"_{len(rows)}")
        rows += [] if out in holds else [out]
        holds[out], place[k] = k, out
        if k == 0 or calls[k - 1][2] is not statement:
            body.append(f"# {statement.text}")
        body.append(call.format(*[place[o] for o in operands], out=out))
    body += [f"copyto({name}, {place[value]})" for name, value in final.items() if place[value] != name]
    head = [f"_n = {formula.arrays[0]}.size", *(f"{row} = _scratch[{row[1:]}][:_n]" for row in rows)]
    lines = [f"def bind({', '.join(formula.constants)}):"]
    lines += [f"    # {name} = {text}" for name, text in formula.constants.items() if name != text]
    lines += [f"    def {formula.name}({', '.join(['_scratch', *formula.arrays])}):"]
    lines += [f"        {line}" for line in (head if rows else []) + body] + [f"    return {formula.name}"]
    source, space = "\n".join(lines), dict(_NUMPY)
    exec(compile(source, f"<numpy kernel {formula.name}>", "exec"), space)
    return Kernel(formula, source, len(rows), space["bind"])
