"""`POST /pop-before-smtp` of the admin server: a mailbox server tells the addresses that have just logged in.

    POST /pop-before-smtp
    Authorization: Bearer <the text of admin.popBeforeSmtpTokenFile>
    {"address": "192.0.2.7", "account": "alice"}

204: noted, and known to all edges within 2 s. 400: no such body. 401: another token. 503: the shared memory or the
token cannot be read now; the mailbox server need not try again, the next login will.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import structlog
from aiohttp import web

from gatepost.core.pop_before_smtp import LONGEST_S, MAX_ACCOUNT, POP_LOGIN, PopLogin, address_key
from gatepost.core.ports.state import State, StateError
from gatepost.telemetry import metrics

PATH: Final = "/pop-before-smtp"
WRITE_LIMIT_S: Final = 2.0
BODY_LIMIT_S: Final = 5.0
MOST_BYTES: Final = 4096
# A shorter token can be guessed, as fast as the admin server answers.
LEAST_TOKEN: Final = 16

_log = structlog.get_logger("gatepost.edge")


class _Told(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    address: str
    account: str = ""


class PopLogins:
    """Takes what mailbox servers tell. `token_file` is read at each request, so that it can be changed."""

    def __init__(self, state: State, token_file: Path, now_ms: Callable[[], int]) -> None:
        self._state, self._token_file, self._now_ms = state, token_file, now_ms

    @property
    def routes(self) -> tuple[web.RouteDef, ...]:
        """For the admin server."""
        return (web.post(PATH, self._post),)

    async def _post(self, request: web.Request) -> web.Response:
        code, text = await self._answer(request)
        metrics.POP_LOGINS.add(str(code))
        return web.Response(status=code, text=text)

    async def _answer(self, request: web.Request) -> tuple[int, str]:
        try:
            token = await asyncio.to_thread(self._token)
        except OSError as error:
            _log.error("pop_before_smtp.no_token", file=str(self._token_file), reason=error.strerror)
            return 503, "no token\n"
        if len(token) < LEAST_TOKEN:
            _log.error(
                "pop_before_smtp.no_token", file=str(self._token_file), reason=f"under {LEAST_TOKEN} characters"
            )
            return 503, "no token\n"
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, b"Bearer " + token):
            _log.warning("pop_before_smtp.refused", peer=request.remote)
            return 401, "another token\n"
        try:
            async with asyncio.timeout(BODY_LIMIT_S):
                told = msgspec.json.decode(await _body(request), type=_Told)
            key = address_key(told.address)
        except TimeoutError:
            return 400, "the body came too slowly\n"
        except ValueError as error:  # msgspec's own included
            return 400, f"{error}\n"
        now_ms = self._now_ms()
        login = PopLogin(now_ms, told.account[:MAX_ACCOUNT])
        try:
            await self._state.put(POP_LOGIN, key, login, now_ms + int(LONGEST_S * 1000), WRITE_LIMIT_S)
        except StateError as error:
            _log.warning("pop_before_smtp.lost", reason=str(error))
            return 503, "not noted\n"
        _log.info("pop_before_smtp", address=key, account=login.account)
        return 204, ""

    def _token(self) -> bytes:
        with self._token_file.open("rb") as stream:
            return stream.read(MOST_BYTES).strip()


async def _body(request: web.Request) -> bytes:
    """At most MOST_BYTES of it. Raises ValueError for more."""
    data = await request.content.read(MOST_BYTES + 1)
    while len(data) <= MOST_BYTES and (more := await request.content.read(MOST_BYTES + 1 - len(data))):
        data += more
    if len(data) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES} bytes")
    return data
