"""Header, charset and attachment rules at work: one Inspector that searches the message while it comes.

    content     each piece goes through the search (core/content_search.py), where more is asked for than headers
    conclude    behind the final dot: the header's rules, archives in a thread with a deadline, then the verdicts

What is to be left out of the message is noted with the transaction, and stands in the envelope (docs/adr/0011).
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, BinaryIO, Final, cast

import structlog

from gatepost.core.archives import Budget, Looking, OpaqueArchive
from gatepost.core.checks import attachments, charset
from gatepost.core.checks.attachments import AttachmentTable, FileHit, Opaque
from gatepost.core.checks.verdict import Verdict
from gatepost.core.content_search import Archive, ContentSearch, Found
from gatepost.core.content_tables import ContentTables
from gatepost.core.data_reader import DataReader
from gatepost.core.headers import read_header
from gatepost.core.manifest.actions import Action
from gatepost.core.removal import Whole, removal
from gatepost.core.reply import Reply
from gatepost.edge import journal
from gatepost.telemetry import metrics

if TYPE_CHECKING:
    from gatepost.edge.session import Session
    from gatepost.edge.transaction import Transaction

# Seconds for all archives of a message. What is not looked into by then is opaque; if others had all the time, the
# client is asked to come again.
DEADLINE: Final = 10.0
# Octets of an archive that are kept in memory; above that it lies in an unlinked file.
IN_MEMORY: Final = 32 * 1024
# Messages of a process whose archives are looked into at the same time; others wait, within their deadline.
THREADS: Final = 2

_log = structlog.get_logger("gatepost.edge")
_threads = ThreadPoolExecutor(THREADS, "archives")  # started with the first archive


class ContentRules:
    """Of one message."""

    def __init__(self, session: Session, transaction: Transaction, tables: ContentTables) -> None:
        self._session, self._transaction, self._tables = session, transaction, tables
        self._search: ContentSearch | None = None
        self._look: _Look | None = None
        if tables.searches:
            charset = None if self._is_exempt else tables.charset
            if charset is not None or tables.attachments is not None:
                self._search = ContentSearch(tables.attachments, charset, scratch)

    def content(self, reader: DataReader, piece: bytes) -> None:
        if self._search is not None:
            self._search.feed(piece)

    async def conclude(self, reader: DataReader) -> Reply | Sequence[Verdict]:
        verdicts = self._header(reader)
        search = self._search
        if search is not None:
            search.finish()
            finding = search.found.finding
            if self._tables.charset is not None and finding is not None and not self._is_exempt:
                verdicts.append(charset.verdict(self._tables.charset, finding))
            if self._tables.attachments is not None:
                found = await self._files(search.found, self._tables.attachments, reader)
                if isinstance(found, Reply):
                    return found
                verdicts += found
        for verdict in verdicts:
            journal.judged(self._session.server.deps, self._session, verdict)
        return verdicts

    def close(self) -> None:
        if self._search is not None:
            self._search.close()
        if self._look is not None:
            self._look.give_up()

    @property
    def _is_exempt(self) -> bool:
        """Whether the client is known to be good: then only files are looked at."""
        verdicts = self._session.verdicts
        return verdicts is not None and verdicts.is_exempt

    def _header(self, reader: DataReader) -> list[Verdict]:
        if self._is_exempt or (self._tables.headers is None and self._tables.charset is None):
            return []
        fields = read_header(bytes(reader.header))
        verdicts = [] if self._tables.headers is None else self._tables.headers.evaluate(fields)
        if self._tables.charset is not None:
            finding = charset.header_finding(self._tables.charset, fields)
            if finding is not None:
                verdicts.append(charset.verdict(self._tables.charset, finding))
        return verdicts

    async def _files(self, found: Found, table: AttachmentTable, reader: DataReader) -> Reply | list[Verdict]:
        if found.archives:
            self._look = _Look(found.archives, table)
            if not await self._look.wait():
                return attachments.ARCHIVES_BUSY
            found.add(self._look.found)
        removed = list(found.removed.values())
        judged = attachments.evaluate(
            table.policy, found.hits, found.opaque, found.defects, [one.hit for one in removed]
        )
        if removed and not isinstance(judged, Reply):
            whole = Whole(bytes(reader.header), reader.header_complete, reader.size)
            self._transaction.removal = removal(
                [(one.what, one.hit.archive or one.hit.name) for one in removed], table.policy.note, whole
            )
        return judged


class _Look:
    """Looks into the archives of a message, in a thread. Takes them over: it closes each, whatever comes."""

    def __init__(self, archives: list[Archive], table: AttachmentTable) -> None:
        self._archives, self._table = list(archives), table
        archives.clear()
        self._late = time.monotonic() + DEADLINE
        self._given_up = False
        self.found = Found()
        self._job = _threads.submit(self._run)

    async def wait(self) -> bool:
        """Until all are looked into, or the time is up. False: nothing was looked at, for others took it all."""
        future = asyncio.wrap_future(self._job)
        done, _ = await asyncio.wait({future}, timeout=DEADLINE)
        outcome = "looked"
        if not done:
            if self.give_up():
                metrics.ARCHIVES.add("busy")
                return False
            self.found.opaque.append(Opaque("archives", 0, "it takes too long to look into"))
            outcome = "late"
        elif (error := future.exception()) is not None:
            _log.error("internal error in archives", exc_info=error)
            self.found.opaque.append(Opaque("archives", 0, "damaged"))
            outcome = "failed"
        elif self.found.opaque:
            outcome = "opaque"
        metrics.ARCHIVES.add(outcome)
        return True

    def give_up(self) -> bool:
        """Nobody waits any more: a thread stops at its next step. Again is fine. True when none had begun."""
        self._given_up = True
        if self._job.cancel():
            self._close()
            return True
        return False

    def _is_late(self) -> bool:
        return self._given_up or time.monotonic() > self._late

    def _run(self) -> None:
        try:
            budget = Budget(self._is_late)
            for archive in self._archives:
                self._into(archive, budget)
        finally:
            self._close()

    def _into(self, archive: Archive, budget: Budget) -> None:
        number = archive.outer.number
        removes = False

        def note(name: str) -> None:
            nonlocal removes
            if not self._given_up:
                for hit in self._table.hits(name, number, archive.name):
                    self.found.hit(hit)
            if not removes and self._table.removes(name):
                removes = True
                self.found.remove(archive.outer, FileHit("remove", Action.TAG, name, number, archive.name))

        try:
            Looking(budget, note, scratch).look(archive.file, archive.name)
        except OpaqueArchive as error:
            self.found.opaque.append(Opaque(archive.name, number, error.reason))

    def _close(self) -> None:
        for archive in self._archives:
            archive.file.close()


def scratch() -> BinaryIO:
    """A file for an archive, in memory while it is small. Raises OSError."""
    return cast(BinaryIO, tempfile.SpooledTemporaryFile(IN_MEMORY))


def begin(session: Session, transaction: Transaction) -> ContentRules | None:
    """The content comes. None where the policy has no such rules."""
    tables = (transaction.layer or transaction.table.plain).rules
    return None if tables is None else ContentRules(session, transaction, tables)
