"""OpenLDAP's slapd over LDAP and LDAPS, filled from an LDIF file."""

import subprocess
from pathlib import Path

from testbed import ports
from testbed.network import HERE, Place
from testbed.process import Server, ServerError
from testbed.provision import apt
from testbed.running import Running
from testbed.tls import Authority
from testbed.user import forget, ordinary, reachable

SCHEMAS = ("core", "cosine", "inetorgperson", "misc")
COMMAND_SECONDS = 60


class Slapd(Running):
    """One slapd in `folder`, a context manager. The tree's base is the first entry of the LDIF file.

    Attributes: `port` (LDAP, with STARTTLS) and `tls_port` (LDAPS) at `place`, `url` and `tls_url`, `ca` (the
    file that clients must trust; the server's certificate is for localhost, 127.0.0.1 and its address), `base`,
    `root_dn` and `root_password`, `service_dn` and `service_password` (an account that may read everything but
    passwords). Anonymous clients may read too unless `anonymous_read` is off; nobody may read userPassword.
    """

    root_password = "root-secret"
    service_password = "service-secret"

    def __init__(self, folder: Path, ldif_path: Path, *, anonymous_read: bool = True, place: Place = HERE) -> None:
        apt.install("servers")
        self._user = ordinary()
        self._place = place
        self._folder, self._outside = reachable(folder, self._user)
        self.base = _first_dn(ldif_path)
        self.root_dn = f"cn=root,{self.base}"
        self.service_dn = f"cn=testbed-service,{self.base}"
        self.port, self.tls_port = ports.reserve(), ports.reserve()
        self.url, self.tls_url = f"ldap://{place.address}:{self.port}", f"ldaps://{place.address}:{self.tls_port}"
        authority = Authority(self._folder / "tls")
        issued = authority.issue("localhost", "127.0.0.1", *{place.address} - {"127.0.0.1"})
        self.ca = authority.certificate
        database = self._folder / "db"
        database.mkdir()
        self._settings = self._folder / "slapd.conf"
        reader = "read" if anonymous_read else "auth"
        self._settings.write_text(
            "".join(f"include /etc/ldap/schema/{name}.schema\n" for name in SCHEMAS)
            + f"pidfile {self._folder}/slapd.pid\n"
            + "modulepath /usr/lib/ldap\nmoduleload back_mdb\n"
            + f"TLSCertificateFile {issued.certificate}\nTLSCertificateKeyFile {issued.key}\n"
            + f"TLSCACertificateFile {self.ca}\n"
            + f'database mdb\nmaxsize 268435456\nsuffix "{self.base}"\n'
            + f'rootdn "{self.root_dn}"\nrootpw {self.root_password}\ndirectory {database}\n'
            # The data is thrown away afterwards: no fsync.
            + "dbnosync\nindex objectClass,uid,mail,mailLocalAddress,member eq\n"
            + "access to attrs=userPassword by anonymous auth by * none\n"
            + f"access to * by users read by anonymous {reader}\n"
        )
        self._fill(ldif_path)
        self._user.own(self._folder)
        self.server = Server(
            "slapd",
            ["/usr/sbin/slapd", "-d", "none", "-f", self._settings, "-h", f"{self.url} {self.tls_url}"],
            self._folder,
            ports=[self.port, self.tls_port],
            user=self._user,
            place=place,
        )

    def start(self) -> None:
        """Starts it; returns when both ports answer."""
        self.server.start()

    def stop(self) -> None:
        """Stops it for good. To stop and start it within a test, use `server`."""
        self.server.stop()
        ports.release(self.port)
        ports.release(self.tls_port)
        forget(self._folder, self._outside)

    def add_ldif(self, text: str) -> None:
        """Adds the entries of an LDIF text as the root; raises ServerError with the server's answer."""
        self._as_root("ldapadd", text)

    def modify(self, text: str) -> None:
        """Applies an LDIF text with `changetype:` lines as the root; raises ServerError with the server's
        answer."""
        self._as_root("ldapmodify", text)

    def _as_root(self, program: str, text: str) -> None:
        words = [
            *self._place.command_prefix(),
            program,
            "-x",
            "-H",
            self.url,
            "-D",
            self.root_dn,
            "-w",
            self.root_password,
        ]
        done = subprocess.run(
            words, input=text, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
        )
        if done.returncode != 0:
            raise ServerError(f"{program}: exit status {done.returncode}: {done.stderr.strip()}")

    def _fill(self, ldif_path: Path) -> None:
        account = (
            f"dn: {self.service_dn}\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\n"
            f"cn: testbed-service\nuserPassword: {self.service_password}\n"
        )
        combined = self._folder / "seed.ldif"
        combined.write_text(f"{ldif_path.read_text().rstrip()}\n\n{account}")
        words = ["/usr/sbin/slapadd", "-q", "-f", str(self._settings), "-l", str(combined)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
        if done.returncode != 0:
            raise ServerError(f"slapadd: exit status {done.returncode}: {done.stderr.strip()}")


def _first_dn(ldif_path: Path) -> str:
    for line in ldif_path.read_text().splitlines():
        if line.lower().startswith("dn: "):
            return line[4:].strip()
    raise ValueError(f"{ldif_path}: no `dn:` line that isn't encoded")
