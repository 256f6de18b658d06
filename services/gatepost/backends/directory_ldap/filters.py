"""Search filters (RFC 4515), written so that nothing in an address or a login is more than a value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ldap3.utils.conv import escape_filter_chars

from gatepost.core.address import quote_local
from gatepost.core.domain import display_domain
from gatepost.core.manifest.settings import AttributeMap


def by_addresses(scope: str, attributes: AttributeMap, keys: Iterable[str]) -> str:
    """Entries that have one of these addresses (Address keys)."""
    return _both(scope, [term for key in keys for term in _address_terms(attributes, key)])


def by_login(scope: str, attributes: AttributeMap, login: str, key: str) -> str:
    """Entries with this name, or with the address `key` (empty: the login is no address)."""
    terms = [_equal(attributes.name, login)]
    return _both(scope, terms + (_address_terms(attributes, key) if key else []))


def by_rdns(scope: str, rdns: Iterable[Sequence[tuple[str, str]]]) -> str:
    """Entries that have one of these RDNs, each a list of (type, value)."""
    terms = []
    for rdn in rdns:
        parts = [_equal(kind, value) for kind, value in rdn]
        terms.append(parts[0] if len(parts) == 1 else f"(&{''.join(parts)})")
    return _both(scope, terms)


def _address_terms(attributes: AttributeMap, key: str) -> list[str]:
    """An address in the forms that directories have it in: with A-labels and U-labels, with quotes and
    without (where that differs), each with the prefix and without."""
    local, _, domain = key.rpartition("@")
    domains = dict.fromkeys((domain, display_domain(domain)))
    texts = [f"{part}@{name}" for part in dict.fromkeys((local, quote_local(local))) for name in domains]
    prefixes = dict.fromkeys((attributes.address_prefix, ""))
    return [_equal(name, prefix + text) for name in attributes.addresses for text in texts for prefix in prefixes]


def _equal(name: str, value: str) -> str:
    return f"({name}={escape_filter_chars(value)})"


def _both(scope: str, terms: Sequence[str]) -> str:
    any_of = terms[0] if len(terms) == 1 else f"(|{''.join(terms)})"
    return f"(&{in_parentheses(scope)}{any_of})"


def in_parentheses(text: str) -> str:
    text = text.strip()
    return text if text.startswith("(") else f"({text})"
