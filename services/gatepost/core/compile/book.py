"""What compile notes about each object while it goes: conditions, warnings, targets, what is contained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeVar

import msgspec

from gatepost.core.compile.conditions import ACCEPTED, RESOLVED_REFS, Condition, Rejection, Status
from gatepost.core.configuration import object_label
from gatepost.core.manifest.object import Metadata, ObjectKey


class TargetState(msgspec.Struct, frozen=True):
    """Whether a policy is in force for one of its targets: a listener or a MailDomain, by its name."""

    kind: Literal["Listener", "MailDomain"]
    name: str
    condition: Condition


class Manifest(Protocol):
    @property
    def metadata(self) -> Metadata: ...


M = TypeVar("M", bound=Manifest)


def by_age(objects: Sequence[M]) -> list[M]:
    """Oldest first; those without a creation time (from files) in the order of their names."""
    return sorted(objects, key=lambda o: (o.metadata.creation_timestamp, o.metadata.namespace, o.metadata.name))


class Book:
    """Conditions, warnings and the contained objects, as they are found out."""

    def __init__(self) -> None:
        self.conditions: dict[ObjectKey, tuple[Condition, ...]] = {}
        self.warnings: dict[ObjectKey, tuple[str, ...]] = {}
        self.targets: dict[ObjectKey, tuple[TargetState, ...]] = {}
        self.objects: dict[str, int] = {}

    def check_duplicate(self, key: ObjectKey) -> None:
        """Raises Rejection when there was an object of this kind, namespace and name already."""
        if key in self.conditions:
            text = "another object has this kind, namespace and name"
            raise Rejection(ACCEPTED, "Conflicted", "metadata.name", text)

    def reject(self, key: ObjectKey, rejection: Rejection) -> Condition:
        """Note why an object is not in force, and return it."""
        bad = Condition(rejection.condition, Status.FALSE, rejection.reason, str(rejection))
        if rejection.condition == ACCEPTED:
            self.conditions[key] = (bad,)
        else:
            self.conditions[key] = (
                Condition(ACCEPTED, Status.TRUE, "Accepted", "the object is valid"),
                bad,
            )
        return bad

    def accept(self, key: ObjectKey, generation: int, warnings: Sequence[str]) -> None:
        """Note that an object is in force."""
        text = "the object is valid" if not warnings else "valid; " + "; ".join(warnings)
        self.conditions[key] = (
            Condition(ACCEPTED, Status.TRUE, "Accepted" if not warnings else "AcceptedWithWarnings", text),
            Condition(RESOLVED_REFS, Status.TRUE, "ResolvedRefs", "all references were found"),
        )
        if warnings:
            self.warnings[key] = tuple(warnings)
        self.objects[object_label(key)] = generation
