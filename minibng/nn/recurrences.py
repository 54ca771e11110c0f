"""Recurrences over whole sequences, each one operation: `rnn`, `lstm` and `gru`.

Inside, everything is turned around: x (N, T, D) is worked on as (D, T, N), so that the gates of a step are blocks of
memory and N sequences are N columns. What comes out, (N, T, H), is a view of memory that lies this way, and so are the
gradients; layers that follow one another never copy. All inputs go through one matrix product before the loop, and
every gradient of a weight is one product behind it. In the loop forward, while the gates of a step are in the cache,
their derivatives are made too, so that a step back is a few multiplications and one product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minibng.autodiff import fused, ops, raw
from minibng.backend import Array, backend_of
from minibng.nn.activations import sigmoid

FEW = 4
"""Steps for which U is multiplied as it lies; for more of them it is worth a transposed copy."""

LINE = 16
"""Entries of a row that are transposed at a time: in float32 a cache line."""


def _columns(x: Array, mask: Array | None = None) -> Array:
    """Return (N, T, D) as (D, T·N), a view where memory lies so; masked entries, whatever they hold, are zeros."""
    if mask is not None:
        x = np.where(mask[:, :, None], x, 0)
    n, steps, size = x.shape
    return x.transpose(2, 1, 0).reshape(size, steps * n)


def _start(
    x: Array, w: Array, u: Array, b: Array, h: Array | None, mask: Array | None
) -> tuple[Array, Array, Array, Array]:
    """Return x as columns, xW + b as (G·H, T, N), Uᵀ, and memory (H, T+1, N) for h, of which the first is set."""
    n, steps, _ = x.shape
    xs = _columns(x, mask)
    z = np.matmul(w.T, xs)
    z += b[:, None]
    states = backend_of(x).xp.empty((len(u), steps + 1, n), dtype=x.dtype)
    states[:, 0] = 0 if h is None else h.T
    return xs, z.reshape(len(b), steps, n), _turned(u, steps), states


def _turned(u: Array, steps: int) -> Array:
    """Return Uᵀ, copied so that its rows lie in memory one after another; for few steps a view."""
    if steps <= FEW or not backend_of(u).on_host:
        return u.T
    turned = np.empty(u.shape[::-1], dtype=u.dtype)
    for k in range(0, len(u), LINE):  # a cache line of each row at a time
        turned[:, k : k + LINE] = u[k : k + LINE].T
    return turned


def _steps(mask: Array | None, steps: int) -> Any:
    """Return for each step which of the N columns are real, (N,), or None."""
    return [None] * steps if mask is None else [mask[:, t] for t in range(steps)]


def _gradients(
    argnums: Sequence[int], dz: Array, dr: Array, x: Array, xs: Array, states: Array, w: Array
) -> tuple[Array | None, ...]:
    """Return the gradients of x, W, U and b from those of xW + b and of hU, each (G·H, T·N)."""
    before = states[:, :-1]
    return (
        np.matmul(w, dz).reshape(x.shape[::-1]).transpose(2, 1, 0) if 0 in argnums else None,
        np.matmul(xs, dz.T) if 1 in argnums else None,
        np.matmul(before.reshape(len(before), dr.shape[1]), dr.T) if 2 in argnums else None,
        np.sum(dz, axis=1) if 3 in argnums else None,
    )


def _outputs(states: Array, mask: Array | None) -> tuple[Array, Array]:
    """Return the outputs of all steps, (N, T, H), zeros where masked, and the last state (N, H)."""
    y = states[:, 1:].transpose(2, 1, 0)
    return y if mask is None else np.where(mask[:, :, None], y, 0), states[:, -1].T


def _chosen(real: Array | None, new: Array, old: Array) -> Array:
    """Return the new state where the step is real, else the old one; traced or plain, (N, H)."""
    return new if real is None else ops.where(real[:, None], new, old)


def _zeros(x: Array, size: int) -> Array:
    """Return the state (N, H) before the first step of x."""
    return backend_of(raw(x)).xp.zeros((x.shape[0], size), dtype=x.dtype)


def _sigmoid(a: Array) -> None:
    """Overwrite a by σ(a) = 1/(1 + e⁻ᵃ); where e⁻ᵃ overflows that is 0."""
    np.negative(a, a)
    np.exp(a, a)
    np.add(a, 1, a)
    np.divide(1, a, a)


# LSTM ----------------------------------------------------------------------------------------------------------------


@np.errstate(over="ignore")
def _lstm_forward(
    x: Array, w: Array, u: Array, b: Array, h: Array | None, c: Array | None, mask: Array | None, keep: bool = True
) -> tuple[Any, Any]:
    n, steps, _ = x.shape
    size, xp, dtype = len(u), backend_of(x).xp, x.dtype
    xs, z, ut, states = _start(x, w, u, b, h, mask)
    sums, product = xp.empty((2, 4 * size, n), dtype=dtype)
    part, tanh, before, now = xp.empty((4, size, n), dtype=dtype)
    i, f, g, o = a = sums.reshape(4, size, n)
    now[...] = 0 if c is None else c.T
    factors = xp.empty((steps, 6, size, n), dtype=dtype) if keep else None
    for t, real in enumerate(_steps(mask, steps)):
        np.matmul(ut, states[:, t], product)
        np.add(product, z[:, t], sums)
        _sigmoid(a[:2])
        _sigmoid(o)
        np.tanh(g, g)
        before, now = now, before
        np.multiply(f, before, now)
        np.multiply(i, g, part)
        np.add(now, part, now)
        np.tanh(now, tanh)
        out = states[:, t + 1]
        np.multiply(o, tanh, out)
        if factors is not None:
            _lstm_factors(factors[t], a, before, tanh, real)
        if real is not None:
            now[...] = np.where(real, now, before)
            out[...] = np.where(real, out, states[:, t])
    return (*_outputs(states, mask), now.T), (xs, states, factors)


def _lstm_factors(factors: Array, a: Array, c: Array, tanh: Array, real: Array | None) -> None:
    """Write by what the cotangent of c, for the fourth that of h, is multiplied to give those of xW + hU + b.

    The fifth factor takes the cotangent of h to c, and the sixth that of c to the step before.
    """
    i, f, g, o = a
    np.multiply(a, a, factors[:4])
    np.subtract(a[:2], factors[:2], factors[:2])
    np.multiply(factors[0], g, factors[0])
    np.multiply(factors[1], c, factors[1])
    np.subtract(1, factors[2], factors[2])
    np.multiply(factors[2], i, factors[2])
    np.subtract(o, factors[3], factors[3])
    np.multiply(factors[3], tanh, factors[3])
    np.multiply(tanh, tanh, factors[4])
    np.subtract(1, factors[4], factors[4])
    np.multiply(factors[4], o, factors[4])
    factors[5] = f
    if real is not None:
        factors[:5] *= real
        factors[5] = np.where(real, f, 1)


def _lstm_backward(
    g: tuple[Array, Array, Array],
    y: Any,
    residual: Any,
    argnums: Sequence[int],
    x: Array,
    w: Array,
    u: Array,
    b: Array,
    h: Array | None,
    c: Array | None,
    mask: Array | None,
    keep: bool = True,
) -> list[Any]:
    xs, states, factors = residual
    n, steps, _ = x.shape
    size, xp = len(u), backend_of(x).xp
    gy = _columns(g[0], mask).reshape(size, steps, n)
    dh, dc = g[1].T.copy(), g[2].T.copy()
    part, dz = xp.empty((size, n), dtype=x.dtype), xp.empty((4, size, steps, n), dtype=x.dtype)
    flat = dz.reshape(4 * size, steps, n)
    for t, real in reversed(list(enumerate(_steps(mask, steps)))):
        factor, here = factors[t], dz[:, :, t]
        np.add(dh, gy[:, t], dh)
        np.multiply(dh, factor[4], part)
        np.add(dc, part, dc)
        np.multiply(factor[:3], dc, here[:3])
        np.multiply(factor[3], dh, here[3])
        np.multiply(dc, factor[5], dc)
        held = None if real is None else np.where(real, 0, dh)
        np.matmul(u, flat[:, t], dh)
        if held is not None:
            dh += held
    flat = dz.reshape(4 * size, steps * n)
    return [*_gradients(argnums, flat, flat, x, xs, states, w), dh.T, dc.T, None]


@fused(_lstm_forward, _lstm_backward)
def lstm(
    x: Array, w: Array, u: Array, b: Array, h: Array | None, c: Array | None, mask: Array | None, keep: bool = True
) -> tuple[Array, Array, Array]:
    """Return the outputs (N, T, H) of x (N, T, D) and the last h and c, (N, H).

    From h and c (None: zeros) on, (i, f, g, o) = xW + hU + b, c ← σ(f)·c + σ(i)·tanh(g), h ← σ(o)·tanh(c); W (D, 4H),
    U (H, 4H), b (4H,). Where the mask (N, T), or None, is False the state stays and the output is 0. ``keep`` is
    whether derivatives will be asked for.
    """
    steps, size = x.shape[1], u.shape[0]
    h, c = [_zeros(x, size) if s is None else s for s in (h, c)]
    outputs = []
    for t in range(steps):
        real = None if mask is None else mask[:, t]
        z = _chosen(real, x[:, t], 0) @ w + h @ u + b
        i, f, g, o = (z[:, k * size : (k + 1) * size] for k in range(4))
        c_new = sigmoid(f) * c + sigmoid(i) * ops.tanh(g)
        h_new = sigmoid(o) * ops.tanh(c_new)
        outputs.append(_chosen(real, h_new, 0))
        h, c = _chosen(real, h_new, h), _chosen(real, c_new, c)
    return ops.stack(outputs, axis=1), h, c


# GRU -----------------------------------------------------------------------------------------------------------------


@np.errstate(over="ignore")
def _gru_forward(
    x: Array, w: Array, u: Array, b: Array, bn: Array, h: Array | None, mask: Array | None, keep: bool = True
) -> tuple[Any, Any]:
    n, steps, _ = x.shape
    size, xp, dtype = len(u), backend_of(x).xp, x.dtype
    xs, z, ut, states = _start(x, w, u, b, h, mask)
    sums, product = xp.empty((2, 3 * size, n), dtype=dtype)
    part, bias = xp.empty((2, size, n), dtype=dtype)
    bias[...] = bn[:, None]
    reset, update, new = a = sums.reshape(3, size, n)
    gates, inner, both = sums[: 2 * size], product[2 * size :], slice(2 * size)
    factors = xp.empty((steps, 5, size, n), dtype=dtype) if keep else None
    for t, real in enumerate(_steps(mask, steps)):
        before, out = states[:, t], states[:, t + 1]
        np.matmul(ut, before, product)
        np.add(product[both], z[both, t], gates)
        _sigmoid(gates)
        np.add(inner, bias, inner)
        np.multiply(reset, inner, part)
        np.add(part, z[2 * size :, t], new)
        np.tanh(new, new)
        ahead = np.subtract(before, new, part)
        np.multiply(ahead, update, out)
        np.add(out, new, out)
        if factors is not None:
            _gru_factors(factors[t], a, inner, ahead, real)
        if real is not None:
            out[...] = np.where(real, out, before)
    return _outputs(states, mask), (xs, states, factors)


def _gru_factors(factors: Array, a: Array, inner: Array, ahead: Array, real: Array | None) -> None:
    """Write by what h's cotangent is multiplied to give those of hU_n + b_n, r, z, n and, by way of z, h before."""
    reset, update, new = a
    np.multiply(a[:2], a[:2], factors[1:3])
    np.subtract(a[:2], factors[1:3], factors[1:3])
    np.multiply(new, new, factors[3])
    np.subtract(1, factors[3], factors[3])
    np.subtract(1, update, factors[4])
    np.multiply(factors[3], factors[4], factors[3])
    np.multiply(factors[3], reset, factors[0])
    np.multiply(factors[1], factors[3], factors[1])
    np.multiply(factors[1], inner, factors[1])
    np.multiply(factors[2], ahead, factors[2])
    factors[4] = update
    if real is not None:
        factors[:4] *= real
        factors[4] = np.where(real, update, 1)


