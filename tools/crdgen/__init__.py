"""Makes the CustomResourceDefinitions in crds/ from the types in gatepost.core.manifest.

The types are the truth; `python -m crdgen` writes, `python -m crdgen --check` fails when a file is stale.
"""
