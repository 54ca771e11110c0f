"""Making a target of what somebody has: a name, a class, a function, a PyTorch optimizer, an optax transformation.

PyTorch and optax are used where the subject is theirs, and then they are loaded already; they are never imported here.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from minibng import optim
from minibng.backend import Array, asarray
from minibng.names import UnknownNameError, choose
from minibng.optim import Optimizer
from minibng.verify.target import Make, Rate, Stepping, Target

ACCEPTED = """what can be checked:
  - a name: 'adam-ng', 'mutant:missing-root', 'module:attribute', 'path/to/file.py:step', 'torch.optim:Adam'
  - an optimizer class of minibng or of PyTorch, or a function params → PyTorch optimizer
  - an optax transformation, or a function that makes one
  - a function step(params, grads, state) → (params, state), on lists of arrays, state None at first
  - a normalizer, a function of one list of arrays that returns another
  - a minibng.verify.Target of your own"""

ENTRYWISE = "it steps entry by entry"
RAW = "it does not normalize: its direction is as long as the gradient makes it"
_GEOMETRY = (
    *("unit-norm", "inner-product", "same-direction", "idempotence", "orthogonal-equivariance", "step-length"),
    *("scale-invariance", "power-of-two-invariance", "loss-scale", "loss-scale-first-step", "one-block-is-global"),
)
_LENGTHS = (
    *("unit-norm", "inner-product", "idempotence", "step-length", "scale-invariance", "power-of-two-invariance"),
    *("loss-scale", "loss-scale-first-step", "coordinate-is-sign"),
)
BY_DESIGN: dict[str, dict[str, str]] = {
    **dict.fromkeys(
        ("Adam", "AdamW", "Adamax", "NAdam", "RAdam", "Adagrad", "Adadelta", "RMSprop", "Rprop"),
        dict.fromkeys(_GEOMETRY, ENTRYWISE),
    ),
    **dict.fromkeys(("SGD", "ASGD"), dict.fromkeys(_LENGTHS, RAW)),
}
"""Class of ``torch.optim`` → law → why it is broken on purpose."""


class NotCallableError(Exception):
    """A subject that is of a kind that can be checked, but does not work on the simplest example."""


# Names


def find(name: str) -> Any:
    """Return what a name stands for.

    Parameters
    ----------
    name
        An optimizer of minibng ("adam-ng"); a mutant ("mutant:missing-root"); "module:attribute" or
        "module.attribute"; or "path/to/file.py:attribute", where the attribute ``step`` need not be named.

    Raises
    ------
    UnknownNameError
        Where there is no such optimizer, mutant or attribute, with the nearest name.
    FileNotFoundError
        Where there is no such file.
    NotCallableError
        Where the module is there but cannot be imported.

    Examples
    --------
    >>> find("adam-ng").__name__
    'AdamNG'
    >>> find("math:hypott")
    Traceback (most recent call last):
        ...
    minibng.names.UnknownNameError: unknown name in math 'hypott'; did you mean 'hypot'?
    """
    kind, place, attribute = _parsed(name)
    if kind == "mutant":
        mutants: Mapping[str, Any] = importlib.import_module("minibng.verify.mutants").MUTANTS
        return mutants[attribute].target
    if kind == "optimizer":
        return optim.get(name)
    return _attribute(_from_file(Path(place)) if kind == "file" else _module(place), attribute)


def check_name(name: str) -> None:
    """Raise what `find` raises, as far as it can be known without running any code of the subject's."""
    _parsed(name)


def _parsed(name: str) -> tuple[str, str, str]:
    """Return the kind of a name, its place and its attribute; raise where there is no such thing."""
    place, colon, attribute = name.rpartition(":")
    if place == "mutant":
        choose(importlib.import_module("minibng.verify.mutants").MUTANTS, attribute, "mutant")
        return "mutant", place, attribute
    if place.endswith(".py") or name.endswith(".py"):
        place, attribute = (place, attribute) if colon else (name, "step")
        if not Path(place).is_file():
            raise FileNotFoundError(f"there is no file {place!r}")
        return "file", place, attribute
    if not colon and (name in optim.names() or "." not in name):
        choose(dict.fromkeys(optim.names()), name, "optimizer")
        return "optimizer", "", name
    place, _, attribute = (place, colon, attribute) if colon else name.rpartition(".")
    if not (place and attribute):
        raise UnknownNameError(f"a name is 'module:attribute', got {name!r}; {ACCEPTED}")
    return "module", place, attribute


