"""Queries a second of the generator, beside `generate` of transformers.

python benchmarks/query_generation.py --output=query_generation.json

A T5 of random weights (sizes of t5.1.0.small unless said otherwise) writes
queries for a batch of random documents, all of the same number of tokens, by
top-k and by nucleus sampling. Where torch and transformers are installed
(pip install gr_jax[parity]) theirs has the same weights, settings and threads,
and the two take turns; 'log_probability_difference' is the largest one between
both for tokens that are written anyway. 'ratio' is how many times as long
theirs takes, in the median turn, with its quartiles. Where others are at work
on the machine, run it on one processor (taskset -c 1): torch's threads wait for
each other actively, and the ratio would tell of that.
"""

import argparse
import functools
import importlib.util
import json
import os
import pathlib
import shlex
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import interleaved
import jax
import numpy as np
from balance import hardware

from gr_jax import entry
from gr_jax.models import import_weights
from gr_jax.models.query_generator import GeneratorConfig, QueryGenerator
from gr_jax.models.t5 import T5Config
from gr_jax.querygen.sampling import SamplingSettings, draw
from gr_jax.types import UserError

# How tokens are drawn: docTTTTTquery's top-k, and a nucleus.
_METHODS = {
  'top_k': {'top_k': 10, 'top_p': 1.0},
  'nucleus': {'top_k': 0, 'top_p': 0.95},
}


class Ours:
  """Our generator."""

  def __init__(self, config: T5Config, weights: Mapping[str, Any]):
    """Takes parameters of models.t5_text.T5."""
    self.model = QueryGenerator(
      GeneratorConfig(config, config, pointer=False, start=0, end=1)
    )
    self.params = jax.device_put(
      {
        'encoder': import_weights.encoder_params(weights),
        'decoder': weights['decoder'],
        'token_embedder': weights['token_embedder'],
      }
    )

  def program(
    self, documents_BS: np.ndarray, settings: SamplingSettings
  ) -> Callable[[jax.Array], Any]:
    """Draws queries from a key."""
    keys = jax.jit(functools.partial(jax.random.split, num=len(documents_BS)))
    return lambda key: draw(
      self.model, self.params, documents_BS, keys(key), settings
    )

  def log_probs(self, documents_BS, queries_BL) -> np.ndarray:
    """[B, L] of queries that are written anyway."""
    inputs_BL = np.pad(queries_BL[:, :-1], ((0, 0), (1, 0)))
    return np.asarray(
      jax.jit(functools.partial(self.model.apply, method='log_probs'))(
        {'params': self.params}, documents_BS, inputs_BL, queries_BL
      )
    )


class Theirs:
  """The same weights in transformers."""

  def __init__(self, folder: str):
    """Reads a folder as `save_pretrained` wrote it."""
    import torch
    import transformers

    self._torch = torch
    # What jax has: all of them.
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    kind = transformers.T5ForConditionalGeneration
    self._model = kind.from_pretrained(folder).eval()
    self.version = f'transformers {transformers.__version__}, '
    self.version += f'torch {torch.__version__}'
    self.threads = torch.get_num_threads()

  def program(
    self, documents_BS: np.ndarray, settings: SamplingSettings
  ) -> Callable[[jax.Array], Any]:
    """Draws queries from a key."""
    torch = self._torch
    inputs = torch.from_numpy(documents_BS.astype(np.int64))

    def generate(key):
      torch.manual_seed(int(jax.random.bits(key)))
      with torch.inference_mode():
        self._model.generate(
          input_ids=inputs,
          attention_mask=(inputs > 0).long(),
          do_sample=True,
          num_return_sequences=settings.queries,
          temperature=settings.temperature,
          top_k=settings.top_k,
          top_p=settings.top_p,
          min_new_tokens=settings.max_tokens,
          max_new_tokens=settings.max_tokens,
        )

    return generate

  def log_probs(self, documents_BS, queries_BL) -> np.ndarray:
    """[B, L] of queries that are written anyway."""
    torch = self._torch
    inputs = torch.from_numpy(documents_BS.astype(np.int64))
    targets = torch.from_numpy(queries_BL.astype(np.int64))
    with torch.inference_mode():
      logits = self._model(
        input_ids=inputs, attention_mask=(inputs > 0).long(), labels=targets
      ).logits
    chosen = torch.log_softmax(logits, -1).gather(-1, targets[..., None])
    return chosen[..., 0].numpy()


def write_weights(folder: str, config: T5Config) -> None:
  """Random weights by transformers, as published ones lie on the hub."""
  import torch
  import transformers

  torch.manual_seed(0)
  theirs = transformers.T5Config(
    vocab_size=config.vocab_size,
    d_model=config.emb_dim,
    d_kv=config.head_dim,
    d_ff=config.mlp_dim,
    num_heads=config.num_heads,
    num_layers=config.num_encoder_layers,
    num_decoder_layers=config.num_decoder_layers,
    feed_forward_proj='relu',
    decoder_start_token_id=0,
  )
  transformers.T5ForConditionalGeneration(theirs).save_pretrained(folder)


