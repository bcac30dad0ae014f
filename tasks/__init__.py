"""seqio Task registrations, one file a dataset family."""
