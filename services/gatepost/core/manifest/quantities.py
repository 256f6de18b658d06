"""Durations and sizes as the Kubernetes API writes them, and their values.

Durations follow GEP-2257: up to four of hours, minutes, seconds, milliseconds in that order ("1h30m"), no
days. Sizes are resource Quantities ("25Mi").
"""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec

DURATION_PATTERN: Final = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"
SIZE_PATTERN: Final = r"^[0-9]{1,12}(Ki|Mi|Gi|Ti|k|M|G|T)?$"

Duration = Annotated[str, msgspec.Meta(pattern=DURATION_PATTERN, max_length=24, description='GEP-2257, as "36h"')]
Size = Annotated[str, msgspec.Meta(pattern=SIZE_PATTERN, max_length=16, description='a Quantity, as "25Mi"')]

_PART = re.compile(r"([0-9]+)(ms|h|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_BYTES = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}


def seconds(duration: str) -> float:
    """Return the seconds in a duration that fits DURATION_PATTERN. Raises ValueError for units out of order."""
    units = [unit for _, unit in _PART.findall(duration)]
    order = [("h", "m", "s", "ms").index(unit) for unit in units]
    if order != sorted(set(order)) or not units:
        raise ValueError(f"{duration!r}: hours, minutes, seconds, milliseconds, each once and in this order")
    return sum(int(number) * _SECONDS[unit] for number, unit in _PART.findall(duration))


def size_bytes(size: str) -> int:
    """Return the bytes in a size that fits SIZE_PATTERN."""
    digits = size.rstrip("KMGTik")
    return int(digits) * _BYTES[size[len(digits) :]]
