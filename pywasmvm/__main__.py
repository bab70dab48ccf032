"""`python -m pywasmvm`: the same as the `pywasmvm` command."""

from __future__ import annotations

import sys

from pywasmvm.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
