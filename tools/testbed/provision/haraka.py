"""Haraka for benchmarks, from npm by a lock file that pins every package by its hash and names no host.

Two dependencies are held at older versions (`overrides`): the newest ones of these cannot be loaded. The lock is
made again with `npm install --package-lock-only --omit-lockfile-registry-resolved` in its folder.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Final

from testbed.provision import apt, command
from testbed.provision.cache import built
from testbed.provision.errors import ProvisionError

LOCK_FOLDER: Final = Path(__file__).parent / "haraka_npm"
FILES: Final = ("package.json", "package-lock.json")
VERSION: Final[str] = json.loads((LOCK_FOLDER / "package.json").read_text())["dependencies"]["Haraka"]
# Haraka's own `engines`. Some of its dependencies ask for 22, but what this benchmark uses of them works with 20.
NODE_MAJOR: Final = 20
DOWNLOAD_SECONDS: Final = 600


def install() -> Path:
    """The folder whose `node_modules/Haraka` it is. Raises ProvisionError without npm or with an old Node.js."""
    apt.install("peers")
    node()
    key = hashlib.sha256(b"".join((LOCK_FOLDER / name).read_bytes() for name in FILES)).hexdigest()[:12]
    return built("haraka", f"{VERSION}-{key}", _download)


def node() -> str:
    """The path of the `node` program. Raises ProvisionError when it is missing or older than NODE_MAJOR."""
    program = command.require("node", "run `python -m testbed.provision apt:peers`")
    version = command.run([program, "--version"], seconds=60).strip()
    if int(version.lstrip("v").partition(".")[0]) < NODE_MAJOR:
        raise ProvisionError(
            f"Haraka {VERSION} needs Node.js {NODE_MAJOR} or newer and {program} is {version} (Debian 12 has 18, "
            'Debian 13 has 20). Install a newer one, or measure without it: `make bench BENCH="--without haraka"`'
        )
    return program


def _download(folder: Path) -> None:
    npm = command.require("npm", "run `python -m testbed.provision apt:peers`")
    for name in FILES:
        shutil.copyfile(LOCK_FOLDER / name, folder / name)
    # No package's own scripts: nothing here needs what they would build.
    words = [
        "ci",
        "--ignore-scripts",
        "--omit=dev",
        "--omit=optional",
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
    ]
    command.run([npm, *words], cwd=folder, seconds=DOWNLOAD_SECONDS)
    if not (folder / "node_modules/Haraka/bin/haraka").is_file():
        raise ProvisionError(f"npm installed no Haraka {VERSION}")
