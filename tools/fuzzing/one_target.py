"""`python -m fuzzing.one_target NAME FOLDER...`: a process that feeds one target until it fails or time is over.

atheris ends the process by itself; its own options (-max_total_time=60) are passed on.
"""

from __future__ import annotations

import sys

import atheris


def main() -> None:
    name, *rest = sys.argv[1:]
    with atheris.instrument_imports(include=["gatepost", "dns"]):
        from fuzzing.targets import TARGETS
    target = TARGETS[name]
    atheris.Setup([f"fuzzing {name}", *rest], lambda data: target(bytes(data)))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
