"""Judges a retriever: metrics, baselines, controls, run files, report."""
