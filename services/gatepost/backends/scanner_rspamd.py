"""rspamd over HTTP: POST /checkv2, the message as the body while it comes, the envelope in request headers.

Each message has a connection of its own: one that is kept may be closed by the other side at the very moment, and a
message that was streamed cannot be sent again. Nothing is done that an answer asks for: no redirect, no cookie.
Source: rspamd's documentation of its protocol ("Rspamd HTTP request", "Rspamd HTTP reply").
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Final

import aiohttp
import msgspec

from gatepost.core.ports.scanner import Advice, ScanFacts, ScannerRefused, ScannerUnavailable, ScanResult

CONNECT_LIMIT: Final = 10.0  # s; the caller's limit for a whole scan may be shorter
# A reply names each symbol with its options: some ten KB, rarely a hundred.
MAX_REPLY: Final = 2**20
# No more headers than rspamd's parser is content with; the rest of the recipients matters little to a filter.
MAX_RECIPIENTS: Final = 100

_ADVICE: Final = {advice.value: advice for advice in Advice if advice is not Advice.FOUND}

Weight = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]


class _Symbol(msgspec.Struct):
    score: float = 0.0


class _Reply(msgspec.Struct):
    action: str
    score: Weight = 0.0
    required_score: Weight | None = None
    symbols: dict[str, _Symbol] = {}


class Rspamd:
    """All connections to rspamd servers. Belongs to one event loop."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def scan(self, url: str, settings: str, facts: ScanFacts, pieces: AsyncIterator[bytes]) -> ScanResult:
        """Raises ScannerUnavailable, ScannerRefused."""
        session = self._open()
        try:
            async with session.post(
                f"{url}/checkv2",
                data=pieces,
                headers=_headers(facts, settings),
                allow_redirects=False,
            ) as response:
                body = await _limited(response)
                return read_reply(response.status, body, url)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise ScannerUnavailable(f"rspamd at {url}: {type(error).__name__}: {str(error)[:200]}") from None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, force_close=True),
                # Content may take hours to come: the caller limits the whole.
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_LIMIT),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            await asyncio.sleep(0)  # connections are closed by callbacks


def _headers(facts: ScanFacts, settings: str) -> list[tuple[str, str]]:
    known = {
        "Content-Type": "application/octet-stream",
        "Accept-Encoding": "identity",
        "Queue-Id": facts.queue_id,
        "From": facts.reverse_path or "<>",
        "IP": facts.client,
        "Helo": facts.helo,
        "Hostname": facts.client_name,
        "User": facts.login,
        "Settings-ID": settings,
    }
    headers = [(name, _line(value)) for name, value in known.items() if value]
    headers += [("Rcpt", _line(recipient)) for recipient in facts.recipients[:MAX_RECIPIENTS]]
    return headers


def _line(text: str) -> str:
    """What a client has said, as the value of one header."""
    return "".join(c if c.isprintable() else "?" for c in text)


async def _limited(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_REPLY:
            raise ValueError("an endless reply")
    return bytes(body)


def read_reply(status: int, body: bytes, url: str) -> ScanResult:
    """Read an answer to /checkv2. Raises ScannerUnavailable, ScannerRefused."""
    if status != 200:
        text = f"rspamd at {url}: HTTP {status}"
        # 413, or 400 and 500 with a reason: it looked at this message and will not judge it.
        raise ScannerRefused(text) if status in (400, 413) else ScannerUnavailable(text)
    try:
        reply = msgspec.json.decode(body, type=_Reply)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ScannerUnavailable(f"rspamd at {url}: an answer that cannot be read: {error}") from None
    by_weight = sorted(reply.symbols.items(), key=lambda item: (-abs(item[1].score), item[0]))
    return ScanResult(
        _ADVICE.get(reply.action, Advice.OTHER),
        tuple(name for name, _ in by_weight),
        reply.score,
        reply.required_score or 0.0,
    )
