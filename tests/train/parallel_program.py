"""What each worker runs: ``mpiexec -n 2 python parallel_program.py PART FOLDER``. test_parallel.py judges it.

Every function also runs with ``workers=None``, as the one process with which they are compared.
"""

import sys
from pathlib import Path

import numpy as np

import minibng as bng
from minibng import data, nn, optim, train
from minibng.train import Workers

SAMPLES, FEATURES, CLASSES = 29, 6, 3
STEPS = 25
BATCHES = {"equal": 10, "unequal": 7, "single": 1}
"""Samples a batch. Two workers have 5 + 5 of 10, 3 + 4 of 7, 0 + 1 of 1; four have 1 + 2 + 2 + 2 of 7."""

METHODS = {
    "sgd-ng": lambda p: optim.SGDNG(p, lr=0.05),
    "adam": lambda p: optim.Adam(p, lr=0.01),
    "adam-ng": lambda p: optim.AdamNG(p, lr=0.01, weight_decay={"*.W": 0.01}),
    "adam-clip": lambda p: optim.AdamClip(p, lr=0.01, clip=0.1),
    "momentum-clip-global": lambda p: optim.Momentum(p, lr=0.05, normalize="clip-global", clip=0.1),
    "momentum-ng-adaptive by units": lambda p: optim.MomentumNGAdaptive(p, lr=0.05, blocks="unit"),
}

model = nn.Sequential(nn.Linear(FEATURES, 8), nn.tanh, nn.Linear(8, 8), nn.tanh, nn.Linear(8, CLASSES))


def loss(params, x, y):
    return nn.cross_entropy(model(params, x, train=True), y)


def dataset(dtype):
    rng = np.random.default_rng(5)
    return rng.standard_normal((SAMPLES, FEATURES)).astype(dtype), rng.integers(0, CLASSES, SAMPLES)


def starting(dtype):
    return bng.Params.of({name: t.astype(dtype) for name, t in model.init(seed=3).items()})


def batches(size):
    """STEPS batches; where the size does not divide 29, each pass ends with a shorter one."""
    starts = range(0, SAMPLES, size)
    for i in range(STEPS):
        start = starts[i % len(starts)]
        yield slice(start, start + size)


def trajectory(make, size, dtype, step, device="cpu"):
    """The parameters after each step, and the losses: (STEPS, P + 1)."""
    x, y = dataset(dtype)
    params = starting(dtype).to(device)
    opt, rows = make(params), []
    for part in batches(size):
        value, grad = step(params, bng.asarray(x[part], device=device), bng.asarray(y[part], device=device))
        opt.step(grad)
        rows.append([*bng.to_host(params.flat), bng.to_host(value)])
    return np.array(rows)


def joint(workers):
    """Average, then normalize."""
    step = bng.value_and_grad(loss)
    return step if workers is None else workers.share(step)


def normalized_too_early(workers):
    """The fault of which the theory warns: each worker normalizes its own gradient, and the directions are averaged."""

    def directions(params, x, y):
        value, grad = bng.value_and_grad(loss)(params, x, y)
        unit = [part for group in grad.layout.groups for part in _normalized(grad, group)]
        return value, grad.__rebuild__(unit)

    return directions if workers is None else workers.share(directions)


def _normalized(grad, group):
    whole = np.concatenate([grad[grad.layout.names[i]].reshape(-1) for i in group.tensors])
    (direction,) = optim.normalize_blocks([whole])
    for i in group.tensors:
        head, direction = np.split(direction, [grad.layout.sizes[i]])
        yield head.reshape(grad.layout.shapes[i])


class Unweighted(Workers):
    """Another fault: shards of different sizes count alike."""

    def mean(self, value, grad, weight):
        return super().mean(value, grad, 1 / self.size)


