import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from minibng.backend.threads import cores
from minibng.experiments import MLP, compare, comparison, report, statistics
from minibng.experiments.comparison import grid
from minibng.experiments.declaration import RATIO, Claim, Experiment, Job, Preset, Trend, combine
from minibng.experiments.metrics import METRICS
from minibng.experiments.options import Axis
from minibng.experiments.pool import workers_for
from minibng.experiments.statistics import CONTRADICTED, EXPLORATORY, SUPPORTED, UNDECIDED
from minibng.plot import training_curves
from minibng.train import Epoch, History, records

SETTING = {"dataset": "made", "schedule": "constant"}
AXES = {"dataset": Axis(("made",), str, ""), "schedule": Axis(("constant",), str, "")}
BEST = {"good": 0.01, "bad": 1.0, "wild": 0.01}


def made_run(job: Job) -> History:
    """A run whose loss is known: a parabola in log10 rate with its lowest point at the optimizer's BEST."""
    away = math.log10(job.lr / BEST[job.optimizer])
    loss = (0.1 if job.optimizer == "good" else 0.3) * 10 ** (away**2) * (1 + 0.01 * ((job.seed * 7) % 5))
    diverged = job.optimizer == "wild" and job.lr > 0.005
    norms = np.ones((1 if job.record_norms else 0, 1))
    history = History(("0",), [Epoch(0, 2.0, 0.9, 0.9, 0.0)], norm_steps=np.arange(len(norms)),
                      gradient_norms=norms, update_norms=norms, parameter_norms=norms)  # fmt: skip
    history.epochs.append(Epoch(1, math.nan if diverged else loss, 0.2, 0.1 + loss / 10, 0.5, diverged))
    return history


def claim(baseline: str, treatment: str) -> Claim:
    return Claim("C1", "it works", baseline, treatment, SETTING)


def experiment(*claims: Claim, **changes) -> Experiment:
    fields = {
        "name": "made", "about": "", "train": made_run, "centre": lambda name, setting: 0.01, "centre_source": "here",
        "describe": str, "axes": AXES, "optimizers": ("bad", "good"),
        "full_optimizers": ("bad", "good"), "claims": claims, "epochs": 1, "batch": 2,
    }  # fmt: skip
    return Experiment(**(fields | changes))


