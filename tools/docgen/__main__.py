"""`python -m docgen` writes the pages; `--check` says which is not up to date and exits with 1."""

from __future__ import annotations

import sys
from pathlib import Path

from docgen.merge_page import merge_page
from docgen.metrics_page import metrics_page
from docgen.replies_page import replies_page
from docgen.settings_page import settings_page

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"


def main() -> int:
    pages = {
        "settings.md": settings_page(),
        "metrics.md": metrics_page(),
        "replies.md": replies_page(),
        "merge-table.md": merge_page(),
    }
    stale = []
    for name, text in pages.items():
        file = DOCS / name
        if file.exists() and file.read_text("utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            file.write_text(text, "utf-8")
    if stale and "--check" in sys.argv:
        print(f"docs/{', docs/'.join(stale)} out of date; run: make docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
