"""The optimizer: a normalizer, then a rule, then a rate, x ← x − lr(t)·rule(N(g)). Never the other way round."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np

from minibng.backend import Array, BlockNorms, Stepper, backend_of, is_array
from minibng.backend.kernel import Formula, parse
from minibng.names import choose
from minibng.optim.normalize import NORMALIZERS, Except, NonFiniteError, Norm, Normalizer, norm_of, sizes_of
from minibng.optim.rules import FormulaRule, StepRule
from minibng.optim.schedules import Schedule, check_rate, constant, number
from minibng.optim.target import Target, owner, target_of
from minibng.params import BlockNames, Params, match_patterns


def descend(x, u, *, lr):  # type: ignore[no-untyped-def]
    """Step: x ← x − lr·u."""
    x = x - lr * u
    return x


def descend_and_decay(x, u, *, lr, decay):  # type: ignore[no-untyped-def]
    """Step with decoupled decay: x ← x − lr·(u + λx); a factor 1 − lr·λ would often round to 1 in float32."""
    x = x - lr * (u + decay * x)
    return x


def add_decay(g, x, *, decay):  # type: ignore[no-untyped-def]
    """Decay after normalization: g ← g + λx, which is what the rule sees."""
    g = g + decay * x
    return g


_STEPS: dict[str | None, Callable[..., tuple[Callable[..., Any], ...]]] = {
    None: lambda rule: (rule, descend),
    "decoupled": lambda rule: (rule, descend_and_decay),
    "after": lambda rule: (add_decay, rule, descend),
    "before": lambda rule: (rule, descend),
}
"""Order of the decay → the formulas of one step; None where nothing decays."""


Seen: TypeAlias = tuple[Sequence[Array], BlockNorms, Array | None]


@functools.cache
def parse_once(*formulas: Callable[..., Any], outputs: tuple[str, ...] = ()) -> Formula:
    """Return the composition of formulas that only read the gradient g."""
    return parse(*formulas, readonly=("g",), outputs=outputs)


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
        What is done to each block of the gradient before the rule sees it: None; "clip" (to norm ``clip``);
        "clip-global" (all of it, to norm ``clip`` of the whole); "unit" (NG); or "adaptive" (to
        max(‖x^i‖, ``floor``·‖1‖), where ‖1‖ is the norm of a block of ones: √d_i).
    norm
        In which blocks are measured: 2, "rms" (‖g‖₂/√d), 1 or inf.
    clip, floor
        Settings of the normalizers that have them: 1.0 and 1e-3 where not given.
    blocks
        The partition; default the layout's (see `params.partition`). For plain arrays "tensor" (default), "unit",
        "coordinate", "global" or lists of indices.
    exclude
        Name patterns of tensors whose blocks are not normalized, such as ``("*.gamma", "*.beta")``: the rule sees their
        gradient as it comes. All tensors of a block are excluded, or none.
    weight_decay
        λ, or a mapping from name patterns to it: ``{"*.W": 1e-4}``; the first that fits holds, where none does λ = 0.
    decay
        Where λ enters: "decoupled", x ← x − lr·(u + λx); "after" normalization, u = rule(N(g) + λx); or "before",
        u = rule(N(g + λx)), which with NG makes the step of a block without data gradient independent of λ.
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

    method: ClassVar[str] = "optimizer"
    """What is done with the rule; a relative has its own name here. A state does not load into another method."""

    def __init__(
        self,
        params: Params | Sequence[Array],
        rule: StepRule,
        lr: float | Schedule,
        *,
        normalize: str | None = None,
        norm: float | str = 2,
        clip: float | None = None,
        floor: float | None = None,
        blocks: Any = None,
        exclude: str | Sequence[str] = (),
        weight_decay: float | Mapping[str, float] = 0.0,
        decay: str = "decoupled",
        nonfinite: str = "raise",
    ) -> None:
        if isinstance(rule, type) or not isinstance(rule, StepRule):
            told = f"the class {rule.__name__}" if isinstance(rule, type) else repr(rule)
            raise TypeError(f"the rule is an object with init and update, such as optim.rules.Adam(), got {told}")
        self.rule = rule
        self.lr = lr
        self.norm = norm_of(norm)
        self.normalizer = _normalizer(normalize, self.norm, clip=clip, floor=floor)
        self.normalize = normalize
        choose(dict.fromkeys(("raise", "skip")), nonfinite, "nonfinite policy")
        self.nonfinite = nonfinite
        self._target = target_of(params, blocks)
        self._backend = backend_of(*self._target.tensors)
        self._owners = {id(owner(t)) for t in self._target.tensors}
        self._sizes = sizes_of(self._target.groups, self._backend)
        self.exclude = (exclude,) if isinstance(exclude, str) else tuple(exclude)
        if self.exclude:
            self.normalizer = _except(self.normalizer, self.exclude, self._target)
        self._guard = self._backend.guard(len(self.block_names))
        self._checks: list[str] = []  # what each check of a step looks at
        self._check = 0
        self.decays = _decays(weight_decay, self._target.names)
        """λ of each tensor."""
        self.decay = _decay_order(decay, self.decays)
        if self.decay == "before" and normalize in ("unit", "adaptive"):
            warnings.warn(
                "decay='before' is normalized together with the gradient: where the data gradient of a block vanishes, "
                "its step no longer depends on λ; use decay='decoupled' or 'after'",
                UserWarning,
                stacklevel=2 + (type(self) is not Optimizer),
            )
        self.steps = 0
        self.skipped = 0
        self.norms: BlockNorms | None = None
        """Norms of the blocks of the last gradient (g + λx with decay "before"); None before the first step."""
        self.state: dict[str, Any] = {
            n: rule.init(t) for n, t in zip(self._target.names, self._target.tensors, strict=True)
        }
        self.memory: dict[str, Array] = {}
        """What is remembered of each block, (B,) arrays; empty but for relatives that do."""
        self._stepper: Stepper | None = None
        if isinstance(rule, FormulaRule):
            rule.check(self._target.tensors[0].dtype)
            self._make_steppers(rule)

    def _make_steppers(self, rule: FormulaRule) -> None:
        """Bind the formulas of one step to the parameters."""
        _check_formula(rule)
        self._stepper = self._bind(*_STEPS[self.decay](rule.formula))

    def _bind(self, *formulas: Callable[..., Any], outputs: tuple[str, ...] = ()) -> Stepper:
        formula = parse_once(*formulas, outputs=outputs)
        return self._backend.stepper(formula, self._target.tensors, self._target.groups)

    @property
    def lr(self) -> Schedule:
        """The schedule; a number that is set here becomes a constant one."""
        return self._lr

    @lr.setter
    def lr(self, value: float | Schedule) -> None:
        self._lr = value if callable(value) else constant(value)

    @property
    def block_names(self) -> BlockNames:
        """The blocks, in the order of `norms`."""
        return BlockNames(self._target.groups)

    def measure(self, arrays: Params | Sequence[Array]) -> BlockNorms:
        """Return the norms of the blocks of a Params, or of arrays, shaped like the parameters, (B,)."""
        leaves = arrays.__leaves__() if isinstance(arrays, Params) else arrays
        return self.norm.measure(self._backend, leaves, self._target.groups, self._sizes)

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
            For NaN or infinity in gradient or parameters, naming block and step; nothing has changed. On a device this
            comes at the next `check`. (Directions of a rule of your own are not checked.)
        """
        grads = self._gradients(grad)
        lr = check_rate(self.lr(self.steps), f"the learning rate at step {self.steps}")
        self._check = 0
        if self._guard is not None:
            self._guard.begin(self.steps)
        if self.decay == "before":
            grads = self._decayed(grads)
        norms = self.norms = self.measure(grads)
        if (seen := self._seen(grads, norms)) is not None:
            self._move(seen[0], lr, *seen[1:])
            if self._guard is not None:
                self._guard.commit()
            self.steps += 1

    def check(self) -> None:
        """Raise a non-finite error that a device has kept back: it synchronizes. On the host errors come at once.

        A step that is not finite changes nothing on a device either. But until this is called it counts among
        ``steps``, which bias corrections and schedules go by; here it is taken out again, and with nonfinite="skip"
        added to ``skipped``. Plain numbers in the state of a rule of your own keep counting it, and arrays that
        such a rule makes in its first step only are taken for zeros where that step was not finite. Steps after a bad
        one are taken. Saving a state checks first.

        Raises
        ------
        NonFiniteError
            Naming the first bad step since the last check, and its block.
        """
        trouble = None if self._guard is None else self._guard.fetch()
        if trouble is None:
            return
        self.steps -= trouble.suppressed
        if isinstance(self.rule, FormulaRule):
            for state in self.state.values():
                state["step"] = self.steps
        if self.nonfinite == "skip":
            self.skipped += trouble.suppressed
            return
        more = f" ({trouble.suppressed} steps since the last check were not finite)" if trouble.suppressed > 1 else ""
        what = self._checks[trouble.check]
        raise self._non_finite(trouble.step, what, trouble.block, more, " by it, later steps were taken")

    def _seen(self, grads: Sequence[Array], norms: BlockNorms) -> Seen | None:
        """Return what the rule sees, gradient, norms and lengths; None where something is not finite and skipped."""
        if not self._finite(norms.root, "gradient", grads, norms.bad):
            return None
        lengths = self._lengths(norms)
        safe = lengths is None or (self.normalizer is not None and self.normalizer.safe)
        if not (safe or self._finite(lengths, "parameters", self._target.tensors)):
            return None
        return grads, norms, lengths

    def _lengths(self, norms: BlockNorms) -> Array | None:
        """Return the lengths that the blocks are to have, (B,), or None for those that they have."""
        if self.normalizer is None:
            return None
        return self.normalizer.lengths(norms, self._sizes, lambda: self.measure(self._target.tensors).values())

    def _move(self, grads: Sequence[Array], lr: float, norms: BlockNorms, lengths: Array | None) -> None:
        """Let the rule see the blocks at their lengths, and step."""
        if self._stepper is not None and isinstance(self.rule, FormulaRule):
            self._run(self._stepper, self.rule, grads, {"lr": lr}, None if lengths is None else norms, lengths)
        else:
            self._rule_step(grads, lr, norms, lengths)

    def _run(
        self,
        stepper: Stepper,
        rule: FormulaRule,
        grads: Sequence[Array],
        scalars: Mapping[str, float],
        norms: BlockNorms | None = None,
        lengths: Array | None = None,
        **columns: Sequence[Array],
    ) -> None:
        """Run a stepper that holds the rule's formula, in place, and count the step in the rule's state."""
        states = [self.state[name] for name in self._target.names]
        slots = {k: [s[k] for s in states] for k in rule.slots}
        decay = {"decay": self.decays} if self.decay in ("decoupled", "after") else {}
        columns = {"g": grads, "x": self._target.tensors, **slots, **columns}
        stepper(columns, {**rule.scalars(self.steps + 1), **decay, **scalars}, norms, lengths, self._guard)
        for state in states:
            state["step"] = self.steps + 1

    def _rule_step(self, grads: Sequence[Array], lr: float, norms: BlockNorms, lengths: Array | None) -> None:
        """Ask a rule that has no formula for each direction; move only when all have been given."""
        target = self._target
        if lengths is None:
            grads = [g.copy() for g in grads]  # the rule may keep it, the caller may reuse it
        else:
            grads = self._backend.scale_blocks(grads, target.groups, norms, lengths)
        if self.decay == "after":
            grads = self._decayed(grads)
        results = [self.rule.update(self.state[n], g) for n, g in zip(target.names, grads, strict=True)]
        if not isinstance(results[0], (tuple, list)) or len(results[0]) != 2:
            raise TypeError(f"{type(self.rule).__name__}.update returns (u, state), got a {type(results[0]).__name__}")
        for name, t, (u, _) in zip(target.names, target.tensors, results, strict=True):
            if u.shape != t.shape or not np.can_cast(u.dtype, t.dtype, "same_kind"):
                told = f"{u.dtype} of shape {u.shape} for {name}, which is {t.dtype} of shape {t.shape}"
                raise ValueError(f"the rule returned a direction of {told}")
        for name, t, λ, (u, state) in zip(target.names, target.tensors, self.decays, results, strict=True):
            change = lr * (u + λ * t if λ and self.decay == "decoupled" else u)
            if self._guard is not None:
                change = self._guard.keep(change, np.zeros_like(change))
                state = _map_pairs(self._guard.keep, state, self.state[name])
            t -= change
            self.state[name] = state

    def _decayed(self, grads: Sequence[Array]) -> list[Array]:
        """Return g + λx, in new arrays where λ is not 0."""
        rows = zip(grads, self._target.tensors, self.decays, strict=True)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found by its norm
            return [g + λ * x if λ else g for g, x, λ in rows]

    def _gradients(self, grad: Any) -> Sequence[Array]:
        """Return the gradient as one array a tensor, refused where it does not fit."""
        target = self._target
        if target.layout is not None:
            if not isinstance(grad, Params):
                raise TypeError(f"the gradient of a Params is a Params, got {type(grad).__name__}{_pair_hint(grad)}")
            if (wrong := target.layout.difference(grad.layout)) is not None:
                raise ValueError(f"the gradient has another layout than the parameters: {wrong}")
            grad = grad.__leaves__()
        if not isinstance(grad, (list, tuple)) or len(grad) != len(target.tensors):
            got = f"{len(grad)}" if isinstance(grad, (list, tuple)) else type(grad).__name__
            raise ValueError(f"the gradient is a list of {len(target.tensors)} arrays, got {got}{_pair_hint(grad)}")
        for name, t, g in zip(target.names, target.tensors, grad, strict=True):
            if not is_array(g):
                raise TypeError(f"the gradient of {name} is a {type(g).__name__}, not an array")
            if backend_of(g) is not self._backend:
                here, there = backend_of(g).device, self._backend.device
                raise TypeError(f"the gradient of {name} is on {here!r}, {name} on {there!r}: use bng.asarray")
            if g.shape != t.shape:
                raise ValueError(f"the gradient of {name} has shape {g.shape}, {name} has {t.shape}")
            if g.dtype != t.dtype:
                raise ValueError(f"the gradient of {name} is {g.dtype}, {name} is {t.dtype}: use .astype")
        return [g.copy() if self._is_of_another(g, t) else g for g, t in zip(grad, target.tensors, strict=True)]

    def _is_of_another(self, g: Array, t: Array) -> bool:
        """Tell whether a gradient lies in memory that is stepped, other than as its own tensor; x·y has y for ∂x."""
        return g is not t and id(owner(g)) in self._owners

    def _finite(self, per_block: Array, what: str, arrays: Sequence[Array], bad: Array | None = None) -> bool:
        """Tell whether every block's number is finite; if not, raise or count, as the policy says.

        A device notes the first bad block, which it may know already, and goes on: its guard will not take the step.
        """
        self._checks[self._check : self._check + 1] = [what]
        self._check += 1
        if self._guard is not None:
            self._guard.note(per_block, bad)
            return True
        if (finite := np.isfinite(per_block)).all():
            return True
        if self.nonfinite == "skip":
            self.skipped += 1
            return False
        b = int(np.argmin(finite))
        ends = np.cumsum([group.count for group in self._target.groups])
        members = self._target.groups[int(np.searchsorted(ends, b, side="right"))].tensors
        told = [(i, self._target.names[i], int(np.sum(~np.isfinite(arrays[i])))) for i in members]
        where = ", ".join(f"{name}: {n} of {arrays[i].size} entries" for i, name, n in told if n)
        where = where or "all entries are, their norm is beyond the largest double"
        raise self._non_finite(self.steps, what, b, f" ({where})")

    def _non_finite(self, step: int, what: str, block: int, more: str, then: str = "") -> NonFiniteError:
        """Return the error that tells what was not finite, and what to do."""
        verb = "are" if what.endswith("s") else "is"
        advice = "a smaller learning rate may help" if self.normalize else "a smaller learning rate or NG may help"
        return NonFiniteError(
            f"step {step}: the {what} of block {self.block_names[block]!r} {verb} not finite{more}; "
            f"nothing was changed{then}; {advice}; nonfinite='skip' skips such steps",
            step,
        )

    # Saving and loading

    def _method(self) -> dict[str, Any]:
        """Return what a saved state must have been made with, besides shapes and dtypes."""
        return {
            "method": self.method,
            "rule": type(self.rule).__name__,
            "settings": dict(getattr(self.rule, "hyper", {})),
            "normalize": self.normalize,
            "norm": self.norm.name,
            "blocks": self._partition(),
            "exclude": list(self.exclude),
        }

    def _partition(self) -> dict[str, list[str]]:
        return {group.label: [self._target.names[i] for i in group.tensors] for group in self._target.groups}

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed run needs, as NumPy copies keyed by tensor name, with the partition.

        Raises
        ------
        NonFiniteError
            Where a device has kept one back, as `check`.
        """
        self.check()
        host = self._backend.to_host
        copied = {n: _map_arrays(lambda a: np.array(host(a)), s) for n, s in self.state.items()}
        return {
            **self._method(),
            "steps": self.steps,
            "skipped": self.skipped,
            "state": copied,
            "memory": _map_arrays(lambda a: np.array(host(a)), self.memory),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take over a saved state; nothing changes unless all of it fits. A resumed run continues bit for bit.

        Raises
        ------
        ValueError
            Where rule, its settings, normalizer, norm, partition, names, shapes or dtypes differ, naming the first that
            does. The learning rate and the decay may differ.
        """
        mine = self._method()
        missing = [key for key in (*mine, "state", "steps", "skipped", "memory") if key not in saved]
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
            _check_alike(name, state, saved["state"][name])
        _check_alike("the blocks", self.memory, saved["memory"])
        asarray = self._backend.asarray
        self.state = {n: _map_arrays(lambda a: asarray(np.array(a, order="C")), saved["state"][n]) for n in self.state}
        self.memory = _map_arrays(lambda a: asarray(np.array(a)), saved["memory"])
        self.steps, self.skipped = saved["steps"], saved["skipped"]
        if self._guard is not None:
            self._guard.fetch()  # what it kept back is of steps that are no longer among those counted

    def __reduce__(self) -> Any:
        """Refuse copies: the copy would step arrays that nobody holds."""
        raise TypeError(
            "an optimizer is not copied or pickled: make one on the copied parameters, then load_state_dict"
        )

    def __repr__(self) -> str:
        form = f", normalize={self.normalize!r}" if self.normalize and type(self) is Optimizer else ""
        blocks = len(self.block_names)
        told = f"{blocks:,} block{'s' * (blocks != 1)}, {self.steps} steps"
        return f"{type(self).__name__}({self.rule!r}{form}, {told})"


