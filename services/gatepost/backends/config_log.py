"""The configuration over the log: pods follow the config topic and acknowledge; the operator publishes.

A pod takes the head of the highest epoch, keeps what it runs when the topic is empty or the head is not
usable, and caches the last good configuration on disk, so that it can start while the log is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog

from gatepost.core.config_head import (
    Ack,
    Head,
    HeadError,
    decode_ack,
    decode_head,
    encode,
    head_key,
    join,
    newest,
    part_key,
    read_head_key,
    split,
)
from gatepost.core.configuration import Configuration, decode_configuration
from gatepost.core.ports.log import Entry, Follower, Log, LogError, LogUnavailable, Record
from gatepost.core.topics import Topics
from gatepost.telemetry import metrics
from gatepost.telemetry.lasting import lasting

FETCH_LIMIT_S: Final = 1.0
APPEND_LIMIT_S: Final = 10.0
ACK_EVERY_S: Final = 10.0  # a process that was not heard of for three times this long is not alive
ALIVE_MS: Final = 30_000
LOAD_LIMIT_S: Final = 30.0
RETRY_S: Final = 2.0
CACHE_FILE: Final = "configuration.json"

_log = structlog.get_logger()


class _ConfigTopic:
    """Heads and parts as they stand in the topic."""

    def __init__(self) -> None:
        self.heads: dict[int, Head] = {}
        self.parts: dict[str, bytes] = {}

    def take(self, key: bytes | None, value: bytes) -> None:
        if key is None:
            return
        epoch = read_head_key(key)
        if epoch is not None:
            head = decode_head(value) if value else None
            if head is None:
                self.heads.pop(epoch, None)
            else:
                self.heads[epoch] = head
        elif key.startswith(b"part/"):
            digest = key[5:].decode("ascii", "replace")
            if value:
                self.parts[digest] = value
            else:
                self.parts.pop(digest, None)


class LogConfiguration:
    """A ConfigurationSource over the log, for one process; `pod` and `service` name it in its acks."""

    def __init__(
        self, log: Log, topics: Topics, cache: Path, pod: str, service: str, now_ms: Callable[[], int]
    ) -> None:
        self._log, self._topics, self._cache = log, topics, cache / CACHE_FILE
        self._pod, self._service, self._now_ms = pod, service, now_ms
        self._callbacks: list[Callable[[Configuration], None]] = []
        self._current: Configuration | None = None
        self._head: Head | None = None
        self._error = ""
        self._topic = _ConfigTopic()
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()

    @property
    def current(self) -> Configuration | None:
        return self._current

    def on_change(self, callback: Callable[[Configuration], None]) -> None:
        self._callbacks.append(callback)
        if self._current is not None:
            callback(self._current)

    async def start(self) -> None:
        """Take the cached configuration at once, then follow the topic; never fails because the log is away."""
        self._load_cache()
        self._tasks = [
            lasting("config-log", self._follow),
            lasting("config-acks", self._acknowledge),
        ]

    async def close(self) -> None:
        """Stop following and take the ack back: this process is gone on purpose."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        with contextlib.suppress(LogError):
            await self._log.append(Entry(self._topics.acks, None, self._pod.encode()), RETRY_S)

    def _load_cache(self) -> None:
        try:
            data = self._cache.read_bytes()
        except OSError:
            return
        try:
            self._put_in_force(decode_configuration(data))
        except Exception as error:  # whatever is wrong with it: the log has it anew
            _log.warning("config.cache", file=str(self._cache), reason=repr(error))

    async def _follow(self) -> None:
        waiting = False
        while True:
            follower = self._log.follower(self._topics.config)
            try:
                await follower.start()
                self._topic = _ConfigTopic()
                waiting = False
                await self._read(follower)
            except LogError as error:
                # Once, not at every try: an outage of an hour would be 1,800 lines.
                (_log.debug if waiting else _log.warning)("config.waits", reason=str(error))
                waiting = True
            finally:
                await follower.close()
            await asyncio.sleep(RETRY_S)

    async def _read(self, follower: Follower) -> None:
        first = True
        while True:
            records = await follower.fetch(FETCH_LIMIT_S)
            for record in records:
                self._topic.take(record.key, record.value)
            if follower.caught_up and (records or first):
                first = False
                self._consider()

    def _consider(self) -> None:
        head = newest(self._topic.heads)
        if head is None or head == self._head:
            return
        try:
            configuration = join(head, self._topic.parts)
            if configuration != self._current:
                self._put_in_force(configuration)
                self._write_cache(configuration)
        except HeadError as error:
            self._refuse(head, str(error))
        except Exception as error:  # a fault of ours must not end the following: the ack tells the operator
            self._refuse(head, f"it cannot be put in force: {error!r}")
        else:
            self._head, self._error = head, ""
            self._changed.set()

    def _refuse(self, head: Head, reason: str) -> None:
        if reason != self._error:
            self._error = reason
            metrics.CONFIG_REFUSED.add()
            _log.error("config.refused", reason=reason, generation=head.generation)
            self._changed.set()

    def _put_in_force(self, configuration: Configuration) -> None:
        before, self._current = self._current, configuration
        try:
            for callback in self._callbacks:
                callback(configuration)
        except BaseException:
            self._current = before
            raise
        metrics.CONFIG_LOADED.set(1)
        _log.info("config.loaded", domains=len(configuration.domains), hash=configuration.hash[:12])

    def _write_cache(self, configuration: Configuration) -> None:
        """Replace the cache atomically; a disk that is full costs only the cache."""
        try:
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._cache.parent, delete=False) as file:
                file.write(configuration.encode())
            os.replace(file.name, self._cache)
        except OSError as error:
            _log.warning("config.cache", file=str(self._cache), reason=str(error))

    async def _acknowledge(self) -> None:
        while True:
            self._changed.clear()
            head = self._head
            ack = Ack(
                pod=self._pod,
                service=self._service,
                at_ms=self._now_ms(),
                epoch=head.epoch if head else 0,
                generation=head.generation if head else 0,
                hash=self._hash(),
                error=self._error,
            )
            try:
                await self._log.append(Entry(self._topics.acks, encode(ack), self._pod.encode()), APPEND_LIMIT_S)
            except LogError as error:
                _log.debug("config.ack", reason=str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ACK_EVERY_S):
                    await self._changed.wait()

    def _hash(self) -> str:
        """What is in force, as its publisher named it: who passes over fields would reckon another hash."""
        if self._head is not None:
            return self._head.hash
        return self._current.hash if self._current is not None else ""


