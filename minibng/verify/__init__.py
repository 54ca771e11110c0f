"""Laws of block normalization as objects, to be tried on minibng, on a function, or on an optimizer of one's own.

``check("adam-ng")``, ``check(step)`` or ``check(torch.optim.Adam)`` tries all laws and returns a report; it looks for
counterexamples with Hypothesis, always the same way, and tells the simplest. Hypothesis (extra ``verify``) is needed
only when a law is run.
"""

from minibng.verify.adapters import adapt
from minibng.verify.certificates import CERTIFICATES, Certificate
from minibng.verify.convex import Descent, check_convex, record
from minibng.verify.example import Batch, Gradient, Violation, Walk
from minibng.verify.laws import LAWS, Law
from minibng.verify.problems import Problem, least_squares, logistic, random_problem
from minibng.verify.report import Report, Result, check
from minibng.verify.search import Counterexample, run, search
from minibng.verify.target import Stepping, Target

__all__ = [
    "CERTIFICATES",
    "LAWS",
    "Batch",
    "Certificate",
    "Counterexample",
    "Descent",
    "Gradient",
    "Law",
    "Problem",
    "Report",
    "Result",
    "Stepping",
    "Target",
    "Violation",
    "Walk",
    "adapt",
    "check",
    "check_convex",
    "least_squares",
    "logistic",
    "random_problem",
    "record",
    "run",
    "search",
]
