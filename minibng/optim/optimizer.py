"""The optimizer: a normalizer, then a rule, then a rate, x ← x − lr(t)·rule(N(g)). Never the other way round."""

from __future__ import annotations

import copy
import functools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from minibng.backend import Array, BlockNorms, backend_of, is_array
from minibng.backend.kernel import Formula, parse
from minibng.names import choose
from minibng.optim.normalize import Adaptive, Clip, NonFiniteError, Normalizer, Unit, root_sizes
from minibng.optim.rules import FormulaRule, StepRule
from minibng.optim.schedules import Schedule, check_rate, constant, number
from minibng.params import Layout, Params

NORMALIZERS: dict[str, type] = {"clip": Clip, "unit": Unit, "adaptive": Adaptive}


def descend(x, u, *, lr):  # type: ignore[no-untyped-def]
    """Step: x ← x − lr·u."""
    x = x - lr * u
    return x


@functools.cache
def _step_formula(rule: Callable[..., Any]) -> Formula:
    """Return a rule's formula followed by the step, parsed once."""
    return parse(rule, descend, readonly=("g",))


class _Target(NamedTuple):
    """What is stepped: tensors by name, and the blocks that they form."""

    names: tuple[str, ...]
    tensors: tuple[Array, ...]
    block_names: tuple[str, ...]
    blocks: tuple[tuple[int, ...], ...]
    layout: Layout | None


def _target(params: Any, blocks: Any) -> _Target:
    """Read what the user passed as parameters: a `Params`, or a list of arrays."""
    if isinstance(params, Params):
        if not is_array(params.flat):
            raise TypeError("these parameters are being differentiated; make the optimizer outside the loss")
        if not (blocks is None or isinstance(blocks, str)):
            raise TypeError(f"blocks of a Params are 'layer', 'tensor' or 'global', got {blocks!r}")
        layout = params.layout if blocks is None else params.layout.with_blocks(blocks)
        tensors = tuple(params.__leaves__())
        members = tuple(b.tensors for b in layout.blocks)
        target = _Target(layout.names, tensors, tuple(b.name for b in layout.blocks), members, layout)
    elif isinstance(params, (list, tuple)):
        names = tuple(f"array {i}" for i in range(len(params)))
        members = _array_blocks(blocks, len(params))
        block_names = tuple(" + ".join(names[i] for i in block) for block in members)
        target = _Target(names, tuple(params), block_names, members, None)
    else:
        raise TypeError(
            f"an optimizer steps a Params or a list of arrays, got {type(params).__name__}; write [x] for one array"
        )
    _check_tensors(target)
    return target


def _array_blocks(blocks: Any, n: int) -> tuple[tuple[int, ...], ...]:
    """Return the partition of n plain arrays: one block each, or lists of indices that name each array once."""
    if blocks is None or blocks == "tensor":
        return tuple((i,) for i in range(n))
    if blocks == "global":
        return (tuple(range(n)),)
    if isinstance(blocks, str):
        raise ValueError(f"blocks of plain arrays are 'tensor', 'global' or lists of indices, got {blocks!r}")
    try:
        members = tuple(tuple(operator.index(i) for i in block) for block in blocks)
    except TypeError:
        raise TypeError(f"blocks of plain arrays are lists of indices, such as [[0, 1], [2]], got {blocks!r}") from None
    if sorted(i for block in members for i in block) != list(range(n)) or not all(members):
        raise ValueError(f"blocks must name each of the {n} arrays exactly once, got {[list(b) for b in members]}")
    return members


def _check_tensors(target: _Target) -> None:
    """Refuse, by name, what cannot be stepped in place."""
    if not target.tensors:
        raise ValueError("there is nothing to optimize: the list of parameters is empty")
    first = target.tensors[0]
    for name, t in zip(target.names, target.tensors, strict=True):
        if not is_array(t) or not hasattr(t, "flags"):
            raise TypeError(f"{name} is a {type(t).__name__}, not an array")
        if t.dtype == np.float16:
            raise TypeError(f"{name} is float16, too coarse to add small steps to: keep a float32 copy and step that")
        if t.dtype not in (np.float32, np.float64):
            raise TypeError(f"{name} is {t.dtype}; parameters are float32 or float64: use .astype")
        if t.dtype != first.dtype:
            raise TypeError(f"{name} is {t.dtype}, {target.names[0]} is {first.dtype}: parameters have one dtype")
        if not t.flags.c_contiguous:
            raise ValueError(f"{name} is not C-contiguous, so it cannot be stepped in place: pass np.ascontiguousarray")
        if not getattr(t.flags, "writeable", True):
            raise ValueError(f"{name} is read-only, so it cannot be stepped in place: pass a copy")
    for i, t in enumerate(target.tensors):
        for j in range(i):
            if target.layout is None and np.may_share_memory(t, target.tensors[j]):
                raise ValueError(f"{target.names[j]} and {target.names[i]} share memory: it would be stepped twice")


