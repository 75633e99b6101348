"""Gateways to talk to, what can go wrong with them, and what they recorded."""
