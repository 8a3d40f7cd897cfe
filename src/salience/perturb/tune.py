"""The level of weight noise at which a network begins to lose its classes."""

import torch

from salience.core.classifier import Classifier
from salience.core.draws import Stream
from salience.core.types import Images
from salience.perturb.weights import WeightNoise

TARGET_DROP = 0.05
DRAWS = 20
LARGEST = 1.0


def accuracy_drop(model: Classifier, images: Images, sigma: float, *, draws: int = DRAWS, seed: int = 0) -> float:
    """Relative accuracy drop under weight noise, with the clean predictions as labels.

    1 - (ACC(sigma) - ACC(inf)) / (ACC(0) - ACC(inf)) with ACC(0) = 1 and ACC(inf) = 1 / classes. The same
    draws serve every sigma (common random numbers).

    Args:
        model: A white box.
        images: (n, c, h, w).
        sigma: sd of the multiplicative weight noise.
        draws: Draws of weights averaged over.
        seed: Seed of the draws.

    Source: "NoiseGrad" (2022), eq. 5. Cost: draws x n forward passes.
    """
    clean = model.outputs(images)
    labels, chance = clean.argmax(1), 1 / clean.shape[1]
    noise, stream = WeightNoise(model), Stream((seed,), (seed,))
    kept = torch.zeros(())
    for draw in range(draws):
        with noise.applied(stream, draw, sigma):
            kept += (_predictions(model, images) == labels).float().mean().cpu()
    return 1 - (kept.item() / draws - chance) / (1 - chance)


def _predictions(model: Classifier, images: Images) -> torch.Tensor:
    """Predicted classes; a network whose scores overflow under noise predicts none (-1)."""
    with torch.no_grad():
        outputs = torch.cat([model._forward(images[part]) for part in model.chunks(images)])
    return torch.where(torch.isfinite(outputs).all(1), outputs.nan_to_num().argmax(1), -1)


def tuned_weight_sigma(model: Classifier, images: Images, *, draws: int = DRAWS, precision: float = 0.05) -> float:
    """The smallest sigma at which the relative accuracy drop reaches 5 %.

    Named models carry theirs, measured on many photographs. For others it is searched on the images
    given: doubling from a small sigma until the drop is reached, then bisection.

    Args:
        model: A white box.
        images: The images to search on.
        draws: Draws of weights for each sigma tried.
        precision: Relative width of the bracket at which the bisection stops.

    Returns:
        sd of the multiplicative weight noise; 1 if even that much does not reach the drop.

    Source: "NoiseGrad" (2022), eq. 5; the paper leaves the search open.
    """
    if model.weight_sigma is not None:
        return model.weight_sigma
    low, high = 0.0, 0.005
    while accuracy_drop(model, images, high, draws=draws) < TARGET_DROP:
        if high >= LARGEST:
            return LARGEST
        low, high = high, min(2 * high, LARGEST)
    while high - low > precision * high:
        middle = (low + high) / 2
        if accuracy_drop(model, images, middle, draws=draws) < TARGET_DROP:
            low = middle
        else:
            high = middle
    return high
