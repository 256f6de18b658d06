"""A Maildir store that is killed with SIGKILL again and again while a reader empties it: exactly once."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from gatepost.core.ids import new_id

pytestmark = pytest.mark.kill

# Prints a line with an id when the store has said STORED; takes the ids to deliver from a file, several at once.
CHILD = """
import asyncio, sys
from pathlib import Path
from gatepost.backends.body import MemoryBody
from gatepost.backends.store_maildir import MaildirStore
from gatepost.core.manifest.settings import MaildirSettings
from gatepost.core.ports.store import Delivery, StoreOutcome

async def main(root, names):
    store = MaildirStore(MaildirSettings(path="mail"), root, "mx.example.test")
    await store.start()
    print("ready", flush=True)
    waiting = iter(names)
    async def lane(number):
        for name in waiting:
            size = 300_000 if sum(name.encode()) % 29 == 0 else 2_000
            body = b"Subject: " + name.encode() + b"\\r\\n\\r\\n" + b"x" * size
            box = "user%d" % (sum(name.encode()) % 7)
            [result] = await store.deliver([Delivery(name, box, "", "", b"X: y\\r\\n", MemoryBody(body), 0)])
            assert result.outcome is StoreOutcome.STORED, result
            print(name, flush=True)
    await asyncio.gather(*(lane(number) for number in range(12)))
    await store.close()
    print("finished", flush=True)

asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]).read_text().split()))
"""
COUNT = 3000
ROUNDS = 25
SUBJECT = re.compile(rb"X: y\r\nSubject: ([0-9A-Z]{26})\r\n\r\nx+", re.ASCII)


class Reader(threading.Thread):
    """Removes every message as soon as it is there, and counts it by its subject."""

    def __init__(self, root: Path) -> None:
        super().__init__(daemon=True)
        self.root = root
        self.seen: Counter[str] = Counter()
        self.broken: list[Path] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.is_set():
            if not self.look():
                self.stopping.wait(0.001)

    def look(self) -> int:
        found = list(self.root.glob("mail/user*/new/*"))
        for path in found:
            content = path.read_bytes()
            match = SUBJECT.fullmatch(content)
            if match is None or f"S={len(content)}" not in path.name:
                self.broken.append(path)
            else:
                self.seen[match.group(1).decode()] += 1
            path.unlink()
        return len(found)


def test_killed_at_random_moments(tmp_path: Path) -> None:
    chance = random.Random(20)
    now_ms = time.time_ns() // 1_000_000
    ids = [new_id(now_ms + number, chance.randbytes(10)) for number in range(COUNT)]
    acknowledged: set[str] = set()
    reader = Reader(tmp_path)
    reader.start()
    kills = 0
    for turn in range(ROUNDS + 1):
        # As a log gives records again: all that is not acknowledged, and some of what is.
        repeated = chance.sample(sorted(acknowledged), min(20, len(acknowledged)))
        todo = repeated + [name for name in ids if name not in acknowledged]
        (tmp_path / "ids").write_text("\n".join(todo))
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path), str(tmp_path / "ids")], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        # After a number of acknowledgements rather than a time, so that a slow machine is killed as often.
        patience = COUNT if turn == ROUNDS else chance.randrange(0, COUNT // ROUNDS)
        finished = False
        for line in child.stdout:
            finished = line == "finished\n"
            if finished:
                break
            acknowledged.add(line.strip())
            patience -= 1
            if patience < 0:
                time.sleep(chance.random() * 0.004)
                child.send_signal(signal.SIGKILL)
                kills += 1
                break
        rest = child.stdout.read().split()
        finished = finished or "finished" in rest
        acknowledged.update(name for name in rest if name in set(ids))
        child.stdout.close()
        child.wait(60)
    reader.stopping.set()
    reader.join(20)
    reader.look()
    assert finished
    assert kills >= ROUNDS - 2
    assert reader.broken == []
    assert acknowledged == set(ids)
    assert {name: reader.seen[name] for name in ids if reader.seen[name] != 1} == {}
    assert list((tmp_path / "mail" / ".staging").iterdir()) == []
