"""Every kernel that the package can ask for, compiled for real GPUs by NVRTC; nothing is run."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from minibng.backend import cuda
from minibng.backend.chain import CHAINS
from minibng.backend.cupy import copied
from minibng.backend.kernel import parse
from minibng.nn import activations as _chains  # noqa: F401  (they are registered when defined)
from minibng.optim import optimizer, relatives, rules

GPUS = ["sm_75", "sm_80", "sm_90"]
RMSPROPS = [rules.RMSProp(momentum=m, centered=c) for m in (0.0, 0.5) for c in (False, True)]
ALL_RULES = [*RMSPROPS, *(rule() for rule in rules.RULES if rule is not rules.RMSProp)]
CHANGES = {
    (): lambda rule: (rule, optimizer.descend),
    ("decay",): lambda rule: (rule, optimizer.descend_and_decay),
    ("decay", "after"): lambda rule: (optimizer.add_decay, rule, optimizer.descend),
}


def steps(dtype, scaled):
    """Name → source of every step."""
    made = {}
    for rule in ALL_RULES:
        for own, formulas in CHANGES.items():
            formula = optimizer.parse_once(*formulas(rule.formula))
            made[formula.name] = formula, own[:1]
    lamb = optimizer.parse_once(rules.adam, relatives.regularize, outputs=("u",))
    made["lamb"], made["lamb_plain"] = (lamb, ("decay",)), (optimizer.parse_once(rules.adam, outputs=("u",)), ())
    made["copied"] = parse(copied, readonly=("g",), outputs=("u",)), ()
    return {
        f"{name}-{dtype}-{scaled}": cuda.step_source(f, dtype, cuda.own_constants(f, own), scaled)
        for name, (f, own) in made.items()
    }


def others():
    made = {f"norms-{dtype}": cuda.norms_source(dtype) for dtype in ("float16", "float32", "float64")}
    made |= {f"rows-{dtype}": cuda.rows_source(dtype) for dtype in ("float16", "float32", "float64")}
    made["copied-float16"] = cuda.step_source(parse(copied, readonly=("g",), outputs=("u",)), "float16", (), True)
    for chain in CHAINS:
        for dtype in ["uint32"] if chain.kind == "u" else ["float32", "float64"]:
            made[f"{chain.__name__}-{dtype}"] = cuda.map_source(chain.formula, dtype)
    return made


def compile_all(nvrtc, sources, gpu):
    """Name → PTX."""

    def one(item):
        name, source = item
        ptx, code = nvrtc.compile(source, f"--gpu-architecture={gpu}", *cuda.OPTIONS)
        assert gpu.startswith("compute") or len(code) > 1000, name
        return name, ptx

    with ThreadPoolExecutor(2) as pool:
        return dict(pool.map(one, sources.items()))


@pytest.mark.parametrize("gpu", GPUS)
def test_norms_rows_and_chains(nvrtc, gpu):
    sources = others()
    for name, ptx in compile_all(nvrtc, sources, gpu).items():
        assert ".entry" in ptx
        assert not re.search(r"\b(atom|red)\.[a-z.]*(add|f32|f64)", ptx), f"{name} has float atomics"
        if "float32" in name and "norms" not in name:
            assert ".f64" not in ptx, f"{name} computes in double"
        if not re.search(r"\b(exp|log|tanh)\(", sources[name]):  # NVIDIA's own are made of quick instructions
            assert not re.search(r"\.ftz|\.approx\.f32|fma\.rn\.f32", ptx), f"{name} is not as IEEE 754 has it"


@pytest.mark.parametrize("scaled", [False, True], ids=["raw", "scaled"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("gpu", GPUS)
def test_every_step(nvrtc, gpu, dtype, scaled):
    made = compile_all(nvrtc, steps(dtype, scaled), gpu)
    assert all(".entry step" in ptx for ptx in made.values())
    assert not any(re.search(r"\b(atom|red)\.", ptx) for ptx in made.values())
    assert not any(".local" in ptx for ptx in made.values()), "an array in slow memory"
    assert not any(re.search(r"\.ftz|\.approx\.f32", ptx) for ptx in made.values()), "not as IEEE 754 has it"
    if dtype == "float32":
        doubles = {name: len(re.findall(r"\.f64", ptx)) for name, ptx in made.items()}
        assert len(set(doubles.values())) == 1, "a formula of floats computes in double"
        assert scaled or not any(doubles.values())


def test_contraction_is_off(nvrtc):
    source = next(iter(steps("float64", False).values()))
    assert "fma.rn" not in nvrtc.compile(source, "--gpu-architecture=sm_90", *cuda.OPTIONS)[0]
    assert "fma.rn" in nvrtc.compile(source, "--gpu-architecture=sm_90", "--std=c++17")[0]


def test_a_fault_is_told_with_its_line(nvrtc):
    source = next(iter(steps("float32", True).values())).replace("T u =", "T u = unheard_of +", 1)
    with pytest.raises(AssertionError, match=r"kernel\.cu\(\d+\): error: .*unheard_of"):
        nvrtc.compile(source, "--gpu-architecture=sm_90", *cuda.OPTIONS)
