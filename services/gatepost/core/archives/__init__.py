"""The file names in archives, and in archives within them, read within limits: pure functions over open files."""

from gatepost.core.archives.budget import Budget, OpaqueArchive
from gatepost.core.archives.kinds import Kind, archive_kind, is_archive_name
from gatepost.core.archives.looking import Looking

__all__ = ["Budget", "Kind", "Looking", "OpaqueArchive", "archive_kind", "is_archive_name"]
