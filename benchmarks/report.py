"""The results for people and for programs: RESULTS.md, ratios first, and results.json."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec
from large_messages import ManyLarge, OneLarge
from profiling import Profile
from rows import Row, Sample

from testbed.provision.kafka import VERSION as KAFKA_VERSION

BEGIN: Final = "<!-- by hand: begin -->"
END: Final = "<!-- by hand: end -->"


class Results(msgspec.Struct):
    """Everything that one run found out."""

    quick: bool
    rounds: int
    warm_messages: int = 0
    rows: list[Row] = []
    large: dict[str, list[OneLarge]] = {}
    quiet_ms: dict[str, float] = {}
    many: ManyLarge | None = None
    profiles: dict[str, list[Profile]] = {}
    load_before: float = 0.0


class Line(msgspec.Struct, frozen=True):
    """One line of the table: `ratio` is of medians, the others the smallest and largest of the rounds."""

    system: str
    what: str
    target: str
    ratio: float
    low: float
    high: float
    met: bool
    ours: str
    theirs: str


def write(results: Results, folder: Path) -> str:
    """Write both files into `folder` and return the Markdown."""
    (folder / "results.json").write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
    file = folder / "RESULTS.md"
    kept = _by_hand(file.read_text()) if file.exists() else "\n"
    text = "\n".join(_document(results, kept))
    file.write_text(text)
    return text


def _by_hand(text: str) -> str:
    if BEGIN not in text or END not in text:
        return "\n"
    return text.split(BEGIN, 1)[1].split(END, 1)[0]


def _document(results: Results, kept: str) -> Iterable[str]:
    yield "# Benchmarks beside Postfix"
    yield ""
    yield "Written by `make bench`; only what stands between the two marks below is written by hand."
    if results.quick:
        yield ""
        yield "**A quick run (`--quick`): few messages and rounds, so wide spreads.**"
    yield ""
    yield "## Ratios"
    yield ""
    yield (
        "Gatepost divided by Postfix in the same run, alternating; medians, with the smallest and largest ratio of "
        "single rounds in brackets. CPU is of whole process trees: lower is better; for messages per second "
        "higher is."
    )
    yield ""
    yield "| what | target | ratio | met | Gatepost | Postfix |"
    yield "|---|---|---|---|---|---|"
    for line in lines(results.rows):
        spread = f"{line.ratio:.2f} ({line.low:.2f}-{line.high:.2f})"
        yield f"| {line.what} | {line.target} | **{spread}** | {_yes(line)} | {line.ours} | {line.theirs} |"
    yield ""
    yield from _large(results)
    yield "## What falls short, and why"
    yield ""
    yield f"{BEGIN}{kept}{END}"
    yield ""
    yield from _roles(results)
    yield from _circumstances(results)
    yield from _profiles(results)


def _yes(line: Line) -> str:
    if line.target == "-":
        return "-"
    return "yes" if line.met else "**no**"


# -- the table of ratios


def lines(rows: Sequence[Row]) -> list[Line]:
    made: list[Line] = []
    for row in rows:
        for name, samples in row.samples.items():
            if name.startswith("postfix"):
                continue
            peer = next(each for other, each in row.samples.items() if other.startswith("postfix"))
            made += _row_lines(row, name, samples, peer)
    return made


_CPU_TARGETS: Final = {
    ("accept", 1): 0.5,
    ("accept", 50): 0.25,
    ("deliver", 1): 0.5,
    ("deliver", 50): 0.3,
    ("standalone", 1): 0.3,
    ("standalone", 50): 0.3,
}
_RATE_TARGETS: Final = {("deliver", 1): 2.0, ("deliver", 50): 3.0}


def _row_lines(row: Row, name: str, ours: Sequence[Sample], theirs: Sequence[Sample]) -> list[Line]:
    key = (name, row.per_connection)
    what = f"{row.what}, {name}, {row.per_connection} per connection"
    if not row.deliver:
        own = _line(name, f"{what}: edge", _CPU_TARGETS.get(key), ours, theirs, lambda sample: sample.us["edge"])
        whole = _line(name, f"{what}: edge and broker", None, ours, theirs, lambda sample: sample.total)
        return [own, whole]
    made = [_line(name, f"{what}: CPU", _CPU_TARGETS.get(key), ours, theirs, lambda sample: sample.total)]
    rate = _RATE_TARGETS.get(key)
    made.append(
        _line(name, f"{what}: messages/s", rate, ours, theirs, lambda sample: sample.per_second, higher=True)
    )
    return made


def _line(
    system: str,
    what: str,
    target: float | None,
    ours: Sequence[Sample],
    theirs: Sequence[Sample],
    value: Callable[[Sample], float],
    *,
    higher: bool = False,
) -> Line:
    peer: Callable[[Sample], float] = value if higher else lambda sample: sample.total
    mine, other = statistics.median(map(value, ours)), statistics.median(map(peer, theirs))
    single = [value(own) / peer(their) for own, their in zip(ours, theirs, strict=True)]
    ratio = mine / other
    sign, unit = (">=", "/s") if higher else ("<=", " us")
    met = target is None or (ratio >= target if higher else ratio <= target)
    said = f"{sign} {target:g}" if target is not None else "-"
    return Line(system, what, said, ratio, min(single), max(single), met, f"{mine:.0f}{unit}", f"{other:.0f}{unit}")


# -- large messages


def _large(results: Results) -> Iterable[str]:
    if not results.large:
        return
    yield "## Large messages"
    yield ""
    yield "| one message of 25 MB | seconds until 250 | CPU ms | longest wait of others, ms | with nothing else |"
    yield "|---|---|---|---|---|"
    for name, samples in results.large.items():
        seconds = [sample.seconds for sample in samples]
        waits = [sample.longest_wait_ms for sample in samples]
        yield (
            f"| {name} | {statistics.median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f}) "
            f"| {statistics.median(sample.cpu_ms for sample in samples):.0f} "
            f"| {statistics.median(waits):.1f} (worst {max(waits):.1f}) | {results.quiet_ms[name]:.1f} |"
        )
    yield ""
    yield "Targets: at most Postfix's time; another session never waits over 50 ms."
    yield ""
    many = results.many
    if many is None:
        return
    yield (
        f"{many.messages} messages of 24 MB at the same moment: the edge's resident memory rose from "
        f"{many.at_rest_mib:.0f} to **{many.peak_mib:.0f} MiB** (target: at most 400 MB); {many.accepted} were "
        f"accepted and **{many.refused} refused for good** (target: none) in {many.seconds:.0f} s; answers that "
        f"made a client come again: {_answers(many)}."
    )
    yield ""


def _answers(many: ManyLarge) -> str:
    return ", ".join(f"{count} x {reply}" for reply, count in sorted(many.deferred.items())) or "none"


# -- details


def _roles(results: Results) -> Iterable[str]:
    yield "## CPU by role"
    yield ""
    yield "Microseconds per message, medians."
    yield ""
    yield "| row | system | by role | all | smallest-largest | messages/s |"
    yield "|---|---|---|---|---|---|"
    for row in results.rows:
        for name, samples in row.samples.items():
            totals = [sample.total for sample in samples]
            roles = ", ".join(
                f"{role} {statistics.median(sample.us[role] for sample in samples):.0f}" for role in samples[0].us
            )
            yield (
                f"| {row.what}, {row.per_connection} per connection | {name} | {roles} "
                f"| {statistics.median(totals):.0f} | {min(totals):.0f}-{max(totals):.0f} "
                f"| {statistics.median(sample.per_second for sample in samples):.0f} |"
            )
    yield ""


def _circumstances(results: Results) -> Iterable[str]:
    yield "## Circumstances"
    yield ""
    yield f"* {_hardware()}; {_system()}; load average before the run {results.load_before:.1f}."
    yield (
        f"* Python {platform.python_version()}, "
        + ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("aiokafka", "uvloop", "aiosmtpd"))
        + f"; Kafka {KAFKA_VERSION} on {_first_line('java', '--version')}; Postfix {_postfix_version()}."
    )
    yield (
        f"* {results.rounds} rounds; 20 sessions of smtp-source with messages of 4 KB for five mailboxes; its CPU "
        "is not counted. Recipients are verified (LDIF directory in memory; Postfix: a table), events are written, "
        "1 % of the messages are traced, every decision is a log line in a file."
    )
    yield (
        f"* The broker is one JVM (serial collector, 256 MB heap, both compilers) with replication 1, warmed up "
        f"with {results.warm_messages} messages in all before the rows; its CPU falls as it compiles. Three "
        "replicas cost about three times its share."
    )
    yield (
        "* Durability at 250: Postfix has synced its queue file. Gatepost on Kafka has an acks=all "
        "acknowledgement, which is not a synced disk; in the rows `flushing` the topics have flush.messages=1, so "
        "that the broker syncs before it acknowledges. Gatepost standalone has synced SQLite's log. In the "
        "mailboxes all have synced."
    )
    yield "* Postfix's accept rows put mail on hold, so that only smtpd and cleanup work."
    yield ""


def _hardware() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores of {names[0] if names else platform.machine()}, {memory:.0f} GiB"


def _system() -> str:
    release = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    return f"{release}, Linux {platform.release().partition('-')[0]}"


def _first_line(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()[0]


def _postfix_version() -> str:
    return _first_line("/usr/sbin/postconf", "-d", "-h", "mail_version")


def _profiles(results: Results) -> Iterable[str]:
    if not results.profiles:
        return
    yield "## What keeps it from its floor"
    yield ""
    yield "For the rows that fall short: shares of py-spy's samples of each process, only those that used the CPU."
    yield ""
    for row, profiles in results.profiles.items():
        for profile in profiles:
            yield f"### {row}: {profile.role} ({profile.samples} samples)"
            yield ""
            yield "| running function | share | our module that led there | share |"
            yield "|---|---|---|---|"
            for n in range(max(len(profile.functions), len(profile.modules))):
                function = profile.functions[n] if n < len(profile.functions) else ("", 0.0)
                module = profile.modules[n] if n < len(profile.modules) else ("", 0.0)
                yield f"| {function[0]} | {function[1]:.1%} | {module[0]} | {module[1]:.1%} |"
            yield ""
