"""Encoders, the code decoder and the retriever; weight import."""
