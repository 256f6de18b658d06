"""Scanners at work: each gets the message while it comes, and is asked for its result behind the final dot.

    content     the first piece opens a connection to each scanner; what one has not taken yet is held, and above
                MOST_HELD the client waits, so that a slow scanner costs time and no memory
    ended       the final dot: from now on each has its own `timeout`, all of them at the same time
    conclude    the results, as verdicts

A scanner that takes nothing for its `timeout` while the client waits is given up; the message goes on without it,
as `onError` says. A result that comes before the scanner has taken all of the message is worth nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import structlog

from gatepost.core.checks.scanners import NoResult, Outcome, ScannerPolicy, evaluate, label
from gatepost.core.checks.verdict import Verdict
from gatepost.core.data_reader import DataReader
from gatepost.core.ports.scanner import ScanFacts, ScannerRefused, ScannerUnavailable
from gatepost.core.reply import Reply
from gatepost.edge import journal
from gatepost.edge.client_verdicts import is_own
from gatepost.telemetry import metrics

if TYPE_CHECKING:
    from gatepost.edge.session import Session
    from gatepost.edge.transaction import Transaction

# Bytes that one scan holds of a message before its client waits; one read of the socket (256 KiB) comes on top.
MOST_HELD: Final = 128 * 1024

_log = structlog.get_logger("gatepost.edge")


class Feed:
    """A message on its way to one scanner: an iterator over what has come, which waits for more.

    `on_room` is called, from the loop, when a feed that was `behind` was emptied.
    """

    def __init__(self, on_room: Callable[[], None]) -> None:
        self._on_room = on_room
        self._pieces: list[bytes] = []
        self._held = 0
        self._ended = self.exhausted = self._was_behind = False
        self._more = asyncio.Event()

    @property
    def behind(self) -> bool:
        return self._held > MOST_HELD

    def add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._held += len(piece)
        self._was_behind = self.behind
        self._more.set()

    def end(self) -> None:
        """Nothing more comes."""
        self._ended = True
        self._more.set()

    def drop(self) -> None:
        """Nobody takes it any more."""
        self._take()

    def __aiter__(self) -> Feed:
        return self

    async def __anext__(self) -> bytes:
        while not self._pieces:
            if self._ended:
                self.exhausted = True
                raise StopAsyncIteration
            self._more.clear()
            await self._more.wait()  # the client's own limits bound it
        return self._take()

    def _take(self) -> bytes:
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces, self._held = [], 0
        if self._was_behind:
            self._was_behind = False
            asyncio.get_running_loop().call_soon(self._on_room)
        return data


class _Scan:
    """One message at one scanner. `outcome` once it is known."""

    def __init__(self, session: Session, transaction: Transaction, policy: ScannerPolicy) -> None:
        self._session, self._transaction, self.policy = session, transaction, policy
        self._loop, self._scanners = session.loop, session.server.deps.scanners
        self._feed = Feed(self._room)
        self._task: asyncio.Task[None] | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._size = 0
        self._ended_at: float | None = None
        self._done_at = 0.0
        self.outcome: Outcome | None = None
        if transaction.mail.size > policy.max_size:
            self._settle(NoResult.TOO_LARGE)

    @property
    def behind(self) -> bool:
        return self._feed.behind

    @property
    def seconds(self) -> float:
        """From the final dot to the outcome."""
        return max(0.0, self._done_at - (self._ended_at or self._done_at))

    def add(self, piece: bytes) -> None:
        if self.outcome is not None:
            return
        self._size += len(piece)
        if self._size > self.policy.max_size:
            self._settle(NoResult.TOO_LARGE)
            return
        self._begin()
        self._feed.add(piece)
        if self._feed.behind and self._stall is None:
            self._stall = self._loop.call_later(self.policy.timeout, self._stalled)

    def end(self) -> None:
        if self._ended_at is None:
            self._ended_at = self._loop.time()
            if self.outcome is None:
                self._begin()
                self._feed.end()

    async def result(self) -> Outcome:
        """The outcome, within `timeout` from the end."""
        if self.outcome is None and self._task is not None and self._ended_at is not None:
            left = self._ended_at + self.policy.timeout - self._loop.time()
            await asyncio.wait({self._task}, timeout=max(0.0, left))
        if self.outcome is None:
            self._settle(NoResult.LATE)
        assert self.outcome is not None
        return self.outcome

    def close(self) -> None:
        """Nobody asks any more; again is fine."""
        if self._task is not None:
            self._task.cancel()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        self._feed.drop()

    def _begin(self) -> None:
        if self._task is None:
            self._task = self._loop.create_task(self._run())

    async def _run(self) -> None:
        outcome: Outcome = NoResult.UNAVAILABLE
        try:
            if self._scanners is None:
                raise ScannerUnavailable("this process has no scanners")
            outcome = await self._scanners.scan(self.policy.where, self._facts(), self._feed)
            if not self._feed.exhausted:
                raise ScannerUnavailable(f"{self.policy.where.address} answered before it had the whole message")
        except ScannerRefused as error:
            outcome = NoResult.REFUSED
            self._warn(error)
        except ScannerUnavailable as error:
            outcome = NoResult.UNAVAILABLE
            self._warn(error)
        except Exception:
            outcome = NoResult.UNAVAILABLE
            _log.exception("internal error in a scan", scanner=self.policy.where.address)
        if self.outcome is None:
            self._settle(outcome)

    def _warn(self, error: Exception) -> None:
        _log.warning("not scanned", id=self._session.id, check=self.policy.check, reason=str(error))

    def _facts(self) -> ScanFacts:
        session, transaction = self._session, self._transaction
        return ScanFacts(
            session.id,
            "" if transaction.mail.address is None else str(transaction.mail.address),
            tuple(recipient.address for recipient in transaction.recipients.values()),
            session.client,
            session.client_name,
            session.helo,
            "" if session.account is None else session.account.name,
        )

    def _settle(self, outcome: Outcome) -> None:
        self.outcome, self._done_at = outcome, self._loop.time()
        if isinstance(outcome, NoResult):
            self.close()  # the rest of the message is not for this scanner

    def _stalled(self) -> None:
        """`timeout` is over since the client began to wait for this scanner."""
        self._stall = None
        if self.outcome is None:
            _log.warning(
                "not scanned", id=self._session.id, check=self.policy.check, reason="the scanner stands still"
            )
            self._settle(NoResult.LATE)

    def _room(self) -> None:
        if self._stall is not None and not self._feed.behind:
            self._stall.cancel()
            self._stall = None
        incoming = self._session.incoming
        if incoming is not None and not incoming.behind:
            self._session.room()


class Scanning:
    """An Inspector: all scanners of one transaction."""

    def __init__(self, session: Session, transaction: Transaction, policies: Sequence[ScannerPolicy]) -> None:
        self._session, self._transaction = session, transaction
        self._scans = [_Scan(session, transaction, policy) for policy in policies]

    @property
    def behind(self) -> bool:
        """Whether the client should wait."""
        return any(scan.behind for scan in self._scans)

    def content(self, reader: DataReader, piece: bytes) -> None:
        for scan in self._scans:
            scan.add(piece)

    def ended(self) -> None:
        """All of the message is here; again is fine."""
        for scan in self._scans:
            scan.end()

    async def conclude(self, reader: DataReader) -> Reply | Sequence[Verdict]:
        """Wait for each, as long as its policy lets it; they work at the same time."""
        self.ended()
        verdicts = []
        for scan in self._scans:
            verdicts.append(self._verdict(scan, await scan.result()))
        return verdicts

    def close(self) -> None:
        for scan in self._scans:
            scan.close()

    def _verdict(self, scan: _Scan, outcome: Outcome) -> Verdict:
        session, verdict = self._session, evaluate(scan.policy, outcome)
        kind = scan.policy.where.kind.value
        metrics.SCANS.record(scan.seconds, session.listener.name, kind, label(outcome))
        self._transaction.event("scan", scanner=kind, result=label(outcome), seconds=round(scan.seconds, 4))
        # Also a clean result: that it was scanned is asked for.
        journal.judged(session.server.deps, session, verdict)
        return verdict


def begin(session: Session, transaction: Transaction, policies: Sequence[ScannerPolicy]) -> Scanning | None:
    """The content comes. None where no scanner is for this client."""
    own = is_own(session)
    wanted = [policy for policy in policies if policy.own_clients or not own]
    return Scanning(session, transaction, wanted) if wanted else None
