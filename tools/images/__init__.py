"""Builds the container images without a container engine: `python -m images --out DIR`.

The same images can be built from the Containerfile beside this file where there is an engine.
"""
