"""A connection to an LDAP server, in a worker thread: every call blocks, for at most its limit."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import ldap3
import msgspec
import structlog
from ldap3.core.exceptions import LDAPException

from gatepost.backends.directory_ldap.replicas import Replica, Replicas
from gatepost.core.manifest.settings import LdapSettings
from gatepost.core.ports.directory import DirectoryUnavailable

# Result codes (RFC 4511 4.1.9 and appendix A).
SUCCESS: Final = 0
NO_SUCH_OBJECT: Final = 32
INVALID_CREDENTIALS: Final = 49
# A bind as a user with one of these is a "no": constraintViolation is a locked account with some servers,
# inappropriateAuthentication one without password, unwillingToPerform a policy's refusal.
BIND_REFUSED: Final = frozenset({19, NO_SUCH_OBJECT, 34, 48, INVALID_CREDENTIALS, 50, 53})

# The values of an attribute that a server gives in parts: "member;range=0-1499", the last part "1500-*"
# (Microsoft's [MS-ADTS] 3.1.1.3.1.3.3).
_RANGE: Final = re.compile(r"(.+);range=([0-9]+)-([0-9]+|\*)", re.IGNORECASE | re.ASCII)

_log = structlog.get_logger("gatepost.directory")


class RawEntry(msgspec.Struct, frozen=True):
    """An entry as a server gave it; attribute names in lower case, values as text."""

    dn: str
    attributes: dict[str, list[str]]


class Search(msgspec.Struct, frozen=True):
    base: str
    whole_tree: bool  # else only directly below `base`
    filter: str
    attributes: tuple[str, ...]


class _Tls(ldap3.Tls):  # type: ignore[misc]
    """ldap3 does not check certificates unless told, and by own rules: the standard library's are used here."""

    def __init__(self, context: ssl.SSLContext, name: str) -> None:
        super().__init__(validate=ssl.CERT_REQUIRED)
        self._context = context
        self._name = name

    def wrap_socket(self, connection: Any, do_handshake: bool = False) -> None:
        connection.socket = self._context.wrap_socket(connection.socket, server_hostname=self._name)


class Opener:
    """Makes connections to one server with the settings' encryption and identity."""

    def __init__(self, settings: LdapSettings, context: ssl.SSLContext) -> None:
        self._settings = settings
        self._context = context

    def as_service(self, replica: Replica, limit: float) -> Any:
        """Return a connection bound as the gateway. Raises DirectoryUnavailable, LDAPException and OSError."""
        dn = self._settings.bind_dn
        password = self._service_password() if dn else b""
        connection = self._connect(replica, limit, dn, password)
        try:
            code, text = _bind(connection)
        except BaseException:
            close(connection)
            raise
        if code != SUCCESS:
            close(connection)
            _log.error("directory_bind_refused", url=replica.url, bind_dn=dn, code=code, reason=text)
            raise DirectoryUnavailable(f"{replica.url} refuses our bind as {dn or 'anonymous'} ({code} {text})")
        return connection

    def accepts(self, replica: Replica, limit: float, dn: str, password: str) -> bool:
        """Bind as a user on a connection of its own. Raises DirectoryUnavailable, LDAPException and OSError."""
        if not password:
            # RFC 4513 5.1.2: a server takes it for an unauthenticated bind and says success.
            return False
        # As bytes, so that it is what the user sent: ldap3 would prepare a text (RFC 4013).
        connection = self._connect(replica, limit, dn, password.encode("utf-8", "surrogateescape"))
        try:
            code, text = _bind(connection)
        finally:
            close(connection)
        if code != SUCCESS and code not in BIND_REFUSED:
            _log.error("directory_bind_failed", url=replica.url, code=code, reason=text)
            raise DirectoryUnavailable(f"{replica.url} answers a user's bind with {code} {text}")
        return bool(code == SUCCESS)

    def _connect(self, replica: Replica, limit: float, dn: str, password: bytes) -> Any:
        """Open and encrypt, at the first of the host's addresses that answers.

        One address at a time, since ldap3 forgets to close the sockets of those that do not.
        """
        infos = socket.getaddrinfo(replica.host, replica.port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(info[4][0]) for info in infos))
        for address in addresses[:-1]:
            with contextlib.suppress(LDAPException, OSError):
                return self._connect_to(address, replica, limit, dn, password)
        return self._connect_to(addresses[-1], replica, limit, dn, password)

    def _connect_to(self, address: str, replica: Replica, limit: float, dn: str, password: bytes) -> Any:
        # No receive_timeout: ldap3 can set whole seconds only. The socket keeps the limit for connecting.
        server = ldap3.Server(
            address,
            port=replica.port,
            use_ssl=replica.encrypted,
            tls=_Tls(self._context, replica.host),
            get_info=ldap3.NONE,
            connect_timeout=limit,
        )
        connection = ldap3.Connection(
            server,
            user=dn or None,
            password=password or None,
            authentication=ldap3.SIMPLE if dn else ldap3.ANONYMOUS,
            client_strategy=ldap3.SAFE_SYNC,
            auto_referrals=False,
            check_names=False,
            raise_exceptions=False,
        )
        try:
            connection.open(read_server_info=False)
            if self._settings.start_tls and not replica.encrypted:
                connection.start_tls(read_server_info=False)
        except BaseException:
            close(connection)
            raise
        return connection

    def _service_password(self) -> bytes:
        """Read at every bind, so that a new one is used without a restart."""
        path = self._settings.bind_password_file
        try:
            password = Path(path).read_bytes().rstrip(b"\r\n") if path else b""
        except OSError as error:
            raise DirectoryUnavailable(f"bindPasswordFile {path}: {error.strerror}") from None
        if not password:
            raise DirectoryUnavailable("bindDn needs a password in bindPasswordFile")
        return password