def _gru_backward(
    g: tuple[Array, Array],
    y: Any,
    residual: Any,
    argnums: Sequence[int],
    x: Array,
    w: Array,
    u: Array,
    b: Array,
    bn: Array,
    h: Array | None,
    mask: Array | None,
    keep: bool = True,
) -> list[Any]:
    xs, states, factors = residual
    n, steps, _ = x.shape
    size, xp = len(u), backend_of(x).xp
    gy = _columns(g[0], mask).reshape(size, steps, n)
    dh, part = g[1].T.copy(), xp.empty((size, n), dtype=x.dtype)
    un = np.concatenate([u[:, 2 * size :], u[:, : 2 * size]], axis=1)  # gates in the order n, r, z
    dz = xp.empty((4, size, steps, n), dtype=x.dtype)
    flat = dz.reshape(4 * size, steps, n)
    for t in reversed(range(steps)):
        np.add(dh, gy[:, t], dh)
        np.multiply(factors[t, :4], dh, dz[:, :, t])
        np.multiply(dh, factors[t, 4], part)
        np.matmul(un, flat[: 3 * size, t], dh)
        np.add(dh, part, dh)
    flat = dz.reshape(4 * size, steps * n)
    dx, dw, du, db = _gradients(argnums, flat[size:], flat[: 3 * size], x, xs, states, w)
    if du is not None:
        du = np.concatenate([du[:, size:], du[:, :size]], axis=1)
    return [dx, dw, du, db, np.sum(flat[:size], axis=1) if 4 in argnums else None, dh.T, None]


