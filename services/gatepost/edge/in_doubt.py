"""Keeps appends in doubt until their client's retry comes, here or at another edge (docs/adr/0006).

This edge knows of a doubt at once; the others know when it has been published to the shared memory. A retry
*claims* a doubt: of all retries, on all edges, one gets it and goes on under the original id, the others are
ordinary mail. Whatever goes wrong here ends there too: a doubt that is lost can only mean a duplicate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import structlog

from gatepost.core.in_doubt import IN_DOUBT, Doubt, DoubtIndex, DoubtState
from gatepost.core.ports.log import LogError, LogUnavailable, Position
from gatepost.core.ports.state import State, StateError, StateUnavailable, StateUnknown, TakeUnknown
from gatepost.telemetry import metrics

# Doubts of this edge that are not settled; an outage makes at most as many as there are sessions, a few times over.
MOST_OWN: Final = 10_000
PUBLISH_LIMIT_S: Final = 5.0
FIRST_PAUSE_S: Final = 0.25
LAST_PAUSE_S: Final = 5.0
# How often it is looked at, while the log is away, whether it is back.
RETURN_S: Final = 0.05

_log = structlog.get_logger("gatepost.edge")


class Fate:
    """What became of the appends of one id: of the first try, and of retries that ended in doubt as well."""

    def __init__(self, state: DoubtState | None = None) -> None:
        """`state` is what is known of appends that nobody here can ask about any more."""
        self.written = state is DoubtState.WRITTEN
        self._lost = state is not None
        self._open = 0
        self.changed = asyncio.Event()

    async def learn(self, message_id: str, outcome: Awaitable[Position]) -> None:
        """Wait, however long, for an append's outcome."""
        try:
            await outcome
        except LogUnavailable:
            result = "never"
        except LogError:
            self._lost = True
            result = "unknown"
        else:
            self.written = True
            result = "written"
        self._open -= 1
        self.changed.set()
        if result != "unknown":
            metrics.DOUBTS_RESOLVED.add(result)
        _log.info("append in doubt ended", id=message_id, outcome=result)

    def expect(self) -> None:
        """One more append is going to be learned about."""
        self._open += 1

    @property
    def final(self) -> bool:
        """Whether nothing more can be learned."""
        return self.written or not self._open

    @property
    def never(self) -> bool:
        """Whether it is certain that no record has the id."""
        return not (self.written or self._open or self._lost)

    @property
    def state(self) -> DoubtState:
        return DoubtState.WRITTEN if self.written else DoubtState.UNKNOWN


class Claim:
    """A doubt that one retry has for itself. `spent` once what became of the retry is settled."""

    def __init__(self, message_id: str, doubt: Doubt, fate: Fate) -> None:
        self.id, self.doubt, self.fate = message_id, doubt, fate
        self.spent = False

    @property
    def written(self) -> bool:
        """Whether the message is in the log already, so that nothing needs to be appended."""
        return self.fate.written


class _Own:
    """A doubt that this edge has to publish, or still learns about.

    `shared` is what the shared memory was told; `unsettled` while what it was told last may come later. `lock` is
    held while either changes. `claimed` ends it: a retry has it, here or elsewhere.
    """

    def __init__(self, message_id: str, doubt: Doubt, fate: Fate) -> None:
        self.id, self.doubt, self.fate = message_id, doubt, fate
        self.lock = asyncio.Lock()
        self.shared: DoubtState | None = None
        self.unsettled = False
        self.updating = False
        self.claimed = False
        self.done = False


