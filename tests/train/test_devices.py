"""Training on a device: the history of the host, with as few waits as there are epochs."""

import math

import numpy as np
import pytest

import minibng as bng
from minibng import nn, optim, train
from minibng.backend import SyncError, get_backend, synchronizations
from minibng.data import Dataset, Split, dataset
from minibng.train import metrics


def made_split(n=90, dtype="float32"):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, 4)).astype(dtype)
    y = (x[:, 0] > 0).astype("int64") + (x[:, 1] > 0)
    parts = [Dataset(x[a:b], y[a:b], classes=3) for a, b in ((0, n - 40), (n - 40, n - 20), (n - 20, n))]
    return Split(*parts, name="toy", classes=3, source="made here")


@pytest.fixture
def split():
    return made_split()


def trained(split, device, name="momentum-ng", lr=0.1, model=None, opt=None, loss=nn.cross_entropy, **how):
    model = model or nn.Sequential(nn.Linear(4, 5), nn.tanh, nn.Dropout(0.2), nn.Linear(5, 3))
    params = model.init(seed=1, device=device, dtype=how.pop("dtype", "float32"))
    optimizer = optim.get(name)(params, lr=lr, **(opt or {}))
    how = {"epochs": 3, "batch": 16, "seed": 5, "record_norms": True, **how}
    return train.fit(model, params, optimizer, loss, split, **how), params, optimizer


def assert_same(mine, theirs):
    rows = [[{**row, "seconds": 0} for row in train.records.plain(h.records())] for h in (mine, theirs)]
    assert rows[0] == rows[1]
    for name in ("step_losses", "gradient_norms", "update_norms", "parameter_norms"):
        a, b = getattr(mine, name), getattr(theirs, name)
        assert type(a) is np.ndarray and a.dtype == b.dtype == "float64" and a.shape == b.shape
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["sgd", "momentum-ng", "adam-clip", "rmsprop-ng-adaptive", "lamb", "novograd"])
def test_the_strict_device_gives_the_history_and_the_parameters_of_the_host(split, name):
    there, moved, _ = trained(split, "strict", name)
    here, params, _ = trained(split, "cpu", name)
    assert_same(there, here)
    np.testing.assert_array_equal(bng.to_host(moved.flat), params.flat)


@pytest.mark.parametrize("how", [{"micro_batch": 7}, {"drop_last": True}, {"record_norms": False}, {"epochs": 0}])
def test_settings_of_fit_mean_the_same(split, how):
    assert_same(trained(split, "strict", **how)[0], trained(split, "cpu", **how)[0])


def test_double_precision_and_partitions_mean_the_same():
    split = made_split(dtype="float64")
    how = {"dtype": "float64", "opt": {"blocks": "unit", "weight_decay": 0.1}}
    assert_same(trained(split, "strict", **how)[0], trained(split, "cpu", **how)[0])


def test_a_data_set_too_large_to_keep_means_the_same(split, monkeypatch):
    expected = trained(split, "cpu")[0]
    monkeypatch.setattr(dataset, "RESIDENT", 0)
    assert_same(trained(split, "strict")[0], expected)


def test_a_regression_means_the_same():
    rng = np.random.default_rng(1)
    pair = [rng.standard_normal(shape).astype("float32") for shape in ((60, 2), (60, 1))]
    parts = [Dataset(*(a[i:j] for a in pair)) for i, j in ((0, 40), (40, 50), (50, 60))]
    split = Split(*parts, name="r", classes=None, source="made here")
    how = {"model": nn.Linear(2, 1), "loss": nn.mse, "name": "adam"}
    there, here = (trained(split, device, **how)[0] for device in ("strict", "cpu"))
    assert_same(there, here)
    assert there.epochs[-1].test_error is None


@pytest.mark.parametrize("lr", [1e38, 1e20])
@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_a_diverging_run_has_the_history_of_the_host(split, name, lr):
    """The device goes on to the end of the epoch; nothing of that is told."""
    model = nn.Sequential(nn.Linear(4, 5), nn.relu, nn.Linear(5, 5), nn.relu, nn.Linear(5, 3))
    there, here = (trained(split, device, name, lr, model)[0] for device in ("strict", "cpu"))
    assert here.diverged
    assert_same(there, here)
    assert there.error.partition(" not finite")[0] == here.error.partition(" not finite")[0]


def test_the_error_of_a_device_names_the_same_step_and_block(split):
    model = nn.Sequential(nn.Linear(4, 5), nn.relu, nn.Linear(5, 3))

    def loss(output, y):
        return nn.cross_entropy(output * 1e30, y)

    there, here = (trained(split, device, "sgd", 1e5, model, loss=loss)[0] for device in ("strict", "cpu"))
    assert here.error.startswith("step ") and "the gradient of block" in here.error
    assert there.error.partition(" not finite")[0] == here.error.partition(" not finite")[0]
    assert_same(there, here)


def test_steps_that_are_skipped_keep_their_row(split):
    made = made_split()
    x = made.train.x.copy()
    x[7] = np.inf
    split = Split(Dataset(x, made.train.y, 3), made.val, made.test, name="toy", classes=3, source="made here")
    how = {"model": nn.Linear(4, 3), "opt": {"nonfinite": "skip"}, "epochs": 2}
    (there, _, opt), (here, _, host) = (trained(split, device, "sgd", **how) for device in ("strict", "cpu"))
    assert opt.skipped == host.skipped > 0
    assert len(there.step_losses) == len(here.step_losses)


