"""The index: identifiers, trie, vectors and texts, in memory and on disk."""