def test_grids_have_equal_numbers_and_ratios():
    for n in (3, 5):
        rates = grid(0.02, n)
        assert len(rates) == n and rates[n // 2] == 0.02
        assert np.allclose(np.diff(np.log(rates)), math.log(RATIO), atol=0.01)


def test_the_best_rate_is_chosen_and_an_edge_is_extended_once_and_marked():
    result = compare(experiment())
    rows = {row.optimizer: row for row in result.rows}
    assert rows["good"].lr == 0.01 and not rows["good"].edge
    assert rows["bad"].lr == 0.1 and rows["bad"].edge  # its best, 1.0, is two half-decades beyond the grid's end
    tried = {name: sorted({r.job.lr for r in result.runs if r.job.optimizer == name}) for name in BEST}
    assert len(tried["good"]) == 3 and len(tried["bad"]) == 4


def test_the_table_holds_the_geometric_mean_of_the_losses():
    row = next(r for r in compare(experiment()).rows if r.optimizer == "good")
    losses = [0.1 * (1 + 0.01 * ((seed * 7) % 5)) for seed in range(5)]
    assert row.loss.mean == pytest.approx(np.exp(np.mean(np.log(losses))))
    assert row.loss.low < row.loss.mean < row.loss.high


def test_all_optimizers_get_the_same_seeds_and_runs_stand_in_the_order_of_the_declaration():
    result = compare(experiment())
    seeds = {name: [r.job.seed for r in result.runs if r.job.optimizer == name][:5] for name in ("good", "bad")}
    assert seeds["good"] == seeds["bad"] == [0, 1, 2, 3, 4]
    first = [(r.job.optimizer, r.job.lr, r.job.seed) for r in result.runs[:30]]
    assert first == [(o, lr, s) for o in ("bad", "good") for lr in grid(0.01, 3) for s in range(5)]
    assert [r.number for r in result.runs] == list(range(len(result.runs)))


def test_verdicts_on_a_planted_difference():
    assert compare(experiment(claim("bad", "good"))).verdicts[0].finding.verdict == SUPPORTED
    assert compare(experiment(claim("good", "bad"))).verdicts[0].finding.verdict == CONTRADICTED
    assert compare(experiment(claim("good", "good"))).verdicts[0].finding.verdict == UNDECIDED


def test_below_five_seeds_nothing_is_decided():
    assert compare(experiment(claim("bad", "good")), seeds=4).verdicts[0].finding.verdict == UNDECIDED


def test_another_budget_than_the_declared_one_judges_nothing():
    assert compare(experiment(claim("bad", "good")), epochs=2).verdicts == []
    more = compare(experiment(claim("bad", "good")), seeds=experiment().seeds + 1)
    assert more.verdicts == [] and "epochs or seeds are not those declared" in report.verdicts(more)


def test_the_difference_is_that_of_log_losses():
    finding = compare(experiment(claim("bad", "good"))).verdicts[0].finding
    assert finding.difference.mean == pytest.approx(math.log(0.1) - math.log(0.3 * 10), rel=1e-9)


def test_a_claim_that_was_not_run_is_not_judged_but_named():
    result = compare(experiment(claim("momentum", "good")))
    assert result.verdicts == []
    assert "C1  not tested: its primary comparison is good against momentum" in report.verdicts(result)


def test_diverged_runs_rank_worst_are_counted_and_decide_nothing():
    result = compare(experiment(claim("good", "wild")), optimizers=("good", "wild"))
    row = next(r for r in result.rows if r.optimizer == "wild")
    assert row.lr == 0.00316 and row.diverged == 0  # 0.01 would be best, but diverges
    rates = {"centre": lambda name, setting: 0.1}
    lost = compare(experiment(claim("good", "wild"), **rates), optimizers=("good", "wild"))
    wild = next(r for r in lost.rows if r.optimizer == "wild")
    assert wild.diverged == wild.seeds == 5
    assert lost.verdicts[0].finding.verdict == UNDECIDED
    assert "5/5" in report.table(lost)
    lines = [rec for run in lost.runs for rec in report.run_records(run) if rec["diverged"]]
    assert lines and all(records.plain(line)["train_loss"] is None for line in lines)


def test_a_rate_at_which_one_seed_diverged_ranks_behind_one_that_lost_none():
    def now_and_then(job):
        history = made_run(job._replace(optimizer="good"))
        if job.lr == 0.01 and job.seed == 3:  # the best rate, were it not for this seed
            history.epochs[-1] = Epoch(1, math.nan, math.nan, math.nan, 0.5, True)
        return history

    row = compare(experiment(train=now_and_then), optimizers=("good",)).rows[0]
    assert row.lr != 0.01 and row.diverged == 0


ERRORS = {  # optimizer → rate → (validation error, test error in percent) around which seeds lie
    "good": {0.00316: (0.30, 8.0), 0.01: (0.20, 9.0), 0.0316: (0.25, 2.0)},
    "bad": {0.00316: (0.40, 1.0), 0.01: (0.10, 5.0), 0.0316: (0.30, 3.0)},
}


def run_with_errors(job):
    """A run whose training loss is lowest at 0.0316, whose validation error at 0.01, and whose test error elsewhere."""
    val, test = ERRORS[job.optimizer].get(job.lr, (0.9, 90.0))
    history = made_run(job._replace(optimizer="good"))
    loss = 0.1 if math.isclose(job.lr, 0.0316) else 0.3
    history.epochs[-1] = Epoch(
        1, loss, val + 0.001 * job.seed, (test + job.seed**2 * (job.optimizer == "good")) / 100, 0.5
    )
    return history


def error_claim(**changes):
    return replace(claim("bad", "good"), number="C4", metric="test_error", **changes)


def test_a_claim_about_test_error_chooses_by_validation_error_and_compares_percentage_points():
    result = compare(experiment(error_claim(), train=run_with_errors))
    for row in result.rows:
        assert (row.lr, row.error_lr) == (0.0316, 0.01)
        assert not row.edge and not row.error_edge  # 0.1, with which the grid was extended, is worse
        assert row.error.mean == pytest.approx(0.05 if row.optimizer == "bad" else (9 + 6) / 100)  # 0, 1, 4, 9, 16
    assert {r.job.lr for r in result.reported} == {0.0316} and {r.job.lr for r in result.validated} == {0.01}
    finding = result.verdicts[0].finding
    d = np.array([4.0, 5.0, 8.0, 13.0, 20.0])  # 9 + seed² against 5
    half = 2.7764451052 * d.std(ddof=1) / math.sqrt(5)
    assert finding.difference == pytest.approx((10.0, 10.0 - half, 10.0 + half), rel=1e-9)
    assert finding.verdict == CONTRADICTED
    told = report.verdicts(result)
    assert f"difference of test errors +10.00 [{10 - half:+.2f}, {10 + half:+.2f}] percentage points, 5 paired" in told
    head, *lines = report.table(result).splitlines()[1:4]
    assert head.split("  ")[0] == "optimizer" and "rate by val. error" in head
    assert all("  0.0316  " in line and "  0.01  " in line for line in lines)


def test_both_choices_extend_the_grid_once_each():
    def apart(job):
        history = made_run(job)
        away = math.log10(job.lr / 0.01)
        history.epochs[-1] = Epoch(
            1, 0.1 * 10**away, 0.5 - 0.1 * away, 0.1, 0.5
        )  # loss falls to the left, error to the right
        return history

    result = compare(experiment(error_claim(), train=apart), optimizers=("good",))
    assert sorted({run.job.lr for run in result.runs}) == [0.001, 0.00316, 0.01, 0.0316, 0.1]
    assert (result.rows[0].lr, result.rows[0].error_lr) == (0.001, 0.1)
    assert [run.stage for run in result.runs].count("edge") == 10
    only_loss = compare(experiment(claim("bad", "good"), train=apart), optimizers=("good",))
    assert len({run.job.lr for run in only_loss.runs}) == 4 and only_loss.rows[0].error_lr == 0.001


def test_equal_validation_errors_are_told_apart_by_the_training_loss():
    def tied(job):
        history = made_run(job)
        history.epochs[-1] = Epoch(1, 0.2 if job.lr == 0.01 else 0.3, 0.25, 0.1, 0.5)
        return history

    assert compare(experiment(error_claim(), train=tied), optimizers=("good",)).rows[0].error_lr == 0.01


def test_both_kinds_of_claims_share_holms_correction():
    both = compare(experiment(claim("bad", "good"), error_claim(), train=run_with_errors)).verdicts
    alone = compare(experiment(error_claim(), train=run_with_errors)).verdicts[0]
    assert [v.claim.number for v in both] == ["C1", "C4"]
    p = statistics.p_value([4.0, 5.0, 8.0, 13.0, 20.0])
    assert 0.025 < p < 0.05 and alone.finding.verdict == CONTRADICTED and both[1].finding.verdict == UNDECIDED


def test_fresh_seeds_are_for_both_choices():
    result = compare(experiment(error_claim(), train=run_with_errors), full=True)
    fresh = {(run.job.optimizer, run.job.lr) for run in result.runs if run.stage == "fresh"}
    assert {lr for _, lr in fresh} == {0.0316, 0.01} and len(fresh) == 4
    assert {run.job.seed for run in result.validated} == {5, 6, 7, 8, 9}


def test_what_the_data_cannot_decide_is_told_without_a_verdict_and_takes_no_share_of_the_level():
    vague = error_claim(undecidable="all patches are of one wall")
    result = compare(experiment(vague, error_claim(), train=run_with_errors))
    assert [v.finding.verdict for v in result.verdicts] == [EXPLORATORY, CONTRADICTED]
    assert result.verdicts[0].finding.difference == result.verdicts[1].finding.difference
    assert "C4  EXPLORATORY: it works\n    no verdict: all patches are of one wall;" in report.verdicts(result)


NATS = {"good": 1.0, "bad": 2.0}


def language_run(job):
    """A language model's run: losses in nats that fall with the rate, on the validation part not quite as far."""
    history = made_run(job._replace(optimizer="good"))
    loss = NATS[job.optimizer] - 0.1 * math.log10(job.lr) + 0.01 * job.seed
    val = loss + abs(math.log10(job.lr / 0.01))
    history.epochs[-1] = Epoch(1, loss, 0.5, 0.6, 0.5, False, val, 2 * loss)
    return history


def language(*claims, **changes):
    columns = ("train_perplexity", "test_perplexity")
    return experiment(*claims, columns=columns, train=language_run, **changes)


def test_perplexities_are_compared_as_ratios_of_geometric_means():
    about = [replace(claim("bad", "good"), metric=metric) for metric in ("train_perplexity", "test_perplexity")]
    result = compare(language(*about))
    row = next(r for r in result.rows if r.optimizer == "good")
    assert (row.lr, row.error_lr) == (0.1, 0.01) and row.edge  # the largest that was tried; the best on validation
    nats = 1.0 - 0.1 * math.log10(0.1) + 0.02
    assert row.loss.mean == pytest.approx(math.exp(nats)) and row.loss.low < row.loss.mean < row.loss.high
    assert row.error.mean == pytest.approx(math.exp(2 * (nats + 0.1)))
    first, second = (v.finding for v in result.verdicts)
    assert (first.difference.mean, second.difference.mean) == pytest.approx((-1.0, -2.0))
    told = report.verdicts(result)
    assert "ratio of training perplexities 0.368 [0.368, 0.368], 5 paired seeds" in told
    assert "ratio of test perplexities 0.135 [0.135, 0.135], 5 paired seeds" in told
    table = report.table(result)
    assert "  training perplexity  " in table and "  rate by val. loss  test perplexity  " in table
    notes = " ".join(table.split("\n\n")[-1].split())
    assert "training perplexity (geometric), test perplexity (geometric)" in notes
    assert "by final training loss, for the test perplexity by validation loss." in notes


def test_baselines_are_lines_of_the_table():
    def baselines(setting):
        assert setting["dataset"] == "made"
        return {"(chance)": (100.0, None), "(counts)": (7.25, 8.5)}

    lines = report.table(compare(language(baselines=baselines))).splitlines()
    head = next(k for k, line in enumerate(lines) if line.startswith("optimizer"))
    left, right = (lines[head].index(name) for name in ("training perplexity", "test perplexity"))
    chance, counts = lines[head + 3 : head + 5]
    assert (chance[left : left + 3], chance[right:]) == ("100", "")
    assert (counts[left : left + 4], counts[right : right + 3]) == ("7.25", "8.5")


def test_a_loss_that_overflowed_ranks_last_and_is_in_no_mean():
    def some_lost(job):
        history = language_run(job)
        lost = math.nan if job.seed == 3 else 1.0
        history.epochs[-1] = Epoch(1, 1.0, 0.5, 0.6, 0.5, False, lost, lost)
        return history

    both = language(replace(claim("bad", "good"), metric="test_perplexity"))
    result = compare(replace(both, train=some_lost))
    assert result.rows[0].error.mean == pytest.approx(math.e)
    assert result.verdicts[0].finding.verdict == UNDECIDED and result.verdicts[0].finding.finite == 4


def test_a_claim_is_about_one_of_the_columns():
    with pytest.raises(ValueError, match="unknown metric of claim C1 'train_loss'; did you mean 'train_perplexity'"):
        language(claim("bad", "good"))


def test_a_regression_has_no_error_rate_to_compare():
    history = History(("0",), [Epoch(0, 1.0, None, None, 0.0)])
    with pytest.raises(ValueError, match="no test_error to compare: a regression has no error rate"):
        METRICS["test_error"].compared(history)


def test_records_and_trends_are_of_the_columns(tmp_path):
    trend = Trend("Does it grow?", "depth", (("bad", "good"),))
    result = compare(language(axes=AXES | {"depth": Axis((8, 20), int, "")}, trends=(trend,), clip=0.25))
    report.save_records(result, tmp_path)
    head, *lines = records.read(tmp_path / "records.jsonl")
    declared = head["declaration"]
    assert declared["columns"] == ["train_perplexity", "test_perplexity"] and declared["clip"] == 0.25
    assert {"val_loss", "test_loss"} <= lines[0].keys() and lines[0]["test_loss"] is None
    assert "Ratio of training perplexities" in report.effects(result)


def test_a_metric_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="unknown metric 'test_eror'; did you mean 'test_error'"):
        replace(claim("bad", "good"), metric="test_eror")


