"""The insertion door: new documents in a saved index, nothing trained."""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent / 'retrieval'))
sys.path.insert(0, str(pathlib.Path(__file__).parent / 'evaluation'))

import saved_index
import tiny_run

from gr_jax import insert
from gr_jax.data.vocabularies import load_vocabulary
from gr_jax.decoding.trie import ARRAYS, build_trie
from gr_jax.index import manifest
from gr_jax.index.changes import Delete
from gr_jax.index.index import Index
from gr_jax.index.living import LivingIndex
from gr_jax.index.reader import load_index
from gr_jax.indexers.neural import NeuralConfig
from gr_jax.indexers.product import ProductConfig
from gr_jax.indexers.static import StaticConfig
from gr_jax.indexers.tables import TABLES
from gr_jax.models.retriever import Retriever
from gr_jax.retrieval import encoding, insertion
from gr_jax.retrieval.opening import open_searcher, saved_settings
from gr_jax.retrieval.search_settings import SearchSettings
from gr_jax.types import UserError

ROOT = pathlib.Path(__file__).parent.parent


def save_frozen_bert(path, indexer=tiny_run.MODEL.indexer):
  """As a run with a frozen encoder does it: what was pooled is projected."""
  config = dataclasses.replace(tiny_run.MODEL, indexer=indexer)
  tiny_run.write_vocabulary(path.parent / 'tokenizer.json')
  vocabulary = load_vocabulary(path.parent / 'tokenizer.json')
  rng = np.random.default_rng(0)
  texts = [' '.join(rng.choice(tiny_run.WORDS, 9)) for _ in range(30)]
  model = Retriever(config)
  # Without the table of what was trained on, as in an index: every document is
  # coded as one that is new.
  params = {
    name: module
    for name, module in tiny_run.init_params(model, 0).items()
    if name not in TABLES
  }
  tokens = vocabulary.encode_batch(texts, 6)
  pooled_NE = encoding.encode_texts(
    lambda tokens_BS: (
      model.apply({'params': params}, tokens_BS, method='backbone').pooled_BE
    ),
    lambda rows: [tokens[row] for row in rows],
    len(texts),
    6,
  )
  vectors_ND = encoding.project_vectors(model, params, pooled_NE)
  index = Index.build(
    encoding.assign_codes(model, params, vectors_ND),
    [4, 4],
    vectors_ND.astype(np.float16),
    [f'd{row}' for row in range(len(texts))],
    [''] * len(texts),
    texts,
  )
  search = SearchSettings(beams=16, fraction=1.0, batch_sizes=(8,))
  index.save(
    path,
    jax.device_get(params),
    saved_settings(config, search, 6, 6, {}),
    vocabulary,
    {'corpus': 'c' * 64},
  )
  return texts


KINDS = {
  'T5': saved_index.save,
  'frozen BERT': save_frozen_bert,
  **{
    type(indexer).__name__: functools.partial(save_frozen_bert, indexer=indexer)
    for indexer in (
      StaticConfig('rq_kmeans', 2, 4),
      ProductConfig(2, 4),
      NeuralConfig(2, 4, hidden=4),
    )
  },
}


@pytest.fixture(params=list(KINDS))
def saved(request, tmp_path):
  path = tmp_path / 'index'
  return path, KINDS[request.param](path)


def write_corpus(path, texts, first=0):
  lines = [
    json.dumps({'_id': f'new{first + n}', 'title': '', 'text': text})
    for n, text in enumerate(texts)
  ]
  path.write_text('\n'.join(lines) + '\n')
  return path


