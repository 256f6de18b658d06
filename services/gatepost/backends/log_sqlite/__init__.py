"""The embedded log, for one machine: SQLite in WAL mode, synced before an append returns."""

from gatepost.backends.log_sqlite.log import SqliteLog

__all__ = ["SqliteLog"]
