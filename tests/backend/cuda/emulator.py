"""A GPU for tests: CUDA C compiled by g++, and as much of CuPy as `CupyBackend` and what stands on it use.

Kernels run on the host through ``shim.hpp``. Arrays are NumPy's, in a subclass, with a border around their memory that
every launch checks. ``nvrtc`` compiles for real GPUs, with the library that NVIDIA's package brings, and runs nothing.
"""

import ctypes
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np

SHIM = Path(__file__).with_name("shim.hpp")
FLAGS = ("-std=c++17", "-O0", "-shared", "-fPIC", "-fno-strict-aliasing", "-ffp-contract=off", "-w")
GXX = shutil.which("g++")

POINTEE = {"long long": "int64", "int": "int32", "double": "float64", "float": "float32", "unsigned int": "uint32"}
POINTEE |= {"Tile": "int64", "Cut": "int64", "Blocks": "int64", "Half": "float16"}

# g++ -------------------------------------------------------------------------------------------------------


class Library:
    """A CUDA source, compiled for the host."""

    def __init__(self, source, folder, flags=FLAGS):
        text = SHIM.read_text() + source
        barriers = int("__syncthreads" in source)
        self.parameters = {}
        for name, parameters in re.findall(r'extern "C" __global__ void (\w+)\(([^)]*)\)', source):
            self.parameters[name] = [
                re.fullmatch(r"(?:const )?(.*?)(\*?)(?: const)?(?: __restrict__)? ?\w+", " ".join(p.split())).groups()
                for p in parameters.split(",")
            ]
            cast = ", ".join(f"*({t}{star}*)a[{k}]" for k, (t, star) in enumerate(self.parameters[name]))
            text += f"\nstatic void call_{name}(void** a) {{ {name}({cast}); }}"
            text += f'\nextern "C" int launch_{name}(unsigned g, unsigned b, unsigned long long s, void** a)'
            text += f" {{ return run(call_{name}, g, b, s, {barriers}, a); }}\n"
        self.T = re.search(r"#define TYPE (.*)", source)[1].strip()
        self.loaded = ctypes.CDLL(str(compiled(text, folder, flags)))

    def launch(self, name, grid, block, arguments, seed=0):
        """Launch a kernel as CUDA does: what is passed must be what the kernel takes, byte for byte."""
        wanted = self.parameters[name]
        assert len(arguments) == len(wanted), f"{name} takes {len(wanted)} arguments, got {len(arguments)}"
        packed = [self.pack(name, k, *w, a) for k, (w, a) in enumerate(zip(wanted, arguments, strict=True))]
        pointers = (ctypes.c_void_p * len(packed))(*[p.ctypes.data for p in packed])
        wrong = self.loaded[f"launch_{name}"](
            ctypes.c_uint(grid), ctypes.c_uint(block), ctypes.c_ulonglong(seed), pointers
        )
        assert not wrong, f"{name}: a barrier that not all threads of a block came to"

    def pack(self, name, k, kind, star, argument):
        kind = self.T if kind.strip() == "T" else kind.strip()
        told = f"{name}, argument {k}: {kind}{star} from {type(argument).__name__}"
        if not star:
            assert isinstance(argument, np.generic) and argument.dtype == POINTEE[kind], told
            return np.array(argument)
        if isinstance(argument, np.generic):
            assert argument.dtype == np.uint64 and argument == 0, told
            return np.array(argument)
        assert isinstance(argument, ndarray), f"{told}: not on the device"
        assert argument.dtype == POINTEE[kind] and argument.flags.c_contiguous, f"{told} of {argument.dtype}"
        return np.array(argument.data.ptr, np.uint64)


def compiled(text, folder, flags):
    """The shared library of a C++ text; one that was compiled before is used again."""
    key = hashlib.sha256("\n".join([text, *flags]).encode()).hexdigest()[:24]
    made = Path(folder) / f"{key}.so"
    if not made.exists():
        source, partial = made.with_suffix(f".{os.getpid()}.cpp"), made.with_suffix(f".{os.getpid()}.so")
        source.write_text(text)
        done = subprocess.run([GXX, *flags, "-o", partial, source], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        partial.replace(made)
        source.unlink()
    return made


# CuPy ------------------------------------------------------------------------------------------------------

BORDER = 64
_LIVE = weakref.WeakValueDictionary()


SYNCHRONIZED = []
"""Every `get` of an array, and every look at a value that Python asked for."""


def on_device(result):
    return np.asarray(result).view(ndarray) if isinstance(result, (np.ndarray, np.generic)) else result


class ndarray(np.ndarray):
    """Host memory that stands for a GPU's: 0-d results stay arrays, as CuPy's do."""

    __module__ = "cupy"

    data = property(lambda self: SimpleNamespace(ptr=self.ctypes.data))
    device = property(lambda self: SimpleNamespace(id=0))

    def get(self):
        SYNCHRONIZED.append("get")
        return np.array(self, subok=False)

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **keywords):
        if keywords.get("where", True) is not True or any(type(x) is np.ndarray for x in inputs):
            raise TypeError(f"{ufunc.__name__}: where=, or an array on the host beside one on the device")
        inputs = [x.view(np.ndarray) if isinstance(x, ndarray) else x for x in inputs]
        if out:
            keywords["out"] = tuple(x.view(np.ndarray) for x in out)
        with np.errstate(all="ignore"):
            result = getattr(ufunc, method)(*inputs, **keywords)
        return out[0] if len(out) == 1 else on_device(result)

    def __array_function__(self, *call):
        return on_device(super().__array_function__(*call))

    def __getitem__(self, index):
        return on_device(super().__getitem__(index))

    def __bool__(self):
        SYNCHRONIZED.append("bool")
        return super().__bool__()

    def __float__(self):
        SYNCHRONIZED.append("float")
        return super().__float__()

    def __int__(self):
        SYNCHRONIZED.append("int")
        return super().__int__()


