"""Semantic indexing modules: dense vectors in, document identifiers out."""
