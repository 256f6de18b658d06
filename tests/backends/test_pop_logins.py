"""What a mailbox server tells the admin server: who has just logged in, from where."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gatepost.backends.log_memory import MemoryLog
from gatepost.backends.pop_logins import MOST_BYTES, PATH, PopLogins
from gatepost.backends.state_log import LogState
from gatepost.core.pop_before_smtp import MAX_ACCOUNT, POP_LOGIN, PopLogin
from gatepost.core.state_kinds import KINDS
from gatepost.core.topics import Topics
from gatepost.telemetry.health import HealthServer

NOW_MS = 1_790_000_000_000
TOKEN = "0123456789abcdef-token"


class Admin:
    """The admin server with the endpoint, and the shared memory of two edges behind it."""

    def __init__(self, log: MemoryLog, token_file: Path) -> None:
        topic = Topics().state
        self.here, self.there = (LogState(log, topic, KINDS, lambda: NOW_MS) for _ in range(2))
        self.token_file = token_file
        logins = PopLogins(self.here, token_file, lambda: NOW_MS)
        self.server = HealthServer("127.0.0.1:0", {}, routes=logins.routes)

    async def post(self, body: Any, token: str | None = TOKEN, **more: Any) -> int:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        url = f"http://127.0.0.1:{self.server.port}{PATH}"
        async with aiohttp.ClientSession() as session, session.post(url, headers=headers, **body, **more) as answer:
            return answer.status


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    log = MemoryLog()
    await log.start()
    await log.ensure_topics(Topics().specs((), 1))
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    made = Admin(log, file)
    for state in (made.here, made.there):
        await state.start()
    await made.server.start()
    yield made
    await made.server.close()
    for state in (made.here, made.there):
        await state.close()
    await log.close()


@pytest.mark.requirement("S0-16")
async def test_all_edges_know_a_login(admin: Admin) -> None:
    """Fails without a login that one edge is told of being known to every edge, by its address in one form."""
    arrived: list[tuple[str, PopLogin | None]] = []
    admin.there.on_change(POP_LOGIN, lambda key, login: arrived.append((key, login)))
    assert await admin.post({"json": {"address": "::ffff:192.0.2.7", "account": "a" * 1000}}) == 204
    async with asyncio.timeout(10):
        while not arrived:
            await asyncio.sleep(0.001)
    assert arrived == [("192.0.2.7", PopLogin(NOW_MS, "a" * MAX_ACCOUNT))]
    assert admin.there.get(POP_LOGIN, "192.0.2.7", NOW_MS) is not None


@pytest.mark.parametrize(
    ("body", "token", "expected"),
    [
        ({"json": {"address": "192.0.2.7"}}, None, 401),
        ({"json": {"address": "192.0.2.7"}}, "", 401),
        ({"json": {"address": "192.0.2.7"}}, TOKEN + "x", 401),
        ({"json": {"address": "192.0.2.7"}}, TOKEN[:-1], 401),
        ({"json": {"address": "192.0.2.0/24"}}, TOKEN, 400),
        ({"json": {"address": "0.0.0.0"}}, TOKEN, 400),
        ({"json": {"address": 7}}, TOKEN, 400),
        ({"json": {"account": "alice"}}, TOKEN, 400),
        ({"json": {"address": "192.0.2.7", "window": "1h"}}, TOKEN, 400),
        ({"data": b"\xff"}, TOKEN, 400),
        ({"data": b""}, TOKEN, 400),
        ({"data": b" " * (MOST_BYTES + 1)}, TOKEN, 400),
        ({"data": b'{"address":"192.0.2.7"}' + b" " * MOST_BYTES}, TOKEN, 400),
    ],
)
async def test_what_is_not_taken(admin: Admin, body: Any, token: str | None, expected: int) -> None:
    assert await admin.post(body, token) == expected
    assert admin.here.size(POP_LOGIN) == 0


async def test_the_token_is_read_each_time(admin: Admin) -> None:
    body = {"json": {"address": "192.0.2.7"}}
    another = "another token, long enough"
    admin.token_file.write_text(another)
    assert await admin.post(body) == 401
    assert await admin.post(body, another) == 204
    admin.token_file.write_text("short")
    assert await admin.post(body, "short") == 503
    admin.token_file.unlink()
    assert await admin.post(body, "") == 503


async def test_the_admin_server_without_it_has_no_such_page() -> None:
    server = HealthServer("127.0.0.1:0", {})
    await server.start()
    try:
        url = f"http://127.0.0.1:{server.port}{PATH}"
        async with aiohttp.ClientSession() as session, session.post(url, json={}) as answer:
            assert answer.status == 404
    finally:
        await server.close()
