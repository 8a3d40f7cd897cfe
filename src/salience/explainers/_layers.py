"""What the methods that look at layers have in common: finding them, capturing their outputs, turning these into maps."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from salience.core.classifier import Classifier
from salience.core.errors import InputError, unknown
from salience.core.explainer import Explainer
from salience.core.model import Model, without_gradient
from salience.core.quick import as_written
from salience.core.types import Images, Maps

MOST_PREFIX_TOKENS = 16
"""Class, distillation and register tokens that may stand beside the image's own."""

CLOSE = 1.3
"""By what factor a map's proportions may differ from the image's."""

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def white_box(model: Classifier, method: Explainer) -> Model:
    """The model, if its inside can be seen.

    Raises:
        InputError: If it is a black box.
    """
    if not isinstance(model, Model):
        raise InputError(f"{method.name} needs the gradients and layers of the network, and {model.name} is a black box: use rise, occlusion or lime, or give the network itself as sal.Model(module).")
    return model


def positive(values: Tensor) -> Tensor:
    """max(values, 0), written without what is replaced inside networks, where hooks call it."""
    return torch.where(values > 0, values, torch.zeros_like(values))


def upsampled(maps: Tensor, size: Sequence[int]) -> Maps:
    """Maps (n, 1, h, w) of a layer as maps of the image, bilinear."""
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


@contextmanager
def captured(module: nn.Module) -> Iterator[list[Tensor]]:
    """The outputs of a module, one for each time it is called inside.

    The network goes on with a clone, so that operations in place after the layer cannot change what was kept.
    """
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> Any:
        if not isinstance(output, Tensor):
            return output
        kept.append(output)
        return output.clone()

    handle = module.register_forward_hook(keep)
    try:
        with as_written():
            yield kept
    finally:
        handle.remove()


@dataclass(frozen=True)
class Layer:
    """A layer whose output is laid out over the image.

    Attributes:
        name: Its name in the module.
        module: The layer.
        grid: Height and width of its map.
        layout: ``nchw``, ``nhwc``, or ``tokens``: (n, tokens, c).
        prefix: Tokens before those of the image (class, distillation, registers).
        suffix: Tokens behind them.
        call: Which call of the module it is, if there are several, from 0: one ReLU may serve the whole network.
    """

    name: str
    module: nn.Module
    grid: tuple[int, int]
    layout: str
    prefix: int = 0
    suffix: int = 0
    call: int = 0

    def spatial(self, values: Tensor) -> Tensor:
        """The layer's output, or its gradient, as (n, c, h, w)."""
        if self.layout == "nchw":
            return values
        if self.layout == "nhwc":
            return values.permute(0, 3, 1, 2)
        return values[:, self.prefix : values.shape[1] - self.suffix].transpose(1, 2).unflatten(2, self.grid)


