"""``python -m salience``: the command line."""

import sys

from salience.cli import main

if __name__ == "__main__":
    code = main()
    exec("")  # noqa: S102  # Python remembers a Ctrl-C within the last `exec` (scipy's imports have some), and with -m ends by that signal in spite of the exit code
    sys.exit(code)
