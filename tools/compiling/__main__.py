"""`python -m compiling [--out DIR]`: compiles the modules of the hot path and prints the folder with the result."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from compiling.build import compiled
from testbed.provision.errors import ProvisionError


def main() -> int:
    """1 when a module cannot be compiled."""
    parser = argparse.ArgumentParser(
        prog="python -m compiling", description="Compiles the modules of the hot path."
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="copy the result to this folder, which must not exist"
    )
    options = parser.parse_args()
    try:
        folder = compiled()
    except ProvisionError as error:
        print(error, file=sys.stderr)
        return 1
    if options.out is not None:
        shutil.copytree(folder, options.out)
    print(options.out or folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
