"""The text form of an access table: sendmail's source form, and the same as YAML.

    line    = [ key SP/TAB value ]        ; "#" begins a comment line
    key     = [ tag ":" ] text            ; tags Connect, Helo, From, To; without one: client, sender, recipient
    value   = OK | RELAY | SKIP | REJECT [ text ] | DISCARD | QUARANTINE [ ":" text ] | TAG | DEFER [ text ]
            | "ERROR:" [ enhanced ":" ] code SP text | "ERROR:" text | code SP text | FRIEND (only Spam:)

HELO, DEFER and TAG are ours; the rest is sendmail's (cf/README). As YAML: a mapping of the same keys to the same
values, or a list of rules as they stand in a RelayPolicy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from gatepost.core.access.entry import AccessEntry, AccessError, Tag
from gatepost.core.access.keys import MAX_KEY
from gatepost.core.manifest.actions import Action
from gatepost.core.manifest.policy_access import AccessRuleSpec, entry_of
from gatepost.core.manifest.read import ManifestError, convert, load_yaml

_TAG = re.compile(r"(connect|helo|from|to|spam):(.*)", re.IGNORECASE | re.DOTALL)
_OTHER_TAG: Final = re.compile(r"([A-Za-z_]+):(.*)", re.DOTALL)
_BLANKS = re.compile(r"[ \t]+")
_WORD = re.compile(r"([A-Za-z]+)(?:[: \t]+(.*))?", re.DOTALL)
_CODED = re.compile(r"([45][0-9]{2})(?:[ \t]+(.*))?")
_ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})[: \t]\s*(.*)", re.DOTALL)
_SIMPLE: Final = {
    "OK": Action.ACCEPT,
    "RELAY": Action.RELAY,
    "REJECT": Action.REJECT,
    "DISCARD": Action.DISCARD,
    "QUARANTINE": Action.QUARANTINE,
    "TAG": Action.TAG,
    "DEFER": Action.DEFER,
}
_WITH_TEXT: Final = frozenset({Action.REJECT, Action.DEFER, Action.QUARANTINE})


def read_table(text: str, where: str) -> Iterator[tuple[AccessEntry, str]]:
    """Read a table in either form; gives each entry with its place. Raises AccessError with file and line."""
    if where.endswith((".yaml", ".yml")):
        yield from _read_yaml(text, where)
        return
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip(" \t\r")
        if not line or line.startswith("#"):
            continue
        place = f"{where} line {number}"
        try:
            yield read_line(line), place
        except AccessError as error:
            raise AccessError(f"{place}: {error}") from None


def _read_yaml(text: str, where: str) -> Iterator[tuple[AccessEntry, str]]:
    try:
        documents = load_yaml(text, where)
        for document in documents:
            if isinstance(document, dict):
                for key, value in document.items():
                    yield _yaml_pair(key, value, f"{where} {key}"), f"{where} {key}"
            elif isinstance(document, list):
                for number, item in enumerate(document):
                    place = f"{where} [{number}]"
                    yield entry_of(convert(item, AccessRuleSpec, place)), place
            else:
                raise AccessError(f"{where}: a mapping of keys to values, or a list of rules, is expected")
    except ManifestError as error:
        raise AccessError(str(error)) from None


def _yaml_pair(key: Any, value: Any, place: str) -> AccessEntry:
    if not isinstance(key, str) or not isinstance(value, str):
        raise AccessError(f"{place}: key and value are texts; put numbers in quotes")
    try:
        return read_pair(key, value)
    except AccessError as error:
        raise AccessError(f"{place}: {error}") from None


def read_line(line: str) -> AccessEntry:
    """Read `key<TAB>value`. Raises AccessError."""
    key, *value = _BLANKS.split(line.strip(" \t\r"), maxsplit=1)
    if not value:
        raise AccessError("a value is missing behind the key")
    return read_pair(key, value[0])


def read_pair(key: str, value: str) -> AccessEntry:
    """Read a key and its value. Raises AccessError."""
    if len(key) > MAX_KEY:
        raise AccessError(f"the key is longer than {MAX_KEY} characters")
    tag, rest = _tag(key)
    if not rest:
        raise AccessError("the key is empty")
    if tag == "spam":
        return _friend(rest, value)
    action, code, enhanced, text = read_value(value)
    return AccessEntry(Tag(tag), rest, action, code, enhanced, text)


def _tag(key: str) -> tuple[str, str]:
    found = _TAG.fullmatch(key)
    if found is not None:
        return found[1].lower(), found[2]
    other = _OTHER_TAG.fullmatch(key)
    if other is not None and other[1].lower() != "ipv6" and not re.fullmatch(r"[0-9A-Fa-f]{1,4}", other[1]):
        raise AccessError(f"the tag {other[1]}: is not one of Connect: Helo: From: To: Spam:")
    return "", key


def _friend(key: str, value: str) -> AccessEntry:
    """Spam:recipient FRIEND of sendmail's delay_checks: no rule about client or sender holds for it."""
    if value.upper() != "FRIEND":
        raise AccessError("of the tag Spam: only FRIEND is known")
    return AccessEntry(Tag.TO, key, Action.ACCEPT)


def read_value(value: str) -> tuple[Action | None, int, str, str]:
    """Return action (None: SKIP), code, enhanced code and text. Raises AccessError."""
    upper = value.upper()
    if upper == "SKIP":
        return None, 0, "", ""
    if upper.startswith("ERROR:"):
        return _error(value[6:].strip())
    found = _WORD.fullmatch(value)
    action = _SIMPLE.get(found[1].upper()) if found else None
    if found is not None and action is not None:
        text = _unquoted(found[2] or "")
        if text and action not in _WITH_TEXT:
            raise AccessError(f"{found[1].upper()} has no text behind it")
        return action, 0, "", text
    if _CODED.fullmatch(value):
        return _error(value)
    raise AccessError(f"{value!r} is no action; OK, RELAY, REJECT, DISCARD, SKIP, QUARANTINE, ERROR: or a code is")


def _error(text: str) -> tuple[Action | None, int, str, str]:
    """What stands behind ERROR: an enhanced code, a code and a text, the first two as they please."""
    enhanced = ""
    text = _unquoted(text)
    found = _ENHANCED.fullmatch(text)
    if found is not None:
        enhanced, text = found[1], _unquoted(found[2])
    code = 0
    coded = _CODED.fullmatch(text)
    if coded is not None:
        code, text = int(coded[1]), coded[2] or ""
        behind = _ENHANCED.fullmatch(text) if not enhanced else None  # "550 5.7.1 Go away"
        if behind is not None:
            enhanced, text = behind[1], behind[2]
    if enhanced.startswith("2"):
        raise AccessError("an error has no enhanced code 2.x.x")
    first = str(code)[0] if code else (enhanced[:1] or "5")
    return (Action.DEFER if first == "4" else Action.REJECT), code, enhanced, text


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] == '"' else text
