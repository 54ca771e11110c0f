import math

import numpy as np
import pytest

import minibng as bng
from minibng import nn, optim, train
from minibng.data import Dataset, Split


@pytest.fixture
def split():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((90, 4)).astype("float32")
    y = (x[:, 0] > 0).astype("int64") + (x[:, 1] > 0)
    parts = [Dataset(x[a:b], y[a:b], classes=3) for a, b in ((0, 50), (50, 70), (70, 90))]
    return Split(*parts, name="toy", classes=3, source="made here")


def setting(split, name="momentum-ng", lr=0.1, seed=0):
    model = nn.models.mlp(4, [5], 3, activation="tanh")
    params = model.init(seed)
    return model, params, optim.get(name)(params, lr=lr), nn.cross_entropy, split


def test_fit_is_the_loop_written_out(split):
    model, params, opt, loss, _ = setting(split)
    history = train.fit(model, params, opt, loss, split, epochs=3, batch=16, seed=7)
    model2, mine, opt2, *_ = setting(split)
    step = bng.value_and_grad(lambda p, x, y: loss(model2(p, x, train=True), y))
    losses = []
    for epoch in range(3):
        for x, y in bng.data.batches(split.train, 16, seed=7, epoch=epoch):
            value, grad = step(mine, x, y)
            losses.append(float(value))
            opt2.step(grad)
    assert np.array_equal(params.flat, mine.flat)
    assert history.step_losses.tolist() == losses
    assert len(losses) == 3 * 4  # 50 samples in batches of 16: the last one is partial


def test_what_is_measured_is_of_whole_splits_by_the_last_parameters(split):
    model, params, opt, loss, _ = setting(split)
    history = train.fit(model, params, opt, loss, split, epochs=2, batch=16)
    last = history.epochs[-1]
    assert [e.epoch for e in history.epochs] == [0, 1, 2]
    assert last.train_loss == pytest.approx(float(loss(model(params, split.train.x), split.train.y)), rel=1e-6)
    for part, error in ((split.val, last.val_error), (split.test, last.test_error)):
        assert error == np.mean(np.argmax(model(params, part.x), axis=1) != part.y)
    for part, told in ((split.val, last.val_loss), (split.test, last.test_loss)):
        assert told == pytest.approx(float(loss(model(params, part.x), part.y)), rel=1e-6)
    assert {"val_loss", "test_loss"} <= history.records()[0].keys()


def test_both_forms_of_the_loss_train_alike(split):
    model, params, opt, loss, _ = setting(split)
    train.fit(model, params, opt, loss, split, epochs=2, batch=16)
    model2, other, opt2, *_ = setting(split)
    train.fit(model2, other, opt2, lambda p, x, y: loss(model2(p, x, train=True), y), split, epochs=2, batch=16)
    assert np.array_equal(params.flat, other.flat)


def test_a_loss_of_another_form_is_refused(split):
    model, params, opt, *_ = setting(split)
    with pytest.raises(TypeError, match=r"loss\(output, y\) or loss\(params, x, y\), got 1"):
        train.fit(model, params, opt, lambda x: x, split, batch=16)


def test_recorded_norms_are_those_of_gradient_and_step(split):
    model, params, opt, loss, _ = setting(split, "sgd-ng", lr=0.25)
    before = params.copy()
    history = train.fit(model, params, opt, loss, split, epochs=1, batch=50, record_norms=True)
    grad = bng.grad(lambda p: loss(model(p, *full(split)[:1]), full(split)[1]))(before)
    expected = [np.linalg.norm(np.concatenate(views)) for _, views in grad.blocks()]
    assert np.allclose(history.gradient_norms[0], expected, rtol=1e-5)
    assert np.allclose(history.update_norms, 0.25, rtol=1e-4)  # SGD-NG: each block moves by the rate
    assert history.blocks == ("0", "2")


