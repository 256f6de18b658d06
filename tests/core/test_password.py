"""Stored passwords: known values of other programs, our own form, and everything that must not fit."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatepost.core.password import (
    MAX_ITERATIONS,
    SALT_BYTES,
    check_password,
    clear_password,
    is_checkable,
    is_costly,
    make_password,
)

SALT = bytes(range(SALT_BYTES))
# RFC 7914 11: PBKDF2-HMAC-SHA-256 (P="passwd", S="salt", c=1), its first 32 octets.
RFC_7914_DIGEST = bytes.fromhex("55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc")
RFC_7914_VECTOR = "{PBKDF2-SHA256}1$c2FsdA$" + base64.b64encode(RFC_7914_DIGEST, b"./").decode().rstrip("=")


def salted(scheme: str, algorithm: str, password: str, salt: bytes = b"saltsalt") -> str:
    digest = hashlib.new(algorithm, password.encode() + salt).digest()
    return f"{{{scheme}}}{base64.b64encode(digest + salt).decode()}"


@pytest.mark.parametrize(
    ("stored", "password"),
    [
        ("{SSHA}eKD2MoVxB0TtbUQ2LUGU9MWUzt4r2AbJfw4Arw==", "pw-alice"),
        ("{ssha}eKD2MoVxB0TtbUQ2LUGU9MWUzt4r2AbJfw4Arw==", "pw-alice"),
        ("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "password"),
        (salted("SSHA256", "sha256", "ひらがな-パス1"), "ひらがな-パス1"),
        (salted("SSHA512", "sha512", 'with space & "quote"'), 'with space & "quote"'),
        (salted("SHA256", "sha256", "x", b""), "x"),
        (salted("SHA512", "sha512", "x", b""), "x"),
        ("plain text", "plain text"),
        (RFC_7914_VECTOR, "passwd"),
        (make_password("correct horse", SALT, 1000), "correct horse"),
    ],
)
def test_the_right_password_fits_and_others_do_not(stored: str, password: str) -> None:
    assert is_checkable(stored)
    assert check_password(stored, password)
    for wrong in (password + "x", password[:-1], password.upper() + "!", stored + "x"):
        assert not check_password(stored, wrong)


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "{SSHA}!72ldJgUHXSEmuqhVR1bTj9ahMvliG2BLp4rykg==",
        "{SSHA}",
        "{SSHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",  # no salt
        "{SHA}eKD2MoVxB0TtbUQ2LUGU9MWUzt4r2AbJfw4Arw==",  # a salt
        "{SSHA256}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",  # too short
        "{CRYPT}$6$x$y",
        "{SASL}alice",
        "{MD5}X03MO1qnZdYdgyfeuILPmQ==",
        "{",
        "{SSHA",
        "{PBKDF2-SHA256}0$AAAA$" + "A" * 43,
        f"{{PBKDF2-SHA256}}{MAX_ITERATIONS + 1}$AAAA$" + "A" * 43,
        "{PBKDF2-SHA256}10$AAAA$short",
        "{PBKDF2-SHA256}10$A$" + "A" * 43,
    ],
)
def test_values_that_nothing_fits(stored: str) -> None:
    assert not is_checkable(stored)
    for password in ("x", stored, stored[stored.find("}") + 1 :], "alice"):
        assert not check_password(stored, password)


@pytest.mark.parametrize("stored", ["", "plain", salted("SSHA", "sha1", ""), salted("SHA", "sha1", "", b"")])
def test_an_empty_password_never_fits(stored: str) -> None:
    assert not check_password(stored, "")


def test_our_own_form_is_costly_and_others_are_not() -> None:
    stored = make_password("x", SALT, 1000)
    assert stored.startswith("{PBKDF2-SHA256}1000$")
    assert is_costly(stored)
    assert not is_costly("{SSHA}x")
    for password, salt, iterations in (
        ("", SALT, 1),
        ("x", b"short", 1),
        ("x", SALT, 0),
        ("x", SALT, MAX_ITERATIONS + 1),
    ):
        with pytest.raises(ValueError, match=r"password|salt"):
            make_password(password, salt, iterations)


@given(st.text(), st.text())
def test_any_stored_text_and_any_password_give_an_answer(stored: str, password: str) -> None:
    assert check_password(stored, password) in (True, False)
    if stored.startswith("{") or not stored:
        assert not check_password(stored, password)


@pytest.mark.parametrize(
    ("stored", "password"),
    [  # as `openssl passwd` makes them
        ("$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5", "Hello world!"),
        ("$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA", "Hello world!"),
        (
            "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
            "Hello world!",
        ),
    ],
)
def test_sha_crypt(stored: str, password: str) -> None:
    value = f"{{CRYPT}}{stored}"
    assert is_checkable(value)
    assert is_costly(value)
    assert check_password(value, password)
    assert not check_password(value, password + "x")
    assert not check_password(value[:-1] + ("0" if value[-1] != "0" else "1"), password)


@pytest.mark.parametrize(
    "stored",
    [
        "$1$salt$" + "a" * 22,
        "abJnggxhB/yWI",
        "$6$rounds=1000001$salt$" + "a" * 86,
        "$6$salt$" + "a" * 85,
        "$7$s$x",
        "*",
    ],
)
def test_other_crypts_fit_nothing(stored: str) -> None:
    assert not is_checkable(f"{{CRYPT}}{stored}")
    assert not check_password(f"{{CRYPT}}{stored}", "x")


def test_a_password_in_clear_with_its_scheme() -> None:
    assert check_password("{CLEARTEXT}pw", "pw")
    assert not check_password("{CLEARTEXT}", "x")
    assert (clear_password("{CLEARTEXT}pw"), clear_password("pw"), clear_password("{SHA}x")) == ("pw", "pw", "")
