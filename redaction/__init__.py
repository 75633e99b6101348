"""What is secret, judged by one kind of evidence each; `redact` puts them together."""
