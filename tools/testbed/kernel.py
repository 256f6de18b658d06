"""Kernel settings of the whole machine that the kubelet changes: saved before, restored after the last cluster.

Several test runs may have a cluster at once, and any of them may be killed. So the values from before the first
one are kept in a file with the holders' process ids: who comes first saves, who goes last restores, and holders
that have died don't count.
"""

import contextlib
import json
import uuid
from pathlib import Path
from typing import TypedDict

import psutil

from testbed.provision.cache import cache_root, locked

SETTINGS = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops")
_ROOT = Path("/proc/sys")


class _Saved(TypedDict):
    boot: str
    values: dict[str, str]
    holders: list[tuple[int, float, str]]


def acquire() -> str:
    """Saves the settings if nobody has; returns a token for `release`."""
    me = psutil.Process()
    token = uuid.uuid4().hex
    with locked("kernel-settings"):
        saved = _load()
        saved["holders"].append((me.pid, me.create_time(), token))
        _store(saved)
    return token


def release(token: str) -> None:
    """Gives a token back; the last one restores the settings."""
    with locked("kernel-settings"):
        saved = _load()
        saved["holders"] = [holder for holder in saved["holders"] if holder[2] != token]
        if saved["holders"]:
            _store(saved)
            return
        for name, value in saved["values"].items():
            if (_ROOT / name).read_text().strip() != value:
                (_ROOT / name).write_text(value)
        _file().unlink(missing_ok=True)


def restore_after_dead() -> None:
    """Restores the settings if all who wanted them changed have died."""
    if _file().exists():
        release(acquire())


def _load() -> _Saved:
    """What is saved, without dead holders; the present values when nothing is, or when it is from before a boot."""
    with contextlib.suppress(OSError, ValueError):
        saved: _Saved = json.loads(_file().read_text())
        if saved["boot"] == _boot():
            saved["holders"] = [holder for holder in saved["holders"] if is_alive(holder[0], holder[1])]
            return saved
    values = {name: (_ROOT / name).read_text().strip() for name in SETTINGS}
    return {"boot": _boot(), "values": values, "holders": []}


def is_alive(pid: int, created: float) -> bool:
    """Whether the process with this id is still the one that was created then."""
    with contextlib.suppress(psutil.Error):
        return abs(psutil.Process(pid).create_time() - created) < 1
    return False


def _boot() -> str:
    return (_ROOT / "kernel/random/boot_id").read_text().strip()


def _store(saved: _Saved) -> None:
    draft = _file().with_suffix(".new")
    draft.write_text(json.dumps(saved))
    draft.rename(_file())


def _file() -> Path:
    return cache_root() / "kernel-settings.json"
