"""One operator at a time: a Lease says who, and an epoch that grows at each takeover fences the others.

Only the holder of the Lease publishes, and only while it is certain that nobody else can hold it yet. Since no
clock is perfect, the epoch has the last word: it is in the key of what is published, and readers take the highest.
The Lease's expiry is judged by how long it was seen unchanged, never by another machine's clock.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from gatepost_operator.cluster import Cluster, ClusterConflict, ClusterError, Document
from gatepost_operator.removal import ANNOTATION, read_allowance

EPOCH_ANNOTATION: Final = "gatepost.dev/epoch"

_log = structlog.get_logger()


class Timing(msgspec.Struct, frozen=True):
    """In seconds. `valid` after the start of a renewal that succeeded the holder stops publishing; it is shorter
    than `duration`, after which another may take over, by more than one request may take.
    """

    duration: int = 15
    valid: float = 10.0
    renew: float = 4.0
    retry: float = 2.0


class LeaseKeeper:
    """Keeps trying to hold the Lease. `on_change` is called when what a reader of this sees has changed."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        name: str,
        identity: str,
        *,
        monotonic: Callable[[], float],
        now: Callable[[], str],
        on_change: Callable[[], None] = lambda: None,
        timing: Timing = Timing(),  # noqa: B008  (frozen)
    ) -> None:
        """`identity` must be another one for each process. `now` gives RFC 3339 with microseconds, UTC."""
        self._cluster, self.namespace, self.name, self._identity = cluster, namespace, name, identity
        self._monotonic, self._now, self._on_change, self._timing = monotonic, now, on_change, timing
        self._lock = asyncio.Lock()
        self._lease: Document | None = None
        self._until = float("-inf")
        self._seen: tuple[str, float] = ("", 0.0)  # another's Lease: its version, and since when it is unchanged
        self._was_held = False
        self.epoch: int | None = None
        """The holder's epoch; None until it was claimed."""

    @property
    def held(self) -> bool:
        """Whether nobody else can hold the Lease now."""
        return self._monotonic() < self._until

    @property
    def allowance(self) -> int:
        """How many domains a person has allowed to be removed at once."""
        return read_allowance(_annotations(self._lease).get(ANNOTATION)) if self._lease else 0

    @property
    def reference(self) -> Document:
        """The Lease, for events about it; `kubectl describe` finds them by the uid."""
        uid = (self._lease or {}).get("metadata", {}).get("uid", "")
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "name": self.name,
            "namespace": self.namespace,
            "uid": uid,
        }

    async def run(self) -> None:
        """Hold the Lease, or wait for it, until cancelled; an API server that is away is waited for."""
        while True:
            try:
                await self.step()
            except ClusterConflict:
                _log.debug("lease.conflict", name=self.name)
            except ClusterError as error:
                _log.warning("lease.waits", reason=str(error))
            self._tell()
            pause = self._timing.renew if self.held else self._timing.retry
            await asyncio.sleep(pause * random.uniform(0.8, 1.0))

    async def step(self) -> None:
        """Read the Lease; renew, take or observe it. Raises ClusterError."""
        async with self._lock:
            begun = self._monotonic()
            lease = await self._cluster.get_lease(self.namespace, self.name)
            if lease is None:
                await self._take(self._new(), begun, create=True)
            elif _holder(lease) == self._identity:
                await self._write({**lease, "spec": {**lease["spec"], "renewTime": self._now()}}, begun)
            elif not _holder(lease) or self._expired(lease):
                await self._take(self._taken(lease), begun, create=False)
            else:
                self._lose()

    async def claim(self, floor: int) -> int:
        """Claim an epoch above `floor` and all that were claimed before, and return it.

        Raises ClusterError; ClusterConflict also when the Lease was lost.
        """
        async with self._lock:
            begun = self._monotonic()
            lease = await self._cluster.get_lease(self.namespace, self.name)
            if lease is None or _holder(lease) != self._identity:
                self._lose()
                raise ClusterConflict("the Lease is another's")
            epoch = max(floor, _epoch(lease)) + 1
            spec = {**lease["spec"], "renewTime": self._now()}
            await self._write(_annotated({**lease, "spec": spec}, {EPOCH_ANNOTATION: str(epoch)}), begun)
            self.epoch = epoch
            return epoch

    async def use_allowance(self) -> None:
        """Remove the person's word: it was for one removal. Raises ClusterError."""
        async with self._lock:
            begun = self._monotonic()
            lease = await self._cluster.get_lease(self.namespace, self.name)
            if lease is not None and _holder(lease) == self._identity and ANNOTATION in _annotations(lease):
                await self._write(_annotated(lease, {ANNOTATION: None}), begun)

    async def release(self) -> None:
        """Give the Lease up, so that another need not wait for it to expire. Raises ClusterError."""
        async with self._lock:
            held, self._until = self.held, float("-inf")
            if not held:
                return
            lease = await self._cluster.get_lease(self.namespace, self.name)
            if lease is not None and _holder(lease) == self._identity:
                spec = {**lease["spec"], "holderIdentity": "", "renewTime": self._now()}
                await self._cluster.replace_lease({**lease, "spec": spec})

    async def _take(self, lease: Document, begun: float, *, create: bool) -> None:
        self.epoch = None  # whatever was claimed before: another may have been here
        await self._write(lease, begun, create=create)
        _log.info("lease.taken", name=self.name, transitions=lease["spec"]["leaseTransitions"])

    async def _write(self, lease: Document, begun: float, *, create: bool = False) -> None:
        written = self._cluster.create_lease if create else self._cluster.replace_lease
        self._lease = await written(lease)
        self._until = begun + self._timing.valid

    def _lose(self) -> None:
        self._until = float("-inf")
        self.epoch = None

    def _expired(self, lease: Document) -> bool:
        version, now = str(lease["metadata"].get("resourceVersion")), self._monotonic()
        if version != self._seen[0]:
            self._seen = (version, now)
        duration = (lease.get("spec") or {}).get("leaseDurationSeconds") or self._timing.duration
        return now - self._seen[1] > float(duration)

    def _new(self) -> Document:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": self._spec(0),
        }

    def _taken(self, lease: Document) -> Document:
        transitions = (lease.get("spec") or {}).get("leaseTransitions") or 0
        return {**lease, "spec": {**(lease.get("spec") or {}), **self._spec(transitions + 1)}}

    def _spec(self, transitions: int) -> Document:
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": self._timing.duration,
            "acquireTime": self._now(),
            "renewTime": self._now(),
            "leaseTransitions": transitions,
        }

    def _tell(self) -> None:
        held = self.held
        if held != self._was_held:
            _log.info("lease.held" if held else "lease.lost", name=self.name)
        if held != self._was_held or (held and self.allowance):
            self._on_change()
        self._was_held = held


def _holder(lease: Document) -> str:
    return str((lease.get("spec") or {}).get("holderIdentity") or "")


def _annotations(lease: Document) -> dict[str, str]:
    return (lease.get("metadata") or {}).get("annotations") or {}


def _annotated(lease: Document, changes: dict[str, str | None]) -> Document:
    annotations = {**_annotations(lease), **changes}
    kept = {name: value for name, value in annotations.items() if value is not None}
    return {**lease, "metadata": {**lease["metadata"], "annotations": kept}}


def _epoch(lease: Document) -> int:
    text = _annotations(lease).get(EPOCH_ANNOTATION, "")
    return int(text) if text.isascii() and text.isdigit() else 0
