"""relay.clientCertificates and tls.requiredFor: their normalised form, what is refused, what is warned about."""

from __future__ import annotations

import msgspec
import pytest

from gatepost.core.compile.conditions import Rejection
from gatepost.core.compile.policy import compile_policy
from gatepost.core.configuration_tls import NO_RIGHTS, CertificateRights, CertificateTable, ClientCertificate
from gatepost.core.manifest.object import Metadata
from gatepost.core.manifest.relay_policy import RelayPolicy, RelayPolicySpec
from gatepost.core.manifest.settings import Role

PRINT = "AB:" * 31 + "cd"
PLAIN = "ab" * 31 + "cd"


def policy(spec: dict[str, object]) -> RelayPolicy:
    whole = {"target": {"type": "Listeners", "listeners": ["mx"]}, **spec}
    return RelayPolicy(
        "gatepost.dev/v1alpha1", "RelayPolicy", Metadata(name="p"), msgspec.convert(whole, RelayPolicySpec)
    )


def rights(certificates: dict[str, object], role: Role = Role.INTERNAL) -> tuple[CertificateRights, list[str]]:
    found, warnings = compile_policy(policy({"relay": {"clientCertificates": certificates}}), "mx", role, ())
    return found.client_certificates, warnings


def test_the_normalised_form() -> None:
    found, warnings = rights(
        {
            "fingerprints": [PRINT, PLAIN],
            "names": ["MTA.Example.", "b\u00fccher.example"],
            "networks": ["10.0.0.0/8"],
        }
    )
    assert found == CertificateRights((PLAIN,), ("mta.example", "xn--bcher-kva.example"), ("10.0.0.0/8",))
    assert warnings == []


def test_none_is_one_object_that_is_not_written() -> None:
    found, _ = compile_policy(policy({}), "mx", Role.MX, ())
    assert found.client_certificates is NO_RIGHTS
    assert b"clientCertificates" not in msgspec.json.encode(found)
    assert b"client_certificates" not in msgspec.json.encode(found)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"relay": {"clientCertificates": {}}}, "spec.relay.clientCertificates"),
        ({"relay": {"clientCertificates": {"names": ["a b"]}}}, "spec.relay.clientCertificates.names"),
        (
            {"relay": {"clientCertificates": {"names": ["a.example"], "networks": ["host"]}}},
            "spec.relay.clientCertificates.networks",
        ),
        ({"tls": {"requiredFor": ["10.0.0.1/8"]}}, "spec.tls.requiredFor"),
    ],
)
def test_what_is_refused(spec: dict[str, object], field: str) -> None:
    with pytest.raises(Rejection) as error:
        compile_policy(policy(spec), "mx", Role.INTERNAL, ())
    assert error.value.field == field


@pytest.mark.parametrize("fingerprint", ["ab" * 31, "zz" * 32, "ab" * 32 + ":"])
def test_what_is_no_fingerprint(fingerprint: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        policy({"relay": {"clientCertificates": {"fingerprints": [fingerprint]}}})


def test_a_public_mx_that_asks_everybody_is_warned_about() -> None:
    """As is one that requires TLS of everybody; neither is refused."""
    assert any("clientCertificates" in text for text in rights({"names": ["a.example"]}, Role.MX)[1])
    assert rights({"names": ["a.example"], "networks": ["192.0.2.0/24"]}, Role.MX)[1] == []
    _, warnings = compile_policy(policy({"tls": {"mode": "Require"}}), "mx", Role.MX, ())
    assert any("tls.mode Require" in text for text in warnings)


def test_the_table() -> None:
    table = CertificateTable(CertificateRights((PLAIN,), ("mta.example",), ("192.0.2.0/24",)))
    assert ClientCertificate(PLAIN) in table
    assert ClientCertificate("0" * 64, ("x.example", "mta.example")) in table
    assert ClientCertificate("0" * 64, ("sub.mta.example",)) not in table
    assert table.asks("192.0.2.1")
    assert not table.asks("198.51.100.1")
    assert not CertificateTable(NO_RIGHTS).asks("192.0.2.1")
