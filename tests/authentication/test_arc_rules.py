"""ARC beyond the suites: long chains, limits, missing answers, and sealing what was validated."""

from __future__ import annotations

import re
from typing import Any

import pytest

from gatepost.core.authentication.arc import ArcResult, ArcSealer, ArcStatus, ArcVerification
from gatepost.core.authentication.dkim import Acceptance, hash_body
from gatepost.core.headers import header_end, read_header

NOW = 1_800_000_000
MESSAGE = b"From: a@example.org\r\nSubject: hello\r\nDKIM-Signature: v=1\r\n\r\nBody\r\n"


@pytest.fixture
def zone(make_zone: Any, keys: Any) -> Any:
    return make_zone(
        {
            ("s._domainkey.example.org", "TXT"): [keys.rsa_record],
            ("s._domainkey.example.net", "TXT"): [keys.ed25519_record],
        }
    )


def validate(message: bytes, zone: Any, acceptance: Acceptance | None = None) -> ArcResult:
    verification = ArcVerification(read_header(message), acceptance or Acceptance())
    bodies = hash_body(message[header_end(message) + 2 :], verification.wanted)
    result: ArcResult = zone.settle(verification.verify(bodies))
    return result


def sealed(message: bytes, sealer: ArcSealer, arc: ArcResult) -> bytes:
    bodies = hash_body(message[header_end(message) + 2 :], {sealer.wanted})
    added = sealer.seal(read_header(message), bodies, arc, "mx.example.org", ["spf=pass", "dkim=none"], NOW)
    assert added is not None
    return added + message


def chain(length: int, sealers: list[ArcSealer], zone: Any) -> bytes:
    message = MESSAGE
    for number in range(length):
        message = sealed(message, sealers[number % len(sealers)], validate(message, zone))
    return message


@pytest.fixture
def sealers(keys: Any) -> list[ArcSealer]:
    return [ArcSealer("example.org", "s", keys.rsa), ArcSealer("example.net", "s", keys.ed25519)]


def test_a_chain_of_sealers_passes(zone: Any, sealers: list[ArcSealer]) -> None:
    assert validate(MESSAGE, zone) == ArcResult(ArcStatus.NONE)
    zone.asked.clear()
    result = validate(chain(3, sealers, zone), zone)
    assert (result.status, result.instances) == (ArcStatus.PASS, 3)
    assert result.sealers == ("example.org", "example.net", "example.org")


def test_a_later_change_breaks_older_message_signatures_only(zone: Any, sealers: list[ArcSealer]) -> None:
    first = chain(1, sealers, zone)
    assert validate(first, zone).status is ArcStatus.PASS
    changed = first + b"-- \r\nfooter\r\n"
    assert validate(changed, zone).status is ArcStatus.FAIL
    # The list validates before it changes, and seals what it sends.
    again = sealed(changed, sealers[1], validate(first, zone))
    assert validate(again, zone).status is ArcStatus.PASS


def test_instances_are_written_as_other_verifiers_look_for_them(sealers: list[ArcSealer]) -> None:
    """Fails with a fold by a tab before i=: dkimpy looks for it behind a space in the raw field."""
    for length in range(1, 60):
        message = b"From: a@example.org\r\n" + b"X" * length + b": x\r\n\r\nBody\r\n"
        bodies = hash_body(b"Body\r\n", {sealers[1].wanted})
        names = ["from", "x" * length]
        added = sealers[1].seal(read_header(message), bodies, ArcResult(ArcStatus.NONE), "mx", [], NOW, names)
        assert added is not None
        assert added.count(b" i=1;") == 3


def test_fifty_sets_and_not_one_more(zone: Any, sealers: list[ArcSealer]) -> None:
    arc, message = ArcResult(ArcStatus.NONE), MESSAGE
    for instance in range(1, 51):
        message = sealed(message, sealers[1], arc)
        arc = ArcResult(ArcStatus.PASS, instances=instance)
    zone.asked.clear()
    assert validate(message, zone).instances == 50
    assert validate(message, zone).status is ArcStatus.PASS
    assert len(zone.asked) == 2  # one key of one name, for each of the two validations
    bodies = hash_body(b"Body\r\n", {sealers[1].wanted})
    assert sealers[1].seal(read_header(message), bodies, arc, "mx.example.org", [], NOW) is None
    result = validate(message.replace(b"i=50;", b"i=51;"), zone)
    assert (result.status, result.reason) == (ArcStatus.FAIL, "no instance from 1 to 50")


