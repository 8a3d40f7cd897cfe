"""All benches, one after the other; tables on the screen, figures in out/bench/*.json. Options are those of the RISE bench."""

import subprocess
import sys
from pathlib import Path

NOT_HERE = {"run": "this file", "peers": "what others are timed by", "weight_sigma": "needs a folder of photographs"}

if __name__ == "__main__":
    here = Path(__file__).parent
    for name in sorted({path.stem for path in here.glob("[!_]*.py")} - set(NOT_HERE), key=lambda name: (name == "rise", name)):  # the longest last
        subprocess.run([sys.executable, here / f"{name}.py", *(sys.argv[1:] if name == "rise" else [])], check=True)
