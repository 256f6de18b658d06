"""Looks into an archive and the archives in it, and tells each file's name."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO, Final

import rarfile

from gatepost.core.archives.budget import FREE, MAX_DEPTH, MAX_RATIO, Budget, OpaqueArchive
from gatepost.core.archives.kinds import HEAD, Kind, archive_kind, is_archive_name
from gatepost.core.archives.streams import CHUNK, Ahead, Decompressed, Stream
from gatepost.core.archives.tar import Tar
from gatepost.core.archives.tnef import tnef_names
from gatepost.core.archives.zips import METHODS, names_of, open_zip
from gatepost.core.mime.file_names import file_names

_GZIP_NAME: Final = 0x08
_GZIP_EXTRA: Final = 0x04
_PACKED: Final = (".gz", ".bz2", ".xz", ".z")
_TARS: Final = {".tgz": ".tar", ".tbz": ".tar", ".tbz2": ".tar", ".txz": ".tar"}


class Looking:
    """Of one message. `note` gets each cleaned name; `scratch` gives a file for an archive within an archive."""

    def __init__(self, budget: Budget, note: Callable[[str], None], scratch: Callable[[], BinaryIO]) -> None:
        self._budget, self._note, self._scratch = budget, note, scratch

    def look(self, file: BinaryIO, name: str) -> None:
        """Tell the names in an archive that `file` holds. Raises OpaqueArchive, and nothing else."""
        self._guarded(file, name, 1)

    def _guarded(self, file: BinaryIO, name: str, depth: int) -> None:
        try:
            self._look(file, name, depth)
        except OpaqueArchive:
            raise
        except Exception as error:  # whatever a library makes of hostile octets
            raise OpaqueArchive("damaged") from error

    def _look(self, file: BinaryIO, name: str, depth: int) -> None:
        file.seek(0)
        head = file.read(HEAD)
        kind = archive_kind(head, name)
        if depth > MAX_DEPTH:
            raise OpaqueArchive("archives within archives too deeply")
        file.seek(0)
        match kind:
            case Kind.ZIP:
                self._zip(file, depth)
            case Kind.TAR:
                self._tar(file, depth)
            case Kind.GZIP | Kind.BZIP2 | Kind.XZ:
                self._packed(file, kind, head, name, depth)
            case Kind.RAR:
                self._rar(file)
            case Kind.TNEF:
                for title in tnef_names(file):
                    self._budget.entry()
                    self._tell(title)
            case _:
                raise OpaqueArchive("damaged, or of a kind that is not looked into")

    def _tell(self, name: str) -> None:
        for one in file_names(name):
            self._note(one)

    # -- the kinds

    def _zip(self, file: BinaryIO, depth: int) -> None:
        fault = ""
        with open_zip(file) as archive:
            for entry in archive.infolist():
                self._budget.entry()
                for name in names_of(file, entry):
                    self._tell(name)
                fault = self._zip_entry(archive, entry, depth) or fault
        if fault:
            raise OpaqueArchive(fault)

    def _zip_entry(self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, depth: int) -> str:
        """Look into an archive within; why it cannot be, or nothing."""
        if entry.flag_bits & 1:
            return "encrypted"
        if entry.is_dir() or entry.file_size == 0:
            return ""
        if entry.compress_type not in METHODS:
            return "compressed in an unusual way" if is_archive_name(entry.filename) else ""
        with archive.open(entry) as stream:
            limit = max(FREE, entry.compress_size * MAX_RATIO)
            return self._within(stream, entry.filename, depth, limit)

    def _tar(self, stream: Stream, depth: int) -> None:
        tar, fault = Tar(stream), ""
        for member in tar:
            self._budget.entry()
            self._tell(member.name)
            if member.is_file and member.size:
                fault = self._within(tar, member.name, depth, member.size) or fault
        if fault:
            raise OpaqueArchive(fault)

    def _packed(self, file: BinaryIO, kind: Kind, head: bytes, name: str, depth: int) -> None:
        stream = Decompressed(file, kind, self._budget)
        start = stream.read(HEAD)
        inner = _unpacked_name(name)
        names = [inner, _gzip_name(head)] if kind is Kind.GZIP else [inner]
        if archive_kind(start) is Kind.TAR:
            self._tar(Ahead(start, stream), depth)
            return
        for one in names:
            self._tell(one)
        fault = self._within(Ahead(start, stream), inner, depth)
        if fault:
            raise OpaqueArchive(fault)

    def _rar(self, file: BinaryIO) -> None:
        faults: list[str] = []

        def found(entry: Any) -> None:
            self._budget.entry()
            if entry.filename:
                self._tell(entry.filename)
                if is_archive_name(entry.filename):
                    faults.append("an archive in a RAR archive")

        with rarfile.RarFile(file, info_callback=found, errors="strict", part_only=True) as archive:
            if archive.needs_password():
                raise OpaqueArchive("encrypted")
        if faults:
            raise OpaqueArchive(faults[0])

    # -- archives within

    def _within(self, stream: Stream | Any, name: str, depth: int, limit: int | None = None) -> str:
        """Look at what an entry holds, where it is an archive itself; why it cannot be, or nothing."""
        head = stream.read(HEAD)
        cleaned = next(iter(file_names(name)), "")
        if archive_kind(head, cleaned) is None:
            return ""
        with self._scratch() as file:
            written = 0
            while head:
                written += len(head)
                self._budget.decoded(len(head))
                if limit is not None and written > limit:
                    return "it unpacks to very much more than it is"
                file.write(head)
                head = stream.read(CHUNK)
            try:
                self._guarded(file, cleaned, depth + 1)
            except OpaqueArchive as error:
                return error.reason
        return ""


def _unpacked_name(name: str) -> str:
    """The name of what a packed file holds: "x.exe" of "x.exe.gz"."""
    lower = name.lower()
    for ending, instead in (*_TARS.items(), *((one, "") for one in _PACKED)):
        if lower.endswith(ending):
            return name[: -len(ending)] + instead
    return name


def _gzip_name(head: bytes) -> str:
    """The name in the header of gzip (RFC 1952 2.3), empty without one."""
    if len(head) < 10 or not head[3] & _GZIP_NAME:
        return ""
    at = 10
    if head[3] & _GZIP_EXTRA:
        at += 2 + int.from_bytes(head[10:12], "little")
    return head[at:].partition(b"\0")[0].decode("latin-1")
