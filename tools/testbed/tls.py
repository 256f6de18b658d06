"""A certificate authority for tests and certificates from it, made with the `openssl` program (ECDSA P-256)."""

import contextlib
import ipaddress
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

COMMAND_SECONDS = 30


@dataclass(frozen=True)
class Certificate:
    """PEM files of a certificate and its unencrypted key."""

    certificate: Path
    key: Path


class Authority:
    """A self-signed CA whose files live in `folder`; `certificate` is what clients must trust."""

    def __init__(self, folder: Path, name: str = "testbed-ca") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.certificate = folder / f"{name}.crt"
        self.key = folder / f"{name}.key"
        _new_key(self.key)
        _openssl(
            *("req", "-x509", "-new", "-key", self.key, "-subj", f"/CN={name}", "-days", "3650"),
            *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
            *("-out", self.certificate),
        )

    def issue(
        self, *names: str, subject: str | None = None, file: str | None = None, days: int = 3650
    ) -> Certificate:
        """A certificate for DNS names and IP addresses, good for both ends of a connection.

        `subject` is an OpenSSL subject such as `/O=group/CN=name` (default: the first name), `file` the files' stem
        (default: the first name), `days` how long it is good for; 0 makes one that has expired already.
        """
        stem = file or names[0].replace("*", "_")
        issued = Certificate(self._folder / f"{stem}.crt", self._folder / f"{stem}.key")
        request, extensions = self._folder / f"{stem}.csr", self._folder / f"{stem}.ext"
        _new_key(issued.key)
        _openssl("req", "-new", "-key", issued.key, "-subj", subject or f"/CN={names[0]}", "-out", request)
        lines = ["basicConstraints=CA:FALSE", "keyUsage=digitalSignature", "extendedKeyUsage=serverAuth,clientAuth"]
        if names:
            lines.append("subjectAltName=" + ",".join(map(_alternative_name, names)))
        extensions.write_text("\n".join(lines) + "\n")
        _openssl(
            *("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key, "-CAcreateserial"),
            *("-days", str(days), "-extfile", extensions, "-out", issued.certificate),
        )
        request.unlink()
        extensions.unlink()
        return issued

    def client_context(self) -> ssl.SSLContext:
        """A context for clients that trust this CA and nothing else."""
        return ssl.create_default_context(cafile=str(self.certificate))


def server_context(issued: Certificate) -> ssl.SSLContext:
    """A context for a server that shows this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    return context


def _alternative_name(name: str) -> str:
    with contextlib.suppress(ValueError):
        return f"IP:{ipaddress.ip_address(name)}"
    return f"DNS:{name}"


def _new_key(path: Path) -> None:
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path)


def _openssl(*words: str | Path) -> None:
    done = subprocess.run(
        ["openssl", *map(str, words)], capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
    )
    if done.returncode != 0:
        raise OSError(f"openssl {words[0]}: {done.stderr.strip()}")
