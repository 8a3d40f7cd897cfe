"""Where a network works and how precisely: what can be used here."""

import warnings

import torch

from salience.core.errors import InputError, unknown

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def check_precision(precision: str, device: torch.device | str = "cpu") -> None:
    """Warn of a precision that the processor has no instructions for.

    Raises:
        InputError: If it is unknown.
    """
    if precision not in PRECISIONS:
        raise unknown("precision", str(precision), PRECISIONS)
    if precision == "bfloat16" and torch.device(device).type == "cpu" and not bfloat16_is_fast():
        here = torch.backends.cpu.get_cpu_capability()
        warnings.warn(f"This processor has no instructions for bfloat16 (it has {here}), so passes take several times longer than in float32: leave precision at float32.", UserWarning, stacklevel=3)


def check_device(device: torch.device | str) -> None:
    """Refuse a device that cannot be used.

    Raises:
        InputError: If it is unknown, or not here.
    """
    try:
        torch.zeros(1, device=device).item()  # which a device without values refuses
    except (RuntimeError, AssertionError, ValueError) as error:
        why = str(error).splitlines()[0].partition(". ")[0]  # torch goes on for a page where a backend is missing
        raise InputError(f"The device {device!r} cannot be used here ({why}): use cpu.") from error


def bfloat16_is_fast() -> bool:
    """Whether the processor has instructions for bfloat16, as far as torch tells."""
    return torch.backends.cpu.get_cpu_capability() not in ("AVX2", "NO AVX")
