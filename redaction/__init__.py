"""How secrets are recognised: a module for each kind of evidence, which `redact` puts together."""
