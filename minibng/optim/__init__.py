"""Optimizers: a normalizer, then a step rule, then a learning rate.

``AdamNG(params, lr=1e-3)`` is ``Adam(params, lr=1e-3, normalize="unit")``; every rule (SGD, Momentum, Nesterov,
AdaGrad, RMSProp, AdaDelta, Adam, AMSGrad, NAdam) has the forms …, …Clip, …NG and …NGAdaptive. Relatives, for
comparison: SignSGD, LARS, LAMB, NovoGrad.
"""

from minibng.names import UnknownNameError, choose
from minibng.optim import rules, schedules
from minibng.optim.accumulate import Accumulator
from minibng.optim.constraints import max_norm
from minibng.optim.forms import NamedOptimizer, by_class, class_names, get, names, register, registered, unregister
from minibng.optim.normalize import NonFiniteError, normalize_blocks
from minibng.optim.optimizer import Optimizer
from minibng.optim.relatives import LAMB, LARS, RELATIVES, NovoGrad, SignSGD
from minibng.optim.schedules import constant, cosine, inverse_sqrt, sequence, step_decay, warm_up

__all__ = [
    "LAMB",
    "LARS",
    "RELATIVES",
    "Accumulator",
    "NamedOptimizer",
    "NonFiniteError",
    "NovoGrad",
    "Optimizer",
    "SignSGD",
    "constant",
    "cosine",
    "get",
    "inverse_sqrt",
    "max_norm",
    "names",
    "normalize_blocks",
    "register",
    "registered",
    "rules",
    "schedules",
    "sequence",
    "step_decay",
    "unregister",
    "warm_up",
]


def __getattr__(name: str) -> type[Optimizer]:
    """Find the optimizers, which are made in a loop."""
    if name.startswith("__"):
        raise AttributeError(name)
    try:
        return by_class(name)
    except KeyError:
        pass
    try:
        choose(dict.fromkeys([*class_names(), *__all__]), name, "name in minibng.optim")
    except UnknownNameError as error:
        raise AttributeError(str(error)) from None
    raise AttributeError(name)


def __dir__() -> list[str]:
    return sorted({*__all__, *class_names()})
