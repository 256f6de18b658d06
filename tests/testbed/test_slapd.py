"""A real slapd, asked through OpenLDAP's own client programs."""

import os
import subprocess
from collections.abc import Iterator

import pytest

from testbed.process import ServerError
from testbed.slapd import Slapd

pytestmark = pytest.mark.servers

LDIF = """
dn: dc=corp,dc=test
objectClass: dcObject
objectClass: organization
dc: corp
o: Corp

dn: uid=ann,dc=corp,dc=test
objectClass: inetOrgPerson
objectClass: inetLocalMailRecipient
uid: ann
cn: Ann Lee
sn: Lee
mailLocalAddress: ann@corp.test
userPassword: annpw
"""


@pytest.fixture(scope="module")
def slapd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    folder = tmp_path_factory.mktemp("slapd")
    seed = folder / "seed.ldif"
    seed.write_text(LDIF)
    with Slapd(folder / "server", seed) as server:
        yield server


def search(slapd: Slapd, url: str, *words: str) -> str:
    """The output of ldapsearch, which verifies the server's certificate against the test's CA."""
    done = subprocess.run(
        ["ldapsearch", "-x", "-LLL", "-o", "ldif-wrap=no", "-H", url, "-b", slapd.base, *words],
        env={**os.environ, "LDAPTLS_CACERT": str(slapd.ca), "LDAPTLS_REQCERT": "demand"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.stdout + done.stderr


def test_it_serves_the_ldif_in_the_clear_and_by_tls(slapd: Slapd) -> None:
    assert slapd.base == "dc=corp,dc=test"
    for url, words in [(slapd.url, []), (slapd.tls_url, []), (slapd.url, ["-ZZ"])]:
        assert "cn: Ann Lee" in search(slapd, url, *words, "(mailLocalAddress=ann@corp.test)", "cn")


def test_passwords_are_checked_but_never_shown(slapd: Slapd) -> None:
    ann = f"uid=ann,{slapd.base}"
    for account, password in [(ann, "annpw"), (slapd.service_dn, slapd.service_password)]:
        answer = search(slapd, slapd.url, "-D", account, "-w", password, "(uid=ann)")
        assert "dn: uid=ann" in answer
        assert "userPassword" not in answer
    assert "userPassword" not in search(slapd, slapd.url, "(uid=ann)")
    assert "Invalid credentials" in search(slapd, slapd.url, "-D", ann, "-w", "wrong")


def test_entries_are_added_and_changed_while_it_runs(slapd: Slapd) -> None:
    slapd.add_ldif(f"dn: uid=bob,{slapd.base}\nobjectClass: inetOrgPerson\nuid: bob\ncn: Bob\nsn: B\n")
    slapd.modify(f"dn: uid=bob,{slapd.base}\nchangetype: modify\nreplace: cn\ncn: Robert\n")
    assert "cn: Robert" in search(slapd, slapd.url, "(uid=bob)")
    with pytest.raises(ServerError, match="Already exists"):
        slapd.add_ldif(f"dn: uid=bob,{slapd.base}\nobjectClass: inetOrgPerson\nuid: bob\ncn: Bob\nsn: B\n")


def test_it_comes_back_on_the_same_port_with_its_data(slapd: Slapd) -> None:
    slapd.server.kill9()
    assert "Can't contact" in search(slapd, slapd.url, "(uid=ann)")
    slapd.server.start()
    assert "dn: uid=ann" in search(slapd, slapd.url, "(uid=ann)")