def find_layer(model: Model, images: Images, name: str | None, *, coarsest: float = float("inf"), below_top: bool = False) -> Layer:
    """The layer of that name, or the last one whose output still has a place for each part of the image.

    It is found by a forward pass of one noise image (the same for every batch). In a convolutional network
    it is the last output, pooling layers apart, with more than one position, that no path from image to scores goes around. In a
    transformer likewise; but where only the class token is read in the end, it is the last normalisation through
    which the image's own tokens still reach the scores: the one before the last attention.

    Args:
        model: The network.
        images: (n, c, h, w): their size matters, their content does not.
        name: Name of a layer, or None.
        coarsest: Largest number of pixels between two positions of the map. Where pooling makes the coarsest such map, as in VGG, it is
            taken from that pooling layer, before further convolutions.
        below_top: Whether a layer that is found must lie below the last one with weights.

    Raises:
        InputError: If there is no such layer, its output is not laid out over the image, other tokens stand among the image's, these are not in the order of its rows, or no gradient goes through the network.
    """
    modules = {each: module for each, module in model.module.named_modules() if not isinstance(module, torch.jit.ScriptModule)}  # which take no hooks
    if name is not None and name not in modules:
        raise unknown("layer", name, [each for each in modules if each])
    size = tuple(images.shape[-2:])
    noise = torch.rand(images.shape[1:], generator=torch.Generator().manual_seed(0))[None].to(images.device).requires_grad_(True)
    outputs, seen = _probe(model, noise, modules)
    sequences = {each.output.shape[1:] for each in seen if each.output.ndim == 3}
    linear = {each.output.shape for each in seen if isinstance(modules[each.name], nn.Linear)} - {each.output.shape for each in seen if isinstance(modules[each.name], nn.Conv2d)}
    laid = [(each, _layout(each.output, size, linear)) for each in seen if not _is_heads(each.output, sequences)]
    maps = {each.output.shape for each, layout in laid if layout == "nchw"}
    shown = [(each, layout) for each, layout in laid if layout != "nchw" or not _is_unfolded(each.output, maps, size)]
    patches = sorted((tuple(each.output.shape[-2:]) for each, layout in shown if layout == "nchw"), key=lambda grid: _stretch(grid, size) <= CLOSE)
    calls = [sum(earlier.name == each.name for earlier in seen[: each.place]) for each in seen]
    found = [(each, dataclasses.replace(layer, call=calls[each.place])) for each, layout in shown if (layer := _layer(each, layout, modules, size, patches)) is not None]
    if name is not None:
        for each, layer in reversed(found):
            if layer.name == name:
                return _placed(model, noise, each.output.shape, layer) if layer.layout == "tokens" else layer
        shapes = [tuple(each.output.shape) for each in seen if each.name == name]
        what = f"has outputs of shape {shapes[-1]}" if shapes else "returns no tensor, or is not called"
        example = f", for example {found[-1][1].name!r}" if found else ""
        raise InputError(f"The layer {name!r} {what}, so it has no map of the image: choose another{example}.")
    if below_top:
        top = max((each.place for each in seen if isinstance(modules[each.name], WEIGHTED)), default=len(seen))
        found = [(each, layer) for each, layer in found if each.place < top]
    pools = {id(each.output) for each in seen if "Pool" in type(modules[each.name]).__name__ and coarsest == float("inf")}
    fine = [(each, layer) for each, layer in found if id(each.output) not in pools and min(size[0] / layer.grid[0], size[1] / layer.grid[1]) <= coarsest]
    if not fine:
        raise InputError(f"{model.name} has no layer with a map of the image: choose a method that needs none, such as gradient or rise.")
    last = fine[-1][1]
    if last.layout == "tokens":
        shape = fine[-1][0].output.shape
        placed = _placed(model, noise, shape, last)
        fine = [(each, dataclasses.replace(layer, prefix=placed.prefix, suffix=placed.suffix)) for each, layer in fine if each.output.shape == shape]
        return _last_tokens(outputs, noise, fine)
    first = next(layer for _, layer in fine if layer.grid == last.grid)
    if coarsest < float("inf") and "Pool" in type(first.module).__name__:
        return first
    return next((layer for each, layer in reversed(fine) if _all_through(outputs, each, noise)), last)


@dataclass(frozen=True)
class _Seen:
    """An output met on the way: the module's name, its place in the order, the tensor and what made it."""

    name: str
    place: int
    output: Tensor
    made_by: Any


def _probe(model: Model, noise: Tensor, modules: dict[str, nn.Module]) -> tuple[Tensor, list[_Seen]]:
    """The outputs for one image, and those of all modules in the order in which they finish."""
    seen: list[_Seen] = []
    with ExitStack() as stack, torch.enable_grad(), as_written():
        for key, module in modules.items():

            def keep(_: nn.Module, __: Any, output: Any, key: str = key) -> None:
                if isinstance(output, Tensor):
                    seen.append(_Seen(key, len(seen), output, output.grad_fn))

            stack.callback(module.register_forward_hook(keep).remove)
        outputs = model(noise)
    if not outputs.requires_grad:
        raise without_gradient(model.name)
    return outputs, seen


