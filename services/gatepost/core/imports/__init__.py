"""Other servers' configuration -> manifests, access tables, and a list of what could not be translated. Pure."""
