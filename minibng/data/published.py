"""Data sets in the files that their authors published; four of images: MNIST, Fashion-MNIST, CIFAR-10, CIFAR-100."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minibng.data.dataset import Dataset, Split
from minibng.data.download import Remote
from minibng.data.formats import Bytes, check_labels, contents, damaged, members, parse_cifar, parse_idx
from minibng.data.prepare import frozen, stratified

Parts = tuple[tuple[Bytes, Bytes], tuple[Bytes, Bytes], tuple[str, ...] | None]


@dataclass(frozen=True)
class Published(ABC):
    """A data set that is read from the files that its authors published.

    Attributes
    ----------
    name
        The name that `load` knows it by, and of the folder that its files are kept in.
    title
        Its name in sentences.
    classes
        K.
    samples
        How many the training set (with the validation set) and the test set have; None: that is not known.
    files
        What is downloaded.
    source
        Who made it.
    """

    name: str
    title: str
    classes: int
    samples: tuple[int, int] | None
    files: tuple[Remote, ...]
    source: str

    @property
    def known(self) -> tuple[Remote, ...]:
        """The files whose checksums are known: those that are downloaded, or also others that it may be read from."""
        return self.files

    @abstractmethod
    def locate(self, folder: Path) -> list[Path]:
        """Return the files that would be read from a folder, or from the folder in it that is called as the data set.

        Raises
        ------
        FileNotFoundError
            Where they are not there, with what was looked for.
        """

    @abstractmethod
    def load(self, folder: Path) -> Split:
        """Read the files of a folder.

        Raises
        ------
        FileNotFoundError
            As `locate`.
        ValueError
            Where a file is damaged, naming it.
        """

    def nothing(self, folder: Path, wanted: str) -> FileNotFoundError:
        """Return the error for a folder without the files: what was looked for, and what to do."""
        if folder.is_file():
            return FileNotFoundError(f"{folder} is a file; to load {self.title}, name the folder that it is in")
        return FileNotFoundError(
            f"{self.title} is not in {folder}: there is no {wanted}, also not in {folder / self.name}; put the "
            f"published files there, or download them: minibng data fetch {self.name} --data-dir {folder}"
        )


@dataclass(frozen=True)
class _Pixels(Published):
    """Images, with a test set of their own."""

    flat = False
    """Whether samples come as vectors."""

    @abstractmethod
    def read(self, paths: list[Path]) -> Parts:
        """Return images (N, H, W, C) and labels (N,), all uint8, of the training set and of the test set; class names.

        Raises
        ------
        ValueError
            Where a file is damaged, naming it.
        """

    def load(self, folder: Path) -> Split:
        """Read the files of a folder, and take a validation set from the training set.

        The test set is the published one. Of each class a tenth of the published training set is the validation set,
        drawn as `stratified` draws. Each part is in random order. Each channel is shifted and scaled by its mean and
        standard deviation in the training part: in the arrays (N, H·W·C) of float32 where the data set is ``flat``;
        otherwise images stay bytes (N, H, W, C), a quarter of the memory, and carry their ``scale``.

        Raises
        ------
        FileNotFoundError, ValueError
            As `locate` and `read`.
        """
        (pixels, labels), (test_pixels, test_labels), names = self.read(self.locate(folder))
        train, val, _ = stratified(labels, test=0)
        test, *_ = stratified(test_labels, val=0, test=0)
        chosen = ((pixels, labels, train), (pixels, labels, val), (test_pixels, test_labels, test))
        drawn = [(np.ascontiguousarray(x[part]), y[part].astype(np.int64)) for x, y, part in chosen]
        scale, parts = _moments(drawn[0][0]), []
        for x, y in drawn:
            part = Dataset(frozen(x), frozen(y), self.classes, scale)
            if self.flat:
                part = Dataset(frozen(part.scaled(x)).reshape(len(x), -1), y, self.classes)
            parts.append(part)
        source = (
            f"{self.source}; the published test set, validation set taken from the training set; "
            "each channel standardized by its mean and deviation in the training part"
        )
        (height, width, channels), (first, second, third) = pixels.shape[1:], parts
        return Split(first, second, third, self.name, self.classes, source, (height, width, channels), names)


@dataclass(frozen=True)
class _Idx(_Pixels):
    """Four IDX files, packed with gzip or not.

    Attributes
    ----------
    class_names
        What the classes are called.
    """

    class_names: tuple[str, ...]

    flat = True

    def locate(self, folder: Path) -> list[Path]:
        """Find the four files, by the published names or with a dot for the last hyphen, packed or not."""
        names = [file.name.removesuffix(".gz") for file in self.files]
        # All data sets of this kind have the same names: a folder of its own goes first. The third place is PyTorch's.
        for base in (folder / self.name, folder, folder / self.title.replace("-", "") / "raw"):
            found = {name: path for name in names if (path := _first(base, name, name.replace("-idx", ".idx")))}
            if len(found) == len(names):
                return list(found.values())
            if found:
                absent = ", ".join(name for name in names if name not in found)
                raise FileNotFoundError(f"{self.title} in {base} is incomplete: {absent} is missing")
        raise self.nothing(folder, f"{names[0]} or {names[0]}.gz")

    def read(self, paths: list[Path]) -> Parts:
        """Read images and labels, and check that they belong together."""
        images, labels, test_images, test_labels = (
            parse_idx(contents(path), kind, path)
            for path, kind in zip(paths, ("grey images", "labels") * 2, strict=True)
        )
        for x, y, at in ((images, labels, 0), (test_images, test_labels, 2)):
            if len(x) != len(y):
                raise ValueError(
                    f"{paths[at]} has {len(x)} images and {paths[at + 1]} has {len(y)} labels: they do not belong "
                    "together; download or copy both again"
                )
            check_labels(y, self.classes, paths[at + 1])
        if images.shape[1:] != test_images.shape[1:]:
            sizes = ["×".join(map(str, x.shape[1:3])) for x in (images, test_images)]
            raise ValueError(f"{paths[0]} has images of {sizes[0]} pixels and {paths[2]} of {sizes[1]}")
        self._check_kin(labels, paths[1])
        return (images, labels), (test_images, test_labels), self.class_names

    def _check_kin(self, labels: Bytes, path: Path) -> None:
        """Tell MNIST from its kin, whose files have the same names and sizes: its classes are not equally large."""
        counts = np.bincount(labels, minlength=self.classes)
        whole = self.samples is not None and len(labels) == self.samples[0]
        if whole and (counts.min() == counts.max()) == (self.name == "mnist"):
            raise ValueError(
                f"{path} is not of {self.title}, but of a data set whose files have the same names; put each into a "
                f"folder of its own, {path.parent / 'mnist'} and {path.parent / 'fashion_mnist'}"
            )


@dataclass(frozen=True)
class _Cifar(_Pixels):
    """A tar archive with files of records, or those files.

    Attributes
    ----------
    unpacked
        The folder in the archive.
    members
        The files in it, the test set last.
    names
        The file there that names the classes, which may be missing.
    labels
        Labels in a record.
    """

    unpacked: str
    members: tuple[str, ...]
    names: str
    labels: int

    def locate(self, folder: Path) -> list[Path]:
        """Find the unpacked files, which are read faster, or else the archive."""
        archive, bases, incomplete = self.files[0].name, (folder / self.name, folder), ""
        for base in (base / inner for base in bases for inner in (self.unpacked, "")):
            found = [base / name for name in self.members]
            absent = [path.name for path in found if not path.is_file()]
            if not absent:
                return found
            if len(absent) < len(found):
                incomplete = incomplete or f"{self.title} in {base} is incomplete: {', '.join(absent)} is missing"
        for base in bases:
            if path := _first(base, archive, archive.removesuffix(".gz")):
                return [path]
        if incomplete:
            raise FileNotFoundError(incomplete)
        error = self.nothing(folder, f"{archive}, {self.unpacked} or {self.members[0]}")
        pickles = [name.replace("binary", "python").replace("-bin", "-py") for name in (archive, self.unpacked)]
        if any((folder / name).exists() for name in pickles):
            error = FileNotFoundError(
                f"{error}. The Python version, which is there, is not read: it consists of pickles"
            )
        raise error

    def read(self, paths: list[Path]) -> Parts:
        """Read the records of all files, and the names of the classes where they are there."""
        if len(paths) == 1:
            place, inside = paths[0], members(paths[0], self.members, (self.names,))
        else:
            place, names = paths[0].parent, paths[0].with_name(self.names)
            inside = {path.name: path.read_bytes() for path in (*paths, names) if path.is_file()}
        *training, test = (
            parse_cifar(inside[name], self.labels, self.classes, f"{name} in {place}") for name in self.members
        )
        images, labels = (np.concatenate(parts) for parts in zip(*training, strict=True))
        called = inside.get(self.names, b"").decode("ascii", "replace").split()
        if called and len(called) != self.classes:
            raise damaged(f"{self.names} in {place}", f"it names {len(called)} classes, there are {self.classes}")
        return (images, labels), test, tuple(called) or None


def _first(folder: Path, *names: str) -> Path | None:
    """Return the first of several files that is in a folder, packed or not."""
    paths = (folder / f"{name}{packed}" for name in names for packed in ("", ".gz"))
    return next((path for path in paths if path.is_file()), None)


def _moments(images: Bytes) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel, from sums of whole numbers, which are exact."""
    means, deviations = [], []
    for channel in np.moveaxis(images, -1, 0):
        n, total = channel.size, int(channel.sum(dtype=np.int64))
        squares = int(np.square(channel, dtype=np.uint16).sum(dtype=np.int64))
        means.append(total / n)
        deviations.append(math.sqrt(n * squares - total * total) / n or 1.0)  # 1 for a constant, as in `standardize`
    return means, deviations


