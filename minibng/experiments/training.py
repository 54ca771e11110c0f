"""What the experiments share when they train: schedules, data, and how often norms are kept."""

from __future__ import annotations

from minibng import optim
from minibng.optim.schedules import Schedule

SCHEDULES = {"constant": "one rate throughout", "step": "a tenth of it from half of all steps on, a hundredth from 3/4"}
DECAY_AT, DECAY = (0.5, 0.75), 0.1
"""Step decay: the rate is multiplied by DECAY after these fractions of all steps."""

ROWS = 200
"""About how many steps of a long run have their norms kept."""


def schedule(name: str, lr: float, steps: int) -> Schedule:
    """Return a constant rate, or one with two decays on the way through ``steps`` steps."""
    if name == "constant":
        return optim.constant(lr)
    return optim.step_decay(lr, sorted({max(1, int(steps * f)) for f in DECAY_AT}), DECAY)


def norms_every(steps: int) -> int:
    """Return every how many steps to keep norms, so that a run keeps at most about `ROWS` of them.

    Examples
    --------
    >>> norms_every(96), norms_every(64000)
    (1, 320)
    """
    return max(1, -(-steps // ROWS))
