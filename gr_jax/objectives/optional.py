"""The criteria whose weight is 0 by default, and what replaces others."""

from gr_jax.objectives.agreement import agreement_loss, code_contrast_loss
from gr_jax.objectives.balance import position_entropy_loss
from gr_jax.objectives.distillation import distillation_loss
from gr_jax.objectives.generation import generation_loss
from gr_jax.objectives.prefixes import prefix_density_loss
from gr_jax.objectives.reconstruction import reconstruction_loss
from gr_jax.objectives.sharpness import sharpness_loss
from gr_jax.objectives.uncertainty import weigh_by_uncertainty


def optional_criteria(outputs, documents_B, sizes, temperature):
  """Criteria by name, to be called when their weight is not 0.

  Args:
    outputs: models.retriever.RetrieverOutput of a batch.
    documents_B: int32 document of each row.
    sizes: codes of each position.
    temperature: T of dot products of unit vectors.

  Returns:
    {'name': () -> (value, metrics)}.
  """
  codes = outputs.assignment
  criteria = {
    'agreement': lambda: agreement_loss(
      outputs.query_probs_BLK, codes.codes_BL
    ),
    'code_contrast': lambda: code_contrast_loss(
      outputs.query_probs_BLK, codes.probs_BLK, documents_B
    ),
    'reconstruction': lambda: reconstruction_loss(*outputs.reconstruction),
    'position_entropy': lambda: position_entropy_loss(codes.probs_BLK, sizes),
    'prefix_density': lambda: prefix_density_loss(
      codes.probs_BLK, documents_B, sizes, *outputs.queue_codes
    ),
    'sharpness': lambda: sharpness_loss(codes.probs_BLK),
  }
  if getattr(outputs, 'lists', None) is not None:
    criteria['distillation'] = lambda: distillation_loss(outputs.lists)
  if outputs.uncertainty is None:
    return criteria
  # In place of the plain criterion of that name.
  return criteria | {
    'generation': lambda: weigh_by_uncertainty(
      *generation_loss(outputs.scores_BLK, outputs.targets_BLK, codes.codes_BL),
      outputs.uncertainty,
      len(sizes),
    )
  }
