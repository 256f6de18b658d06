"""Compiles the modules that every message passes through to machine code, by mypyc: `python -m compiling`.

The images and the benchmarks use the result; a checkout runs as it is (docs/adr/0015).
"""