def _module(name: str) -> Any:
    """Import a module; UnknownNameError where there is none."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):
            raise NotCallableError(_told(error, f"importing {name}")) from error
        raise UnknownNameError(f"there is no module {error.name!r} here; {ACCEPTED}") from None
    except (Exception, SystemExit) as error:
        raise NotCallableError(_told(error, f"importing {name}")) from error


def _from_file(path: Path) -> Any:
    """Import a file, with its neighbours in reach, under the name of its stem if that is free."""
    name = path.stem if path.stem not in sys.modules else f"_subject_{path.stem}"
    spec: Any = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with contextlib.suppress(ValueError):
        sys.path.remove(str(path.parent.resolve()))
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise NotCallableError(_told(error, f"importing {path}")) from error
    return module


def _attribute(module: Any, name: str) -> Any:
    """Return an attribute, dots allowed; UnknownNameError with the nearest where there is none."""
    here = module
    for part in name.split("."):
        if not hasattr(here, part):
            public = [n for n in dir(here) if not n.startswith("_")]
            told = getattr(here, "__name__", type(here).__name__)
            try:
                choose(dict.fromkeys(public), part, f"name in {told}")
            except UnknownNameError as error:  # the whole list may be long
                message, _, known = str(error).partition(" Known: ")
                raise UnknownNameError(message if len(public) > 20 else f"{message} Known: {known}") from None
        here = getattr(here, part)
    return here


def _told(error: BaseException, doing: str) -> str:
    if isinstance(error, SystemExit):
        return f"{doing} called sys.exit({error.code!r})"
    return f"{doing} raised {type(error).__name__}: {error}"


# Kinds of subjects


def adapt(
    subject: Any, lr: float | None = None, *, name: str | None = None, device: str = "cpu", **settings: Any
) -> Target:
    """Return the target that a subject is.

    Parameters
    ----------
    subject
        What is to be checked, see `ACCEPTED`.
    lr
        The subject's own learning rate. By default that of a plain function is inferred: x = 0 is moved by it where
        g = 1, a block of one entry; all others are told the rate. μ of a heavy ball or of Nesterov's method is
        inferred likewise, from three steps in one direction.
    name
        What to call it.
    device
        Where it gets its arrays.
    **settings
        Settings of the subject, where it is a class or makes transformations; fields of `Target` for others.

    Raises
    ------
    TypeError
        For what cannot be checked, and for unknown settings.
    ValueError
        Where the rate cannot be inferred.
    NotCallableError
        Where the subject does not work on the simplest example.
    """
    if isinstance(subject, str):
        name, subject = name or subject, find(subject)
    name = name or getattr(subject, "name", None) or getattr(subject, "__name__", type(subject).__name__)
    if lr is not None and not (math.isfinite(lr) and lr > 0):
        raise ValueError(f"lr must be positive and finite, got {lr}")
    build = _kind(subject)
    own, fields_of_target = _split(subject, settings, build)
    target = build(subject, str(name), device, lr, own, fields_of_target)
    if isinstance(workers := fields_of_target.get("workers"), str):
        fields_of_target["workers"] = find(workers)
    target = replace(target, **fields_of_target)
    if lr is not None and target.rate is None and target.make is not None:
        make = target.make  # a rate that laws could choose, but are not to
        target = replace(target, rate=lr, make=lambda params, _, blocks: make(params, lr, blocks))
    return target


Build = Callable[[Any, str, str, float | None, dict[str, Any], dict[str, Any]], Target]


def _kind(subject: Any) -> Build:
    """Return the function that makes a target of this kind of subject."""
    torch: Any = sys.modules.get("torch")
    theirs: Any = torch.optim.Optimizer if torch else ()
    if isinstance(subject, Target):
        return _target
    if isinstance(subject, type) and issubclass(subject, Optimizer):
        return _ours
    if isinstance(subject, type) and theirs and issubclass(subject, theirs):
        return _torch_class
    if _is_transformation(subject):
        return _optax
    if isinstance(subject, (Optimizer, type, theirs)) or not callable(subject):
        what = f"the class {subject.__name__}" if isinstance(subject, type) else f"a {type(subject).__name__}"
        if isinstance(subject, (Optimizer, theirs)):
            what += ", which has taken its parameters already: give the class, or a function params → optimizer"
        raise TypeError(f"got {what}; {ACCEPTED}")
    required, most, names = _positional(subject)
    if "learning_rate" in names or required == 0 or str(getattr(subject, "__module__", "")).startswith("optax"):
        return _optax_factory
    if required == 1:
        return _one_parameter
    if required <= 3 <= most:
        return _function
    raise NotCallableError(
        f"it takes {required} arguments: step(params, grads, state) takes three, a normalizer takes one list of arrays"
    )


def _positional(subject: Any) -> tuple[int, float, tuple[str, ...]]:
    """Return how many arguments must be given, how many may be, and the names of all parameters."""
    try:
        parameters = inspect.signature(subject).parameters
    except (TypeError, ValueError):
        raise TypeError(f"{subject!r} does not tell its parameters; wrap it in a function; {ACCEPTED}") from None
    kinds = [p for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = sum(p.default is p.empty for p in kinds)
    if any(p.kind is p.VAR_POSITIONAL for p in parameters.values()) and required == 0:
        raise TypeError(f"{subject!r} takes *arguments, which does not tell what it is; wrap it; {ACCEPTED}")
    return required, len(kinds), tuple(parameters)


def _split(subject: Any, settings: Mapping[str, Any], build: Build) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings that are the subject's and those that are the target's."""
    takes: Iterable[str] = ()
    if build in (_ours, _torch_class, _optax_factory):
        takes = [n for n in inspect.signature(subject).parameters if n not in ("self", "params", "lr")]
    target = [f.name for f in fields(Target) if f.name not in ("name", "normalize", "make", "device", "rate")]
    if unknown := [n for n in settings if n not in (*takes, *target)]:
        known = dict.fromkeys([*takes, *target])
        try:
            choose(known, unknown[0], "setting")
        except UnknownNameError as error:
            raise TypeError(str(error)) from None
    own = {n: v for n, v in settings.items() if n in takes}
    return own, {n: v for n, v in settings.items() if n not in takes}


