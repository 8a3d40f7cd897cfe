"""MNIST and CIFAR-10 as torchvision keeps them and as npz files."""

import gzip
import hashlib
import io
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image

import salience as sal
from salience.zoo.datasets import load_dataset

SHARED = Path(__file__).parents[4] / "shared" / "data"
RANDOM = np.random.default_rng(0)
DIGITS, DIGIT_LABELS = RANDOM.integers(0, 256, (6, 28, 28), dtype=np.uint8), np.array([3, 1, 4, 1, 5, 9], np.uint8)
PHOTOS, PHOTO_LABELS = RANDOM.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8), np.array([0, 9, 2, 2])


def check(data, pictures, labels):
    assert len(data) == len(pictures)
    for place, item in enumerate(data):
        assert item.name == f"{data.split}-{place:05d}"
        assert item.labels == (labels[place],)
        assert item.picture.dtype == np.uint8
        assert (item.picture == pictures[place]).all()


def test_mnist_as_torchvision_keeps_it(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, pictures, labels in (("train", DIGITS[:4], DIGIT_LABELS[:4]), ("t10k", DIGITS[4:], DIGIT_LABELS[4:])):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, len(pictures), 28, 28) + pictures.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, len(labels)) + labels.tobytes())
        for kind in ("images-idx3", "labels-idx1"):
            with gzip.open(raw / f"{part}-{kind}-ubyte.gz", "wb") as file:
                file.write(b"")
    check(load_dataset("mnist", root=tmp_path), DIGITS[4:], DIGIT_LABELS[4:])
    data = load_dataset("mnist", root=tmp_path, split="train")
    check(data, DIGITS[:4], DIGIT_LABELS[:4])
    assert data.classes == list("0123456789")
    assert sal.load_images(data[0].picture).shape == (1, 3, 28, 28)
    (raw / "t10k-images-idx3-ubyte").write_bytes(b"<html>Not found</html>")
    with pytest.raises(sal.InputError, match=r"^torchvision cannot read MNIST in .* \(a damaged file\): get a whole copy, or set download=true\.$"):
        load_dataset("mnist", root=tmp_path)
    (raw / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(sal.InputError, match=r"^torchvision cannot read MNIST in .* \(Dataset not found\. .*\): get a whole copy, or set download=true\.$"):
        load_dataset("mnist", root=tmp_path)


def test_cifar10_as_torchvision_keeps_it(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    files = {
        "test_batch": {"data": PHOTOS.transpose(0, 3, 1, 2).reshape(4, -1), "labels": PHOTO_LABELS.tolist()},
        "batches.meta": {"label_names": ["airplane"]},
    }
    for name, content in files.items():
        (folder / name).write_bytes(pickle.dumps(content))
    sums = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in files}
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "train_list", [])
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]})
    data = load_dataset("cifar10", root=tmp_path)
    check(data, PHOTOS, PHOTO_LABELS)
    assert data.classes[9] == "truck"
    (folder / "test_batch").write_bytes(b"changed")
    with pytest.raises(sal.InputError, match=r"^torchvision cannot read CIFAR10 in .*: get a whole copy, or set download=true\.$"):
        load_dataset("cifar10", root=tmp_path)


def test_arrays_in_npz_files(tmp_path):
    np.savez(tmp_path / "mnist.npz", x_test=DIGITS, y_test=DIGIT_LABELS, x_train=DIGITS[::-1], y_train=DIGIT_LABELS[::-1])
    check(load_dataset("mnist", root=tmp_path), DIGITS, DIGIT_LABELS)
    check(load_dataset("mnist", root=tmp_path / "mnist.npz", split="train"), DIGITS[::-1], DIGIT_LABELS[::-1])
    np.savez(tmp_path / "cifar10.npz", x_test=PHOTOS, y_test=PHOTO_LABELS[:, None])
    check(load_dataset("cifar10", root=tmp_path), PHOTOS, PHOTO_LABELS)
    np.savez(tmp_path / "some_train.npz", x=PHOTOS, y=PHOTO_LABELS)
    check(load_dataset("cifar10", root=tmp_path / "some_train.npz", split="train"), PHOTOS, PHOTO_LABELS)
    with pytest.raises(sal.InputError, match=r"some_train\.npz has no test pictures: it must hold x_test and y_test, or jpeg_test, offset_test and y_test\.$"):
        load_dataset("cifar10", root=tmp_path / "some_train.npz")


def test_jpeg_bytes_in_npz_files(tmp_path):
    encoded = []
    for photo in PHOTOS:
        file = io.BytesIO()
        Image.fromarray(photo).save(file, "JPEG", quality=90)
        encoded.append(file.getvalue())
    offsets = np.cumsum([0, *map(len, encoded)])
    stored = {"jpeg_test": np.frombuffer(b"".join(encoded), np.uint8), "offset_test": offsets, "y_test": PHOTO_LABELS}
    np.savez(tmp_path / "cifar10_jpeg.npz", **stored)
    check(load_dataset("cifar10", root=tmp_path), [np.asarray(Image.open(io.BytesIO(each))) for each in encoded], PHOTO_LABELS)
    np.savez(tmp_path / "cifar10_jpeg.npz", **stored | {"jpeg_test": np.zeros_like(stored["jpeg_test"])})
    with pytest.raises(sal.InputError, match=r"^Picture 2 of the npz file is damaged \(.*\): get a whole copy of the file\.$"):
        load_dataset("cifar10", root=tmp_path)[2]


def test_items_do_not_share_memory(tmp_path):
    np.savez(tmp_path / "mnist.npz", x_test=DIGITS, y_test=DIGIT_LABELS)
    data = load_dataset("mnist", root=tmp_path)
    data[0].picture[:] = 0
    check(data, DIGITS, DIGIT_LABELS)


def test_refused(tmp_path):
    with pytest.raises(sal.InputError) as caught:
        load_dataset("cifar10", root=tmp_path)
    assert str(caught.value) == f"{tmp_path} holds neither cifar-10-batches-py nor cifar10.npz nor cifar10_jpeg.npz: give the folder that holds one of them, or download=true."
    with pytest.raises(sal.InputError, match=r"^root is missing: give the folder of MNIST\.$"):
        load_dataset("mnist")
    np.savez(tmp_path / "mnist.npz", x_test=DIGITS, y_test=DIGIT_LABELS)
    whole = (tmp_path / "mnist.npz").read_bytes()
    for content in (b"", b"nothing", whole[: len(whole) // 2]):
        (tmp_path / "mnist.npz").write_bytes(content)
        with pytest.raises(sal.InputError, match=r"mnist\.npz is not a whole npz file \(.*\): get a whole copy of it\.$"):
            load_dataset("mnist", root=tmp_path)
    np.savez(tmp_path / "mnist.npz", x_test=DIGITS / 255, y_test=DIGIT_LABELS)
    with pytest.raises(sal.InputError, match=r"mnist\.npz: the pictures must be uint8, one for each label, not float64 \(6, 28, 28\) for 6 labels\.$"):
        load_dataset("mnist", root=tmp_path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
def test_real_data():
    digits = load_dataset("mnist", root=SHARED)
    assert len(digits) == 10000
    assert [item.labels[0] for item in load_dataset("mnist", root=SHARED, limit=5)] == [7, 2, 1, 0, 4]
    for where, size in ((SHARED, 50000), (SHARED / "cifar10_lossless4000_train.npz", 4000)):
        photos = load_dataset("cifar10", root=where, split="train")
        assert len(photos) == size
        assert photos[0].picture.shape == (32, 32, 3)
    assert photos[0].labels == (6,)