def test_a_trend_tells_the_ratio_at_every_value_of_its_axis():
    def deeper(job):
        history = made_run(job)
        gain = 1.0 if job.optimizer == "bad" else math.exp(-0.1 * job.setting["depth"] - 0.01 * job.seed)
        history.epochs[-1] = Epoch(1, gain, 0.2, 0.1, 0.5, diverged=job.seed == 4 and job.setting["depth"] == 20)
        return history

    depths = AXES | {"depth": Axis((8, 20), int, "")}
    trend = Trend("Does it grow?", "depth", (("bad", "good"), ("bad", "absent")))
    result = compare(experiment(axes=depths, trends=(trend,), train=deeper))
    assert [(e.value, e.baseline, e.treatment, e.pairs, e.finite) for e in result.effects] == [
        (8, "bad", "good", 5, 5),
        (20, "bad", "good", 5, 4),
    ]
    first, second = (effect.difference for effect in result.effects)
    assert (first.mean, second.mean) == pytest.approx((-0.8 - 0.02, -2.0 - 0.015))
    half = 2.7764451052 * np.std([0, 0.01, 0.02, 0.03, 0.04], ddof=1) / math.sqrt(5)
    assert first.high - first.mean == pytest.approx(half)
    table = report.effects(result).splitlines()
    assert table[0].startswith("Does it grow?") and table[1] == "depth  good / bad"
    assert table[2].startswith(f"8      {math.exp(-0.82):.3g} [") and table[3].endswith("(4 of 5 pairs)")
    assert report.effects(compare(experiment(axes=depths, trends=(trend,), train=deeper), settings=[
        {**SETTING, "depth": 8}])) == ""  # fmt: skip


