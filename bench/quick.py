"""What `core/quick.py` saves: gradients with and without it, several networks, in turn."""

from contextlib import nullcontext
from unittest.mock import patch

import torch

import salience as sal
from _photos import photographs
from _timing import interleaved, ratio, report, spread

NAMES = ("efficientnet-lite0", "torchvision:mobilenet_v2?pretrained=false", "torchvision:resnet18?pretrained=false")


def main() -> None:
    """Eight images a pass."""
    rows, figures = [], {}
    for name in NAMES:
        model = sal.load_model(name)
        images, targets = photographs(8, model), torch.zeros(8, dtype=torch.int64)

        def plain(model: sal.Model = model, images: torch.Tensor = images, targets: torch.Tensor = targets) -> None:
            with patch("salience.core.model.quick", lambda network: nullcontext()):
                model.gradient(images, targets)

        times = interleaved({"quick": lambda model=model, images=images, targets=targets: model.gradient(images, targets), "plain": plain})
        figures[name] = times
        rows.append([name, *(spread(times[case], 3) for case in ("quick", "plain")), spread(ratio(times["plain"], times["quick"]))])
    report("quick", "Gradients of 8 images at 224 px, seconds", ["network", "quick", "plain", "plain / quick"], rows, figures)


if __name__ == "__main__":
    main()
