"""A TCP and UDP proxy on a loopback port in front of a real server, which goes away in the ways that servers do.

Refused (nobody listens, open connections are reset), reset (accepted and reset), hung (accepted, nothing moves),
slow (everything arrives later), and back. What hangs or is slow goes on when the fault ends, as after a pause.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Any, TypeVar, cast

from testbed import ports
from testbed.accepting import accept_no_more
from testbed.running import Running

ADDRESS = "127.0.0.1"
READ_BYTES = 256 * 1024
DO_SECONDS = 10.0
# Closing with this option set sends a reset instead of an end.
LINGER_NOT = struct.pack("ii", 1, 0)

T = TypeVar("T")


class Fault(Enum):
    NONE = "none"
    REFUSED = "refused"
    RESET = "reset"
    HUNG = "hung"
    SLOW = "slow"


class Faulty(Running):
    """The proxy, a context manager: `port` leads to `target` on 127.0.0.1, by TCP and UDP.

    `slow_for` may pick out single chunks of what clients send: while it returns True for one, that connection is
    held up by `delay` seconds and others are not.
    """

    def __init__(self, target: int) -> None:
        self.port = ports.reserve()
        self.target = target
        self.slow_for: Callable[[bytes], bool] = lambda _: False
        self.delay = 0.0
        self._fault = Fault.NONE
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"faulty-{self.port}", daemon=True)
        self._tcp: asyncio.Server | None = None
        self._udp: asyncio.DatagramTransport | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    def start(self) -> None:
        self._thread.start()
        self._do(self._listen())

    def stop(self) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DO_SECONDS)
        self._loop.close()
        ports.release(self.port)

    def hurt(self, fault: Fault, delay: float = 0.0) -> None:
        """Let a fault begin; `delay` is for SLOW, in seconds and each direction."""
        self._do(self._set(fault, delay))

    def heal(self) -> None:
        """Let the fault end."""
        self._do(self._set(Fault.NONE, 0.0))

    # -- in the proxy's own thread

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(DO_SECONDS)

    async def _set(self, fault: Fault, delay: float) -> None:
        was, self._fault, self.delay = self._fault, fault, delay
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if fault in (Fault.REFUSED, Fault.RESET):
            self._reset_all()
        if fault is Fault.REFUSED:
            await self._deafen()
        elif was is Fault.REFUSED:
            await self._listen()

    async def _listen(self) -> None:
        self._tcp = await asyncio.start_server(self._serve, ADDRESS, self.port, backlog=256)
        self._udp, _ = await self._loop.create_datagram_endpoint(
            lambda: _Questions(self), local_addr=(ADDRESS, self.port)
        )

    async def _deafen(self) -> None:
        if self._tcp is not None:
            await accept_no_more(self._tcp.sockets)
            self._tcp.close()
        if self._udp is not None:
            self._udp.close()
        # Both sockets are closed by callbacks.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def _close(self) -> None:
        self._reset_all()
        await self._deafen()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _reset_all(self) -> None:
        for writer in list(self._open):
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        try:
            await self._joined(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(writer)
            self._tasks.discard(task)
            writer.close()

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._fault is Fault.RESET:
            _reset(writer)
            return
        await self._pass(b"", 0.0)
        there, back = await asyncio.open_connection(ADDRESS, self.target)
        self._open.add(back)
        pumps = {
            asyncio.create_task(self._pump(reader, back, asks=True)),
            asyncio.create_task(self._pump(there, writer, asks=False)),
        }
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open.discard(back)
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)
            back.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, asks: bool) -> None:
        """Bytes wait for their time in a queue, so that a slow link delays them without being narrow."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            while True:
                came, data = await queue.get()
                await self._pass(data if asks else b"", came)
                if not data:
                    return
                writer.write(data)
                await writer.drain()

        delivering = asyncio.create_task(deliver())
        try:
            while data := await reader.read(READ_BYTES):
                queue.put_nowait((self._loop.time(), data))
            queue.put_nowait((self._loop.time(), b""))
            await delivering
        except OSError:
            return
        finally:
            delivering.cancel()
            await asyncio.wait([delivering])

    async def _pass(self, data: bytes, came: float) -> None:
        """Wait until bytes that came then may go on."""
        held = bool(data) and self.slow_for(data)
        while True:
            changed = self._changed
            if held:
                await asyncio.sleep(self.delay)
                return
            match self._fault:
                case Fault.HUNG:
                    await changed.wait()
                case Fault.SLOW if (left := came + self.delay - self._loop.time()) > 0:
                    try:
                        async with asyncio.timeout(left):
                            await changed.wait()
                    except TimeoutError:
                        return
                case _:
                    return

    def ask(self, question: bytes, answer_to: Callable[[bytes], None]) -> None:
        """Pass a datagram on, and its answer back."""
        task = self._loop.create_task(self._asked(question, answer_to))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _asked(self, question: bytes, answer_to: Callable[[bytes], None]) -> None:
        await self._pass(question, self._loop.time())
        answers: asyncio.Queue[bytes] = asyncio.Queue()
        transport, _ = await self._loop.create_datagram_endpoint(
            lambda: _Answers(answers), remote_addr=(ADDRESS, self.target)
        )
        try:
            transport.sendto(question)
            async with asyncio.timeout(DO_SECONDS):
                answer = await answers.get()
            await self._pass(b"", self._loop.time())
            answer_to(answer)
        except TimeoutError:
            return
        finally:
            transport.close()


class _Questions(asyncio.DatagramProtocol):
    def __init__(self, proxy: Faulty) -> None:
        self._proxy = proxy

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._proxy.ask(data, lambda answer: self._transport.sendto(answer, addr))


class _Answers(asyncio.DatagramProtocol):
    def __init__(self, answers: asyncio.Queue[bytes]) -> None:
        self._answers = answers

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._answers.put_nowait(data)


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
    writer.transport.abort()