def test_details_that_all_settings_share_are_told_once():
    axes = AXES | {"width": Axis((8,), int, "", detail=True), "note": Axis((None,), str, "", detail=True)}
    parts = report.table(compare(experiment(axes=axes))).split("\n\n")
    assert parts[0] == "width 8" and parts[1].startswith("dataset made\n")
    both = report.table(
        compare(experiment(axes=axes), settings=[{**SETTING, "width": w, "note": None} for w in (4, 8)])
    )
    assert both.startswith("dataset made, width 4\n") and "\ndataset made, width 8\n" in both


def test_a_preset_replaces_what_it_names():
    presets = {"large": Preset("more", {"dataset": ("big",)}, {"epochs": 3, "claims": (claim("bad", "good"),)})}
    large = experiment(presets=presets).preset("large")
    assert large.axes_of(False) == large.axes_of(True) == {"dataset": ("big",), "schedule": ("constant",)}
    assert (large.epochs, len(large.claims), large.batch) == (3, 1, 2)
    with pytest.raises(ValueError, match="unknown preset 'lage'; did you mean 'large'"):
        experiment(presets=presets).preset("lage")


def test_the_first_values_of_the_axes_are_the_default_setting():
    axes = AXES | {"depth": Axis((8, 20), int, "")}
    assert experiment(axes=axes).setting(schedule="step") == SETTING | {"depth": 8, "schedule": "step"}
    with pytest.raises(ValueError, match="unknown axis of made 'dept'; did you mean 'depth'"):
        experiment(axes=axes).setting(dept=3)