def _target(subject: Target, name: str, device: str, lr: float | None, own: Any, given: Any) -> Target:
    return subject if device == "cpu" else replace(subject, device=device)


def _ours(subject: Any, name: str, device: str, lr: float | None, own: dict[str, Any], given: Any) -> Target:
    return Target.of(subject, name, device=device, **own)


def _torch_class(subject: Any, name: str, device: str, lr: float | None, own: dict[str, Any], given: Any) -> Target:
    rate = {"lr": 1.0 if lr is None else lr} if "lr" in inspect.signature(subject).parameters else {}
    reasons = BY_DESIGN.get(subject.__name__, {}) if subject.__module__.startswith("torch.optim") else {}
    made = _torch(lambda params: subject(params, **rate, **own), name, device, given)
    return replace(made, by_design=reasons)


def _torch(build: Callable[[list[Any]], Any], name: str, device: str, given: dict[str, Any]) -> Target:
    _on_host(device, "PyTorch")
    make = functools.partial(_Torch, build)
    target = Target(name, make=lambda params, lr, blocks: make(params, lr), partition="tensor", accumulate=_summed)
    target = _tried(target, given, ("float32", "float64", "float16"))
    return _with_momentum(target, given)


def _one_parameter(subject: Any, name: str, device: str, lr: float | None, own: Any, given: dict[str, Any]) -> Target:
    """Find out whether a function of one list makes a PyTorch optimizer, or normalizes."""
    if (torch := sys.modules.get("torch")) and _makes_optimizer(subject, torch):
        return _torch(subject, name, device, given)
    target = Target(name, normalize=_Normalizer(subject), device=device, partition="tensor")
    try:
        return _tried(target, given, ("float32", "float64", "float16"))
    except NotCallableError:
        if (torch := sys.modules.get("torch")) and _makes_optimizer(subject, torch):
            return _torch(subject, name, device, given)  # PyTorch was loaded by the call
        raise


