"""What an array library must offer so that everything above it need not know which one it is."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias

import numpy as np

from minibng.backend import convolution
from minibng.backend.convolution import Geometry, Pads
from minibng.backend.kernel import Formula
from minibng.backend.waiting import debugging

if TYPE_CHECKING:
    from minibng.backend.guard import DeviceGuard

Array: TypeAlias = Any
"""An array of any backend. Its operators and NumPy's functions reach the library that owns it."""

HostArray: TypeAlias = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Group:
    """Blocks that are cut alike out of the same tensors.

    Each tensor is seen as (before, n, after), and block j of the group's n blocks is the entries with index j in the
    middle, of all its tensors together: (1, 1, size) is a tensor whole, (inputs, n, 1) cuts a weight into the columns
    that lead to one output each, (1, n, after) a table into its rows, and (1, size, 1) a tensor into its entries.
    """

    name: str
    tensors: tuple[int, ...]
    cuts: tuple[tuple[int, int, int], ...]

    @cached_property
    def count(self) -> int:
        """Number of blocks n."""
        return self.cuts[0][1]

    @cached_property
    def size(self) -> int:
        """Entries of each block."""
        return sum(before * after for before, _, after in self.cuts)

    @property
    def label(self) -> str:
        """The name of the only block, or "name[0…n−1]" for several."""
        return self.name if self.count < 2 else f"{self.name}[0…{self.count - 1}]"

    @classmethod
    def whole(cls, name: str, tensors: Sequence[int], shapes: Sequence[tuple[int, ...]]) -> Group:
        """Return one block of whole tensors; ``shapes`` are those of all tensors."""
        return cls(name, tuple(tensors), tuple((1, 1, math.prod(shapes[i])) for i in tensors))


class BlockNorms(NamedTuple):
    """The norms of B blocks, ‖g^i‖ = ``root[i] · 2^−exponent[i]``, in a form that cannot overflow.

    ``root`` (B,) float64 is the norm of the block multiplied by ``2^exponent``; ``exponent`` (B,) int32 is zero unless
    plain sums would have left the safe range. A non-finite entry makes its block's root non-finite. On a device
    ``bad``, () int64, is the number of the first such block, or `guard.NONE`; on the host it is None.
    """

    root: Array
    exponent: Array
    bad: Array | None = None

    def values(self) -> Array:
        """Return the norms themselves, (B,) float64; inf only where the norm is beyond float64."""
        with np.errstate(over="ignore", under="ignore"):
            return np.ldexp(self.root, -self.exponent)


class Stepper(ABC):
    """A formula bound to the blocks that it will be run over, in place, again and again."""

    @abstractmethod
    def __call__(
        self,
        columns: Mapping[str, Sequence[Array]],
        scalars: Mapping[str, float | Sequence[float]],
        norms: BlockNorms | None = None,
        lengths: Array | None = None,
        guard: DeviceGuard | None = None,
    ) -> None:
        """Run the formula once over every tensor, writing what it returns back in place.

        Parameters
        ----------
        columns
            For each array name of the formula, one array a tensor.
        scalars
            The formula's scalars: one number each, or one a tensor.
        norms, lengths
            The norms of the gradient's B blocks and, (B,) float64, the lengths that they are to have in the formula.
            None leaves the gradient as it is.
        guard
            On a device: what says whether anything is written at all.
        """


