"""What the methods have in common that replace the ReLUs of the network."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from salience.core.classifier import Classifier
from salience.core.draws import Stream
from salience.core.errors import InputError
from salience.core.explainer import Explainer
from salience.core.montecarlo import Attribution, Done
from salience.core.quick import as_written
from salience.core.types import Images, Targets
from salience.explainers._layers import white_box
from salience.perturb.relu import ReplaceReLU, check_scripted


class Clip(torch.autograd.Function):
    """The forward pass of ReLU (or ReLU6), remembering where it passed its input on; subclasses define `backward`."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, ceiling: float) -> Tensor:
        """``min(max(x, 0), ceiling)``; written without clamp, which an enclosing replacement would catch."""
        passed = (inputs > 0) & (inputs < ceiling)
        ctx.save_for_backward(passed)
        outside = torch.where(inputs > 0, torch.full_like(inputs, ceiling), torch.zeros_like(inputs))
        return torch.where(passed, inputs, outside)


class OtherReLU(Explainer):
    """A base explanation of the network with another function, `relu`, in the place of every ReLU. If the base is random, its errors are those of the map."""

    base: Explainer

    def relu(self, inputs: Tensor, ceiling: float) -> Tensor:
        """What stands for ``min(max(x, 0), ceiling)``."""
        raise NotImplementedError

    @contextmanager
    def replaced(self, model: Classifier) -> Iterator[None]:
        """The network with its ReLUs replaced.

        Raises:
            InputError: If the model is a black box, some ReLUs are in TorchScript, or there is none, so that the map would silently be the base's own.
        """
        check_scripted(white_box(model, self).module, model.name)
        with as_written(), ReplaceReLU(self.relu) as mode:
            yield
        if mode.replaced == 0:
            raise InputError(f"{model.name} has no ReLU or ReLU6, so {self.name} would be the plain {self.base.name}: choose another method.")

    def attribute(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream]) -> Attribution:
        """The base's map under the replacement."""
        with self.replaced(model):
            return self.base.attribute(model, images, targets, streams)

    def explain_view(self, model: Classifier, images: Images, targets: Targets, streams: Sequence[Stream], tolerance: float | None) -> Done:
        """The base's map under the replacement, with its error if it has one."""
        with self.replaced(model):
            return self.base.explain_view(model, images, targets, streams, tolerance)
