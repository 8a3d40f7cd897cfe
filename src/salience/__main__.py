"""``python -m salience``: the command line."""

import sys

from salience.cli import main

if __name__ == "__main__":
    sys.exit(main())
