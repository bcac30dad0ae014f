"""The published sizes of T5, versions 1.0 and 1.1."""

from gr_jax.models.t5 import T5Config
from gr_jax.types import UserError, near_miss

# Width, heads, head width, feed-forward width and layers of each version.
# Tiny is that of t5-efficient-tiny, with the usual ratio in version 1.1.
T5_SIZES = {
  '1.0': {
    'tiny': (256, 4, 64, 1024, 4),
    'small': (512, 8, 64, 2048, 6),
    'base': (768, 12, 64, 3072, 12),
    'large': (1024, 16, 64, 4096, 24),
    'xl': (1024, 32, 128, 16384, 24),
    'xxl': (1024, 128, 128, 65536, 24),
  },
  '1.1': {
    'tiny': (256, 4, 64, 512, 4),
    'small': (512, 6, 64, 1024, 8),
    'base': (768, 12, 64, 2048, 12),
    'large': (1024, 16, 64, 2816, 24),
    'xl': (2048, 32, 64, 5120, 24),
    'xxl': (4096, 64, 64, 10240, 24),
  },
}


def t5_config(
  size: str = 'small',
  version: str = '1.1',
  dtype: str = 'float32',
  dropout_rate: float = 0.1,
) -> T5Config:
  """The configuration of a published T5.

  Args:
    size: 'tiny', 'small', 'base', 'large', 'xl' (3B) or 'xxl' (11B).
    version: '1.0' or '1.1'.
    dtype: of the computation.
    dropout_rate: share of activations zeroed in training.
  """
  if version not in T5_SIZES:
    raise UserError(f'Unknown T5 version {version!r}: give 1.0 or 1.1.')
  sizes = T5_SIZES[version]
  if size not in sizes:
    raise UserError(
      f'Unknown T5 size {size!r}{near_miss(size, sizes)}: '
      f'there are {", ".join(sizes)}.'
    )
  emb_dim, num_heads, head_dim, mlp_dim, depth = sizes[size]
  return T5Config(
    emb_dim=emb_dim,
    num_heads=num_heads,
    head_dim=head_dim,
    num_encoder_layers=depth,
    num_decoder_layers=depth,
    mlp_dim=mlp_dim,
    mlp_activations=('relu',) if version == '1.0' else ('gelu_new', 'linear'),
    logits_via_embedding=version == '1.0',
    dtype=dtype,
    dropout_rate=dropout_rate,
  )
