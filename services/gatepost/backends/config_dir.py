"""The configuration from a directory of manifests, read again when a file changes.

A change with a fault is refused as a whole, with file, field and reason, and what was in force stays.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from gatepost.core.compile import Compiled, Surroundings, compile_manifests
from gatepost.core.configuration import Configuration
from gatepost.core.manifest.documents import read_objects
from gatepost.core.manifest.read import ManifestError
from gatepost.telemetry import metrics
from gatepost.telemetry.lasting import lasting

SETTINGS_FILE: Final = "gatepost.yaml"
POLL_S: Final = 1.0
MAX_FILE: Final = 64 * 2**20  # a manifest larger than this is a mistake

_Stamp = tuple[tuple[str, int, int, int], ...]
_log = structlog.get_logger()


def manifest_files(directory: Path) -> dict[str, str]:
    """Return name -> text of the YAML files with objects (all but gatepost.yaml). Raises ManifestError."""
    files: dict[str, str] = {}
    for path in _paths(directory):
        if path.stat().st_size > MAX_FILE:
            raise ManifestError(str(path), "", f"larger than {MAX_FILE // 2**20} MiB")
        try:
            files[str(path)] = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ManifestError(str(path), "", f"cannot be read: {error}") from None
    return files


def compile_directory(directory: Path, around: Surroundings) -> Compiled:
    """Read and compile a directory. Raises ManifestError for faults of form; others are in conditions."""
    objects = read_objects(manifest_files(directory))
    return compile_manifests(objects.domains, objects.policies, around)


def _paths(directory: Path) -> list[Path]:
    return sorted(
        path
        for path in directory.iterdir()
        if path.suffix in (".yaml", ".yml") and path.name != SETTINGS_FILE and not path.name.startswith(".")
    )


def _stamp(directory: Path) -> _Stamp:
    entries = []
    for path in _paths(directory):
        with contextlib.suppress(OSError):
            status = path.stat()
            entries.append((path.name, status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(entries)


class DirectoryConfiguration:
    """A ConfigurationSource over a directory."""

    def __init__(self, directory: Path, around: Surroundings, *, poll_s: float = POLL_S) -> None:
        self._directory, self._around, self._poll_s = directory, around, poll_s
        self._callbacks: list[Callable[[Configuration], None]] = []
        self._current: Configuration | None = None
        self._seen: _Stamp = ()
        self._task: asyncio.Task[None] | None = None

    @property
    def current(self) -> Configuration | None:
        return self._current

    def on_change(self, callback: Callable[[Configuration], None]) -> None:
        self._callbacks.append(callback)
        if self._current is not None:
            callback(self._current)

    async def start(self) -> None:
        """Load once and watch. Raises ManifestError when the first load has a fault."""
        self._seen = _stamp(self._directory)
        self._put_in_force(self._load())
        self._task = lasting("config-dir", self._watch)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _load(self) -> Configuration:
        compiled = compile_directory(self._directory, self._around)
        for key, condition in compiled.rejected:
            raise ManifestError(str(self._directory), str(key), condition.message)
        for key, warnings in compiled.warnings.items():
            for warning in warnings:
                _log.warning("config.warning", object=str(key), reason=warning)
        return compiled.configuration

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            stamp = await asyncio.to_thread(_stamp, self._directory)
            if stamp == self._seen:
                continue
            self._seen = stamp
            try:
                configuration = await asyncio.to_thread(self._load)
            except (ManifestError, OSError) as error:
                metrics.CONFIG_REFUSED.add()
                _log.error("config.refused", reason=str(error), effect="the old configuration stays in force")
                continue
            if configuration != self._current:
                self._put_in_force(configuration)

    def _put_in_force(self, configuration: Configuration) -> None:
        self._current = configuration
        metrics.CONFIG_LOADED.set(1)
        _log.info(
            "config.loaded",
            domains=len(configuration.domains),
            listeners=len(configuration.listeners),
            hash=configuration.hash[:12],
        )
        for callback in self._callbacks:
            callback(configuration)
