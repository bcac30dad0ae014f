"""T5's decoder over flax's 'cache' collection, as T5X's own decoding has it."""

import jax.numpy as jnp

from gr_jax.models.t5_decoder import DecoderCache, T5DecoderStack, empty_cache


class T5CollectionStack(T5DecoderStack):
  """The decoder stack, whose cache may lie in the collection 'cache'.

  The collection has T5X's names: 'cached_key', 'cached_value' and
  'cache_index' in the self-attention of each layer.
  """

  def __call__(
    self,
    inputs_RLM,
    states_BSE,
    mask_BS,
    *,
    deterministic=True,
    decode=False,
  ):
    """Decodes all positions, or the next one of the collection.

    Args:
      inputs_RLM: R = B x W rows of vectors, beams of a text side by side.
      states_BSE: what the encoder says of the texts.
      mask_BS: which states are text.
      deterministic: False applies dropout, with the rng named 'dropout'.
      decode: with a mutable collection 'cache', the first call (L = all
        positions) makes the cache, later calls (L = 1) advance it.

    Returns:
      [R, L, M] states after the last norm.
    """
    if decode and self._attentions()[0].has_variable('cache', 'cache_index'):
      memory = self.memory(states_BSE, mask_BS)
      return self._step_collection(inputs_RLM, memory)
    if decode:
      self._write(empty_cache(self.config, *inputs_RLM.shape[:2]), 0)
    return super().__call__(
      inputs_RLM, states_BSE, mask_BS, deterministic=deterministic
    )

  def _attentions(self):
    return [layer.self_attention for layer in self.layers]

  def _step_collection(self, inputs_R1M, memory):
    """One position over the collection."""
    names = ('cached_key', 'cached_value', 'cache_index')
    keys, values, indices = zip(
      *(
        [attention.get_variable('cache', name) for name in names]
        for attention in self._attentions()
      ),
      strict=True,
    )
    position = indices[0]
    outputs, cache = self.step(
      inputs_R1M[:, 0], memory, DecoderCache(keys, values), position
    )
    self._write(cache, position + 1)
    return outputs[:, None]

  def _write(self, cache, position):
    """Replaces the collection, at the next position."""
    for attention, key, value in zip(
      self._attentions(), cache.keys, cache.values, strict=True
    ):
      attention.put_variable('cache', 'cached_key', key)
      attention.put_variable('cache', 'cached_value', value)
      attention.put_variable('cache', 'cache_index', jnp.int32(position))
