"""Gatepost: a Kubernetes-native, horizontally scaled mail gateway."""

__version__ = "0.1.0"
