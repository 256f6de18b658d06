"""Real DNSSEC: Knot signs zones, Unbound resolves and validates them (AD set, SERVFAIL for what is bogus)."""

import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from testbed import ports
from testbed.process import Server, ServerError
from testbed.provision import apt
from testbed.running import Running
from testbed.user import forget, ordinary, reachable

COMMAND_SECONDS = 30
SIGN_SECONDS = 30.0
POLL_SECONDS = 0.02
# Right in form, but of no key: the zone's real one will not match it.
WRONG_DIGEST = "0123456789abcdef" * 4

_AUTHORITY = """
server:
    rundir: "{folder}"
    listen: 127.0.0.1@{port}
database:
    storage: "{folder}/db"
log:
  - target: stderr
    any: warning
policy:
  - id: signing
    algorithm: ecdsap256sha256
    single-type-signing: on
template:
  - id: default
    storage: "{folder}/zones"
    semantic-checks: off
zone:
"""

_SIGNED = """    dnssec-signing: on
    dnssec-policy: signing
    zonefile-sync: -1
    journal-content: all
    zonefile-load: difference-no-serial
"""

_RESOLVER = """
server:
  interface: 127.0.0.1@{port}
  port: {port}
  do-daemonize: no
  use-syslog: no
  logfile: ""
  verbosity: 1
  username: ""
  chroot: ""
  directory: "{folder}"
  pidfile: "{folder}/unbound.pid"
  num-threads: 1
  do-not-query-localhost: no
  module-config: "validator iterator"
  trust-anchor-file: "{folder}/anchors"
  access-control: 127.0.0.0/8 allow
  cache-max-ttl: 0
  cache-max-negative-ttl: 0
remote-control:
  control-enable: no
"""


class SignedDns(Running):
    """An authoritative server and a validating resolver in `folder`, a context manager.

    The zones are given by name, as zone files' text (relative names; `@` for the zone; SOA and NS included).
    Those in `signed` are signed with ECDSA P-256; for those in `bogus` the resolver has a wrong trust anchor, so
    that it answers SERVFAIL; for all others it answers without AD. `port` is the resolver's on 127.0.0.1,
    `authority_port` the authoritative server's; `resolver` and `authority` are servers to hurt.
    """

    def __init__(
        self,
        folder: Path,
        signed: Mapping[str, str],
        unsigned: Mapping[str, str] | None = None,
        bogus: Mapping[str, str] | None = None,
    ) -> None:
        apt.install("servers")
        self._bogus = [name.rstrip(".") for name in bogus or {}]
        self._signed = [*(name.rstrip(".") for name in signed), *self._bogus]
        self._unsigned = [name.rstrip(".") for name in unsigned or {}]
        user = ordinary()
        self._folder, self._outside = reachable(folder, user)
        self.authority_port, self.port = ports.reserve(), ports.reserve()
        for name in ("db", "zones"):
            (self._folder / name).mkdir()
        for name, text in {**signed, **(unsigned or {}), **(bogus or {})}.items():
            zone = name.rstrip(".")
            (self._folder / "zones" / f"{zone}.zone").write_text(f"$ORIGIN {zone}.\n$TTL 60\n{text}\n")
        self._settings = self._folder / "knot.conf"
        self._settings.write_text(
            _AUTHORITY.format(folder=self._folder, port=self.authority_port)
            + "".join(f"  - domain: {zone}\n{_SIGNED}" for zone in self._signed)
            + "".join(f"  - domain: {zone}\n" for zone in self._unsigned)
        )
        (self._folder / "unbound.conf").write_text(self._resolver_settings())
        (self._folder / "anchors").touch()
        user.own(self._folder)
        self.authority = Server(
            "knotd",
            ["/usr/sbin/knotd", "-c", self._settings],
            self._folder,
            ports=[self.authority_port],
            ready=self._all_are_signed,
            user=user,
            start_seconds=SIGN_SECONDS,
        )
        self.resolver = Server(
            "unbound",
            ["/usr/sbin/unbound", "-c", self._folder / "unbound.conf"],
            self._folder,
            ports=[self.port],
            user=user,
        )

    def start(self) -> None:
        """Starts both; returns when the zones are signed and the resolver knows their keys."""
        self.authority.start()
        try:
            (self._folder / "anchors").write_text("".join(self._anchors()))
            self.resolver.start()
        except BaseException:
            self.authority.kill9()
            raise

    def stop(self) -> None:
        """Stops both for good."""
        self.resolver.stop()
        self.authority.stop()
        ports.release(self.port)
        ports.release(self.authority_port)
        forget(self._folder, self._outside)

    def _anchors(self) -> Iterable[str]:
        for zone in self._signed:
            # The zone's DS records; the last field is the digest of its key.
            for line in _output("keymgr", "-c", str(self._settings), zone, "ds").splitlines():
                owner, rest = line.split(" ", 1)
                if zone in self._bogus:
                    rest = f"{rest.rsplit(' ', 1)[0]} {WRONG_DIGEST}"
                if " 2 " in rest:  # SHA-256 only
                    yield f"{owner} {rest}\n"

    def _all_are_signed(self) -> bool:
        for zone in self._signed:
            words = ["kdig", "+short", "+time=1", "+retry=0", "@127.0.0.1", "-p", str(self.authority_port)]
            if not _output(*words, zone, "DNSKEY", allow_failure=True).startswith("257 "):
                time.sleep(POLL_SECONDS)
                return False
        return True

    def _resolver_settings(self) -> str:
        text = _RESOLVER.format(folder=self._folder, port=self.port)
        # Names for tests and private addresses are answered by Unbound itself unless told otherwise.
        text += 'server:\n  local-zone: "test." nodefault\n'
        for zone in [*self._signed, *self._unsigned]:
            text += f'server:\n  local-zone: "{zone}." nodefault\n'
            if zone in self._unsigned:
                text += f'  domain-insecure: "{zone}."\n'
            text += f'stub-zone:\n  name: "{zone}."\n  stub-addr: 127.0.0.1@{self.authority_port}\n'
        return text


def _output(*words: str, allow_failure: bool = False) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    if done.returncode != 0 and not allow_failure:
        raise ServerError(f"{' '.join(words)}: exit status {done.returncode}: {done.stderr.strip()}")
    return done.stdout
