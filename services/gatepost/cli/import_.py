"""`gatepost import`: other servers' configuration as manifests and access tables; users from CSV as LDIF.

What cannot be translated is told line by line, in NOT-TRANSLATED.txt and on the terminal.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from gatepost.cli.looking import Progress
from gatepost.core.domain import DomainError, canonical_domain
from gatepost.core.imports.plan import Plan
from gatepost.core.imports.postfix import MAIN, import_postfix
from gatepost.core.imports.sendmail import FILES, import_sendmail
from gatepost.core.imports.users import UsersError, ldif_of, read_users
from gatepost.core.imports.writing import REPORT, write_plan
from gatepost.core.manifest.read import ManifestError
from gatepost.core.password import ITERATIONS, SALT_BYTES, make_password

MAX_FILE: Final = 64 * 2**20
_MIN_ITERATIONS: Final = 10_000  # below that a stolen file gives its passwords away


def add_arguments(parser: argparse.ArgumentParser) -> None:
    sources = parser.add_subparsers(dest="source", metavar="SOURCE", required=True)
    for name, text in (("sendmail", "a folder with sendmail's sources"), ("postfix", "a folder with main.cf")):
        one = sources.add_parser(name, help=text, description=text)
        one.add_argument("path", type=Path, metavar="PATH", help=text)
        one.add_argument(
            "--to", type=Path, default=Path(f"from-{name}"), metavar="DIR", help="where the result goes"
        )
        one.add_argument("--output", choices=("text", "json"), default="text")
    users = sources.add_parser("users", help="CSV with name, password, ... as LDIF with hashed passwords")
    users.add_argument("path", type=Path, metavar="FILE", help="name,password[,fullName]; or with a header line")
    users.add_argument("--domain", required=True, help="the domain of addresses that are names alone")
    users.add_argument("--to", type=Path, default=Path("users.ldif"), metavar="FILE", help="the LDIF (users.ldif)")
    users.add_argument("--iterations", type=int, default=ITERATIONS, help=f"of PBKDF2 ({ITERATIONS})")
    users.add_argument("--output", choices=("text", "json"), default="text")


def run(options: argparse.Namespace) -> int:
    if options.source == "users":
        return _users(options)
    files = _sendmail_files(options.path) if options.source == "sendmail" else _postfix_files(options.path)
    plan = import_sendmail(files) if options.source == "sendmail" else import_postfix(files)
    written = write_plan(plan)
    _write(options.to, written)
    _tell(plan, list(files), written, options)
    return 0


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_FILE:
            raise ManifestError(str(path), "", f"larger than {MAX_FILE // 2**20} MiB")
        return path.read_text("utf-8", errors="replace")
    except OSError as error:
        raise ManifestError(str(path), "", f"cannot be read: {error.strerror}") from None


def _sendmail_files(folder: Path) -> dict[str, str]:
    """The sources beside each other, as in /etc/mail; aliases may lie a folder above."""
    places = {name: folder / name for name in FILES}
    if not places["aliases"].is_file() and (folder.parent / "aliases").is_file() and folder.name == "mail":
        places["aliases"] = folder.parent / "aliases"
    found = {name: _read(path) for name, path in places.items() if path.is_file()}
    if not found:
        raise ManifestError(str(folder), "", f"none of {', '.join(FILES)} is here")
    return found


def _postfix_files(folder: Path) -> dict[str, str]:
    """main.cf and every file beside it that could be a table in text form."""
    if not (folder / MAIN).is_file():
        raise ManifestError(str(folder), "", "there is no main.cf here")
    return {
        path.name: _read(path)
        for path in sorted(folder.iterdir())
        if path.is_file() and path.suffix not in (".db", ".lmdb", ".cdb", ".dir", ".pag")
    }


def _write(target: Path, files: Mapping[str, str]) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ManifestError(str(target), "", "there is something already; choose an empty folder with --to")
    target.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (target / name).write_text(text, "utf-8")


def _tell(plan: Plan, read: list[str], written: Mapping[str, str], options: argparse.Namespace) -> None:
    if options.output == "json":
        notes = [
            {
                "file": note.place.file,
                "line": note.place.line,
                "text": note.place.text,
                "fate": note.fate.value,
                "reason": note.reason,
            }
            for note in plan.notes
        ]
        print(json.dumps({"directory": str(options.to), "files": sorted(written), "notes": notes}, indent=2))
        return
    print(f"read {', '.join(sorted(read))} of {options.path}")
    print(f"wrote {', '.join(sorted(written))} to {options.to}")
    if plan.notes:
        print(written[REPORT], end="")
        print(f"{len(plan.notes)} lines have no exact counterpart; they stand in {options.to / REPORT} too")
    print(f"next: gatepost check {options.to}")


def _users(options: argparse.Namespace) -> int:
    if options.iterations < _MIN_ITERATIONS:
        raise ManifestError("--iterations", "", f"at least {_MIN_ITERATIONS}")
    if options.to.exists():
        raise ManifestError(str(options.to), "", "there is a file already; choose another with --to")
    try:
        domain = canonical_domain(options.domain)
        users = read_users(_read(options.path))
        for user in users:  # a fault is told before the long work
            list(ldif_of([user], domain, lambda password: password))
        stored = _hashed([user.get("password", "") for user in users], options.iterations)
        texts = list(ldif_of(users, domain, stored))
    except DomainError as error:
        raise ManifestError("--domain", "", str(error)) from None
    except UsersError as error:
        raise ManifestError(str(options.path), "", str(error)) from None
    handle = os.open(options.to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.writelines(texts)
    if options.output == "json":
        print(json.dumps({"file": str(options.to), "users": len(users)}))
    else:
        print(f"wrote {len(users)} users to {options.to} (mode 0600)")
        if any(not user.get("password") for user in users):
            print("users without a password cannot log in; their mail is taken", file=sys.stderr)
    return 0


def _hashed(passwords: list[str], iterations: int) -> Callable[[str], str]:
    """Hash all of them on all cores (PBKDF2 lets others run); values that are hashed already are kept."""
    progress = Progress("passwords")

    def one(password: str) -> str:
        if not password or password.startswith("{"):
            return password
        return make_password(password, os.urandom(SALT_BYTES), iterations)

    queues: dict[str, list[str]] = {}
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for password, stored in zip(passwords, pool.map(one, passwords), strict=True):
            queues.setdefault(password, []).append(stored)
            progress.add(1)
    progress.end()
    return lambda password: queues[password].pop()  # each user gets a salt of its own
