"""SCRAM-SHA-256 and CRAM-MD5 without I/O: the RFCs' own examples, and everything that must not get through."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.core import sasl_scram as scram
from gatepost.core.password import check_password, clear_password, is_checkable, is_costly
from gatepost.core.sasl import SaslError
from gatepost.core.sasl_cram import cram_challenge, cram_fits, cram_response
from gatepost.core.sasl_prep import PrepError, saslprep

# RFC 7677 3
CLIENT_FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
SERVER_NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
CLIENT_FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
PENCIL = scram.derive_verifier("pencil", SALT)
SECRET = b"a secret of this process"


def begun(verifier: scram.ScramVerifier = PENCIL) -> scram.ScramDialogue:
    dialogue = scram.ScramDialogue(CLIENT_FIRST, SERVER_NONCE)
    assert dialogue.challenge(verifier).startswith(b"r=rOprNGfwEbeRWgbNEkqO%hv")
    return dialogue


@pytest.mark.requirement("S4-5")
def test_the_example_of_rfc_7677() -> None:
    """Fails without SASL's exchange as RFC 7677 3 shows it."""
    dialogue = scram.ScramDialogue(CLIENT_FIRST, SERVER_NONCE)
    assert (dialogue.login, dialogue.authorization) == ("user", "")
    assert dialogue.challenge(PENCIL) == SERVER_FIRST
    assert dialogue.final(CLIENT_FINAL) == SERVER_FINAL


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"n,,",
        b"n,,n=,r=abc",
        b"n,,n=user",
        b"n,,r=abc,n=user",
        b"p=tls-unique,,n=user,r=abc",  # channel binding is not offered
        b"n,,m=must,n=user,r=abc",  # a mandatory extension (RFC 5802 5.1)
        b"n,,n=us=er,r=abc",  # "=" that is no escape
        b"n,,n=us\0er,r=abc",
        b"n,,n=us\xffer,r=abc",
        b"n,,n=user,r=a,b,c",
        b"n,,n=us\x01er,r=abc",
        b"n,,n=" + b"x" * 2000 + b",r=abc",
        b"x,,n=user,r=abc",
    ],
)
def test_first_messages_that_are_none(first: bytes) -> None:
    with pytest.raises(SaslError):
        scram.ScramDialogue(first, SERVER_NONCE)


def test_names_are_unescaped_and_prepared() -> None:
    dialogue = scram.ScramDialogue("y,a=boss,n=a=2Cb=3Dc\u00ad\u2168,r=abc,x=later".encode(), "s")
    assert (dialogue.login, dialogue.authorization) == ("a,b=cIX", "boss")


def test_wrong_proofs() -> None:
    assert begun(scram.derive_verifier("pencil!", SALT)).final(CLIENT_FINAL) is None
    assert begun(scram.decoy("user", SECRET, 4096)).final(CLIENT_FINAL) is None
    wrong = base64.b64encode(bytes(32))
    assert begun().final(CLIENT_FINAL.rpartition(b"p=")[0] + b"p=" + wrong) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"c=biws", b"c=eSws"),  # the header was "n,,", and somebody says that it was "y,,"
        (b"hNlF$k0", b"hNlF$k1"),
        (b"r=rOpr", b"r=rOpR"),
        (b",p=", b",q="),
        (b"p=dHzb", b"p=dHz"),
        (b"c=biws", b"c=!!!!"),
        (b"7AndVQ=", b"7AndVQ=,x=1"),
    ],
)
def test_final_messages_that_are_none(old: bytes, new: bytes) -> None:
    assert old in CLIENT_FINAL
    with pytest.raises(SaslError):
        begun().final(CLIENT_FINAL.replace(old, new))


def test_no_proof_before_a_challenge() -> None:
    with pytest.raises(SaslError):
        scram.ScramDialogue(CLIENT_FIRST, SERVER_NONCE).final(CLIENT_FINAL)


@settings(max_examples=50)
@given(st.one_of(st.binary(max_size=80), st.binary(max_size=40).map(lambda tail: CLIENT_FINAL[:20] + tail)))
def test_garbage_is_a_sasl_error_or_a_wrong_proof(data: bytes) -> None:
    with contextlib.suppress(SaslError):
        assert scram.ScramDialogue(data, "s").login
    with contextlib.suppress(SaslError):
        assert begun().final(data) is None


