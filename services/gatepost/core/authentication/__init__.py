"""Who sent a message: SPF, DKIM, ARC and DMARC without any I/O, and DKIM and ARC signatures of our own.

Everything that needs the DNS is a generator of `questions`: it yields questions, is sent the answers, and
returns a result (docs/adr/0009). `edge.dns_driver.drive` runs one over the Resolver port. Time comes as an
argument, in seconds since 1970.

    spf.check_mail_from(client, helo, reverse_path, receiver, now)   -> SpfResult
    spf.check_helo(client, helo, receiver, now)                      -> SpfResult
    dkim.DkimVerification(fields): .wanted, .verify(bodies, now)     -> tuple[DkimSignatureResult, ...]
    dkim.DkimSigner(domain, selector, pem): .wanted, .sign(fields, bodies, now) -> the field as bytes
    arc.ArcVerification(fields): .wanted, .verify(bodies, now)       -> ArcResult
    arc.ArcSealer(domain, selector, pem): .wanted, .seal(...)        -> the three fields as bytes
    dmarc.check_dmarc(fields, spf, signatures)                       -> DmarcResult
    results_field.results_field(authserv_id, spf=..., dmarc=...)     -> the Authentication-Results field
    results_field.without_forged(header, {authserv_id})              -> the header without forged ones

A body is hashed once for all of them: `BodyHasher(a.wanted | b.wanted)`, `update(chunk)`, `finish()`.
`fields` come from `core.headers.read_header`. Every reason text is printable ASCII of limited length.
"""
