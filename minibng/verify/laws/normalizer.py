"""I1 to I8: the normalizer, and the first direction of whatever is built on it."""

from __future__ import annotations

import numpy as np

from minibng.verify import bounds, strategies
from minibng.verify.example import Gradient, arrow, at_most, identical, violation
from minibng.verify.laws.law import DERIVED, PAPER, joined_blocks, law, many_blocks
from minibng.verify.laws.measuring import (
    arithmetic,
    close,
    length,
    near,
    nonzero,
    reflected,
    rescaled,
    straight,
    subnormal,
)
from minibng.verify.target import Target


@law(
    "I1",
    "g^i ≠ 0 ⇒ ‖N(g)^i‖₂ = 1",
    PAPER,
    strategies.gradients,
    bounds.unit,
    proof="‖g/‖g‖‖ = ‖g‖/‖g‖. An implementation that first divides by a power of two near the largest entry has "
    "all squares in range, so that this holds for subnormal and for huge entries too; for one entry ‖g‖ = "
    "|g| is exact.",
)
def unit_norm(target: Target, gradient: Gradient) -> None:
    """Blocks that are not zero have a direction of length 1, blocks of one entry exactly ±1."""
    a = arithmetic(target, gradient.dtype)
    for i, g, u in nonzero(gradient, target.directions(gradient)):
        at_most(abs(length(u) - 1), bounds.unit(a, g.size), f"| ‖u^{i}‖ − 1 |", arrow("g", g, "u", u))


@law(
    "I1",
    "|g| < ∞ ⇒ |N(g)| < ∞",
    DERIVED,
    strategies.gradients,
    proof="|g_j| ≤ ‖g‖, so that no entry of N(g) is above 1; the norm itself, which may be beyond the largest "
    "number, is kept as a root and an exponent.",
)
def finite(target: Target, gradient: Gradient) -> None:
    """Finite gradients, from the smallest subnormal number to the largest finite one, have finite directions."""
    for i, (g, u) in enumerate(zip(gradient.vectors(), target.directions(gradient), strict=True)):
        wrong = float((~np.isfinite(u)).sum())
        at_most(wrong, 0, f"the number of entries of u^{i} that are not finite", arrow("g", g, "u", u))


@law(
    "I1",
    "g^i ∈ ℝ ⇒ N(g)^i = sign(g^i)",
    DERIVED,
    strategies.coordinates,
    bounds.unit,
    proof="‖g‖ = |g| for a block of one entry, and g/|g| = sign(g): one block a coordinate is signSGD. Nothing "
    "is rounded.",
)
def coordinate_is_sign(target: Target, gradient: Gradient) -> None:
    """Blocks of one entry have its sign as their direction: one block a coordinate is signSGD."""
    bound = bounds.unit(arithmetic(target, gradient.dtype), 1)
    for i, (g, u) in enumerate(zip(gradient.vectors(), target.directions(gradient), strict=True)):
        near(u, np.sign(g), bound, f"u^{i} and sign(g^{i})", arrow("g", g, "u", u))


@law(
    "I2",
    "N(c∘g) = N(g), c^i > 0",
    DERIVED,
    strategies.factors,
    bounds.scaled,
    proof="c·g/‖c·g‖ = c·g/(c·‖g‖): a positive factor cancels, in each block its own.",
)
def scale_invariance(target: Target, gradient: Gradient, factors: tuple[float, ...]) -> None:
    """Multiplying each block of the gradient by a positive number of its own does not change the direction."""
    a, vectors = arithmetic(target, gradient.dtype), gradient.vectors()
    scaled = gradient.with_vectors([g * np.longdouble(c) for g, c in zip(vectors, factors, strict=True)])
    triples = zip(target.directions(gradient), target.directions(scaled), scaled.vectors(), strict=True)
    for i, (u, v, h) in enumerate(triples):
        if not subnormal(h, bounds.Arithmetic(gradient.dtype)):
            lines = arrow("g", vectors[i], "u", u), arrow("c·g", h, "u", v)
            close(v, u, bounds.scaled(a, u), f"u(c·g)^{i} and u(g)^{i}, c = {factors[i]:g}", *lines)


