"""Beam search over the identifiers that exist: trie, mask, beams."""
