"""A training run's folder: what was asked for, how far it is, and what came out, each file whole or not there."""

import contextlib
import hashlib
import json
import warnings
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from salience.core.errors import InputError
from salience.core.files import locked, read_json, write_whole

FORMAT = 1


class Folder:
    """``run.json`` says what is trained, ``checkpoint.safetensors`` holds all that is needed to go on, ``log.jsonl`` a line an epoch.

    In the end there are ``model.safetensors``, the weights alone, and ``card.json`` and ``card.md`` about them.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def locked(self) -> AbstractContextManager[None]:
        """Nobody else may be training in this folder meanwhile."""
        return locked(self.path, "training")

    def read(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the folder; None if it is not there.

        Raises:
            InputError: If it is damaged or from a later version.
        """
        return read_training(self.path / name)

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Replace a JSON file."""
        write_whole(self.path / name, (json.dumps({"format": FORMAT} | content, indent=1, allow_nan=False) + "\n").encode())

    def read_log(self, epochs: int) -> list[dict[str, Any]]:
        """The log's lines of the first so many epochs. The checkpoint does not need them: of a damaged log those that can be read, which a warning says."""
        file = self.path / "log.jsonl"
        lines = file.read_text(errors="replace").splitlines()[:epochs] if file.exists() else []
        rows = []
        for line in lines:
            with contextlib.suppress(ValueError):
                rows.append(json.loads(line))
        if len(rows) < epochs:
            warnings.warn(f"{file} lacks {epochs - len(rows)} of {epochs} epochs: the learning curves will lack them too. The network does not.", UserWarning, stacklevel=3)
        return rows

    def write_log(self, rows: list[dict[str, Any]]) -> None:
        """Replace the log."""
        write_whole(self.path / "log.jsonl", "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode())

    def read_checkpoint(self) -> dict[str, Tensor] | None:
        """The tensors that `write_tensors` wrote; None before the first checkpoint."""
        file = self.path / "checkpoint.safetensors"
        return read_tensors(file) if file.exists() else None

    def write_tensors(self, name: str, tensors: dict[str, Tensor]) -> str:
        """Replace a file of tensors; the SHA-256 of its bytes."""
        from safetensors.torch import save

        content = save({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
        write_whole(self.path / name, content)
        return hashlib.sha256(content).hexdigest()


def read_training(file: Path) -> dict[str, Any] | None:
    """A JSON file that `Folder.write` wrote; None if it is not there.

    Raises:
        InputError: If it is damaged or from a later version.
    """
    return read_json(file, FORMAT, "train in a new folder")


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        InputError: If it is not there, or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}): check the path.") from error
    except SafetensorError as error:
        raise InputError(f"{file} is not a whole safetensors file: restore it, or train anew.") from error


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state as flat tensors."""
    found: dict[str, Tensor] = {}
    for number, state in optimiser.state_dict()["state"].items():
        found |= {f"optimiser.{number}.{key}": value for key, value in state.items() if isinstance(value, Tensor)}
    return found


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Restore what `optimiser_tensors` gave, in the memory order of the weights, on which last digits may depend."""
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser."):
            _, number, name = key.split(".", 2)
            weight = weights[int(number)]
            state.setdefault(int(number), {})[name] = torch.empty_like(weight).copy_(value) if value.shape == weight.shape else value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