def test_documents_that_were_there_stay_and_equal_ones_get_equal_codes(
  saved, tmp_path
):
  path, texts = saved
  before = load_index(path)
  found = insert.insert(path, write_corpus(tmp_path / 'new.jsonl', texts * 2))
  count = len(texts)
  index = load_index(path, verify=True)
  assert len(index) == 3 * count
  there, first, second = np.split(np.asarray(index.codes_NL), 3)
  np.testing.assert_array_equal(there, before.codes_NL)
  np.testing.assert_array_equal(first, second)
  for vectors in np.split(np.asarray(index.vectors_ND), 3)[1:]:
    np.testing.assert_allclose(vectors, before.vectors_ND, atol=2e-3)
  assert index.new_N.tolist() == [False] * count + [True] * 2 * count
  assert index.document_ids[count] == 'new0'
  assert index.snippets[count] == texts[0]
  assert (found.documents, found.total) == (2 * count, 3 * count)
  names = {tuple(codes) for codes in there.tolist()}
  joined = [c for c in [*first.tolist(), *second.tolist()] if tuple(c) in names]
  assert found.joined == len(joined)
  assert found.buckets == len(set(map(tuple, joined)))
  assert found.identifiers == len(index.trie.leaf_starts) - len(
    before.trie.leaf_starts
  )
  # Some documents are appended; a version is written when they are many.
  assert index.directory == path / 'v000001' and index.folded
  with LivingIndex(path) as living:
    assert living.fold() == path / 'v000002'
  folded = load_index(path, verify=True)
  assert folded.manifest['new_documents'] == 2 * count
  np.testing.assert_array_equal(folded.codes_NL, index.codes_NL)


def test_in_batches_is_as_at_once(saved, tmp_path):
  path, texts = saved
  rng = np.random.default_rng(3)
  new = [' '.join(rng.permutation(text.split())[:5]) for text in texts]
  parts = shutil.copytree(path, tmp_path / 'again')
  at_once = insert.insert(path, write_corpus(tmp_path / 'all.jsonl', new))
  joined = identifiers = 0
  for start in range(0, len(new), 7):
    part = write_corpus(tmp_path / 'part.jsonl', new[start : start + 7], start)
    found = insert.insert(parts, part)
    joined, identifiers = joined + found.joined, identifiers + found.identifiers
  one, other = load_index(path, verify=True), load_index(parts, verify=True)
  for name in ('codes_NL', 'vectors_ND', 'new_N'):
    np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
  for name in ARRAYS:
    np.testing.assert_array_equal(
      getattr(one.trie, name), getattr(other.trie, name)
    )
  for name in ('document_ids', 'titles', 'snippets'):
    assert list(getattr(one, name)) == list(getattr(other, name))
  # A later batch may join what an earlier one made.
  assert joined >= at_once.joined
  assert identifiers == at_once.identifiers


def test_a_new_document_is_found(saved, tmp_path):
  path, texts = saved
  text = ' '.join(texts[0].split()[::-1])
  insert.insert(path, write_corpus(tmp_path / 'new.jsonl', [text]))
  hits = open_searcher(path).search([text], 3)[0]
  assert 'new0' in [hit.document_id for hit in hits]


def test_what_joins_and_what_is_new_is_counted():
  old_NL = np.uint8([[0, 0], [0, 0], [1, 2]])
  new_NL = np.int32([[1, 2], [0, 0], [0, 0], [3, 3], [3, 3], [1, 1]])
  trie = build_trie(old_NL, (4, 4))
  there_N = insertion.contains(trie, new_NL)
  assert there_N.tolist() == [True, True, True, False, False, False]
  empty = build_trie(old_NL[:0], (4, 4))
  assert not insertion.contains(empty, new_NL).any()
  line = str(insertion.Inserted(6, 1009, 3, 2, 2))
  assert line == (
    'inserted 6 documents, 1,009 are in the index now: 3 went to 2 '
    'identifiers that were there, 3 made 2 new ones'
  )


def test_what_is_not_new_or_not_good_leaves_the_index_alone(saved, tmp_path):
  path, texts = saved
  before = sorted(path.rglob('*'))
  corpus = write_corpus(tmp_path / 'new.jsonl', texts[:3])
  line = json.dumps({'_id': 'd7', 'text': 'words'})
  corpus.write_text(corpus.read_text() + line + '\n')
  with pytest.raises(UserError, match="holds 'd7' already: leave"):
    insert.insert(path, corpus)
  corpus.write_text(corpus.read_text() + '{"_id": "x"}\n')
  with pytest.raises(UserError, match=r"new\.jsonl:5: no 'text'; the record"):
    insert.insert(path, corpus)
  with pytest.raises(UserError, match=r"did you mean 'new\.jsonl'"):
    insert.insert(path, tmp_path / 'new.json')
  with pytest.raises(UserError, match='there is no index folder'):
    insert.insert(tmp_path / 'nowhere', write_corpus(corpus, texts[:1]))
  assert sorted(path.rglob('*')) == before