def empty(shape, dtype=float):
    """Memory with nonsense in it, and a border around it."""
    dtype = np.dtype(dtype)
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    size = int(np.prod(shape)) * dtype.itemsize
    buffer = np.full(size + 2 * BORDER, 0xA5, np.uint8)
    _LIVE[id(buffer)] = buffer
    return buffer[BORDER : BORDER + size].view(dtype).reshape(shape).view(ndarray)


def check_borders():
    for buffer in list(_LIVE.values()):
        assert (buffer[:BORDER] == 0xA5).all() and (buffer[-BORDER:] == 0xA5).all(), "a kernel wrote beside an array"


def asarray(x, dtype=None):
    if isinstance(x, ndarray):
        return x.astype(dtype, copy=False) if dtype is not None else x
    x = np.asarray(x, dtype)
    made = empty(x.shape, x.dtype)
    made[...] = x
    return made


class Module:
    """What CuPy loads a compiled source into."""

    def __init__(self, cupy):
        self.cupy = cupy

    def load(self, code):
        self.loaded = Library(code.decode(), self.cupy.folder, self.cupy.flags)

    def get_function(self, name):
        def kernel(grid, block, arguments):
            assert grid[1:] == block[1:] == (1, 1)
            self.cupy.calls.append(name)
            self.loaded.launch(name, grid[0], block[0], arguments, self.cupy.seed)
            check_borders()

        return kernel


class Cupy:
    """The library: NumPy's functions on its own arrays; ``seed`` shuffles the order in which kernels run."""

    __version__ = "14.2.0"
    ndarray = ndarray
    empty = staticmethod(empty)

    def __init__(self, folder, seed=0, flags=FLAGS, edit=lambda source: source):
        self.folder, self.seed, self.flags, self.edit = folder, seed, flags, edit
        self.calls = []
        stream = SimpleNamespace(synchronize=lambda: self.calls.append("synchronize"))
        self.cuda = SimpleNamespace(
            Device=lambda index: SimpleNamespace(id=index, use=lambda: None),
            get_current_stream=lambda: stream,
            compiler=SimpleNamespace(compile_using_nvrtc=self.compile),
            function=SimpleNamespace(Module=lambda: Module(self)),
        )

    def compile(self, source, options):
        assert {"--fmad=false", "--ftz=false"} <= set(options)
        self.calls.append("compile")
        return self.edit(source).encode(), None

    def asarray(self, x, dtype=None):
        if not isinstance(x, ndarray):
            self.calls.append("upload")
        return asarray(x, dtype)

    def __getattr__(self, name):
        found = getattr(np, name)
        if isinstance(found, (np.ufunc, type)) or not callable(found):
            return found

        def function(*args, **kwargs):
            result = found(*args, **kwargs)
            return asarray(result) if isinstance(result, (np.ndarray, np.generic)) else result

        return function


# NVRTC -----------------------------------------------------------------------------------------------------


class Nvrtc:
    """NVIDIA's run-time compiler."""

    def __init__(self, path):
        self.loaded = ctypes.CDLL(str(path))

    def compile(self, source, *options):
        """Return (PTX, code for the GPU); the latter is empty where a virtual architecture was asked for."""
        lib, program = self.loaded, ctypes.c_void_p()
        assert lib.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None) == 0
        arguments = (ctypes.c_char_p * len(options))(*[o.encode() for o in options])
        failed = lib.nvrtcCompileProgram(program, len(options), arguments)
        assert not failed, self.text(program, "ProgramLog").decode()
        made = self.text(program, "PTX"), self.text(program, "CUBIN")
        lib.nvrtcDestroyProgram(ctypes.byref(program))
        return made[0].decode(errors="replace"), made[1]

    def text(self, program, what):
        size = ctypes.c_size_t()
        getattr(self.loaded, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        held = ctypes.create_string_buffer(size.value)
        getattr(self.loaded, f"nvrtcGet{what}")(program, held)
        return held.raw


def nvrtc():
    """NVRTC of the package nvidia-cuda-nvrtc (or nvidia-cuda-nvrtc-cu12); None where it is not installed."""
    spec = importlib.util.find_spec("nvidia")
    for folder in [] if spec is None else list(spec.submodule_search_locations):
        for path in sorted(Path(folder).glob("*/lib/libnvrtc.so.*")):
            return Nvrtc(path)
    return None
