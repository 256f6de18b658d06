"""What a policy makes of results: one table, and whom a sealer can vouch for."""

from __future__ import annotations

import pytest

from gatepost.core.authentication.arc import ArcResult, ArcStatus
from gatepost.core.authentication.dkim import DkimSignatureResult, DkimStatus
from gatepost.core.authentication.dmarc import DmarcPolicy, DmarcResult, DmarcStatus
from gatepost.core.authentication.questions import Asking, Question, ask, remembering
from gatepost.core.authentication.spf import SpfIdentity, SpfResult, SpfStatus
from gatepost.core.checks.authentication import (
    AuthenticationPolicy,
    DkimActions,
    DmarcActions,
    Findings,
    SpfActions,
    evaluate,
    is_vouched,
)
from gatepost.core.compile import Surroundings, compile_manifests
from gatepost.core.headers import read_header
from gatepost.core.manifest.actions import Action, OnError
from gatepost.core.manifest.documents import read_objects
from gatepost.core.manifest.settings import Role

DEFAULT = AuthenticationPolicy()
ALL_REJECT = AuthenticationPolicy(
    SpfActions(Action.REJECT, Action.REJECT, Action.REJECT, OnError.TEMPFAIL),
    DkimActions(Action.REJECT, OnError.TEMPFAIL),
    DmarcActions(Action.REJECT, Action.REJECT, Action.REJECT, OnError.TEMPFAIL),
)
ALL_DEFER = AuthenticationPolicy(
    SpfActions(Action.DEFER, Action.DEFER, Action.DEFER),
    DkimActions(Action.DEFER),
    DmarcActions(Action.DEFER, Action.DEFER, Action.DEFER),
)
# A method without an answer lets the message pass, whatever the others say.
LENIENT = AuthenticationPolicy(
    SpfActions(temp_error=OnError.ACCEPT), DkimActions(temp_error=OnError.ACCEPT), DmarcActions(Action.REJECT)
)


def findings(
    spf: str = "none", dkim: str = "", dmarc: str = "none", asked: str = "", vouched: bool = False
) -> Findings:
    return Findings(
        SpfResult(SpfStatus(spf), SpfIdentity.MAIL_FROM, "s.example", "x@s.example"),
        tuple(DkimSignatureResult(DkimStatus(one), domain="d.example") for one in dkim.split()),
        ArcResult(ArcStatus.NONE),
        DmarcResult(DmarcStatus(dmarc), "a.example", disposition=DmarcPolicy(asked) if asked else None),
        vouched,
    )


@pytest.mark.parametrize(
    ("found", "default", "reject", "defer"),
    [
        (findings(), [], [], []),
        (findings("pass", "pass", "pass", "none"), [], [], []),
        (findings("neutral"), [], [], []),
        (findings("fail"), ["spf Tag"], ["spf 550 5.7.23"], ["spf 450 4.7.23"]),
        (findings("softfail"), ["spf Tag"], ["spf 550 5.7.23"], ["spf 450 4.7.23"]),
        (findings("permerror"), [], ["spf 550 5.7.24"], ["spf 450 4.7.24"]),
        (findings("temperror"), [], ["spf 451 4.7.24"], []),
        (findings(dkim="fail"), [], ["dkim 550 5.7.20"], ["dkim 450 4.7.20"]),
        (findings(dkim="fail pass"), [], [], []),
        (findings(dkim="fail temperror"), [], ["dkim 451 4.7.5"], []),
        (findings(dkim="permerror policy"), [], ["dkim 550 5.7.20"], ["dkim 450 4.7.20"]),
        (findings(dmarc="fail", asked="none"), [], [], []),
        (findings(dmarc="fail", asked="quarantine"), ["dmarc Tag"], ["dmarc 550 5.7.26"], ["dmarc 450 4.7.26"]),
        (findings(dmarc="fail", asked="reject"), ["dmarc Quarantine"], ["dmarc 550 5.7.26"], ["dmarc 450 4.7.26"]),
        (findings(dmarc="fail", asked="reject", vouched=True), [], [], []),
        (findings(dmarc="permerror"), [], ["dmarc 550 5.7.26"], ["dmarc 450 4.7.26"]),
        (findings(dmarc="temperror"), [], ["dmarc 451 4.4.3"], []),
    ],
)
def test_what_follows(found: Findings, default: list[str], reject: list[str], defer: list[str]) -> None:
    assert [f"{one.check} {one.action.value}" for one in evaluate(DEFAULT, found)] == default
    for policy, expected in ((ALL_REJECT, reject), (ALL_DEFER, defer)):
        said = [(one.check, one.answer) for one in evaluate(policy, found)]
        assert [f"{check} {reply.code} {reply.enhanced}" for check, reply in said] == expected
        assert all(check == reply.check for check, reply in said)


