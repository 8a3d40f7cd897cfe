"""How strong input noise is: relative to an image's range, or absolute."""

from torch import Tensor

from salience.core.errors import InputError
from salience.core.types import Images

DEFAULT_LEVEL = 0.2
"""As in "NoiseGrad" (2022), eq. 4, and "Smoothed explanations" (2022); Smilkov et al. (2017) find 0.1 to 0.2 best."""


def check_strength(name: str, noise_level: float | None, sigma: float | None) -> None:
    """Refuse two strengths at once.

    Raises:
        InputError: If both are given.
    """
    if noise_level is not None and sigma is not None:
        raise InputError(f"{name}: give noise_level (relative to the image's range) or sigma (absolute, in [0, 1] units), not both.")


def strength(images: Images, noise_level: float | None, sigma: float | None) -> Tensor:
    """The absolute strength of the noise, per image.

    Args:
        images: (n, c, h, w).
        noise_level: Strength as a share of each image's own range, max - min over all its values.
        sigma: Absolute strength in [0, 1] units.

    Returns:
        (n, 1, 1, 1).
    """
    if sigma is not None:
        return images.new_full((len(images), 1, 1, 1), sigma)
    level = DEFAULT_LEVEL if noise_level is None else noise_level
    flat = images.flatten(1)
    return level * (flat.amax(1) - flat.amin(1))[:, None, None, None]
