"""The operator: compiles MailDomain and RelayPolicy objects into the configuration that all pods run."""
