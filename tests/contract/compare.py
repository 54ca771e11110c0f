"""Ask the real CuPy and the strict device the same questions: ``python -m tests.contract.compare``.

No GPU is needed. Without a driver CuPy can run no kernel, but it makes arrays over memory of the host: their views,
what is known of them, and what they refuse, are CuPy's own. Only questions that need no kernel are asked.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from minibng.backend import get_backend

VIEWS = """
x[1:]  x[::2]  x[:, 1]  x[1, 2]  x[1]  x[...]  x[()]  x[None]  x[None, 1]  x[-1]  x[1:1]  x[:, ::-1]  x[np.int64(1)]
x[..., None]  x[1:][1:]  x[1:2, 2:3]  x.T  x.T[1:]  x.T.T  x.mT  x.real  x.reshape(4, 3)  x.reshape(-1)
x.reshape((2, 6))  x.transpose(1, 0)  x.swapaxes(0, 1)  x.ravel()  x[:1].squeeze()  x.view()  x.view('i4')
x.diagonal()  x.astype('f4', copy=False)  np.reshape(x, (4, 3))  np.transpose(x)  np.moveaxis(x, 0, 1)
np.broadcast_to(v, (3, 4))  np.expand_dims(x, 0)  np.squeeze(x[:1])  np.ravel(x)  np.swapaxes(x, 0, 1)
np.split(x, 2, axis=1)[1]  np.flip(x, 0)  np.array_split(x, 3, axis=1)[2]  np.hsplit(x, 2)[0]  np.rot90(x)
np.diagonal(x)  np.rollaxis(x, 1)  np.permute_dims(x, (1, 0))  np.broadcast_arrays(x, v)[1]  np.matrix_transpose(x)
xp.broadcast_to(x, (2, 3, 4))  xp.ndarray((2, 3), 'f4')  xp.lib.stride_tricks.as_strided(v, (3, 2), (4, 4))
xp.empty((3, 2), dtype='i8')  np.empty_like(x)  np.empty_like(x.T)  np.empty_like(x, shape=(5,))
"""
"""Shapes, strides, dtypes, contiguity, owners, and whether it is the array itself."""

FACTS = """
x.shape  x.ndim  x.size  len(x)  x.nbytes  x.itemsize  x.strides  x.dtype  np.shape(x)  np.ndim(x)  np.size(x)
np.size(x, 0)  np.result_type(x, np.float64)  np.result_type(x, 1.0)  np.may_share_memory(x, x[1:])
np.may_share_memory(x, v)  np.iscomplexobj(x)  np.isrealobj(x)  x.flags['C_CONTIGUOUS']  x.T.flags.f_contiguous
x[1:].flags.owndata  x.flags.fnc
"""

REFUSALS = """
np.asarray(x)  np.array([z])  np.array([x, x])  memoryview(x)  hash(x)  bool(x)  len(z)  list(z)  range(k)  [1, 2][k]
n[k]  operator.index(k)  operator.setitem(n, slice(None), x)  operator.setitem(x, slice(None), n)  x @ n.T  n.T @ x
x.dot(n)  xp.stack([n, n])  xp.array([z, 1.0])  np.sum(x, where=b)  np.sum(x, initial=0)  xp.sum(x, where=b)
x.sum(where=b)  x.max(initial=0)  np.clip(x, min=0)  np.sort(x, stable=True)  np.reshape(x, shape=(4, 3))
np.zeros_like(x, device='cpu')  np.ones(3, like=x)  np.unstack(x)  xp.vecdot  xp.errstate  xp.linalg.vector_norm
np.linalg.vector_norm(x)  np.linalg.matrix_norm(x)  np.linalg.multi_dot([x, x])  np.linalg.outer(v, v)
np.maximum.reduce(x)  xp.maximum.reduce(x)  xp.multiply.at(v, k, 2.0)  np.multiply.at(v, k, 2.0)
np.add(x, x, order='C')  np.add(x, x, subok=False)  x.astype('f8', casting='safe')  x.flags.writeable  x.ctypes
x.setflags  x.itemset  x.to_device  x.resize  x.__array_interface__  x.__array_namespace__  setattr(x, 'name', 'x')
x[5]  x[0, 0, 0]  x[1:, 5]  x.reshape(5, 5)  np.broadcast_to(x, (2, 2))  np.squeeze(x, 0)  np.transpose(x, (0, 0))
"""

DEFERRED = (
    "x + other  x * other  x @ other  x ** other  x < other  x == other  np.add(x, other)  np.concatenate([x, other])"
)
"""Operands with an answer of their own, as traced values are."""


class Other:
    """Answers NumPy's protocols itself."""

    def __array_ufunc__(self, *args: Any, **kwargs: Any) -> str:
        return "ufunc"

    def __array_function__(self, *args: Any, **kwargs: Any) -> str:
        return "function"

    def __eq__(self, other: object) -> bool:
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]


class HostMemory:
    """An allocator for CuPy where there is no driver."""

    def __init__(self, cupy: Any) -> None:
        self.cuda, self.blocks = cupy.cuda, list[Any]()

    def __call__(self, size: int) -> Any:
        block = np.zeros(max(size, 8), np.uint8)
        self.blocks.append(block)
        return self.cuda.MemoryPointer(self.cuda.UnownedMemory(block.ctypes.data, size, block, 0), 0)


def questions() -> list[str]:
    return [
        q for text in (VIEWS, FACTS, REFUSALS, DEFERRED) for line in text.split("\n") for q in line.split("  ") if q
    ]


def names(xp: Any) -> dict[str, Any]:
    """Return what a question may speak of."""
    import operator

    x, v, z = xp.ndarray((3, 4), "f4"), xp.ndarray((4,), "f4"), xp.ndarray((), "f4")
    k, b = xp.ndarray((), "i8"), xp.ndarray((3, 4), "?")
    return {"xp": xp, "x": x, "v": v, "z": z, "k": k, "b": b, "n": np.ones((3, 4), "f4"), "other": Other()} | {
        "np": np,
        "operator": operator,
    }


def answer(question: str, known: dict[str, Any]) -> tuple[Any, ...]:
    """Return all that can be compared of an answer; of an error its type."""
    try:
        made = eval(question, known)
    except Exception as error:
        return ("the driver",) if "cuda" in str(error).lower() else (type(error).__name__,)
    if not isinstance(made, known["xp"].ndarray):
        return type(made).__name__, str(made)
    owner = next((name for name in ("x", "v") if made.base is known[name]), "none")
    layout = made.flags.c_contiguous, made.flags.f_contiguous, made.strides if made.size else None
    return "array", made.shape, str(made.dtype), *layout, f"owner: {owner}", made is known["x"]


def differences(cupy: Any) -> Iterator[str]:
    real, strict = names(cupy), names(get_backend("strict").xp)
    for question in questions():
        theirs, ours = answer(question, real), answer(question, strict)
        if theirs == ("the driver",):
            yield f"{question}: needs a kernel"
        elif theirs != ours:
            yield f"{question}: CuPy {theirs}, the strict device {ours}"


def main() -> int:
    import cupy

    if not cupy.cuda.is_available():
        cupy.cuda.set_allocator(HostMemory(cupy))
    told = list(differences(cupy))
    print(*told, sep="\n")
    print(
        f"{len(questions())} questions, {len(told)} answers of the strict device differ from CuPy {cupy.__version__}'s"
    )
    return int(bool(told))


if __name__ == "__main__":
    sys.exit(main())
