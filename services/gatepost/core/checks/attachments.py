"""Check `attachment`: file names at every level of a message and in archives, MIME that is broken, opaque archives.

File names are what this goes by, not contents: little load, and a new worm's name can be refused at once, without a
signature of it. Every name that a part has counts, for mail programs differ in which they take.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from gatepost.core.checks.header_rules import compile_pattern
from gatepost.core.checks.verdict import GRAVITY, Verdict
from gatepost.core.manifest.actions import Action
from gatepost.core.mime.file_names import extension, shown
from gatepost.core.mime.part import Defect
from gatepost.core.reply import Reply

CHECK: Final = "attachment"

ATTACHMENT_REFUSED: Final = Reply(554, "5.7.1", "a file of this kind is not taken here", CHECK)
ATTACHMENT_DEFERRED: Final = Reply(451, "4.7.1", "a file of this kind is not taken at the moment", CHECK)
MALFORMED_REFUSED: Final = Reply(554, "5.6.0", "the message's MIME structure is broken", CHECK)
MALFORMED_DEFERRED: Final = Reply(451, "4.6.0", "the message's MIME structure is broken", CHECK)
OPAQUE_REFUSED: Final = Reply(554, "5.7.1", "an archive in the message cannot be looked into", CHECK)
OPAQUE_DEFERRED: Final = Reply(451, "4.7.1", "an archive in the message cannot be looked into", CHECK)
ARCHIVES_BUSY: Final = Reply(451, "4.3.2", "too many archives at a time, please try again later", CHECK)
NOT_SEARCHED: Final = Reply(554, "5.6.0", "the message has too many parts to be looked at", CHECK)

# Hits of one message that are told, the gravest first.
MAX_TOLD: Final = 20
# Parts that are left out of one message: each costs some hundred octets of its envelope.
MAX_REMOVED: Final = 50


class FileRule(msgspec.Struct, frozen=True, omit_defaults=True):
    """An expression over file names, of a preset."""

    name: str
    pattern: str
    action: Action = Action.TAG
    text: str = ""


class AttachmentPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """`extensions` and `remove` are in lower case without the dot, sorted. `note` is empty for the usual text."""

    extensions: tuple[tuple[str, Action], ...] = ()
    remove: tuple[str, ...] = ()
    rules: tuple[FileRule, ...] = ()
    note: str = ""
    max_depth: int = 20
    max_parts: int = 1000
    inside_archives: bool = True
    malformed: Action = Action.TAG
    opaque: Action = Action.TAG


class FileHit(msgspec.Struct, frozen=True):
    """A file that a rule is about: `archive` is the name of the archive that it is in, or empty."""

    rule: str
    action: Action
    name: str
    part: int
    archive: str = ""
    text: str = ""


class Opaque(msgspec.Struct, frozen=True):
    """An archive that cannot be looked into."""

    name: str
    part: int
    reason: str


class AttachmentTable:
    """The rules of one policy, looked up by file name. Raises PatternError."""

    def __init__(self, policy: AttachmentPolicy) -> None:
        self.policy = policy
        self._extensions = dict(policy.extensions)
        self._remove = frozenset(policy.remove)
        self._rules: Sequence[tuple[FileRule, Any]] = tuple(
            (rule, compile_pattern(rule.pattern)) for rule in policy.rules
        )

    def hits(self, name: str, part: int, archive: str = "") -> list[FileHit]:
        """What the policy says of a cleaned file name."""
        found = []
        kind = extension(name)
        action = self._extensions.get(kind)
        if action is not None:
            found.append(FileHit(f".{kind}", action, name, part, archive))
        for rule, expression in self._rules:
            if expression.search(name.encode("utf-8", "replace")):
                found.append(FileHit(rule.name, rule.action, name, part, archive, rule.text))
        return found

    def removes(self, name: str) -> bool:
        """Whether a part with this name, or with an archive in which it is, is left out."""
        return bool(self._remove) and extension(name) in self._remove


def evaluate(
    policy: AttachmentPolicy,
    hits: Sequence[FileHit],
    opaque: Sequence[Opaque],
    defects: Iterable[Defect],
    removed: Sequence[FileHit],
) -> Reply | list[Verdict]:
    """Judge what was found in a message; a Reply refuses it whoever it is for."""
    broken = sorted({defect.value for defect in defects})
    if Defect.NOT_SEARCHED.value in broken or len(removed) > MAX_REMOVED:
        return NOT_SEARCHED
    gravest = sorted(hits, key=lambda hit: GRAVITY.index(hit.action))
    verdicts = [_of_file(hit) for hit in gravest[:MAX_TOLD]]
    verdicts += [_removal(hit) for hit in removed[:MAX_TOLD]]
    if opaque:
        first = opaque[0]
        facts = {"file": shown(first.name), "part": str(first.part), "found": first.reason}
        reply = {Action.REJECT: OPAQUE_REFUSED, Action.DEFER: OPAQUE_DEFERRED}.get(policy.opaque)
        told = f"{shown(first.name)} cannot be looked into: {first.reason}"
        verdicts.append(Verdict(CHECK, policy.opaque, reply, facts, reason=told))
    if broken:
        reply = {Action.REJECT: MALFORMED_REFUSED, Action.DEFER: MALFORMED_DEFERRED}.get(policy.malformed)
        verdicts.append(
            Verdict(CHECK, policy.malformed, reply, {"found": "; ".join(broken)}, reason="; ".join(broken))
        )
    return verdicts


def _of_file(hit: FileHit) -> Verdict:
    reply = {Action.REJECT: ATTACHMENT_REFUSED, Action.DEFER: ATTACHMENT_DEFERRED}.get(hit.action)
    if reply is not None:
        # A rule of ours is told, never the sender's own words.
        text = hit.text or (f"files with the extension {hit.rule} are not taken here" if hit.rule[0] == "." else "")
        reply = msgspec.structs.replace(reply, text=text) if text else reply
    where = f"{shown(hit.name)} in {shown(hit.archive)}" if hit.archive else shown(hit.name)
    return Verdict(CHECK, hit.action, reply, _facts(hit), reason=f"{hit.rule}: {where}")


def _removal(hit: FileHit) -> Verdict:
    where = f"{shown(hit.name)} in {shown(hit.archive)}" if hit.archive else shown(hit.name)
    return Verdict(CHECK, Action.TAG, None, {**_facts(hit), "removed": "true"}, reason=f"removed {where}")


def _facts(hit: FileHit) -> dict[str, str]:
    facts = {"rule": hit.rule, "file": shown(hit.name), "part": str(hit.part)}
    if hit.archive:
        facts["archive"] = shown(hit.archive)
    return facts