def _all_through(outputs: Tensor, seen: _Seen, noise: Tensor) -> bool:
    """Whether every path from the image to the scores goes through that output."""
    todo, met = [outputs.grad_fn], {seen.made_by}
    while todo:
        node = todo.pop()
        if node is None or node in met:
            continue
        met.add(node)
        if getattr(node, "variable", None) is noise:
            return False
        todo += [following for following, _ in node.next_functions]
    return True


def _is_heads(output: Tensor, sequences: set[torch.Size]) -> bool:
    """Whether the output is a sequence (tokens, channels) in the heads of an attention, (n, heads, tokens, channels of a head): no map, though it has the shape of one."""
    return output.ndim == 4 and torch.Size((output.shape[2], output.shape[1] * output.shape[3])) in sequences


def _is_unfolded(output: Tensor, maps: set[torch.Size], size: tuple[int, ...]) -> bool:
    """Whether the output is a map in pieces, (n, channels, positions in a piece, pieces): it is out of the image's proportions, and there is a map of as many channels and positions that is not."""
    channels, height, width = output.shape[1:]
    same = [each[2:] for each in maps if each[1] == channels and each[2] * each[3] == height * width]
    return min(_stretch(grid, size) for grid in same) <= CLOSE < _stretch((height, width), size)


def _layout(output: Tensor, size: tuple[int, ...], linear: set[torch.Size]) -> str | None:
    """``nchw`` or ``nhwc`` if the output can be a map of an image of that size; the first, torch's own, if it has about the image's proportions.

    Outputs of the shapes in `linear`, those of linear layers, have their channels last.
    """
    if output.ndim != 4 or len(output) != 1:
        return None
    fits = {}
    for layout, (height, width), most in (("nchw", output.shape[2:], 0.0 if output.shape in linear else float("inf")), ("nhwc", output.shape[1:3], CLOSE)):
        if 1 <= height <= size[0] and 1 <= width <= size[1] and height * width > 1 and (stretch := _stretch((height, width), size)) <= most:
            fits[layout] = stretch
    return next((layout for layout in fits if fits[layout] <= CLOSE), next(iter(fits), None))


def _stretch(grid: tuple[int, ...], size: tuple[int, ...]) -> float:
    """By what factor a grid's proportions differ from those of an image of that size."""
    ratio = (grid[0] * size[1]) / (grid[1] * size[0])
    return max(ratio, 1 / ratio)


def _layer(seen: _Seen, layout: str | None, modules: dict[str, nn.Module], size: tuple[int, ...], patches: list[tuple[int, ...]]) -> Layer | None:
    """The output as a layer laid out over the image: as it is, as tokens of the patches (preferring, from the end, a grid in the image's proportions), or as tokens in the image's proportions."""
    output, module = seen.output, modules[seen.name]
    if layout is not None:
        height, width = output.shape[2:] if layout == "nchw" else output.shape[1:3]
        return Layer(seen.name, module, (height, width), layout)
    if output.ndim != 3 or len(output) != 1:
        return None
    tokens = output.shape[1]
    for height, width in reversed(patches):
        if 0 <= tokens - height * width <= MOST_PREFIX_TOKENS:
            return Layer(seen.name, module, (height, width), "tokens", tokens - height * width)
    for prefix in range(min(MOST_PREFIX_TOKENS, tokens - 2) + 1):
        height = round(((tokens - prefix) * size[0] / size[1]) ** 0.5)
        width = height * size[1] // size[0]
        if height * size[1] % size[0] == 0 and height * width == tokens - prefix:
            return Layer(seen.name, module, (height, width), "tokens", prefix)
    return None


