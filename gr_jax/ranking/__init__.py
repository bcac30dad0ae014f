"""Rankings by a teacher: cross-encoders and others, and files of them."""