def test_parameter_norms_are_those_before_each_step(split):
    model, params, opt, loss, _ = setting(split, "momentum-ng-adaptive", lr=0.01)
    history = train.fit(model, params, opt, loss, split, epochs=2, batch=20, seed=3, record_norms=True)
    model, mine, opt, *_ = setting(split, "momentum-ng-adaptive", lr=0.01)
    step = bng.value_and_grad(lambda p, x, y: loss(model(p, x, train=True), y))
    expected = []
    for epoch in range(2):
        for x, y in bng.data.batches(split.train, 20, seed=3, epoch=epoch):
            expected.append([np.sqrt(sum(np.sum(v.astype(float) ** 2) for v in views)) for _, views in mine.blocks()])
            opt.step(step(mine, x, y)[1])
    np.testing.assert_allclose(history.parameter_norms, expected, rtol=1e-6)
    assert np.ptp(history.parameter_norms, axis=0).min() > 0


def test_norms_of_every_third_step_are_those_of_these_steps(split):
    model, params, opt, loss, _ = setting(split)
    whole = train.fit(model, params, opt, loss, split, epochs=3, batch=13, record_norms=True)  # 4 steps an epoch
    model, params, opt, loss, _ = setting(split)
    third = train.fit(model, params, opt, loss, split, epochs=3, batch=13, record_norms=3)
    assert whole.norm_steps.tolist() == list(range(12)) and third.norm_steps.tolist() == [0, 3, 6, 9]
    for name in ("parameter_norms", "gradient_norms", "update_norms"):
        assert np.array_equal(getattr(third, name), getattr(whole, name)[::3])
    assert np.array_equal(third.step_losses, whole.step_losses)
    assert [r["step"] for r in third.norm_records()] == [0, 3, 6, 9]
    assert {"gradient", "update", "parameter", "blocks"} <= third.norm_records()[0].keys()
    for wrong in (-1, 0.5):
        with pytest.raises(ValueError, match="record_norms is True, False or a number of steps"):
            train.fit(model, params, opt, loss, split, batch=16, record_norms=wrong)


def test_measuring_less_often_changes_nothing_but_the_epochs_that_are_told(split):
    model, params, opt, loss, _ = setting(split)
    whole = train.fit(model, params, opt, loss, split, epochs=5, batch=16)
    model, other, opt, loss, _ = setting(split)
    seldom = train.fit(model, other, opt, loss, split, epochs=5, batch=16, measure_every=2)
    assert np.array_equal(params.flat, other.flat)
    assert [e.epoch for e in seldom.epochs] == [0, 2, 4, 5]
    assert [e.train_loss for e in seldom.epochs] == [whole.epochs[i].train_loss for i in (0, 2, 4, 5)]
    model, lost, opt, loss, _ = setting(split, "sgd", lr=1e38)
    history = train.fit(model, lost, opt, loss, split, epochs=9, batch=16, measure_every=9)
    assert history.diverged and history.epochs[-1].epoch < 9
    with pytest.raises(ValueError, match="measure_every must be 1 or more, got 0"):
        train.fit(model, lost, opt, loss, split, batch=16, measure_every=0)


def test_augmentation_is_that_of_the_batches(split):
    class Shifted:
        def draw(self, n, rng):
            return rng.integers(3, size=n)

        def apply(self, x, drawn):
            return x + drawn[:, None].astype(x.dtype)

    model, params, opt, loss, _ = setting(split)
    train.fit(model, params, opt, loss, split, epochs=2, batch=16, seed=4, augment=Shifted())
    model, mine, opt, *_ = setting(split)
    step = bng.value_and_grad(lambda p, x, y: loss(model(p, x, train=True), y))
    for epoch in range(2):
        for x, y in bng.data.batches(split.train, 16, seed=4, epoch=epoch, augment=Shifted()):
            opt.step(step(mine, x, y)[1])
    assert np.array_equal(params.flat, mine.flat)


def full(split):
    (batch,) = bng.data.batches(split.train, 50)
    return batch


def test_a_diverged_run_ends_and_says_so(split):
    model, params, opt, loss, _ = setting(split, "sgd", lr=1e38)
    history = train.fit(model, params, opt, loss, split, epochs=5, batch=16)
    assert history.diverged
    assert len(history.epochs) < 6
    assert math.isnan(history.epochs[-1].train_loss) or history.error


