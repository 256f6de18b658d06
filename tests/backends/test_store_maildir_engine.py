"""A Maildir store that dies after any step, and faults of the disk: nothing lost, nothing twice."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from gatepost.backends.body import MemoryBody
from gatepost.backends.store_maildir import engine as engine_module
from gatepost.backends.store_maildir.engine import Engine, Job, StoreOwned
from gatepost.backends.store_maildir.ledger import Ledger
from gatepost.backends.store_maildir.naming import file_name, host_part, mailbox_fault
from gatepost.backends.store_maildir.syncing import OneByOne, WholeFileSystem, best_syncer
from gatepost.core.ids import new_id
from gatepost.core.ports.store import StoreOutcome

HOUR_MS = 3_600_000
NOW_MS = 1_700_000_000_000


class Killed(BaseException):
    """The process ends here."""


def an_engine(root: Path, now_ms: Callable[[], int] = lambda: NOW_MS) -> Engine:
    engine = Engine(root, 48 * HOUR_MS, "mx.example.test", now_ms)
    engine.open()
    return engine


def some_jobs(count: int, mailbox: str = "alice") -> list[Job]:
    return [
        Job(
            new_id(NOW_MS + number, bytes([number]) * 10), mailbox, b"X: 1\r\n", MemoryBody(b"body %d\r\n" % number)
        )
        for number in range(count)
    ]


def again(jobs: list[Job]) -> list[Job]:
    return [Job(job.id, job.mailbox, job.prepend, job.body) for job in jobs]


def take_all(root: Path) -> list[bytes]:
    """Read and remove everything in every new/, as a reader does."""
    taken = []
    for path in sorted(root.glob("*/new/*")):
        taken.append(path.read_bytes())
        path.unlink()
    return taken


def wanted(jobs: list[Job]) -> list[bytes]:
    return sorted(job.prepend + job.body.whole() for job in jobs)


def stop_at(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, *, call: int, before: bool) -> None:
    """Let the process die before or after the `call`-th call of a step."""
    real = getattr(owner, name)
    calls = 0

    def step(*arguments: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == call and before:
            raise Killed
        result = real(*arguments, **named)
        if calls == call:
            raise Killed
        return result

    monkeypatch.setattr(owner, name, step)


STEPS = [
    (Engine, "stage"),
    (Engine, "record"),
    (Engine, "publish"),
    (Engine, "_create"),
    (Engine, "_write"),
    (Engine, "_make_mailbox"),
    (Engine, "_publish_one"),
    (WholeFileSystem, "sync"),
    (engine_module.os, "rename"),
    (os, "fdatasync"),
]


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize(("owner", "name"), STEPS, ids=[name for _, name in STEPS])
def test_death_at_any_step_loses_and_doubles_nothing(
    tmp_path: Path, owner: object, name: str, call: int, before: bool
) -> None:
    first, second = some_jobs(6)[:3], some_jobs(6)[3:]
    engine = an_engine(tmp_path)
    seen: list[bytes] = []
    acknowledged: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, owner, name, call=call, before=before)
        with pytest.raises(Killed):
            for batch in (first, second):
                engine.deliver(batch)
                acknowledged += [job.id for job in batch if job.result is engine_module.STORED]
                seen += take_all(tmp_path)
    engine.close()
    # The reader empties the mailboxes between death and repetition: file names prove nothing then.
    seen += take_all(tmp_path)
    engine = an_engine(tmp_path)
    assert all(message_id in engine.ledger for message_id in acknowledged)
    repeated = again(first + second)
    engine.deliver(repeated)
    assert [job.result for job in repeated] == [engine_module.STORED] * 6
    engine.close()
    seen += take_all(tmp_path)
    assert sorted(seen) == wanted(first + second)
    assert os.listdir(tmp_path / ".staging") == []


def test_a_torn_ledger_line_counts_for_nothing(tmp_path: Path) -> None:
    jobs = some_jobs(2)
    engine = an_engine(tmp_path)
    engine.deliver(jobs[:1])
    engine.close()
    [segment] = [path for path in (tmp_path / ".ledger").iterdir() if path.stat().st_size]
    for torn in (jobs[1].id[:20].encode(), b"\0" * 27, jobs[1].id.encode()):
        good = segment.read_bytes()
        segment.write_bytes(good + torn)
        engine = an_engine(tmp_path)
        assert jobs[0].id in engine.ledger
        assert jobs[1].id not in engine.ledger
        engine.close()
        assert segment.read_bytes() == good


def failing(number: int) -> Callable[..., object]:
    def call(*arguments: object, **named: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO], ids=["ENOSPC", "EDQUOT", "EIO"])
@pytest.mark.parametrize("step", ["create", "write", "stage_sync", "ledger", "ledger_sync", "rename", "last_sync"])
def test_a_full_or_failing_disk_defers_and_recovers(tmp_path: Path, step: str, number: int) -> None:
    jobs = some_jobs(3)
    engine = an_engine(tmp_path)
    fault = failing(number)
    with pytest.MonkeyPatch.context() as patch:
        match step:
            case "create":
                patch.setattr(Engine, "_create", fault)
            case "write":
                patch.setattr(os, "writev", fault)
            case "stage_sync":
                patch.setattr(WholeFileSystem, "sync", fault)
            case "ledger":
                patch.setattr(Ledger, "append", fault)
            case "ledger_sync":
                patch.setattr(os, "fdatasync", fault)
            case "rename":
                patch.setattr(os, "rename", fault)
            case "last_sync":
                real = engine.publish

                def publish(fresh: list[Job], repeated: list[Job]) -> None:
                    with pytest.MonkeyPatch.context() as inner:
                        inner.setattr(WholeFileSystem, "sync", fault)
                        real(fresh, repeated)

                patch.setattr(engine, "publish", publish)
        engine.deliver(jobs)
    assert [(job.result.outcome, job.result.code, job.result.enhanced) for job in jobs if job.result] == [
        (StoreOutcome.DEFERRED, 452, "4.3.1")
    ] * 3
    seen = take_all(tmp_path)
    assert seen == [] or step == "last_sync"  # then it is published, and only not known to be durable
    retried = again(jobs)
    engine.deliver(retried)
    assert [job.result for job in retried] == [engine_module.STORED] * 3
    engine.close()
    assert sorted(seen + take_all(tmp_path)) == wanted(jobs)
    assert os.listdir(tmp_path / ".staging") == []


def test_a_failed_ledger_write_that_reached_the_disk_loses_nothing_after_a_crash(tmp_path: Path) -> None:
    jobs = some_jobs(2)
    engine = an_engine(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fdatasync", failing(errno.EIO))
        patch.setattr(os, "ftruncate", failing(errno.EIO))
        engine.deliver(jobs)
        # It cannot be repaired either: nothing may be touched, everything is deferred.
        other = some_jobs(4)[2:]
        engine.deliver(other)
        assert all(job.result and job.result.outcome is StoreOutcome.DEFERRED for job in jobs + other)
    engine.close()
    engine = an_engine(tmp_path)
    assert jobs[0].id in engine.ledger
    repeated = again(jobs)
    engine.deliver(repeated)
    engine.close()
    assert sorted(take_all(tmp_path)) == wanted(jobs)


def test_one_unwritable_mailbox_does_not_stop_the_others(tmp_path: Path) -> None:
    good, bad = some_jobs(1)[0], some_jobs(2, "bob")[1]
    (tmp_path / "bob").write_text("not a folder")
    engine = an_engine(tmp_path)
    engine.deliver([bad, good])
    assert good.result is engine_module.STORED
    assert bad.result is not None
    assert (bad.result.outcome, bad.result.enhanced) == (StoreOutcome.DEFERRED, "4.3.0")
    (tmp_path / "bob").unlink()
    [retried] = again([bad])
    engine.deliver([retried])
    assert retried.result is engine_module.STORED
    engine.close()
    assert sorted(take_all(tmp_path)) == wanted([good, bad])


def test_a_mailbox_that_a_reader_removed_is_made_again(tmp_path: Path) -> None:
    first, second = some_jobs(2)
    engine = an_engine(tmp_path)
    engine.deliver([first])
    take_all(tmp_path)
    for folder in ("new", "cur", "tmp", ""):
        (tmp_path / "alice" / folder).rmdir()
    engine.deliver([second])
    engine.close()
    assert take_all(tmp_path) == wanted([second])


def test_a_body_that_cannot_be_read_is_one_deliverys_trouble(tmp_path: Path) -> None:
    class Broken(MemoryBody):
        def whole(self) -> bytes:
            raise ValueError("the body is closed")

    class Short(MemoryBody):
        def whole(self) -> bytes:
            return b"less"

    good, broken, short = some_jobs(3)
    broken.body, short.body = Broken(b"x"), Short(b"longer than that")
    short.size = len(short.prepend) + short.body.size
    engine = an_engine(tmp_path)
    engine.deliver([broken, good, short])
    engine.close()
    assert [job.result.outcome for job in (broken, good, short) if job.result] == [
        StoreOutcome.DEFERRED,
        StoreOutcome.STORED,
        StoreOutcome.DEFERRED,
    ]
    assert take_all(tmp_path) == wanted([good])


def test_a_store_has_one_owner(tmp_path: Path) -> None:
    engine = an_engine(tmp_path)
    with pytest.raises(StoreOwned, match="in use by another process"):
        an_engine(tmp_path)
    engine.close()
    an_engine(tmp_path).close()


def test_folders_and_files_are_for_the_owner_only(tmp_path: Path) -> None:
    [job] = some_jobs(1)
    engine = an_engine(tmp_path / "store")
    engine.deliver([job])
    engine.close()
    for path in [tmp_path / "store", *(tmp_path / "store").rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_old_ids_are_forgotten_and_young_ones_kept(tmp_path: Path) -> None:
    now = NOW_MS
    ledger = Ledger(str(tmp_path / "ledger"), 8 * HOUR_MS, lambda: now)
    ledger.open()
    ids = []
    for hour in range(14):
        now = NOW_MS + hour * HOUR_MS
        ledger.rotate()
        ids.append(new_id(now, bytes([hour]) * 10))
        ledger.append([ids[-1]])
    assert [message_id in ledger for message_id in ids[-8:]] == [True] * 8
    assert [message_id in ledger for message_id in ids[:4]] == [False] * 4
    assert len(os.listdir(tmp_path / "ledger")) <= 10
    ledger.close()
    reopened = Ledger(str(tmp_path / "ledger"), 8 * HOUR_MS, lambda: now)
    reopened.open()
    assert [message_id in reopened for message_id in ids[-8:]] == [True] * 8
    assert ids[0] not in reopened
    reopened.close()


def test_an_old_id_that_comes_late_is_found_among_newer_ones(tmp_path: Path) -> None:
    now = NOW_MS
    ledger = Ledger(str(tmp_path), 8 * HOUR_MS, lambda: now)
    ledger.open()
    late = new_id(NOW_MS - 5 * HOUR_MS, b"l" * 10)
    ledger.append([new_id(NOW_MS + number, b"n" * 10) for number in range(50)] + [late])
    now += 2 * HOUR_MS
    ledger.rotate()
    assert late in ledger
    assert new_id(NOW_MS - 5 * HOUR_MS, b"m" * 10) not in ledger
    assert all(new_id(NOW_MS + number, b"n" * 10) in ledger for number in range(50))
    ledger.close()


def test_a_clock_that_goes_back_makes_no_second_segment_of_one_name(tmp_path: Path) -> None:
    message_id = new_id(NOW_MS, b"a" * 10)
    for step in range(3):
        ledger = Ledger(str(tmp_path), HOUR_MS, partial(int, NOW_MS - step * HOUR_MS))
        ledger.open()
        if step == 0:
            ledger.append([message_id])
        assert message_id in ledger
        ledger.close()


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "/etc", "a\0b", "a\nb", "x" * 256, "é" * 128, "\udc80"]
)
def test_unsafe_mailbox_names_are_refused(tmp_path: Path, name: str) -> None:
    assert mailbox_fault(name)
    [job] = some_jobs(1, name)
    engine = an_engine(tmp_path / "store")
    engine.deliver([job])
    engine.close()
    assert job.result is not None
    assert (job.result.outcome, job.result.code, job.result.enhanced) == (StoreOutcome.REFUSED, 553, "5.1.3")
    assert sorted(os.listdir(tmp_path / "store")) == [".ledger", ".lock", ".staging"]


@pytest.mark.parametrize("name", ["alice", "alice@example.test", "山田", "a b", "x" * 255, "a..b", "-rf", "~"])
def test_ordinary_mailbox_names_are_taken(name: str) -> None:
    assert mailbox_fault(name) == ""


def test_file_names_follow_from_the_id() -> None:
    message_id = new_id(NOW_MS, b"\1" * 10)
    assert file_name(message_id, "mx.test", 77) == f"1700000000.G{message_id}.mx.test,S=77"
    assert host_part("a/b:c,d\n") == r"a\057b\072c\054d"
    assert host_part("") == "localhost"


def test_fsync_one_by_one_does_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "best_syncer", OneByOne)
    jobs = some_jobs(3)
    engine = an_engine(tmp_path)
    engine.deliver(jobs)
    take_all(tmp_path)
    repeated = again(jobs)
    engine.deliver(repeated)
    engine.close()
    assert [job.result for job in jobs + repeated] == [engine_module.STORED] * 6
    assert take_all(tmp_path) == []


def test_syncfs_is_used_where_the_system_has_it(tmp_path: Path) -> None:
    root = os.open(tmp_path, os.O_RDONLY)
    assert isinstance(best_syncer(root), WholeFileSystem)
    os.close(root)
