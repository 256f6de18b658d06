"""The corpus of Mail::DKIM, 79 messages: tests/data/dkim/ORIGIN.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gatepost.core.authentication.dkim import (
    Acceptance,
    BodyHasher,
    DkimSignatureResult,
    DkimStatus,
    DkimVerification,
)
from gatepost.core.headers import header_end, read_header

DATA = Path(__file__).parents[1] / "data" / "dkim"
# Most keys have 512 bits and most signatures rsa-sha1, both forbidden by RFC 8301.
AS_IT_WAS = Acceptance(min_rsa_bits=512, sha1=True)
NOW = 1_750_000_000  # after all signatures; one of them expired long before

# Mail::DKIM refuses these for the key's g= tag, which RFC 6376 has taken out (C.2): a verifier of today ignores it.
ONLY_BY_GRANULARITY = {"badkey_8.txt", "badkey_9.txt", "badkey_12.txt", "badkey_13.txt"}

ROWS: list[dict[str, Any]] = yaml.load((DATA / "expected.yml").read_bytes(), yaml.CSafeLoader)


def by_era(*eras: str) -> list[Any]:
    return [pytest.param(row, id=row["file"]) for row in ROWS if row["era"] in eras]


@pytest.fixture
def dns(make_zone: Callable[..., Any]) -> Any:
    zone = make_zone()
    for line in (DATA / "FAKE_DNS.dat").read_text().splitlines():
        if not line.strip() or line[0] in "#;":
            continue
        name, text = line.split(None, 1)
        if text.startswith("~~"):
            zone.failing.add((name, "TXT"))
        elif text != "NXDOMAIN":
            zone.records[name, "TXT"] = ("" if text == '""' else text,)
    return zone


def verified(message: bytes, zone: Any, acceptance: Acceptance, now: int = NOW) -> tuple[DkimSignatureResult, ...]:
    if b"\r\n" not in message:  # bad_1878954.txt alone is kept with LF
        message = message.replace(b"\n", b"\r\n")
    verification = DkimVerification(read_header(message), acceptance)
    hasher = BodyHasher(verification.wanted)
    body = message[header_end(message) + 2 :]
    for at in range(0, len(body), 97):
        hasher.update(body[at : at + 97])
    results: tuple[DkimSignatureResult, ...] = zone.settle(verification.verify(hasher.finish(), now))
    return results


@pytest.mark.parametrize("row", by_era("rfc6376"))
def test_messages_of_the_rfc(row: dict[str, Any], dns: Any) -> None:
    results = verified((DATA / "corpus" / row["file"]).read_bytes(), dns, AS_IT_WAS)
    statuses = [one.status for one in results]
    if row["mail_dkim_result"] == "pass" or row["file"] in ONLY_BY_GRANULARITY:
        assert DkimStatus.PASS in statuses, results
    elif row["mail_dkim_result"] == "fail":
        assert statuses == [DkimStatus.FAIL], results
    else:
        unusable = {DkimStatus.PERMERROR, DkimStatus.TEMPERROR, DkimStatus.NEUTRAL, DkimStatus.POLICY}
        assert set(statuses) <= unusable, results


@pytest.mark.parametrize("row", by_era("rfc6376"))
def test_by_default_nothing_weak_passes(row: dict[str, Any], dns: Any) -> None:
    """Fails without the key sizes of RFC 8301 3.2 and the refusal of rsa-sha1 in 3.1."""
    results = verified((DATA / "corpus" / row["file"]).read_bytes(), dns, Acceptance())
    for one in results:
        if one.status is DkimStatus.PASS:
            assert one.algorithm == "ed25519-sha256" or (one.algorithm == "rsa-sha256" and one.key_bits >= 1024)


@pytest.mark.parametrize("row", by_era("dkim-draft", "domainkeys"))
def test_older_than_the_rfc(row: dict[str, Any], dns: Any) -> None:
    """v= is missing or 0.x: no signature of DKIM as it is now; DomainKey-Signature fields are none at all."""
    for acceptance in (AS_IT_WAS, Acceptance()):
        results = verified((DATA / "corpus" / row["file"]).read_bytes(), dns, acceptance)
        assert len(results) == row["dkim_signatures"]
        assert not any(one.status is DkimStatus.PASS for one in results)


def test_temporary_failures_are_told_apart(dns: Any) -> None:
    for file in ("badkey_14.txt", "badkey_15.txt"):
        (result,) = verified((DATA / "corpus" / file).read_bytes(), dns, AS_IT_WAS)
        assert result.status is DkimStatus.TEMPERROR


def test_the_corpus_is_whole() -> None:
    assert len(ROWS) == len(list((DATA / "corpus").iterdir())) == 79
    assert {row["era"] for row in ROWS} == {"rfc6376", "dkim-draft", "domainkeys"}