class Link:
    """One connection that is made when it is needed and made again when it broke. One thread at a time."""

    def __init__(self, opener: Opener, replicas: Replicas) -> None:
        self._opener = opener
        self._replicas = replicas
        self._connection: Any = None
        self._replica: Replica | None = None

    def search(self, search: Search, limit: float) -> list[RawEntry]:
        """Search on the first server that answers, each in its share of `limit`. Raises DirectoryUnavailable."""
        share = limit / len(self._replicas.all)
        reason = ""
        for replica in self._replicas.in_order():
            try:
                found = self._search_on(replica, search, share)
            except Exception as error:
                # Not only ldap3's own: on garbage from a server its decoding raises whatever it likes.
                reason = reason_of(error)
                self._replicas.failed(replica, reason)
            else:
                self._replicas.worked(replica)
                return found
        raise DirectoryUnavailable(reason)

    def close(self) -> None:
        connection, self._connection, self._replica = self._connection, None, None
        if connection is not None:
            close(connection)

    def _search_on(self, replica: Replica, search: Search, limit: float) -> list[RawEntry]:
        deadline = time.monotonic() + limit
        if self._replica is replica:
            try:
                return self._search(search, deadline)
            except (LDAPException, OSError):
                # A server that was restarted has closed the old connection; that is no failure yet. One that
                # hangs has used the time up.
                self.close()
                if time.monotonic() >= deadline:
                    raise
        self.close()
        self._connection = self._opener.as_service(replica, _left(deadline))
        self._replica = replica
        try:
            return self._search(search, deadline)
        except BaseException:
            # Whatever came late would be taken for the answer to the next search.
            self.close()
            raise

    def _search(self, search: Search, deadline: float) -> list[RawEntry]:
        response = self._ask(
            search.base,
            ldap3.SUBTREE if search.whole_tree else ldap3.LEVEL,
            search.filter,
            search.attributes,
            deadline,
        )
        entries = []
        for item in response:
            if item.get("type") == "searchResEntry":
                attributes = _texts(item["raw_attributes"])
                entries.append(RawEntry(item["dn"], self._complete(item["dn"], attributes, deadline)))
        return entries

    def _complete(self, dn: str, attributes: dict[str, list[str]], deadline: float) -> dict[str, list[str]]:
        """Get the rest of attributes that came in parts."""
        for name in list(attributes):
            part = _RANGE.fullmatch(name)
            while part is not None:
                base, _, last = part.groups()
                attributes.setdefault(base, []).extend(attributes.pop(part.group()))
                if last == "*":
                    break
                wanted = f"{base};range={int(last) + 1}-*"
                [more] = self._ask(dn, ldap3.BASE, "(objectClass=*)", (wanted,), deadline)
                following = _texts(more["raw_attributes"])
                part = next((found for key in following if (found := _RANGE.fullmatch(key))), None)
                attributes.update(following)
        return attributes

    def _ask(self, base: str, scope: str, text: str, attributes: Sequence[str], deadline: float) -> list[Any]:
        connection = self._connection
        connection.socket.settimeout(_left(deadline))
        _, result, response, _ = connection.search(base, text, scope, attributes=list(attributes))
        code = result["result"]
        if code == NO_SUCH_OBJECT and scope != ldap3.SUBTREE:
            return []
        # The base of the whole directory must exist: that it does not is a fault, not "no such user".
        if code != SUCCESS:
            self.close()
            raise DirectoryUnavailable(f"the search ended with {code} {result['description']}")
        return list(response)


def close(connection: Any) -> None:
    """Close without waiting; whatever goes wrong in it does not matter any more."""
    opened = connection.socket
    with contextlib.suppress(Exception):
        connection.strategy.close()
    if opened is not None:
        # ldap3 leaves a socket open that never got connected or encrypted.
        opened.close()


def reason_of(error: Exception) -> str:
    return str(error) if isinstance(error, DirectoryUnavailable) else f"{type(error).__name__}: {error}"


def _bind(connection: Any) -> tuple[int, str]:
    _, result, _, _ = connection.bind(read_server_info=False)
    return int(result["result"]), str(result["description"])


def _left(deadline: float) -> float:
    """Seconds until the deadline; never 0, which would mean not to wait at all."""
    return max(0.001, deadline - time.monotonic())


def _texts(raw: Mapping[str, Sequence[bytes]]) -> dict[str, list[str]]:
    return {
        name.lower(): [value.decode("utf-8", "surrogateescape") for value in values]
        for name, values in raw.items()
        if values
    }
