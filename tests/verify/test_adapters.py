"""Subjects of every kind become targets that step as the subject does; what is inferred of them is what they are."""

import sys
import textwrap

import numpy as np
import pytest

from minibng import optim
from minibng.verify import LAWS, Gradient, Target, adapt, check, run
from minibng.verify.adapters import ACCEPTED, NotCallableError, find

G = Gradient((np.array([3.0, 4.0]), np.array([[-2.0]])), ((0,), (1,)))


def unit(g):
    return g / (np.linalg.norm(g) or 1)


def heavy_ball(params, grads, state):
    lr, mu = 0.25, 0.9
    m = [unit(g) if state is None else mu * b + unit(g) for g, b in zip(grads, state or grads, strict=True)]
    return [x - lr * v for x, v in zip(params, m, strict=True)], m


def nesterov(params, grads, state):
    lr, mu = 0.3, 0.75
    m = [unit(g) if state is None else mu * b + unit(g) for g, b in zip(grads, state or grads, strict=True)]
    return [x - lr * (unit(g) + mu * v) for x, g, v in zip(params, grads, m, strict=True)], m


def in_place(params, grads, state):
    for x, g in zip(params, grads, strict=True):
        x -= 1e-3 * unit(g)
    return params, state


def rms_like(params, grads, state):
    """An ε beside the norm: the rate is 0.1 all the same."""
    return [x - 0.1 * g / (np.linalg.norm(g) + 1e-8) for x, g in zip(params, grads, strict=True)], state


def normalizer(blocks):
    return [unit(g) for g in blocks]


@pytest.mark.parametrize(
    ("step", "rate", "momentum", "ahead"),
    [(heavy_ball, 0.25, 0.9, 0), (nesterov, 0.3, 0.75, 1), (in_place, 1e-3, 0.0, 0), (rms_like, 0.1, 0.0, 0)],
    ids=lambda v: getattr(v, "__name__", None),
)
def test_rate_and_momentum_of_a_function_are_inferred(step, rate, momentum, ahead):
    target = adapt(step)
    assert (target.rate, target.momentum, target.ahead) == (pytest.approx(rate, rel=1e-12), momentum, ahead)
    assert target.partition == "tensor" and target.promises is None and target.name == step.__name__


def test_a_function_steps_as_it_is_written():
    u = adapt(heavy_ball).directions(G)
    assert [v.dtype for v in u] == [np.longdouble] * 2
    np.testing.assert_allclose(np.concatenate(u), [0.6, 0.8, -1], rtol=1e-15)
    given = adapt(heavy_ball, lr=0.5)
    assert given.rate == 0.5 and given.rate_of(3.0) == 0.5
    np.testing.assert_allclose(np.concatenate(given.directions(G)), [0.3, 0.4, -0.5], rtol=1e-15)


@pytest.mark.parametrize("name", ["unit-norm", "step-length", "resume", "idle-block"])
def test_correct_functions_keep_the_laws(name):
    def safe(params, grads, state):
        out = optim.normalize_blocks(grads)
        m = out if state is None else [0.9 * b + u for b, u in zip(state, out, strict=True)]
        return [x - 0.25 * v for x, v in zip(params, m, strict=True)], m

    run(LAWS[name], adapt(safe), examples=20)


def test_rate_that_cannot_be_inferred_is_asked_for():
    def adaptive(params, grads, state):
        return [x - 0.1 * np.linalg.norm(x) * unit(g) for x, g in zip(params, grads, strict=True)], None

    with pytest.raises(ValueError, match=r"rate of adaptive cannot be inferred.* by 0\.0; give it as lr="):
        adapt(adaptive)
    assert adapt(adaptive, lr=0.1, floor=0.0).floor == 0.0
    for lr in (0.0, -1.0, float("inf")):
        with pytest.raises(ValueError, match="lr must be positive and finite"):
            adapt(adaptive, lr=lr)


def test_normalizers():
    target = adapt(normalizer)
    assert target.make is None and target.dtypes == ("float32", "float64", "float16")
    np.testing.assert_array_equal(np.concatenate(target.directions(G)), [0.6, 0.8, -1])
    assert adapt(lambda blocks: tuple(normalizer(blocks)), clip=2.0).clip == 2.0
    assert adapt(normalizer, dtypes=("float64",)).dtypes == ("float64",)


