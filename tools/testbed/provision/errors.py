"""The one error of this package."""


class ProvisionError(Exception):
    """Something can't be installed here; the text says what is missing and what would help."""