@law(
    "I2",
    "N(2^k∘g) = N(g)",
    DERIVED,
    strategies.powers_of_two,
    proof="Powers of two change exponents only: every intermediate result of g ↦ g/‖g‖ is multiplied by a power "
    "of two exactly, or not at all, and rounds alike.",
)
def power_of_two_invariance(target: Target, gradient: Gradient, exponents: tuple[int, ...]) -> None:
    """Multiplying blocks by powers of two, where that is exact, does not change one bit of the direction."""
    # Exact for N as well: none of its entries subnormal, of which AdamNG, say, makes normal ones.
    a, shifted = arithmetic(target, gradient.dtype), gradient.shifted(exponents)
    quads = zip(
        target.directions(gradient), target.directions(shifted), gradient.vectors(), shifted.vectors(), strict=True
    )
    for i, (u, v, g, h) in enumerate(quads):
        if not (subnormal(u, a) or subnormal(straight(g), a)):
            k = exponents[i]
            identical(v, u, f"u(2^{k}·g)^{i} = u(g)^{i}", arrow("g", g, "u", u), arrow(f"2^{k}·g", h, "u", v))


@law(
    "I3",
    "⟨N(g), g⟩ = Σᵢ ‖g^i‖₂",
    DERIVED,
    strategies.gradients,
    bounds.inner,
    proof="⟨g/‖g‖, g⟩ = ‖g‖²/‖g‖ in each block. So −N(g) is the steepest descent for max ‖x^i‖, whose dual norm "
    "is the sum.",
)
def inner_product(target: Target, gradient: Gradient) -> None:
    """Along the direction the loss falls at the rate Σ‖g^i‖, every block adding its norm."""
    a = arithmetic(target, gradient.dtype)
    for i, g, u in nonzero(gradient, target.directions(gradient)):
        h = rescaled(g)
        error = abs(np.dot(u.astype(np.longdouble), h) / length(h) - 1)
        at_most(error, bounds.inner(a, g.size), f"| ⟨u^{i}, g^{i}⟩/‖g^{i}‖ − 1 |", arrow("g", g, "u", u))


@law(
    "I3",
    "cos(u^i, g^i) = 1",
    DERIVED,
    strategies.gradients,
    bounds.chord,
    proof="A positive multiple of g has the direction of g, whatever norm divides it and whatever length it is "
    "then given.",
)
def same_direction(target: Target, gradient: Gradient) -> None:
    """Each block's direction and its gradient have cosine 1."""
    a = arithmetic(target, gradient.dtype)
    for i, g, u in nonzero(gradient, target.directions(gradient)):
        bound = bounds.chord(a, g.size, float(length(u)))
        at_most(
            length(straight(u) - straight(g)),
            bound,
            f"√(2 − 2 cos), cos the cosine of u^{i} and g^{i},",
            arrow("g", g, "u", u),
        )


@law(
    "I4",
    "N(−g) = −N(g)",
    DERIVED,
    strategies.gradients,
    proof="A change of sign is exact and the squares are the same, so that every later result is the same but "
    "for its sign.",
)
def sign_symmetry(target: Target, gradient: Gradient) -> None:
    """Opposite gradients have opposite directions."""
    opposite = gradient.with_vectors([-g for g in gradient.vectors()])
    triples = zip(target.directions(gradient), target.directions(opposite), gradient.vectors(), strict=True)
    for i, (u, v, g) in enumerate(triples):
        identical(v, -u, f"u(−g)^{i} = −u(g)^{i}", arrow("g", g, "u", u), arrow("−g", -g, "u", v))


