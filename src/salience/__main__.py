"""``python -m salience``: the command line."""

from salience.cli import main

if __name__ == "__main__":
    main()
