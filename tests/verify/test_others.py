"""Other people's optimizers: exactly which laws hold and which fail, committed: a grader's marks do not drift."""

import numpy as np
import pytest

from minibng.verify import LAWS, check, search

STEPS = "one-block-is-global adaptive-length adaptive-scaling constant-factor devices-agree workers"
"""What cannot be posed to a step whose blocks are its tensors."""

CLIPPING = "clip-inside clip-never-enlarges"


@pytest.fixture(autouse=True)
def _unshrunk(monkeypatch):
    """The verdict is there before a counterexample is made simpler."""
    monkeypatch.setitem(search.__globals__, "SHRINKS", 0)


def verdicts(report):
    assert [r.law for r in report.results] == list(LAWS)
    found = {v: {r.law for r in report.results if r.verdict == v} for v in ("fails", "n/a", "error")}
    assert not found["error"], str(report)
    return found["fails"], found["n/a"]


def misplaced(params, grads, state):
    """Heavy ball behind NG as a student wrote it. The mistake: the velocity is normalized, not the gradient."""
    lr, mu = 0.125, 0.75
    if state is None:
        state = [np.zeros_like(x) for x in params]
    state = [mu * m + g for m, g in zip(state, grads, strict=True)]
    norms = [np.sqrt(np.sum(m.astype(np.longdouble) ** 2)) for m in state]
    steps = [(lr * (m / (n or 1))).astype(m.dtype) for m, n in zip(state, norms, strict=True)]
    return [x - s for x, s in zip(params, steps, strict=True)], state


@pytest.mark.slow
def test_velocity_normalized_in_place_of_the_gradient():
    report = check(misplaced, examples=25)
    fails, n_a = verdicts(report)
    assert "loss-scale" in fails and not fails & {
        "same-direction",
        "resume",
        "block-independence",
        "finite",
        "zero-block",
    }
    assert n_a == {*STEPS.split(), *CLIPPING.split(), "micro-batches"}
    assert "g_2" in report["loss-scale"].counterexample


RAW = "unit-norm coordinate-is-sign scale-invariance power-of-two-invariance inner-product step-length loss-scale"


@pytest.mark.peer
def test_torch_sgd():
    torch = pytest.importorskip("torch")
    report = check(torch.optim.SGD, examples=15)
    assert verdicts(report) == (
        {*RAW.split(), "loss-scale-first-step"},
        {*STEPS.split(), *CLIPPING.split()},
    )
    assert set(report.by_design) >= {r.law for r in report.results if r.verdict == "fails"}


@pytest.mark.peer
def test_torch_adam():
    torch = pytest.importorskip("torch")
    fails, n_a = verdicts(check(torch.optim.Adam, examples=15))
    more = "loss-scale-first-step same-direction idempotence orthogonal-equivariance nonzero-stays-nonzero"
    assert fails == {*RAW.split(), *more.split()}
    assert n_a == {*STEPS.split(), *CLIPPING.split()}


@pytest.mark.peer
@pytest.mark.slow
def test_optax_normalize_by_update_norm():
    """It normalizes the whole update, adds 1e-6, and its sum of squares under- and overflows."""
    optax = pytest.importorskip("optax")
    fails, n_a = verdicts(check(optax.normalize_by_update_norm, examples=15))
    assert {"unit-norm", "block-independence", "scale-invariance", "nonzero-stays-nonzero"} <= fails
    assert not fails & {"finite", "sign-symmetry", "zero-block", "inputs-preserved"}
    assert n_a == {
        *STEPS.split(),
        *CLIPPING.split(),
        "idle-block",
        "step-length",
        "loss-scale",
        "resume",
        "micro-batches",
    }
    half = check(optax.normalize_by_update_norm, laws=["zero-block", "finite"], dtype="float16")
    assert [r.verdict for r in half.results] == ["fails", "fails"] and "nan" in half["finite"].counterexample


@pytest.mark.peer
def test_torch_clip_grad_norm():
    """Inside the ball it is exact; a long gradient of float32, whose square overflows, becomes 0."""
    torch = pytest.importorskip("torch")

    def clipped(blocks):
        out = []
        for g in blocks:
            p = torch.nn.Parameter(torch.zeros(g.shape, dtype=getattr(torch, g.dtype.name)))
            p.grad = torch.from_numpy(g.copy())
            torch.nn.utils.clip_grad_norm_([p], 1.0)
            out.append(p.grad.numpy())
        return out

    report = check(clipped, clip=1.0, dtype="float32", examples=25)
    fails, _ = verdicts(report)
    assert {"nonzero-stays-nonzero", "clip-never-enlarges", "unit-norm"} <= fails
    assert not fails & {"finite", "sign-symmetry", "zero-block", "inputs-preserved", "block-independence"}
