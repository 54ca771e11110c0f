"""The works that are timed: our step and a peer's, on the same numbers and the same device."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

import minibng as bng
from minibng import nn, optim

Step = Callable[[], object]
Maker = Callable[..., Step]
"""Makes a step, on the CPU or, with ``device``, elsewhere."""
DEPTH, WIDTH, BATCH = 12, 100, 128
WIDTHS = [784, *[WIDTH] * DEPTH, 10]
IMAGES = 64
WORDS, UNITS, TIMES, ROWS = 5_000, 256, 35, 20
LEXICON, MAPS, LENGTH, SENTENCES = 10_000, 100, 50, 50
ENTRIES, BLOCKS = 10_000_000, 60


def _batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((BATCH, 784)).astype("float32"), rng.integers(0, 10, BATCH)


def our_mlp(device: str = "cpu") -> Step:
    """784-[100]×12-10, batch 128, one Adam step."""
    x, y = (bng.asarray(a, device=device) for a in _batch())
    model = nn.models.mlp(784, [WIDTH] * DEPTH, 10)
    params = model.init(0, device=device)
    step = bng.value_and_grad(lambda p, x, y: nn.cross_entropy(model(p, x, train=True), y))
    opt = optim.Adam(params, lr=1e-3)
    return lambda: opt.step(step(params, x, y)[1])


def torch_mlp(device: str = "cpu") -> Step:
    """The same in PyTorch, eager."""
    import torch

    x, y = (torch.tensor(a, device=device) for a in _batch())
    layers = [m for a, b in pairwise(WIDTHS[:-1]) for m in (torch.nn.Linear(a, b), torch.nn.ReLU())]
    net = torch.nn.Sequential(*layers, torch.nn.Linear(WIDTH, 10)).to(device)
    opt, loss = torch.optim.Adam(net.parameters(), lr=1e-3), torch.nn.CrossEntropyLoss()

    def step() -> None:
        opt.zero_grad()
        loss(net(x), y).backward()
        opt.step()

    return step


def autograd_mlp() -> Step:
    """The same with HIPS autograd's gradients, and our Adam on plain arrays."""
    import autograd
    import autograd.numpy as anp

    x, y = _batch()
    arrays = [a.copy() for _, a in nn.models.mlp(784, [WIDTH] * DEPTH, 10).init(0).items()]

    def loss(arrays):
        h = x
        for w, b in zip(arrays[:-2:2], arrays[1:-2:2], strict=True):
            h = anp.maximum(anp.dot(h, w) + b, 0)
        z = anp.dot(h, arrays[-2]) + arrays[-1]
        z = z - anp.max(z, axis=1, keepdims=True)
        return anp.mean(anp.log(anp.sum(anp.exp(z), axis=1)) - z[np.arange(BATCH), y])

    gradient, opt = autograd.grad(loss), optim.Adam(arrays, lr=1e-3)
    return lambda: opt.step([np.asarray(g, dtype="float32") for g in gradient(arrays)])


def jax_mlp() -> Step:
    """The same in JAX and optax, the whole step compiled; compilation is not timed."""
    import jax
    import jax.numpy as jnp
    import optax

    x, y = map(jnp.asarray, _batch())
    arrays = [jnp.asarray(a) for _, a in nn.models.mlp(784, [WIDTH] * DEPTH, 10).init(0).items()]
    opt = optax.adam(1e-3)

    def loss(arrays):
        h = x
        for w, b in zip(arrays[:-2:2], arrays[1:-2:2], strict=True):
            h = jax.nn.relu(h @ w + b)
        return optax.softmax_cross_entropy_with_integer_labels(h @ arrays[-2] + arrays[-1], y).mean()

    @jax.jit
    def update(arrays, state):
        changes, state = opt.update(jax.grad(loss)(arrays), state)
        return optax.apply_updates(arrays, changes), state

    now = [arrays, opt.init(arrays)]

    def step() -> None:
        now[:] = update(*now)
        jax.block_until_ready(now)

    return step


