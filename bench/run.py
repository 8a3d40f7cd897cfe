"""All benches, one after the other; tables on the screen, figures in out/bench/*.json."""

import subprocess
import sys

if __name__ == "__main__":
    for file, options in (("chunk_size", []), ("quick", []), ("busy", []), ("speed", []), ("memory", []), ("metrics", []), ("training", []), ("attack", []), ("rise", sys.argv[1:])):
        subprocess.run([sys.executable, f"bench/{file}.py", *options], check=True)
