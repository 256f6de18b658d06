"""`python -m testbed.provision NAME...`: installs things by name; `--list` says which there are."""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial

from testbed.provision import apt, coredns, exim, haraka, image, jaeger, kafka, kubernetes
from testbed.provision.errors import ProvisionError

THINGS: dict[str, tuple[str, Callable[[], object]]] = {
    **{
        f"apt:{group}": (f"Debian packages: {' '.join(packages)}", partial(apt.install, group))
        for group, packages in apt.GROUPS.items()
    },
    "kafka": (f"Kafka {kafka.VERSION} (Java, Maven)", kafka.class_archive),
    "jaeger": (f"Jaeger {jaeger.VERSION} (built with Go, about 200 s)", jaeger.install),
    "kubernetes": (f"Kubernetes {kubernetes.VERSION} (built with Go, about 400 s)", kubernetes.install),
    "kubernetes-clients": ("kubectl and helm", kubernetes.clients),
    "coredns": (f"CoreDNS {coredns.VERSION} (built with Go)", coredns.install),
    "image": ("the Python root layer and the pause image (mmdebstrap, a C compiler)", image.install),
    "exim": ("Exim, beside the package database", exim.install),
    "haraka": (f"Haraka {haraka.VERSION} (Node.js {haraka.NODE_MAJOR} or newer, npm)", haraka.install),
}


def main() -> int:
    """Installs what the command line names, in that order; 1 when something can't be installed."""
    parser = argparse.ArgumentParser(
        prog="python -m testbed.provision", description="Installs the testbed's servers."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to install; see --list")
    parser.add_argument("--list", action="store_true", help="list what can be installed")
    options = parser.parse_args()
    if options.list or not options.names:
        for name, (text, _) in THINGS.items():
            print(f"{name:20} {text}")
        return 0
    if unknown := [name for name in options.names if name not in THINGS]:
        parser.error(f"unknown: {' '.join(unknown)} (see --list)")
    for name in options.names:
        begun = time.monotonic()
        try:
            THINGS[name][1]()
        except ProvisionError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        print(f"{name}: ready after {time.monotonic() - begun:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
