"""Images a second at several chunks: where the table in core/classifier.py comes from."""

import torch

import salience as sal
from _photos import photographs
from _timing import PRECISIONS, interleaved, report, spread

CHUNKS = (1, 2, 4, 8, 12, 16, 24, 32)


def rates(model: sal.Model, *, backward: bool) -> dict[int, list[float]]:
    """Images a second for each chunk, forward passes or forward and backward."""
    images, targets = photographs(1, model).repeat(48, 1, 1, 1), torch.zeros(48, dtype=torch.int64)

    def work(chunk: int) -> None:
        view = model.using(chunk=chunk)
        view.gradient(images, targets) if backward else view.outputs(images)

    times = interleaved({chunk: (lambda chunk=chunk: work(chunk)) for chunk in CHUNKS}, 3)
    return {chunk: [48 / each for each in seconds] for chunk, seconds in times.items()}


def main() -> None:
    """Forward and gradient passes at chunks of 1 to 32."""
    figures = {}
    for precision in PRECISIONS:
        model = sal.load_model(precision=precision)
        figures[f"forward, {precision}"] = rates(model, backward=False)
        figures[f"gradient, {precision}"] = rates(model, backward=True)
    rows = [[name, *(spread(rate, 0) for rate in found.values())] for name, found in figures.items()]
    report("chunk_size", "Images a second, EfficientNet-Lite0 at 224 px, by chunk", ["pass", *map(str, CHUNKS)], rows, figures)


if __name__ == "__main__":
    main()
