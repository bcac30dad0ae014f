"""Layers that the T5 and BERT stacks share, with logical axes as T5X names.

Every parameter is float32 and made by `param_with_axes`, which fills the
`params_axes` collection that T5X and our mesh rules read; the computation
runs in the dtype that the configuration names. Broadcasts are written out,
as rank promotion is an error here.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from gr_jax.parameters import constrain, parameter
from gr_jax.precision import widened
from gr_jax.types import check_option

# Added to the score of a hidden key. Finite, so that a row whose keys are
# all hidden gives a uniform distribution and no NaN.
HIDDEN = -1e9

PAD_ID = 0

ACTIVATIONS = {
  'gelu': lambda x: jax.nn.gelu(x, approximate=False),
  'gelu_new': lambda x: jax.nn.gelu(x, approximate=True),
  'relu': jax.nn.relu,
  'silu': jax.nn.silu,
  'linear': lambda x: x,
}


def activation(name: str) -> Callable[[jax.Array], jax.Array]:
  """The activation function of that name, or a UserError."""
  check_option('an activation', name, ACTIVATIONS)
  return ACTIVATIONS[name]


def token_mask(tokens_BS: jax.Array) -> jax.Array:
  """[B, S] booleans: True where a token is text and not padding."""
  return tokens_BS != PAD_ID


def attention_bias(mask_BS: jax.Array) -> jax.Array:
  """[B, 1, 1, S] float32: 0 where a key may be read, else HIDDEN."""
  return jnp.where(mask_BS, 0.0, HIDDEN)[:, None, None, :]


class Dense(nn.Module):
  """A linear map of the last axis.

  Attributes:
    features: width of the result.
    axes: logical names of the kernel's input and output axis.
    use_bias: whether a vector is added.
    dtype: in which the product is computed; that of the parameters if none.
    kernel_init: initializer of the kernel.
  """

  features: int
  axes: tuple[str, str]
  use_bias: bool = False
  dtype: str | None = None
  kernel_init: Callable = nn.initializers.lecun_normal()

  @nn.compact
  def __call__(self, inputs: jax.Array) -> jax.Array:
    kernel = parameter(
      'kernel', self.kernel_init, (inputs.shape[-1], self.features), self.axes
    )
    dtype = self.dtype or kernel.dtype
    # Two axes: XLA turns more around on CPU before it makes their gradients.
    rows = inputs.astype(dtype).reshape(-1, inputs.shape[-1])
    outputs = jnp.dot(rows, kernel.astype(dtype))
    outputs = outputs.reshape(*inputs.shape[:-1], self.features)
    if self.use_bias:
      bias = parameter(
        'bias', nn.initializers.zeros_init(), (self.features,), self.axes[1:]
      )
      outputs += jnp.broadcast_to(bias.astype(dtype), outputs.shape)
    return outputs


class Embed(nn.Module):
  """A table of vectors, read by id.

  Attributes:
    size: number of ids.
    features: width of a vector.
    axes: logical names of the two axes of the table.
    dtype: of the vectors that are returned.
    stddev: of the normal distribution that the table starts from.
  """

  size: int
  features: int
  axes: tuple[str, str] = ('vocab', 'embed')
  dtype: str = 'float32'
  stddev: float = 1.0

  def setup(self):
    self.embedding = parameter(
      'embedding',
      nn.initializers.normal(stddev=self.stddev),
      (self.size, self.features),
      self.axes,
    )

  def __call__(self, ids: jax.Array) -> jax.Array:
    return jnp.take(self.embedding, ids, axis=0).astype(self.dtype)

  def attend(self, vectors: jax.Array) -> jax.Array:
    """[..., size] inner products of vectors with every row of the table."""
    return jnp.dot(
      vectors.astype(self.dtype), self.embedding.astype(self.dtype).T
    )


class RootMeanSquareNorm(nn.Module):
  """T5's layer norm: no mean is taken away and nothing is added.

  Attributes:
    epsilon: added to the mean square.
    dtype: of the result; the statistics are float32.
  """

  epsilon: float = 1e-6
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, inputs: jax.Array) -> jax.Array:
    inputs, width = widened(inputs), inputs.shape[-1:]
    square = jnp.mean(jnp.square(inputs), axis=-1, keepdims=True)
    scale = parameter('scale', nn.initializers.ones_init(), width, ('embed',))
    outputs = inputs * jax.lax.rsqrt(square + self.epsilon)
    return (outputs * jnp.broadcast_to(scale, outputs.shape)).astype(self.dtype)


def split_heads(joined: jax.Array, num_heads: int) -> jax.Array:
  """[B, S, heads * kv] to [B, heads, S, kv].

  Heads stand before positions, so that both products of the attention are
  plain batched matrix products: on CPU this is four times as fast as the
  order [B, S, heads, kv] at 192 tokens.
  """
  *rows, length, width = joined.shape
  heads = joined.reshape(*rows, length, num_heads, width // num_heads)
  heads = jnp.swapaxes(heads, -2, -3)
  return constrain(heads, 'batch', 'heads', 'length', 'kv')


def join_heads(heads_BHQD: jax.Array) -> jax.Array:
  """[B, heads, S, kv] to [B, S, heads * kv]."""
  heads = jnp.swapaxes(heads_BHQD, -2, -3)
  return heads.reshape(*heads.shape[:-2], heads.shape[-2] * heads.shape[-1])


def attend(
  query_BHQD: jax.Array,
  key_BHSD: jax.Array,
  value_BHSD: jax.Array,
  bias_BHQS: jax.Array,
  drop: Callable[[jax.Array], jax.Array],
) -> jax.Array:
  """Multi-head attention without scaling; the softmax is float32.

  Args:
    query_BHQD: queries of each head.
    key_BHSD: keys.
    value_BHSD: values.
    bias_BHQS: float32, added to the scores; any axis but the last may be 1.
    drop: dropout on the attention weights.

  Returns:
    [B, H, Q, D] weighted means of the values, in the dtype of the values.
  """
  scores_BHQS = jnp.einsum('BHQD,BHSD->BHQS', query_BHQD, key_BHSD)
  scores_BHQS = widened(scores_BHQS) + bias_BHQS
  weights_BHQS = drop(jax.nn.softmax(scores_BHQS, axis=-1))
  weights_BHQS = weights_BHQS.astype(value_BHSD.dtype)
  return jnp.einsum('BHQS,BHSD->BHQD', weights_BHQS, value_BHSD)