def _makes_optimizer(subject: Any, torch: Any) -> bool:
    with contextlib.suppress(Exception):
        return isinstance(subject([torch.nn.Parameter(torch.zeros(1))]), torch.optim.Optimizer)
    return False


def _optax(subject: Any, name: str, device: str, lr: float | None, own: Any, given: dict[str, Any]) -> Target:
    return _transformation(lambda rate: subject, name, device, lr, given, free=False)


def _optax_factory(
    subject: Any, name: str, device: str, lr: float | None, own: dict[str, Any], given: dict[str, Any]
) -> Target:
    free = "learning_rate" in inspect.signature(subject).parameters and "learning_rate" not in own

    def make(rate: float) -> Any:
        return subject(**({"learning_rate": rate} if free else {}), **own)

    try:
        made = make(1.0)
    except Exception as error:
        raise NotCallableError(_told(error, f"{name}()")) from error
    if not _is_transformation(made):
        raise NotCallableError(f"{name}() returned a {type(made).__name__}, not an optax transformation; {ACCEPTED}")
    return _transformation(make, name, device, lr, given, free=free)


def _transformation(
    make: Callable[[float], Any], name: str, device: str, lr: float | None, given: dict[str, Any], *, free: bool
) -> Target:
    """Return the target of an optax transformation: a step if it turns g = 1 into −rate, a direction otherwise."""
    _on_host(device, "optax")
    takes = ("float32", "float64", "float16")
    target = Target(name, make=lambda x, lr, blocks: _Optax(make, x, lr), partition="tensor")
    target = _tried(target, given, takes)
    dtype = "float64" if "float64" in target.dtypes else target.dtypes[0]
    probe = _Optax(make, [np.zeros(1, dtype)], 1.0)
    probe.step([np.ones(1, dtype)])
    if (moved := float(probe.params[0][0])) < 0:
        return _with_momentum(target if free else replace(target, rate=_rate(-moved, lr, name)), given)
    if moved == 0 and lr is None:
        _rate(moved, lr, name)
    if probe.empty:
        return replace(target, make=None, normalize=lambda grads: _Optax(make, grads, 1.0).update(grads))
    target = replace(target, make=lambda x, lr, blocks: _Optax(make, x, lr, direction=True))
    return _with_momentum(target, given)


def _function(subject: Any, name: str, device: str, lr: float | None, own: Any, given: dict[str, Any]) -> Target:
    make: Make = lambda params, rate, blocks: _Plain(subject, params, device)  # noqa: E731
    target = Target(name, make=make, device=device, partition="tensor")
    target = _tried(target, given, ("float32", "float64"))
    return _with_momentum(replace(target, rate=1.0), given, lr, infer=True)


def _on_host(device: str, whose: str) -> None:
    if device != "cpu":
        raise ValueError(f"{whose} has arrays of its own: it is checked on 'cpu', not on {device!r}")


# Asking the subject


def _tried(target: Target, given: Mapping[str, Any], dtypes: Sequence[str]) -> Target:
    """Return the target with the dtypes among these in which it takes the simplest step.

    Raises
    ------
    NotCallableError
        Where it does not work in any of them.
    """
    taken, refused = [], dict[str, str]()
    for dtype in given.get("dtypes", dtypes):
        try:
            with np.errstate(all="ignore"):
                out = target.call(target.placed([np.ones(1, dtype)]), ((0,),))
            if out[0].dtype == dtype or dtype != "float64" or target.make is None:
                taken.append(dtype)  # but for optax, where float64 cannot always be had
        except (Exception, SystemExit) as error:
            refused[dtype] = _told(error, f"on the simplest example, g = [1.0] of {dtype}, it")
    if not taken:
        raise NotCallableError(next(iter(refused.values()), "it takes none of float16, float32 and float64"))
    return replace(target, dtypes=tuple(taken), refused=refused)