def _normalizer(normalize: str | None, norm: Norm, **settings: float | None) -> Normalizer | None:
    """Return the normalizer of a name; a setting that it does not have is refused."""
    given: dict[str, Any] = {k: v for k, v in settings.items() if v is not None}
    belongs = {"clip": ("clip", "clip-global"), "floor": ("adaptive",)}
    for name in given:
        if normalize not in belongs[name]:
            where = " or ".join(f"normalize={n!r}" for n in belongs[name])
            raise ValueError(f"{name} is a setting of {where}, not of {normalize!r}")
        number(given[name], name)
    if normalize is None:
        return None
    if normalize in ("clip-global", "adaptive"):
        given["norm"] = norm
    made: Normalizer = choose(NORMALIZERS, normalize, "normalizer")(**given)
    return made


def _except(normalizer: Normalizer | None, patterns: Sequence[str], target: Target) -> Normalizer:
    """Return the normalizer with the blocks of the tensors that the patterns fit left out."""
    if normalizer is None:
        raise ValueError("exclude is a setting of a normalizer, and with normalize=None there is none: leave it out")
    fits = match_patterns(dict.fromkeys(patterns, True), target.names, "exclude", default=False)
    for group in target.groups:
        if len({fits[i] for i in group.tensors}) > 1:
            inside = ", ".join(target.names[i] for i in group.tensors if fits[i])
            raise ValueError(
                f"exclude: of block {group.label!r} only {inside} would be left out; exclude all of it or none"
            )
    kept = [fits[group.tensors[0]] for group in target.groups for _ in range(group.count)]
    return Except(normalizer, backend_of(*target.tensors).asarray(np.array(kept)))


