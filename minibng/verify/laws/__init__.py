"""The laws of block normalization: what must hold for every gradient, each law a few lines.

g = (g^1, …, g^B) is a gradient in blocks, block i with d entries; N is the normalizer, N(g)^i = g^i/‖g^i‖₂; u is
the direction of an update x ← x − lr·u. The first direction of SGD and heavy ball behind NG is N(g) itself, so that
the laws of N are tried on optimizers too. A law's first line says it in words, its check measures, and a bound from
`bounds` says how far rounding alone may go. Where there is no bound, "equal" means bit for bit, but for the sign of
a zero.
"""

from minibng.verify.laws import normalizer, steps, trajectories
from minibng.verify.laws.law import ENTERED, Law, law


def _place(one: Law) -> int:
    return int(one.number[1:]) if one.number[1:] else 99


LAWS: dict[str, Law] = {one.name: one for one in sorted(ENTERED.values(), key=_place)}
"""Name → law, in the order of their numbers."""

__all__ = ["LAWS", "Law", "law", "normalizer", "steps", "trajectories"]
