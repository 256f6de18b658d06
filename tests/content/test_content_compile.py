"""headers, charset and attachments of a RelayPolicy: what is taken, and what is refused with the rule's name."""

from __future__ import annotations

import pytest

from gatepost.core.compile import Compiled, Surroundings, compile_manifests
from gatepost.core.configuration import ListenerPolicy
from gatepost.core.configuration_content import ContentPolicy
from gatepost.core.content_tables import content_tables
from gatepost.core.manifest.actions import Action
from gatepost.core.manifest.documents import read_objects
from gatepost.core.manifest.settings import Role
from gatepost.core.tables import Tables

AROUND = Surroundings(listeners={"mx": Role.MX})


def compiled(fields: str) -> Compiled:
    text = (
        "apiVersion: gatepost.dev/v1alpha1\nkind: RelayPolicy\nmetadata: {name: p, namespace: default}\n"
        f"spec: {{target: {{type: Listeners, listeners: [mx]}}, {fields}}}\n"
    )
    objects = read_objects({"test.yaml": text})
    return compile_manifests(objects.domains, objects.policies, AROUND)


def policy(fields: str) -> ListenerPolicy:
    result = compiled(fields)
    assert result.rejected == ()
    return result.configuration.listeners[0]


def test_nothing_is_looked_at_until_it_is_named() -> None:
    empty = policy("smtp: {}")
    assert empty.content == ContentPolicy()
    assert content_tables(empty.content) is None


def test_a_preset_of_files_needs_no_attachments() -> None:
    """And what was not asked for has no effect: archives that cannot be looked into and broken MIME are noted."""
    content = policy("headers: [{preset: VbsAttachment}, {preset: Happy99, action: Reject}]").content
    assert [rule.fields for rule in content.headers] == [("x-spanska",)]
    assert content.attachments is not None
    assert [(rule.name, rule.action) for rule in content.attachments.rules] == [
        ("VbsAttachment", Action.TAG),
        ("Happy99", Action.REJECT),
    ]
    assert (content.attachments.malformed, content.attachments.opaque) == (Action.ACCEPT, Action.ACCEPT)
    own = policy("headers: [{preset: VbsAttachment}], attachments: {}").content.attachments
    assert own is not None
    assert (own.malformed, own.opaque) == (Action.TAG, Action.TAG)


def test_tables_are_shared_and_built_with_the_configuration() -> None:
    configuration = compiled("headers: [{preset: Advertisement}]").configuration
    first = content_tables(Tables(configuration).listeners["mx"].policy.content)
    assert first is content_tables(Tables(configuration).listeners["mx"].policy.content)
    assert first is not None
    assert not first.searches


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("headers: [{preset: Papa}, {name: Subject, pattern: '(x'}]", "spec.headers[1].pattern: Subject: '(x'"),
        ("headers: [{name: X, pattern: '(?=x)'}]", "spec.headers[0].pattern"),
        ("headers: [{name: X, pattern: 'x{1000}x{1000}x{1000}x{1000}x{1000}x{1000}'}]", "too large"),
        ("headers: [{name: X}]", "a preset, or a name and a pattern"),
        ("headers: [{preset: Papa, name: X}]", "a preset has no name"),
        ("headers: [{preset: Papa, action: Relay}]", "Relay is not for this check"),
        ('headers: [{preset: Papa, text: "a\\nb"}]', "only printable"),
        ("charset: {allowed: [punycode]}", "no character set"),
        ("charset: {allowed: [utf-8], action: Relay}", "Relay is not for this check"),
        ("attachments: {extensions: {'*.exe': Reject}}", "is no extension"),
        ("attachments: {extensions: {tar.gz: Reject}}", "is no extension"),
        ("attachments: {extensions: {exe: Relay}}", "spec.attachments.extensions.exe"),
        ("attachments: {remove: ['a b']}", "is no extension"),
        ("attachments: {malformed: Relay}", "spec.attachments.malformed"),
    ],
)
def test_what_cannot_be_used_is_a_condition_that_names_it(fields: str, words: str) -> None:
    ((_, condition),) = compiled(fields).rejected
    assert (condition.type, condition.reason) == ("Accepted", "Invalid")
    assert words in condition.message


def test_warnings_say_what_a_policy_costs() -> None:
    result = compiled("attachments: {extensions: {scr: Reject}, remove: [scr]}")
    told = " ".join(text for texts in result.warnings.values() for text in texts)
    assert "DKIM" in told
    assert "remove of scr has no effect" in told
