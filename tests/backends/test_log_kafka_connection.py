"""What aiokafka's connections do when a broker has closed them, under uvloop, which all processes of ours use."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import pytest
import uvloop
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.admin import ApiVersionResponse_v0
from aiokafka.protocol.metadata import MetadataRequest

import gatepost.backends.log_kafka  # noqa: F401  (as every user of the library here does)

LIMIT = 5.0
# A broker's answer to the first question of every connection: it knows metadata requests of version 0 to 5.
VERSIONS = ApiVersionResponse_v0(error_code=0, api_versions=[(MetadataRequest([]).API_KEY, 0, 5)])


def test_a_write_to_a_closed_connection_is_an_error_of_kafka() -> None:
    """uvloop raises RuntimeError, which aiokafka does not know: it ended the tasks of consumers for good."""

    async def write_after_a_reset() -> None:
        taken = asyncio.Event()

        async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.transport.abort()
            taken.set()

        async with await asyncio.start_server(reset, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()
            connection = AIOKafkaConnection(host, port)
            connection._versions = {MetadataRequest([]).API_KEY: (0, 5)}
            connection._reader, connection._writer = await asyncio.open_connection(host, port)
            # As in the moment before its reader has seen the end.
            connection._read_task = asyncio.get_running_loop().create_future()
            await taken.wait()
            connection._writer.transport.close()
            await connection._writer.wait_closed()
            with pytest.raises(KafkaConnectionError, match="the handler is closed"):
                connection.send(MetadataRequest([]))
            assert not connection.connected()

    _run(write_after_a_reset())


def test_a_connection_that_ended_is_closed_before_another_takes_its_place() -> None:
    """aiokafka only forgot it: the socket stayed open, and who had asked waited for the limit of the request."""

    async def ask_for_one_after_the_end() -> None:
        hang_up = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(4)
            await hang_up.wait()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()
            client = AIOKafkaClient(bootstrap_servers=f"{host}:{port}")
            connection = AIOKafkaConnection(host, port, on_close=client._on_connection_closed)
            connection._versions = {MetadataRequest([]).API_KEY: (0, 5)}
            reader, connection._writer = await asyncio.open_connection(host, port)
            connection._reader, transport = reader, connection._writer.transport
            # As in the moment before its reader has seen the end.
            connection._read_task = asyncio.get_running_loop().create_future()
            client._conns[7, ConnectionGroup.DEFAULT] = connection
            answer = connection.send(MetadataRequest([]))
            hang_up.set()
            await reader.read()
            assert reader.at_eof()
            del connection
            assert not await client.ready(7)
            assert transport.is_closing()
            with pytest.raises(KafkaConnectionError, match="closed"):
                await answer

    _run(ask_for_one_after_the_end())


def test_a_bootstrap_that_is_cancelled_leaves_no_connection_open() -> None:
    """Fails without closing the one on which aiokafka had asked for the metadata: nobody else knows it."""

    async def give_up_while_metadata_is_asked_for() -> None:
        asked, gone = asyncio.Event(), asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            request = await reader.readexactly(int.from_bytes(await reader.readexactly(4)))
            answer = request[4:8] + VERSIONS.encode()
            writer.write(len(answer).to_bytes(4) + answer)
            await reader.readexactly(4)
            asked.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(LIMIT / 2):
                    await reader.read()
                gone.set()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()
            client = AIOKafkaClient(bootstrap_servers=f"{host}:{port}")
            starting = asyncio.create_task(client.bootstrap())
            await asked.wait()
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
            await gone.wait()
            await client.close()

    _run(give_up_while_metadata_is_asked_for())


def _run(work: Coroutine[Any, Any, None]) -> None:
    async def in_time() -> None:
        async with asyncio.timeout(LIMIT):
            await work

    uvloop.run(in_time())