def random_weights(config: T5Config) -> dict[str, Any]:
  """Parameters of T5 where there is no transformers."""
  from gr_jax.models.t5_text import T5

  tokens_BS = np.ones((1, 1), np.int32)
  init = jax.jit(T5(config).init)
  return init(jax.random.key(0), tokens_BS, tokens_BS)['params']


def measure(flags: argparse.Namespace) -> dict[str, Any]:
  """Times of both, a row for each way to draw."""
  config = T5Config(
    vocab_size=flags.vocabulary,
    emb_dim=flags.width,
    num_heads=max(flags.width // 64, 1),
    num_encoder_layers=flags.layers,
    num_decoder_layers=flags.layers,
    mlp_dim=4 * flags.width,
    mlp_activations=('relu',),
    logits_via_embedding=True,
  )
  rng = np.random.default_rng(0)
  shape = flags.documents, flags.document_tokens
  documents_BS = rng.integers(2, flags.vocabulary, shape, np.int32)
  shape = flags.documents, flags.tokens
  queries_BL = rng.integers(2, flags.vocabulary, shape, np.int32)
  names = ('torch', 'transformers')
  sides, found = {}, {}
  if all(importlib.util.find_spec(name) for name in names):
    with tempfile.TemporaryDirectory() as folder:
      write_weights(folder, config)
      config, weights, _ = import_weights.import_t5(folder)
      sides['transformers'] = Theirs(folder)
  else:
    weights = random_weights(config)
  sides['gr_jax'] = Ours(config, weights)
  if 'transformers' in sides:
    found = {
      'peer': sides['transformers'].version,
      'peer_threads': sides['transformers'].threads,
    }
    each = [s.log_probs(documents_BS, queries_BL) for s in sides.values()]
    difference = np.abs(each[0] - each[1]).max()
    found['log_probability_difference'] = float(difference)
  for method, changes in _METHODS.items():
    settings = SamplingSettings(
      queries=flags.queries,
      max_tokens=flags.tokens,
      min_tokens=flags.tokens - 1,
      **changes,
    )
    programs = {
      name: side.program(documents_BS, settings) for name, side in sides.items()
    }
    times = interleaved.measure(programs, flags.turns)
    found[method] = row(times, flags.documents * flags.queries)
    print(line(method, found[method]), flush=True)
  return found


def row(times: interleaved.Times, queries: int) -> dict[str, Any]:
  """What is told of times of so many queries."""
  found: dict[str, Any] = {
    'queries_per_second': {
      name: 1e3 * queries / median for name, median in times.medians().items()
    },
    'milliseconds': times.medians(),
    'quartiles': times.quartiles(),
    'least': times.least(),
    'processor': times.processor_medians(),
  }
  if 'transformers' in times.clock:
    ratios = [
      theirs / ours
      for theirs, ours in zip(
        times.clock['transformers'], times.clock['gr_jax'], strict=True
      )
    ]
    found['ratio'] = statistics.median(ratios)
    found['ratio_quartiles'] = interleaved.outer(ratios)
    processor = times.processor_medians()
    found['processor_ratio'] = processor['transformers'] / processor['gr_jax']
  return found


def line(method: str, found: Mapping[str, Any]) -> str:
  """A row for a reader."""
  rates = ', '.join(
    f'{name} {rate:.1f}' for name, rate in found['queries_per_second'].items()
  )
  text = f'{method}: queries a second: {rates}'
  if 'ratio' in found:
    text += f'; ratio {found["ratio"]:.2f}'
    text += f' ({found["processor_ratio"]:.2f} of processor time)'
  return text


def main(arguments: Sequence[str]) -> int:
  """Flags to a file and lines."""
  parser = argparse.ArgumentParser(
    prog='python benchmarks/query_generation.py',
    description=__doc__.partition('\n')[0],
    allow_abbrev=False,
  )
  sizes = {
    'documents': 16, 'queries': 10, 'document_tokens': 160, 'tokens': 24,
    'vocabulary': 32128, 'width': 512, 'layers': 6, 'turns': 5,
  }  # fmt: skip
  for name, value in sizes.items():
    parser.add_argument(f'--{name}', type=int, default=value, metavar='N')
  parser.add_argument('--output', required=True, metavar='FILE')
  flags = parser.parse_args(arguments)
  for name in sizes:
    if getattr(flags, name) < (2 if name in ('tokens', 'turns') else 1):
      raise UserError(f'--{name} is too small: {getattr(flags, name)}')
  contents = {
    'command': 'python benchmarks/query_generation.py ' + shlex.join(arguments),
    'hardware': hardware(),
    **{name: getattr(flags, name) for name in sizes},
    **measure(flags),
  }
  path = pathlib.Path(flags.output)
  path.write_text(json.dumps(contents, indent=1) + '\n', encoding='utf-8')
  return 0


if __name__ == '__main__':
  entry.run_main(main)
