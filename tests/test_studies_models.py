"""The networks of the studies that are read from ordinary files: that they are put together right, and what is said where files are missing."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import salience as sal

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"
needs_data = pytest.mark.skipif(not (DATA / "cifar_models").is_dir(), reason="the folder of data sets and weights, ../shared/data, is not here")


@pytest.fixture(autouse=True)
def studies(monkeypatch):
    """As for a script in the folder studies."""
    monkeypatch.syspath_prepend(str(ROOT / "studies"))
    monkeypatch.setenv("SALIENCE_DATA", str(DATA))
    monkeypatch.delitem(sys.modules, "models", raising=False)


@needs_data
@pytest.mark.parametrize(("name", "least"), [("resnet20", 0.98), ("resnet32_normal", 0.98), ("resnet32_delta", 0.88), ("resnet32_stadv", 0.88), ("resnet32_recoloradv", 0.93)])
def test_cifar_networks_know_their_training_pictures(name, least):
    model = sal.load_model(f"python:models:{name}")
    with np.load(DATA / "cifar10_lossless4000_train.npz") as stored:
        pictures, labels = stored["x"][:200], torch.from_numpy(stored["y"][:200])
    right = model.outputs(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255).argmax(1) == labels
    assert right.float().mean() >= least


@needs_data
@pytest.mark.parametrize("name", ["squeezenet", "squeezenet_unrectified"])
def test_squeezenet_sees_what_is_there(name):
    model = sal.load_model(f"python:models:{name}")
    images = sal.load_images([DATA / "photos" / "catdog.png", DATA / "photos" / "parrot.png"], model)
    outputs = model.outputs(images.as_subclass(torch.Tensor))
    assert [model.label(index) for index in outputs.argmax(1).tolist()] == ["bull mastiff", "macaw"]
    assert bool((outputs < 0).any()) == (name == "squeezenet_unrectified")


def test_the_shortcut_takes_every_second_pixel_and_adds_channels_of_zeros():
    import models

    block = models.Block(2, 4).eval()
    for norm in (block.bn1, block.bn2):
        norm.weight.data.zero_()
        norm.bias.data.zero_()
    x = torch.rand(1, 2, 6, 6)
    assert torch.equal(block(x), torch.cat([torch.zeros(1, 1, 3, 3), x[:, :, ::2, ::2], torch.zeros(1, 1, 3, 3)], 1))


def test_a_missing_folder_or_file_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("SALIENCE_DATA", str(tmp_path))
    with pytest.raises(sal.InputError) as raised:
        sal.load_model("python:models:squeezenet")
    assert str(raised.value) == f"The file {tmp_path / 'imagenet_models' / 'squeezenet1_0.npz'} does not exist: add it, or set SALIENCE_DATA to another folder of data sets and weights."
    monkeypatch.setenv("SALIENCE_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(sal.InputError) as raised:
        sal.load_model("python:models:resnet20")
    assert str(raised.value) == f"The folder {tmp_path / 'nowhere'} does not exist: set SALIENCE_DATA to the folder of data sets and weights."
