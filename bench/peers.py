"""What people use today, written down from its description: the yardsticks of the speed tables.

The published RISE procedure, and NoiseGrad and FusionGrad as their authors run them: one image at a time,
the weights loaded anew and noised parameter by parameter, captum's Saliency as the base.
"""

import copy

import numpy as np
import torch
from skimage.transform import resize
from torch import Tensor, nn


def rise(net: nn.Module, image: Tensor, masks_wanted: int, batch: int = 100, grid: int = 7, keep: float = 0.5) -> Tensor:
    """All masks first (float64, in memory), all masked images stacked, then batches of 100."""
    height, width = image.shape[-2:]
    cell = np.ceil(np.array([height, width]) / grid)
    size = tuple(((grid + 1) * cell).astype(int))
    grids = (np.random.default_rng(0).random((masks_wanted, grid, grid)) < keep).astype("float32")
    masks = np.empty((masks_wanted, height, width))
    shifts = np.random.default_rng(1).integers(0, cell.astype(int), (masks_wanted, 2))
    for i in range(masks_wanted):
        y, x = shifts[i]
        masks[i] = resize(grids[i], size, order=1, mode="reflect", anti_aliasing=False)[y : y + height, x : x + width]
    weights = torch.from_numpy(masks.reshape(-1, 1, height, width)).float()
    stack = torch.mul(weights, image)
    with torch.no_grad():
        scores = torch.cat([net(stack[i : i + batch]).softmax(1) for i in range(0, masks_wanted, batch)])
    return (scores.T @ weights.view(masks_wanted, -1)).view(-1, height, width) / masks_wanted / keep


def _noisy(net: nn.Module, saved: dict[str, Tensor], sigma: float) -> None:
    net.load_state_dict(saved)
    factor = torch.distributions.Normal(loc=torch.tensor(1.0), scale=torch.tensor(sigma))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(factor.sample(parameter.size()).to(parameter.device))


def noisegrad(net: nn.Module, images: Tensor, targets: Tensor, sigma: float = 0.2, draws: int = 25) -> Tensor:
    """One image after the other; for each, new weights for each draw and one saliency."""
    from captum.attr import Saliency

    saved = copy.deepcopy(net.state_dict())
    maps = []
    for image, target in zip(images[:, None], targets, strict=True):
        total = torch.zeros_like(image)
        for _ in range(draws):
            _noisy(net, saved, sigma)
            total += Saliency(net).attribute(image.clone().requires_grad_(True), target=int(target), abs=True)
        maps.append(total / draws)
    net.load_state_dict(saved)
    return torch.cat(maps)


def fusiongrad(net: nn.Module, images: Tensor, targets: Tensor, sigma: float = 0.2, input_sigma: float = 0.4, draws: int = 10, inputs: int = 10) -> Tensor:
    """As `noisegrad`, with a loop over noisy inputs inside."""
    from captum.attr import Saliency

    saved = copy.deepcopy(net.state_dict())
    maps = []
    for image, target in zip(images[:, None], targets, strict=True):
        total = torch.zeros_like(image)
        for _ in range(draws):
            _noisy(net, saved, sigma)
            for _ in range(inputs):
                noisy = (image + input_sigma * torch.randn_like(image)).requires_grad_(True)
                total += Saliency(net).attribute(noisy, target=int(target), abs=True)
        maps.append(total / draws / inputs)
    net.load_state_dict(saved)
    return torch.cat(maps)


def smoothgrad(net: nn.Module, image: Tensor, target: int, samples: int, sigma: float, batch: int | None = None) -> Tensor:
    """captum's NoiseTunnel around Saliency; without `batch` all samples at once, its default."""
    from captum.attr import NoiseTunnel, Saliency

    return NoiseTunnel(Saliency(net)).attribute(image, nt_type="smoothgrad", nt_samples=samples, nt_samples_batch_size=batch, stdevs=sigma, target=target, abs=False)


def normalised(images: Tensor, mean: Tensor, std: Tensor, value_range: float) -> Tensor:
    """What these procedures are given: images already normalised."""
    return (images * value_range - mean) / std
