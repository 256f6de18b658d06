"""Manifests -> the normalised configuration, with conditions for each object. Pure: the operator, the command
line and the standalone process call the same code, and golden files pin what comes out.
"""

from gatepost.core.compile.conditions import Condition, Status
from gatepost.core.compile.everything import Compiled, Surroundings, compile_manifests

__all__ = ["Compiled", "Condition", "Status", "Surroundings", "compile_manifests"]