def test_dropout_is_off_when_measuring_and_its_counter_untouched(split):
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))
    params = model.init(0)
    start = params.buffers["1.counter"]
    train.fit(model, params, optim.SGD(params, lr=0.0), nn.cross_entropy, split, epochs=2, batch=25)
    assert params.buffers["1.counter"] == start + 4


def test_epochs_zero_measures_only_and_negative_is_refused(split):
    model, params, opt, loss, _ = setting(split)
    before = params.flat.copy()
    assert len(train.fit(model, params, opt, loss, split, epochs=0, batch=16).epochs) == 1
    assert np.array_equal(params.flat, before)
    with pytest.raises(ValueError, match="epochs must be 0 or more, got -1"):
        train.fit(model, params, opt, loss, split, epochs=-1)


def test_a_batch_larger_than_the_data_set_is_refused(split):
    model, params, opt, loss, _ = setting(split)
    with pytest.raises(ValueError, match=r"128.*50"):
        train.fit(model, params, opt, loss, split, batch=128)


def test_float64_stays_float64(split):
    model = nn.models.mlp(4, [5], 3)
    params = model.init(0, dtype="float64")
    double = Split(*(Dataset(p.x.astype("float64"), p.y, classes=3) for p in (split.train, split.val, split.test)),
                   name="toy", classes=3, source="made here")  # fmt: skip
    train.fit(model, params, optim.AdamNG(params, lr=0.01), nn.cross_entropy, double, epochs=1, batch=16)
    assert params.flat.dtype == np.float64


def test_regression_has_a_loss_and_no_error(split):
    rng = np.random.default_rng(1)
    parts = [Dataset(rng.standard_normal((n, 2)).astype("float32"), rng.standard_normal((n, 1)).astype("float32"))
             for n in (20, 5, 5)]  # fmt: skip
    model = nn.Linear(2, 1)
    params = model.init(0)
    history = train.fit(
        model, params, optim.SGD(params, lr=0.1), nn.mse, Split(*parts, name="r", classes=0, source=""), batch=5
    )
    assert history.epochs[-1].val_error is None
    assert math.isfinite(history.epochs[-1].train_loss)


def test_records_are_what_the_figures_take(split):
    from minibng import plot

    model, params, opt, loss, _ = setting(split)
    history = train.fit(model, params, opt, loss, split, epochs=2, batch=16, record_norms=True)
    records = history.records(optimizer="momentum-ng", lr=0.1, seed=0)
    norms = history.norm_records(optimizer="momentum-ng", lr=0.1, seed=0)
    assert [r["epoch"] for r in records] == [0, 1, 2] and len(norms) == 8
    assert norms[3]["blocks"] == ["0", "2"] and np.array_equal(norms[3]["gradient"], history.gradient_norms[3])
    assert plot.training_curves(records) is not None and plot.norm_heatmap(norms) is not None


def test_norms_follow_the_optimizers_partition_and_skipped_steps_keep_their_row(split):
    model, params, _, loss, _ = setting(split)
    opt = optim.SGD(params, lr=0.1, blocks="tensor")
    history = train.fit(model, params, opt, loss, split, epochs=1, batch=25, record_norms=True)
    assert history.gradient_norms.shape == history.update_norms.shape == (2, 4)
    assert np.allclose(history.update_norms, 0.1 * history.gradient_norms, rtol=1e-4)


def test_a_diverged_epoch_has_no_numbers(split):
    model, params, opt, loss, _ = setting(split, "sgd", lr=1e38)
    last = train.fit(model, params, opt, loss, split, epochs=5, batch=16).epochs[-1]
    assert last.diverged and math.isnan(last.train_loss) and math.isnan(last.test_error)


def test_an_optimizer_of_other_parameters_is_refused(split):
    model, params, _, loss, _ = setting(split)
    with pytest.raises(ValueError, match="made on other parameters"):
        train.fit(model, params, optim.SGD(params.copy(), lr=0.1), loss, split, batch=16)


