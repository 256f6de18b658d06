"""A cache of built things outside the checkout, safe for parallel callers.

A folder `<root>/<name>-<version>` exists only when it is complete: it is built under another name and renamed, so a
killed build leaves nothing that looks finished. An flock makes parallel callers wait for the first one instead of
building the same thing twice.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path


def cache_root() -> Path:
    """`$XDG_CACHE_HOME/gatepost`, or `~/.cache/gatepost`; made when missing."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    root = Path(base).absolute() / "gatepost"
    root.mkdir(parents=True, exist_ok=True)
    return root


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Holds the machine-wide lock `name`; the kernel releases it even when the holder is killed."""
    with (cache_root() / f".{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def built(name: str, version: str, build: Callable[[Path], None]) -> Path:
    """Returns the folder `<name>-<version>`, calling `build(empty folder)` first when it isn't there yet.

    `build` must leave nothing outside its folder that depends on the folder's path: it is renamed afterwards.
    """
    final = cache_root() / f"{name}-{version}"
    if final.is_dir():
        return final
    with locked(final.name):
        if final.is_dir():
            return final
        draft = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=cache_root()))
        try:
            build(draft)
            draft.chmod(0o755)
            draft.rename(final)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return final


def key_of(parts: Iterable[str | bytes | Path]) -> str:
    """A short hash of texts and files' contents: what a cached build depends on."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:16]
