"""What aiokafka's connections do under uvloop, the loop of every process of ours."""

from __future__ import annotations

import asyncio

import pytest
import uvloop
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

import gatepost.backends.log_kafka  # noqa: F401  (as every user of the library here does)

LIMIT = 5.0


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

    async def in_time() -> None:
        async with asyncio.timeout(LIMIT):
            await write_after_a_reset()

    uvloop.run(in_time())
