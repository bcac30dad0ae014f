"""The targets of fuzz/ hold for whatever bytes; atheris looks further."""

import pathlib
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / 'fuzz'))

import campaign
import index_reader
import trie


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=60))
@example(b'')
def test_damage_to_an_index_is_refused_or_read(data):
  index_reader.check(data)


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=600))
@example(b'')
def test_the_beam_search_equals_the_reference(data):
  trie.check(data)


def test_a_reader_that_lets_errors_through_is_found(monkeypatch):
  def damaged(path):
    raise KeyError(path)

  monkeypatch.setattr(index_reader.manifests, 'read_object', damaged)
  with pytest.raises(KeyError):
    index_reader.check(b'')


def test_a_search_that_ranks_otherwise_is_found(monkeypatch):
  real = trie._reference
  monkeypatch.setattr(trie, '_reference', lambda *args: real(*args)[::-1])
  with pytest.raises(AssertionError):
    trie.check(bytes(range(200)))


def test_numbers_are_read_to_the_end_and_then_zeros():
  source = campaign.Source(b'\x05\x01\x02\x07')
  assert [source.below(4), source.below(1000)] == [1, 513]
  assert source and source.bytes(9) == b'\x07' and not source
  assert source.below(9) == 0
