"""The level of weight noise at which a named model's relative accuracy drops by 5 %: the levels in zoo/models.py.

``PHOTOGRAPHS=FOLDER python bench/weight_sigma.py efficientnet-lite0 60`` prints the drop at several levels and
the level found, with the model's own clean predictions as labels. `salience tune noisegrad` does the same on any data, with intervals.
"""

import sys

import salience as sal
from _photos import photographs
from _timing import report
from salience.perturb.tune import DRAWS, WEIGHT_LEVELS, accuracy_drop, smallest_crossing


def main(name: str, n: int) -> None:
    """Search, and show the drop around the level found."""
    model = sal.load_model(name)
    images = photographs(n, model)
    with model.frozen():
        sigma = smallest_crossing(lambda level: accuracy_drop(model, images, level), WEIGHT_LEVELS) or WEIGHT_LEVELS[-1]
        drops = {share * sigma: accuracy_drop(model, images, share * sigma) for share in (0.5, 1.0, 2.0)}
    rows = [[f"{level:.4f}", f"{drop:.3f}"] for level, drop in drops.items()]
    report(f"weight_sigma_{name}", f"{name}: relative accuracy drop, {n} photographs x {DRAWS} draws", ["weight_sigma", "drop"], rows, {"sigma": sigma, "drops": drops})


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "efficientnet-lite0", int(sys.argv[2]) if len(sys.argv) > 2 else 60)
