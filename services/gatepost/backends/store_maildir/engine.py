"""The blocking half of a Maildir store: the three steps of a batch, in the store's one worker thread."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import structlog

from gatepost.backends.store_maildir.ledger import Ledger
from gatepost.backends.store_maildir.naming import file_name, host_part, mailbox_fault
from gatepost.backends.store_maildir.syncing import best_syncer
from gatepost.core.ids import is_id
from gatepost.core.ports.content import Body
from gatepost.core.ports.store import StoreOutcome, StoreResult

STAGING: Final = ".staging"
LEDGER: Final = ".ledger"
LOCK: Final = ".lock"

STORED: Final = StoreResult(StoreOutcome.STORED)
# RFC 3463 3.4: X.3.1 mail system full; X.3.0 other mail system status.
_FULL: Final = StoreResult(StoreOutcome.DEFERRED, 452, "4.3.1", "The mailbox store is full or failing")
_FAILED: Final = StoreResult(StoreOutcome.DEFERRED, 451, "4.3.0", "The mailbox cannot be written now")
_FULL_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG})

_log = structlog.get_logger("gatepost.store")


class StoreOwned(OSError):
    """Another process has this store open. A store has one owner: the ledger is in its memory."""


class Job:
    """One delivery on its way. `file` is its open staging file, else -1; `written` the bytes in it."""

    __slots__ = ("body", "file", "id", "mailbox", "prepend", "result", "size", "staged", "written")

    def __init__(self, message_id: str, mailbox: str, prepend: bytes, body: Body) -> None:
        self.id = message_id
        self.mailbox = mailbox
        self.prepend = prepend
        self.body = body
        self.size = len(prepend) + body.size
        self.file = -1
        self.written = 0
        self.staged = False  # whether it has a staging file that the ledger knows nothing of
        self.result: StoreResult | None = None


class Engine:
    """Owns the store's folder from open() to close(). Every method may block; none is thread-safe."""

    def __init__(self, root: Path, keep_ms: int, hostname: str, now_ms: Callable[[], int]) -> None:
        self._root_path = root
        self._host = host_part(hostname)
        self.ledger = Ledger(str(root / LEDGER), keep_ms, now_ms)
        self._root = self._staging = self._lock = -1
        self._known: set[str] = set()
        self._in_doubt: list[str] = []

    def open(self) -> None:
        """Lock the store, read the ledger, remove what a crash left. Raises StoreOwned and OSError."""
        for folder in (self._root_path, self._root_path / STAGING):
            folder.mkdir(0o700, parents=True, exist_ok=True)
        directory = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        self._root = os.open(self._root_path, directory)
        self._staging = os.open(STAGING, directory, dir_fd=self._root)
        self._lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self._root)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreOwned(f"the Maildir store {self._root_path} is in use by another process") from None
        self._syncer = best_syncer(self._root)
        self.ledger.open()
        for name in os.listdir(self._staging):
            if not is_id(name) or name not in self.ledger:
                os.unlink(name, dir_fd=self._staging)
        # A predecessor that was killed may have published without its last sync.
        self._syncer.sync((), (".", STAGING))

    def close(self) -> None:
        self.ledger.close()
        for handle in (self._staging, self._root, self._lock):
            if handle >= 0:
                os.close(handle)
        self._root = self._staging = self._lock = -1

    # --- a large message is written piece by piece before it joins a batch ---

    def begin(self, job: Job) -> bool:
        """Open the staging file of a large message; False when the batch shall decide without its bytes.

        That is so for an id that the ledger knows and for every fault.
        """
        try:
            if self._refusal(job) or job.id in self.ledger:
                return False
            self._settle()
            self._create(job)
            self._write(job, [job.prepend])
        except OSError as error:
            self._fail(job, error)
            return False
        return True

    def add(self, job: Job, piece: bytes) -> bool:
        """Write a piece; False after a fault, which is then the job's result."""
        try:
            self._write(job, [piece])
        except OSError as error:
            self._fail(job, error)
            return False
        return True

    def abandon(self, job: Job) -> None:
        """Give a large message up whose bytes could not be read."""
        self._discard(job)
        job.result = _FAILED

    # --- a batch ---

    def deliver(self, jobs: Sequence[Job]) -> None:
        """Give every job its result. Raises nothing for a fault of the disk: those jobs are DEFERRED."""
        try:
            self._settle()
            self.ledger.rotate()
        except OSError as error:
            self._fail_all(jobs, error)
            return
        repeated = [job for job in jobs if not self._refusal(job) and job.id in self.ledger]
        fresh = [job for job in jobs if job.result is None and job.id not in self.ledger]
        self.stage(fresh)
        self.record([job for job in fresh if job.result is None])
        self.publish([job for job in fresh if job.result is None], repeated)

    def stage(self, jobs: Sequence[Job]) -> None:
        """Step 1: all bytes durable in `.staging`, and the mailboxes' folders made."""
        folders = {STAGING}
        for job in jobs:
            try:
                folders.update(self._make_mailbox(job.mailbox))
                if not job.staged:
                    self._create(job)
                    self._write(job, [job.prepend, job.body.whole()])
                if job.written != job.size:
                    raise OSError(errno.EIO, "the body has not the size that it says")
                if not self._syncer.needs_files:
                    self._close_file(job)
            except OSError as error:
                self._fail(job, error)
            except Exception:
                # A body that cannot be read is this one delivery's trouble.
                _log.exception("body_unreadable", id=job.id)
                self.abandon(job)
        good = [job for job in jobs if job.result is None]
        if not good:
            return
        try:
            self._syncer.sync((job.file for job in good), folders)
        except OSError as error:
            self._fail_all(good, error)
        for job in good:
            self._close_file(job)

    def record(self, jobs: Sequence[Job]) -> None:
        """Step 2: the ids durable in the ledger."""
        if not jobs:
            return
        for job in jobs:
            job.staged = False
        try:
            self.ledger.append([job.id for job in jobs])
        except OSError as error:
            # The ids may be on disk: the staged files stay until the ledger was repaired, or a start after
            # a crash would take "in the ledger, not staged" for published.
            self._in_doubt += [job.id for job in jobs]
            for job in jobs:
                job.result = _result_of(error)
            _log.error("ledger_failed", store=str(self._root_path), reason=str(error))

    def publish(self, fresh: Sequence[Job], repeated: Sequence[Job]) -> None:
        """Step 3: every staged file in its mailbox's `new/`, durably."""
        done: list[Job] = []
        folders = {STAGING}
        for job in fresh:
            if self._publish_one(job, folders):
                done.append(job)
        for job in repeated:
            if not self._is_staged(job):
                # Published by a predecessor, perhaps without its last sync.
                folders.add(f"{job.mailbox}/new")
                done.append(job)
            elif self._publish_one(job, folders):
                done.append(job)
        if not done:
            return
        try:
            self._syncer.sync((), folders)
            result = STORED
        except OSError as error:
            _log.error("store_sync_failed", store=str(self._root_path), reason=str(error))
            result = _result_of(error)
        for job in done:
            job.result = result

    # --- parts ---

    def _publish_one(self, job: Job, folders: set[str]) -> bool:
        target = f"{job.mailbox}/new/{file_name(job.id, self._host, job.size)}"
        try:
            try:
                os.rename(job.id, target, src_dir_fd=self._staging, dst_dir_fd=self._root)
            except FileNotFoundError:
                # Somebody removed the mailbox's folder since it was made.
                self._known.discard(job.mailbox)
                folders.update(self._make_mailbox(job.mailbox))
                os.rename(job.id, target, src_dir_fd=self._staging, dst_dir_fd=self._root)
        except OSError as error:
            # It stays staged and in the ledger: the next attempt only renames.
            job.result = _result_of(error)
            _log.error("mailbox_unwritable", mailbox=job.mailbox, id=job.id, reason=str(error))
            return False
        folders.add(f"{job.mailbox}/new")
        return True

    def _is_staged(self, job: Job) -> bool:
        try:
            os.stat(job.id, dir_fd=self._staging, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def _settle(self) -> None:
        """Repair the ledger after a failed append; then its staged files stand for nothing. Raises OSError."""
        self.ledger.repair()
        for message_id in self._in_doubt:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(message_id, dir_fd=self._staging)
        self._in_doubt.clear()

    def _refusal(self, job: Job) -> bool:
        """Whether the job has a result already, or gets one because of its names."""
        if job.result is None:
            fault = mailbox_fault(job.mailbox)
            if fault:
                # RFC 3463 3.2: X.1.3 bad destination mailbox address syntax.
                job.result = StoreResult(StoreOutcome.REFUSED, 553, "5.1.3", fault.capitalize())
            elif not is_id(job.id):
                job.result = _FAILED
        return job.result is not None

    def _make_mailbox(self, mailbox: str) -> Iterable[str]:
        """Make a Maildir where there is none; return the folders whose entries are new."""
        if mailbox in self._known:
            return ()
        made = []
        for folder in (mailbox, *(f"{mailbox}/{part}" for part in ("tmp", "new", "cur"))):
            try:
                os.mkdir(folder, 0o700, dir_fd=self._root)
                made.append(folder)
            except FileExistsError:
                continue
        self._known.add(mailbox)
        return (".", *made) if made else ()

    def _create(self, job: Job) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        job.file = os.open(job.id, flags, 0o600, dir_fd=self._staging)
        job.staged = True

    def _write(self, job: Job, parts: list[bytes]) -> None:
        """Write all parts, however little a single call takes (a nearly full disk)."""
        wanted = sum(map(len, parts))
        written = os.writev(job.file, parts)
        if written < wanted:
            view = memoryview(b"".join(parts))[written:]
            while view:
                view = view[os.write(job.file, view) :]
        job.written += wanted

    def _close_file(self, job: Job) -> None:
        if job.file >= 0:
            os.close(job.file)
            job.file = -1

    def _discard(self, job: Job) -> None:
        """Remove a staged file whose id is not in the ledger."""
        self._close_file(job)
        if job.staged:
            job.staged = False
            with contextlib.suppress(OSError):
                os.unlink(job.id, dir_fd=self._staging)

    def _fail(self, job: Job, error: OSError) -> None:
        self._discard(job)
        job.result = _result_of(error)
        _log.error("store_write_failed", mailbox=job.mailbox, id=job.id, reason=str(error))

    def _fail_all(self, jobs: Iterable[Job], error: OSError) -> None:
        for job in jobs:
            if job.result is None:
                self._discard(job)
                job.result = _result_of(error)
        _log.error("store_failed", store=str(self._root_path), reason=str(error))


def _result_of(error: OSError) -> StoreResult:
    return _FULL if error.errno in _FULL_ERRORS else _FAILED
