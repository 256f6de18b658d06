"""The results for people and for programs: RESULTS.md, ratios first, and results.json."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec
from deferred import SETTLE_S, TARGET, Deferred, medians, pair_ratios
from large_messages import ManyLarge, OneLarge
from peers import OTHERS, TITLES
from profiling import Profile
from ratios import Line, lines, peers_in
from rows import Row

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
    code: str = "not compiled"  # how Gatepost's own code runs
    versions: Mapping[str, str] = {}
    deferred: Deferred | None = None
    policy: list[Row] = []


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
    yield "# Benchmarks beside Postfix, Exim and Haraka"
    yield ""
    yield (
        "Written by `make bench`; only what stands between the two marks below is written by hand. README.md says "
        "how it is measured."
    )
    if results.quick:
        yield ""
        yield "**A quick run (`--quick`): few messages and rounds, so wide spreads.**"
    yield ""
    yield from _ratios(results)
    yield from _policy(results)
    yield from _deferred(results)
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


def _ratios(results: Results) -> Iterable[str]:
    table = lines(results.rows)
    peers = peers_in(table)
    if not peers:
        return
    yield "## Ratios"
    yield ""
    yield (
        "Gatepost divided by the other server in the same run, alternating; medians, with the smallest and largest "
        "ratio of single rounds in brackets. CPU is of whole process trees: lower is better; for messages per "
        "second higher is. The targets are about Postfix."
    )
    yield ""
    others = peers[1:]
    titles = [f"/ {TITLES[peer]}" for peer in others]
    yield _cells("what", "target", f"/ {TITLES[peers[0]]}", "met", *titles, "Gatepost", *map(TITLES.get, peers))
    yield "|" + "---|" * (5 + len(others) + len(peers))
    for line in table:
        first, *rest = (line.against.get(peer) for peer in peers)
        theirs = [there.theirs if there else "-" for there in (first, *rest)]
        yield _cells(
            *(line.what, line.target, f"**{first}**" if first else "-", _yes(line)),
            *(str(there) if there else "-" for there in rest),
            line.ours,
            *theirs,
        )
    yield ""


def _cells(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


# -- a whole policy


def _policy(results: Results) -> Iterable[str]:
    if not results.policy:
        return
    yield "## A whole policy"
    yield ""
    yield (
        "Until 250, for a signed message of 4.5 KB: examples/recommended (two DNS lists, SPF, DKIM, DMARC, rules "
        "for headers and attachments, harvests, rates) beside a bare policy, and Postfix with policyd-spf, "
        "OpenDKIM, OpenDMARC, the same two lists and expressions (guarded.py). Microseconds of CPU per message, "
        "medians of rounds in turn; the edge alone and with the broker; all of Postfix's helpers. One Unbound "
        "answers all and is not counted."
    )
    yield ""
    yield _cells("per connection", "system", "edge, or all", "with the broker", "messages/s", "beside Postfix")
    yield "|" + "---|" * 6
    for row in results.policy:
        theirs = _total(row, next(name for name in row.samples if name.startswith("postfix")))
        for name, samples in row.samples.items():
            edge = statistics.median(sample.us.get("edge", sample.total) for sample in samples)
            rate = statistics.median(sample.per_second for sample in samples)
            total = _total(row, name)
            yield _cells(
                row.per_connection, name, f"{edge:.0f}", f"{total:.0f}", f"{rate:.0f}", f"{total / theirs:.2f}"
            )
    yield ""


def _total(row: Row, name: str) -> float:
    return statistics.median(sample.total for sample in row.samples[name])


# -- waiting mail


def _deferred(results: Results) -> Iterable[str]:
    deferred = results.deferred
    if deferred is None:
        return
    few, many = (start.waiting for start in deferred.starts)
    rounds = len(pair_ratios(deferred, broker=False))
    yield "## Waiting mail"
    yield ""
    yield (
        f"CPU per message, accept -> Maildir, 50 per connection, beside {many:,} deferred copies divided by that "
        f"beside {few:,}: two installations on one broker, in turn, {rounds} rounds."
    )
    yield ""
    yield _cells(
        "what", "target", "median of the rounds' ratios", "smallest-largest", "met", f"{few:,}", f"{many:,}"
    )
    yield "|" + "---|" * 7
    for what, broker in (("edge, router, mailbox, relay", False), ("with the broker", True)):
        single = pair_ratios(deferred, broker=broker)
        ratio = statistics.median(single)
        target, met = ("-", "-") if broker else (f"<= {TARGET:g}", "yes" if ratio <= TARGET else "**no**")
        us = medians(deferred, broker=broker)
        yield _cells(
            *(what, target, f"**{ratio:.3f}**", f"{min(single):.2f}-{max(single):.2f}", met),
            *(f"{us[name]:.0f} us" for name in (deferred.few, deferred.many)),
        )
    yield ""
    yield _cells(
        "a relay's start beside", "ready after", "CPU until then", f"CPU in {SETTLE_S:.0f} s more", "memory"
    )
    yield "|" + "---|" * 5
    for start in deferred.starts:
        yield _cells(
            *(
                f"{start.waiting:,} waiting",
                f"{start.seconds_until_ready:.1f} s",
                f"{start.cpu_until_ready_s:.2f} s",
            ),
            *(f"{start.cpu_settling_s:.2f} s", f"{start.resident_mib:.0f} MiB"),
        )
    yield ""


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


def _maker_of_python() -> str:
    """Whose build it is, where that is known: it makes a difference of up to a fifth."""
    return " as Debian builds it" if sys.base_prefix == "/usr" and Path("/etc/debian_version").exists() else ""


def _circumstances(results: Results) -> Iterable[str]:
    yield "## Circumstances"
    yield ""
    yield f"* {_hardware()}; {_system()}; load average before the run {results.load_before:.1f}."
    yield (
        f"* Python {platform.python_version()}{_maker_of_python()}, {results.code}, "
        + ", ".join(
            f"{name} {importlib.metadata.version(name)}"
            for name in ("aiokafka", "confluent-kafka", "uvloop", "aiosmtpd")
        )
        + f"; Kafka {KAFKA_VERSION} on {_first_line('java', '--version')}"
        + "".join(f"; {version}" for version in results.versions.values())
        + "."
    )
    yield (
        f"* {results.rounds} rounds; 20 sessions of smtp-source with messages of 4 KB for five mailboxes; its CPU "
        f"is not counted. {_counts(results)}Recipients are verified (Gatepost: an LDIF directory in memory; the "
        "others: a table); Gatepost's events are written and 1 % of its messages are traced; in each server every "
        "step of a message is a log line in a file. Content is not checked, and there is no TLS."
    )
    yield (
        f"* The broker is one JVM (serial collector, 256 MB heap, both compilers) with replication 1, warmed up "
        f"until its CPU per message fell no more ({results.warm_messages} messages in all, one per connection). "
        "Three replicas cost about three times its share."
    )
    yield (
        "* Durability at 250: Postfix has synced its queue file, Exim its two spool files; Haraka has synced its "
        "queue file and renamed it, without syncing the folder. Gatepost on Kafka has an acks=all "
        "acknowledgement, which is not a synced disk; in the rows `flushing` the topics have flush.messages=1, so "
        "that the broker syncs before it acknowledges. Gatepost standalone has synced SQLite's log. In the "
        "mailboxes all have synced; Haraka's mailboxes are Dovecot's, by LMTP, and Dovecot's CPU is part of its."
    )
    if OTHERS.keys() & results.versions.keys():
        yield (
            "* Exim's CPU is that of a control group: its daemon ignores the ends of its children, so no parent "
            "shows what they used. It delivers with its privileges dropped (deliver_drop_privilege), which spares "
            "it executing itself again for each message, and every message of a connection at once. Haraka runs "
            "two workers."
        )
    yield "* Postfix's accept rows put mail on hold, so that only smtpd and cleanup work."
    yield (
        "* Everything speaks over the loopback interface of one machine, so bandwidth is no limit and a network "
        "adds nothing; on a line every figure has the line's limit as well. Load collapses near a limit: no figure "
        "here is extrapolated, neither to more users, cores or brokers nor to another network."
    )
    yield ""


def _counts(results: Results) -> str:
    """How many messages each system got in a round of the rows until delivery."""
    by_system: dict[str, list[str]] = {}
    for row in results.rows:
        for name, samples in row.samples.items() if row.deliver else ():
            by_system.setdefault(name, []).append(f"{samples[0].messages} at {row.per_connection} per connection")
    by_count: dict[str, list[str]] = {}
    for name, counts in by_system.items():
        by_count.setdefault(", ".join(dict.fromkeys(counts)), []).append(name)
    said = "; ".join(f"{', '.join(names)}: {counts}" for counts, names in by_count.items())
    return f"Messages of a round until delivered: {said}. " if said else ""


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
