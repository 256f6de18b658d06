"""Dovecot as a mail store: LMTP in, IMAP to read back what was stored."""

import imaplib
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from testbed import ports
from testbed.network import HERE, Place
from testbed.process import Server, ServerError
from testbed.provision import apt
from testbed.running import Running
from testbed.user import forget, ordinary, reachable

IMAP_SECONDS = 10.0
POLL_SECONDS = 0.05

_SETTINGS = """
base_dir = {folder}/run
state_dir = {folder}/state
log_path = /dev/stderr
listen = {address}
protocols = imap lmtp
ssl = no
disable_plaintext_auth = no
mail_location = maildir:{folder}/mail/%n
mail_uid = {uid}
mail_gid = {gid}
first_valid_uid = 0
first_valid_gid = 0
default_internal_user = {user}
default_login_user = {user}
default_internal_group = {group}
default_vsz_limit = 512M
# The domain doesn't matter: a user is found by the local part.
auth_username_format = %Ln
passdb {{
  driver = passwd-file
  args = scheme=PLAIN {folder}/passwd
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={folder}/mail/%n
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {imap_port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service anvil {{
  chroot =
}}
service lmtp {{
  user = {user}
  inet_listener lmtp {{
    address = {address}
    port = {lmtp_port}
  }}
}}
"""


class Dovecot(Running):
    """One Dovecot in `folder`, a context manager. `users` are local parts and passwords, valid in any domain.

    Attributes: `lmtp_port` and `imap_port` at `place`; `mail`, the folder of the Maildirs `<user>/`; `server` to
    suspend or kill it.
    """

    def __init__(self, folder: Path, users: Mapping[str, str], place: Place = HERE) -> None:
        apt.install("servers")
        self._users = dict(users)
        self._place = place
        user = ordinary()
        self._folder, self._outside = reachable(folder, user)
        for name in ("run", "state", "mail"):
            (self._folder / name).mkdir(exist_ok=True)
        self.mail = self._folder / "mail"
        self.lmtp_port, self.imap_port = ports.reserve(), ports.reserve()
        passwords = "".join(f"{name}:{password}::::::\n" for name, password in users.items())
        (self._folder / "passwd").write_text(passwords)
        settings = self._folder / "dovecot.conf"
        settings.write_text(
            _SETTINGS.format(
                folder=self._folder,
                address=place.address,
                user=user.name,
                group=user.group,
                uid=user.uid,
                gid=user.gid,
                lmtp_port=self.lmtp_port,
                imap_port=self.imap_port,
            )
        )
        user.own(self._folder)
        self.server = Server(
            "dovecot",
            ["/usr/sbin/dovecot", "-F", "-c", settings],
            self._folder,
            ports=[self.lmtp_port, self.imap_port],
            user=user,
            place=place,
            # Only its master is ours; on TERM it ends its children.
            death_signal="TERM",
        )

    def start(self) -> None:
        """Starts it; returns when both ports answer."""
        self.server.start()

    def stop(self) -> None:
        """Stops it for good. To stop and start it within a test, use `server`."""
        self.server.stop()
        ports.release(self.lmtp_port)
        ports.release(self.imap_port)
        forget(self._folder, self._outside)

    def messages(self, user: str) -> list[bytes]:
        """All messages in the user's inbox, oldest first, byte for byte as IMAP returns them."""
        with _Imap(self._place, self.imap_port) as session:
            session.login(user, self._users[user])
            session.select("INBOX", readonly=True)
            numbers = session.search(None, "ALL")[1][0].split()
            return [_body(session.fetch(number.decode(), "(BODY.PEEK[])")[1]) for number in numbers]

    def await_messages(self, user: str, count: int, seconds: float = 10.0) -> list[bytes]:
        """The user's messages once there are at least `count`; raises ServerError when they don't come in time."""
        deadline = time.monotonic() + seconds
        while len(found := self.messages(user)) < count:
            if time.monotonic() > deadline:
                raise ServerError(f"{user} has {len(found)} messages after {seconds} s, not {count}")
            time.sleep(POLL_SECONDS)
        return found


class _Imap(imaplib.IMAP4):
    """A client that connects from where the server is."""

    def __init__(self, place: Place, port: int) -> None:
        self._place = place
        super().__init__(place.address, port, IMAP_SECONDS)

    def _create_socket(self, timeout: float | None) -> socket.socket:
        return self._place.connect(self.port, timeout or IMAP_SECONDS)


def _body(answer: object) -> bytes:
    """The literal in imaplib's answer to one FETCH: a list with one pair of a description and the bytes."""
    match answer:
        case [(bytes(), bytes(body)), *_]:
            return body
        case _:
            raise ServerError(f"IMAP answered a FETCH with {answer!r}")
