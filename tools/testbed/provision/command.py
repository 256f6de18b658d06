"""Runs an installer's commands: quiet when they work, with the end of their output when they don't."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from testbed.provision.errors import ProvisionError

TAIL_CHARACTERS = 3000


def require(program: str, hint: str) -> str:
    """The path of `program`; raises ProvisionError with `hint` when it isn't installed."""
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        raise ProvisionError(f"{program} is not installed: {hint}")
    return found


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    seconds: float,
    nice: bool = False,
) -> str:
    """Runs `argv` to its end and returns its standard output; `env` is added to the environment.

    `nice` lowers its priority, for builds that would otherwise starve the tests that run beside them. Raises
    ProvisionError when it fails or takes longer than `seconds`.
    """
    words = [*(("nice", "-n", "15") if nice else ()), *map(str, argv)]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ProvisionError(f"{' '.join(words)}: not done after {seconds:.0f} s") from None
    except OSError as error:
        raise ProvisionError(f"{words[0]}: {error.strerror}") from error
    if done.returncode != 0:
        tail = (done.stdout + done.stderr)[-TAIL_CHARACTERS:]
        raise ProvisionError(f"{' '.join(words)}: exit status {done.returncode}\n{tail}")
    return done.stdout
