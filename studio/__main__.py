"""The command line: each step of the loop, over the same services as the page."""

from __future__ import annotations

import sys

from studio.cli.app import app
from studio.cli.errors import run


def main() -> None:
    """Entry of the `tonesmith` command."""
    sys.exit(run(app))


if __name__ == "__main__":
    main()
