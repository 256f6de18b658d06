"""What every directory must tell of an account, so that challenges can be checked (SCRAM, CRAM-MD5)."""

from __future__ import annotations

import pytest

from gatepost.core.ports.directory import Directory, LoginVerdict
from gatepost.core.sasl_scram import fits, parse_verifier


async def test_an_account_with_secrets(directory: Directory) -> None:
    for login in ("scott", "SCOTT", "scott@example.test"):
        account = await directory.account(login)
        assert account is not None, login
        (verifier,) = account.verifiers
        parsed = parse_verifier(verifier)
        assert parsed is not None
        assert fits(parsed, "pencil")
        assert "clear-scott" in account.clear
        assert account.entry.name == "scott"
        assert account.entry.secure_login
        assert repr(account) == "Account('scott')"
    login = await directory.authenticate("scott", "pw-scott")
    assert (login.verdict, login.entry) == (LoginVerdict.ACCEPTED, account.entry)


async def test_an_account_without_secrets(directory: Directory) -> None:
    account = await directory.account("bob")
    assert account is not None
    assert account.verifiers == ()
    assert "clear-scott" not in account.clear
    assert not account.entry.secure_login
    disabled = await directory.account("leaver")
    assert disabled is not None
    assert not disabled.entry.enabled


@pytest.mark.parametrize(
    "login", ["", "nobody", "nobody@example.test", "*", "sco*", "odd", "odd@example.test", "\udc80"]
)
async def test_nobody(directory: Directory, login: str) -> None:
    assert await directory.account(login) is None
