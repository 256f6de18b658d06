"""`python -m fuzzing [--seconds N] [TARGET ...]`: each target in a process of its own; 1 when one has failed."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Final

from fuzzing.targets import TARGETS
from testbed.provision.cache import cache_root

SEEDS: Final = Path(__file__).resolve().parent.parent.parent / "tests/data/fuzz"
MOST_OCTETS: Final = 4096  # of an input
MOST_SECONDS: Final = 10  # for one input; a parser that needs a hundredth of it is a fault already
MOST_MEMORY: Final = 1024  # MiB of the process


def fuzz(name: str, seconds: int) -> bool:
    """Run one target; what makes it fail goes to its seeds, and what is new for the next run into a cache."""
    seeds, corpus = SEEDS / name, cache_root() / "fuzz" / name
    for folder in (seeds, corpus):
        folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "fuzzing.one_target", name, str(corpus), str(seeds)),
            *(f"-max_total_time={seconds}", f"-max_len={MOST_OCTETS}", f"-timeout={MOST_SECONDS}"),
            *(f"-rss_limit_mb={MOST_MEMORY}", f"-artifact_prefix={seeds}/found-", "-print_final_stats=1"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=seconds * 2 + 120,
        check=False,
    )
    runs = [line for line in done.stdout.splitlines() if "number_of_executed_units" in line]
    print(f"{name:16} {runs[-1].split()[-1] if runs else '?':>10} inputs", flush=True)
    if done.returncode != 0:
        print(done.stdout[-4000:], file=sys.stderr)
    return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m fuzzing", description="Feeds the parsers what strangers could send."
    )
    parser.add_argument("names", nargs="*", metavar="TARGET", help=f"all of {', '.join(TARGETS)} without it")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in TARGETS]:
        parser.error(f"unknown: {' '.join(unknown)}")
    failed = [name for name in options.names or TARGETS if not fuzz(name, options.seconds)]
    if failed:
        print(f"failed: {' '.join(failed)}; what did it is in tests/data/fuzz", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
