"""What every object has: group, version, kinds and metadata as the Kubernetes API writes them."""

from __future__ import annotations

from typing import Annotated, Final, NamedTuple

import msgspec

GROUP: Final = "gatepost.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

DomainText = Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
LocalPartText = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]  # RFC 5321 4.5.3.1.1
AddressText = Annotated[str, msgspec.Meta(min_length=3, max_length=320)]
HostText = Annotated[str, msgspec.Meta(min_length=1, max_length=270)]
NetworkText = Annotated[str, msgspec.Meta(min_length=2, max_length=100)]
ObjectName = Annotated[str, msgspec.Meta(min_length=1, max_length=253)]


class SpecPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """A part of a spec: camelCase, unknown fields are errors, unset is None (inherited)."""


class NameRef(SpecPart, frozen=True):
    name: ObjectName


class Metadata(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The fields of ObjectMeta that mean something here; others are passed over."""

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    creation_timestamp: str = ""
    annotations: dict[str, str] = {}
    labels: dict[str, str] = {}


class ObjectKey(NamedTuple):
    """Identifies an object for people and for conditions."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"
