"""Checks spam and virus: what follows from what a scanner says; and a policy's scanners, compiled."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.core.checks.scanners import NoResult, Outcome, ScannerPolicy, evaluate, label
from gatepost.core.checks.verdict import tag_field
from gatepost.core.compile import Compiled, Surroundings, compile_manifests
from gatepost.core.configuration_content import ContentPolicy
from gatepost.core.manifest.actions import Action, OnError
from gatepost.core.manifest.documents import read_objects
from gatepost.core.manifest.settings import Role
from gatepost.core.ports.scanner import Advice, ScannerAddress, ScannerKind, ScanResult

CLAMD = ScannerPolicy(ScannerAddress(ScannerKind.CLAMD, "tcp://c:3310"), 20.0, OnError.TEMPFAIL)
RSPAMD = ScannerPolicy(ScannerAddress(ScannerKind.RSPAMD, "http://r:11333"), 8.0, OnError.ACCEPT)
IGNORING = msgspec.structs.replace(RSPAMD, on_error=OnError.IGNORE)
OWN = msgspec.structs.replace(RSPAMD, actions={Advice.REJECT.value: Action.QUARANTINE}, too_large=Action.REJECT)


def said(advice: Advice) -> ScanResult:
    return ScanResult(advice, ("NAME",), 7.0, 15.0)


@pytest.mark.parametrize(
    ("policy", "outcome", "action", "told"),
    [
        (CLAMD, said(Advice.NO_ACTION), Action.ACCEPT, ""),
        (CLAMD, said(Advice.FOUND), Action.REJECT, "550 5.7.1"),
        (CLAMD, said(Advice.OTHER), Action.TAG, ""),
        (CLAMD, NoResult.UNAVAILABLE, Action.DEFER, "451 4.7.1"),
        (CLAMD, NoResult.REFUSED, Action.DEFER, "451 4.7.1"),
        (CLAMD, NoResult.LATE, Action.DEFER, "451 4.7.1"),
        (CLAMD, NoResult.TOO_LARGE, Action.TAG, ""),
        (RSPAMD, said(Advice.NO_ACTION), Action.ACCEPT, ""),
        (RSPAMD, said(Advice.GREYLIST), Action.ACCEPT, ""),
        (RSPAMD, said(Advice.ADD_HEADER), Action.TAG, ""),
        (RSPAMD, said(Advice.REWRITE_SUBJECT), Action.TAG, ""),
        (RSPAMD, said(Advice.SOFT_REJECT), Action.DEFER, "451 4.7.1"),
        (RSPAMD, said(Advice.QUARANTINE), Action.QUARANTINE, ""),
        (RSPAMD, said(Advice.DISCARD), Action.DISCARD, ""),
        (RSPAMD, said(Advice.REJECT), Action.REJECT, "550 5.7.1"),
        (RSPAMD, said(Advice.OTHER), Action.TAG, ""),
        (RSPAMD, NoResult.UNAVAILABLE, Action.TAG, ""),
        (IGNORING, NoResult.LATE, Action.ACCEPT, ""),
        (OWN, said(Advice.REJECT), Action.QUARANTINE, ""),
        (OWN, NoResult.TOO_LARGE, Action.REJECT, "552 5.3.4"),
    ],
)
@pytest.mark.requirement("S0-37")
def test_what_follows(policy: ScannerPolicy, outcome: Outcome, action: Action, told: str) -> None:
    """Fails without the defaults for each advice, the policy's own actions, or onError."""
    verdict = evaluate(policy, outcome)
    assert verdict.action is action
    assert verdict.check == ("virus" if policy is CLAMD else "spam")
    assert verdict.facts["scan"] == label(outcome)
    if told:
        assert f"{verdict.answer.code} {verdict.answer.enhanced}" == told
        assert verdict.answer.check == verdict.check
    else:
        assert verdict.reply is None


def test_the_score_and_the_names_are_facts() -> None:
    verdict = evaluate(RSPAMD, ScanResult(Advice.REJECT, ("BAYES_SPAM", "R_SPF_FAIL"), 17.5, 15.0))
    assert verdict.score == 17.5
    assert verdict.facts == {
        "scanner": "Rspamd",
        "scan": "reject",
        "names": "BAYES_SPAM,R_SPF_FAIL",
        "required": "15",
    }
    assert verdict.told == "spam: reject (BAYES_SPAM,R_SPF_FAIL)"


