"""The `gatepost` command: finds the subcommand's module and runs it; faults end in one clear line.

Exit codes: 0 done, 1 the answer is no (a check failed, nothing was found), 2 the call or the input is wrong,
3 something outside is not available.
"""

from __future__ import annotations

import argparse
import importlib
import keyword
import sys
from collections.abc import Sequence
from typing import Final

from gatepost import __version__
from gatepost.core.manifest.read import ManifestError
from gatepost.core.ports.log import LogError, LogMisconfigured

EXIT_USAGE: Final = 2
EXIT_UNAVAILABLE: Final = 3

COMMANDS: Final[dict[str, str]] = {
    "run": "everything in one process on the embedded log",
    "edge": "the SMTP edge, for a pod",
    "router": "the router, for a pod",
    "relay": "the relay and the retry readers, for a pod",
    "mailbox": "one mailbox store, for a pod",
    "check": "validate a directory of manifests",
    "import": "translate the configuration of sendmail or Postfix, or users from CSV",
    "explain": "the policy in force, each value with where it comes from",
    "try": "a session that never was, through the real checks; nothing is delivered",
    "selftest": "test a running server as outsiders do: does it relay for strangers?",
    "publish": "put a directory of manifests in force on the log, without an operator",
    "trace": "what happened to a message",
    "queue": "what waits, where it goes, why, and when it is tried next",
    "bans": "who is kept away for guessing, and lifting it",
    "evidence": "export all that is known of an incident: by id, client, sender, recipient or time",
    "meaning": "what a check or a reply means, and what to do about it",
    "skip-gap": "go on behind records that are gone, after an alarm that says so",
    "quickstart": "make the users and the certificate that examples/quickstart wants",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="gatepost", description="A mail gateway for Kubernetes and one machine.")
    parser.add_argument("--version", action="version", version=f"gatepost {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((word for word in given if not word.startswith("-")), None)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if name == chosen:  # only the chosen command's module is loaded
            importlib.import_module(_module(name)).add_arguments(command)
    options = parser.parse_args(given)
    try:
        return int(importlib.import_module(_module(options.command)).run(options))
    except ManifestError as error:
        return _fail(str(error), EXIT_USAGE)
    except LogMisconfigured as error:
        return _fail(f"the log is not as it must be: {error}", EXIT_USAGE)
    except LogError as error:
        return _fail(f"the log is not available: {error}", EXIT_UNAVAILABLE)
    except OSError as error:
        return _fail(str(error), EXIT_UNAVAILABLE)
    except KeyboardInterrupt:
        return 130


def _module(command: str) -> str:
    name = command.replace("-", "_")
    return f"gatepost.cli.{name}_" if keyword.iskeyword(name) else f"gatepost.cli.{name}"


def _fail(message: str, code: int) -> int:
    print(f"gatepost: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
