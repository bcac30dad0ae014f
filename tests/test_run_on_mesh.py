"""A whole run on a mesh of 8 devices, from texts to documents."""

import jax
import numpy as np
import pytest
from test_end_to_end import settings
from tiny_collection import write_collection

from gr_jax import index_corpus, train
from gr_jax.evaluate import evaluate
from gr_jax.index.reader import load_index
from gr_jax.training.logs import read_jsonl

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]


@pytest.mark.parametrize(
  'sizes',
  [{'data': 8}, {'data': 2, 'fsdp': 2, 'model': 2}],
  ids=['data', 'data, fsdp and model'],
)
def test_it_finds_every_document_of_a_corpus_it_can_memorise(
  sizes, tmp_path, monkeypatch
):
  write_collection(tmp_path / 'data')
  run = settings(
    tmp_path,
    'STEPS=160',
    'TrainingSettings.evaluate_every=160',
    *(f'MeshSettings.{name}={size}' for name, size in sizes.items()),
  )
  train.train(run, tmp_path / 'run')
  index_corpus.index_run(tmp_path / 'run')
  rows = {row['name']: row for row in evaluate(tmp_path / 'run')['systems']}
  assert rows['gr_jax']['R@1'] == 1.0
  logs = read_jsonl(tmp_path / 'run' / 'logs')
  assert [line['dev/R@10'] for line in logs if 'dev/R@10' in line] == [1.0]
  # What one device makes of the same checkpoint.
  devices = jax.local_devices()
  monkeypatch.setattr(jax, 'local_devices', lambda: devices[:1])
  index_corpus.index_run(tmp_path / 'run', output=tmp_path / 'one')
  spread = load_index(tmp_path / 'run' / 'index')
  one = load_index(tmp_path / 'one')
  np.testing.assert_array_equal(spread.codes_NL, one.codes_NL)
  np.testing.assert_allclose(spread.vectors_ND, one.vectors_ND, atol=1e-3)
  assert spread.settings() == one.settings()
