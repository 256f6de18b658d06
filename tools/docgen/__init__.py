"""Writes the reference pages that follow from the types: docs/settings.md, docs/metrics.md, docs/replies.md."""
