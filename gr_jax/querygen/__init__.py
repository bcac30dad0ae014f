"""Pseudo-queries: where they come from, what is kept, how they are judged."""
