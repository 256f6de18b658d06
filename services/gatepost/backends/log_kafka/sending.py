"""librdkafka's producer on an event loop: records go to its threads, and what became of them is called back here.

Its Python package hands reports over only when it is asked, and has no way to say that there are some. So a timer
asks: soon after a record was handed over, then every millisecond while reports come, less often while none do (an
outage), and once a second otherwise, for its log lines.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import Producer as Librdkafka

from gatepost.backends.log_kafka.connection import credentials, request_ms, security_protocol, unusable
from gatepost.backends.log_kafka.quiet import LIBRDKAFKA
from gatepost.core.manifest.settings import KafkaSecurity, KafkaSettings
from gatepost.core.ports.log import Entry

# A batch of one piece of a body (900 KB and headers) must fit; Kafka's message.max.bytes is 1,048,588.
MAX_REQUEST: Final = 1_048_576
# A record waits so long for others to share its batch, its request and the broker's work. With 20 clients at once
# that saves a fifth of the CPU of both sides; one client alone waits less than for any disk. One more would save a
# little at few messages per connection, and cost a sixth of the messages/s at many.
LINGER_MS: Final = 2
# How long until reports are asked for: when a record was handed over to an idle producer (it lingers, and then a
# broker answers), while reports come, while some are due and none has come for long, and while none is due.
FIRST_SECONDS: Final = 0.001 * (LINGER_MS + 1)
NEXT_SECONDS: Final = 0.001
SELDOM_SECONDS: Final = 0.05
IDLE_SECONDS: Final = 1.0
# How long librdkafka's own threads are waited for at the end.
END_SECONDS: Final = 2.0
# How much sooner than the client the broker gives up waiting for the other replicas.
_ANSWER_MS: Final = 500
_BACKOFF_MS: Final = 100
# What is sent to the address of a pod that is gone is lost without an answer, and TCP asks again after 1, 3 and 7 s
# (RFC 6298 2, 5.5): a connection that takes longer is begun anew, so that somebody is asked every second.
_CONNECT_MS: Final = 2_000
# librdkafka takes no longer limits for one answer.
_LONGEST_MS: Final = 300_000
# So many times in turn without a report are no outage yet.
_PATIENCE: Final = 100

Report = Callable[[KafkaError | None, Message], None]

_log = logging.getLogger(LIBRDKAFKA)


class Sending:
    """One idempotent producer. `report` is called on the event loop, once for each record that was taken."""

    def __init__(self, settings: KafkaSettings, client_id: str) -> None:
        """Raises LogUnavailable when a file of the security settings cannot be used."""
        self._loop = asyncio.get_running_loop()
        try:
            self._client: Librdkafka = Librdkafka(_options(settings, client_id), logger=_log)
        except (KafkaException, OSError, ValueError) as error:
            raise unusable(error) from error
        self._empty = asyncio.Event()
        self._empty.set()
        self._without = 0
        self._timer = self._loop.call_later(IDLE_SECONDS, self._ask)

    def send(self, entry: Entry, partition: int, report: Report) -> None:
        """Hand a record over, to be written once, sooner or later. Raises KafkaException: it was not taken."""
        try:
            self._client.produce(
                entry.topic, entry.value, entry.key, partition, report, None, 0, list(entry.headers)
            )
        except BufferError:
            raise KafkaException(KafkaError(KafkaError._QUEUE_FULL)) from None
        if self._empty.is_set():
            self._empty.clear()
            self._without = 0
            self._timer.cancel()
            self._timer = self._loop.call_later(FIRST_SECONDS, self._ask)

    async def close(self, limit: float) -> None:
        """Wait at most `limit` seconds for what is on its way, then report it as failed and let go."""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(limit):
                    await self._empty.wait()
        finally:
            self._timer.cancel()
            self._client.purge()
            self._client.poll(0)
            ended = asyncio.Event()
            threading.Thread(target=self._end, args=(ended,), name="kafka producer end", daemon=True).start()
            with suppress(TimeoutError):
                async with asyncio.timeout(END_SECONDS):
                    await ended.wait()

    def _end(self, ended: asyncio.Event) -> None:
        """In a thread: librdkafka waits for its own threads, and they perhaps for a name that DNS does not tell."""
        self._client.close()
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(ended.set)

    def _ask(self) -> None:
        told = 1
        try:
            told = self._client.poll(0)
        finally:  # also behind a report that raised: others wait for theirs
            self._without = 0 if told else self._without + 1
            if len(self._client):
                pause = NEXT_SECONDS if self._without < _PATIENCE else SELDOM_SECONDS
            else:
                self._empty.set()
                pause = IDLE_SECONDS
            self._timer = self._loop.call_later(pause, self._ask)


def _options(settings: KafkaSettings, client_id: str) -> dict[str, Any]:
    """Raises OSError, ValueError."""
    limit = min(request_ms(settings), _LONGEST_MS)
    options: dict[str, Any] = {
        "bootstrap.servers": ",".join(settings.bootstrap_servers),
        "client.id": client_id,
        "security.protocol": security_protocol(settings),
        # Written once, in order, by all replicas that are in sync (docs/adr/0002), and retried for ever: the limits
        # are ours.
        "enable.idempotence": True,
        "message.timeout.ms": 0,
        "linger.ms": LINGER_MS,
        "batch.size": MAX_REQUEST,
        "message.max.bytes": MAX_REQUEST,
        # How much may be in flight is limited by those who append: by what they keep in memory themselves.
        "queue.buffering.max.messages": 0,
        "queue.buffering.max.kbytes": 2_097_151,
        # As the other clients have it: a broker that does not answer is given up so soon, and asked again at once.
        "socket.timeout.ms": limit,
        "request.timeout.ms": limit - _ANSWER_MS,
        "api.version.request.timeout.ms": limit,
        "socket.connection.setup.timeout.ms": min(limit, _CONNECT_MS),
        "socket.nagle.disable": True,
        # What this client measures of itself is told to nobody.
        "enable.metrics.push": False,
        # A broker that is back is found as soon as by the other clients: what waits for it has been waited for.
        "reconnect.backoff.ms": _BACKOFF_MS,
        "reconnect.backoff.max.ms": _BACKOFF_MS,
        "retry.backoff.ms": _BACKOFF_MS,
        "retry.backoff.max.ms": _BACKOFF_MS,
    }
    if settings.security is KafkaSecurity.TLS:
        options["ssl.ca.location"] = settings.ca_file or ssl.get_default_verify_paths().cafile or "probe"
        if settings.certificate_file:
            options["ssl.certificate.location"] = settings.certificate_file
            options["ssl.key.location"] = settings.key_file
    login = credentials(settings)
    if login is not None:
        options["sasl.mechanism"] = settings.sasl_mechanism.value
        options["sasl.username"], options["sasl.password"] = login
    return options
