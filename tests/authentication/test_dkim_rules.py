"""DKIM rule by rule: messages signed here, then changed, against key records of every kind."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gatepost.core.authentication.dkim import (
    Acceptance,
    BodyHash,
    DkimSignatureResult,
    DkimSigner,
    DkimStatus,
    DkimVerification,
    FieldPolicy,
    SigningError,
    hash_body,
)
from gatepost.core.authentication.dkim.acceptance import MAX_KEY_RECORD, MAX_SIGNATURES
from gatepost.core.authentication.dkim.canonical_header import Canonical, CanonicalHeader, canonical_signature
from gatepost.core.authentication.dkim.sign import SigningKey, in_base64
from gatepost.core.headers import field_of, header_end, read_header

NOW = 1_800_000_000
KEY = ("s._domainkey.example.org", "TXT")
MESSAGE = (
    b"Received: by mx\r\nFrom: A <a@example.org>\r\nTo: b@example.net\r\n"
    b"Subject: hello\r\n  world\r\n\r\nBody  of \r\nthe mail\r\n\r\n"
)

# RFC 8463 A.3: one message with both kinds of signature.
FOOTBALL = b"""DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.
""".replace(b"\n", b"\r\n")
FOOTBALL_KEYS = {
    "brisbane": "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    "test": "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb"
    "2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G"
    "+2kryOTIKT+l/K4w3QIDAQAB",
}


def verify(
    message: bytes, zone: Any, now: int = NOW, acceptance: Acceptance | None = None
) -> list[DkimSignatureResult]:
    verification = DkimVerification(read_header(message), acceptance or Acceptance())
    bodies = hash_body(message[header_end(message) + 2 :], verification.wanted)
    return list(zone.settle(verification.verify(bodies, now)))


def signed_with(pem: bytes, tags: str, canonical: str = "relaxed/relaxed", message: bytes = MESSAGE) -> bytes:
    """Sign with any tags at all: %BH% is the body hash, h= as given."""
    fields = read_header(message)
    header_form, body_form = (Canonical(one) for one in canonical.split("/"))
    limit = next((int(tag[2:]) for tag in tags.replace(" ", "").split(";") if tag.startswith("l=")), None)
    wanted = BodyHash(body_form, limit)
    digest = hash_body(message[header_end(message) + 2 :], {wanted}).get(wanted).digest
    field = field_of(f"DKIM-Signature: {tags}; c={canonical}; bh={in_base64(digest)}; b=".encode())
    names = next((tag[2:] for tag in tags.replace(" ", "").split(";") if tag.startswith("h=")), "").split(":")
    data = CanonicalHeader(fields).signed(names, header_form) + canonical_signature(field, header_form)
    return field.raw + in_base64(SigningKey(pem).sign(data)).encode() + b"\r\n" + message


USUAL = "v=1; a=rsa-sha256; d=example.org; s=s; h=from:to:subject"


def test_vector_of_rfc_8463(make_zone: Any) -> None:
    zone = make_zone({(f"{s}._domainkey.football.example.com", "TXT"): [r] for s, r in FOOTBALL_KEYS.items()})
    ed25519, rsa = verify(FOOTBALL, zone)
    assert (ed25519.status, ed25519.algorithm, ed25519.weak_key) == (DkimStatus.PASS, "ed25519-sha256", False)
    assert (rsa.status, rsa.key_bits, rsa.weak_key) == (DkimStatus.PASS, 1024, True)
    assert zone.rounds == [2]
    for changed in (FOOTBALL.replace(b"dinner", b"lunch"), FOOTBALL.replace(b"lost", b"won")):
        assert [one.status for one in verify(changed, zone)] == [DkimStatus.FAIL] * 2


@pytest.mark.parametrize("canonical", ["simple/simple", "simple/relaxed", "relaxed/simple", "relaxed/relaxed"])
def test_canonical_forms(canonical: str, keys: Any, make_zone: Any) -> None:
    zone = make_zone({KEY: [keys.rsa_record]})
    message = signed_with(keys.rsa, USUAL, canonical)
    assert [one.status for one in verify(message, zone)] == [DkimStatus.PASS]
    header_form, body_form = canonical.split("/")
    folded = verify(message.replace(b"hello\r\n  world", b"hello world "), zone)[0].status
    assert folded is (DkimStatus.PASS if header_form == "relaxed" else DkimStatus.FAIL)
    spaced = verify(message.replace(b"Body  of \r\n", b"Body of\r\n"), zone)[0].status
    assert spaced is (DkimStatus.PASS if body_form == "relaxed" else DkimStatus.FAIL)


@pytest.mark.parametrize(
    ("tags", "status", "reason"),
    [
        (USUAL + "; l=4", DkimStatus.POLICY, "15 octets of the body are not signed"),
        (USUAL + "; l=19", DkimStatus.PASS, ""),
        (USUAL + "; l=20", DkimStatus.FAIL, "l= is more than the body"),
        (USUAL + "; l=" + "9" * 76, DkimStatus.FAIL, "l= is more than the body"),
        (USUAL + f"; t={NOW - 10}; x={NOW - 301}", DkimStatus.NEUTRAL, "x= is before t="),
        (USUAL + f"; t={NOW - 999}; x={NOW - 301}", DkimStatus.POLICY, "expired"),
        (USUAL + f"; t={NOW - 999}; x={NOW - 299}", DkimStatus.PASS, ""),
        (USUAL + f"; t={NOW + 299}", DkimStatus.PASS, ""),
        (USUAL + f"; t={NOW + 301}", DkimStatus.POLICY, "signed in the future"),
        (USUAL + "; t=soon", DkimStatus.NEUTRAL, "t= is no time"),
        (USUAL + "; l=-1", DkimStatus.NEUTRAL, "l= is no number"),
        (USUAL + "; q=dns/txt:other", DkimStatus.PASS, ""),
        (USUAL + "; q=finger", DkimStatus.NEUTRAL, "unknown key query"),
        (USUAL + "; i=a=40mail.example.org", DkimStatus.PASS, ""),
        (USUAL + "; i=@Mail.Example.ORG", DkimStatus.PASS, ""),
        (USUAL + "; i=@badexample.org", DkimStatus.PERMERROR, "i= is not within d="),
        (USUAL + "; i=org", DkimStatus.PERMERROR, "i= is not within d="),
        (USUAL + "; z=From:a|To:b; unknown=1", DkimStatus.PASS, ""),
        (USUAL + "; s=other", DkimStatus.NEUTRAL, "syntax: a tag stands twice"),
        (USUAL.replace("v=1", "v=2"), DkimStatus.NEUTRAL, "incompatible version"),
        (USUAL.replace("v=1; ", ""), DkimStatus.NEUTRAL, "incompatible version"),
        (USUAL.replace("from:", ""), DkimStatus.PERMERROR, "From is not signed"),
        (USUAL.replace("from", "FROM "), DkimStatus.PASS, ""),
        (USUAL.replace("subject", "subject:x-none:x-none"), DkimStatus.PASS, ""),
        (USUAL.replace("subject", "dkim-signature"), DkimStatus.PASS, ""),
        (USUAL.replace("d=example.org", "d=org"), DkimStatus.NEUTRAL, "d= is no domain name"),
        (USUAL.replace("d=example.org", "d=a..org"), DkimStatus.NEUTRAL, "d= is no domain name"),
        (USUAL.replace("s=s", "s=s/s"), DkimStatus.NEUTRAL, "s= is no selector"),
        (USUAL.replace("a=rsa-sha256", "a=rsa-md5"), DkimStatus.NEUTRAL, "unknown algorithm"),
        (USUAL.replace("a=rsa-sha256", "a=rsa-sha1"), DkimStatus.PERMERROR, "rsa-sha1 is no longer a signature"),
        (USUAL.replace("a=rsa-sha256", "a=ed25519-sha256"), DkimStatus.PERMERROR, "the key is of another type"),
        (USUAL + ";;", DkimStatus.NEUTRAL, "syntax: not a list of tags"),
    ],
)
def test_tags(tags: str, status: DkimStatus, reason: str, keys: Any, make_zone: Any) -> None:
    (result,) = verify(signed_with(keys.rsa, tags), make_zone({KEY: [keys.rsa_record]}))
    assert (result.status, result.reason) == (status, reason)


def test_a_part_of_the_body_may_be_left_unsigned_where_that_is_accepted(keys: Any, make_zone: Any) -> None:
    message = signed_with(keys.rsa, USUAL + "; l=4") + b"<form>anything at all</form>\r\n"
    zone = make_zone({KEY: [keys.rsa_record]})
    assert verify(message, zone)[0].status is DkimStatus.POLICY
    (result,) = verify(message, zone, acceptance=Acceptance(partial_body=True))
    assert (result.status, result.unsigned_octets) == (DkimStatus.PASS, 47)


@pytest.mark.parametrize(
    ("record", "status", "reason"),
    [
        ("{rsa}", DkimStatus.PASS, ""),
        ("p={data}", DkimStatus.PASS, ""),
        ("v=DKIM1; g=nobody; n=a note; p={data};", DkimStatus.PASS, ""),
        ("v=DKIM1; h=sha1 : sha256; s=chat:*; t=x; p={data}", DkimStatus.PASS, ""),
        ("v=DKIM1; p= {spaced}", DkimStatus.PASS, ""),
        ("p={data}; v=DKIM1", DkimStatus.PERMERROR, "the key record has another version"),
        ("v=DKIM2; p={data}", DkimStatus.PERMERROR, "the key record has another version"),
        ("v=DKIM1; p=", DkimStatus.PERMERROR, "the key was revoked"),
        ("v=DKIM1; k=rsa", DkimStatus.PERMERROR, "the key record has no key"),
        ("v=DKIM1; s=chat; p={data}", DkimStatus.PERMERROR, "the key is not for mail"),
        ("v=DKIM1; h=sha1; p={data}", DkimStatus.PERMERROR, "the key is not for this hash"),
        ("v=DKIM1; k=ed25519; p={data}", DkimStatus.PERMERROR, "the key is of another type"),
        ("v=DKIM1; p=!!!", DkimStatus.PERMERROR, "the key is not base64"),
        ("v=DKIM1; p=AAAA", DkimStatus.PERMERROR, "the key cannot be read"),
        ("v=DKIM1; p={data}; p={data}", DkimStatus.PERMERROR, "the key record is no list of tags"),
        ("v=DKIM1; p={data}; n=" + "x" * MAX_KEY_RECORD, DkimStatus.PERMERROR, "the key record is too long"),
    ],
)
def test_key_records(record: str, status: DkimStatus, reason: str, keys: Any, make_zone: Any) -> None:
    text = record.format(rsa=keys.rsa_record, data=keys.rsa_data, spaced=" ".join(keys.rsa_data))
    (result,) = verify(signed_with(keys.rsa, USUAL), make_zone({KEY: [text]}))
    assert (result.status, result.reason) == (status, reason)


def test_several_records_at_one_name(keys: Any, make_zone: Any) -> None:
    message = signed_with(keys.rsa, USUAL)
    assert verify(message, make_zone({KEY: ["some other text", keys.rsa_record]}))[0].status is DkimStatus.PASS
    both = verify(message, make_zone({KEY: [keys.rsa_record, keys.ed25519_record]}))[0]
    assert (both.status, both.reason) == (DkimStatus.PERMERROR, "several key records")


def test_flags_of_the_key(keys: Any, make_zone: Any) -> None:
    zone = make_zone({KEY: [f"v=DKIM1; t=y:s; p={keys.rsa_data}"]})
    (result,) = verify(signed_with(keys.rsa, USUAL + "; i=x@example.org"), zone)
    assert (result.status, result.testing) == (DkimStatus.PASS, True)
    (below,) = verify(signed_with(keys.rsa, USUAL + "; i=@mail.example.org"), zone)
    assert (below.status, below.reason) == (DkimStatus.PERMERROR, "i= is not exactly d=")


def test_no_key_and_no_answer(keys: Any, zone: Any) -> None:
    message = signed_with(keys.rsa, USUAL)
    (result,) = verify(message, zone)
    assert (result.status, result.reason) == (DkimStatus.PERMERROR, "no key record")
    zone.failing.add(KEY)
    assert verify(message, zone)[0].status is DkimStatus.TEMPERROR


@pytest.mark.parametrize(
    ("bits", "exponent", "reason"),
    [
        (1023, 65537, "the key has 1023 bits"),
        (9000, 65537, "the key is too large"),
        (2048, 2**31 + 1, "the key is too large"),
    ],
)
def test_sizes_of_keys_bound_the_cost(bits: int, exponent: int, reason: str, keys: Any, make_zone: Any) -> None:
    """Fails without the limits: an exponent of 2048 bits costs two hundred times an ordinary one."""
    key = RSAPublicNumbers(exponent, 2**bits - 1).public_key()
    data = base64.b64encode(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
    (result,) = verify(signed_with(keys.rsa, USUAL), make_zone({KEY: [f"p={data}"]}))
    assert result.reason == reason
    assert result.status is not DkimStatus.PASS


def test_signed_fields_are_taken_from_the_bottom(keys: Any, make_zone: Any) -> None:
    zone = make_zone({KEY: [keys.rsa_record]})
    message = signed_with(keys.rsa, USUAL)
    above = message.replace(b"Received: by mx\r\n", b"Received: by mx\r\nSubject: another\r\n")
    assert verify(above, zone)[0].status is DkimStatus.PASS
    below = message.replace(b"\r\n\r\n", b"\r\nSubject: another\r\n\r\n", 1)
    assert verify(below, zone)[0].status is DkimStatus.FAIL


def test_an_oversigned_field_cannot_be_added(keys: Any, make_zone: Any) -> None:
    """Fails without over-signing: a second From above is what a reader sees."""
    zone = make_zone({KEY: [keys.rsa_record]})
    message = signed(keys.rsa, MESSAGE)
    assert verify(message, zone)[0].status is DkimStatus.PASS
    for name in (b"From", b"Subject", b"Reply-To", b"Content-Type"):
        assert verify(name + b": x@evil.test\r\n" + message, zone)[0].status is DkimStatus.FAIL


def test_only_the_first_signatures_are_evaluated(keys: Any, make_zone: Any) -> None:
    zone = make_zone({KEY: [keys.rsa_record]})
    one = signed_with(keys.rsa, USUAL)
    signature = one[: len(one) - len(MESSAGE)]
    message = signature * 25 + MESSAGE
    assert len(verify(message, zone)) == MAX_SIGNATURES
    assert DkimVerification(read_header(message)).unseen == 15
    assert len(zone.asked) == 1


def test_internationalized_domain(keys: Any, make_zone: Any) -> None:
    """RFC 8616 5: U-labels in d=, s= and i= are the same as A-labels, and the DNS is asked for A-labels."""
    zone = make_zone({("xn--bcher-kva._domainkey.xn--mnchen-3ya.example", "TXT"): [keys.rsa_record]})
    tags = "v=1; a=rsa-sha256; d=münchen.example; s=bücher; i=grüße@münchen.example; h=from"
    (result,) = verify(signed_with(keys.rsa, tags), zone)
    assert (result.status, result.domain) == (DkimStatus.PASS, "xn--mnchen-3ya.example")
    assert result.identity.isascii()


def signed(pem: bytes, message: bytes, **options: Any) -> bytes:
    signer = DkimSigner("example.org", "s", pem, **options)
    bodies = hash_body(message[header_end(message) + 2 :], {signer.wanted})
    return signer.sign(read_header(message), bodies, NOW, lifetime=3600) + message


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_what_is_signed_verifies(kind: str, keys: Any, make_zone: Any) -> None:
    zone = make_zone({KEY: [getattr(keys, f"{kind}_record")]})
    message = signed(getattr(keys, kind), MESSAGE, identity="list@mail.example.org")
    (result,) = verify(message, zone)
    assert (result.status, result.identity) == (DkimStatus.PASS, "list@mail.example.org")
    assert (result.signed_at, result.expires_at) == (NOW, NOW + 3600)
    assert verify(message, zone, NOW + 3600 + 301)[0].status is DkimStatus.POLICY
    # A second signature over the same message: both hold.
    assert [one.status for one in verify(signed(getattr(keys, kind), message), zone)] == [DkimStatus.PASS] * 2


def test_the_signature_is_well_folded_and_says_what_was_signed(keys: Any) -> None:
    message = b"List-Id: <l>\r\nList-Id: <k>\r\n" + MESSAGE
    field = signed(keys.rsa, message)[: -len(message)]
    assert max(map(len, field.split(b"\r\n"))) <= 76
    tags = dict(part.strip().split(b"=", 1) for part in field.split(b":", 1)[1].replace(b"\r\n ", b"").split(b";"))
    assert tags[b"h"].split(b":") == (
        b"from from to to cc subject subject date reply-to content-type mime-version list-id list-id".split()
    )


def test_from_is_signed_whatever_the_policy_says(keys: Any) -> None:
    policy = FieldPolicy(oversigned=("subject",), signed=("to", "subject", "from"))
    text = signed(keys.rsa, MESSAGE, policy=policy).replace(b"\r\n ", b"")
    assert b"h=from:from:subject:subject:to;" in text


@pytest.mark.parametrize(
    ("domain", "selector", "identity", "reason"),
    [
        ("org", "s", "", "no name of the DNS"),
        ("example.org", "s s", "", "no name of the DNS"),
        ("example.org", "s", "a@example.net", "no address at or below"),
        ("example.org", "s", "a;b@example.org", "no address at or below"),
        ("a" * 63 + "." + "b" * 63 + "." + "c" * 63 + ".org", "d" * 60, "", "no name of the DNS"),
    ],
)
def test_what_cannot_be_signed_for(domain: str, selector: str, identity: str, reason: str, keys: Any) -> None:
    with pytest.raises(SigningError, match=reason):
        DkimSigner(domain, selector, keys.rsa, identity=identity)


def test_bad_keys_are_refused_without_showing_them() -> None:
    for pem in (
        b"",
        b"secret that is no key",
        b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n",
    ):
        with pytest.raises(SigningError) as caught:
            DkimSigner("example.org", "s", pem)
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_a_message_without_from_is_not_signed(keys: Any) -> None:
    with pytest.raises(SigningError, match="no From"):
        signed(keys.rsa, b"To: a@example.org\r\n\r\n")
