"""The HTTP server, the connections that stay open, and the names and certificate it goes by."""
