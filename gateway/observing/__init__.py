"""What is seen of a gateway from outside: whether it is well, its numbers, its log of requests."""
