"""A set of YAML documents -> typed objects: what `gatepost run --config DIR` and `kubectl apply` both take."""

from __future__ import annotations

from typing import Any

import msgspec

from gatepost.core.manifest import mail_domain, relay_policy
from gatepost.core.manifest.mail_domain import MailDomain
from gatepost.core.manifest.object import API_VERSION
from gatepost.core.manifest.read import ManifestError, convert, load_yaml
from gatepost.core.manifest.relay_policy import RelayPolicy


class Objects(msgspec.Struct, frozen=True):
    domains: tuple[MailDomain, ...] = ()
    policies: tuple[RelayPolicy, ...] = ()


def read_objects(files: dict[str, str]) -> Objects:
    """Read all objects in the files (name -> text). Raises ManifestError for the first fault."""
    domains: list[MailDomain] = []
    policies: list[RelayPolicy] = []
    for name, text in sorted(files.items()):
        for document in load_yaml(text, name):
            read = read_object(document, name)
            if isinstance(read, MailDomain):
                domains.append(read)
            else:
                policies.append(read)
    return Objects(tuple(domains), tuple(policies))


def read_object(document: Any, where: str) -> MailDomain | RelayPolicy:
    """Turn one plain document into its object. Raises ManifestError that names object and field."""
    if not isinstance(document, dict):
        raise ManifestError(where, "", "an object with apiVersion, kind, metadata and spec is expected")
    kind = document.get("kind")
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    place = f"{where}: {kind} {name}" if name else where
    if document.get("apiVersion") != API_VERSION:
        raise ManifestError(place, "apiVersion", f"{API_VERSION} is expected, not {document.get('apiVersion')!r}")
    match kind:
        case mail_domain.KIND:
            return convert(document, MailDomain, place)
        case relay_policy.KIND:
            return convert(document, RelayPolicy, place)
        case _:
            raise ManifestError(
                place, "kind", f"{mail_domain.KIND} or {relay_policy.KIND} is expected, not {kind!r}"
            )