class Backend(ABC):
    """One array library on one device.

    Elementwise functions, reductions and products are not listed here: NumPy's own dispatch protocols already send
    ``np.exp(x)`` to the library that owns x. A backend adds what the protocols do not say: making arrays, moving them,
    scattering, block norms and whole formulas.
    """

    device: str
    xp: ModuleType
    array_type: type
    on_host: ClassVar[bool] = False
    """Whether the host can look at a value without waiting for a device."""

    @property
    def reads_values(self) -> bool:
        """Whether values may be looked at to check them: on the host, and on a device under `debug`."""
        return self.on_host or debugging()

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy, and pickle, as the one backend of this device."""
        from minibng.backend import get_backend

        return get_backend, (self.device,)

    @abstractmethod
    def asarray(self, x: Any, dtype: Any = None) -> Array:
        """Return x as an array of this backend, moving it there if it is elsewhere; dtypes are kept."""

    @abstractmethod
    def to_host(self, x: Array) -> HostArray:
        """Return x as a NumPy array (the one way down; on a device it synchronizes)."""

    @abstractmethod
    def address(self, x: Array) -> int:
        """Return where the memory of x begins, in bytes."""

    @abstractmethod
    def scatter_add(self, target: Array, index: Any, values: Array) -> None:
        """Add ``values`` into ``target[index]`` in place; entries named twice receive both."""

    @abstractmethod
    def block_norms(self, tensors: Sequence[Array], groups: Sequence[Group], norm: float = 2) -> BlockNorms:
        """Return the 1-, 2- or ∞-norm of each block, (B,) in the order of the groups."""

    @abstractmethod
    def scale_blocks(
        self, tensors: Sequence[Array], groups: Sequence[Group], norms: BlockNorms, lengths: Array
    ) -> list[Array]:
        """Return new arrays in which block i has the norm ``lengths[i]`` and the direction that it had."""

    @abstractmethod
    def stepper(self, formula: Formula, like: Sequence[Array], groups: Sequence[Group]) -> Stepper:
        """Return ``formula`` made ready to run in place over tensors shaped like ``like``."""

    @abstractmethod
    def map(self, formula: Formula, arrays: Mapping[str, Array], scalars: Mapping[str, float]) -> tuple[Array, ...]:
        """Return what a formula writes, in new arrays; its inputs are by name, of one shape and dtype."""

    def convolve(self, x: Array, w: Array, b: Array | None, geometry: Geometry) -> Array:
        """Return the convolution of images x (N, H, W, C) with w (kh, kw, C/groups, K), plus b (K,): (N, oh, ow, K)."""
        y = convolution.convolve(self, x, w, geometry)
        if b is not None:
            y += b
        return y

    def convolve_input(self, g: Array, w: Array, geometry: Geometry, shape: tuple[int, ...]) -> Array:
        """Return the adjoint of `convolve` in x: g (N, oh, ow, K) → (N, H, W, C), the given shape."""
        return convolution.convolve_input(self, g, w, geometry, shape)

    def convolve_weight(self, x: Array, g: Array, geometry: Geometry, shape: tuple[int, ...]) -> Array:
        """Return the adjoint of `convolve` in w: g (N, oh, ow, K) → (kh, kw, C/groups, K), the given shape."""
        return convolution.convolve_weight(self, x, g, geometry, shape)

    def surrounded(self, x: Array, pads: Pads) -> Array:
        """Return images with zeros around each, ((top, bottom), (left, right)), to be read only."""
        return convolution.surrounded(self.xp, x, pads)

    def empty_images(self, like: Array) -> Array:
        """Return a new array of the shape and dtype of images (N, H, W, C), laid out as theirs are."""
        return self.xp.empty(like.shape, dtype=like.dtype)

    def short_rows(self, length: int) -> AbstractContextManager[None]:
        """Return the context in which ufuncs go through rows of ``length`` entries; NumPy alone has to be told."""
        return nullcontext()

    def guard(self, blocks: int) -> DeviceGuard | None:
        """Return what keeps steps over B blocks from being taken on a device; None on the host, which looks itself."""
        from minibng.backend.guard import DeviceGuard

        return None if self.on_host else DeviceGuard(self, blocks)

    def training_step(self) -> AbstractContextManager[None]:
        """Return the context of one training step, in which nobody should wait for the device."""
        return nullcontext()

    def synchronize(self) -> None:
        """Wait until the device has done everything that it was asked for; on the host there is nothing to wait for."""
        return

    def check_indices(self, index: Array, size: int, what: str) -> None:
        """Raise IndexError where an entry is outside 0 … size−1; on a device only under `debug`."""
        if not self.reads_values or not index.size:
            return
        values = self.to_host(index)
        if values.min() < 0 or values.max() >= size:
            bad = values.reshape(-1)[np.argmax((values < 0) | (values >= size))]
            raise IndexError(f"{what} must lie in 0 … {size - 1}, got {bad}")