class InDoubt:
    """All doubts that this edge knows of."""

    def __init__(self, state: State, now_ms: Callable[[], int], log_available: Callable[[], bool]) -> None:
        self._state, self._now_ms, self._log_available = state, now_ms, log_available
        self._shared = DoubtIndex()
        self._own: dict[str, _Own] = {}
        self._own_index = DoubtIndex()
        self._publishing: set[asyncio.Task[None]] = set()
        self._waiting: set[asyncio.Task[None]] = set()
        self._looking = False
        self._closing = False
        state.on_change(IN_DOUBT, self._changed)

    @property
    def empty(self) -> bool:
        """Whether no retry can match: nearly always, and then nothing needs to be hashed."""
        return not self._shared and not self._own

    async def close(self, limit: float) -> None:
        """Publish what is known, for at most `limit` seconds; then end. No more may be added."""
        self._closing = True
        for own in self._own.values():
            own.fate.changed.set()
        if self._publishing:
            await asyncio.wait(set(self._publishing), timeout=limit)
        lost = sum(own.shared is None and not own.claimed for own in self._own.values())
        if lost:
            _log.warning("appends in doubt were not published: their retries may arrive twice", count=lost)
        tasks = self._publishing | self._waiting
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=limit)

    # -- what acceptance asks and tells

    def doubt(self, message_id: str, print_: str, outcome: Awaitable[Position], claim: Claim | None = None) -> None:
        """An append of `message_id` ended in doubt; `claim` where it was a retry's. Returns at once."""
        fate = Fate() if claim is None else claim.fate
        since_ms = self._now_ms() if claim is None else claim.doubt.since_ms
        if claim is not None:
            claim.spent = True
        fate.expect()
        self._wait(fate.learn(message_id, outcome))
        self._add(message_id, Doubt(print_, since_ms), fate)

    def give_back(self, claim: Claim) -> None:
        """A claim's retry came to nothing: the next one shall find the doubt again."""
        if not claim.spent:
            claim.spent = True
            self._add(claim.id, claim.doubt, claim.fate)

    async def claim(self, print_: str, limit: float) -> Claim | None:
        """Return the doubt that a message is the retry of, for this call alone; None for an ordinary mail.

        Raises StateError when that cannot be decided now: then the client has to come again.
        """
        deadline = asyncio.get_running_loop().time() + limit
        candidates = {
            **dict(self._shared.matching(print_, self._now_ms())),
            **dict(self._own_index.matching(print_, self._now_ms())),
        }
        for message_id in sorted(candidates):
            left = max(deadline - asyncio.get_running_loop().time(), 0.0)
            own = self._own.get(message_id)
            found = await (self._claim_shared(message_id, left) if own is None else self._claim_own(own, left))
            if found is not None:
                metrics.DOUBTS_RESOLVED.add("matched")
                _log.info("retry of an append in doubt", id=found.id, state=found.fate.state.value)
                return found
        return None

    # -- claiming

    async def _claim_shared(self, message_id: str, limit: float) -> Claim | None:
        doubt = await self._take(message_id, limit)
        return None if doubt is None else Claim(message_id, doubt, Fate(doubt.state))

    async def _claim_own(self, own: _Own, limit: float) -> Claim | None:
        deadline = asyncio.get_running_loop().time() + limit
        try:
            async with asyncio.timeout_at(deadline):
                await own.lock.acquire()
        except TimeoutError:
            raise StateUnavailable(f"{own.id} is being published") from None
        try:
            if own.claimed:
                return None
            if own.unsettled:
                raise StateUnavailable(f"whether {own.id} was published is not known")
            if own.shared is not None:
                left = max(deadline - asyncio.get_running_loop().time(), 0.0)
                if await self._take(own.id, left) is None:
                    self._end(own)  # another edge's retry was first
                    return None
            self._end(own)
        finally:
            own.lock.release()
        return Claim(own.id, own.doubt, own.fate)

    async def _take(self, message_id: str, limit: float) -> Doubt | None:
        try:
            return await self._state.take(IN_DOUBT, message_id, limit)
        except TakeUnknown as error:
            # The retry gets 451. If the take succeeds later, the doubt must be there for the next retry.
            self._wait(self._recover(message_id, error.outcome))
            raise

    async def _recover(self, message_id: str, outcome: Awaitable[Doubt | None]) -> None:
        try:
            doubt = await outcome
        except StateError as error:
            _log.debug("append in doubt", id=message_id, reason=str(error))
            return
        if doubt is not None:
            own = self._own.pop(message_id, None)
            if own is not None:
                self._end(own)
            self._add(message_id, doubt, Fate(doubt.state) if own is None else own.fate)

    # -- publishing

    def _add(self, message_id: str, doubt: Doubt, fate: Fate) -> None:
        if len(self._own) >= MOST_OWN or self._closing:
            metrics.DOUBTS_RESOLVED.add("forgotten")
            _log.warning("append in doubt is forgotten: too many", id=message_id)
            return
        own = self._own[message_id] = _Own(message_id, doubt, fate)
        self._own_index.put(message_id, doubt)
        task = asyncio.create_task(self._publish(own), name=f"in doubt {message_id}")
        self._publishing.add(task)
        task.add_done_callback(self._publishing.discard)

    async def _publish(self, own: _Own) -> None:
        """Tell the shared memory what is known, as often as that changes, until a retry has the doubt."""
        pause = FIRST_PAUSE_S
        while not (own.claimed or self._expired(own)):
            own.fate.changed.clear()
            if own.fate.never and own.shared is None and not own.unsettled:
                break  # nobody else knows of it, and nothing needs to be recognised
            if own.shared is own.fate.state and not own.unsettled and not own.fate.never:
                if own.fate.final or self._closing:
                    break
                await own.fate.changed.wait()
                continue
            if await self._tell(own):
                pause = FIRST_PAUSE_S
                continue
            if not self._log_available() and not self._looking:
                self._looking = True
                self._wait(self._look_for_return())
            await _wait(own.fate.changed, pause)
            pause = min(2 * pause, LAST_PAUSE_S)
        own.done = True
        # A published one stays until it has come back from the shared memory: there is no moment without it.
        if own.claimed or own.shared is None or own.id in self._shared:
            self._drop(own)

    async def _look_for_return(self) -> None:
        """Have everything published as soon as the log is back: the retries come, perhaps to other edges."""
        try:
            while not self._log_available():  # noqa: ASYNC110  (a port tells no more than this)
                await asyncio.sleep(RETURN_S)
        finally:
            self._looking = False
        for own in self._own.values():
            own.fate.changed.set()

    async def _tell(self, own: _Own) -> bool:
        """Publish, update or withdraw a doubt; False when it has to be tried again."""
        async with own.lock:
            if own.claimed:
                return True
            own.updating, before = True, own.unsettled
            try:
                if own.shared is not None and not await self._withdraw(own):
                    return True
                if own.fate.never and not own.unsettled:
                    self._end(own)
                    return True
                state = own.fate.state
                doubt = Doubt(own.doubt.fingerprint, own.doubt.since_ms, state)
                own.unsettled = True
                await self._state.put(IN_DOUBT, own.id, doubt, doubt.until_ms, PUBLISH_LIMIT_S)
                own.shared, own.unsettled = state, False
            except StateUnknown:
                return False
            except StateUnavailable:
                own.unsettled = before
                return False
            finally:
                own.updating = False
        return True

    async def _withdraw(self, own: _Own) -> bool:
        """Take what was published, so that writing anew cannot revive what a retry has consumed; False: it was."""
        try:
            taken = await self._state.take(IN_DOUBT, own.id, PUBLISH_LIMIT_S)
        except TakeUnknown as error:
            try:
                taken = await error.outcome
            except StateUnknown:
                taken = None  # perhaps it was consumed: better a duplicate than a mail that is taken for another
        if taken is None:
            self._end(own)
            return False
        own.shared = None
        return True

    def _expired(self, own: _Own) -> bool:
        return own.doubt.until_ms <= self._now_ms()

    def _end(self, own: _Own) -> None:
        """A retry has it, here or elsewhere, or nobody needs it."""
        own.claimed = True
        own.fate.changed.set()
        if own.done:
            self._drop(own)

    def _drop(self, own: _Own) -> None:
        if self._own.get(own.id) is own:
            del self._own[own.id]
            self._own_index.discard(own.id)

    # -- hearing

    def _changed(self, message_id: str, doubt: Doubt | None) -> None:
        """The shared memory has got or lost an entry."""
        own = self._own.get(message_id)
        if doubt is not None:
            self._shared.put(message_id, doubt)
            if own is not None and own.done:
                self._drop(own)
            return
        gone = self._shared.discard(message_id)
        if gone is not None and gone.until_ms <= self._now_ms():
            metrics.DOUBTS_RESOLVED.add("expired")
        if own is not None and own.shared is not None and not own.updating and not own.lock.locked():
            self._end(own)  # another edge's retry has it

    def _wait(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="in doubt")
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)


async def _wait(event: asyncio.Event, limit: float) -> None:
    try:
        async with asyncio.timeout(limit):
            await event.wait()
    except TimeoutError:
        return
