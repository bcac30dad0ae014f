"""Mesh, state, optimizer, step, loop and checkpoints."""
