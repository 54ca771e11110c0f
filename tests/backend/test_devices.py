import gc
import logging
import pickle
import subprocess
import sys
import types
import warnings

import numpy as np
import pytest

import minibng as bng
from minibng import backend
from minibng.backend import DeviceError, asarray, backend_of, devices, get_backend, is_array, to_host
from minibng.names import UnknownNameError

INSTALL = (
    "pip install 'minibng[cuda13x]' (NVIDIA driver 580 or newer: nvidia-smi shows it) or "
    "pip install 'minibng[cuda12x]' (older drivers)"
)
NO_DRIVER = (
    "no NVIDIA driver was found: install 580 or newer (on Ubuntu: sudo apt install nvidia-driver-580; "
    "elsewhere from nvidia.com/drivers), or use device='cpu'"
)


class CUDARuntimeError(RuntimeError):
    def __init__(self, status, message):
        self.status = status
        super().__init__(message)


class FakeArray:
    """What the probe asks of an array; ``fails`` names the operation that does not work, or is wrong."""

    def __init__(self, fails, value=6.0):
        self.fails, self.value = fails, value

    def reshape(self, *shape):
        return self

    def __add__(self, other):
        if self.fails == "kernel":
            raise RuntimeError("\nFailed to find CUDA headers.\nPlease install them.")
        return FakeArray(self.fails, 13.0 if self.fails == "wrong" else 12.0)

    def __matmul__(self, other):
        if self.fails == "matmul":
            raise OSError("libcublas.so.13: cannot open shared object file")
        return FakeArray(self.fails, 22.0)

    def sum(self):
        return self.value


def fake_cupy(version="14.2.0", driver=13000, built=13020, count=1, error=None, capability=(9, 0), fails=None):
    """A module that answers as CuPy would on a machine of this kind."""

    def devices_seen():
        if error is not None:
            raise CUDARuntimeError(*error)
        return count

    major, minor = capability
    told = {"name": b"NVIDIA H100", "totalGlobalMem": 80 << 30, "major": major, "minor": minor}
    module = types.ModuleType("cupy")
    module.__version__ = version
    module.arange = lambda *args, **kwargs: FakeArray(fails)
    module.cuda = types.SimpleNamespace(
        Device=lambda index: warnings.catch_warnings(),  # any context manager will do
        runtime=types.SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            driverGetVersion=lambda: driver,
            runtimeGetVersion=lambda: built,
            getDeviceCount=devices_seen,
            getDeviceProperties=lambda index: told,
        ),
    )
    return module