def test_where_files_lie_is_no_part_of_what_is_compared():
    result = compare(experiment(claim("bad", "good")), settings=[{**SETTING, "data_dir": "/somewhere"}])
    assert result.verdicts[0].finding.verdict == SUPPORTED


def test_every_setting_is_prepared_once_before_any_run():
    seen = []

    def until_run(job):
        seen.append("run")
        return made_run(job)

    settings = [{**SETTING, "dataset": name} for name in ("one", "two")]
    compare(experiment(prepare=lambda s: seen.append(s["dataset"]), train=until_run), settings=settings, seeds=1)
    assert seen[:3] == ["one", "two", "run"] and seen.count("one") == 1


def test_full_reports_on_fresh_seeds():
    result = compare(experiment(claim("bad", "good")), full=True)
    assert sorted({r.job.seed for r in result.reported}) == [5, 6, 7, 8, 9]
    assert {r.job.seed for r in result.runs if r.stage != "fresh"} == {0, 1, 2, 3, 4}
    assert {r.job.seed for r in result.runs if r.stage == "fresh"} == {5, 6, 7, 8, 9}


def test_ctrl_c_keeps_the_finished_runs(monkeypatch, tmp_path):
    def until_interrupted(self, jobs, what):
        return [self.train(job) if i < 7 else None for i, job in enumerate(jobs)]

    monkeypatch.setattr(comparison.Pool, "run", until_interrupted)
    result = compare(experiment(claim("bad", "good")))
    assert result.interrupted and result.rows == [] and len(result.runs) == 7
    report.save_records(result, tmp_path)
    head, *lines = records.read(tmp_path / "records.jsonl")
    assert head["interrupted"] is True and len(lines) == 14


def test_records_hold_what_the_contract_names(tmp_path):
    result = compare(experiment(claim("bad", "good")))
    paths = [*report.save_records(result, tmp_path), *report.save_figures(result, tmp_path)]
    head, *lines = records.read(tmp_path / "records.jsonl")
    assert {"versions", "cpu", "blas_threads", "command"} <= head.keys()
    names = {"run", "optimizer", "lr", "seed", "epoch", "train_loss", "val_error", "test_error", "seconds", "diverged"}
    assert all(names <= line.keys() for line in lines)
    assert len(lines) == 2 * len(result.runs)
    assert {p.name for p in paths} == {p.name for p in tmp_path.iterdir()}
    assert training_curves(lines) is not None