def _rate(moved: float, lr: float | None, name: str) -> float:
    """Return the rate of a subject that moves x = 0 by this where g = 1."""
    if lr is not None:
        return lr
    if not math.isfinite(moved) or moved == 0:
        raise ValueError(
            f"the learning rate of {name} cannot be inferred: where g = 1, a block of one entry, x = 0 is moved by "
            f"{abs(moved)}; give it as lr="
        )
    return _tidy(abs(moved), 1e-6, digits=3)  # an ε in the norm is not the rate's


def _with_momentum(target: Target, given: Mapping[str, Any], lr: float | None = None, *, infer: bool = False) -> Target:
    """Infer μ, and the rate of a function, from the three first steps along g = 1, each taken from x = 0.

    Heavy ball: lr·(1, 1 + μ, 1 + μ + μ²); Nesterov: lr·(1 + μ, 1 + μ + μ², 1 + μ + μ² + μ³).
    """
    dtype = "float64" if "float64" in target.dtypes else target.dtypes[0]
    stepping, steps = target.start(target.placed([np.zeros(1, dtype)]), 1.0, ((0,),)), []
    for _ in range(3):
        with np.errstate(all="ignore"):
            stepping.step(target.placed([np.ones(1, dtype)]))
        steps.append(-float(stepping.params[0][0]))
        stepping.params[0][...] = 0.0
    first, grown, last = steps[0], steps[1] - steps[0], steps[2] - steps[1]
    μ = _tidy(last / grown, 1e-4) if grown and first and 0 < last / grown < 1 else 0.0
    close = functools.partial(math.isclose, rel_tol=1e-3)
    ahead = int(μ > 0 and close(grown * (1 + μ), first * μ * μ))
    if not ahead and not close(grown, first * μ):
        μ = 0.0
    if infer:
        moved = first / (1 + μ) if ahead else first
        target = replace(target, rate=_rate(moved, lr, target.name))
    if "momentum" in given:
        return target
    why = f"Nesterov's first direction is 1 + μ = {1 + μ:g} times as long"
    reasons = {**dict.fromkeys(LENGTHENED if ahead else (), why), **target.by_design}
    return replace(target, momentum=μ, ahead=ahead, by_design=reasons)


LENGTHENED = ("unit-norm", "coordinate-is-sign", "inner-product", "idempotence")
"""What NG does not keep where its first direction is not of length 1."""


def _tidy(value: float, accuracy: float, digits: int = 6) -> float:
    """Return the number of few digits that a measured one stands for, if there is one so near."""
    tidy = float(f"{value:.{digits}g}")
    return tidy if abs(tidy - value) <= accuracy * abs(value) else value


# Subjects as optimizers


class _Normalizer:
    """A function of one list of arrays, what it returns looked at."""

    def __init__(self, function: Callable[[list[Array]], Any]) -> None:
        self.function = function

    def __call__(self, blocks: list[Array]) -> list[Array]:
        out = self.function(blocks)
        if not isinstance(out, (list, tuple)):
            raise TypeError(f"a normalizer returns a list of arrays, one a block; a {type(out).__name__} came back")
        return [u if hasattr(u, "dtype") else np.asarray(u) for u in out]


class _Plain:
    """A function step(params, grads, state) → (params, state), with what it is to be given next."""

    def __init__(self, function: Callable[..., Any], params: list[Array], device: str) -> None:
        self.function, self.params, self.device = function, params, device
        self.state: Any = None

    def step(self, grads: list[Array]) -> None:
        """Ask for one step; what comes back is copied, so that nothing is shared with the state."""
        out = self.function(list(self.params), grads, self.state)
        if not (isinstance(out, (tuple, list)) and len(out) == 2 and isinstance(out[0], (list, tuple))):
            came = f"a {type(out).__name__}"
            if isinstance(out, (tuple, list)):
                came += f" of {len(out)}: {', '.join(type(v).__name__ for v in out)}"
            raise TypeError(f"step(params, grads, state) returns (params, state), params a list of arrays; {came} came")
        if len(out[0]) != len(self.params):
            raise TypeError(f"step returned {len(out[0])} arrays of parameters for {len(self.params)}")
        self.params = [np.array(p) if self.device == "cpu" else asarray(p, device=self.device).copy() for p in out[0]]
        self.state = out[1]

    def state_dict(self) -> Any:
        """Return a copy of the function's own state."""
        return copy.deepcopy(self.state)

    def load_state_dict(self, saved: Any) -> None:
        """Hand a saved state to the next step."""
        self.state = copy.deepcopy(saved)


