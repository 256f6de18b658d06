"""Which log this process has worked with: another one at the same address lacks the mail that was accepted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import structlog

from gatepost.core.manifest.settings import LogSettings
from gatepost.core.ports.log import LogMisconfigured

FILE: Final = "log-instance"

_log = structlog.get_logger()


def check_instance(state: Path, settings: LogSettings, found: str) -> None:
    """Compare the log's id with the one that was remembered in `state`, and remember it.

    Raises LogMisconfigured for another log, unless `log.acceptInstance` names it; OSError when the file cannot be
    read or written.
    """
    file = state / FILE
    known = file.read_text("utf-8").strip() if file.exists() else ""
    if known == found:
        return
    if known and settings.accept_instance != found:
        raise LogMisconfigured(
            f"this is another log ({found}) than the one that was worked with here ({known}), where the mail lies "
            f"that was accepted. If this log is right all the same, set log.acceptInstance to {found} "
            f"(GATEPOST_LOG__ACCEPT_INSTANCE={found}), or remove {file}"
        )
    if known:
        _log.warning("log.accepted", instance=found, before=known)
    temporary = file.with_name(f"{FILE}.{os.getpid()}")
    temporary.write_text(found + "\n", "utf-8")
    temporary.replace(file)
