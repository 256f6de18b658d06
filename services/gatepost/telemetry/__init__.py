"""Traces, metrics and logs: each name and type is declared in one table."""