def _pair_hint(grad: Any) -> str:
    """Return what to do with the pair that value_and_grad returns, given as a gradient."""
    return ": unpack value, grad = step(params), then opt.step(grad)" if type(grad) is tuple and len(grad) == 2 else ""


def _check_formula(rule: FormulaRule) -> None:
    """Refuse, by name, a rule whose formula does not take g and its slots, return u, and leave our names alone."""
    name = type(rule).__name__
    if taken := {"lr", "decay", "x"} & {*rule.scalars(1), *rule.slots}:
        raise ValueError(f"{name}: {', '.join(sorted(taken))} is the optimizer's; choose another name")
    formula = parse_once(rule.formula, outputs=("u",))
    if (got := set(formula.arrays)) != (wanted := {"g", "u", *rule.slots}):
        raise ValueError(
            f"{name}: the formula's arrays are {sorted(got)}; with its slots they should be {sorted(wanted)}"
        )


def _decays(weight_decay: float | Mapping[str, float], names: Sequence[str]) -> tuple[float, ...]:
    """Return λ of each tensor."""
    if isinstance(weight_decay, Mapping):
        table = {pattern: check_rate(λ, f"weight_decay[{pattern!r}]") for pattern, λ in weight_decay.items()}
        return tuple(match_patterns(table, names, "weight_decay", default=0.0))
    return (check_rate(weight_decay, "weight_decay"),) * len(names)


