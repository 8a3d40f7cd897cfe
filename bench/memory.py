"""Peak memory of each job above the process after import and model load, each in a process of its own."""

import json
import subprocess
import sys

from _timing import report

JOBS = {
    "rise, 1000 masks, 224 px": ("rise:samples=1000", 224, "600"),
    "rise, 4000 masks, 224 px": ("rise:samples=4000", 224, "600"),
    "rise, 100 masks, 1000 px": ("rise:samples=100", 1000, "600"),
    "smoothgrad, 50 samples, 224 px": ("smoothgrad:samples=50", 224, "600"),
    "noisegrad, 25 draws, 224 px": ("noisegrad:weight_sigma=0.01", 224, ""),
    "captum NoiseTunnel, 50 samples at once, 224 px": ("captum", 224, ""),
    "published RISE procedure, 1000 masks, 224 px": ("published", 224, ""),
}

CHILD = """
import json, resource, sys
import torch, salience as sal
from _photos import paths
from peers import normalised, rise, smoothgrad
what, size = sys.argv[1], int(sys.argv[2])
model = sal.load_model()
model.size = (size, size)
images = sal.load_images(paths(1), model)
inputs = normalised(images, model.mean, model.std, model.value_range)
model.outputs(images)
before = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
if what == "captum":
    smoothgrad(model.module, inputs, 0, 50, 0.1)
elif what == "published":
    rise(model.module, inputs, 1000)
else:
    sal.explain(what, model, images)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"before": before, "peak": peak}))
"""


def main() -> None:
    """The memory table."""
    rows, figures = [], {}
    for name, (what, size, limit) in JOBS.items():
        done = subprocess.run([sys.executable, "-c", CHILD, what, str(size)], capture_output=True, text=True, check=True, cwd="bench")
        found = json.loads(done.stdout.splitlines()[-1])
        above = (found["peak"] - found["before"]) / 2**20
        figures[name] = found | {"above_mb": above}
        rows.append([name, f"{above:.0f}", f"{found['before'] / 2**20:.0f}", limit])
    report("memory", "Peak memory above the process after import, model load and one pass", ["job", "MB above", "MB before", "at most"], rows, figures)


if __name__ == "__main__":
    main()
