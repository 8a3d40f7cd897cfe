"""Studies: two one-thread workers beside one, and cost and memory from 10 to 1000 images.

python bench/studies.py              about ten minutes on 2 cores
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import skimage.data
from PIL import Image

from _timing import interleaved, ratio, report, spread

IMAGES, REPEATS = 48, 3


def pictures(folder: Path, count: int) -> None:
    """Different parts of one photograph, each with a name of its own."""
    whole = Image.fromarray(skimage.data.chelsea())
    folder.mkdir(parents=True)
    for number in range(count):
        left, top = number % 40 * 4, number // 40 * 4 % 60
        whole.crop((left, top, left + 240, top + 240)).save(folder / f"{number:04}.png")


def study(folder: Path, metrics: str) -> Path:
    """A study file."""
    file = folder / "study.yaml"
    file.write_text(f"name: bench\ndata: {{folder: {folder / 'pictures'}}}\nmethods: gradient\nmetrics: {metrics}\n")
    return file


def run(file: Path, workers: int, limit: int) -> dict:
    """One run in a process of its own: its peak memory, in MB, of the largest process."""
    with tempfile.TemporaryDirectory() as out:
        code = (
            "import json, resource, sys\n"
            "from salience.studies.run import run_study\nfrom salience.studies.study import read_study\n"
            "if __name__ == '__main__':\n"
            f"    run_study(read_study({str(file)!r}), {out + '/o'!r}, workers={workers}, threads=1, limit={limit})\n"
            "    print(json.dumps({'peak': max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024}))\n"
        )
        script = Path(out) / "script.py"
        script.write_text(code)
        done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        return json.loads(done.stdout)


def workers(folder: Path) -> None:
    """Two one-thread workers beside one."""
    file = study(folder, "['deletion:steps=28', 'insertion:steps=28']")
    times = interleaved({"one": lambda: run(file, 1, IMAGES), "two": lambda: run(file, 2, IMAGES)}, REPEATS)
    rows = [["one worker", spread(times["one"], 1), ""], ["two workers", spread(times["two"], 1), spread(ratio(times["one"], times["two"]))]]
    report("studies_workers", f"A study of {IMAGES} images, workers of one thread", ["case", "seconds, median (range)", "times faster (1.7 or more)"], rows, {"seconds": times})


def growth(folder: Path) -> None:
    """Cost and memory from 10 to 1000 images."""
    file, found = study(folder, "gini"), {}
    for count in (10, 100, 1000):
        begun = time.perf_counter()
        found[count] = run(file, 1, count) | {"seconds": time.perf_counter() - begun}
    start = found[10]["seconds"] - 10 * (found[1000]["seconds"] - found[10]["seconds"]) / 990
    rows = [[str(count), f"{each['seconds']:.1f}", f"{(each['seconds'] - start) / count * 1000:.0f}", f"{each['peak']:.0f}"] for count, each in found.items()]
    report("studies_growth", "Cost and memory of a study", ["images", "seconds", "ms an image, without the start", "peak memory, MB"], rows, {"found": found})


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as where:
        pictures(Path(where) / "pictures", 1000)
        growth(Path(where))
        workers(Path(where))
