"""What `core/quick.py` and `core/memory.py` save: passes with and without them, several networks, in turn."""

import json
import statistics
import subprocess
import sys
from contextlib import nullcontext
from unittest.mock import patch

import torch

import salience as sal
from _timing import interleaved, ratio, report, spread

NAMES = ("efficientnet-lite0", "torchvision:mobilenet_v2?pretrained=false", "torchvision:resnet18?pretrained=false", "cifar10-standard")
PIXELS = tuple(2**power for power in (13, 15, 17, 19))

CHILD = """
import json, resource, sys, time
from contextlib import nullcontext
import torch, salience as sal
from salience.core import memory
if sys.argv[1] == "free":
    memory.kept_memory.library = None
model = sal.load_model()
images, targets = torch.rand(10, 3, 224, 224), torch.zeros(10, dtype=torch.int64)
with model.frozen():
    model.gradient(images, targets)
    start, faults = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        model.gradient(images, targets)
    print(json.dumps([(time.perf_counter() - start) / 10, (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults) / 10]))
"""


def quickly(model: sal.Model, count: int) -> list[tuple[str, list[str], dict[str, list[float]]]]:
    """A row for forward passes and one for gradients of some images: quickly, with clamps apart from their convolutions, and as torch does."""
    images, targets = torch.rand(count, 3, *model.size), torch.zeros(count, dtype=torch.int64)
    rows = []
    for what, work in {"forward": lambda: model.outputs(images), "gradient": lambda: model.gradient(images, targets)}.items():

        def plainly(work=work) -> None:
            with patch("salience.core.model.quick", lambda network: nullcontext()):
                work()

        def apart(work=work) -> None:
            with patch("salience.core.quick_functions.LEAST_FUSED", 2**62):
                work()

        cases = {"quick": work, "clamps apart": apart, "plain": plainly}
        with model.frozen(), patch("salience.core.model.LEAST_FORWARD", 0), patch("salience.core.model.LEAST_GRADIENT", 0):
            times = interleaved(cases)
        cells = [spread([1000 * each for each in times[case]], 1) for case in cases] + [spread(ratio(times[case], times["quick"])) for case in list(cases)[1:]]
        rows.append((f"{model.name}, {count} image(s), {what}", cells, times))
    return rows


def memory_kept() -> None:
    """Gradients of ten photographs in processes of their own, with freed memory kept and without, in turn."""
    found: dict[str, list[tuple[float, float]]] = {"kept": [], "free": []}
    for _ in range(7):
        for case, runs in found.items():
            runs.append(json.loads(subprocess.run([sys.executable, "-c", CHILD, case], capture_output=True, text=True, check=True).stdout))
    seconds = {case: [each for each, _ in runs] for case, runs in found.items()}
    rows = [[case, spread(seconds[case], 3), f"{statistics.median(faults for _, faults in runs):.0f}", spread(ratio(seconds[case], seconds["kept"]))] for case, runs in found.items()]
    report("memory_kept", "Gradients of 10 images at 224 px, EfficientNet-Lite0", ["freed memory", "seconds", "pages fetched", "times that of: kept"], rows, {"runs": found})


def main() -> None:
    """Both tables."""
    models = [sal.load_model(name) for name in NAMES]
    found = [row for model in models for count in sorted({max(1, pixels // (model.size[0] * model.size[1])) for pixels in PIXELS}) for row in quickly(model, count)]
    report(
        "quick",
        "Passes with the quick functions and without, milliseconds",
        ["pass", "quick", "clamps apart", "plain", "clamps apart / quick", "plain / quick"],
        [[name, *cells] for name, cells, _ in found],
        {name: times for name, _, times in found},
    )
    memory_kept()


if __name__ == "__main__":
    main()
