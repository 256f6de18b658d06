"""One file per check: its configuration and a pure evaluate over recorded facts."""