def test_a_loss_of_the_parameters_is_measured_without_dropout_if_it_can_be(split):
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.9))
    params = model.init(0)

    def loss(p, x, y, train=True):
        return nn.cross_entropy(model(p, x, train=train), y)

    first = train.fit(model, params, optim.SGD(params, lr=0.0), loss, split, epochs=0, batch=25).epochs[0]
    assert first.train_loss == pytest.approx(float(nn.cross_entropy(model(params, split.train.x), split.train.y)))


def test_a_dataset_in_place_of_a_split_is_refused(split):
    model, params, opt, loss, _ = setting(split)
    with pytest.raises(TypeError, match="fit takes a Split"):
        train.fit(model, params, opt, loss, split.train)


def test_micro_batches_take_the_steps_of_the_whole_batch(split):
    wide = [Dataset(part.x.astype("float64"), part.y, 3) for part in (split.train, split.val, split.test)]
    split = Split(*wide, name="toy", classes=3, source="in double precision")
    model = nn.models.mlp(4, [5, 5], 3, "tanh")
    ends, losses = {}, {}
    for micro in (None, 20, 7, 1):
        params = model.init(seed=0, dtype="float64")
        opt = optim.MomentumNG(params, lr=0.05)
        history = train.fit(model, params, opt, nn.cross_entropy, split, 3, 20, micro_batch=micro)
        ends[micro], losses[micro] = params.flat, history.step_losses
    np.testing.assert_array_equal(ends[20], ends[None])
    for micro in (7, 1):
        np.testing.assert_allclose(ends[micro], ends[None], rtol=0, atol=1e-13)
        np.testing.assert_allclose(losses[micro], losses[None], rtol=1e-13)


@pytest.mark.parametrize("micro", [0, 17, -1])
def test_a_micro_batch_is_part_of_a_batch(split, micro):
    with pytest.raises(ValueError, match=f"micro_batch must lie in 1 … 16, the batch size, got {micro}"):
        train.fit(*setting(split), batch=16, micro_batch=micro)


@pytest.mark.parametrize("loss, low", [(nn.binary_cross_entropy, 0), (nn.hinge, -1)])
def test_a_single_output_decides_by_its_sign(split, loss, low):
    parts = [Dataset(p.x, np.where(p.y > 1, 1, low)) for p in (split.train, split.val, split.test)]
    two = Split(*parts, name="toy", classes=2, source="made here")
    model = nn.Linear(4, 1)
    params = model.init(seed=0)
    history = train.fit(model, params, optim.Adam(params, lr=0.1), lambda z, y: loss(z[:, 0], y), two, 30, 10)
    z = model(params, two.test.x)[:, 0]
    assert history.epochs[-1].test_error == np.mean((z > 0) != (two.test.y > 0)) < 0.3


def test_a_loss_that_is_no_scalar_is_refused(split):
    model, params, opt, *_ = setting(split)
    with pytest.raises(ValueError, match=r"the loss must be a scalar, got shape \(50,\): take its np\.mean"):
        train.fit(model, params, opt, lambda z, y: (z[:, 0] - y) ** 2, split, batch=16)


def test_arguments_of_another_kind_are_refused_with_the_order(split):
    model, params, opt, loss, _ = setting(split)
    with pytest.raises(TypeError, match=r"epochs must be a whole number, got 2\.5"):
        train.fit(model, params, opt, loss, split, epochs=2.5)
    with pytest.raises(TypeError, match=r"opt is the class MomentumNG: make it, MomentumNG\(params, lr=…\)"):
        train.fit(model, params, optim.MomentumNG, loss, split)
    order = r"the order is fit\(model, params, opt, loss, split\)"
    for swapped, told in (
        ((params, model, opt, loss), "params are a Params, .* got a Sequential"),
        ((params, params, opt, loss), "the model is called as .* got a Params"),
        ((model, params, loss, opt), "opt is an optimizer .* got a function"),
    ):
        with pytest.raises(TypeError, match=f"{told}: {order}"):
            train.fit(*swapped, split)
