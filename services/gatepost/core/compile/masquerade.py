"""outbound.masquerade of a MailDomain -> MasqueradePlan; a condition for what hides nothing or is not its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gatepost.core.compile.conditions import ACCEPTED, Rejection
from gatepost.core.domain import DomainError, canonical_domain
from gatepost.core.manifest.mail_domain import Masquerade, MasqueradeScope
from gatepost.core.masquerading import MasqueradePlan

_FIELD: Final = "spec.outbound.masquerade"


def compile_masquerade(masquerade: Masquerade, own: Sequence[str]) -> MasqueradePlan:
    """Return the plan; `own` are the canonical names of the MailDomain. Raises Rejection."""
    shown = _domain(masquerade.as_domain, f"{_FIELD}.as")
    if not any(name == shown or name.endswith(f".{shown}") for name in own):
        raise _invalid("as", f"{shown} is neither of spec.domain and spec.aliasDomains nor above one of them")
    if "." not in shown and shown not in own:
        raise _invalid("as", f"{shown} is a top-level domain")
    names = masquerade.domains or own[:1]
    domains = tuple(dict.fromkeys(_domain(name, f"{_FIELD}.domains") for name in names))
    for domain in domains:
        if not any(domain == name or domain.endswith(f".{name}") for name in own):
            raise _invalid(
                "domains", f"{domain} is neither of spec.domain and spec.aliasDomains nor below one of them"
            )
    entire = masquerade.scope is MasqueradeScope.ENTIRE_DOMAIN
    if not entire and domains == (shown,):
        raise _invalid(
            "domains",
            f"{shown} is what others see already: name other domains, or hide all hosts below it with "
            "scope: EntireDomain",
        )
    exposed = tuple(sorted({user.lower() for user in masquerade.exposed_users or ()}))
    for user in exposed:
        if "@" in user:
            raise _invalid("exposedUsers", f"{user!r} is an address; a local part alone is wanted")
    return MasqueradePlan(shown, domains, entire, bool(masquerade.envelope), exposed)


def _domain(text: str, field: str) -> str:
    try:
        return canonical_domain(text)
    except DomainError as error:
        raise Rejection(ACCEPTED, "Invalid", field, str(error)) from None


def _invalid(name: str, message: str) -> Rejection:
    return Rejection(ACCEPTED, "Invalid", f"{_FIELD}.{name}", message)
