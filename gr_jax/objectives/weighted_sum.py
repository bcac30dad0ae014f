"""The objective: every criterion, weighted."""

import dataclasses

from gr_jax.objectives.balance import density_loss
from gr_jax.objectives.commitment import commitment_loss
from gr_jax.objectives.consistency import consistency_loss
from gr_jax.objectives.contrastive import info_nce_loss
from gr_jax.objectives.generation import generation_loss
from gr_jax.objectives.optional import optional_criteria
from gr_jax.objectives.prefixes import prefix_contrast_loss
from gr_jax.schedule import Schedule

Weight = float | Schedule


@dataclasses.dataclass(frozen=True)
class ObjectiveSettings:
  """Weights of the criteria; 0 leaves a criterion out of the program.

  A weight is a number, or a Schedule of it.

  Attributes:
    generation: of the code decoder's cross-entropy.
    bottleneck: of InfoNCE between dense vectors.
    quantised: of InfoNCE between queries and quantised documents.
    prefix_contrast: of the same for every prefix of the identifiers.
    consistency: of the KL from dense score distributions to those of the
      identifiers and of their prefixes.
    commitment: of the distance between vectors and their codewords.
    agreement: of the cross-entropy of the indexer's codes for the query; needs
      RetrieverConfig.reads_queries, as does
    code_contrast: of InfoNCE in code space.
    reconstruction: of autoencoding; needs RetrieverConfig.reconstructs.
    position_entropy: of each position's distance from uniform use.
    density: of the chance that two documents share an identifier.
    prefix_density: of the chance that they share a prefix.
    sharpness: of the entropy of each document's code distributions.
    distillation: of a teacher's rankings; needs RunSettings.lists.
    temperature: T of the dot products of unit vectors, in all criteria.
  """

  generation: Weight = 1.0
  bottleneck: Weight = 1.0
  quantised: Weight = 4.0
  prefix_contrast: Weight = 1.0
  consistency: Weight = 4.0
  commitment: Weight = 2.0
  agreement: Weight = 0.0
  code_contrast: Weight = 0.0
  reconstruction: Weight = 0.0
  position_entropy: Weight = 0.0
  density: Weight = 0.3
  prefix_density: Weight = 0.0
  sharpness: Weight = 0.0
  distillation: Weight = 0.0
  temperature: float = 0.05


def only(settings, *names):
  """The same settings with all criteria off but those named."""
  off = {
    field.name: 0.0
    for field in dataclasses.fields(ObjectiveSettings)
    if field.name not in ('temperature', *names)
  }
  return dataclasses.replace(settings, **off)


def objective(outputs, documents_B, sizes, settings, progress):
  """Sums the weighted criteria.

  Args:
    outputs: models.retriever.RetrieverOutput of a batch.
    documents_B: int32 document of each row.
    sizes: codes of each position.
    settings: ObjectiveSettings.
    progress: share of the steps in which codes move that is done, for the
      schedules.

  Returns:
    The loss and the criteria's metrics, {'name': (total, count)}.
  """
  arguments = outputs, documents_B, sizes, settings.temperature
  criteria = {**_criteria(*arguments), **optional_criteria(*arguments)}
  total, metrics = 0.0, {}
  for field in dataclasses.fields(settings):
    weight = getattr(settings, field.name)
    if field.name not in criteria or not weight:
      continue
    if isinstance(weight, Schedule):
      weight = weight.at(progress)
    value, measured = criteria[field.name]()
    total += weight * value
    metrics |= measured
  metrics['loss'] = (total, 1)
  return total, metrics


def _criteria(outputs, documents_B, sizes, temperature):
  """{'name': () -> (value, metrics)} of the criteria that are on by default."""
  codes = outputs.assignment
  queries_BD = outputs.query_vectors_BD
  documents_BD = outputs.document_vectors_BD
  rows = documents_B, temperature
  return {
    'generation': lambda: generation_loss(
      outputs.scores_BLK, outputs.targets_BLK, codes.codes_BL
    ),
    'bottleneck': lambda: info_nce_loss(
      queries_BD, documents_BD, *rows, 'bottleneck', *outputs.negatives
    ),
    'quantised': lambda: info_nce_loss(
      queries_BD, codes.quantised_BD, *rows, 'quantised', *outputs.queue_vectors
    ),
    'prefix_contrast': lambda: prefix_contrast_loss(
      queries_BD, codes.codewords_BLD, *rows
    ),
    'consistency': lambda: consistency_loss(
      queries_BD, documents_BD, codes.codewords_BLD, *rows
    ),
    'commitment': lambda: commitment_loss(
      outputs.coded_vectors_BD, codes.quantised_BD
    ),
    'density': lambda: density_loss(
      codes.probs_BLK, documents_B, sizes, *outputs.queue_codes
    ),
  }
