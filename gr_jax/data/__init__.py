"""Readers, vocabularies, preparation and the loader of examples."""
