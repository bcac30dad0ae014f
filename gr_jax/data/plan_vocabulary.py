"""The vocabulary of a plan: one that its settings name, or a trained one."""

import itertools
import math
import pathlib

from gr_jax.data.preparation_settings import vocabulary_path
from gr_jax.data.text_examples import Plan
from gr_jax.data.vocabularies import (
  Vocabulary,
  load_vocabulary,
  train_sentencepiece,
)

# Enough to learn pieces from; a stride over the corpus spreads the choice.
_CHARACTERS = 5_000_000


def plan_vocabulary(plan: Plan, directory: pathlib.Path) -> Vocabulary:
  """Copies or trains the vocabulary of a plan into a folder."""
  path = vocabulary_path(plan.settings.vocabulary)
  if path is not None:
    vocabulary = load_vocabulary(path)
    vocabulary.save(directory)
    return vocabulary
  characters = sum(len(text) for text in plan.document_texts())
  stride = max(1, math.ceil(characters / _CHARACTERS))
  return train_sentencepiece(
    itertools.islice(plan.document_texts(), 0, None, stride),
    plan.settings.vocabulary_size,
    directory,
    _CHARACTERS,
  )
