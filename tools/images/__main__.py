"""`python -m images --out DIR [NAME...]`: writes the images as OCI tar files for `ctr images import` or skopeo."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from images.kafka import build_kafka
from images.service import build_gatepost, build_operator
from images.version import app_version
from testbed.provision.errors import ProvisionError

IMAGES: Final[dict[str, Callable[[Path, str], Path]]] = {
    "gatepost": build_gatepost,
    "gatepost-operator": build_operator,
    "gatepost-kafka": build_kafka,
}


def main() -> int:
    """Builds what the command line names, or all; 1 when something is missing on this machine."""
    parser = argparse.ArgumentParser(
        prog="python -m images", description="Builds container images without an engine."
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the tar files go")
    parser.add_argument("--tag", default=app_version(), help="the images' tag (%(default)s)")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(IMAGES)}; default: all")
    options = parser.parse_args()
    unknown = set(options.names) - set(IMAGES)
    if unknown:
        parser.error(f"no such image: {', '.join(sorted(unknown))}")
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.names or IMAGES:
        begun = time.monotonic()
        try:
            file = IMAGES[name](options.out / f"{name}.tar", options.tag)
        except ProvisionError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        print(f"{file}  {file.stat().st_size / 1e6:.0f} MB  {time.monotonic() - begun:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