@fused(_gru_forward, _gru_backward)
def gru(
    x: Array, w: Array, u: Array, b: Array, bn: Array, h: Array | None, mask: Array | None, keep: bool = True
) -> tuple[Array, Array]:
    """Return the outputs (N, T, H) of x (N, T, D) and the last h (N, H).

    (r, z, n) are the thirds of xW + b and (r', z', n') those of hU: with r ← σ(r + r'), z ← σ(z + z') and
    n ← tanh(n + r·(n' + bn)), h ← (1−z)·n + z·h; W (D, 3H), U (H, 3H), b (3H,), bn (H,). The rest is as in `lstm`.
    """
    steps, size = x.shape[1], u.shape[0]
    h = _zeros(x, size) if h is None else h
    outputs = []
    for t in range(steps):
        real = None if mask is None else mask[:, t]
        left, right = _chosen(real, x[:, t], 0) @ w + b, h @ u
        gates = sigmoid(left[:, : 2 * size] + right[:, : 2 * size])
        reset, update = gates[:, :size], gates[:, size:]
        new = ops.tanh(left[:, 2 * size :] + reset * (right[:, 2 * size :] + bn))
        h_new = new + update * (h - new)
        outputs.append(_chosen(real, h_new, 0))
        h = _chosen(real, h_new, h)
    return ops.stack(outputs, axis=1), h


