"""The two directories over one tree: the made-up organisation of tests/data/ldap and some entries more."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gatepost.backends.directory_ldap import LdapDirectory
from gatepost.backends.directory_ldif import LdifDirectory
from gatepost.core.manifest.settings import AttributeMap, LdapSettings, LdifSettings
from gatepost.core.ports.directory import Directory
from testbed.slapd import Slapd

DATA = Path(__file__).parents[2] / "data" / "ldap"

# Attributes of inetOrgPerson that take any text stand for those that a real mail schema has.
ATTRIBUTES = AttributeMap(
    store="departmentNumber",
    quota_bytes="carLicense",
    quota_used_bytes="roomNumber",
    login_enabled="businessCategory",
    secure_login="employeeNumber",
    scram_verifier="description",
    clear_password="initials",
)

MORE = """

dn: uid=quentin,ou=people,dc=example,dc=test
objectClass: inetOrgPerson
objectClass: inetLocalMailRecipient
uid: quentin
cn: Quentin
sn: Quota
mail: quentin@example.test
mailLocalAddress: Quentin.Q@Example.Test
mailLocalAddress: old.name@example.test
departmentNumber: archive
carLicense: 100Mi
roomNumber: 104857600
businessCategory: yes
userPassword: pw-quentin

dn: uid=nologin,ou=people,dc=example,dc=test
objectClass: inetOrgPerson
objectClass: inetLocalMailRecipient
uid: nologin
uid: nologin-too
cn: Nora Nologin
sn: Nologin
mailLocalAddress: nologin@example.test
businessCategory: FALSE
carLicense: 0
userPassword: pw-nologin

dn: uid=leaver,ou=disabled,dc=example,dc=test
objectClass: inetOrgPerson
objectClass: inetLocalMailRecipient
uid: leaver
cn: Lea Leaver
sn: Leaver
mailLocalAddress: old.name@example.test
mailLocalAddress: leaver@example.test
employeeType: Disabled
userPassword: pw-leaver

dn: uid=nomail,ou=people,dc=example,dc=test
objectClass: inetOrgPerson
uid: nomail
cn: No Mail
sn: Mail
userPassword: pw-nomail

dn: uid=scott,ou=people,dc=example,dc=test
objectClass: inetOrgPerson
objectClass: inetLocalMailRecipient
uid: scott
cn: Scott
sn: Scram
mailLocalAddress: scott@example.test
employeeNumber: TRUE
description: he likes mail
description: {SCRAM-SHA-256}4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3Otc
 Pnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=
initials: clear-scott
userPassword: pw-scott

dn: cn=odd,ou=groups,dc=example,dc=test
objectClass: groupOfNames
objectClass: inetLocalMailRecipient
objectClass: extensibleObject
cn: odd
mailLocalAddress: odd@example.test
member: UID=Quentin , OU=People,DC=Example,DC=Test
member: uid=nomail,ou=people,dc=example,dc=test
member: uid=somebody,ou=elsewhere,dc=example,dc=test
member: uid=alice,dc=other,dc=test
member: cn=sleeping,ou=groups,dc=example,dc=test
member: cn=odd,ou=groups,dc=example,dc=test
userPassword: pw-odd

dn: cn=sleeping,ou=groups,dc=example,dc=test
objectClass: groupOfNames
objectClass: inetLocalMailRecipient
objectClass: extensibleObject
cn: sleeping
mailLocalAddress: sleeping@example.test
employeeType: disabled
member: uid=bob,ou=people,dc=example,dc=test
"""


@dataclasses.dataclass(frozen=True)
class Expected:
    """tests/data/ldap/expected.yml."""

    binds: list[dict[str, Any]]
    recipients: list[dict[str, Any]]
    utf8_recipients: list[dict[str, Any]]
    groups: list[dict[str, Any]]


@pytest.fixture(scope="session")
def expected() -> Expected:
    data = yaml.safe_load((DATA / "expected.yml").read_text("utf-8"))
    return Expected(data["bind"], data["recipients"], data["recipients_after_eai_modify"], data["groups"])


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("directory") / "tree.ldif"
    path.write_text((DATA / "example.ldif").read_text("utf-8").rstrip() + MORE, "utf-8")
    return path


@pytest.fixture(scope="session")
def slapd(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    with Slapd(tmp_path_factory.mktemp("slapd"), tree) as server:
        yield server


@pytest.fixture
def ldap_settings(tmp_path: Path) -> Callable[..., LdapSettings]:
    """Settings for a server, with changes."""

    def settings(slapd: Slapd, **changes: Any) -> LdapSettings:
        password = tmp_path / "service-password"
        password.write_text(f"{slapd.service_password}\n")
        values: dict[str, Any] = {
            "urls": (slapd.tls_url,),
            "base": slapd.base,
            "bind_dn": slapd.service_dn,
            "bind_password_file": str(password),
            "ca_file": str(slapd.ca),
            "timeout": "20s",
            "attributes": ATTRIBUTES,
        }
        return LdapSettings(**(values | changes))

    return settings


@pytest.fixture(params=["ldif", pytest.param("ldap", marks=pytest.mark.servers)])
async def directory(
    request: pytest.FixtureRequest, tree: Path, ldap_settings: Callable[..., LdapSettings]
) -> AsyncIterator[Directory]:
    directory: Directory
    if request.param == "ldif":
        directory = LdifDirectory(LdifSettings(file=tree.name, attributes=ATTRIBUTES), tree.parent)
    else:
        directory = LdapDirectory(ldap_settings(request.getfixturevalue("slapd")))
    await directory.start()
    yield directory
    await directory.close()


@pytest.fixture
def utf8_tree(tree: Path, tmp_path: Path) -> Path:
    """With the addresses in UTF-8, which mailLocalAddress cannot have on a strict LDAP server."""
    path = tmp_path / "utf8.ldif"
    path.write_bytes(tree.read_bytes() + b"\n" + (DATA / "eai-modify.ldif").read_bytes())
    return path


@pytest.fixture
async def utf8_directory(utf8_tree: Path) -> AsyncIterator[Directory]:
    directory = LdifDirectory(LdifSettings(file=utf8_tree.name), utf8_tree.parent)
    await directory.start()
    yield directory
    await directory.close()
