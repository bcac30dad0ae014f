"""Identifiers of a corpus: on all devices, and after a kill."""

import jax
import numpy as np
import one_of_several
import pytest

from gr_jax.retrieval.shards import joined


@pytest.mark.mesh
def test_8_devices_give_what_one_gives(tmp_path, monkeypatch):
  spread = joined(one_of_several.indexed(tmp_path / 'eight')[0])
  devices = jax.local_devices()
  monkeypatch.setattr(jax, 'local_devices', lambda: devices[:1])
  alone = joined(one_of_several.indexed(tmp_path / 'one')[0])
  np.testing.assert_array_equal(spread['codes'], alone['codes'])
  np.testing.assert_allclose(spread['vectors'], alone['vectors'], atol=1e-6)


def test_a_killed_indexing_goes_on_with_its_shard(tmp_path, monkeypatch):
  tokens = one_of_several.PREPARED.document_tokens

  def killed(rows):
    if 9 in rows:
      raise KeyboardInterrupt
    return tokens(rows)

  with monkeypatch.context() as patch:
    patch.setattr(one_of_several.PREPARED, 'document_tokens', killed)
    with pytest.raises(KeyboardInterrupt):
      one_of_several.indexed(tmp_path / 'run')
  paths, read, _ = one_of_several.indexed(tmp_path / 'run')
  assert read == [*range(8, 16), *range(8)]  # The rest are the candidates'.
  whole, _, _ = one_of_several.indexed(tmp_path / 'whole')
  np.testing.assert_array_equal(joined(paths), joined(whole))
