"""`python -m cheaplip` is the command `cheaplip`."""

from __future__ import annotations

import sys

from cheaplip.cli import main

if __name__ == "__main__":
    sys.exit(main())
