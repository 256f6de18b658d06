"""Access rules with the semantics of sendmail's access database: keys, source form, tables. Pure."""
