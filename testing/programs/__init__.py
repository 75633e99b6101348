"""Programs to run, and terminals and disks for them."""
