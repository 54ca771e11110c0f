"""The real CuPy without a GPU: its arrays on the host's memory, its compiler, and the kernels that g++ compiled."""

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest

from minibng.backend import cuda, get_backend
from minibng.backend.chain import CHAINS
from minibng.backend.cupy import CupyBackend
from minibng.nn import activations as _chains  # noqa: F401  (they are registered when defined)
from minibng.optim import optimizer, rules
from minibng.params import partition

cupy = pytest.importorskip("cupy", reason="CuPy not installed", exc_type=ImportError)


@pytest.fixture
def library(emulator, folder, monkeypatch):
    """CuPy, with arrays in the host's memory and with kernels that run there."""
    kept = []

    def allocate(size):
        kept.append(np.zeros(max(size, 1), np.uint8))
        memory = cupy.cuda.UnownedMemory(kept[-1].ctypes.data, max(size, 1), kept[-1], 0)
        return cupy.cuda.MemoryPointer(memory, 0)

    def up(x, dtype=None):
        if isinstance(x, cupy.ndarray):
            return x if dtype is None else x.astype(dtype, copy=False)
        x = np.array(x, dtype, order="C")
        made = cupy.empty(x.shape, x.dtype)
        ctypes.memmove(made.data.ptr, x.ctypes.data, x.nbytes)
        return made

    monkeypatch.setattr(emulator, "ndarray", cupy.ndarray)
    emulated = emulator.Cupy(folder, seed=2)
    names = {name: getattr(cupy, name) for name in ("empty", "ascontiguousarray", "broadcast_to", "argsort", "add")}
    with cupy.cuda.using_allocator(allocate):
        yield SimpleNamespace(ndarray=cupy.ndarray, asarray=up, cuda=emulated.cuda, **names)


def down(x):
    host = np.empty(x.shape, x.dtype)
    ctypes.memmove(host.ctypes.data, x.data.ptr, x.nbytes)
    return host


@pytest.mark.parametrize("blocks", ["layer", "unit", "coordinate"])
def test_a_step_on_cupys_own_arrays(library, blocks):
    gpu, cpu, rng = CupyBackend(0, library), get_backend("cpu"), np.random.default_rng(0)
    shapes = {"1.W": (40, 30), "1.b": (30,), "3.s": (), "4.e": (0, 7), "5.v": (5001,)}
    groups, formula = partition(shapes, blocks), optimizer.parse_once(rules.adam, optimizer.descend_and_decay)
    columns = {n: [np.array(abs(rng.standard_normal(s))) for s in shapes.values()] for n in formula.arrays}
    on_gpu = {n: [gpu.asarray(a) for a in arrays] for n, arrays in columns.items()}
    norms, expected = gpu.block_norms(on_gpu["g"], groups), cpu.block_norms(columns["g"], groups)
    np.testing.assert_allclose(down(norms.root), expected.root, rtol=1e-14)
    norms = norms._replace(root=gpu.asarray(expected.root))
    scalars, lengths = (
        {**rules.Adam().scalars(1), "lr": 0.1, "decay": [0.1, 0.0, 0.0, 0.2, 0.3]},
        np.ones(norms.root.size),
    )
    record = gpu.asarray(np.array([-1, -1, 0]))
    guard = SimpleNamespace(bad=norms.bad, step=3, take_record=lambda: record)
    gpu.stepper(formula, on_gpu["x"], groups)(on_gpu, scalars, norms, gpu.asarray(lengths), guard)
    scaled = gpu.scale_blocks(on_gpu["g"], groups, norms, gpu.asarray(lengths))
    for got, want in zip(scaled, cpu.scale_blocks(columns["g"], groups, expected, lengths), strict=True):
        np.testing.assert_array_equal(down(got), want)
    cpu.stepper(formula, columns["x"], groups)(columns, scalars, expected, lengths)
    for name in formula.written:
        for got, want in zip(on_gpu[name], columns[name], strict=True):
            np.testing.assert_array_equal(down(got), want)


def test_a_map_on_cupys_own_arrays(library):
    gpu, chain = CupyBackend(0, library), CHAINS[0]
    x = np.random.default_rng(0).standard_normal((3, 4)).astype("uint32" if CHAINS[0].kind == "u" else "float32")
    made = gpu.map(
        chain.formula, dict.fromkeys(chain.inputs, gpu.asarray(x)), dict.fromkeys(chain.formula.scalars, 1.0)
    )
    assert all(type(a) is cupy.ndarray and a.shape == x.shape and a.dtype == x.dtype for a in made)


def test_cupys_compiler_does_what_it_is_told(monkeypatch):
    """RawModule would flush subnormal numbers to 0; what `CupyBackend` calls in its place does not."""
    from cupy.cuda import compiler, function

    monkeypatch.setattr(compiler, "_get_arch_for_options_for_nvrtc", lambda arch=None: ("-arch=compute_90", "ptx"))
    code, _ = compiler.compile_using_nvrtc(cuda.norms_source("float32"), cuda.OPTIONS)
    assert b".entry partial_norms" in code and b".ftz" not in code and b"fma.rn" not in code
    assert callable(function.Module.load) and callable(function.Module.get_function)