@pytest.fixture
def machine(monkeypatch):
    """machine(wheels, …) makes CuPy look as on a machine of this kind; machine(None) takes it away."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def make(wheels=("cupy-cuda13x",), **settings):
        monkeypatch.setattr(devices, "_installed", lambda name: name in (wheels or ()))
        monkeypatch.setitem(sys.modules, "cupy", None if wheels is None else fake_cupy(**settings))
        devices._automatic.cache_clear()

    yield make
    devices._automatic.cache_clear()


def checks(index=0):
    """The steps that are in order, and what the first other one says, or None."""
    passed = []
    try:
        for line in devices.cuda_checks(index):
            passed.append(line)
    except DeviceError as error:
        return passed, str(error)
    return passed, None


def test_a_gpu_that_works_passes_every_step(machine):
    machine(count=2)
    assert checks(1) == (
        [
            "CuPy 14.2.0 (cupy-cuda13x, CUDA 13.2)",
            "NVIDIA driver for CUDA 13.0",
            "cuda:1 of 2: NVIDIA H100, 80 GiB, compute capability 9.0",
            "kernels are compiled and run, matrix products are right",
        ],
        None,
    )


def test_without_cupy_the_install_lines_are_given(machine):
    machine(None)
    assert checks() == ([], f"CuPy is not installed; with an NVIDIA GPU: {INSTALL}")


@pytest.mark.parametrize(
    ("settings", "passed", "told"),
    [
        (
            {"wheels": ("cupy-cuda13x", "cupy-cuda12x")},
            0,
            "cupy-cuda13x and cupy-cuda12x are both installed, and break each other: "
            f"pip uninstall cupy-cuda13x cupy-cuda12x, then one of {INSTALL}",
        ),
        ({"version": "13.6.0"}, 0, f"CuPy 13.6.0 is too old, 14 is needed: {INSTALL}"),
        (
            {"driver": 0},
            1,
            NO_DRIVER,
        ),
        (
            {"driver": 12080},
            1,
            "the NVIDIA driver knows CUDA 12.8, too old for CuPy built for 13.2: update it to 580, or "
            "pip uninstall cupy-cuda13x and pip install 'minibng[cuda12x]'",
        ),
        (
            {"wheels": ("cupy-cuda12x",), "driver": 11040, "built": 12090},
            1,
            "the NVIDIA driver knows CUDA 11.4, too old for CuPy built for 12.9: update it to 525",
        ),
        (
            {"error": (100, "cudaErrorNoDevice: no CUDA-capable device is detected")},
            2,
            "the driver shows no GPU (CUDA_VISIBLE_DEVICES is not set): does nvidia-smi list one?",
        ),
        (
            {"error": (999, "cudaErrorUnknown: unknown error")},
            2,
            "the NVIDIA driver does not answer (CUDARuntimeError: cudaErrorUnknown: unknown error): does nvidia-smi "
            "work? The driver may be new and the machine not restarted",
        ),
        (
            {"capability": (7, 0)},
            2,
            "NVIDIA H100 is too old for CUDA 13: pip uninstall cupy-cuda13x, then pip install 'minibng[cuda12x]'",
        ),
        (
            {"fails": "kernel"},
            3,
            "CuPy finds the GPU but cannot compile and run a kernel (RuntimeError: Failed to find CUDA headers.): "
            "pip install 'cupy-cuda13x[ctk]' brings the CUDA libraries and headers; "
            "python -c 'import cupy; cupy.show_config()' shows what it finds",
        ),
        (
            {"fails": "matmul"},
            3,
            "CuPy finds the GPU but cannot multiply matrices (OSError: libcublas.so.13: cannot open shared object "
            "file): pip install 'cupy-cuda13x[ctk]' brings the CUDA libraries and headers; "
            "python -c 'import cupy; cupy.show_config()' shows what it finds",
        ),
        ({"fails": "wrong"}, 3, "the GPU computes wrong numbers: 13 and 22 in place of 12 and 22"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_the_first_thing_that_is_wrong_is_told_with_what_to_do(machine, settings, passed, told):
    machine(**settings)
    steps, error = checks()
    assert (len(steps), error) == (passed, told)


def test_hidden_gpus_and_wrong_numbers_are_told_with_what_hides_them(machine, monkeypatch):
    machine(count=1)
    assert checks(3)[1] == "there is no such GPU: cuda:0 can be seen here (CUDA_VISIBLE_DEVICES is not set)"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    machine(count=2)
    assert checks(2)[1] == "there is no such GPU: cuda:0 … cuda:1 can be seen here (CUDA_VISIBLE_DEVICES is '1,2')"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    machine(count=0)
    assert checks()[1] == "the driver shows no GPU (CUDA_VISIBLE_DEVICES is ''): does nvidia-smi list one?"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ImportError("libcudart.so.13: cannot open"), r"cannot be imported \(ImportError: libcudart\.so\.13: cannot"),
        (ModuleNotFoundError("No module named 'fastrlock'", name="fastrlock"), r"\(No module named 'fastrlock'\)"),
    ],
)
def test_a_cupy_that_cannot_be_imported_says_why(machine, monkeypatch, error, told):
    machine()

    def failing(name):
        raise error

    monkeypatch.setattr(devices.importlib, "import_module", failing)
    with pytest.raises(DeviceError, match=f"CuPy is installed but .*{told}.*reinstall it") as caught:
        next(devices.cuda_checks())
    assert caught.value.__cause__ is error


def test_an_explicit_cuda_never_falls_back(machine):
    machine(fails="matmul")
    for name, full in (("cuda:7", "cuda:7"), ("cuda:70", "cuda:70")):  # numbers that no test machine has
        with pytest.raises(DeviceError, match=f"^device '{full}' cannot be used: there is no such GPU"):
            get_backend(name)
    with pytest.raises(DeviceError, match=r"^device 'cuda:0' cannot be used: .* cannot multiply matrices") as caught:
        devices.require_cuda(0)
    assert isinstance(caught.value, RuntimeError) and isinstance(caught.value.__cause__, OSError)


def test_auto_takes_the_gpu_where_it_works_and_says_once_why_not(machine, caplog):
    caplog.set_level(logging.INFO, logger="minibng")
    machine()
    assert [devices.device_name("auto") for _ in range(3)] == ["cuda:0"] * 3
    machine(driver=0)
    assert [devices.device_name("auto") for _ in range(3)] == ["cpu"] * 3
    assert get_backend("auto") is get_backend("cpu")
    assert caplog.messages == [
        "device 'auto' is cuda:0: kernels are compiled and run, matrix products are right",
        f"device 'auto' is cpu: {NO_DRIVER}",
    ]


def test_a_gpu_is_proved_once_and_has_one_backend_under_all_its_names(machine, monkeypatch):
    made = []

    def cupy_backend(number):
        made.append(number)
        return types.SimpleNamespace(device=f"cuda:{number}")

    machine(count=2)
    monkeypatch.setattr(backend, "_MADE", {"cpu": get_backend("cpu")})
    monkeypatch.setattr(backend, "_BY_NUMBER", {})
    monkeypatch.setitem(sys.modules, "minibng.backend.cupy", types.SimpleNamespace(CupyBackend=cupy_backend))
    first, second = get_backend("cuda"), get_backend("cuda:1")
    machine(fails="kernel")  # nobody asks again
    assert get_backend("cuda:0") is get_backend("cuda:00") is get_backend("cuda") is first is not second
    assert (first.device, second.device, made) == ("cuda:0", "cuda:1", [0, 1])
    assert list(backend._BY_NUMBER.items()) == [(0, first), (1, second)]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("gpu", "unknown device 'gpu'; did you mean 'cuda'? Known: cpu, strict, cuda, cuda:1, auto"),
        ("gpu:2", "unknown device 'gpu:2'; did you mean 'cuda:2'? "),
        ("cdua", "unknown device 'cdua'; did you mean 'cuda'? "),
        ("cuda:-1", "unknown device 'cuda:-1'; did you mean 'cuda:1'? "),
        ("CPU", "unknown device 'CPU'; did you mean 'cpu'? "),
        ("stric", "did you mean 'strict'?"),
        ("mps", "unknown device 'mps'; Known: "),
    ],
)
def test_an_unknown_device_is_told_the_nearest(name, told):
    with pytest.raises(UnknownNameError) as caught:
        get_backend(name)
    assert told in str(caught.value)


@pytest.mark.parametrize("name", [0, None, ["cpu"]])
def test_a_device_is_named_by_a_string(name):
    with pytest.raises(TypeError, match="a device is named by a string, such as 'cpu' or 'cuda', got"):
        get_backend(name)


def test_there_is_one_backend_a_device_and_copies_are_it(device):
    assert device.backend is get_backend(device.name) is pickle.loads(pickle.dumps(device.backend))
    assert device.backend.device == devices.device_name(device.name)


def test_backends_are_made_when_they_are_asked_for():
    program = (
        "import sys, minibng as bng; from minibng.backend import backend_of; "
        "assert not {'cupy', 'minibng.backend.strict', 'minibng.backend.cupy'} & set(sys.modules); "
        "x = bng.asarray([1.0], device='strict'); print(backend_of(x).device, 'cupy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "strict False\n"


def test_arrays_say_where_they_are(device):
    x = device.array([1.0, 2.0])
    assert is_array(x) and backend_of(x) is device.backend is backend_of(3.0, [1.0], x)
    assert type(x) is device.backend.array_type


def test_what_is_no_array_belongs_to_the_host():
    host = get_backend("cpu")
    things = (3.0, [1.0], None, np.float32(1), np.ma.masked_array([1.0]), "x")
    assert all(backend_of(x) is host for x in things)
    assert [is_array(x) for x in things] == [False, False, False, True, False, False]


def test_an_array_of_a_cupy_that_the_user_imported_is_known_by_type_and_by_its_gpu(monkeypatch):
    ndarray = type("ndarray", (), {"__module__": "cupy"})
    other = type("ndarray", (), {"__module__": "somewhere"})
    first, second, array = object(), object(), ndarray()
    monkeypatch.setattr(backend, "_BY_NUMBER", {0: first, 1: second})
    for number, owner in ((0, first), (1, second)):
        array.device = types.SimpleNamespace(id=number)
        assert is_array(array) and backend_of(array) is owner is backend_of(2.0, array)
    assert not is_array(other()) and backend_of(other()) is get_backend("cpu")
    for kind in (ndarray, other):
        del backend._OWNERS[kind]


# Arrays in and out ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "bool", "uint8"])
def test_dtypes_are_kept_unless_another_is_named(device, dtype):
    x = np.array([[1, 0], [2, 3]]).astype(dtype)
    up = asarray(x, device=device.name)
    assert up.dtype == dtype and backend_of(up) is device.backend
    np.testing.assert_array_equal(to_host(up), x)
    assert type(to_host(up)) is np.ndarray and to_host(up).dtype == dtype
    assert asarray(up, "float64").dtype == asarray(x, "float64", device.name).dtype == "float64"


def test_an_array_stays_where_it_is_unless_a_device_is_named(device):
    x = device.array([1.0])
    assert asarray(x) is x and asarray(x, device=device.name) is x
    assert backend_of(asarray(x, "float32")) is device.backend
    assert type(asarray(x, device="cpu")) is np.ndarray
    assert backend_of(asarray(3.0), asarray([1])) is get_backend("cpu")


def test_numbers_and_lists_go_up_with_the_dtypes_that_numpy_gives_them(device):
    for x in (3.0, 2, True, [1, 2], [[1.0], [2.0]], np.float32(1), [], range(3)):
        up = asarray(x, device=device.name)
        assert (up.dtype, up.shape) == (np.asarray(x).dtype, np.asarray(x).shape)
        np.testing.assert_array_equal(to_host(up), np.asarray(x))
    with pytest.raises(OverflowError):
        asarray([300], dtype="uint8", device=device.name)


def test_a_list_of_device_arrays_is_refused_with_what_to_do():
    x = asarray([1.0], device="strict")
    told = r"a list that holds an array on 'strict' is no array: join its arrays with np\.stack\(list\)"
    for wrong in ([x, x], [[1.0], [x]], [np.ones(1), x]):
        for convert in (asarray, to_host, lambda v: asarray(v, device="strict")):
            with pytest.raises(TypeError, match=told):
                convert(wrong)
    np.testing.assert_array_equal(to_host(np.stack([x, x])), [[1.0], [1.0]])


class Exporter:
    """An array of a library that speaks DLPack and nothing else."""

    def __init__(self, x, device=(1, 0)):
        self.x, self.device = x, device

    def __dlpack__(self, **how):
        return self.x.__dlpack__(**how)

    def __dlpack_device__(self):
        return self.device


def test_an_array_of_another_library_is_shared(device):
    x = np.arange(6, dtype="float32").reshape(2, 3)
    shared = asarray(Exporter(x))
    assert np.shares_memory(shared, x) and shared.dtype == "float32"
    np.testing.assert_array_equal(to_host(asarray(Exporter(x), device=device.name)), x)
    assert np.shares_memory(to_host(Exporter(x)), x)


@pytest.mark.peer
def test_a_tensor_of_pytorch_comes_in(device, torch):
    t = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    assert np.shares_memory(asarray(t), t.numpy())
    up = asarray(t.T, device=device.name)
    assert up.dtype == "float32" and backend_of(up) is device.backend
    np.testing.assert_array_equal(to_host(up), t.numpy().T)


def test_memory_of_a_gpu_stays_on_its_gpu(monkeypatch):
    taken = []
    xp = types.SimpleNamespace(from_dlpack=lambda x: taken.append(x) or np.ones(1))
    monkeypatch.setitem(backend._MADE, "cuda:5", types.SimpleNamespace(xp=xp))
    tensor = Exporter(None, device=(2, 5))
    asarray(tensor)
    assert taken == [tensor]


def test_our_arrays_go_out_by_dlpack_but_a_device_does_not_come_down_by_itself(device):
    x = device.array([1.0, 2.0])
    if device.backend.on_host:
        np.testing.assert_array_equal(np.from_dlpack(x), [1.0, 2.0])
    else:
        with pytest.raises((TypeError, BufferError, RuntimeError)):
            np.from_dlpack(x)


def test_between_devices_the_way_leads_through_the_host(device):
    x = asarray([1.0, 2.0], device="strict")
    there = asarray(x, device=device.name)
    assert backend_of(there) is device.backend
    np.testing.assert_array_equal(to_host(there), [1.0, 2.0])


def test_waiting_is_counted_and_forbidden_but_not_under_debug():
    x = asarray([1.0, 2.0], device="strict")
    before = backend.synchronizations()
    to_host(x)
    assert sum((backend.synchronizations() - before).values()) == 1
    with backend.forbid_sync():
        with pytest.raises(backend.SyncError):
            to_host(x)
        with bng.debug():
            np.testing.assert_array_equal(to_host(x), [1.0, 2.0])


def test_what_a_data_set_keeps_on_a_device_goes_with_it():
    from minibng.data import Dataset, dataset

    strict = get_backend("strict")
    made = Dataset(np.ones((4, 2), "float32"), np.zeros(4, int))
    kept = made.arrays_for(strict)
    assert made.arrays_for(strict) is kept and backend_of(*kept) is strict
    assert made.arrays_for(get_backend("cpu"))[0] is made.x
    count = len(dataset._ON_DEVICES)
    del made
    gc.collect()
    assert len(dataset._ON_DEVICES) < count
