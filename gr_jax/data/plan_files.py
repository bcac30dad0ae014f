"""A plan as a folder, from which workers on other machines make the Tasks.

  plan.json          settings, shards, counts, bad records, hash of the inputs
  document_ids.txt   an id a line, in corpus order
  vocabulary/        the vocabulary itself

`gr_jax.prepare --plan=FOLDER` writes it.
"""

import dataclasses
import hashlib
import json
import pathlib

from gr_jax.data.documents import BadRecord, Position
from gr_jax.data.folders import new_folder
from gr_jax.data.plan_vocabulary import plan_vocabulary
from gr_jax.data.preparation_settings import PreparationSettings
from gr_jax.data.prepared import DOCUMENT_IDS, VOCABULARY
from gr_jax.data.text_examples import Plan, make_plan
from gr_jax.data.vocabularies import Vocabulary, load_vocabulary
from gr_jax.types import UserError

PLAN = 'plan.json'
# They stay positive in 64 bits.
_STAMP_DIGITS = 15


def inputs_stamp(plan: Plan, vocabulary: Vocabulary) -> int:
  """A number for all that examples are made from; each carries it."""
  return stamp(f'{plan.inputs_sha256} {vocabulary.sha256}')


def stamp(inputs: str) -> int:
  """A number for a text that names all that examples are made from."""
  digest = hashlib.sha256(inputs.encode()).hexdigest()
  return int(digest[:_STAMP_DIGITS], 16)


def write_plan(
  settings: PreparationSettings,
  directory: str | pathlib.Path,
  with_documents: bool = False,
) -> Plan:
  """Validates a collection once and writes how its work divides.

  Args:
    settings: with `data_dir` an existing folder, which workers find under the
      same path.
    directory: replaced once the new one is whole.
    with_documents: whether the Tasks are to give each query with the tokens of
      its document, see `tasks.beir.beir_tasks`.

  Returns:
    The plan.

  Raises:
    UserError: for bad input; nothing is left behind then.
  """
  paths = {
    name: str(pathlib.Path(value).absolute())
    for name in ('data_dir', 'pseudo_queries')
    if (value := getattr(settings, name))
  }
  settings = dataclasses.replace(settings, **paths)
  with new_folder(directory) as work:
    plan = make_plan(settings, work / DOCUMENT_IDS)
    plan_vocabulary(plan, work / VOCABULARY)
    data = dataclasses.asdict(plan) | {'with_documents': with_documents}
    del data['document_ids_path']
    (work / PLAN).write_text(json.dumps(data, indent=1) + '\n', 'utf-8')
  return plan


def read_plan(directory: str | pathlib.Path) -> tuple[Plan, Vocabulary, bool]:
  """What `write_plan` wrote: plan, vocabulary, whether with documents.

  Raises:
    UserError: when it is missing or damaged.
  """
  directory = pathlib.Path(directory)
  path = directory / PLAN
  try:
    data = json.loads(path.read_text('utf-8'))
    with_documents = data.pop('with_documents')
    plan = Plan(
      settings=PreparationSettings(**data.pop('settings')),
      positions=tuple(Position(**p) for p in data.pop('positions')),
      document_ids_path=directory / DOCUMENT_IDS,
      counts=tuple((kind, count) for kind, count in data.pop('counts')),
      bad_records=tuple(BadRecord(**bad) for bad in data.pop('bad_records')),
      cut_ids=tuple(data.pop('cut_ids')),
      **data,
    )
  except OSError as error:
    raise UserError(
      f'{directory}: no plan of a collection ({error.strerror}); write one '
      'with python -m gr_jax.prepare --plan=FOLDER'
    ) from error
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(f'{path}: damaged: {error}; plan again') from error
  return plan, load_vocabulary(directory / VOCABULARY), with_documents
