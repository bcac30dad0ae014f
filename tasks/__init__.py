"""seqio Tasks, one file a family of datasets; import as `gr_jax.tasks`."""
