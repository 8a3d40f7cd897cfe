"""The picture of a training run: loss and accuracy by epoch."""

import io
from typing import Any


def learning_curves(rows: list[dict[str, Any]]) -> bytes:
    """The log's lines as a PNG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    tested = [row for row in rows if row["test"] is not None]
    figure = Figure(figsize=(8, 3) if tested else (4, 3), layout="constrained", dpi=120)
    axes = figure.subplots(1, 2 if tested else 1, squeeze=False)[0]
    axes[0].plot([row["epoch"] for row in rows], [row["loss"] for row in rows], marker=".")
    axes[0].set(xlabel="epoch", ylabel="training loss")
    if tested:
        axes[1].plot([row["epoch"] for row in tested], [row["test"] for row in tested], marker=".")
        axes[1].set(xlabel="epoch", ylabel="test accuracy", ylim=(0, 1))
    for each in axes:
        each.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        each.grid(alpha=0.3)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
