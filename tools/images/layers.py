"""Image layers that the testbed's own writer has no form for: trees with bytecode, what one adds to another."""

from __future__ import annotations

import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

from testbed.provision import command

# The base layer's Python. Bytecode of another minor version would be ignored there, so it is then left out.
PYTHON = (3, 11)
COMPILE_SECONDS = 300


def everything(path: Path) -> bool:
    """A choice for tree_layer: all files."""
    return True


def compile_tree(folder: Path, target: str) -> None:
    """Writes bytecode beside all sources in `folder`, which will be at `target` in the image.

    It is marked as not to be compared with its source: in the image files have no times, and bytecode that is
    checked by time would be thrown away at each start. A process of its own, since the order of a set's constants
    depends on the hash seed.
    """
    if sys.version_info[:2] != PYTHON:
        return
    words = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    words += ["-s", str(folder), "-p", target, str(folder)]
    command.run(words, env={"PYTHONHASHSEED": "0"}, seconds=COMPILE_SECONDS)


def tree_layer(out: Path, source: Path, target: str, chosen: Callable[[Path], bool] = everything) -> Path:
    """A layer with the chosen files of the folder `source`, in the image at the absolute path `target`."""
    inside = Path(target.lstrip("/"))
    folders: set[Path] = set()
    with tarfile.open(out, "w") as archive:
        for file in sorted(source.rglob("*")):
            if file.is_dir() and not file.is_symlink():
                continue
            if chosen(file):
                name = inside / file.relative_to(source)
                _add_parents(archive, name, folders)
                archive.add(file, str(name), recursive=False, filter=_plain)
    return out


def _add_parents(archive: tarfile.TarFile, name: Path, known: set[Path]) -> None:
    for parent in reversed(name.parents[:-1]):
        if parent not in known:
            known.add(parent)
            entry = tarfile.TarInfo(str(parent))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """No times and owners, so that the same input gives the same bytes; readable by every user."""
    entry.mtime = 0
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    if entry.isfile():
        entry.mode = 0o755 if entry.mode & 0o100 else 0o644
    return entry


def not_in(known: Path, source: Path) -> Callable[[Path], bool]:
    """A choice for tree_layer: files of `source` that the folder `known` has not, or has with other content.

    Bytecode is new where its source is: two compilations of one file may differ.
    """

    def is_new(file: Path) -> bool:
        if file.suffix == ".pyc":
            file = file.parent.parent / f"{file.name.partition('.')[0]}.py"
        twin = known / file.relative_to(source)
        return not twin.is_file() or twin.read_bytes() != file.read_bytes()

    return is_new
