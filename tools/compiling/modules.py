"""Which modules are compiled: those of which something runs for each message, unless they define records.

Paths below services/. A module that defines records of msgspec stays as it is, and so does one whose time goes into
libraries. What a module may not contain stands in rules.py; a class may be inherited from in compiled modules only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final


def _in(folder: str, names: str) -> Iterable[str]:
    return [f"gatepost/{folder}/{name}.py" for name in names.split()]


COMPILED: Final = (
    *_in("core", "data_reader domain dsn_wishes ids networks outbound removal sampling smtp_commands smtp_path"),
    *_in("core", "subaddress tables trace_lines"),
    *_in("core/checks", "content recipient sender_match"),
    *_in("telemetry", "metrics tracing"),
    *_in("edge", "acceptance admission alarms arrivals bans body command_table content inspection journal layers"),
    *_in("edge", "listener memory rates routed_addresses server session tarpit transaction traps wire"),
    *_in("edge/commands", "bdat data hello mail rcpt simple"),
    *_in("router", "outputs"),
    *_in("work", "at_once hand telling"),
    *_in("backends", "partitioning"),
    *_in("backends/log_kafka", "share"),
)
