"""Speed beside Postfix: `make bench`. Prints ratios first, writes benchmarks/RESULTS.md and results.json.

    PYTHONPATH=tools python benchmarks/run.py [--quick] [--only accept,deliver,flush,large,many] [--no-profile]

Runs as root (Postfix's master needs it). Everything is measured on 127.0.0.1 beside the peer in the same run,
alternating, since the noise of a machine is larger than many a difference. Nothing here is a test: a slow machine
fails nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from large_messages import many_large, one_large, quiet_wait_ms
from profiling import profile_during
from report import Results, lines, write
from rows import Row, in_turn, measure
from systems import (
    GatepostOnKafka,
    System,
    broker,
    gatepost_on_kafka,
    gatepost_standalone,
    postfix,
    trace_collector,
)

from testbed.kafka import Kafka

HERE: Final = Path(__file__).resolve().parent
PARTS: Final = ("accept", "deliver", "flush", "large", "many")
WARM_UP: Final = 1000  # messages to each system before its first row
WARM_BROKER: Final = 15_000
WARM_BROKER_QUICK: Final = 4_000


class Bench:
    """One run: what is up, how much is asked of it, what was found."""

    def __init__(self, options: argparse.Namespace, stack: ExitStack) -> None:
        self.rounds: int = options.rounds or (2 if options.quick else 5)
        self.messages: int = options.messages or (1000 if options.quick else 2500)
        self.profile: bool = not options.no_profile
        self.quick: bool = options.quick
        self.results = Results(options.quick, self.rounds, load_before=os.getloadavg()[0])
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gatepost-bench-")))
        self.folder.chmod(0o755)
        self.traces = stack.enter_context(trace_collector())
        self.kafka: Kafka = stack.enter_context(broker(self.folder / "kafka"))

    def accept(self) -> None:
        """Rows (a) and (b): until 250."""
        with (
            gatepost_on_kafka(self.folder, "accept", self.kafka, self.traces, deliver=False) as own,
            postfix(self.folder / "hold", hold=True) as peer,
        ):
            self._warm_broker(own, deliver=False)
            self._row("accept durably", [own, peer], deliver=False)

    def deliver(self) -> None:
        """Rows (c) and (d): until the last message lies in its Maildir."""
        with (
            gatepost_on_kafka(self.folder, "deliver", self.kafka, self.traces, deliver=True) as own,
            gatepost_standalone(self.folder, self.traces) as alone,
            postfix(self.folder / "postfix", hold=False) as peer,
        ):
            self._warm_broker(own, deliver=True)
            self._row("accept -> Maildir", [own, alone, peer], deliver=True)

    def flush(self) -> None:
        """Row (c) with a broker that syncs as Postfix does."""
        with (
            gatepost_on_kafka(self.folder, "flushing", self.kafka, self.traces, deliver=True, flush=True) as own,
            postfix(self.folder / "flush", hold=False) as peer,
        ):
            self._row("accept -> Maildir, synced", [own, peer], deliver=True, rounds=max(2, self.rounds // 2))

    def large(self) -> None:
        """Row (e)."""
        with (
            gatepost_on_kafka(self.folder, "large", self.kafka, self.traces, deliver=False) as own,
            postfix(self.folder / "large-hold", hold=True) as peer,
        ):
            systems: list[System] = [own, peer]
            for system in systems:
                one_large(system)
                self.results.quiet_ms[system.name] = quiet_wait_ms(system)
            for number in range(self.rounds):
                for system in systems if number % 2 else reversed(systems):
                    sample = one_large(system)
                    self.results.large.setdefault(system.name, []).append(sample)
                    _say(
                        f"  {system.name:<16} {sample.seconds:.2f} s, {sample.longest_wait_ms:.1f} ms longest wait"
                    )

    def many(self) -> None:
        """Row (f)."""
        with gatepost_on_kafka(self.folder, "many", self.kafka, self.traces, deliver=False) as own:
            edge = own.edge
            self.results.many = many_large(edge.mx, edge.pid, 20 if self.quick else 100)
            _say(f"  {self.results.many}")

    def _warm_broker(self, own: GatepostOnKafka, *, deliver: bool) -> None:
        """Before `accept` and `deliver`, by what they measure: the JVM compiles what it meets."""
        wanted = WARM_BROKER_QUICK if self.quick else WARM_BROKER
        _say(f"warming the broker up with {wanted} messages")
        measure(own, wanted, 50, deliver=deliver)
        self.results.warm_messages += wanted

    def _row(self, what: str, systems: Sequence[System], *, deliver: bool, rounds: int = 0) -> None:
        for system in systems:
            measure(system, WARM_UP, 50, deliver=deliver)
        for per_connection in (1, 50):
            _say(f"{what}, {per_connection} per connection")
            row = Row(what, per_connection, deliver)
            counts = {system.name: self.messages for system in systems}
            self.results.rows.append(in_turn(row, systems, rounds or self.rounds, counts, _say))
            if self.profile:
                self._profile(row, systems)

    def _profile(self, row: Row, systems: Sequence[System]) -> None:
        short = {line.system for line in lines([row]) if not line.met}
        for system in systems:
            roles = {role: pid for role, pid in system.roles.items() if role not in ("broker", "postfix")}
            if system.name in short:
                work = partial(measure, system, self.messages, row.per_connection, deliver=row.deliver)
                name = f"{row.what}, {system.name}, {row.per_connection} per connection"
                self.results.profiles[name] = profile_during(roles, work, self.folder)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="about 3 minutes")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between them")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--messages", type=int, default=0, help="in one round of one system")
    parser.add_argument("--no-profile", action="store_true")
    parser.add_argument("--output", type=Path, default=HERE, help="the folder of RESULTS.md and results.json")
    options = parser.parse_args()
    with ExitStack() as stack:
        bench = Bench(options, stack)
        for part in options.only.split(","):
            _say(f"== {part}")
            getattr(bench, part)()
    text = write(bench.results, options.output)
    print(text.split("## What falls short")[0])


if __name__ == "__main__":
    main()
