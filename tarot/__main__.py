"""`python -m tarot` is the command `tarot`."""

import sys

from tarot.cli import main

if __name__ == "__main__":
    sys.exit(main())
