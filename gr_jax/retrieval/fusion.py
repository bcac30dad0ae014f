"""The final score of a candidate, from its identifier and from its vector.

Candidates that share an identifier share all that the identifier says of them:
within a bucket the dense part ranks.
"""

from typing import NamedTuple, TypeVar

# numpy or jax arrays alike: the compiled search and the fit on dev are one.
Array = TypeVar('Array')

# log_linear: the generative score is a log-probability (or a sum of raw
# scores), the dense one stands for log exp(q . d): a product of experts.
# reciprocal: MEVI (arXiv 2309.13335), which reads the order of the
# identifiers only: dense + .6 / (.03 rank + 1).
KINDS = ('log_linear', 'reciprocal')
# What evaluation.fusion_fit can choose kind and weights for.
FIT_MEASURES = ('R@1', 'R@10', 'R@100', 'MRR@10')


class Weights(NamedTuple):
  """What the parts of a final score are multiplied with.

  Attributes:
    dense: of the dot product of query and document vectors.
    generative: of the identifier's score, read by 'log_linear'.
    reciprocal: of the identifier's place, read by 'reciprocal'.
    decay: how fast a place loses its worth, read by 'reciprocal'.
  """

  dense: float
  generative: float
  reciprocal: float
  decay: float


def fuse(
  kind: str,
  weights: Weights,
  dense_BC: Array,
  generative_BC: Array,
  ranks_BC: Array,
) -> Array:
  """Final scores of candidates.

  Args:
    kind: of KINDS.
    weights: of the parts.
    dense_BC: dot products of query and document vectors.
    generative_BC: scores of the candidates' identifiers.
    ranks_BC: places of those identifiers in generative order, from 0.

  Returns:
    [B, C] scores.
  """
  if kind == 'log_linear':
    identifiers_BC = weights.generative * generative_BC
  else:
    assert kind == 'reciprocal', kind
    places_BC = ranks_BC.astype('float32')
    identifiers_BC = weights.reciprocal / (weights.decay * places_BC + 1)
  return weights.dense * dense_BC + identifiers_BC