# RNN -----------------------------------------------------------------------------------------------------------------


def _rnn_forward(
    x: Array, w: Array, u: Array, b: Array, h: Array | None, mask: Array | None, relu: bool = False
) -> tuple[Any, Any]:
    n, steps, _ = x.shape
    xs, z, ut, states = _start(x, w, u, b, h, mask)
    product = backend_of(x).xp.empty((len(u), n), dtype=x.dtype)
    for t, real in enumerate(_steps(mask, steps)):
        np.matmul(ut, states[:, t], product)
        np.add(product, z[:, t], product)
        out = states[:, t + 1]
        if relu:
            np.maximum(product, 0, out=out)
        else:
            np.tanh(product, out)
        if real is not None:
            out[...] = np.where(real, out, states[:, t])
    return _outputs(states, mask), (xs, states)


def _rnn_backward(
    g: tuple[Array, Array],
    y: Any,
    residual: Any,
    argnums: Sequence[int],
    x: Array,
    w: Array,
    u: Array,
    b: Array,
    h: Array | None,
    mask: Array | None,
    relu: bool = False,
) -> list[Any]:
    xs, states = residual
    n, steps, _ = x.shape
    size, xp = len(u), backend_of(x).xp
    gy = _columns(g[0], mask).reshape(size, steps, n)
    made = states[:, 1:]
    slopes = (made > 0).astype(x.dtype) if relu else 1 - made * made
    if mask is not None:
        slopes *= mask.T
    dh, dz = g[1].T.copy(), xp.empty((size, steps, n), dtype=x.dtype)
    for t, real in reversed(list(enumerate(_steps(mask, steps)))):
        np.add(dh, gy[:, t], dh)
        held = None if real is None else np.where(real, 0, dh)
        np.multiply(slopes[:, t], dh, dz[:, t])
        np.matmul(u, dz[:, t], dh)
        if held is not None:
            dh += held
    flat = dz.reshape(size, steps * n)
    return [*_gradients(argnums, flat, flat, x, xs, states, w), dh.T, None]


@fused(_rnn_forward, _rnn_backward)
def rnn(
    x: Array, w: Array, u: Array, b: Array, h: Array | None, mask: Array | None, relu: bool = False
) -> tuple[Array, Array]:
    """Return the outputs (N, T, H) of x (N, T, D) and the last h (N, H): h ← tanh(xW + hU + b), or its relu.

    W (D, H), U (H, H), b (H,). The rest is as in `lstm`.
    """
    h = _zeros(x, u.shape[0]) if h is None else h
    outputs = []
    for t in range(x.shape[1]):
        real = None if mask is None else mask[:, t]
        z = _chosen(real, x[:, t], 0) @ w + h @ u + b
        h_new = ops.relu(z) if relu else ops.tanh(z)
        outputs.append(_chosen(real, h_new, 0))
        h = _chosen(real, h_new, h)
    return ops.stack(outputs, axis=1), h