def _placed(model: Model, noise: Tensor, shape: torch.Size, layer: Layer) -> Layer:
    """The layer of tokens with its other tokens before those of the image or behind them, wherever they are: they are the same for every image until attention mixes them with the image's.

    Those that are not (a mean of the image's, or a class token of an earlier stage) are taken to stand before them. Each of a few cells of the image must move
    the token in its place, as long as it does not move all; one need not, as a ReLU may hide it.

    Raises:
        InputError: If the image's tokens are not all in one piece, or not in the order of its rows.
    """
    height, width = layer.grid
    rows, columns = torch.tensor([(0, width - 1), (height - 1, 1), (height // 2 - 1, 0), (height // 2, width - 1), (1, 0)]).T
    cells = torch.zeros(len(rows), 1, height, width, device=noise.device)
    cells[range(len(rows)), 0, rows % height, columns % width] = 1
    moved = _Moved(torch.Size((2 + len(cells), *shape[1:])))
    handle = layer.module.register_forward_hook(moved.ending(layer.call))
    try:
        with torch.no_grad(), as_written(), suppress(_Enough), moved:
            model(torch.cat([noise, 1 - noise, torch.where(F.interpolate(cells, noise.shape[-2:]) > 0, 1 - noise, noise)]))
    finally:
        handle.remove()
    by_all, *by_cells = moved.places
    places = [] if by_all is None or layer.prefix == 0 else by_all.nonzero()[:, 0].tolist()
    if places:
        if len(places) != height * width or places[-1] - places[0] != height * width - 1:
            raise InputError(
                f"The layer {layer.name!r} of {model.name} has {shape[1]} tokens, of which the image's {height} x {width} are not in one piece, "
                "so it has no map of the image: choose a method that needs none, such as gradient or rise."
            )
        layer = dataclasses.replace(layer, prefix=places[0], suffix=shape[1] - 1 - places[-1])
    elsewhere = [each is not None and not layer.spatial(each[None, :, None])[cell[None] > 0].any() for each, cell in zip(by_cells, cells, strict=True)]
    if sum(elsewhere) > 1:
        raise InputError(
            f"The tokens of layer {layer.name!r} of {model.name} are not in the order of the image's rows (but in that of windows, say), so it has no map of the image: "
            "choose another layer, or a method that needs none, such as gradient or rise."
        )
    return layer


class _Enough(Exception):  # noqa: N818  # no error
    """The rest of the pass is not needed."""


class _Moved(TorchFunctionMode):
    """Finds which tokens differ between the first image of a pass and each of the others, in what was made last before all of them do, among results of that shape."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.shape = shape
        self.places: list[Tensor | None] = [None] * (shape[0] - 1)
        self.mixed = [False] * (shape[0] - 1)

    def ending(self, call: int) -> Callable:
        """A hook that ends the pass in that call of a module."""
        earlier = iter(range(call))

        def end(*_: Any) -> None:
            if next(earlier, None) is None:
                raise _Enough

        return end

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Called by torch for every function."""
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.shape == self.shape:
            for turn, other in enumerate(result[1:]):
                places = (result[0] != other).any(1)
                self.mixed[turn] |= bool(places.all())
                if places.any() and not self.mixed[turn]:
                    self.places[turn] = places
            if all(self.mixed):
                raise _Enough
        return result


def _last_tokens(outputs: Tensor, noise: Tensor, layers: list[tuple[_Seen, Layer]]) -> Layer:
    """The last layer from whose image tokens the scores have a gradient."""
    weights = torch.linspace(-1, 1, outputs.numel(), device=outputs.device).view_as(outputs)
    gradients = torch.autograd.grad(outputs, [each.output for each, _ in layers], weights, allow_unused=True, retain_graph=True)
    live = [pair for pair, gradient in zip(layers, gradients, strict=True) if gradient is not None and pair[1].spatial(gradient).count_nonzero()]
    through = [pair for pair in layers if _all_through(outputs, pair[0], noise)]
    if not live or (through and through[-1] in live):
        return (through or layers)[-1][1]
    return next((layer for _, layer in reversed(live) if "norm" in type(layer.module).__name__.lower()), live[-1][1])
