"""What the benchmark of planning counts, and what it changes."""

import pathlib
import sys
from types import SimpleNamespace

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / 'benchmarks'))

import planning

from gr_jax.retrieval.search_settings import SearchSettings
from gr_jax.types import NO_DOC


def test_recall_is_the_mean_share_of_what_is_wanted():
  found = SimpleNamespace(documents_BC=np.array([[2, 0], [1, NO_DOC]]))
  searcher = SimpleNamespace(
    document_ids=['a', 'b', 'c'], search_batch=lambda texts, k: found
  )
  wanted = [{'a', 'b'}, {'c'}]
  assert planning.recall_at_10(searcher, ['x', 'y'], wanted) == 0.25


def test_no_documents_are_no_planning():
  assert SearchSettings(**planning.settings_of(7, 0, 80.0)).planning is None
  settings = SearchSettings(**planning.settings_of(7, 3, 80.0))
  assert (settings.beams, settings.planning.documents) == (7, 3)


def test_encoding_is_left_out():
  searcher = SimpleNamespace(
    encode=lambda texts: 0, search_batch=lambda texts, k: 0
  )
  times = planning.milliseconds({'one': searcher}, ['x', 'y'], 3)
  assert set(times['one']) == {'clock', 'processor'}
