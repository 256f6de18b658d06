"""What the operator writes back about an object: the `status` of MailDomain and RelayPolicy.

Conditions have the fields and limits of Kubernetes' metav1.Condition, so that `kubectl wait` and every other
tool reads them. Times are RFC 3339 in UTC with whole seconds.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from gatepost.core.manifest.object import DomainText, ObjectName

# The API server holds a schema's `maximum` as a float, so that 2**63 - 1 would overflow into a negative limit.
Generation = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Time = Annotated[str, msgspec.Meta(max_length=64, extra_json_schema={"format": "date-time"})]

MAX_MESSAGE = 32768  # metav1.Condition
MAX_TARGETS = 100  # a selector can select any number; those that are not accepted come first
MAX_TARGET_MESSAGE = 1024
MAX_CONDITIONS = 16  # we know four; the rest is room for other controllers


class StatusPart(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A part of a status. Fields that a newer program wrote are passed over."""


class ConditionStatus(StatusPart, frozen=True):
    """One condition: whether something is true of the object, since when, and why."""

    type: Annotated[str, msgspec.Meta(min_length=1, max_length=316, pattern=r"^[A-Za-z][A-Za-z0-9.\-/]*$")]
    """Accepted, ResolvedRefs, Programmed."""
    status: Literal["True", "False", "Unknown"]
    last_transition_time: Time
    """When `status` last changed."""
    reason: Annotated[
        str, msgspec.Meta(min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
    ]
    """One word for programs."""
    message: Annotated[str, msgspec.Meta(max_length=MAX_MESSAGE)]
    """For people: what is wrong and what to do."""
    observed_generation: Generation = 0
    """The metadata.generation that the condition is about."""


Conditions = Annotated[
    tuple[ConditionStatus, ...],
    msgspec.Meta(
        max_length=MAX_CONDITIONS,
        extra_json_schema={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    ),
]


class MailDomainStatus(StatusPart, frozen=True):
    """What became of a MailDomain."""

    observed_generation: Generation = 0
    """The newest metadata.generation that was looked at."""
    ascii_domain: DomainText | None = None
    """spec.domain in the form that is compared: lower-case A-labels."""
    conditions: Conditions = ()


class TargetStatus(StatusPart, frozen=True):
    """Whether a RelayPolicy is in force for one of its targets."""

    kind: Literal["Listener", "MailDomain"]
    name: ObjectName
    """Of the listener in the Settings, or of the MailDomain object."""
    accepted: Literal["True", "False"]
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    """One word for programs, as in conditions."""
    message: Annotated[str, msgspec.Meta(max_length=MAX_TARGET_MESSAGE)] = ""
    """Why it is not."""


class RelayPolicyStatus(StatusPart, frozen=True):
    """What became of a RelayPolicy."""

    observed_generation: Generation = 0
    """The newest metadata.generation that was looked at."""
    conditions: Conditions = ()
    targets: Annotated[tuple[TargetStatus, ...], msgspec.Meta(max_length=MAX_TARGETS)] = ()
