"""The embedded log's file: opening it for one process alone, its tables, and what it must not be.

A row's id is the stream's number and the offset in one integer, so the table's own order is the order of every
partition and no second index is needed. `latest` has the newest offset of each key of compacted topics.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import uuid
from pathlib import Path
from typing import Final

import msgspec

from gatepost.backends.log_sqlite.stream import MAX_OFFSET, OFFSET_BITS, Stream
from gatepost.core.ports.log import Cleanup, LogError, LogUnavailable, TopicSpec

_APPLICATION_ID: Final = 0x47504C47  # "GPLG"
_VERSION: Final = 1

# 40 MB of 4 KiB pages: with SQLite's default of 1,000 the writer would spend most of its time in checkpoints.
_WAL_PAGES: Final = 10_000
# Checking a file of this size takes about a second; a larger one shows its damage when the place is read.
_CHECK_BYTES: Final = 256 * 1024 * 1024

_SCHEMA: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE topics (
  name TEXT PRIMARY KEY, cleanup TEXT NOT NULL, partitions INTEGER NOT NULL, retention_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE streams (
  number INTEGER PRIMARY KEY, topic TEXT NOT NULL, partition INTEGER NOT NULL, start INTEGER NOT NULL DEFAULT 0,
  UNIQUE (topic, partition)
);
CREATE TABLE records (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, key BLOB, headers BLOB, value BLOB);
CREATE TABLE latest (
  stream INTEGER NOT NULL, key BLOB NOT NULL, offset INTEGER NOT NULL, PRIMARY KEY (stream, key)
) WITHOUT ROWID;
CREATE TABLE commits (
  topic TEXT NOT NULL, grp TEXT NOT NULL, partition INTEGER NOT NULL, position INTEGER NOT NULL,
  metadata TEXT NOT NULL, PRIMARY KEY (topic, grp, partition)
) WITHOUT ROWID;
"""


class Lock:
    """Keeps other processes away from a log's file for as long as this process lives or until release()."""

    def __init__(self, path: Path) -> None:
        """Raises LogUnavailable when another process has it, or the folder cannot be written."""
        self._path = path.with_name(path.name + ".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LogUnavailable(f"the log {path} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.read(self._handle, 20).decode("ascii", "replace").strip()
            os.close(self._handle)
            raise LogUnavailable(
                f"the log {path} is in use by another process (pid {owner or 'unknown'}): "
                "an embedded log belongs to one process"
            ) from None
        os.truncate(self._handle, 0)
        os.pwrite(self._handle, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        os.close(self._handle)


class Contents(msgspec.Struct):
    """What is known of a log's file once it is open."""

    instance: str
    topics: dict[str, TopicSpec]
    streams: list[Stream]


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Open or create a log's file. Raises LogUnavailable, naming damage and what to do about it."""
    new = not path.exists() or path.stat().st_size == 0
    try:
        if new:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        connection = connect(path)
    except (OSError, sqlite3.Error) as error:
        raise LogUnavailable(f"the log {path} cannot be opened: {error}") from error
    try:
        if new:
            _create(connection)
            _sync_folder(path.parent)
        _check(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
    except sqlite3.Error as error:
        connection.close()
        raise damaged(path, error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=30.0,
    )
    connection.execute("PRAGMA foreign_keys = OFF")
    return connection


def damaged(path: Path, error: sqlite3.Error) -> LogError:
    """Return what to tell the operator of an error of SQLite's."""
    text = str(error)
    if "malformed" in text or "not a database" in text or "damaged" in text:
        return LogUnavailable(
            f"the log {path} is damaged ({text}): stop this process, keep a copy, and restore it from a backup "
            "or recover it with `sqlite3 FILE .recover`"
        )
    return LogUnavailable(f"the log {path} cannot be used: {text}")


def read_contents(connection: sqlite3.Connection) -> Contents:
    """Read what is in an open file. Raises sqlite3.Error."""
    instance = connection.execute("SELECT value FROM meta WHERE name = 'instance'").fetchone()[0]
    topics = {
        name: TopicSpec(name, Cleanup(cleanup), partitions, retention_ms)
        for name, cleanup, partitions, retention_ms in connection.execute(
            "SELECT name, cleanup, partitions, retention_ms FROM topics"
        )
    }
    streams = []
    rows = connection.execute("SELECT number, topic, partition, start FROM streams ORDER BY number").fetchall()
    for number, topic, partition, start in rows:
        base = number << OFFSET_BITS
        last = connection.execute(
            "SELECT id FROM records WHERE id BETWEEN ? AND ? ORDER BY id DESC LIMIT 1", (base, base + MAX_OFFSET)
        ).fetchone()
        end = max(start, last[0] - base + 1 if last else 0)
        streams.append(Stream(number, topic, partition, start, end, is_compacted(topics[topic])))
    return Contents(instance, topics, streams)


def is_compacted(spec: TopicSpec) -> bool:
    return spec.cleanup in (Cleanup.COMPACT, Cleanup.COMPACT_EXPIRE)


def _create(connection: sqlite3.Connection) -> None:
    # Space of removed records can be given back to the file system (auto_vacuum must be set before any table).
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    connection.execute("BEGIN IMMEDIATE")
    for statement in _SCHEMA.split(";"):
        connection.execute(statement)
    connection.execute("INSERT INTO meta VALUES ('instance', ?)", (uuid.uuid4().hex,))
    connection.execute(f"PRAGMA user_version = {_VERSION}")
    connection.execute("COMMIT")


def _check(connection: sqlite3.Connection, path: Path) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != _APPLICATION_ID:
        raise LogUnavailable(f"{path} is a SQLite file of another program, not a log")
    if version != _VERSION:
        raise LogUnavailable(f"the log {path} has version {version}; this program reads version {_VERSION}")
    if path.stat().st_size <= _CHECK_BYTES:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(f"damaged: {verdict}")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
