"""Tasks on the documentation of Python itself."""

import dataclasses
import pathlib

import seqio
from gr_jax.tasks.beir import beir_tasks

from gr_jax.data.preparation_settings import PreparationSettings
from gr_jax.data.python_docs import write_python_docs
from gr_jax.data.text_examples import make_plan
from gr_jax.data.vocabularies import Vocabulary


def python_docs_tasks(
  directory: str | pathlib.Path,
  settings: PreparationSettings,
  vocabulary: Vocabulary,
) -> dict[str, seqio.Task]:
  """Makes the Tasks, writing the collection first where it is missing.

  Args:
    directory: of the collection.
    settings: their `data_dir` is set from `directory`.
    vocabulary: for queries and documents.

  Returns:
    Tasks by source name, as `tasks.beir.beir_tasks`.
  """
  directory = pathlib.Path(directory)
  if not directory.exists():
    write_python_docs(directory)
  settings = dataclasses.replace(settings, data_dir=str(directory))
  ids_path = directory.with_name(f'{directory.name}.document_ids.txt')
  return beir_tasks(make_plan(settings, ids_path), vocabulary)
