"""Makes the source roots importable in a virtual environment and gives it the commands, without a build.

Usage: link_sources.py VENV. A .pth file and two small scripts: what an editable install does, but without
fetching a build backend, so that `make run` needs nothing beyond the locked requirements.
"""

from __future__ import annotations

import stat
import sys
from pathlib import Path

COMMANDS = {"gatepost": "gatepost.cli.main", "gatepost-operator": "gatepost_operator.main"}
SCRIPT = """#!{python}
import sys
from {module} import main
sys.exit(main())
"""


def main() -> None:
    root = Path(__file__).resolve().parent.parent
    venv = Path(sys.argv[1]).resolve()
    (packages,) = venv.glob("lib/python3*/site-packages")
    (packages / "gatepost_sources.pth").write_text(f"{root / 'services'}\n{root / 'operator'}\n")
    for name, module in COMMANDS.items():
        script = venv / "bin" / name
        script.write_text(SCRIPT.format(python=venv / "bin" / "python", module=module))
        script.chmod(script.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


if __name__ == "__main__":
    main()
