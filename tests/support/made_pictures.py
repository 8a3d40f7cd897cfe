"""Pictures made of noise and stripes: four classes that any network can tell apart."""

import torch

from salience.training.pictures import Pictures


def striped(n: int, seed: int = 0) -> Pictures:
    """The class says which quarter of the rows is bright."""
    source = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 4
    images = torch.randint(0, 120, (n, 3, 32, 32), generator=source, dtype=torch.uint8)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 8 * label : 8 * label + 8] += 100
    return Pictures(images, labels, ("top", "upper", "lower", "bottom"), "striped")
