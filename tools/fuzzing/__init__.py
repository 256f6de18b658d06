"""Fuzzing of all that reads what strangers send: a target for each parser (targets.py), guided by atheris.

    python -m fuzzing --seconds 60 [TARGET ...]      `make fuzz`; without names all of them, one after the other

What a run finds is written to tests/data/fuzz/TARGET/, where a fast test runs every file through its target.
"""
