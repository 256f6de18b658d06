"""One run of mypyc in the folder that is compiled: `python -m compiling.extension LEVEL MODULE...`."""

from __future__ import annotations

import os
import sys

from mypyc.build import mypycify
from setuptools import setup


def main(level: str, *modules: str) -> None:
    """Writes the extension modules beside their sources."""
    words = ["--ignore-missing-imports", f"--cache-dir={os.devnull}", *modules]
    extensions = mypycify(words, opt_level=level, debug_level="0", multi_file=True, group_name="gatepost")
    setup(name="gatepost", packages=[], ext_modules=extensions, script_args=["--quiet", "build_ext", "--inplace"])


if __name__ == "__main__":
    main(*sys.argv[1:])