def trajectories(workers=None):
    """Name → trajectory, of what must agree and of what must not."""
    found = {}
    for name, make in METHODS.items():
        for kind, size in BATCHES.items():
            found[f"{name}, {kind}"] = trajectory(make, size, "float64", joint(workers))
    found["float32"] = trajectory(METHODS["adam-ng"], 7, "float32", joint(workers))
    found["fault: normalized too early"] = trajectory(
        lambda p: optim.SGD(p, lr=0.05), 10, "float64", normalized_too_early(workers)
    )
    if workers is not None:
        found["fault: unweighted"] = trajectory(METHODS["adam-ng"], 7, "float64", joint(Unweighted(workers.comm)))
    return found


def noise():
    """The samples as a split; they are also what is measured."""
    part = data.Dataset(*dataset("float64"))
    return data.Split(part, part, part, name="noise", classes=CLASSES, source="drawn by the test")


def fitted(workers=None, folder=None):
    """The results of `fit`, with micro-batches of which the last worker's part of a batch is not a multiple."""
    split, params, told = noise(), starting("float64"), []
    opt = METHODS["adam-ng"](params)
    settings = {"epochs": 3, "batch": 7, "micro_batch": 2, "record_norms": True}
    history = train.fit(
        model, params, opt, nn.cross_entropy, split, **settings, on_epoch=told.append, show=True, workers=workers
    )
    losses = [epoch.train_loss for epoch in history.epochs]
    found = {"fit: parameters": params.flat, "fit: losses": losses, "fit: steps": history.step_losses}
    return found | {"fit: norms": history.gradient_norms, "told": len(told)}


def run(workers, folder):
    """Write this worker's trajectories."""
    workers.agree(starting("float64"))
    np.savez(folder / f"{workers.rank}.npz", **trajectories(workers), **fitted(workers))


def diverge(workers, folder):
    """Let a run end by what is not finite on one worker only: the same result on all, no error."""

    def broken(params, x, y):
        return loss(params, x, y) * (np.inf if workers.rank == 1 else 1.0)

    split, params = noise(), starting("float64")
    history = train.fit(model, params, METHODS["adam-ng"](params), broken, split, epochs=2, batch=7, workers=workers)
    np.savez(folder / f"{workers.rank}.npz", told=history.error, diverged=history.diverged, flat=params.flat)


def other_seeds(workers, folder):
    """Start each worker from parameters of its own: compared, then overwritten, layers and lists alike."""
    params, arrays = model.init(seed=workers.rank), [np.full(2, float(workers.rank))]
    told = []
    for given in (params, arrays, [np.zeros(2 + workers.rank)]):
        try:
            workers.agree(given)
        except ValueError as error:
            told.append(str(error))
    overwriting = Workers(workers.comm, broadcast=True)
    overwriting.agree(params)
    overwriting.agree(arrays)
    workers.agree(params)
    np.savez(folder / f"{workers.rank}.npz", told=told, flat=params.flat, array=arrays[0])


def other_batches(workers, folder):
    """Give the workers batches of different sizes."""
    x, y = dataset("float64")
    n = 10 + workers.rank
    workers.share(bng.value_and_grad(loss))(starting("float64"), x[:n], y[:n])


def fail_in_the_step(workers, folder):
    """Let the last worker's loss fail where the others wait for its gradient."""

    def failing(params, x, y):
        if workers.rank == workers.size - 1:
            raise ArithmeticError("planted in the loss")
        return loss(params, x, y)

    workers.share(bng.value_and_grad(failing))(starting("float64"), *dataset("float64"))


def fail_outside(workers, folder):
    """Let worker 0 fail in the program around the steps, while the others wait for it."""
    if workers.first:
        raise ArithmeticError("planted in the program")
    workers.same(None)
    raise AssertionError("worker 0 told nothing")


def main():
    parts = {f.__name__: f for f in (run, diverge, other_seeds, other_batches, fail_in_the_step, fail_outside)}
    with Workers() as workers:
        parts[sys.argv[1]](workers, Path(sys.argv[2]))


if __name__ == "__main__":
    main()
