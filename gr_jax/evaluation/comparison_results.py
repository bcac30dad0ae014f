"""What is kept of a run that was compared: result.json and scores.npz."""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

RESULT = 'result.json'
SCORES = 'scores.npz'
# Systems of a run; the first two at each share of documents scored.
FUSED, GENERATIVE, DENSE = 'fused', 'generative alone', 'exact dense'
BM25, UNTRAINED = 'BM25', 'untrained dense'
# Of what is written and how it is scored.
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Result:
  """A finished run.

  Attributes:
    facts: JSON data: 'weights', 'identifiers', 'seconds', 'versions'.
    scores: score_key(...) -> [B] values of a measure for each query.
  """

  facts: Mapping[str, Any]
  scores: Mapping[str, np.ndarray]


def score_key(split: str, system: str, fraction: float | None, measure: str):
  """Where the scores of a measure (one of metrics.NAMES) lie.

  Args:
    split: 'dev' or 'test'.
    system: of the run.
    fraction: of documents scored; None for systems that score all.
    measure: one of metrics.NAMES.
  """
  share = 'all' if fraction is None else repr(fraction)
  return f'{split}/{system}/{share}/{measure}'


def stamp(*parts: Any) -> str:
  """Hash of JSON data."""
  text = json.dumps([_FORMAT, *parts], sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def write_atomically(path: pathlib.Path, text: str) -> None:
  """Replaces a text file in one step."""
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(path.name + '.tmp')
  partial.write_text(text, encoding='utf-8')
  os.replace(partial, path)


def write(folder: pathlib.Path, sha256: str, result: Result) -> None:
  """Writes the scores, and result.json last: it says that all is there.

  Args:
    folder: of the run.
    sha256: of everything that the result depends on.
    result: what to keep.
  """
  folder.mkdir(parents=True, exist_ok=True)
  partial = folder / f'partial.{SCORES}'
  np.savez_compressed(partial, **result.scores)
  os.replace(partial, folder / SCORES)
  text = json.dumps({'sha256': sha256, **result.facts}, indent=1)
  write_atomically(folder / RESULT, text + '\n')


def read(folder: pathlib.Path, sha256: str) -> Result | None:
  """The result of a run if it is finished and of these settings.

  Args:
    folder: of the run.
    sha256: as `write` took it.
  """
  path = folder / RESULT
  if not path.is_file() or not (folder / SCORES).is_file():
    return None
  facts = json.loads(path.read_text(encoding='utf-8'))
  if facts.pop('sha256', None) != sha256:
    return None
  with np.load(folder / SCORES, allow_pickle=False) as scores:
    return Result(facts, {name: scores[name] for name in scores.files})
