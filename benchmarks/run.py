"""Speed beside Postfix, Exim and Haraka: `make bench`. Prints ratios first, writes RESULTS.md and results.json.

    PYTHONPATH=tools python benchmarks/run.py [--quick | --peers] [--only PART,...] [--without exim,haraka]

Runs as root (Postfix's master needs it). Everything is measured on 127.0.0.1 beside the peers in the same run,
alternating, since the noise of a machine is larger than many a difference. Nothing here is a test: a slow machine
fails nothing. benchmarks/README.md says what is compared and how to read it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Final

import guarded
from deferred import FEW, MANY, MANY_QUICK, Deferred, pair_ratios, prepare
from large_messages import many_large, one_large, quiet_wait_ms
from peers import OTHERS, SLOW, SLOW_SHARE, peer_of, postfix, versions
from profiling import profile_during
from ratios import lines
from report import Results, write
from rows import Row, in_turn, measure, prove
from systems import (
    GatepostOnKafka,
    System,
    broker,
    gatepost_on_kafka,
    gatepost_standalone,
    trace_collector,
)
from warming import MOST, MOST_QUICK, warm_broker

from compiling.build import compiled
from compiling.modules import COMPILED
from testbed.kafka import Kafka
from testbed.provision.errors import ProvisionError

HERE: Final = Path(__file__).resolve().parent
# `peers` adds the slow ones to the rows of `deliver`; alone it is `deliver` with them.
PARTS: Final = ("accept", "policy", "deliver", "peers", "flush", "deferred", "large", "many")
PEERS_MODE: Final = ("deliver", "peers")
WARM_UP: Final = 1000  # messages to each system before its first row
WARM_LARGE: Final = 30  # large messages, after which the broker's second compiler has seen their path


class Bench:
    """One run: what is up, how much is asked of it, what was found."""

    def __init__(self, options: argparse.Namespace, stack: ExitStack) -> None:
        self.rounds: int = options.rounds or (2 if options.quick else 5)
        self.messages: int = options.messages or (1000 if options.quick else 2500)
        self.profile: bool = not options.no_profile
        self.quick: bool = options.quick
        self.others = [name for name in OTHERS if name not in options.without and "peers" in options.only]
        self.results = Results(options.quick, self.rounds, load_before=os.getloadavg()[0])
        self.results.versions = versions(["postfix", *self.others])
        if not options.interpreted:
            self.results.code = f"{len(COMPILED)} modules compiled by mypyc {metadata.version('mypy')}"
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

    def policy(self) -> None:
        """What the recommended policy costs, beside a bare one and beside Postfix with helpers for the same."""
        sender = guarded.Sender(self.folder)
        with (
            guarded.resolver(self.folder / "names", sender) as names,
            gatepost_on_kafka(self.folder, guarded.BARE, self.kafka, self.traces, deliver=False) as bare,
            gatepost_on_kafka(
                self.folder,
                guarded.GUARDED,
                self.kafka,
                self.traces,
                deliver=False,
                manifests=guarded.recommended(),
                more={"dns": {"servers": [names]}},
            ) as own,
            guarded.guarded_postfix(self.folder / "guarded") as peer,
        ):
            systems: list[System] = [bare, own, peer]
            for system in systems:
                measure(system, WARM_UP, 50, deliver=False, content=sender.message)
            counts = {one.name: self.messages // (SLOW_SHARE if one is peer else 1) for one in systems}
            for per_connection in (1, 50):
                row = Row("accept with a whole policy", per_connection, False)
                _say(f"{row.what}, {per_connection} per connection")
                in_turn(row, systems, self.rounds, counts, _say, sender.message)
                self.results.policy.append(row)

    def deliver(self) -> None:
        """Rows (c) and (d): until the last message lies in its Maildir."""
        with ExitStack() as stack:
            own = stack.enter_context(
                gatepost_on_kafka(self.folder, "deliver", self.kafka, self.traces, deliver=True)
            )
            systems: list[System] = [
                own,
                stack.enter_context(
                    gatepost_on_kafka(self.folder, "routing", self.kafka, self.traces, deliver=True, routes=True)
                ),
                stack.enter_context(gatepost_standalone(self.folder, self.traces)),
                stack.enter_context(postfix(self.folder / "postfix")),
                *(stack.enter_context(OTHERS[name](self.folder / name)) for name in self.others),
            ]
            for system in systems:
                prove(system)
            self._warm_broker(own, deliver=True)
            self._row("accept -> Maildir", systems, deliver=True)

    def flush(self) -> None:
        """Row (c) with a broker that syncs as Postfix does."""
        with (
            gatepost_on_kafka(self.folder, "flushing", self.kafka, self.traces, deliver=True, flush=True) as own,
            postfix(self.folder / "flush") as peer,
        ):
            self._row("accept -> Maildir, synced", [own, peer], deliver=True, rounds=max(2, self.rounds // 2))

    def deferred(self) -> None:
        """The row of waiting mail: two installations, and twice the rounds, since the difference is small."""
        many = MANY_QUICK if self.quick else MANY
        few_name, many_name = f"waiting-{FEW}", f"waiting-{many}"
        with (
            gatepost_on_kafka(self.folder, few_name, self.kafka, self.traces, deliver=True) as few,
            gatepost_on_kafka(self.folder, many_name, self.kafka, self.traces, deliver=True) as more,
        ):
            starts = [prepare(few, self.kafka, FEW), prepare(more, self.kafka, many)]
            _say("\n".join(f"  {start}" for start in starts))
            self._warm_broker(few, deliver=True)
            for system in (few, more):
                prove(system)
                measure(system, WARM_UP, 50, deliver=True)
            row = Row("accept -> Maildir beside waiting copies", 50, True)
            counts = {few_name: self.messages, many_name: self.messages}
            in_turn(row, [few, more], 2 * self.rounds, counts, _say)
        self.results.deferred = Deferred(few_name, many_name, starts, row)
        _say(f"  ratios {', '.join(f'{ratio:.2f}' for ratio in pair_ratios(self.results.deferred, broker=False))}")

    def large(self) -> None:
        """Row (e)."""
        with (
            gatepost_on_kafka(self.folder, "large", self.kafka, self.traces, deliver=False) as own,
            postfix(self.folder / "large-hold", hold=True) as peer,
        ):
            systems: list[System] = [own, peer]
            for system in systems:
                for _ in range(WARM_LARGE):
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
        most = MOST_QUICK if self.quick else MOST
        self.results.warm_messages += warm_broker(own, most, deliver=deliver, say=_say)

    def _row(self, what: str, systems: Sequence[System], *, deliver: bool, rounds: int = 0) -> None:
        for system in systems:
            slow = system.name in SLOW
            measure(system, WARM_UP // SLOW_SHARE if slow else WARM_UP, 1 if slow else 50, deliver=deliver)
        for per_connection in (1, 50):
            _say(f"{what}, {per_connection} per connection")
            row = Row(what, per_connection, deliver)
            counts = {system.name: self._messages(system) for system in systems}
            self.results.rows.append(in_turn(row, systems, rounds or self.rounds, counts, _say))
            if self.profile:
                self._profile(row, systems)

    def _messages(self, system: System) -> int:
        """In one round; with many per connection each of the 20 sessions sends at least so many."""
        return self.messages // SLOW_SHARE if system.name in SLOW else self.messages

    def _profile(self, row: Row, systems: Sequence[System]) -> None:
        short = {line.system for line in lines([row]) if not line.met}
        for system in systems:
            if peer_of(system.name):
                continue
            roles = {role: pid for role, pid in system.roles.items() if role != "broker"}
            if system.name in short:
                work = partial(measure, system, self.messages, row.per_connection, deliver=row.deliver)
                name = f"{row.what}, {system.name}, {row.per_connection} per connection"
                self.results.profiles[name] = profile_during(roles, work, self.folder)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parts(text: str) -> Sequence[str]:
    return _among(text, PARTS)


def _others(text: str) -> Sequence[str]:
    return _among(text, tuple(OTHERS))


def _among(text: str, known: Sequence[str]) -> Sequence[str]:
    chosen = tuple(text.split(","))
    if unknown := [name for name in chosen if name not in known]:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)} (there are {', '.join(known)})")
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer messages and rounds: about 6 minutes")
    parser.add_argument("--peers", action="store_true", help="quick, and only the rows with every peer: 3 minutes")
    parser.add_argument("--only", type=_parts, default=PARTS, help=f"parts of: {','.join(PARTS)}")
    parser.add_argument("--without", type=_others, default=(), help="peers to leave out: exim, haraka or both")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--messages", type=int, default=0, help="in one round of one system")
    parser.add_argument("--no-profile", action="store_true")
    parser.add_argument("--interpreted", action="store_true", help="Gatepost as Python alone, not as in the images")
    parser.add_argument("--output", type=Path, help="folder of RESULTS.md and results.json; of a part: a new one")
    options = parser.parse_args()
    if options.peers:
        options.quick, options.no_profile, options.only = True, True, PEERS_MODE
    options.output = _folder_for(options)
    try:
        _run(options)
    except ProvisionError as error:
        sys.exit(f"benchmarks/run.py: {error}")


def _folder_for(options: argparse.Namespace) -> Path:
    """Where the results go, made now and not when all is measured: only a whole run replaces the page."""
    if options.output is not None:
        output: Path = options.output
        output.mkdir(parents=True, exist_ok=True)
        return output
    whole = set(options.only) == set(PARTS) and not (options.quick or options.without or options.interpreted)
    return HERE if whole else Path(tempfile.mkdtemp(prefix="gatepost-bench-results-"))


def _run(options: argparse.Namespace) -> None:
    if not options.interpreted:
        # Every process of Gatepost that is started from here imports what the images run.
        os.environ["PYTHONPATH"] = os.pathsep.join([str(compiled()), os.environ.get("PYTHONPATH", "")])
    with ExitStack() as stack:
        bench = Bench(options, stack)
        for part in dict.fromkeys("deliver" if part == "peers" else part for part in options.only):
            _say(f"== {part}")
            getattr(bench, part)()
    text = write(bench.results, options.output)
    print(text.split("## What falls short")[0])
    _say(f"written: {options.output}/RESULTS.md")


if __name__ == "__main__":
    main()