class ConfigurationPublisher:
    """The operator's side: writes parts, then a head under its epoch; removes heads of older epochs."""

    def __init__(self, log: Log, topics: Topics, instance: str) -> None:
        self._log, self._topics, self._instance = log, topics, instance
        self._topic = _ConfigTopic()

    async def load(self) -> Head | None:
        """Read the topic to its end and return the head in force. Raises LogError."""
        topic = _ConfigTopic()
        follower = self._log.follower(self._topics.config)
        await follower.start()
        try:
            async with asyncio.timeout(LOAD_LIMIT_S):
                while not follower.caught_up:
                    for record in await follower.fetch(FETCH_LIMIT_S):
                        topic.take(record.key, record.value)
        except TimeoutError:
            raise LogUnavailable(f"the config topic was not read to its end within {LOAD_LIMIT_S:.0f} s") from None
        finally:
            await follower.close()
        self._topic = topic
        return newest(topic.heads)

    @property
    def head(self) -> Head | None:
        """The head in force as load() found it or publish() wrote it."""
        return newest(self._topic.heads)

    def configuration(self) -> Configuration | None:
        """The configuration in force as load() found it or publish() wrote it; None without a usable one."""
        head = newest(self._topic.heads)
        if head is None:
            return None
        with contextlib.suppress(HeadError):
            return join(head, self._topic.parts)
        return None

    async def publish(self, configuration: Configuration, epoch: int, generation: int) -> Head:
        """Write a configuration durably and return its head. Raises LogError; may be repeated."""
        parts = split(configuration)
        missing = [(digest, piece) for digest, piece in parts if digest not in self._topic.parts]
        entries = [Entry(self._topics.config, piece, part_key(digest)) for digest, piece in missing]
        await self._log.append_many(entries, APPEND_LIMIT_S)
        head = Head(
            instance=self._instance,
            epoch=epoch,
            generation=generation,
            hash=configuration.hash,
            parts=tuple(digest for digest, _ in parts),
        )
        await self._log.append(Entry(self._topics.config, encode(head), head_key(epoch)), APPEND_LIMIT_S)
        self._topic.parts.update(parts)
        self._topic.heads[epoch] = head
        try:
            await self._clean(head)
        except LogError as error:  # what is left over harms nobody and goes with the next publication
            _log.warning("config.leftovers", reason=str(error))
        return head

    async def _clean(self, head: Head) -> None:
        """Remove heads of older epochs and parts that the newest head does not name."""
        old = [epoch for epoch in self._topic.heads if epoch < head.epoch]
        keep = set(head.parts)
        unused = [digest for digest in self._topic.parts if digest not in keep]
        entries = [Entry(self._topics.config, None, head_key(epoch)) for epoch in old]
        entries += [Entry(self._topics.config, None, part_key(digest)) for digest in unused]
        await self._log.append_many(entries, APPEND_LIMIT_S)
        for epoch in old:
            del self._topic.heads[epoch]
        for digest in unused:
            del self._topic.parts[digest]


class AckReader:
    """Follows the acks: what each process runs. `on_ack` is called when one says something new, or is new."""

    def __init__(self, log: Log, topics: Topics, on_ack: Callable[[], None], now_ms: Callable[[], int]) -> None:
        self._log, self._topics, self._on_ack, self._now_ms = log, topics, on_ack, now_ms
        self._acks: dict[str, Ack] = {}

    @property
    def acks(self) -> tuple[Ack, ...]:
        """All that is known. `at_ms` is when a process was last heard of, by this machine's clock."""
        return tuple(self._acks.values())

    async def run(self) -> None:
        """Follow until cancelled; waits while the log is away."""
        while True:
            follower = self._log.follower(self._topics.acks)
            try:
                await follower.start()
                while True:
                    fresh = follower.caught_up  # else it is the past that is being read
                    if self._take(await follower.fetch(FETCH_LIMIT_S), fresh):
                        self._on_ack()
            except LogError as error:
                _log.warning("acks.wait", reason=str(error))
            finally:
                await follower.close()
            await asyncio.sleep(RETRY_S)

    def _take(self, records: Sequence[Record], fresh: bool) -> bool:
        """Whether anything but a time has changed."""
        changed = False
        for record in records:
            pod = (record.key or b"").decode("utf-8", "replace")
            ack = decode_ack(record.value) if record.value else None
            if ack is None:
                changed |= self._acks.pop(pod, None) is not None
                continue
            # Other machines' clocks are not ours: what arrives now was said now.
            ack = msgspec.structs.replace(ack, at_ms=self._now_ms()) if fresh else ack
            known = self._acks.get(pod)
            changed |= known is None or msgspec.structs.replace(known, at_ms=ack.at_ms) != ack
            self._acks[pod] = ack
        return changed