def test_ours():
    target = adapt("momentum-ng", momentum=0.5)
    assert (target.name, target.momentum, target.rate, target.partition) == ("momentum-ng", 0.5, None, "any")
    assert target.promises == Target.of(optim.MomentumNG).promises and target.devices == ("cpu", "strict")
    fixed = adapt(optim.MomentumNG, lr=0.25)
    np.testing.assert_allclose(np.concatenate(fixed.directions(G)), [0.6, 0.8, -1], rtol=1e-15)
    assert fixed.rate == 0.25
    assert adapt("sgd", normalize="clip-global", clip=3.0).partition == "global"
    assert adapt(optim.SGDClip).clip == 1.0 and adapt(optim.SignSGD).partition == "tensor"
    assert adapt(target) is not None and adapt(target).name == "momentum-ng"


def test_mutants_have_names():
    name = next(iter(find("minibng.verify.mutants:MUTANTS")))
    assert adapt(f"mutant:{name}").directions(G) is not None
    with pytest.raises(ValueError, match="unknown mutant 'nosuch'"):
        find("mutant:nosuch")


@pytest.mark.parametrize(
    "subject", [5, "adam-ng".split, None, dict, optim.SGD([np.ones(1)], lr=1.0)], ids=lambda v: type(v).__name__
)
def test_what_cannot_be_checked_is_refused_with_what_can(subject):
    with pytest.raises((TypeError, NotCallableError)) as caught:
        adapt(subject)
    assert ACCEPTED in str(caught.value)


def takes_two(params, grads):
    return params


def returns_none(params, grads, state):
    params[0] -= 1.0


def returns_params(params, grads, state):
    return params


def loses_one(params, grads, state):
    return params[1:], state


def breaks(params, grads, state):
    return params / 2, state


def exits(params, grads, state):
    sys.exit(3)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (takes_two, r"it takes 2 arguments: step\(params, grads, state\) takes three"),
        (returns_none, r"returns \(params, state\), params a list of arrays; a NoneType came"),
        (returns_params, r"a list of 1: ndarray came"),
        (loses_one, "step returned 0 arrays of parameters for 1"),
        (breaks, r"on the simplest example, g = \[1.0\] of float32, it raised TypeError"),
        (exits, r"it called sys.exit\(3\)"),
        (lambda blocks: None, "a normalizer returns a list of arrays, one a block; a NoneType came back"),
    ],
    ids=lambda v: getattr(v, "__name__", None),
)
def test_what_does_not_work_at_all_is_told(step, message):
    with pytest.raises(NotCallableError, match=message):
        adapt(step)


def test_settings_are_the_subjects_or_the_targets():
    assert adapt(heavy_ball, momentum=0.5).momentum == 0.5
    with pytest.raises(TypeError, match="unknown setting 'momentun'; did you mean 'momentum'"):
        adapt("momentum-ng", momentun=0.5)
    with pytest.raises(TypeError, match="unknown setting 'eps'"):
        adapt(heavy_ball, eps=0.5)


def test_names(tmp_path, monkeypatch):
    (tmp_path / "mine_of_test.py").write_text(
        "from beside_of_test import K\ndef step(p, g, s): return p, K\nclass A: b = 1"
    )
    (tmp_path / "beside_of_test.py").write_text("K = 7")
    (tmp_path / "broken_of_test.py").write_text("def step(:")
    (tmp_path / "needs_of_test.py").write_text("import nosuchmodule")
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.syspath_prepend(tmp_path)
    path = str(tmp_path / "mine_of_test.py")
    assert find(path)([], [], None) == find(f"{path}:step")([], [], None) == ([], 7)
    assert find("mine_of_test:A.b") == 1 and find("mine_of_test.A").b == 1
    assert find("adam-ng") is optim.AdamNG
    for name, message in {
        "adm-ng": "did you mean 'adam-ng'",
        f"{path}:stepp": "unknown name in .*mine_of_test 'stepp'; did you mean 'step'",
        "mine_of_test:A.c": "unknown name in A 'c'",
        "nosuch.module:step": "there is no module 'nosuch' here",
    }.items():
        with pytest.raises(ValueError, match=message):
            find(name)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        find(str(tmp_path / "nosuch.py"))
    for name, message in {
        "broken_of_test": "SyntaxError.*line 1",
        "needs_of_test": "No module named 'nosuchmodule'",
    }.items():
        for place in (name, str(tmp_path / f"{name}.py")):
            with pytest.raises(NotCallableError, match=message):
                find(f"{place}:step")


