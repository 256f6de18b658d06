"""Installers of the servers that the testbed runs.

Each installer returns where the thing is, does nothing when it is already there, and may be called by many
processes at once: the first one builds, the others wait. Run by hand as `python -m testbed.provision NAME...`.
"""
