"""Check `header-rule`: an administrator's expressions over the fields of a message's header.

Expressions run in linear time (RE2) and are compiled once, when a configuration arrives. A field is looked at as it
stands (unfolded, RFC 5322 2.2.3) and with its encoded words decoded (RFC 2047), so that neither hides the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
import re2

from gatepost.core.checks.verdict import Verdict
from gatepost.core.headers import Field
from gatepost.core.manifest.actions import Action
from gatepost.core.mime.words import decode_words
from gatepost.core.reply import Reply

if TYPE_CHECKING:
    Expression = Any

CHECK: Final = "header-rule"

HEADER_REFUSED: Final = Reply(554, "5.7.1", "the message's header has what is not taken here", CHECK)
HEADER_DEFERRED: Final = Reply(451, "4.7.1", "the message's header has what is not taken at the moment", CHECK)

# RE2 gives up a pattern that needs more; its fast way falls back to a slower one, linear too, above that.
MAX_MEMORY: Final = 8 * 2**20
# Instructions of a compiled pattern: with MAX_VALUE the bound on what one look costs in the slower way.
MAX_PROGRAM: Final = 5000
# Octets of one field that are looked at; RFC 5322 2.1.1 allows 998 in a line, and honest subjects fold into few.
MAX_VALUE: Final = 16 * 1024
# Fields of one name that are looked at. More are a match by themselves: no honest message has them.
MAX_FIELDS: Final = 100

MAX_SHOWN: Final = 60  # characters of a field in events


class PatternError(ValueError):
    """An expression cannot be used; the message says why."""


class HeaderRule(msgspec.Struct, frozen=True, omit_defaults=True):
    """`name` is told; `fields` are in lower case. `invert`: acts when none matches. `text`: of a refusal."""

    name: str
    fields: tuple[str, ...]
    pattern: str
    action: Action = Action.TAG
    invert: bool = False
    text: str = ""


def compile_pattern(pattern: str) -> Expression:
    """Return a compiled expression, without regard to case unless it says (?-i). Raises PatternError."""
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    options.max_mem = MAX_MEMORY
    try:
        expression = re2.compile(pattern, options)
    except re2.error as error:
        detail = error.args[0] if error.args else ""
        raise PatternError(
            detail.decode("utf-8", "replace") if isinstance(detail, bytes) else str(detail)
        ) from None
    except UnicodeError:
        raise PatternError("it is no valid text") from None
    if expression.programsize > MAX_PROGRAM:
        raise PatternError(f"it is too large: {expression.programsize} instructions, at most {MAX_PROGRAM}")
    return expression


class HeaderTable:
    """The rules of one policy with their compiled expressions. Raises PatternError."""

    def __init__(self, rules: Sequence[HeaderRule]) -> None:
        self._rules = tuple((rule, compile_pattern(rule.pattern)) for rule in rules)
        self._names = {name.encode(): name for rule in rules for name in rule.fields}

    def evaluate(self, fields: Iterable[Field]) -> list[Verdict]:
        """Judge a header: one verdict for each rule that acts."""
        texts: dict[str, list[str]] = {}
        counts: dict[str, int] = {}
        for field in fields:
            name = self._names.get(field.name)
            if name is not None:
                count = counts[name] = counts.get(name, 0) + 1
                if count <= MAX_FIELDS:
                    texts.setdefault(name, []).extend(texts_of(field.value))
        verdicts = []
        for rule, expression in self._rules:
            if any(counts.get(name, 0) > MAX_FIELDS for name in rule.fields):
                verdicts.append(_verdict(rule, f"more than {MAX_FIELDS} fields", ""))
                continue
            hit = _first_hit(rule, expression, texts)
            if (hit is None) is rule.invert:
                verdicts.append(_verdict(rule, "", hit or ""))
        return verdicts


def header_table(rules: Sequence[HeaderRule]) -> HeaderTable | None:
    """The table of a policy, None without rules. Raises PatternError."""
    return HeaderTable(rules) if rules else None


def texts_of(value: bytes) -> list[str]:
    """What a field says: as it stands, and decoded where it has encoded words."""
    text = value[:MAX_VALUE].replace(b"\r\n", b"").decode("utf-8", "replace").lstrip(" \t")
    decoded = decode_words(text)
    return [text] if decoded == text else [text, decoded[:MAX_VALUE]]


def _first_hit(rule: HeaderRule, expression: Expression, texts: dict[str, list[str]]) -> str | None:
    for name in rule.fields:
        for text in texts.get(name, ()):
            if expression.search(text.encode("utf-8", "replace")):
                return text
    return None


def _verdict(rule: HeaderRule, reason: str, hit: str) -> Verdict:
    reply = None
    if rule.action in (Action.REJECT, Action.DEFER):
        reply = HEADER_REFUSED if rule.action is Action.REJECT else HEADER_DEFERRED
        reply = msgspec.structs.replace(reply, text=rule.text) if rule.text else reply
    facts = {"rule": rule.name}
    if hit:
        facts["found"] = shown(hit)
    return Verdict(CHECK, rule.action, reply, facts, reason=f"{rule.name}: {reason}" if reason else rule.name)


def shown(text: str) -> str:
    """Text of a message for events and logs: printable and short."""
    return "".join(c if c.isprintable() else "?" for c in text[:MAX_SHOWN])