def test_the_declared_experiment_is_sound():
    from minibng import optim

    for name in (*MLP.optimizers, *MLP.full_optimizers):
        assert name in optim.names()
        for setting in combine(MLP.axes_of(True)):
            assert MLP.centre(name, setting) > 0
    for c in MLP.claims:
        assert {c.baseline, c.treatment} <= set(MLP.optimizers)
        assert c.setting in combine(MLP.axes_of(False))


@pytest.mark.processes
def test_processes_change_nothing_and_leave_the_environment_alone():
    import os

    MLP.prepare(combine(MLP.axes_of(False))[0])  # scikit-learn, once imported, sets variables of its own
    before = dict(os.environ)
    short = {
        "optimizers": ("momentum-ng",),
        "seeds": 2,
        "epochs": 1,
        "settings": combine(MLP.axes_of(False))[:1],
        "show": False,
    }
    two, one = (compare(MLP, workers=n, **short) for n in (2, 1))
    key = [(r.job, [(e.train_loss, e.test_error) for e in r.history.epochs]) for r in two.runs]
    assert key == [(r.job, [(e.train_loss, e.test_error) for e in r.history.epochs]) for r in one.runs]
    assert dict(os.environ) == before


def test_a_gpu_has_one_process_and_the_host_one_a_core():
    assert workers_for("cuda:0") == workers_for("cuda:1") == 1
    assert workers_for("cpu") == workers_for("strict") == cores()


def test_every_run_is_on_the_device_and_the_records_name_it(tmp_path):
    result = compare(experiment(), device="strict")
    assert {run.job.device for run in result.runs} == {"strict"} and result.device == "strict"
    report.save_records(result, tmp_path)
    assert records.read(tmp_path / "records.jsonl")[0]["device"] == "strict"
    with pytest.raises(ValueError, match="unknown device 'gpu'; did you mean 'cuda'"):
        compare(experiment(), device="gpu")


def test_the_head_of_the_records_says_which_gpu_it_was(monkeypatch):
    cupy = SimpleNamespace(xp=SimpleNamespace(__version__="14.2.0"))
    monkeypatch.setattr(report, "gpu_name", lambda device: "NVIDIA H100")
    monkeypatch.setattr(report, "get_backend", lambda device: cupy)
    assert report.device_labels("cuda:1") == {"device": "cuda:1", "gpu": "NVIDIA H100", "cupy": "14.2.0"}
    assert report.device_labels("cpu") == {"device": "cpu"}


def test_the_strict_device_gives_the_records_of_the_host():
    """Bit for bit, those of diverging runs included: a device learns only at the end of an epoch that it diverged."""
    setting = {"dataset": "digits", "depth": 2, "activation": "relu", "schedule": "constant"}
    centres = {"sgd": 1e30, "momentum": 1e38, "adam-ng": 0.01}
    wild = replace(MLP, centre=lambda name, setting: centres[name])
    short = {"settings": [setting], "optimizers": tuple(centres), "seeds": 2, "epochs": 2, "show": False}
    found = {}
    for device in ("cpu", "strict"):
        result = compare(wild, device=device, **short)
        rows = [row for run in result.runs for row in report.run_records(run) + report.norm_records(run)]
        found[device] = records.plain([{k: v for k, v in row.items() if k != "seconds"} for row in rows])
        assert 0 < sum(bool(run.history.error) for run in result.runs) < len(result.runs)
    assert found["cpu"] == found["strict"]


@pytest.mark.processes
def test_an_error_in_a_run_reaches_the_caller():
    wrong = {**combine(MLP.axes_of(False))[0], "depth": 0.5}
    with pytest.raises(TypeError, match="multiply sequence"):
        compare(MLP, settings=[wrong], seeds=1, epochs=1, workers=1, show=False)


def test_data_that_there_are_not_are_refused_before_any_process_starts(monkeypatch):
    monkeypatch.setattr("minibng.experiments.comparison.Pool", None)
    with pytest.raises(ValueError, match="unknown data set"):
        compare(MLP, settings=[{**combine(MLP.axes_of(False))[0], "dataset": "digit"}], seeds=1, epochs=1, show=False)


def test_a_table_tells_the_name_of_a_folder_and_not_where_it_lies():
    assert report._words({"dataset": "folder", "data_dir": "/home/me/photos"}) == "dataset folder, data dir photos"
    assert report._words({"dataset": "mnist5k", "data_dir": None}) == "dataset mnist5k"