def test_stored_verifiers_in_their_forms() -> None:
    """RFC 5803 3, the same behind a scheme, and Dovecot's commas; PLAIN can be checked against them."""
    written = scram.write_verifier(PENCIL)
    salt, stored, server = (base64.b64encode(b).decode() for b in (SALT, PENCIL.stored_key, PENCIL.server_key))
    for text in (
        written,
        f"SCRAM-SHA-256$4096:{salt}${stored}:{server}",
        f"{{scram-sha-256}}4096:{salt}:{stored}:{server}",
        f"{{SCRAM-SHA-256}}4096,{salt},{stored},{server}",
    ):
        assert scram.parse_verifier(text) == PENCIL, text
        assert is_checkable(text)
        assert is_costly(text)
        assert check_password(text, "pencil")
        assert not check_password(text, "pencil!")
        assert clear_password(text) == ""
    for text in (
        "",
        f"{{SCRAM-SHA-256}}0:{salt}${stored}:{server}",
        f"{{SCRAM-SHA-256}}{scram.MAX_ITERATIONS + 1}:{salt}${stored}:{server}",
        f"{{SCRAM-SHA-256}}4096:{salt}${stored}",
        f"{{SCRAM-SHA-256}}4096:{salt}${stored[:-4]}:{server}",
        f"{{SCRAM-SHA-1}}4096:{salt}${stored}:{server}",
    ):
        assert scram.parse_verifier(text) is None, text
        assert not check_password(text, "pencil")


def test_nothing_shows_a_key() -> None:
    assert repr(PENCIL) == "ScramVerifier(4096)"


def test_a_login_without_a_secret_always_has_the_same_salt() -> None:
    one, again = scram.decoy("nobody", SECRET, 4096), scram.decoy("nobody", SECRET, 4096)
    other, elsewhere = scram.decoy("nobody2", SECRET, 4096), scram.decoy("nobody", b"another", 4096)
    assert one == again
    assert len({one.salt, other.salt, elsewhere.salt}) == 3
    assert len(one.salt) == len(SALT)


@pytest.mark.parametrize(
    ("text", "prepared"),
    [  # RFC 4013 3
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),
    ],
)
def test_saslprep(text: str, prepared: str) -> None:
    assert saslprep(text) == prepared


@pytest.mark.parametrize("text", ["\u0007", "\u0627\u0031", "", "\u00ad", "a\u0000", "\ue000", "\ufffd"])
def test_saslprep_refuses(text: str) -> None:
    with pytest.raises(PrepError):
        saslprep(text)


# -- CRAM-MD5

CHALLENGE = b"<1896.697170952@postoffice.reston.mci.net>"


@pytest.mark.requirement("S0-12")
def test_the_example_of_rfc_2195() -> None:
    """Fails without CRAM-MD5 as RFC 2195 2 shows it."""
    response = cram_response(base64.b64decode("dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw"))
    assert response.login == "tim"
    assert cram_fits(CHALLENGE, response, ["another", "tanstaaftanstaaf"])
    assert not cram_fits(CHALLENGE, response, ["tanstaaf"])
    assert not cram_fits(CHALLENGE + b"x", response, ["tanstaaftanstaaf"])


def test_without_a_password_nothing_fits() -> None:
    for password in (b"", b"\0"):
        digest = hmac.new(password, CHALLENGE, hashlib.md5).hexdigest()
        assert not cram_fits(CHALLENGE, cram_response(b"tim " + digest.encode()), [])


@pytest.mark.parametrize(
    "message",
    [b"", b"tim", b"tim ", b"tim " + b"A" * 32, b"tim " + b"a" * 31, b" " + b"a" * 31, b"\xff " + b"a" * 32],
)
def test_responses_that_are_none(message: bytes) -> None:
    with pytest.raises(SaslError):
        cram_response(message)


def test_a_challenge_is_a_message_id() -> None:
    assert cram_challenge("abc", 697170952, "mx.example.test") == b"<abc.697170952@mx.example.test>"
    assert cram_response(b"a b " + b"0" * 32).login == "a b"