def test_training_inputs_stay(tmp_path):
  path = tmp_path / 'index'
  texts = save_frozen_bert(path)
  read = load_index(path)
  corpus = write_corpus(tmp_path / 'new.jsonl', texts[:2])
  insert.insert(path, corpus)
  grown = load_index(path)
  assert grown.manifest['inputs_sha256'] == read.manifest['inputs_sha256']
  assert grown.settings() == read.settings()


def test_documents_are_replaced_where_that_is_asked_for(
  saved, tmp_path, caplog
):
  path, texts = saved
  corpus = tmp_path / 'new.jsonl'
  record = {'_id': 'd7', 'text': texts[0], 'tenant': 'acme', 'by': [{'n': 1}]}
  corpus.write_text(json.dumps(record) + '\n')
  found = insert.insert(path, corpus, replaces=True)
  assert "'by' of 1 documents is nothing to filter by" in caplog.text
  assert (found.documents, found.total) == (1, len(texts))
  index = load_index(path)
  assert index.document_ids[len(texts) - 1] == 'd7'
  assert index.snippets[len(texts) - 1] == texts[0]
  assert index.fields.select({'tenant': 'acme'}).sum() == 1


def test_documents_come_where_none_is_left_that_training_saw(tmp_path):
  path = tmp_path / 'index'
  texts = save_frozen_bert(path)
  insert.insert(path, write_corpus(tmp_path / 'new.jsonl', texts[:2]))
  with LivingIndex(path) as living:
    living.apply(Delete([f'd{row}' for row in range(len(texts))]))
    living.fold()
  later = write_corpus(tmp_path / 'later.jsonl', texts[2:4], first=2)
  assert insert.insert(path, later).total == 4
  with LivingIndex(path) as living:
    living.apply(Delete([f'new{row}' for row in range(4)]))
    living.fold()
  assert open_searcher(path).search(texts[:1], 3) == [[]]
  with pytest.raises(UserError, match='holds no document, by whose'):
    insert.insert(path, later)


def test_an_index_of_format_2_is_searched_and_takes_no_documents(
  tmp_path, monkeypatch
):
  path = tmp_path / 'index'
  monkeypatch.setattr(manifest, 'FORMAT', 2)
  settings = saved_settings

  def without_length(*arguments):
    saved = settings(*arguments)
    del saved['document_length']
    return saved

  monkeypatch.setitem(globals(), 'saved_settings', without_length)
  texts = save_frozen_bert(path)
  (path / 'v000001' / 'new.npy').unlink()
  entry = json.loads((path / 'v000001' / 'manifest.json').read_text())
  del entry['files']['new.npy']
  text = json.dumps(entry)
  (path / 'v000001' / 'manifest.json').write_text(text)
  checksum = hashlib.sha256(text.encode()).hexdigest()
  (path / 'CURRENT').write_text(f'v000001 {checksum}\n')
  assert not load_index(path, verify=True).new_N.any()
  assert len(open_searcher(path).search(texts[:1], 3)[0]) == 3
  corpus = write_corpus(tmp_path / 'new.jsonl', texts[:2])
  with pytest.raises(UserError, match='build it again with python -m gr_jax'):
    insert.insert(path, corpus)


def test_the_door_says_what_it_did_and_imports_no_training(tmp_path):
  path = tmp_path / 'index'
  texts = save_frozen_bert(path)
  corpus = write_corpus(tmp_path / 'new.jsonl', texts[:2])
  code = (
    'import sys; from gr_jax import insert;'
    f' insert.main(["--index={path}", "--corpus={corpus}"]);'
    ' heavy = {"tensorflow", "seqio", "orbax", "grain", "optax", "gin", "clu"};'
    ' print("imported", heavy & set(sys.modules))'
  )
  result = subprocess.run(
    [sys.executable, '-c', code],
    env={
      **os.environ,
      'PYTHONPATH': str(ROOT),
      'XDG_CACHE_HOME': str(tmp_path),
    },
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  lines = result.stdout.splitlines()
  assert lines[0].startswith('inserted 2 documents, 32 are in the index now: 2')
  assert lines[1:] == ['imported set()']