def _at(bases: tuple[str, ...], *files: tuple[str, int, str]) -> tuple[Remote, ...]:
    return tuple(Remote(name, size, sha256, tuple(base + name for base in bases)) for name, size, sha256 in files)


MNIST = _Idx(
    "mnist",
    "MNIST",
    10,
    (60_000, 10_000),
    _at(
        ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
        (
            "train-images-idx3-ubyte.gz",
            9_912_422,
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        ("train-labels-idx1-ubyte.gz", 28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        ("t10k-images-idx3-ubyte.gz", 1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        ("t10k-labels-idx1-ubyte.gz", 4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    ),
    "MNIST, handwritten digits (Y. LeCun, C. Cortes and C. Burges, 1998)",
    tuple("0123456789"),
)

FASHION_MNIST = _Idx(
    "fashion_mnist",
    "Fashion-MNIST",
    10,
    (60_000, 10_000),
    _at(
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        (
            "train-images-idx3-ubyte.gz",
            26_421_880,
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        ),
        ("train-labels-idx1-ubyte.gz", 29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        ("t10k-images-idx3-ubyte.gz", 4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        ("t10k-labels-idx1-ubyte.gz", 5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    ),
    "Fashion-MNIST, articles of clothing (H. Xiao, K. Rasul and R. Vollgraf, arXiv:1708.07747)",
    (
        *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    ),
)

_KRIZHEVSKY = ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/")

CIFAR10 = _Cifar(
    "cifar10",
    "CIFAR-10",
    10,
    (50_000, 10_000),
    _at(
        _KRIZHEVSKY,
        (
            "cifar-10-binary.tar.gz",
            170_052_171,
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
    ),
    "CIFAR-10, small photographs (A. Krizhevsky, 2009)",
    "cifar-10-batches-bin",
    (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"),
    "batches.meta.txt",
    1,
)

CIFAR100 = _Cifar(
    "cifar100",
    "CIFAR-100",
    100,
    (50_000, 10_000),
    _at(
        _KRIZHEVSKY,
        (
            "cifar-100-binary.tar.gz",
            168_513_733,
            "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        ),
    ),
    "CIFAR-100, small photographs, the fine labels (A. Krizhevsky, 2009)",
    "cifar-100-binary",
    ("train.bin", "test.bin"),
    "fine_label_names.txt",
    2,
)