@law(
    "I5",
    "N(N(g)) = N(g)",
    DERIVED,
    strategies.gradients,
    bounds.twice,
    proof="The norm of N(g)^i is 1, or 0, and dividing by 1 changes nothing.",
)
def idempotence(target: Target, gradient: Gradient) -> None:
    """Directions are normalized already: normalizing twice is normalizing once."""
    a, once = arithmetic(target, gradient.dtype), target.directions(gradient)
    again = target.directions(gradient.with_vectors(once))
    for i, (g, u, v) in enumerate(zip(gradient.vectors(), once, again, strict=True)):
        bound = bounds.twice(a, u.size) * max(1.0, float(length(u)))
        near(v, u, bound, f"u(u(g))^{i} and u(g)^{i}", arrow("g", g, "u", u), arrow("u", u.astype(g.dtype), "u", v))


@law(
    "I6",
    "g^i = h^i ⇒ N(g)^i = N(h)^i",
    PAPER,
    strategies.one_kept,
    posed=many_blocks,
    proof="N(g)^i is a function of g^i alone. Exactly the same numbers are computed.",
)
def block_independence(target: Target, gradient: Gradient, other: Gradient, kept: int) -> None:
    """Blocks have directions of their own: what the gradients of other blocks are does not matter."""
    u, v = target.directions(gradient)[kept], target.directions(other)[kept]
    g = gradient.vectors()[kept]
    what = f"u^{kept} among the blocks of two gradients that agree in block {kept}"
    identical(u, v, what, arrow("g", g, "u", u), arrow("g among others", g, "u", v))


@law(
    "I6",
    "N(g ∘ π) = N(g) ∘ π",
    DERIVED,
    strategies.seeded,
    bounds.ruled,
    proof="Blocks are treated alike, and a norm does not depend on the order of its terms; to rounding, since "
    "sums may be cut into other pieces.",
)
def block_permutation(target: Target, gradient: Gradient, seed: int) -> None:
    """Tensors and blocks in another order have the same directions, in that order."""
    order = np.random.default_rng(seed).permutation(len(gradient.tensors))[::-1]
    place = {int(i): k for k, i in enumerate(order)}
    blocks = [tuple(place[i] for i in block) for block in gradient.blocks]
    turned = sorted(range(len(blocks)), key=lambda i: min(blocks[i]))
    shuffled = Gradient(tuple(gradient.tensors[i] for i in order), tuple(blocks[i] for i in turned))
    before, after = target.directions(gradient), target.directions(shuffled)
    a, vectors = arithmetic(target, gradient.dtype), gradient.vectors()
    for k, i in enumerate(turned):
        bound = bounds.ruled(a, before[i].size) * max(1.0, float(length(before[i])))
        lines = arrow("g", vectors[i], "u", before[i]), arrow("g in another place", vectors[i], "u", after[k])
        near(after[k], before[i], bound, f"u^{i} in another place and u^{i}", *lines)


@law(
    "I6",
    "blocks = {all} ⇒ N(g) = N(g^1 ⊕ … ⊕ g^n)",
    PAPER,
    strategies.gathered,
    bounds.ruled,
    posed=joined_blocks,
    proof="The square of the norm of a block is the sum of those of its tensors: a block is one vector, however "
    "it is cut. One block for all is normalizing globally.",
)
def one_block_is_global(target: Target, gradient: Gradient) -> None:
    """All tensors as one block have the direction of one tensor that holds the entries of all."""
    (g,) = gradient.vectors()
    (u,), (v,) = target.directions(gradient), target.directions(Gradient((g,), ((0,),)))
    bound = bounds.ruled(arithmetic(target, g.dtype), g.size) * max(1.0, float(length(v)))
    lines = arrow("g, several tensors", g, "u", u), arrow("g, one tensor", g, "u", v)
    near(u, v, bound, "the direction of one block and that of one tensor", *lines)