@pytest.mark.peer
def test_torch_optimizers():
    torch = pytest.importorskip("torch")
    sgd = adapt(torch.optim.SGD, momentum=0.9, nesterov=True)
    assert (sgd.momentum, sgd.ahead, sgd.rate, sgd.dtypes[:2]) == (0.9, 1, None, ("float32", "float64"))
    made = adapt(lambda params: torch.optim.SGD(params, lr=7.0, momentum=0.5))
    assert (made.momentum, made.rate) == (0.5, None)
    for target in (adapt("torch.optim:Adam"), adapt("torch.optim.Adam"), adapt(torch.optim.Adam, lr=0.5)):
        x = torch.nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
        adam = torch.optim.Adam([x], lr=target.rate_of(0.25))
        stepping = target.start([np.array([1.0, 2.0])], 0.25, ((0,),))
        for g in ([3.0, 4.0], [-1.0, 0.5]):
            x.grad = torch.tensor(g, dtype=torch.float64)
            adam.step()
            stepping.step([np.array(g)])
        np.testing.assert_array_equal(stepping.params[0], x.detach().numpy())
    for name in ("resume", "micro-batches", "same-direction"):
        run(LAWS[name], adapt(torch.optim.SGD, dtypes=("float32",)), examples=20)
    with pytest.raises(TypeError, match="which has taken its parameters already: give the class"):
        adapt(adam)
    with pytest.raises(ValueError, match="checked on 'cpu', not on 'strict'"):
        adapt(torch.optim.Adam, device="strict")


@pytest.mark.peer
@pytest.mark.slow
def test_optax_transformations():
    optax = pytest.importorskip("optax")
    adam = adapt(optax.adam)
    assert adam.rate is None and adam.dtypes[:2] == ("float32", "float64")
    np.testing.assert_allclose(np.concatenate(adam.directions(G)), [1, 1, -1], rtol=1e-7)
    sgd = adapt(optax.sgd(0.25, momentum=0.9))
    assert (sgd.rate, sgd.momentum) == (0.25, 0.9)
    assert adapt(optax.sgd, momentum=0.5, nesterov=True).ahead == 1
    normalizer = adapt(optax.normalize_by_update_norm)
    assert normalizer.make is None
    trace = adapt(optax.trace(0.5))  # a direction that remembers: x ← x − lr·u
    assert (trace.momentum, trace.rate) == (0.5, None)
    for target in (trace, sgd):
        run(LAWS["resume"], target, examples=10)
    with pytest.raises(ValueError, match="cannot be inferred"):
        adapt(optax.set_to_zero())


def test_nothing_of_others_is_loaded():
    code = """
        import sys
        from minibng.verify import adapt
        adapt(lambda blocks: blocks), adapt("adam-ng")
        assert not {"torch", "jax", "optax", "scipy", "matplotlib", "sklearn"} & set(sys.modules)
    """
    import subprocess

    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def by_the_largest_first(blocks):
    """Careful but for arrays without entries, which have no largest one."""
    scaled = [g / (np.abs(g).max() or 1) for g in blocks]
    return [h / (np.sqrt(np.sum(h * h)) or 1) for h in scaled]


def test_arrays_without_entries_break_one_law_and_hide_nothing():
    laws = ["unit-norm", "finite", "same-direction", "zero-block", "inputs-preserved"]
    report = check(by_the_largest_first, laws=laws, examples=60, dtype="float64")
    assert [r.law for r in report.results if r.verdict == "fails"] == ["zero-block"]
    assert "raised ValueError" in report["zero-block"].counterexample


def test_a_dtype_that_a_subject_does_not_take_is_told():
    def doubles(params, grads, state):
        if grads[0].dtype != np.float64:
            raise KeyError("only doubles")
        return in_place(params, grads, state)

    report = check(doubles, laws=["sign-symmetry"], examples=5)
    assert report.ok and report.settings["dtypes"] == "float64"
    assert "float32 left out: on the simplest example, g = [1.0] of float32, it raised KeyError" in str(report)


def test_nesterov_s_longer_first_step_is_told_to_be_by_design():
    report = check(nesterov, laws=["unit-norm", "sign-symmetry"], dtype="float64", examples=5)
    assert [r.verdict for r in report.results] == ["fails", "holds"]
    assert "by design: Nesterov's first direction is 1 + μ = 1.75 times as long" in str(report)