class Optimizer:
    """Steps parameters in place: x ← x − lr(t)·u, u = rule(N(g)) (arXiv:1707.04822, section 2).

    Parameters
    ----------
    params
        A `Params`, or a list of floating-point, writable, C-contiguous arrays.
    rule
        A step rule.
    lr
        The learning rate: a number, or a schedule called with the number of finished steps.
    normalize
        What is done to each block of the gradient before the rule sees it: None, "clip" (to norm ``clip``), "unit"
        (NG) or "adaptive" (to max(‖x^i‖, ``floor``·√d_i)).
    clip, floor
        Settings of those two.
    blocks
        The partition; default the layout's. For plain arrays lists of indices; default one block each.
    nonfinite
        "raise" (nothing has changed when the error comes) or "skip" (the whole step is left out and counted).

    Raises
    ------
    ValueError, TypeError
        For parameters that cannot be stepped in place, and settings that make no sense, by name.

    Examples
    --------
    >>> from minibng import optim
    >>> x = np.array([3.0, 4.0])
    >>> opt = optim.SGDNG([x], lr=1.0)
    >>> opt.step([np.array([30.0, 40.0])])
    >>> x
    array([2.4, 3.2])
    """

    def __init__(
        self,
        params: Params | Sequence[Array],
        rule: StepRule,
        lr: float | Schedule,
        *,
        normalize: str | None = None,
        clip: float | None = None,
        floor: float | None = None,
        blocks: Any = None,
        nonfinite: str = "raise",
    ) -> None:
        self.rule = rule
        self.lr: Schedule = lr if callable(lr) else constant(lr)
        self.normalizer = _normalizer(normalize, clip=clip, floor=floor)
        self.normalize = normalize
        if nonfinite not in ("raise", "skip"):
            raise ValueError(f"nonfinite is 'raise' or 'skip', got {nonfinite!r}")
        self.nonfinite = nonfinite
        self._target = _target(params, blocks)
        self._backend = backend_of(*self._target.tensors)
        self._root_sizes = root_sizes(self._target.tensors, self._target.blocks, self._backend)
        self.steps = 0
        self.skipped = 0
        self.norms: BlockNorms | None = None
        """Norms of the blocks of the last gradient, as it came; None before the first step."""
        self.state: dict[str, Any] = {
            n: rule.init(t) for n, t in zip(self._target.names, self._target.tensors, strict=True)
        }
        self._stepper = None
        if isinstance(rule, FormulaRule):
            rule.check(self._target.tensors[0].dtype)
            self._stepper = self._backend.stepper(
                _step_formula(type(rule).formula), self._target.tensors, self._target.blocks
            )

    @property
    def block_names(self) -> tuple[str, ...]:
        """The blocks, in the order of `norms`."""
        return self._target.block_names

    @property
    def blocks(self) -> tuple[tuple[int, ...], ...]:
        """The positions of each block's tensors."""
        return self._target.blocks

    def steps_on(self, params: Params) -> bool:
        """Tell whether it is these very parameters that this optimizer moves."""
        mine = self._target.tensors
        return len(mine) == len(params) and all(a is b for a, b in zip(mine, params.__leaves__(), strict=True))

    def step(self, grad: Params | Sequence[Array]) -> None:
        """Take one step; ``grad`` has the layout of the parameters and is not changed.

        Raises
        ------
        ValueError
            Where the gradient has another layout, shape or dtype, or the schedule gives no valid rate.
        NonFiniteError
            For NaN or infinity, naming block and step; nothing has changed.
        """
        grads = self._gradients(grad)
        lr = check_rate(self.lr(self.steps), f"the learning rate at step {self.steps}")
        blocks, tensors = self._target.blocks, self._target.tensors
        norms = self.norms = self._backend.block_norms(grads, blocks)
        if not self._finite(norms.root, "gradient", grads):
            return
        lengths = None
        if self.normalizer is not None:
            sizes = self._backend.block_norms
            lengths = self.normalizer.lengths(norms, self._root_sizes, lambda: sizes(tensors, blocks).values())
            if not self._finite(lengths, "parameters", tensors):
                return
        if self._stepper is not None and isinstance(self.rule, FormulaRule):
            self._formula_step(self.rule, grads, lr, norms, lengths)
        else:
            self._rule_step(grads, lr, norms, lengths)
        self.steps += 1

    def check(self) -> None:
        """Raise a non-finite error that a device has kept back; on the host errors come at once, so none is left."""

    def _formula_step(
        self, rule: FormulaRule, grads: Sequence[Array], lr: float, norms: BlockNorms, lengths: Array | None
    ) -> None:
        """Run the rule's formula in place."""
        assert self._stepper is not None
        states = [self.state[name] for name in self._target.names]
        columns = {"g": grads, "x": self._target.tensors, **{k: [s[k] for s in states] for k in rule.slots}}
        scalars = {**rule.scalars(self.steps + 1), "lr": lr}
        self._stepper(columns, scalars, None if lengths is None else norms, lengths)
        for state in states:
            state["step"] = self.steps + 1

    def _rule_step(self, grads: Sequence[Array], lr: float, norms: BlockNorms, lengths: Array | None) -> None:
        """Ask a rule that has no formula for each direction; move only when all have been given."""
        target = self._target
        if lengths is None:
            grads = [g.copy() for g in grads]  # the rule may keep it, the caller may reuse it
        else:
            grads = self._backend.scale_blocks(grads, target.blocks, norms, lengths)
        results = [self.rule.update(self.state[n], g) for n, g in zip(target.names, grads, strict=True)]
        for name, t, (u, _) in zip(target.names, target.tensors, results, strict=True):
            if u.shape != t.shape or not np.can_cast(u.dtype, t.dtype, "same_kind"):
                told = f"{u.dtype} of shape {u.shape} for {name}, which is {t.dtype} of shape {t.shape}"
                raise ValueError(f"the rule returned a direction of {told}")
        for name, t, (u, state) in zip(target.names, target.tensors, results, strict=True):
            t -= lr * u
            self.state[name] = state

    def _gradients(self, grad: Any) -> Sequence[Array]:
        """Return the gradient as one array a tensor, refused where it does not fit."""
        target = self._target
        if target.layout is not None:
            if not isinstance(grad, Params):
                raise TypeError(f"the gradient of a Params is a Params, got {type(grad).__name__}")
            if (wrong := target.layout.difference(grad.layout)) is not None:
                raise ValueError(f"the gradient has another layout than the parameters: {wrong}")
            grad = grad.__leaves__()
        if not isinstance(grad, (list, tuple)) or len(grad) != len(target.tensors):
            got = f"{len(grad)}" if isinstance(grad, (list, tuple)) else type(grad).__name__
            raise ValueError(f"the gradient is a list of {len(target.tensors)} arrays, got {got}")
        for name, t, g in zip(target.names, target.tensors, grad, strict=True):
            if not is_array(g) or backend_of(g) is not self._backend:
                raise TypeError(
                    f"the gradient of {name} is a {type(g).__name__}, not an array on the parameters' device"
                )
            if g.shape != t.shape:
                raise ValueError(f"the gradient of {name} has shape {g.shape}, {name} has {t.shape}")
            if g.dtype != t.dtype:
                raise ValueError(f"the gradient of {name} is {g.dtype}, {name} is {t.dtype}: use .astype")
        return grad

    def _finite(self, per_block: Array, what: str, arrays: Sequence[Array]) -> bool:
        """Tell whether every block's number is finite; if not, raise or count, as the policy says."""
        if self._backend.all_finite(per_block):
            return True
        if self.nonfinite == "skip":
            self.skipped += 1
            return False
        b = int(np.argmin(np.isfinite(per_block)))
        members = self._target.blocks[b]
        bad = [(i, self._target.names[i], int(np.sum(~np.isfinite(arrays[i])))) for i in members]
        where = ", ".join(f"{name}: {n} of {arrays[i].size} entries" for i, name, n in bad if n)
        verb = "are" if what.endswith("s") else "is"
        raise NonFiniteError(
            f"step {self.steps}: the {what} of block {self.block_names[b]!r} {verb} not finite ({where}); nothing "
            "was changed. A smaller learning rate or normalize='unit' may help; nonfinite='skip' skips such steps"
        )

    # Saving and loading

    def _partition(self) -> dict[str, list[str]]:
        names = self._target.names
        return {b: [names[i] for i in block] for b, block in zip(self.block_names, self._target.blocks, strict=True)}

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed run needs, as NumPy copies keyed by tensor name, with the partition."""
        host = self._backend.to_host
        copied = {n: _map_arrays(lambda a: np.array(host(a)), s) for n, s in self.state.items()}
        return {
            "rule": type(self.rule).__name__,
            "normalize": self.normalize,
            "steps": self.steps,
            "skipped": self.skipped,
            "blocks": self._partition(),
            "state": copied,
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take over a saved state; nothing changes unless all of it fits. A resumed run continues bit for bit.

        Raises
        ------
        ValueError
            Where rule, normalizer, partition, names, shapes or dtypes differ, naming the first that does.
        """
        mine = {"rule": type(self.rule).__name__, "normalize": self.normalize, "blocks": self._partition()}
        missing = [key for key in (*mine, "state", "steps", "skipped") if key not in saved]
        if missing:
            raise ValueError(f"the saved state is not whole: it lacks {', '.join(missing)}")
        for key in ("steps", "skipped"):
            if not isinstance(saved[key], int) or saved[key] < 0:
                raise ValueError(f"the saved state's {key} must be a number of steps, got {saved[key]!r}")
        for key, value in mine.items():
            if saved[key] != value:
                raise ValueError(f"the saved state is of another optimizer: {key} was {saved[key]!r}, here {value!r}")
        for name, state in self.state.items():
            if name not in saved["state"]:
                raise ValueError(f"the saved state is not whole: it lacks that of {name}")
            here, there = dict(_arrays(state)), dict(_arrays(saved["state"][name]))
            for key in {**here, **there}:
                a, b = here.get(key), there.get(key)
                if a is None or b is None or a.shape != b.shape or a.dtype != b.dtype:
                    told = [f"{x.dtype} of shape {x.shape}" if x is not None else "nothing" for x in (b, a)]
                    raise ValueError(f"the saved state of {name}, {key}, is {told[0]}; here it is {told[1]}")
        asarray = self._backend.asarray
        self.state = {n: _map_arrays(lambda a: asarray(np.array(a, order="C")), saved["state"][n]) for n in self.state}
        self.steps, self.skipped = saved["steps"], saved["skipped"]

    def __repr__(self) -> str:
        form = "" if self.normalize is None else f", normalize={self.normalize!r}"
        return f"Optimizer({self.rule!r}{form}, {len(self._target.blocks)} blocks, {self.steps} steps)"