def _decay_order(decay: str, decays: Sequence[float]) -> str | None:
    """Return where the decay enters, None where there is none."""
    choose(dict.fromkeys(order for order in _STEPS if order), decay, "order of weight decay")
    return decay if any(decays) else None


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


def _map_pairs(function: Callable[[Array, Array], Array], new: Any, old: Any) -> Any:
    """Return a rule's new state with its arrays passed through a function together with the old ones.

    An array that the old state has not, as where a rule starts from None, counts as zeros there.
    """
    if is_array(new):
        return function(new, old if is_array(old) and old.shape == new.shape else np.zeros_like(new))
    if isinstance(new, dict):
        before = old if isinstance(old, dict) else {}
        return {k: _map_pairs(function, v, before.get(k)) for k, v in new.items()}
    if isinstance(new, (list, tuple)):
        same = isinstance(old, (list, tuple)) and len(old) == len(new)
        parts = [_map_pairs(function, a, b) for a, b in zip(new, old if same else [None] * len(new), strict=True)]
        return type(new)(*parts) if hasattr(new, "_fields") else type(new)(parts)
    return new


def _check_alike(name: str, mine: Any, theirs: Any) -> None:
    """Refuse a saved state whose arrays differ from ours in name, shape or dtype."""
    here, there = dict(_arrays(mine)), dict(_arrays(theirs))
    for key in {**here, **there}:
        a, b = here.get(key), there.get(key)
        if a is None or b is None or a.shape != b.shape or a.dtype != b.dtype:
            told = [f"{x.dtype} of shape {x.shape}" if x is not None else "nothing" for x in (b, a)]
            raise ValueError(f"the saved state of {name}, {key}, is {told[0]}; here it is {told[1]}")


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
