"""The tests beside this one find what is wrong: faults planted in the kernels, one by one."""

from pathlib import Path

import numpy as np
import pytest

from minibng.backend import cuda
from minibng.backend.kernel import parse
from minibng.optim import rules
from minibng.optim.optimizer import descend
from minibng.params import partition


@pytest.fixture
def broken(make_gpu):
    """An emulated GPU on which one piece of every source is another one."""

    def make(old, new, **settings):
        replaced = []

        def edit(source):
            replaced.append(old in source)
            return source.replace(old, new)

        gpu = make_gpu(edit=edit, **settings)
        gpu.replaced = replaced
        return gpu

    return make


def fails(gpu, check, *arguments, match=None):
    with pytest.raises(AssertionError, match=match):
        check(gpu, *arguments)
    assert any(gpu.replaced), "the fault was not planted"


RULE_FAULTS = {
    "a sign": ("x - (lr * u)", "x + (lr * u)", rules.SGD()),
    "a maximum that drops NaN": ("a >= b || a != a ? a : b", "fmax(a, b)", rules.AMSGrad()),
    "a factor": ("back * (m", "(m", rules.Adam()),
    "an order of operations": ("(lr * u)", "(u / (1 / lr))", rules.SGD()),
    "an entry beyond the last": ("i < tile.stop", "i <= tile.stop", rules.SGD()),
    "a tile that is left out": ("i0 = tile.start", "i0 = tile.start + (tile.start > 0)", rules.SGD()),
}


@pytest.mark.parametrize("fault", RULE_FAULTS)
def test_in_a_formula(broken, tests_of, fault):
    old, new, rule = RULE_FAULTS[fault]
    test = tests_of("formulas").test_every_rule_gives_numpys_bits
    fails(broken(old, new), lambda gpu: test(gpu, rule, "none", "float32"))


def test_contraction(make_gpu, emulator, tests_of):
    if "fma" not in Path("/proc/cpuinfo").read_text().split():
        pytest.skip("this processor has no fused multiply-add")
    flags = [f for f in emulator.FLAGS if "contract" not in f and f != "-O0"]
    gpu = make_gpu(flags=(*flags, "-O2", "-mfma", "-ffp-contract=fast"))
    with pytest.raises(AssertionError):
        tests_of("formulas").test_every_rule_gives_numpys_bits(gpu, rules.Momentum(), "none", "float32")


STEP_FAULTS = {
    "single entries": ("cut.size == 1 &&", "false &&"),
    "the block of an entry": ("(unsigned)cut.after % (unsigned)cut.n;", "(unsigned)cut.n % (unsigned)cut.after;"),
    "the first block of a tensor": ("return cut.first + (unsigned)", "return (unsigned)"),
    "a zero block": ("root == 0.0 ? 0.0 : length / root", "length / root"),
    "another tensor's constant": ("* tensors + t];\n    const Lengths", "* tensors];\n    const Lengths"),
}


@pytest.mark.parametrize("fault", STEP_FAULTS)
def test_in_a_step(broken, tests_of, fault):
    blocks = "coordinate" if fault == "single entries" else "unit"
    test = tests_of("steps").test_a_step_gives_the_hosts_bits
    fails(broken(*STEP_FAULTS[fault]), lambda gpu: test(gpu, rules.Momentum(), blocks, "float64"))


def test_in_blocks_that_keep_their_length(broken, tests_of):
    test = tests_of("norms").test_a_finite_gradient_whose_norm_is_beyond_double_is_finite_and_can_stay
    fails(broken("if (kept)", "if (false)"), test)


def test_in_the_record(broken, tests_of):
    test = tests_of("steps").test_the_record_is_of_the_first_bad_step_and_counts_all
    for old, new in [("record[0] < 0", "true"), ("blockIdx.x == 0 && ", ""), ("*bad >= NONE", "*bad == NONE")]:
        fails(broken(old, new), test)


NORM_FAULTS = {
    "a barrier that is left out": ("+ mine[lane + half];\n        __syncthreads();", "+ mine[lane + half];"),
    "a row": ("a += tile.rows", "a += tile.rows + (a > a0)"),
    "an exponent": ("largest > 0.0 &&", "false &&"),
    "a block that comes last": ("atomicMin(bad, blocks.first + j)", "*bad = blocks.first + j"),
    "a NaN": ("return b > a || b != b ? b : a;", "return b > a ? b : a;"),
    "a partial": ("blocks.slot + j, count", "blocks.slot, count"),
}


def all_norms(gpu, norms):
    """A few of the tests of norms, in a row."""
    for dtype in ("float32", "float64"):
        norms.test_norms_of_every_partition(gpu, "unit", 2, dtype)
        for norm in (2, np.inf):
            norms.test_what_is_not_finite_is_named(gpu, np.nan, norm, dtype)
    norms.test_doubles_neither_overflow_nor_underflow(gpu, 1e-200, 2)


@pytest.mark.parametrize("fault", NORM_FAULTS)
def test_in_a_norm(broken, tests_of, fault):
    fails(broken(*NORM_FAULTS[fault], seed=5), all_norms, tests_of("norms"))


def test_a_barrier_that_only_some_threads_come_to(broken):
    shape = (600, 300)
    group = partition({"a.W": shape}, "unit")
    gpu = broken("if (lane > 0 || j >= blocks.j1)\n            continue;", "if (lane > 0 || j >= blocks.j1) return;")
    fails(gpu, lambda gpu: gpu.block_norms([gpu.asarray(np.ones(shape))], group), match="barrier")


def test_arguments_that_are_not_what_the_kernel_takes(one_gpu):
    gpu = one_gpu
    source = cuda.step_source(parse(descend), "float64", (), False)
    table = gpu.asarray(np.zeros((1, 3), np.int64))
    null, step = np.uint64(0), np.int64(0)
    right = [table, table, table, np.int32(1), null, null, step, gpu.asarray(np.ones(3)), gpu.asarray(np.ones(3))]
    for k, wrong in [(3, np.int64(1)), (6, 0), (7, np.ones(3)), (7, gpu.asarray(np.ones(3, "float32")))]:
        with pytest.raises(AssertionError, match=rf"step, argument {k}"):
            gpu.launch(source, "step", 1, *right[:k], wrong, *right[k + 1 :], np.float64(0.1))
    with pytest.raises(AssertionError, match="takes 10 arguments"):
        gpu.launch(source, "step", 1, *right)