@law(
    "I7",
    "N(Qg^i) = Q N(g^i), QᵀQ = 1",
    DERIVED,
    strategies.mirrors,
    bounds.mirrored,
    proof="‖Qg‖ = ‖g‖, so that Qg/‖Qg‖ = Q(g/‖g‖). Reflections generate all orthogonal maps.",
)
def orthogonal_equivariance(target: Target, gradient: Gradient, seed: int) -> None:
    """Reflecting the gradient of a block in a plane reflects its direction."""
    rng, a = np.random.default_rng(seed), arithmetic(target, gradient.dtype)
    normals = [rng.integers(-3, 4, g.size) for g in gradient.vectors()]
    mirrored = gradient.with_vectors([reflected(g, n) for g, n in zip(gradient.vectors(), normals, strict=True)])
    after, images = target.directions(mirrored), mirrored.vectors()
    for i, g, u in nonzero(gradient, target.directions(gradient)):
        ell = float(length(u))
        bound = bounds.mirrored(a, g.size, float(length(g))) * ell + 2 * bounds.vanished(a, g.size, ell)
        lines = arrow("g", g, "u", u), arrow("Qg", images[i], "u", after[i]), f"normal of the plane: {normals[i]}"
        near(after[i], reflected(u, normals[i]), bound, f"u(Qg)^{i} and Qu(g)^{i}", *lines)


@law(
    "I7",
    "u(Pg^i) = P u(g^i), P a signed permutation",
    DERIVED,
    strategies.seeded,
    bounds.ruled,
    proof="The norms keep their values and every rule treats all entries alike and is odd in each.",
)
def signed_permutation(target: Target, gradient: Gradient, seed: int) -> None:
    """Permuting the entries of a block, and changing the signs of some, does the same to its direction."""
    rng, a = np.random.default_rng(seed), arithmetic(target, gradient.dtype)
    orders = [rng.permutation(g.size)[::-1] for g in gradient.vectors()]
    signs = [rng.choice((-1, 1), g.size).astype(g.dtype) for g in gradient.vectors()]
    moved = [s * g[order] for g, s, order in zip(gradient.vectors(), signs, orders, strict=True)]
    after = target.directions(gradient.with_vectors(moved))
    for i, (g, u) in enumerate(zip(gradient.vectors(), target.directions(gradient), strict=True)):
        bound = bounds.ruled(a, u.size) * max(1.0, float(length(u)))
        lines = arrow("g", g, "u", u), arrow("Pg", moved[i], "u", after[i])
        near(after[i], signs[i] * u[orders[i]], bound, f"u(Pg)^{i} and Pu(g)^{i}", *lines)


@law(
    "I8",
    "g^i = 0 ⇒ N(g)^i = 0",
    DERIVED,
    strategies.gradients_or_none,
    proof="There is no direction to point in, and 0 is the only one that I4 allows.",
)
def zero_block(target: Target, gradient: Gradient) -> None:
    """Zero blocks have a zero direction: no NaN, no ε, no noise; empty blocks an empty one."""
    for i, (g, u) in enumerate(zip(gradient.vectors(), target.directions(gradient), strict=True)):
        if not g.any():
            identical(u, np.zeros_like(u), f"u^{i} = 0 where g^{i} = 0", arrow("g", g, "u", u))


@law(
    "I8",
    "g^i ≠ 0 ⇒ N(g)^i ≠ 0",
    DERIVED,
    strategies.gradients,
    proof="The largest entry of g^i is at least ‖g^i‖/√d, and so at least 1/√d after the division: only zero is zero.",
)
def nonzero_stays_nonzero(target: Target, gradient: Gradient) -> None:
    """Blocks that are not zero have a direction that is not: nothing is lost, however small or large it is."""
    a = arithmetic(target, gradient.dtype)
    for i, g, u in nonzero(gradient, target.directions(gradient)):
        large = a.extra == 0 or np.abs(g).max() > 2 * a.lost  # else a rate of its own may have rounded u = g to zero
        if large and not u.any():
            raise violation(f"u^{i} is zero where g^{i} is not", arrow("g", g, "u", u))