def waits(do):
    before = synchronizations()
    do()
    return sum((synchronizations() - before).values())


def test_the_number_of_waits_depends_on_the_epochs_not_on_the_steps(split):
    few = waits(lambda: trained(split, "strict", batch=50, epochs=1))
    many = waits(lambda: trained(split, "strict", batch=2, epochs=1))
    assert few == many
    each = waits(lambda: trained(split, "strict", batch=2, epochs=2)) - many
    # three data sets measured, the guard asked, and losses, norms of parameters, gradient and update fetched
    assert each == 3 + 1 + 4


def test_a_data_set_is_measured_with_one_transfer(monkeypatch):
    monkeypatch.setattr(metrics, "CHUNK", 16)
    split = made_split()
    model = nn.Linear(4, 3)
    params = model.init(0, device="strict")

    def evaluate(params, x, y):
        output = model(params, x)
        return nn.cross_entropy(output, y), output

    found = []
    assert waits(lambda: found.append(train.score(evaluate, params, split.train))) == 1
    assert found == [train.score(evaluate, model.init(0), split.train)]
    assert type(found[0].loss) is type(found[0].error) is float


def test_a_step_that_waits_is_an_error_on_the_strict_device(split):
    def loss(output, y):
        value = nn.cross_entropy(output, y)
        return value if float(bng.to_host(y)[0]) >= 0 else -value

    model = nn.Linear(4, 3)
    params = model.init(0, device="strict")
    with pytest.raises(SyncError):
        train.fit(model, params, optim.SGD(params, lr=0.1), loss, split, batch=16)


def test_data_that_the_user_left_on_the_host_are_refused_with_what_to_do(split):
    model = nn.Sequential(nn.Linear(4, 3))
    params = model.init(0, device="strict")
    with pytest.raises(TypeError, match=r"layer '0', Linear\(4, 3\).*bng\.asarray\(x, device='strict'\)"):
        model(params, split.train.x)
    with pytest.raises(TypeError, match=r"layer '0', Linear\(4, 3\).*bng\.asarray\(x, device='cpu'\)"):
        model(model.init(0), bng.asarray(split.train.x, device="strict"))


def test_a_gpu_is_timed_by_the_clock_until_it_is_done(split, monkeypatch):
    from minibng.train import loop

    strict, done = get_backend("strict"), []
    monkeypatch.setattr(strict, "device", "cuda:0")
    monkeypatch.setattr(strict, "synchronize", lambda: done.append(clock.time()))
    monkeypatch.setitem(bng.backend._MADE, "cuda:0", strict)

    class clock:
        """Tells the whole seconds of a clock that goes on by one whenever it is looked at."""

        now = 0

        @staticmethod
        def time():
            return clock.now

        @staticmethod
        def perf_counter():
            clock.now += 1
            return clock.now

        @staticmethod
        def process_time():
            return math.nan

    monkeypatch.setattr(loop, "time", clock)
    model = nn.Linear(4, 3)
    params = model.init(0, device="strict")
    history = train.fit(model, params, optim.SGD(params, lr=0.1), nn.cross_entropy, split, epochs=2, batch=16)
    assert [e.seconds for e in history.epochs] == [0, 1, 2]
    assert done == [1, 3]  # after the clock was started, before it was stopped


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["sgd", "momentum-ng", "adam-ng"])
def test_a_gpu_gives_the_history_of_the_host_to_rounding(name):
    split = made_split(dtype="float64")
    there, here = (trained(split, device, name, lr=0.01, dtype="float64")[0] for device in ("cuda", "cpu"))
    assert not there.diverged
    for name in ("step_losses", "gradient_norms", "update_norms", "parameter_norms"):
        np.testing.assert_allclose(getattr(there, name), getattr(here, name), rtol=1e-9)
    assert [e.test_error for e in there.epochs] == [e.test_error for e in here.epochs]


def test_what_is_left_of_steps_before_a_run_is_told_before_it(split):
    params = (model := nn.Linear(4, 3)).init(device="strict")
    opt, grad = optim.SGD(params, lr=0.1), params.copy()
    grad["W"][0, 0] = math.nan
    opt.step(grad)
    with pytest.raises(optim.NonFiniteError, match="step 0"):
        train.fit(model, params, opt, nn.cross_entropy, split, epochs=1, batch=16)
    assert not train.fit(model, params, opt, nn.cross_entropy, split, epochs=1, batch=16).diverged


def test_a_loss_that_writes_to_its_input_does_not_reach_the_data_set(split, device):
    def loss(params, x, y):
        x /= 2
        return nn.cross_entropy(nn.Linear(4, 3)(params, x), y)

    before, params = split.val.x.copy(), nn.Linear(4, 3).init(device=device.name)
    if device.name == "cpu":
        with pytest.raises(ValueError, match="read-only"):
            metrics.score(lambda p, x, y: (loss(p, x, y), x), params, split.val)
        return
    first, again = (metrics.score(lambda p, x, y: (loss(p, x, y), x[:, :3]), params, split.val) for _ in range(2))
    assert first == again and np.array_equal(split.val.x, before)