class _Torch:
    """A PyTorch optimizer on parameters of its own, which are brought here after each step."""

    def __init__(self, build: Callable[[list[Any]], Any], params: list[Array], lr: Rate) -> None:
        torch: Any = sys.modules["torch"]
        self.params, self.lr, self.steps = params, lr, 0
        self.torch = torch
        self.tensors = [torch.nn.Parameter(torch.from_numpy(p.copy())) for p in params]
        self.optimizer = build(self.tensors)

    def step(self, grads: list[Array]) -> None:
        """Take one step; the gradients share memory with ``.grad``, so that it shows if they are written to."""
        lr = self.lr(self.steps) if callable(self.lr) else self.lr
        for group in self.optimizer.param_groups:
            if "lr" in group:
                group["lr"] = lr
        for t, p, g in zip(self.tensors, self.params, grads, strict=True):
            t.data.copy_(self.torch.from_numpy(p))
            t.grad = self.torch.from_numpy(g)
        self.optimizer.step()
        for t, p in zip(self.tensors, self.params, strict=True):
            p[...] = t.detach().numpy()
        self.steps += 1

    def state_dict(self) -> Any:
        """Return a copy of the optimizer's state, and the number of steps that a schedule goes by."""
        return copy.deepcopy(self.optimizer.state_dict()), self.steps

    def load_state_dict(self, saved: Any) -> None:
        """Continue from a saved state."""
        state, self.steps = saved
        self.optimizer.load_state_dict(copy.deepcopy(state))


def _summed(grads: list[list[Array]], weights: list[float]) -> list[Array]:
    """Return Σ (n_k/Σn)·g_k as ``backward`` of micro-batches adds it up in ``.grad``."""
    torch: Any = sys.modules["torch"]
    whole = sum(weights)
    out = [torch.zeros_like(torch.from_numpy(g)) for g in grads[0]]
    for micro, n in zip(grads, weights, strict=True):
        for total, g in zip(out, micro, strict=True):
            total.add_(torch.from_numpy(g), alpha=n / whole)
    return [t.numpy() for t in out]


def _is_transformation(subject: Any) -> bool:
    return isinstance(subject, tuple) and {"init", "update"} <= set(getattr(subject, "_fields", ()))


@dataclass
class _Optax:
    """An optax transformation, made anew for each step's rate, on NumPy parameters."""

    make: Callable[[float], Any]
    params: list[Array]
    lr: Rate
    direction: bool = False

    def __post_init__(self) -> None:
        self.steps, self.state = 0, None

    @property
    def empty(self) -> bool:
        """Whether it remembers nothing."""
        return not sys.modules["jax"].tree_util.tree_leaves(self.state)

    def update(self, grads: list[Array]) -> list[Array]:
        """Return what the transformation makes of a gradient; float64 in float64, if jax can."""
        jax: Any = sys.modules["jax"]
        lr = self.lr(self.steps) if callable(self.lr) else self.lr
        x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental").enable_x64
        with x64(True) if grads[0].dtype == np.float64 else contextlib.nullcontext():
            transformation = self.make(lr)
            params, g = ([jax.numpy.asarray(a) for a in part] for part in (self.params, grads))
            state = transformation.init(params) if self.state is None else self.state
            updates, self.state = transformation.update(g, state, params)
            out = [np.asarray(u) for u in updates]
        self.steps += 1
        return out

    def step(self, grads: list[Array]) -> None:
        """Add the update, or take the rate times the direction away."""
        lr = self.lr(self.steps) if callable(self.lr) else self.lr
        for p, u in zip(self.params, self.update(grads), strict=True):
            p[...] = p - np.asarray(lr * u, u.dtype) if self.direction else p + u

    def state_dict(self) -> Any:
        """Return the state, which is never written to, and the number of steps that a schedule goes by."""
        return self.state, self.steps

    def load_state_dict(self, saved: Any) -> None:
        """Continue from a saved state."""
        self.state, self.steps = saved


__all__ = ["ACCEPTED", "NotCallableError", "Stepping", "adapt", "find"]
