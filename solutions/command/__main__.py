"""`python -m solutions.command`: the same as `monosemantic`."""

import sys

from solutions.command import main

if __name__ == "__main__":
    sys.exit(main())