def test_no_answer_for_a_key_is_not_sealed_as_a_failure(zone: Any, sealers: list[ArcSealer]) -> None:
    """Fails without `temporary`: cv=fail would stay on the message for good."""
    message = chain(2, sealers, zone)
    zone.failing.add(("s._domainkey.example.org", "TXT"))
    result = validate(message, zone)
    assert (result.status, result.temporary) == (ArcStatus.FAIL, True)
    bodies = hash_body(b"Body\r\n", {sealers[0].wanted})
    assert sealers[0].seal(read_header(message), bodies, result, "mx.example.org", [], NOW) is None


def test_a_broken_chain_is_closed_by_its_own_set_alone(zone: Any, sealers: list[ArcSealer]) -> None:
    """RFC 8617 5.1.2; then nobody adds another set."""
    broken = chain(2, sealers, zone).replace(b"spf=pass", b"spf=fail", 1)
    arc = validate(broken, zone)
    assert (arc.status, arc.instances, arc.closed) == (ArcStatus.FAIL, 2, False)
    closed = sealed(broken, sealers[0], arc)
    assert b"cv=fail" in closed
    result = validate(closed, zone)
    assert (result.status, result.closed, result.reason) == (ArcStatus.FAIL, True, "the newest seal says so")
    bodies = hash_body(b"Body\r\n", {sealers[0].wanted})
    assert sealers[0].seal(read_header(closed), bodies, result, "mx.example.org", [], NOW) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ((rb"cv=pass", b"cv=none"), "the seal of set 2 has another cv="),
        ((rb"ARC-Seal", b"X-Seal"), "set 2 is not whole"),
        ((rb"i=2; ", b"i=3; "), "set 2 is not whole"),
        ((rb"h=from", b"h=arc-seal:from"), "a message signature covers seals"),
        ((rb"; t=", b"; h=from; t="), "a seal has h="),
        ((rb"a=ed25519-sha256", b"a=rsa-sha1"), "rsa-sha1 is no longer a signature"),
        (
            (rb"c=relaxed/relaxed;", b"c=relaxed/relaxed; l=1;"),
            "the message signature does not cover the whole body",
        ),
        ((rb"c=relaxed/relaxed;", b"c=relaxed/relaxed; l=7;"), "l= is more than the body"),
        ((rb"c=relaxed/relaxed;", b"c=relaxed/relaxed; l=6;"), "the message signature does not fit"),
        ((rb"Subject: hello", b"Subject: bye"), "the message signature does not fit"),
        ((rb"Body", b"Changed"), "the body was changed"),
        ((rb"d=example.net", b"d=example.org"), None),
    ],
)
def test_what_breaks_a_chain(
    change: tuple[bytes, bytes], reason: str | None, zone: Any, sealers: list[ArcSealer]
) -> None:
    message = chain(2, sealers, zone)
    changed = re.sub(*change, message, count=1)
    assert changed != message
    result = validate(changed, zone)
    assert (result.status, result.temporary) == (ArcStatus.FAIL, False)
    if reason is not None:
        assert result.reason == reason


def test_all_keys_are_asked_for_at_once(zone: Any, sealers: list[ArcSealer]) -> None:
    message = chain(4, sealers, zone)
    zone.rounds.clear()
    validate(message, zone)
    assert zone.rounds == [2]


def test_others_signatures_are_covered(zone: Any, sealers: list[ArcSealer]) -> None:
    message = chain(1, sealers, zone)
    assert validate(message.replace(b"DKIM-Signature: v=1", b"DKIM-Signature: v=2"), zone).status is ArcStatus.FAIL
