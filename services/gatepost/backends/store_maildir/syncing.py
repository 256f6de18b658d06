"""Making a batch durable: one syncfs for all of it where the system has that, else fsync one by one."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable
from typing import Protocol


class Syncer(Protocol):
    """Raises OSError when something could not be made durable.

    `needs_files`: whether the files must still be open then.
    """

    needs_files: bool

    def sync(self, files: Iterable[int], folders: Iterable[str]) -> None:
        """Make these open files' content and these folders' entries (paths below the root) durable."""


class WholeFileSystem:
    """syncfs(2): one call however many files; reports write errors since Linux 5.8."""

    needs_files = False

    def __init__(self, root: int, call: Callable[[int], int]) -> None:
        self._root = root
        self._call = call

    def sync(self, files: Iterable[int], folders: Iterable[str]) -> None:
        if self._call(self._root) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


class OneByOne:
    """fsync(2) of every file and every folder; a folder that somebody removed meanwhile is passed over."""

    needs_files = True

    def __init__(self, root: int) -> None:
        self._root = root

    def sync(self, files: Iterable[int], folders: Iterable[str]) -> None:
        for file in files:
            os.fsync(file)
        for folder in folders:
            try:
                handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._root)
            except FileNotFoundError:
                continue
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def best_syncer(root: int) -> Syncer:
    """Return the cheaper way that works for the file system of the open folder `root`."""
    try:
        call = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError):
        return OneByOne(root)
    call.argtypes = [ctypes.c_int]
    call.restype = ctypes.c_int
    whole = WholeFileSystem(root, call)
    try:
        whole.sync((), ())
    except OSError:
        return OneByOne(root)
    return whole
