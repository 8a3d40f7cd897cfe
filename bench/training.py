"""Training throughput beside a bare PyTorch loop: the same network, pictures, batches, optimiser and precision.

Ours is the whole of `salience.training.loop.train`: hashing of the pictures, mirroring and shifting them, log, curves, checkpoints and the
final weights are in its time. The bare loop mirrors and shifts nothing and writes nothing. A processor without instructions for
bfloat16 is measured in float32 alone.

    python bench/training.py [--images 6400] [--repeats 11] [--architecture resnet9:width=16]
"""

import argparse
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F

from _timing import PRECISIONS, interleaved, ratio, report, spread
from salience.training.architecture import Architecture
from salience.training.loop import train
from salience.training.pictures import Pictures

BATCH = 128


def bare(architecture: Architecture, data: Pictures, precision: str) -> None:
    """An epoch as anyone would write it."""
    net = architecture.build().to(memory_format=torch.channels_last).train()
    mean, std = (torch.tensor(each).view(1, -1, 1, 1) for each in ((0.5,) * 3, (0.25,) * 3))
    optimiser = torch.optim.AdamW(net.parameters(), 0.001)
    for rows in torch.randperm(len(data)).split(BATCH):
        images = ((data.images[rows].float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            outputs = net(images)
        loss = F.cross_entropy(outputs.float(), data.labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def main() -> None:
    """One row a precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=6400, help="pictures in the epoch")
    parser.add_argument("--repeats", type=int, default=11, help="turns of each case")
    parser.add_argument("--architecture", default="resnet9:width=16")
    options = parser.parse_args()
    source = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (options.images, 3, 32, 32), generator=source, dtype=torch.uint8)
    data = Pictures(images, torch.randint(0, 10, (options.images,), generator=source), tuple("0123456789"))
    architecture = Architecture.from_value(options.architecture)
    rows, figures = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for precision in PRECISIONS:
            turn = iter(range(1000))

            def ours(augmented: str, precision: str = precision, turn: "iter" = turn) -> None:
                train(f"standard:epochs=1,batch={BATCH},drops=0{augmented}", architecture, data, Path(folder) / f"{precision}{next(turn)}", precision=precision)

            cases = {"bare": lambda precision=precision: bare(architecture, data, precision), "ours": lambda: ours(""), "augmented": lambda: ours(",flip=true,shift=4")}
            seconds = interleaved(cases, options.repeats)
            speed = {name: [options.images / each for each in found] for name, found in seconds.items()}
            slower = {name: ratio(seconds[name], seconds["bare"]) for name in ("ours", "augmented")}
            rows.append([precision, *(spread(speed[name], 0) for name in cases), *(spread(each, 3) for each in slower.values())])
            figures[precision] = {"seconds": seconds, "slower": slower}
    title = f"Training, images a second: {options.architecture}, batches of {BATCH}, an epoch of {options.images} pictures, {options.repeats} turns; median (range)"
    report("training", title, ["precision", "bare loop", "ours", "ours, mirrored and shifted", "ours / bare, time", "augmented / bare, time"], rows, figures)


if __name__ == "__main__":
    main()
