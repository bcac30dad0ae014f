"""From texts to documents: encoding a corpus, searching an index."""
