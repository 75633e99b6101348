"""Who may do what: signing in, sessions and codes, and the gate that every request passes."""
