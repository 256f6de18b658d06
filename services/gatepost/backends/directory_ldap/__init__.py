"""A directory on LDAP servers (RFC 4511), by ldap3.

`filters` writes searches, `replicas` knows the servers and which of them are dead, `link` is a connection in a
worker thread, `links` lends them out with a time limit, `directory` is the port.
"""

from __future__ import annotations

from gatepost.backends.directory_ldap.directory import LdapDirectory

__all__ = ["LdapDirectory"]
