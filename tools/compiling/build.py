"""The build: a copy of services/gatepost with an extension module beside each source that is compiled."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from compiling.modules import COMPILED
from compiling.rules import faults
from testbed.provision import apt, command
from testbed.provision.cache import built, key_of
from testbed.provision.errors import ProvisionError

TOOLS: Final = Path(__file__).resolve().parents[1]
SERVICES: Final = TOOLS.parent / "services"
# How much the compiler may do. Its second level takes half as long again and gains nothing that could be measured.
LEVEL: Final = "1"
BUILD_SECONDS: Final = 900
KEPT: Final = 6
# Raised when this folder builds otherwise from the same input.
FORM: Final = "2"


def compiled(services: Path = SERVICES, modules: Sequence[str] = COMPILED) -> Path:
    """A folder to import `gatepost` from, for Pythons of this one's version and kind; made once for the same input.

    Raises ProvisionError where a module may not be compiled, or compilation fails.
    """
    folder = built("compiled", _key(services, modules), lambda draft: _build(draft, services, modules))
    _forget_old(folder)
    return folder


def _forget_old(folder: Path) -> None:
    """Keep the last few, since every change of a source makes a new one; each has some 15 MB."""
    others = sorted(folder.parent.glob("compiled-*"), key=lambda path: path.stat().st_mtime)
    for other in others[:-KEPT]:
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)


def _key(services: Path, modules: Sequence[str]) -> str:
    return key_of(
        [
            *(FORM, sys.version, str(sysconfig.get_config_var("EXT_SUFFIX")), version("mypy"), LEVEL, *modules),
            *(part for path in sorted(services.rglob("*.py")) for part in (str(path.relative_to(services)), path)),
        ]
    )


def _build(draft: Path, services: Path, modules: Sequence[str]) -> None:
    found = faults(services, modules)
    if found:
        raise ProvisionError("these modules cannot be compiled:\n" + "\n".join(found))
    apt.install("compiler")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        apt.install("headers")
    shutil.copytree(services, draft, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    words = [sys.executable, "-m", "compiling.extension", LEVEL, *modules]
    command.run(words, cwd=draft, env={"PYTHONPATH": str(TOOLS)}, seconds=BUILD_SECONDS, nice=True)
    shutil.rmtree(draft / "build")