@pytest.mark.parametrize(
    ("found", "checks"),
    [
        (findings("temperror", dmarc="fail", asked="reject"), []),
        (findings(dkim="temperror", dmarc="fail", asked="reject"), []),
        (findings("fail", dmarc="fail", asked="reject"), ["spf", "dmarc"]),
    ],
)
def test_not_knowing_can_mean_to_accept(found: Findings, checks: list[str]) -> None:
    assert [verdict.check for verdict in evaluate(LENIENT, found)] == checks


@pytest.mark.parametrize(
    ("results", "vouched"),
    [
        (b"i=1; l.example; dmarc=pass (p=reject) header.from=a.example", True),
        (b" i=1; l.example;\r\n\tspf=fail; DMARC=pass", True),
        (b"i=1; l.example; dmarc=pass header.from=b.example", False),
        (b"i=1; l.example; dmarc=fail header.from=a.example", False),
        (b"i=1; l.example; spf=pass", False),
        (b"i=1; l.example; spf=pass (dmarc=pass)", False),
        (b"i=2; l.example; dmarc=pass", False),
        (b"", False),
    ],
)
def test_what_a_sealer_must_have_seen(results: bytes, vouched: bool) -> None:
    fields = read_header(b"ARC-Authentication-Results: " + results + b"\r\n")
    chain = ArcResult(ArcStatus.PASS, instances=1, sealers=("l.example",))
    assert is_vouched(fields, chain, "a.example", {"l.example"}) is vouched
    assert not is_vouched(fields, chain, "a.example", {"m.example"})
    assert not is_vouched(fields, ArcResult(ArcStatus.FAIL, instances=1), "a.example", {"l.example"})
    two = ArcResult(ArcStatus.PASS, instances=2, sealers=("x.example", "l.example"))
    assert not is_vouched(fields, two, "a.example", {"l.example"}), "one that is not trusted changed it last"


def _conditions(authentication: str, role: Role) -> tuple[list[str], list[str]]:
    spec = f"{{target: {{type: Listeners, listeners: [l]}}, authentication: {authentication}}}"
    text = f"apiVersion: gatepost.dev/v1alpha1\nkind: RelayPolicy\nmetadata: {{name: p}}\nspec: {spec}\n"
    around = Surroundings(listeners={"l": role}, directories=("corp",), stores=(), domain_ownership={})
    result = compile_manifests((), read_objects({"p.yaml": text}).policies, around)
    return (
        [condition.message for _, condition in result.rejected],
        [text for texts in result.warnings.values() for text in texts],
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{spf: {fail: Relay}}", "Relay is not for this check"),
        ("{dmarc: {reject: Relay}}", "Relay is not for this check"),
        ("{deadline: 31s}", "from 100ms to 30s"),
        ("{deadline: 99ms}", "from 100ms to 30s"),
        ("{authservId: 'a b'}", "is no domain name"),
        ("{arc: {trustedSealers: ['*.example']}}", "is no domain name"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, message: str) -> None:
    (said,), _ = _conditions(text, Role.MX)
    assert message in said


def test_what_is_probably_not_meant_is_warned_of() -> None:
    assert "refuses forwarded mail" in _conditions("{spf: {fail: Reject}}", Role.MX)[1][0]
    assert "never judges clients that log in" in _conditions("{}", Role.SUBMISSION)[1][0]
    assert _conditions("{}", Role.MX) == ([], [])


def test_a_question_that_was_answered_before_is_not_asked_again(zone: object) -> None:
    def both() -> Asking[list[str]]:
        first = yield from ask("a.example", "TXT")
        second = yield Question("b.example", "TXT"), Question("a.example", "TXT")
        return [*first.records, *second[0].records, *second[1].records]

    zone.records = {("a.example", "TXT"): ("1",), ("b.example", "TXT"): ("2",)}  # type: ignore[attr-defined]
    known: dict[Question, object] = {}
    for asked in (2, 2):
        assert zone.settle(remembering(both(), known)) == ["1", "2", "1"]  # type: ignore[attr-defined,arg-type]
        assert len(zone.asked) == asked  # type: ignore[attr-defined]
