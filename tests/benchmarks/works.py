"""The works that are timed: each returns our step and a peer's, on the same numbers."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

import minibng as bng
from minibng import nn, optim

Step = Callable[[], object]
DEPTH, WIDTH, BATCH = 12, 100, 128
ENTRIES, BLOCKS = 10_000_000, 60


def _batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((BATCH, 784)).astype("float32"), rng.integers(0, 10, BATCH)


def _our_mlp() -> Step:
    x, y = _batch()
    model = nn.models.mlp(784, [WIDTH] * DEPTH, 10)
    params = model.init(0)
    step = bng.value_and_grad(lambda p, x, y: nn.cross_entropy(model(p, x, train=True), y))
    opt = optim.Adam(params, lr=1e-3)
    return lambda: opt.step(step(params, x, y)[1])


def mlp12_torch() -> tuple[Step, Step]:
    """784-[100]×12-10, batch 128, one Adam step, against PyTorch."""
    import torch

    x, y = map(torch.tensor, _batch())
    widths = [784, *[WIDTH] * DEPTH]
    layers = [m for a, b in pairwise(widths) for m in (torch.nn.Linear(a, b), torch.nn.ReLU())]
    net = torch.nn.Sequential(*layers, torch.nn.Linear(WIDTH, 10))
    opt, loss = torch.optim.Adam(net.parameters(), lr=1e-3), torch.nn.CrossEntropyLoss()

    def theirs() -> None:
        opt.zero_grad()
        loss(net(x), y).backward()
        opt.step()

    return _our_mlp(), theirs


def mlp12_autograd() -> tuple[Step, Step]:
    """The same, with HIPS autograd's gradients and our Adam on plain arrays."""
    import autograd
    import autograd.numpy as anp

    x, y = _batch()
    flat = nn.models.mlp(784, [WIDTH] * DEPTH, 10).init(0)
    arrays = [a.copy() for _, a in flat.items()]

    def loss(arrays):
        h = x
        for w, b in zip(arrays[:-2:2], arrays[1:-2:2], strict=True):
            h = anp.maximum(anp.dot(h, w) + b, 0)
        z = anp.dot(h, arrays[-2]) + arrays[-1]
        z = z - anp.max(z, axis=1, keepdims=True)
        return anp.mean(anp.log(anp.sum(anp.exp(z), axis=1)) - z[np.arange(BATCH), y])

    gradient, opt = autograd.grad(loss), optim.Adam(arrays, lr=1e-3)
    return _our_mlp(), lambda: opt.step([np.asarray(g, dtype="float32") for g in gradient(arrays)])


def _arrays() -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(0)
    x, g = ([rng.standard_normal(ENTRIES // BLOCKS).astype("float32") for _ in range(BLOCKS)] for _ in range(2))
    return x, g


def _our_step(name: str) -> Step:
    x, g = _arrays()
    opt = optim.get(name)(x, lr=1e-3)
    return lambda: opt.step(g)


def adam_ng_torch() -> tuple[Step, Step]:
    """AdamNG on 10 M entries in 60 blocks, against torch.optim.Adam after torch._foreach_norm and _div_."""
    import torch

    x, g = _arrays()
    params = [torch.nn.Parameter(torch.tensor(a)) for a in x]
    for p, a in zip(params, g, strict=True):
        p.grad = torch.tensor(a)
    opt = torch.optim.Adam(params, lr=1e-3)

    def theirs() -> None:
        grads = [p.grad for p in params]
        torch._foreach_div_(grads, torch._foreach_norm(grads))
        opt.step()

    return _our_step("adam-ng"), theirs


def cost_of_ng(rule: str) -> Callable[[], tuple[Step, Step]]:
    """The normalized rule against the raw one, both ours, on the same 10 M entries."""

    def make() -> tuple[Step, Step]:
        return _our_step(f"{rule}-ng"), _our_step(rule)

    return make


WORKS: dict[str, tuple[Callable[[], tuple[Step, Step]], str, float | None]] = {
    "mlp12": (mlp12_torch, "torch", 0.8),
    "mlp12 autograd": (mlp12_autograd, "autograd", 0.5),
    "adam-ng 10M": (adam_ng_torch, "torch", 1.0),
    "cost of NG, adam": (cost_of_ng("adam"), "", 1.15),
    "cost of NG, momentum": (cost_of_ng("momentum"), "", None),
}
"""Name → how to make it, the peer that it needs, and the target ratio."""
