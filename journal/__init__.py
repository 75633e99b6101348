"""What the run has to deliver, on disk until the gateway has it."""
