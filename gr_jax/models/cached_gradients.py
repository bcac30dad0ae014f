"""Gradient caching: a batch that the objective sees whole, encoded in chunks.

In-batch criteria want large batches, and the activations of a text encoder do
not let them. GradCache (Gao et al. 2021, arXiv 2101.06983) goes through the
texts twice. First they are encoded a chunk at a time, and nothing is kept but
the vectors. All that comes after the vectors runs once on the whole batch, and
gives the gradient of each vector, which is what is cached. Then each chunk is
encoded again, with the same dropout, and pulls the gradients of its vectors
back to the parameters, where they add up. Reverse mode goes these two ways by
itself through a loop whose body is checkpointed.
"""

import jax

from gr_jax.models.encoder import Encoder
from gr_jax.models.retriever import Retriever
from gr_jax.types import UserError


class CachingRetriever(Retriever):
  """A retriever that encodes texts in chunks.

  Its parameters, and what it computes, are those of Retriever; dropout alone
  is drawn for each chunk.

  Attributes:
    chunks: that a batch of texts is encoded in, one after the other.
  """

  chunks: int = 1

  def backbone(self, tokens_BS, deterministic=True):
    """As Retriever has it: what is not read of the output is not kept."""
    rows, chunks = len(tokens_BS), self.chunks
    if rows % chunks:
      raise UserError(
        f'{rows} texts cannot be encoded in {chunks} equal chunks: change '
        'TrainingSettings.encoder_chunks or LoaderSettings.batch_size'
      )
    config, params = self.config, self.encoder.variables['params']
    encoder = Encoder(config.encoder, pooling=config.pooling, parent=None)
    keys = None
    if not deterministic:
      keys = jax.random.split(self.encoder.make_rng('dropout'), chunks)

    @jax.checkpoint
    def encoded(params, tokens_bS, key):
      return encoder.apply(
        {'params': params},
        tokens_bS,
        deterministic=deterministic,
        rngs=None if deterministic else {'dropout': key},
      )

    def step(_, chunk):
      return None, encoded(params, *chunk)

    # Rows b, b + chunks, ...: every device has rows of each chunk.
    tokens_CbS = tokens_BS.reshape(-1, chunks, tokens_BS.shape[1])
    _, outputs = jax.lax.scan(step, None, (tokens_CbS.swapaxes(0, 1), keys))
    return jax.tree.map(
      lambda x: x.swapaxes(0, 1).reshape(rows, *x.shape[2:]), outputs
    )


def caching(model, chunks):
  """The same retriever, encoding in chunks.

  Args:
    model: Retriever.
    chunks: more than one.
  """
  return CachingRetriever(model.config, settled=model.settled, chunks=chunks)
