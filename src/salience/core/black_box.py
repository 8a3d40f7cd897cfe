"""Black boxes: any function from images to scores."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from salience.core.classifier import OUTPUTS, Classifier, class_names, pair
from salience.core.errors import InputError, unknown
from salience.core.network import at_work
from salience.core.types import Images, Outputs


class BlackBox(Classifier):
    """Any callable from images to scores; nothing but its outputs is used.

    Args:
        fn: From a float tensor (n, c, h, w) in [0, 1] to scores (n, k), as a tensor or NumPy array.
        size: (height, width) it needs, or one int for a square; None for any.
        labels: Class names in index order.
        outputs: What `fn` returns: ``probabilities`` (the default), ``logits``, or ``multilabel`` for logits of classes that do not exclude each other.
        mean_colour: The colour that replaces removed pixels by default, one number in [0, 1] a channel.
        name: How records call it; by default the function's name.

    Raises:
        InputError: If `fn` cannot be called, or something given is not of its kind.
    """

    white_box = False

    def __init__(
        self,
        fn: Any,
        *,
        size: Any = None,
        labels: Sequence[str] | Mapping[Any, str] | None = None,
        outputs: str = "probabilities",
        mean_colour: Any = (0.485, 0.456, 0.406),
        name: str | None = None,
    ) -> None:
        if not callable(fn):
            raise InputError(f"BlackBox needs a function from images to scores, not {type(fn).__name__}.")
        if outputs not in OUTPUTS:
            raise unknown("kind of outputs", outputs, OUTPUTS)
        try:
            colour = np.asarray(mean_colour, dtype=np.float32)
        except (TypeError, ValueError):
            colour = np.empty(0, dtype=np.float32)
        if colour.ndim != 1 or not colour.size or not ((colour >= 0) & (colour <= 1)).all():
            raise InputError(f"mean_colour is one number in [0, 1] for each channel, such as (0.5, 0.5, 0.5), not {mean_colour!r}.")
        self.fn = fn
        self.size = pair(size)
        self.labels = class_names(labels)
        self.probabilities, self.multilabel = outputs == "probabilities", outputs == "multilabel"
        self.mean_colour = torch.tensor(colour)
        self.name = name or str(getattr(fn, "__name__", type(fn).__name__))

    def __repr__(self) -> str:
        return f"BlackBox({self.extra_repr()})"

    def frozen(self) -> AbstractContextManager[None]:
        """Evaluation mode during a call if the function is a network, for which other threads then wait. Freed memory is kept meanwhile."""
        return at_work(self.fn) if isinstance(self.fn, nn.Module) else super().frozen()

    def _forward(self, images: Images) -> Any:
        outputs = self.fn(images.clone())
        if isinstance(outputs, Tensor):
            return outputs.float()
        try:
            return torch.as_tensor(outputs, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError):
            return outputs  # `checked` says what is wrong with it

    def checked(self, outputs: Any, images: Images) -> Outputs:
        """As `Classifier.checked`; and probabilities must lie in [0, 1]."""
        outputs = super().checked(outputs, images)
        if self.probabilities and (outputs.min() < -1e-4 or outputs.max() > 1 + 1e-4):
            raise InputError(f"{self.name} returned scores outside [0, 1], so they are not probabilities: say BlackBox(fn, outputs='logits').")
        return outputs
