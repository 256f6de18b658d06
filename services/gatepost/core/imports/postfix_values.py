"""Actions of Postfix's access tables (access(5)) in the source form of access rules."""

from __future__ import annotations

import re
from typing import Final

from gatepost.core.access.entry import AccessError
from gatepost.core.access.source import read_line
from gatepost.core.access.table import AccessTable
from gatepost.core.imports.plan import Place, Plan

_ERROR = re.compile(r"([45][0-9]{2})(?:\s+(.*))?")
_ENHANCED = re.compile(r"([45]\.[0-9]{1,3}\.[0-9]{1,3})(?:\s+(.*))?")
_DEFERS: Final = frozenset({"DEFER", "DEFER_IF_REJECT", "DEFER_IF_PERMIT"})


def access_value(text: str) -> str | None:
    """An action of access(5) in the source form of access tables; None when it has no counterpart."""
    word, _, rest = text.strip().partition(" ")
    rest = rest.strip()
    upper = word.upper()
    if upper in ("OK", "RELAY") or (word.isdigit() and _ERROR.fullmatch(text.strip()) is None):
        return "OK"  # access(5): an all-numerical result is OK
    if upper == "DUNNO":
        return "SKIP"
    if upper == "REJECT" or upper in _DEFERS:  # access(5): 554 and 450 unless access_map_... says otherwise
        return _coded("554" if upper == "REJECT" else "450", rest) if rest else upper.split("_")[0]
    if upper == "DISCARD":
        return "DISCARD"
    if upper == "HOLD":
        return f"QUARANTINE:{rest}" if rest else "QUARANTINE"
    found = _ERROR.fullmatch(text.strip())
    return _coded(found[1], found[2] or "") if found is not None else None


def _coded(code: str, text: str) -> str:
    found = _ENHANCED.fullmatch(text)
    if found is not None and found[1][0] == code[0]:
        return f"ERROR:{found[1]}:{code} {found[2] or 'access denied'}"
    return f"ERROR:{code[0]}.7.1:{code} {text or 'access denied'}"


def add_rule(lines: list[str], key: str, value: str, place: Place, plan: Plan) -> None:
    """Add a line when it is one that can be used; else say why not."""
    line = f"{key}\t{value}"
    try:
        AccessTable([(read_line(line), "")])
    except AccessError as error:
        plan.lost(place, str(error).removeprefix(": "))
    else:
        lines.append(line)
