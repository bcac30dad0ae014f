"""The objective: every criterion, weighted."""

import dataclasses

from gr_jax.objectives.balance import (
  density_loss,
  position_entropy_loss,
  sharpness_loss,
)
from gr_jax.objectives.commitment import commitment_loss
from gr_jax.objectives.consistency import consistency_loss
from gr_jax.objectives.contrastive import info_nce_loss
from gr_jax.objectives.generation import generation_loss


@dataclasses.dataclass(frozen=True)
class ObjectiveSettings:
  """Weights of the criteria; 0 leaves a criterion out of the program.

  Attributes:
    generation: of the code decoder's cross-entropy.
    bottleneck: of InfoNCE between dense vectors.
    quantised: of InfoNCE between queries and quantised documents.
    consistency: of the KL from dense to quantised score distributions.
    commitment: of the distance between vectors and their codewords.
    position_entropy: of each position's distance from uniform use.
    density: of the chance that two documents share an identifier.
    sharpness: of the entropy of each document's code distributions.
    temperature: T of the dot products of unit vectors, in all criteria.
  """

  generation: float = 1.0
  bottleneck: float = 1.0
  quantised: float = 2.0
  consistency: float = 2.0
  commitment: float = 1.0
  position_entropy: float = 0.5
  density: float = 0.5
  sharpness: float = 0.0
  temperature: float = 0.05


def bottleneck_alone(settings):
  """The same settings with all criteria off but the bottleneck."""
  off = {
    field.name: 0.0
    for field in dataclasses.fields(ObjectiveSettings)
    if field.name not in ('bottleneck', 'temperature')
  }
  return dataclasses.replace(settings, **off)


def objective(outputs, documents_B, settings):
  """Sums the weighted criteria.

  Args:
    outputs: models.retriever.RetrieverOutput of a batch.
    documents_B: int32 document of each row.
    settings: ObjectiveSettings.

  Returns:
    The loss and the criteria's metrics, {'name': (total, count)}.
  """
  codes = outputs.assignment
  criteria = {
    'generation': lambda: generation_loss(
      outputs.scores_BLK, outputs.targets_BLK, codes.codes_BL
    ),
    'bottleneck': lambda: info_nce_loss(
      outputs.query_vectors_BD,
      outputs.document_vectors_BD,
      documents_B,
      settings.temperature,
      'bottleneck',
    ),
    'quantised': lambda: info_nce_loss(
      outputs.query_vectors_BD,
      codes.quantised_BD,
      documents_B,
      settings.temperature,
      'quantised',
    ),
    'consistency': lambda: consistency_loss(
      outputs.query_vectors_BD,
      outputs.document_vectors_BD,
      codes.quantised_BD,
      documents_B,
      settings.temperature,
    ),
    'commitment': lambda: commitment_loss(
      outputs.document_vectors_BD, codes.quantised_BD
    ),
    'position_entropy': lambda: position_entropy_loss(codes.probs_BLK),
    'density': lambda: density_loss(codes.probs_BLK, documents_B),
    'sharpness': lambda: sharpness_loss(codes.probs_BLK),
  }
  total, metrics = 0.0, {}
  for name, criterion in criteria.items():
    weight = getattr(settings, name)
    if not weight:
      continue
    value, measured = criterion()
    total += weight * value
    metrics |= measured
  metrics['loss'] = (total, 1)
  return total, metrics
