import gzip
import io
import struct
import tarfile

import numpy as np
import pytest

from minibng.data.formats import contents, members, parse_cifar, parse_idx

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (5, 4, 3), np.uint8)
HEADER = struct.pack(">4I", 0x803, 5, 4, 3)


def test_idx_images_and_labels_come_back() -> None:
    images = parse_idx(HEADER + IMAGES.tobytes(), "grey images", "x")
    assert images.dtype == np.uint8 and images.shape == (5, 4, 3, 1)
    np.testing.assert_array_equal(images[..., 0], IMAGES)
    labels = parse_idx(struct.pack(">2I", 0x801, 3) + bytes([3, 1, 2]), "labels", "y")
    assert labels.tolist() == [3, 1, 2]


@pytest.mark.parametrize(
    ("data", "kind", "told"),
    [
        (b"", "labels", "an IDX file of labels begins with 0x00000801, this one ends after 0 bytes"),
        (b"\0\0", "labels", "ends after 2 bytes"),
        (HEADER[:10], "grey images", "it has 10 bytes, and the header alone has 16"),
        (HEADER + bytes(59), "grey images", "its header says 5 × 4 × 3 grey images, 76 bytes in all, but it has 75"),
        (HEADER + bytes(61), "grey images", "76 bytes in all, but it has 77 bytes"),
        (HEADER + bytes(60), "labels", "with 0x00000803, as a file of grey images does"),
        (b"\0\0\x0d\x03" + HEADER[4:] + bytes(240), "grey images", "begins with 0x00000803, this one with 0x00000d03"),
        (b"\x89PNG\r\n\x1a\n", "labels", "with 0x89504e47"),
        (struct.pack(">4I", 0x803, 2**32 - 1, 2**32 - 1, 2**32 - 1), "grey images", "but it has 16 bytes"),
    ],
)
def test_a_damaged_idx_file_is_named_with_what_was_expected_and_found(data: bytes, kind: str, told: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_idx(data, kind, "DIR/train-file")
    assert str(caught.value).startswith("DIR/train-file is damaged: ") and told in str(caught.value)
    assert str(caught.value).endswith("; download or copy it again")


def test_an_idx_file_cut_anywhere_is_refused() -> None:
    whole = HEADER + IMAGES.tobytes()
    for end in range(len(whole)):
        with pytest.raises(ValueError, match="is damaged"):
            parse_idx(whole[:end], "grey images", "file")


@pytest.mark.parametrize("labels", [1, 2])
def test_cifar_records_come_back_with_channels_last(labels: int) -> None:
    images, fine = RNG.integers(0, 256, (3, 32, 32, 3), np.uint8), [9, 0, 4]
    data = b""
    for image, label in zip(images, fine, strict=True):
        data += bytes([1, label][2 - labels :])
        for c in range(3):
            for row in range(32):
                data += bytes(int(image[row, column, c]) for column in range(32))
    found, y = parse_cifar(data, labels, 10, "x")
    np.testing.assert_array_equal(found, images)
    assert y.tolist() == fine and found.dtype == y.dtype == np.uint8


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "it has 0 bytes, which is no whole number of records of 3073 (1 + 3 × 32 × 32)"),
        (bytes(3074), "it has 3074 bytes"),
        (bytes(2 * 3073 - 1), "it has 6145 bytes"),
        (bytes(3073) + bytes([10]) + bytes(3072), "label 10 (sample 1) is out of range: 10 classes have 0 to 9"),
    ],
)
def test_damaged_cifar_records_are_told(data: bytes, told: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_cifar(data, 1, 10, "data_batch_1.bin")
    assert str(caught.value).startswith(f"data_batch_1.bin is damaged: {told}")
    assert str(caught.value).endswith("; download or copy it again")


def test_contents_are_told_by_the_bytes_and_not_by_the_name(tmp_path) -> None:
    for name, packed in (("a.gz", True), ("b", True), ("c.gz", False), ("d", False)):
        (tmp_path / name).write_bytes(gzip.compress(b"what") if packed else b"what")
        assert contents(tmp_path / name) == b"what"


def test_a_gzip_file_cut_anywhere_or_changed_is_refused(tmp_path) -> None:
    whole, path = gzip.compress(IMAGES.tobytes()), tmp_path / "images.gz"
    flipped = bytearray(whole)
    flipped[-5] ^= 1  # in the checksum
    for data in (*(whole[:end] for end in range(2, len(whole), 7)), bytes(flipped), whole + b"more"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"images\.gz is damaged: gzip cannot unpack it"):
            contents(path)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_tar_archive_cut_anywhere_or_changed_is_refused(name: str, examples, tmp_path) -> None:
    example = examples[name]
    ((file, whole),) = example.files.items()
    path = tmp_path / file
    plain = gzip.decompress(whole)
    for data in (whole, plain):
        path.write_bytes(data)
        assert members(path, list(example.plain)) == example.plain
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    packed = [whole[: len(whole) * i // 40] for i in range(40)] + [whole[:-1], bytes(flipped)]
    end = plain.rindex(b"\0ustar")  # the last header: after its file only zeros follow
    for data in packed + [plain[: end * i // 40] for i in range(40)]:
        path.write_bytes(data)
        with pytest.raises(ValueError, match=rf"{file} is damaged"):
            members(path, list(example.plain))


def test_only_files_are_taken_from_an_archive_and_only_those_asked_for(tmp_path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("x/wanted")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
        for name in ("../escape", "x/other"):
            info = tarfile.TarInfo(name)
            info.size = 2
            archive.addfile(info, io.BytesIO(b"hi"))
    with pytest.raises(ValueError, match=r"a\.tar is damaged: there is no wanted in it"):
        members(path, ["wanted"])
    assert members(path, ["other"], ["missing"]) == {"other": b"hi"}
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar"]
