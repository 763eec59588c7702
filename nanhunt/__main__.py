"""`python -m nanhunt` is the command `nanhunt`."""

import sys

from nanhunt.cli import main

if __name__ == "__main__":
    sys.exit(main())
