"""Pure loss functions: arrays in, (scalar, {'name': (total, count)}) out.

Metrics are totals and counts so that they add up exactly over batches and
devices. Weights and schedules live in the caller.

They reduce in the type of their arrays, which models hand over in float32
whatever their layers compute in (precision.widened).
"""
