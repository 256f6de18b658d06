"""What is on the log: the configuration under our epoch, guarded against a mass removal and read back at times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from gatepost.backends.config_log import ConfigurationPublisher
from gatepost.core.config_head import Head
from gatepost.core.configuration import Configuration
from gatepost.core.ports.log import LogUnavailable
from gatepost.telemetry import metrics
from gatepost_operator.cluster import Cluster, ClusterRefused
from gatepost_operator.compilation import Compilation
from gatepost_operator.lease import LeaseKeeper
from gatepost_operator.programmed import Published
from gatepost_operator.removal import ANNOTATION, QUIET_S, Gathering, Removal, held_back

VERIFY_S: Final = 60.0

_log = structlog.get_logger()


class Publication:
    """Brings the topic to what is wanted, one step() at a time; a step that fails is simply taken again.

    `removal` is what waits for a person's word, `known` what edges may be running, `again_s` in how many seconds
    there is more to do without any change (None: there is not).
    """

    def __init__(
        self,
        cluster: Cluster,
        lease: LeaseKeeper,
        monotonic: Callable[[], float],
        *,
        verify_s: float = VERIFY_S,
        quiet_s: float = QUIET_S,
    ) -> None:
        self._cluster, self._gathering = cluster, Gathering(monotonic, quiet_s)
        self._lease, self._monotonic, self._verify_s = lease, monotonic, verify_s
        self._publisher: ConfigurationPublisher | None = None
        self._head: Head | None = None  # what stands under our epoch
        self._in_force: Configuration | None = None
        self._verified = float("-inf")
        self._granted: frozenset[str] = frozenset()
        self.known = Published()
        self.removal: Removal | None = None
        self.again_s: float | None = None
        self.ever = False
        """Whether this process has published."""

    def connect(self, publisher: ConfigurationPublisher) -> None:
        """The log is there, for the first time."""
        self._publisher = publisher

    async def step(self, compilation: Compilation) -> None:
        """Publish what is to be published. Raises LogError, ClusterError."""
        publisher = self._publisher
        if publisher is None:
            raise LogUnavailable("the log was not reached yet")
        if self._lease.epoch is None:
            await self._begin(publisher)
        await self._verify(publisher)
        wanted = await self._permitted(compilation.configuration)
        digest = compilation.hash if wanted is compilation.configuration else wanted.hash
        if self._head is None or self._head.hash != digest:
            await self._write(publisher, wanted, digest)

    async def _begin(self, publisher: ConfigurationPublisher) -> None:
        """Begin our epoch with what another, or we in a former life, have published."""
        self._head = None
        head = await publisher.load()
        self._in_force = publisher.configuration()
        if head is not None and self._in_force is not None:
            self.known.add(head.hash, self._in_force)
        await self._lease.claim(head.epoch if head is not None else 0)
        self._verified = self._monotonic()

    async def _verify(self, publisher: ConfigurationPublisher) -> None:
        """Read back what was published: the topic may have lost it, or somebody else may have written."""
        if self._head is None or self._monotonic() - self._verified < self._verify_s:
            return
        head = await publisher.load()
        self._verified = self._monotonic()
        if head == self._head and publisher.configuration() is not None:
            return
        _log.error("config.lost", found=head.epoch if head is not None else None, ours=self._head.epoch)
        self._head = None
        if head is not None and head.epoch > (self._lease.epoch or 0):
            await self._lease.claim(head.epoch)

    async def _permitted(self, new: Configuration) -> Configuration:
        """The configuration to publish: the new one, or the one in force while a removal waits."""
        in_force = self._in_force
        gone = frozenset(in_force.objects).difference(new.objects) if in_force is not None else frozenset()
        self.again_s = self._gathering.remaining(gone) or None
        if in_force is not None and self.again_s is not None:
            return in_force
        await self._check_defined(gone)
        removal = held_back(in_force, new)
        if removal is not None and not self._granted.issuperset(removal.domains):
            if self._lease.allowance >= len(removal.domains):
                # First used up, then acted upon: a crash in between asks again, it never allows another removal.
                await self._lease.use_allowance()
                self._granted = frozenset(removal.domains)
                _log.warning("config.removal.allowed", reason=str(removal))
            else:
                self._hold(removal)
                assert in_force is not None
                return in_force
        self._hold(None)
        return new

    async def _check_defined(self, gone: frozenset[str]) -> None:
        """With its definition all objects of a kind go: nobody meant the configuration by that."""
        kinds = {name.partition("/")[0] for name in gone}
        if missing := sorted(kinds - await self._cluster.defined_kinds() if kinds else ()):
            raise ClusterRefused(f"the definition of {', '.join(missing)} is gone or going: nothing is removed")

    def _hold(self, removal: Removal | None) -> None:
        metrics.OPERATOR_HELD_BACK.set(float(len(removal.domains)) if removal else 0.0)
        if removal is not None and removal != self.removal:
            _log.error("config.held", reason=str(removal), annotation=ANNOTATION)
        self.removal = removal

    async def _write(self, publisher: ConfigurationPublisher, configuration: Configuration, digest: str) -> None:
        epoch, newest = self._lease.epoch, publisher.head
        if epoch is None or not self._lease.held:
            return
        generation = newest.generation + 1 if newest is not None else 1
        # Known before it is written: an append whose outcome is unknown may reach the edges all the same.
        self.known.add(digest, configuration)
        self._head = await publisher.publish(configuration, epoch, generation)
        self._in_force, self._granted, self.ever = configuration, frozenset(), True
        metrics.OPERATOR_PUBLISHED.add("published")
        _log.info("config.published", epoch=epoch, generation=generation, hash=digest[:12])