def _normalizer(normalize: str | None, **settings: float | None) -> Normalizer | None:
    """Return the normalizer of a name; a setting that it does not have is refused."""
    given = {k: v for k, v in settings.items() if v is not None}
    belongs = {"clip": "clip", "floor": "adaptive"}
    for name in given:
        if belongs[name] != normalize:
            raise ValueError(f"{name} is a setting of normalize={belongs[name]!r}, not of {normalize!r}")
        number(given[name], name)
    made: Normalizer | None = None if normalize is None else choose(NORMALIZERS, normalize, "normalizer")(**given)
    return made


def _map_arrays(function: Callable[[Array], Array], state: Any) -> Any:
    """Return a rule's state with its arrays passed through a function and the rest copied."""
    if is_array(state):
        return function(state)
    if isinstance(state, dict):
        return {k: _map_arrays(function, v) for k, v in state.items()}
    if isinstance(state, (list, tuple)):
        parts = [_map_arrays(function, v) for v in state]
        return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
    return copy.deepcopy(state)


def _arrays(state: Any, path: str = "state") -> Iterator[tuple[str, Array]]:
    """Yield (path, array) for every array of a rule's state."""
    if is_array(state):
        yield path, state
    elif isinstance(state, dict):
        for k, v in state.items():
            yield from _arrays(v, str(k))
    elif isinstance(state, (list, tuple)):
        for i, v in enumerate(state):
            yield from _arrays(v, f"{path}[{i}]")