def _images() -> tuple[np.ndarray, np.ndarray]:
    """A batch of the shape of CIFAR's, (N, H, W, C)."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((IMAGES, 32, 32, 3)).astype("float32"), rng.integers(0, 10, IMAGES)


def our_resnet(device: str = "cpu") -> Step:
    """ResNet-20 on images of 32 × 32 × 3, batch 64, one step of SGD with momentum."""
    x, y = (bng.asarray(a, device=device) for a in _images())
    model = nn.models.resnet(20)
    params = model.init(0, device=device)
    step = bng.value_and_grad(lambda p, x, y: nn.cross_entropy(model(p, x, train=True), y))
    opt = optim.Momentum(params, lr=1e-2)
    return lambda: opt.step(step(params, x, y)[1])


def torch_resnet(device: str = "cpu") -> Step:
    """The same in PyTorch, eager: images (N, C, H, W), no TF32."""
    import torch
    from torch.nn import functional as F

    def conv(inputs: int, outputs: int, stride: int = 1) -> Any:
        return torch.nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)

    class Block(torch.nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.more = outputs - inputs
            self.conv1, self.norm1 = conv(inputs, outputs, 2 if self.more else 1), torch.nn.BatchNorm2d(outputs)
            self.conv2, self.norm2 = conv(outputs, outputs), torch.nn.BatchNorm2d(outputs)

        def forward(self, x: Any) -> Any:
            skip = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.more)) if self.more else x
            return F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))) + skip)

    widths = [16] * 4 + [32] * 3 + [64] * 3
    blocks = [Block(a, b) for a, b in pairwise(widths)]
    stem, head = [conv(3, 16), torch.nn.BatchNorm2d(16), torch.nn.ReLU()], [torch.nn.AdaptiveAvgPool2d(1)]
    net = torch.nn.Sequential(*stem, *blocks, *head, torch.nn.Flatten(), torch.nn.Linear(64, 10)).to(device)
    images, labels = _images()
    x, y = torch.tensor(images.transpose(0, 3, 1, 2).copy(), device=device), torch.tensor(labels, device=device)
    opt, loss = torch.optim.SGD(net.parameters(), lr=1e-2, momentum=0.9), torch.nn.CrossEntropyLoss()
    torch.backends.cudnn.allow_tf32 = False

    def step() -> None:
        opt.zero_grad()
        loss(net(x), y).backward()
        opt.step()

    return step


def _text(words: int, rows: int, times: int, targets: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (rows, times), and targets: of every token, or, of two classes, of every row."""
    rng = np.random.default_rng(0)
    return rng.integers(0, words, (rows, times)), rng.integers(0, targets, rows if targets == 2 else (rows, times))


def our_lstm(device: str = "cpu") -> Step:
    """A language model of two LSTM layers, 2×256 units, vocabulary 5,000, 20 rows of 35 words, one Adam step."""
    x, y = (bng.asarray(a, device=device) for a in _text(WORDS, ROWS, TIMES, WORDS))
    model = nn.models.lstm_lm(WORDS, UNITS, UNITS, 2)
    params = model.init(0, device=device)
    step = bng.value_and_grad(lambda p, x, y: nn.cross_entropy(model(p, x, train=True), y))
    opt = optim.Adam(params, lr=1e-3)
    return lambda: opt.step(step(params, x, y)[1])


def torch_lstm(device: str = "cpu") -> Step:
    """The same in PyTorch, eager; sequences lie as its LSTM takes them, (T, N)."""
    import torch

    embedding, lstm = torch.nn.Embedding(WORDS, UNITS), torch.nn.LSTM(UNITS, UNITS, 2)
    net = torch.nn.ModuleList([embedding, lstm, head := torch.nn.Linear(UNITS, WORDS)]).to(device)
    x, y = (torch.tensor(a.T.copy(), device=device) for a in _text(WORDS, ROWS, TIMES, WORDS))
    opt, loss = torch.optim.Adam(net.parameters(), lr=1e-3), torch.nn.CrossEntropyLoss()

    def step() -> None:
        opt.zero_grad()
        logits = head(lstm(embedding(x))[0])
        loss(logits.reshape(-1, WORDS), y.reshape(-1)).backward()
        opt.step()

    return step


def our_textcnn(device: str = "cpu") -> Step:
    """The sentence classifier of Kim (2014), vocabulary 10,000 × 128, 3×100 maps, 50 sentences of 50 words, Adam."""
    x, y = (bng.asarray(a, device=device) for a in _text(LEXICON, SENTENCES, LENGTH, 2))
    model = nn.models.textcnn(LEXICON, 128, maps=MAPS, padding=None)
    params = model.init(0, device=device)
    step = bng.value_and_grad(lambda p, x, y: nn.cross_entropy(model(p, x, train=True), y))
    opt = optim.Adam(params, lr=1e-3)
    return lambda: opt.step(step(params, x, y)[1])


