"""Colours as CIE-LUV, scaled to [0, 1], and changes of them given on a lattice."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from salience.core.types import Images
from salience.perturb.clamp import clamped

Colours = Float[Tensor, "n 3 *grid"]
"""Colours of pixels, or of the points of a lattice."""

Lattice = Float[Tensor, "n 3 l u v"]
"""What is added to the colour at each point of a lattice over LUV, all in scaled units."""

FROM_RGB = torch.tensor([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
"""Linear sRGB to XYZ under D65 (ITU-R BT.709)."""

SMALL = 0.008856
"""Relative luminance under which lightness is linear in it."""

SLOPE = 903.3
"""Lightness per luminance there."""

TINY = 1e-6

ROUNDING = 1e-4
"""By how much more than it was asked to a colour may move: what float32 loses on the way there and back."""

HALVINGS = 12
"""After so many a colour that a screen cannot be moved from stays."""


def _white() -> tuple[float, float]:
    x, y, z = FROM_RGB.sum(1).tolist()
    return 4 * x / (x + 15 * y + 3 * z), 9 * y / (x + 15 * y + 3 * z)


def to_luv(images: Colours) -> Colours:
    """SRGB in [0, 1] to (L / 100, (u + 100) / 200, (v + 100) / 200), (n, 3, ...), differentiable."""
    linear = torch.where(images > 0.04045, ((images.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4, images / 12.92)
    x, y, z = torch.einsum("ij,nj...->ni...", FROM_RGB.to(images), linear).unbind(1)
    lightness = torch.where(y > SMALL, 116 * y.clamp_min(SMALL) ** (1 / 3) - 16, SLOPE * y)
    total = x + 15 * y + 3 * z
    white_u, white_v = _white()
    black = total < TINY  # no hue: white's
    total = total.clamp_min(TINY)
    u = 13 * lightness * torch.where(black, 0.0, 4 * x / total - white_u)
    v = 13 * lightness * torch.where(black, 0.0, 9 * y / total - white_v)
    return torch.stack([lightness / 100, (u + 100) / 200, (v + 100) / 200], 1)


def to_rgb(luv: Colours) -> Colours:
    """Back to sRGB, clamped to [0, 1], differentiable."""
    lightness, u, v = luv[:, 0] * 100, luv[:, 1] * 200 - 100, luv[:, 2] * 200 - 100
    white_u, white_v = _white()
    y = torch.where(lightness > SLOPE * SMALL, ((lightness.clamp_min(SLOPE * SMALL) + 16) / 116) ** 3, lightness / SLOPE)
    scale = 13 * lightness.clamp_min(100 * TINY)
    u, v = u / scale + white_u, (v / scale + white_v).clamp_min(TINY)
    x, z = y * 9 * u / (4 * v), y * (12 - 3 * u - 20 * v) / (4 * v)
    inverse = torch.linalg.inv(FROM_RGB.double()).to(luv)
    linear = clamped(torch.einsum("ij,nj...->ni...", inverse, torch.stack([x, y, z], 1)))
    return clamped(torch.where(linear > 0.0031308, 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055, 12.92 * linear))


def recoloured(images: Images, change: Lattice) -> Images:
    """Each pixel's colour plus the change at its place in the lattice, trilinear; RGB in [0, 1].

    Colours that a screen does not have are clamped to those it has. Where that would move one further than it was asked to (near black
    a small step in u and v is another hue altogether), it goes a half, a quarter, ... of its way.
    """
    luv = to_luv(images)
    places = (2 * luv - 1).permute(0, 2, 3, 1)[:, None].flip(-1)  # grid_sample names the last axis first
    added = F.grid_sample(change, places, mode="bilinear", padding_mode="border", align_corners=True)[:, :, 0]
    found = to_rgb(luv + added)
    with torch.no_grad():
        asked = added.abs().amax(1) + ROUNDING
        far = (to_luv(found) - luv).abs().amax(1) > asked
    if not far.any():
        return found
    here, way, asked = *(each.movedim(1, -1)[far].T[None] for each in (luv, added)), asked[far]
    share = torch.full_like(asked, 0.5)
    for halving in range(HALVINGS):
        with torch.no_grad():
            still = (to_luv(to_rgb(here + share * way)) - here).abs().amax(1)[0] > asked
        share = torch.where(still, 0.0 if halving == HALVINGS - 1 else share / 2, share)
    return found.movedim(1, -1).index_put((far,), to_rgb(here + share * way)[0].T).movedim(-1, 1)


def points(change: Lattice) -> Float[Tensor, "1 3 l u v"]:
    """The colours of the lattice's points themselves, (1, 3, l, u, v)."""
    axes = [torch.linspace(0, 1, size, device=change.device) for size in change.shape[2:]]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]
