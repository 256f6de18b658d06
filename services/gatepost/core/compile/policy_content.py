"""A RelayPolicy's `headers`, `charset` and `attachments` -> their part of the ContentPolicy."""

from __future__ import annotations

import re
from typing import Final, TypedDict

from gatepost.core.checks.attachments import AttachmentPolicy, FileRule
from gatepost.core.checks.charset import CharsetPolicy, canonical
from gatepost.core.checks.header_presets import PRESETS
from gatepost.core.checks.header_rules import HeaderRule, PatternError, compile_pattern
from gatepost.core.compile.conditions import ACCEPTED, Rejection
from gatepost.core.compile.values import judging
from gatepost.core.manifest.actions import Action
from gatepost.core.manifest.policy_content import AttachmentsSpec, CharsetSpec, HeaderRuleSpec
from gatepost.core.manifest.relay_policy import RelayPolicySpec
from gatepost.core.mime.words import text_codec

# Where only presets ask for files, nothing else has an effect; what is found is noted.
_ONLY_PRESETS: Final = AttachmentsSpec(malformed=Action.ACCEPT, opaque=Action.ACCEPT)
_EXTENSION: Final = re.compile(r"[^\s./\\:\"<>|?*\x00-\x1f]{1,40}")


class ContentRules(TypedDict, total=False):
    """The fields of ContentPolicy that are compiled here."""

    headers: tuple[HeaderRule, ...]
    charset: CharsetPolicy | None
    attachments: AttachmentPolicy | None


def content_rules(spec: RelayPolicySpec, warnings: list[str]) -> ContentRules:
    """Raises Rejection, which names the rule."""
    headers: list[HeaderRule] = []
    files: list[FileRule] = []
    for number, rule in enumerate(spec.headers or ()):
        field = f"spec.headers[{number}]"
        if rule.preset is None:
            headers.append(_own_rule(rule, field))
        else:
            _preset(rule, field, headers, files)
    attachments = None
    if spec.attachments is not None or files:
        attachments = _attachments(spec.attachments or _ONLY_PRESETS, tuple(files), warnings)
    return ContentRules(headers=tuple(headers), charset=_charset(spec.charset), attachments=attachments)


def _own_rule(rule: HeaderRuleSpec, field: str) -> HeaderRule:
    if rule.name is None or rule.pattern is None:
        raise Rejection(ACCEPTED, "Invalid", field, "a rule has a preset, or a name and a pattern")
    try:
        compile_pattern(rule.pattern)
    except PatternError as error:
        raise Rejection(
            ACCEPTED, "Invalid", f"{field}.pattern", f"{rule.name}: {rule.pattern!r} cannot be used: {error}"
        ) from None
    action = _action(rule.action, f"{field}.action")
    return HeaderRule(
        rule.name, (rule.name.lower(),), rule.pattern, action, bool(rule.invert), _text(rule.text, f"{field}.text")
    )


def _preset(rule: HeaderRuleSpec, field: str, headers: list[HeaderRule], files: list[FileRule]) -> None:
    assert rule.preset is not None
    if rule.name is not None or rule.pattern is not None or rule.invert is not None:
        raise Rejection(ACCEPTED, "Invalid", field, "a preset has no name, pattern or invert of its own")
    preset, name, action = PRESETS[rule.preset], rule.preset.value, _action(rule.action, f"{field}.action")
    text = _text(rule.text, f"{field}.text") or preset.text
    for fields, pattern in preset.patterns:
        if fields:
            headers.append(HeaderRule(name, fields, pattern, action, text=text))
        else:
            files.append(FileRule(name, pattern, action, text))


def _charset(spec: CharsetSpec | None) -> CharsetPolicy | None:
    if spec is None:
        return None
    for number, name in enumerate(spec.allowed):
        if text_codec(name) is None:
            raise Rejection(
                ACCEPTED, "Invalid", f"spec.charset.allowed[{number}]", f"{name!r} is no character set known here"
            )
    names = {canonical(name) for name in spec.allowed}
    return CharsetPolicy(tuple(sorted(names)), _action(spec.action, "spec.charset.action"))


def _attachments(spec: AttachmentsSpec, rules: tuple[FileRule, ...], warnings: list[str]) -> AttachmentPolicy:
    base, field = AttachmentPolicy(), "spec.attachments"
    extensions = {
        _extension(name, f"{field}.extensions"): _action(action, f"{field}.extensions.{name}")
        for name, action in (spec.extensions or {}).items()
    }
    remove = tuple(sorted({_extension(name, f"{field}.remove") for name in spec.remove or ()}))
    if remove:
        warnings.append("attachments.remove changes messages: DKIM signatures do not verify behind the gateway")
    for name in remove:
        if extensions.get(name) in (Action.REJECT, Action.DEFER, Action.DISCARD):
            warnings.append(f"attachments.remove of {name} has no effect: extensions has {extensions[name].value}")
    return AttachmentPolicy(
        tuple(sorted(extensions.items())),
        remove,
        rules,
        _text(spec.note, f"{field}.note", lines=True),
        spec.max_depth or base.max_depth,
        spec.max_parts or base.max_parts,
        base.inside_archives if spec.inside_archives is None else spec.inside_archives,
        _action(spec.malformed, f"{field}.malformed"),
        _action(spec.opaque, f"{field}.opaque"),
    )


def _extension(text: str, field: str) -> str:
    name = text.strip().casefold().removeprefix(".")
    if not _EXTENSION.fullmatch(name):
        raise Rejection(ACCEPTED, "Invalid", field, f"{text!r} is no extension; write exe, not *.exe or tar.gz")
    return name


def _action(action: Action | None, field: str) -> Action:
    """Tag where nothing is said."""
    return judging(action, field) or Action.TAG


def _text(text: str | None, field: str, *, lines: bool = False) -> str:
    if text is not None and not (text.replace("\n", "") if lines else text).isprintable():
        raise Rejection(ACCEPTED, "Invalid", field, "only printable characters")
    return text or ""
