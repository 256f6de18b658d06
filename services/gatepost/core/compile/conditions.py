"""Conditions as the Kubernetes API knows them, without times: what compile can say of an object."""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

ACCEPTED: Final = "Accepted"
RESOLVED_REFS: Final = "ResolvedRefs"
PROGRAMMED: Final = "Programmed"


class Status(Enum):
    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(msgspec.Struct, frozen=True):
    """`reason` is CamelCase for programs, `message` is for people and says what to do."""

    type: str
    status: Status
    reason: str
    message: str


class Rejection(Exception):
    """An object cannot be used; becomes its condition. `field` is as the user writes it."""

    def __init__(self, condition: str, reason: str, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.condition = condition
        self.reason = reason
        self.field = field
