"""MPNet in Hugging Face's layout: a BERT with relative positions."""

import jax
import numpy as np
import pytest
import reference_models

from gr_jax import configuration, run_settings
from gr_jax.models import import_weights
from gr_jax.models.bert import BertConfig, BertEncoder
from gr_jax.models.import_weights import import_bert, import_cross_encoder
from gr_jax.types import UserError

POSITIONS = list(reference_models.MPNET_POSITIONS)
REAL = reference_models.MPNET_TOKENS[:, POSITIONS] != 1


def hf_folder(folder, **changes):
  return reference_models.write_hf(
    folder,
    reference_models.mpnet_hf_config() | changes,
    reference_models.mpnet_hf_arrays(),
  )


def states(source):
  """Of the reference's tokens, whose ids 0 and 1 are swapped here."""
  config, params, _ = import_bert(source)
  tokens_BS = reference_models.MPNET_TOKENS
  tokens_BS = np.where(tokens_BS < 2, 1 - tokens_BS, tokens_BS)
  encode = jax.jit(BertEncoder(config).apply)
  return np.asarray(encode({'params': params}, tokens_BS))[:, POSITIONS]


def test_it_agrees_with_the_golden(tmp_path):
  with np.load(reference_models.GOLDENS / 'mpnet.npz') as golden:
    expected = golden['states']
  np.testing.assert_allclose(
    states(hf_folder(tmp_path))[REAL], expected[REAL], rtol=0, atol=2e-5
  )


def test_it_agrees_with_transformers(tmp_path):
  pytest.importorskip('torch', reason='torch is not installed')
  pytest.importorskip('transformers', reason='transformers is not installed')
  import make_goldens

  expected = make_goldens.mpnet_outputs()['states']
  np.testing.assert_allclose(
    states(hf_folder(tmp_path))[REAL], expected[REAL], rtol=0, atol=2e-5
  )


def test_its_settings(tmp_path):
  config, params, _ = import_bert(hf_folder(tmp_path))
  assert config == BertConfig(
    vocab_size=40, emb_dim=16, num_heads=4, num_layers=2, mlp_dim=24,
    max_length=150, type_vocab_size=0, relpos_buckets=32, norm_epsilon=1e-5,
  )  # fmt: skip
  arrays = reference_models.mpnet_hf_arrays()
  words = arrays['embeddings.word_embeddings.weight']
  ours = params['token_embedder']['embedding']
  np.testing.assert_array_equal(ours[[0, 1, 2, 39]], words[[1, 0, 2, 39]])


def test_what_is_no_mpnet_is_refused(tmp_path):
  with pytest.raises(UserError, match=r'relative_attention_bias\.weight has'):
    import_bert(hf_folder(tmp_path / 'a', relative_attention_num_buckets=16))
  with pytest.raises(UserError, match="says 'mpnet'"):
    import_cross_encoder(hf_folder(tmp_path / 'b'))


def test_the_gin_file_has_the_published_sizes(tmp_path):
  configuration.parse(
    ['gin/runs/quickstart.gin', 'gin/models/mpnet.gin'], ['RUN_DIR=run']
  )
  model = configuration.build(run_settings.RunSettings).model
  published = {
    'vocab_size': 30527, 'hidden_size': 768, 'num_attention_heads': 12,
    'num_hidden_layers': 12, 'intermediate_size': 3072,
    'max_position_embeddings': 514,
  }  # fmt: skip
  hf = reference_models.mpnet_hf_config() | published
  assert model.encoder == import_weights._bert_config(hf, 'it', ('mpnet',))
  assert model.width == model.encoder.emb_dim
