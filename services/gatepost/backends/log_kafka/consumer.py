"""A member of a Kafka group: window, out-of-order completion, and keeping its work through rebalances.

Kafka's group protocol here is the eager one: at each rebalance every member gives up everything and gets its
share anew. A partition that comes back to the same member in the very next generation was nobody else's in
between, so its records in flight stay in flight: they are not given again, and finishing them counts. If a
generation was missed (the member was thought dead, or a rebalance was overtaken by the next), another member may
have had the partition meanwhile; then it counts as lost and is begun anew from what is committed.

While a rebalance goes on, records are finished but not given out. What was finished is committed before the
member rejoins; what is finished between that and a loss of the partition comes again to its new owner. Finishing
a record tells the truth of that record whoever owns it, so it counts whenever its partition is owned.

aiokafka needs no polling to stay a member (heartbeats are its own task), and the limit on the time between two
polls is set out of reach: a member that works on one record for hours keeps it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import structlog
from aiokafka.errors import (
    ConsumerStoppedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from gatepost.backends.log_kafka.connection import Connection
from gatepost.backends.log_kafka.disbelief import BACKOFF_SECONDS, Disbelief
from gatepost.backends.log_kafka.facts import TopicWatch
from gatepost.backends.log_kafka.member import LOAD_SECONDS, Member
from gatepost.backends.log_kafka.share import Share
from gatepost.backends.log_kafka.stopping import stop_consumer
from gatepost.backends.log_local.storage import FETCH_RECORDS
from gatepost.backends.log_local.waiting import WakeUp
from gatepost.core.completion import Commit
from gatepost.core.manifest.quantities import seconds
from gatepost.core.manifest.settings import KafkaSettings
from gatepost.core.ports.log import LogError, LogGap, LogUnavailable, Record
from gatepost.telemetry import metrics
from gatepost.telemetry.lasting import lasting

# Joining waits for the other members, and for dead ones until their session has timed out.
START_SECONDS: Final = 60.0
COMMIT_INTERVAL: Final = 0.2
COMMIT_SECONDS: Final = 5.0
# Before a rebalance and at the end others wait for us.
LAST_COMMIT_SECONDS: Final = 2.0
CLOSE_SECONDS: Final = 3.0
_RETRY_SECONDS: Final = 1.0
# A rebalance takes as long as the session of a member that died, and sometimes one more.
REBALANCE_SESSIONS: Final = 3
_LOOK_SECONDS: Final = 1.0

_log = structlog.get_logger(__name__)


class KafkaConsumer:
    """Implements the Consumer port."""

    def __init__(
        self, connection: Connection, settings: KafkaSettings, client_id: str, topic: str, group: str, window: int
    ) -> None:
        if window < 1:
            raise ValueError("window must be at least 1")
        self._connection = connection
        self._settings = settings
        self._client_id = client_id
        self._topic = topic
        self._group = group
        self.window = window
        self._member: Member | None = None
        self._shares: dict[int, Share] = {}
        self._turn = 0
        self._wake = WakeUp()
        self._attention = WakeUp()
        self._fetching = asyncio.Lock()
        self._committing = asyncio.Lock()
        self._revoked: list[Callable[[frozenset[int]], None]] = []
        self._keeper: asyncio.Task[None] | None = None
        self._watch = TopicWatch(connection, topic)
        self._disbelief = Disbelief(connection)
        self._anew = False
        self._closed = False
        self._longest_rebalance = REBALANCE_SESSIONS * seconds(settings.session_timeout)
        self._next_look = 0.0

    # -- beginning and end

    async def start(self) -> None:
        if self._keeper is not None:
            return
        await self._connection.partitions(self._topic, LOAD_SECONDS)
        await self._watch.is_another(LOAD_SECONDS)
        await self._join()
        self._keeper = lasting(f"kafka group {self._group}", self._keep)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
        member, self._member = self._member, None
        if member is not None:
            with suppress(LogError):
                await self._commit(member, LAST_COMMIT_SECONDS)
            await stop_consumer(member.client, CLOSE_SECONDS)
        self._shares.clear()
        self._wake.set()

    async def _join(self) -> None:
        member = Member(self, self._settings, self._client_id, self._topic, self._group)
        try:
            async with asyncio.timeout(START_SECONDS):
                await member.client.start()
        except (TimeoutError, KafkaError, OSError) as error:
            await stop_consumer(member.client, 0)
            raise LogUnavailable(f"the group {self._group} could not be joined: {error!r}") from error
        except BaseException:
            await stop_consumer(member.client, 0)
            raise
        self._member = member

    # -- reading

    async def fetch(self, limit: float) -> Sequence[Record]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit
        async with self._fetching:
            while True:
                records = self._give()
                remaining = deadline - loop.time()
                if records:
                    return records
                self._tell_gap(last=remaining <= 0)
                if remaining <= 0:
                    return records
                await self._read(remaining)

    def _give(self) -> Sequence[Record]:
        """Give out what was read, of all partitions, beginning with another one each time."""
        given: list[Record] = []
        member = self._member
        if member is None or member.rebalancing:
            return given
        shares = list(self._shares.values())
        self._turn += 1
        for index in range(len(shares)):
            share = shares[(index + self._turn) % len(shares)]
            given.extend(share.give(self.window, FETCH_RECORDS - len(given)))
        return given

    def _tell_gap(self, *, last: bool) -> None:
        """Raise LogGap: at once for a new one, for an old one when there was nothing else to give."""
        for share in self._shares.values():
            if share.gap and (last or not share.gap_told):
                share.gap_told = True
                raise LogGap(share.gap)

    async def _read(self, limit: float) -> None:
        """Wait for records from the broker, for room in a window, or for a change of partitions."""
        member = self._member
        wanted = [
            TopicPartition(self._topic, partition)
            for partition, share in self._shares.items()
            if share.wants_more and self._room(share)
        ]
        if member is None or member.rebalancing or not wanted:
            await self._wake.wait(limit)
            return
        if await self._read_at_once(member, wanted):
            return
        reading = asyncio.ensure_future(member.read(wanted, limit))
        waking = asyncio.ensure_future(self._wake.wait(limit))
        try:
            await asyncio.wait({reading, waking}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # A read that is cancelled has taken no records: it takes them in its last step.
            for task in (reading, waking):
                if not task.done():
                    task.cancel()
            await asyncio.wait({reading, waking})
            if not reading.cancelled() and reading.exception() is None:
                self._take_in(reading.result())
        if not reading.cancelled() and (error := reading.exception()) is not None:
            await self._read_failed(error)

    async def _read_at_once(self, member: Member, wanted: Sequence[TopicPartition]) -> bool:
        """Take what the client has read ahead, without waiting and so without tasks; False when that is nothing."""
        try:
            found = await member.read(wanted, 0)
        except Exception as error:
            await self._read_failed(error)
            return True
        self._take_in(found)
        return bool(found)

    def _room(self, share: Share) -> bool:
        return share.completion is not None and share.completion.outstanding < self.window

    def _take_in(self, data: Mapping[TopicPartition, list[Any]]) -> None:
        for place, records in data.items():
            share = self._shares.get(place.partition)
            if share is not None and share.completion is not None:
                self._disbelief.found(place)
                # A read that ended while partitions changed may give records that are here already.
                share.add([record for record in records if record.offset >= share.read_on])

    async def _read_failed(self, error: BaseException) -> None:
        match error:
            case OffsetOutOfRangeError():
                for place, offset in error.args[0].items():
                    await self._out_of_range(place, offset)
            case NoOffsetForPartitionError() | IllegalStateError() | ConsumerStoppedError():
                # The partitions have just changed, or the position of a new one is still being read.
                await self._wake.wait(0.05)
            case KafkaError():
                _log.warning("reading failed", topic=self._topic, group=self._group, reason=repr(error))
                await self._wake.wait(_RETRY_SECONDS)
            case _:
                raise error

    async def _out_of_range(self, place: TopicPartition, offset: int) -> None:
        """Tell a gap, unless the broker that was asked only knows less than we do."""
        try:
            held = await self._disbelief.gone(place, offset, LOAD_SECONDS)
        except LogError as error:
            _log.warning("reading failed", topic=self._topic, group=self._group, reason=str(error))
            await self._wake.wait(_RETRY_SECONDS)
            return
        if held is not None:
            why = f"but what is there begins at {held.start} and ends before {held.stop}"
            self._gap(place.partition, offset, why)
        elif self._member is not None:
            self._member.look_again()
            await self._wake.wait(BACKOFF_SECONDS)

    def _gap(self, partition: int, offset: int, why: str) -> None:
        share = self._shares.get(partition)
        if share is not None and not share.gap:
            share.gap = f"{self._topic}/{partition}: group {self._group} is at offset {offset}, {why}"
            _log.error("records were removed before they were read", reason=share.gap)
            self._wake.set()

    # -- finishing

    def finish(self, record: Record) -> None:
        share = self._shares.get(record.partition)
        if share is None or share.completion is None:
            return
        full = share.completion.outstanding >= self.window
        if share.completion.finish(record.offset) and full:
            self._wake.set()

    def owns(self, partition: int) -> bool:
        return partition in self._shares

    async def commit(self) -> None:
        if self._member is not None:
            await self._commit(self._member, COMMIT_SECONDS)

    async def _commit(self, member: Member, limit: float) -> None:
        async with self._committing:
            changed = {p: found for p, share in self._shares.items() if (found := share.to_commit())}
            if not changed:
                return
            offsets = {
                TopicPartition(self._topic, partition): OffsetAndMetadata(commit.position, commit.metadata)
                for partition, (_, commit) in changed.items()
            }
            try:
                async with asyncio.timeout(limit):
                    await member.client.commit(offsets)
            except (TimeoutError, KafkaError) as error:
                raise LogUnavailable(f"{self._topic}: {self._group} could not commit: {error!r}") from error
            for partition, (changes, _) in changed.items():
                if (share := self._shares.get(partition)) is not None:
                    share.committed(changes)

    # -- keeping

    async def _keep(self) -> None:
        """Commit regularly, read the commits of new partitions, and join again when the client broke."""
        while True:
            try:
                await self._keep_once()
                await self._attention.wait(COMMIT_INTERVAL)
            except LogError as error:
                _log.warning("group trouble", topic=self._topic, group=self._group, reason=str(error))
                await asyncio.sleep(_RETRY_SECONDS)

    async def _keep_once(self) -> None:
        member = self._member
        if member is not None and (member.broken or await self._stands_still(member)):
            self._member = None
            self.lost(frozenset(self._shares))
            await stop_consumer(member.client, 0)
            member = None
        if member is None:
            await self._join()
            return
        member.show_errors()
        if not member.rebalancing:
            if await self._watch.is_another(LOAD_SECONDS):
                self._begin_anew(member)
            await self._load(member)
            await self._commit(member, COMMIT_SECONDS)

    async def _stands_still(self, member: Member) -> bool:
        """Whether a rebalance lasts longer than any should while the cluster answers. Raises LogError: it does not.

        aiokafka's rebalance has no limit: it waits for its heartbeat to end, and goes on asking for as long as it
        takes. Where that never ends nobody else would notice.
        """
        now = asyncio.get_running_loop().time()
        if not member.rebalancing or now < self._next_look:
            return False
        self._next_look = now + _LOOK_SECONDS
        try:
            await self._connection.partitions(self._topic, LOAD_SECONDS)
        except LogError:
            member.rebalancing_since = asyncio.get_running_loop().time()
            raise
        lasted = now - member.rebalancing_since
        if not member.rebalancing or lasted <= self._longest_rebalance:
            return False
        reason = f"a rebalance has lasted {lasted:.0f} s, and the cluster answers"
        _log.warning("the member is replaced", topic=self._topic, group=self._group, reason=reason)
        return True

    def _begin_anew(self, member: Member) -> None:
        """The topic was deleted and made anew: nothing that is known of its offsets is true any more.

        Everything in the new one is to be done, whatever was committed: that was for the old one, or is done twice.
        """
        _log.critical("topic made anew", topic=self._topic, group=self._group, lost="what the old one still held")
        metrics.TOPICS_ANEW.add(self._topic)
        owned = frozenset(self._shares)
        self.lost(owned)
        for partition in owned:
            self._shares[partition] = Share(self._topic, partition)
        self._anew = True
        member.look_again()

    async def _load(self, member: Member) -> None:
        """Read where new partitions begin, and tell the client."""
        places = [TopicPartition(self._topic, p) for p, share in self._shares.items() if share.completion is None]
        if not places:
            return
        commits = await self._connection.call(
            f"reading the commits of {self._group}",
            LOAD_SECONDS,
            lambda: self._connection.commits(self._group, places),
        )
        starts = await member.starts(places)
        for place in places:
            share = self._shares.get(place.partition)
            # Partitions may have changed while we were asking.
            if share is None or share.completion is not None or member.rebalancing:
                continue
            found = None if self._anew else commits.get(place)
            share.begin(Commit(starts[place]) if found is None else Commit(found.offset, found.metadata))
            member.seek(place, share.read_on)
            if share.read_on < starts[place]:
                gone = starts[place] - share.read_on
                self._gap(place.partition, share.read_on, f"{gone} records below {starts[place]} are gone")
        self._anew = False
        self._wake.set()

    # -- what the group decides (called by the member)

    async def before_rebalance(self, member: Member) -> None:
        self._wake.set()
        with suppress(LogError):
            await self._commit(member, LAST_COMMIT_SECONDS)

    def after_rebalance(self, member: Member, assigned: frozenset[int], *, kept: bool) -> None:
        """`kept`: what was owned before and is assigned now was nobody else's in between."""
        self.lost(frozenset(self._shares) - assigned if kept else frozenset(self._shares))
        for partition in assigned:
            share = self._shares.setdefault(partition, Share(self._topic, partition))
            if share.completion is not None:
                member.seek(TopicPartition(self._topic, partition), share.read_on)
        self._attention.set()
        self._wake.set()

    def lost(self, partitions: frozenset[int]) -> None:
        for partition in partitions:
            self._shares.pop(partition, None)
        if partitions:
            self._wake.set()
            for callback in self._revoked:
                callback(partitions)

    def on_revoked(self, callback: Callable[[frozenset[int]], None]) -> None:
        self._revoked.append(callback)