def torch_textcnn(device: str = "cpu") -> Step:
    """The same in PyTorch, eager."""
    import torch
    from torch.nn import functional as F

    embedding, head = torch.nn.Embedding(LEXICON, 128), torch.nn.Linear(3 * MAPS, 2)
    convolutions = [torch.nn.Conv1d(128, MAPS, width) for width in (3, 4, 5)]
    net = torch.nn.ModuleList([embedding, *convolutions, head]).to(device)
    x, y = (torch.tensor(a, device=device) for a in _text(LEXICON, SENTENCES, LENGTH, 2))
    opt, loss = torch.optim.Adam(net.parameters(), lr=1e-3), torch.nn.CrossEntropyLoss()

    def step() -> None:
        opt.zero_grad()
        vectors = embedding(x).transpose(1, 2)
        features = torch.cat([F.relu(conv(vectors)).amax(2) for conv in convolutions], 1)
        loss(head(F.dropout(features, 0.5)), y).backward()
        opt.step()

    return step


def _arrays(entries: int = ENTRIES) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(0)
    x, g = ([rng.standard_normal(entries // BLOCKS, dtype="float32") for _ in range(BLOCKS)] for _ in range(2))
    return x, g


def our_arrays(device: str, entries: int = ENTRIES) -> list[list[Any]]:
    """Parameters and a gradient of 60 blocks, on the device."""
    return [[bng.asarray(a, device=device) for a in arrays] for arrays in _arrays(entries)]


def our_step(name: str, entries: int = ENTRIES) -> Maker:
    """One step of an optimizer on 10 M entries in 60 blocks."""

    def make(device: str = "cpu") -> Step:
        x, g = our_arrays(device, entries)
        opt = optim.get(name)(x, lr=1e-3)
        return lambda: opt.step(g)

    return make


def our_units(blocks: str) -> Maker:
    """One AdamNG step on 60 matrices of 408 × 408, by matrices or by their columns."""

    def make() -> Step:
        x, g = ([a[: 408 * 408].reshape(408, 408) for a in arrays] for arrays in _arrays())
        opt = optim.AdamNG(x, lr=1e-3, blocks=blocks)
        return lambda: opt.step(g)

    return make


def torch_adam_ng(**settings: bool) -> Maker:
    """torch.optim.Adam after torch._foreach_norm and _div_, on the same arrays."""

    def make(device: str = "cpu") -> Step:
        import torch

        x, g = ([torch.tensor(a, device=device) for a in arrays] for arrays in _arrays())
        params = [torch.nn.Parameter(a) for a in x]
        for p, a in zip(params, g, strict=True):
            p.grad = a
        opt = torch.optim.Adam(params, lr=1e-3, **settings)

        def step() -> None:
            grads = [p.grad for p in params]
            torch._foreach_div_(grads, torch._foreach_norm(grads))
            opt.step()

        return step

    return make


class Work(NamedTuple):
    """What is timed: how each side's step is made, whose the other side is, and the ratio aimed at."""

    ours: Maker
    theirs: Maker
    peer: str
    target: float | None


WORKS = {
    "mlp12": Work(our_mlp, torch_mlp, "torch", 0.8),
    "mlp12 autograd": Work(our_mlp, autograd_mlp, "autograd", 0.5),
    "mlp12 jax": Work(our_mlp, jax_mlp, "jax", None),
    "resnet20": Work(our_resnet, torch_resnet, "torch", 2.0),
    "lstm": Work(our_lstm, torch_lstm, "torch", 1.3),
    "textcnn": Work(our_textcnn, torch_textcnn, "torch", 1.0),
    "adam-ng 10M": Work(our_step("adam-ng"), torch_adam_ng(), "torch", 1.0),
    "cost of NG, adam": Work(our_step("adam-ng"), our_step("adam"), "", 1.15),
    "cost of NG, momentum": Work(our_step("momentum-ng"), our_step("momentum"), "", None),
    "cost of units": Work(our_units("unit"), our_units("tensor"), "", None),
}
"""What can be timed, by name."""

ON_DEVICE = {
    "mlp12": Work(our_mlp, torch_mlp, "torch", 1.0),
    "resnet20": Work(our_resnet, torch_resnet, "torch", 1.0),
    "lstm": Work(our_lstm, torch_lstm, "torch", 1.0),
    "textcnn": Work(our_textcnn, torch_textcnn, "torch", 1.0),
    "adam-ng 10M, foreach": Work(our_step("adam-ng"), torch_adam_ng(foreach=True), "torch", 1.0),
    "adam-ng 10M, fused": Work(our_step("adam-ng"), torch_adam_ng(fused=True), "torch", 1.0),
    "cost of NG, adam": Work(our_step("adam-ng"), our_step("adam"), "", 1.15),
}
"""What is timed on a device."""

MEMORY = {"mlp12": 1.2, "resnet20": 1.2, "lstm": 1.2, "textcnn": 1.2}
"""Works whose peak memory is measured too, and the ratio aimed at."""
