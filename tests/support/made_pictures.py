"""Pictures made of noise and stripes: four classes that any network can tell apart."""

import torch
import torch.nn.functional as F

from salience.training.pictures import Pictures


def striped(n: int, seed: int = 0) -> Pictures:
    """The class says which quarter of the rows is bright."""
    source = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 4
    images = torch.randint(0, 120, (n, 3, 32, 32), generator=source, dtype=torch.uint8)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 8 * label : 8 * label + 8] += 100
    return Pictures(images, labels, ("top", "upper", "lower", "bottom"), "striped")


def labelled(recipe: str, n: int) -> Pictures:
    """Striped pictures with labels as a recipe takes them."""
    made = striped(n)
    return Pictures(made.images, F.one_hot(made.labels, 4), made.classes, made.name) if recipe.startswith("multilabel") else made
