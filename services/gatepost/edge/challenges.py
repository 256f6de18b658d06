"""AUTH SCRAM-SHA-256 and CRAM-MD5: dialogues in which the password itself is never sent.

A login that does not exist, or has no secret for the mechanism, runs the same dialogue with a salt of its own,
takes as long, and fails at its end. That salt comes from a secret of this process: who asks several edges, or again
after a restart, can tell it from a stored one.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Final

import structlog

from gatepost.core import sasl_cram as cram
from gatepost.core import sasl_scram as scram
from gatepost.core import smtp_replies as say
from gatepost.core.ports.directory import Account, DirectoryUnavailable, LoginVerdict
from gatepost.core.sasl import SaslError
from gatepost.edge import login

if TYPE_CHECKING:
    from gatepost.edge.session import Session

SECRET_BYTES: Final = 32
NOTHING_STORED: Final = "NothingStored"

_NOBODYS: Final = "nobody's password"

_log = structlog.get_logger("gatepost.edge")


class Challenges:
    """What the dialogues of one process need: the secret for salts, and how many iterations verifiers have here."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(SECRET_BYTES)
        self._iterations: dict[str, int] = {}

    def verifier(self, directory: str, name: str, account: Account | None) -> scram.ScramVerifier:
        """A verifier for a login, of whatever there is. As slow for nobody as for anybody (some ms)."""
        clear = account.clear[0] if account is not None and account.clear else ""
        try:
            derived = scram.derive_verifier(clear or _NOBODYS, scram.salt_for(name, self._secret))
        except SaslError:
            clear, derived = "", scram.derive_verifier(_NOBODYS, b"-")
        for text in () if account is None else account.verifiers:
            stored = scram.parse_verifier(text)
            if stored is not None:
                self._iterations[directory] = stored.iterations
                return stored
        if clear:
            return derived
        return scram.decoy(name, self._secret, self._iterations.get(directory, scram.ITERATIONS))


def scram_begun(session: Session, line: bytes) -> None:
    """The client's first message has come (RFC 5802 5)."""
    message = login.response(session, line)
    if message is None:
        return
    try:
        dialogue = scram.ScramDialogue(message, secrets.token_urlsafe(scram.NONCE_BYTES))
    except SaslError:
        login.malformed(session)
        return
    if dialogue.authorization not in ("", dialogue.login):
        login.fail(session, "Authorization", say.AUTH_REFUSED)  # nobody acts for another here
        return
    session.work(_scram_challenge, session, dialogue)


async def _scram_challenge(session: Session, dialogue: scram.ScramDialogue) -> None:
    directory = session.policy.auth_directory
    try:
        name = await login.name_of(session, dialogue.login)
        account = await login.directory_of(session).account(name)
    except DirectoryUnavailable:
        login.unavailable(session)
        return
    verifier = await asyncio.to_thread(session.server.challenges.verifier, directory, name, account)
    login.challenge(
        session, dialogue.challenge(verifier), lambda line: _scram_proof(session, dialogue, name, account, line)
    )


def _scram_proof(
    session: Session, dialogue: scram.ScramDialogue, name: str, account: Account | None, line: bytes
) -> None:
    message = login.response(session, line)
    if message is None:
        return
    try:
        signature = dialogue.final(message)
    except SaslError:
        login.malformed(session)
        return
    verdict = _failed(account, account is not None and bool(account.verifiers or account.clear))
    if signature is not None and account is not None:
        verdict = login.may_log_in(account.entry).value
    if signature is None or verdict != LoginVerdict.ACCEPTED.value:
        session.work(login.refused, session, dialogue.login, name, verdict)
        return
    # RFC 4954 4: what comes with success is sent as a challenge that has an empty answer.
    login.challenge(session, signature, lambda answer: _scram_end(session, name, account, answer))


def _scram_end(session: Session, name: str, account: Account | None, line: bytes) -> None:
    message = login.response(session, line)
    if message is None:
        return
    if message or account is None:
        login.malformed(session)
        return
    login.accepted(session, name, account.entry)


def cram_begun(session: Session) -> None:
    """RFC 2195 2: the server begins."""
    now_s = session.server.deps.now_ms() // 1000
    challenge = cram.cram_challenge(secrets.token_hex(12), now_s, session.server.hostname)
    login.challenge(session, challenge, lambda line: _cram_answer(session, challenge, line))


def _cram_answer(session: Session, challenge: bytes, line: bytes) -> None:
    message = login.response(session, line)
    if message is None:
        return
    try:
        answer = cram.cram_response(message)
    except SaslError:
        login.malformed(session)
        return
    session.work(_cram_check, session, challenge, answer)


async def _cram_check(session: Session, challenge: bytes, answer: cram.CramResponse) -> None:
    try:
        name = await login.name_of(session, answer.login)
        account = await login.directory_of(session).account(name)
    except DirectoryUnavailable:
        login.unavailable(session)
        return
    verdict = _failed(account, account is not None and bool(account.clear))
    if cram.cram_fits(challenge, answer, () if account is None else account.clear) and account is not None:
        verdict = login.may_log_in(account.entry).value
    if account is None or verdict != LoginVerdict.ACCEPTED.value:
        await login.refused(session, answer.login, name, verdict)
        return
    login.accepted(session, name, account.entry)


def _failed(account: Account | None, has_secret: bool) -> str:
    """What is told of a failure, here and not to the client: an account whose stored password cannot be checked by
    the mechanism never gets in by it, and its owner wonders why."""
    if account is None or has_secret:
        return LoginVerdict.REFUSED.value
    _log.info("no secret for the mechanism", account=account.entry.name, reason="its password is stored as a hash")
    return NOTHING_STORED
