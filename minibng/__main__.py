"""``python -m minibng``: the command line."""

import sys

from minibng.cli import main

if __name__ == "__main__":
    sys.exit(main())
