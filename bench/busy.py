"""What waiting costs: gradients on a machine that others use too, with threads that spin long while they wait (OpenMP's habit), that soon sleep (what `salience` on the command line asks for), and that sleep at once.

The other process multiplies matrices in as many threads as there are cores.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from _timing import report, spread
from salience.cli import WAITING, waiting_briefly

OTHER = """
import torch
a = torch.rand(1024, 1024)
print("ready", flush=True)
while True:
    a @ a
"""

CHILD = """
import json, os, sys, time
os.environ.update(json.loads(sys.argv[1]))
import torch, salience as sal
model = sal.load_model()
images, targets = torch.rand(8, 3, 224, 224), torch.zeros(8, dtype=torch.int64)
with model.frozen():
    model.gradient(images, targets)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        model.gradient(images, targets)
        seconds.append(time.perf_counter() - start)
print(json.dumps(seconds))
"""

TURNS = 3


@contextmanager
def beside(busy: bool) -> Iterator[None]:
    """With another process at work, if `busy`."""
    other = subprocess.Popen([sys.executable, "-c", OTHER], stdout=subprocess.PIPE) if busy else None
    try:
        if other is not None and other.stdout is not None:
            other.stdout.readline()
        yield
    finally:
        if other is not None:
            other.kill()
            other.communicate()


def main() -> None:
    """One row for each way to wait."""
    ours: dict[str, str] = {}
    waiting_briefly(ours)
    cases = {
        "spin (OpenMP's default)": {},
        f"spin briefly ({', '.join('='.join(each) for each in ours.items())}, as on our command line)": ours,
        "sleep (OMP_WAIT_POLICY=passive)": {"OMP_WAIT_POLICY": "passive"},
    }
    found: dict[str, dict[bool, list[float]]] = {name: {False: [], True: []} for name in cases}
    for _ in range(TURNS):
        for busy in (False, True):
            for name, settings in cases.items():
                with beside(busy):
                    done = subprocess.run([sys.executable, "-c", CHILD, json.dumps(settings)], capture_output=True, text=True, check=True)
                found[name][busy] += json.loads(done.stdout.splitlines()[-1])
    rows = [[name, *(spread(seconds[busy], 3) for busy in (False, True))] for name, seconds in found.items()]
    title = f"Gradients of 8 images at 224 px, EfficientNet-Lite0, by what threads do while they wait ({' and '.join(WAITING)})"
    report(
        "busy", title, ["threads that wait", "alone, seconds", "beside a busy process, seconds"], rows, {name: {str(busy): seconds for busy, seconds in each.items()} for name, each in found.items()}
    )


if __name__ == "__main__":
    main()