@given(st.lists(st.text(max_size=200), max_size=60))
@settings(max_examples=50)
def test_whatever_a_scanner_calls_it_is_one_short_line(names: list[str]) -> None:
    verdict = evaluate(RSPAMD, ScanResult(Advice.ADD_HEADER, tuple(names)))
    line = tag_field(verdict.told)
    assert line.isascii()
    assert line.index("\r\n") == len(line) - 2
    assert len(line) < 998
    assert len(verdict.facts["names"]) <= 30 * 81


def compiled(spec: str) -> Compiled:
    document = (
        "apiVersion: gatepost.dev/v1alpha1\nkind: RelayPolicy\nmetadata: {name: p}\n"
        f"spec: {{target: {{type: Listeners, listeners: [mx]}}, scanners: {spec}}}\n"
    )
    around = Surroundings(listeners={"mx": Role.MX})
    objects = read_objects({"p.yaml": document})
    return compile_manifests(objects.domains, objects.policies, around)


def test_defaults_and_everything_set() -> None:
    result = compiled(
        '[{type: Rspamd, url: "http://rspamd:11333/"}, {type: Clamd, address: "unix:/run/clamd.sock", timeout: 3s, '
        "onError: Ignore, maxSize: 1Mi, tooLarge: Quarantine, ownClients: false, actions: {found: Quarantine}}, "
        '{type: Rspamd, url: "https://[2001:db8::1]:11333", settings: strict, actions: {reject: Reject, '
        "rewriteSubject: Quarantine, other: Accept}}]"
    )
    assert result.rejected == ()
    address = ScannerAddress
    assert result.configuration.listeners[0].content == ContentPolicy(
        scanners=(
            ScannerPolicy(address(ScannerKind.RSPAMD, "http://rspamd:11333"), 8.0, OnError.ACCEPT),
            ScannerPolicy(
                address(ScannerKind.CLAMD, "unix:/run/clamd.sock"),
                3.0,
                OnError.IGNORE,
                2**20,
                Action.QUARANTINE,
                {Advice.FOUND.value: Action.QUARANTINE},
                False,
            ),
            ScannerPolicy(
                address(ScannerKind.RSPAMD, "https://[2001:db8::1]:11333", "strict"),
                8.0,
                OnError.ACCEPT,
                actions={"rewrite subject": Action.QUARANTINE, "other": Action.ACCEPT},
            ),
        )
    )


@pytest.mark.parametrize(
    "scanner",
    [
        '{type: Clamd, address: "tcp://c:0"}',
        '{type: Clamd, address: "tcp://c:99999"}',
        '{type: Clamd, address: "tcp://c:3310", timeout: 5m}',
        '{type: Clamd, address: "tcp://c:3310", actions: {found: Relay}}',
        '{type: Clamd, address: "tcp://c:3310", tooLarge: Relay}',
        '{type: Clamd, address: "tcp://c:3310", maxSize: "0"}',
        '{type: Clamd, address: "tcp://c:3310", actions: {reject: Discard}}',
        '{type: Rspamd, url: "http://r:11333", actions: {found: Discard}}',
        '{type: Rspamd, url: "http://r:0"}',
        '{type: Rspamd, url: "http://user:secret@r:11333"}',
        '{type: Rspamd, url: "http://r:11333/checkv2"}',
        '{type: Rspamd, url: "http://[::1"}',
        '{type: Rspamd, url: "http://r:1"}, {type: Rspamd, url: "http://r:1/"}',
    ],
)
def test_what_cannot_be_is_refused_with_its_field(scanner: str) -> None:
    [(_, condition)] = compiled(f"[{scanner}]").rejected
    assert condition.message.startswith("spec.scanners")


def test_what_lets_malware_through_is_warned_about() -> None:
    result = compiled('[{type: Clamd, address: "tcp://c:3310", actions: {found: Tag}}]')
    [warnings] = result.warnings.values()
    assert "lets malware through" in warnings[0]
