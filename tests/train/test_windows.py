"""Training on one sequence in windows, with the state carried from each to the next."""

import math

import numpy as np
import pytest

import minibng as bng
from minibng import data, nn, optim, train
from minibng.data import Dataset, Split

VOCAB = 7


def part(n, seed):
    tokens = np.random.default_rng(seed).integers(VOCAB, size=n + 1)
    return Dataset(tokens[:-1], tokens[1:], classes=VOCAB)


@pytest.fixture
def split():
    return Split(part(100, 0), part(40, 1), part(45, 2), name="noise", classes=VOCAB, source="made here")


def setting(split, name="momentum-ng", lr=0.1, device="cpu", **more):
    model = nn.models.lstm_lm(VOCAB, dim=4, hidden=5, layers=2, **more)
    params = model.init(0, dtype="float64", device=device)
    return model, params, optim.get(name)(params, lr=lr), nn.cross_entropy, split


def test_fit_is_the_loop_written_out(split, device):
    model, params, opt, loss, _ = setting(split, device=device.name)
    history = train.fit(model, params, opt, loss, split, epochs=2, batch=4, length=6)
    model, mine, opt, *_ = setting(split)

    def f(p, x, y, state):
        logits, state = model.run(p, x, state, train=True)
        return loss(logits, y), state

    step, losses = bng.value_and_grad(f, has_aux=True), []
    for epoch in range(2):
        state = None
        for x, y in data.batches(split.train, 4, epoch=epoch, length=6):
            (value, state), grad = step(mine, x, y, state)
            losses.append(float(value))
            opt.step(grad)
    assert len(losses) == 2 * 5  # 25 columns in windows of 6: the last is of one
    np.testing.assert_allclose(history.step_losses, losses, rtol=1e-12)
    np.testing.assert_allclose(device.host(params.flat), mine.flat, rtol=0, atol=1e-12)


def test_what_is_measured_is_the_loss_of_whole_rows(split):
    model, params, opt, loss, _ = setting(split)
    last = train.fit(model, params, opt, loss, split, epochs=1, batch=4, length=6).epochs[-1]
    for dataset, told in ((split.train, last.train_loss), (split.val, last.val_loss), (split.test, last.test_loss)):
        ((x, y),) = data.batches(dataset, 4, length=len(dataset))
        assert told == pytest.approx(float(loss(model(params, x), y)), rel=1e-12)
    ((x, y),) = data.batches(split.test, 4, length=11)  # 45 tokens in 4 rows: one is left over
    assert last.test_error == np.mean(np.argmax(model(params, x), axis=-1) != y)


def test_the_perplexity_of_the_uniform_model_is_the_size_of_the_vocabulary(split):
    model, params, *_ = setting(split)
    params.flat[:] = 0.0
    history = train.fit(model, params, optim.SGD(params, lr=0.0), nn.cross_entropy, split, 0, 4, length=6)
    first = history.epochs[0]
    for loss in (first.train_loss, first.val_loss, first.test_loss):
        assert train.perplexity(loss) == pytest.approx(VOCAB, rel=1e-12)
    assert history.language
    assert repr(history) == "History(after 0 epochs, training perplexity 7, validation perplexity 7, test perplexity 7)"


def test_perplexities_of_losses_that_are_no_numbers():
    assert train.perplexity(800.0) == math.inf and math.isnan(train.perplexity(math.nan))


def test_a_sequence_of_numbers_has_losses_and_no_perplexity(split):
    class Count(nn.Linear):
        """The state is how many entries came before."""

        def run(self, p, x, state, *, train=False):
            assert state == places[-1]
            places.append(None if state == 8 else (state or 0) + x.shape[1])
            return self(p, x[..., None]), (state or 0) + x.shape[1]

    x, places = np.linspace(0, 1, 30), [None]
    parts = [Dataset(x, x[:, None]) for _ in range(3)]
    model = Count(1, 1)
    params = model.init(0, dtype="float64")
    numbers = Split(*parts, name="line", classes=None, source="made here")
    history = train.fit(model, params, optim.SGD(params, lr=0.1), nn.mse, numbers, 1, 3, length=4)
    assert places == [None, 4, 8] * 7 + [None]  # measured three times, trained, measured three times
    assert not history.language and history.epochs[-1].test_error is None
    assert history.epochs[-1].val_loss == history.epochs[-1].train_loss > 0
    assert "training loss" in repr(history)


def test_windows_need_a_model_that_hands_its_state_on_and_whole_batches(split):
    model, params, opt, loss, _ = setting(split)
    plain = nn.models.mlp(4, [5], 3)
    with pytest.raises(TypeError, match=r"the model must have run\(params, x, state, train=…\).* a Sequential has not"):
        start = plain.init(0)
        train.fit(plain, start, optim.SGD(start, lr=0.1), loss, split, batch=4, length=6)
    with pytest.raises(ValueError, match="micro_batch divides a batch by its rows, whose states go"):
        train.fit(model, params, opt, loss, split, batch=4, length=6, micro_batch=2)
    with pytest.raises(ValueError, match="workers divides a batch by its rows, whose states go"):
        train.fit(model, params, opt, loss, split, batch=4, length=6, workers=object())
    with pytest.raises(TypeError, match=r"the loss must be loss\(output, y\)"):
        train.fit(model, params, opt, lambda p, x, y: loss(model(p, x), y), split, batch=4, length=6)
    with pytest.raises(ValueError, match="the validation part is read in the same windows: batch size 50 is more than"):
        train.fit(model, params, opt, loss, split, batch=50, length=6)
    with pytest.raises(ValueError, match="length must be at least 1; got 0"):
        train.fit(model, params, opt, loss, split, batch=4, length=0)


def test_a_run_that_diverges_in_a_window_ends_there(split, device):
    model, params, opt, loss, _ = setting(split, "sgd-ng", lr=1e308, device=device.name)
    history = train.fit(model, params, opt, loss, split, epochs=5, batch=4, length=6)
    last = history.epochs[-1]
    assert history.diverged and len(history.epochs) == 2
    assert math.isnan(last.test_loss) and math.isnan(last.val_loss)


def test_dropout_in_windows_advances_with_the_steps_and_not_with_measuring(split):
    model, params, opt, loss, _ = setting(split, dropout=0.5)
    counters = {name: params.buffers[name] for name in params.buffers if name.endswith("counter")}
    train.fit(model, params, opt, loss, split, epochs=2, batch=4, length=6)
    assert counters and all(params.buffers[name] == start + 10 for name, start in counters.items())


def test_what_is_done_after_a_step_is_part_of_it(split):
    model, params, opt, loss, _ = setting(split, "sgd-ng", lr=0.5)
    seen = []

    def halve(p):
        seen.append(p.flat.copy())
        p.flat *= 0.5

    start = params.flat.copy()
    history = train.fit(
        model, params, opt, loss, split, epochs=1, batch=4, length=6, after_step=halve, record_norms=True
    )
    assert len(seen) == 5 and np.array_equal(params.flat, seen[-1] * 0.5)
    first = dict(zip(history.blocks, history.update_norms[0], strict=True))
    moved = bng.Params(params.layout, seen[0] * 0.5 - start)
    for block, views in moved.blocks():
        assert first[block] == pytest.approx(math.sqrt(sum(float(np.sum(v**2)) for v in views)), rel=1e-9)
