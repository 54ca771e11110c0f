"""Laws of block normalization as objects, to be tried on minibng, on a function, or on an optimizer of one's own.

``run(LAWS["unit-norm"], Target.of(optim.SGDNG))`` looks for a counterexample with Hypothesis, always the same way, and
tells the simplest in words. Hypothesis (extra ``verify``) is needed only when a law is run.
"""

from minibng.verify.example import Gradient, Violation, Walk
from minibng.verify.laws import LAWS, Law
from minibng.verify.search import Counterexample, run, search
from minibng.verify.target import Stepping, Target

__all__ = [
    "LAWS",
    "Counterexample",
    "Gradient",
    "Law",
    "Stepping",
    "Target",
    "Violation",
    "Walk",
    "run",
    "search",
]
