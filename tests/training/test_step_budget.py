"""A newcomer follows one training step through at most 1,500 lines of code.

Counted are the lines with code (blank lines, comments and docstrings help,
and do not count) of every file that a step passes, from the command line and
the loader to the update, with the layers and the longer of the text encoders.
What the same files hold for indexing, searching, or between the stages alone
is left out by name, and so is what the default settings switch off: criteria by
their weight, other heads and optimizers, maps of prefixes, and upkeep of
codebooks. Checks of settings (`__post_init__`) run before there is a step.
"""

import ast
import dataclasses
import io
import pathlib
import textwrap
import tokenize

from gr_jax.data.loader import LoaderSettings
from gr_jax.data.ranked_lists import ListSettings
from gr_jax.models.retriever import RetrieverConfig
from gr_jax.objectives.weighted_sum import ObjectiveSettings
from gr_jax.training.optimizer import OptimizerSettings

ROOT = pathlib.Path(__file__).parent.parent.parent / 'gr_jax'
BUDGET = 1500
PATH = (
  'train.py',
  'parameters.py',
  'precision.py',
  'schedule.py',
  'data/loader.py',
  'training/loop.py',
  'training/step.py',
  'training/state.py',
  'training/optimizer.py',
  'models/retriever.py',
  'models/projection.py',
  'models/encoder.py',
  'models/layers.py',
  'models/t5.py',
  'models/t5_decoder.py',
  'models/code_decoder.py',
  'indexers/interface.py',
  'indexers/residual.py',
  'indexers/sampling.py',
  'indexers/tables.py',
  'indexers/usage.py',
  'objectives/weighted_sum.py',
)
# The file of each criterion, counted where its weight is not 0 by default.
CRITERIA = {
  'generation': 'generation',
  'bottleneck': 'contrastive',
  'quantised': 'contrastive',
  'prefix_contrast': 'prefixes',
  'consistency': 'consistency',
  'commitment': 'commitment',
  'agreement': 'agreement',
  'code_contrast': 'agreement',
  'reconstruction': 'reconstruction',
  'position_entropy': 'balance',
  'density': 'balance',
  'distillation': 'distillation',
  'prefix_density': 'prefixes',
  'sharpness': 'sharpness',
}
# What a file holds for one criterion and no other.
OF_A_CRITERION = {
  'position_entropy': (
    'objectives/balance.py',
    ('position_entropy', 'position_entropy_loss'),
  ),
  'density': ('objectives/balance.py', ('density_loss',)),
  'prefix_contrast': ('objectives/prefixes.py', ('prefix_contrast_loss',)),
  'prefix_density': ('objectives/prefixes.py', ('prefix_density_loss',)),
}
NOT_IN_A_STEP = {
  # What was found beforehand is off, as test_what_is_off_by_default_is_off
  # says.
  'data/loader.py': ('_with_drawn',),
  'models/retriever.py': (
    'Retriever.assign',
    'Retriever.mean_square',
    'Retriever.assign_new',
    'Retriever.candidates',
    'Retriever.start',
    'Retriever.decode',
    # Of criteria, noise and upkeep that are off.
    'RetrieverConfig.learns_noise',
    'Retriever._setup_optional',
    'Retriever._with_optional',
    'Retriever._negatives',
  ),
  # What a stage begins with, and is evaluated and saved with.
  'objectives/weighted_sum.py': ('only',),
  'training/state.py': ('TrainState.all_params',),
  # Of T5's text head.
  'models/layers.py': ('Embed.attend',),
  'indexers/residual.py': ('ResidualIndexer.candidates',),
  'models/code_decoder.py': (
    'DecodingState',
    'StackState',
    'CodeDecoderConfig.stack_decodes',
    'CodeDecoder.start',
    'CodeDecoder.step',
    'CodeDecoder._step_stack',
  ),
  'models/t5_decoder.py': (
    'DecoderCache',
    'empty_cache',
    'T5CausalSelfAttention',
    'T5DecoderLayer.step',
    'T5DecoderStack.step',
    '_write',
  ),
}
NO_CODE = {
  tokenize.COMMENT,
  tokenize.NL,
  tokenize.NEWLINE,
  tokenize.INDENT,
  tokenize.DEDENT,
  tokenize.ENDMARKER,
}


def lines_of_code(text):
  """Lines that hold a token of the program."""
  lines = set()
  for token in tokenize.generate_tokens(io.StringIO(text).readline):
    if token.type not in NO_CODE:
      lines |= set(range(token.start[0], token.end[0] + 1))
  for node in ast.walk(ast.parse(text)):
    if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
      continue
    if ast.get_docstring(node, clean=False) is not None:
      doc = node.body[0]
      lines -= set(range(doc.lineno, doc.end_lineno + 1))
  return len(lines)


def definitions(text):
  """{'Class.method': its number of lines of code, 'function': ...}."""
  found = {}
  for node in ast.parse(text).body:
    for inner in [node, *getattr(node, 'body', [])]:
      if isinstance(inner, (ast.ClassDef, ast.FunctionDef)):
        name = inner.name if inner is node else f'{node.name}.{inner.name}'
        code = ast.get_source_segment(text, inner, padded=True)
        found[name] = lines_of_code(textwrap.dedent(code))
  return found


def test_counting():
  text = '"""Doc."""\n\n# Why.\ndef f(\n  a,\n):\n  """Doc."""\n  return a\n'
  assert lines_of_code(text) == 4
  assert definitions(text) == {'f': 4}


def weights():
  """{'criterion': its default weight}."""
  fields = dataclasses.fields(ObjectiveSettings)
  return {f.name: f.default for f in fields if f.name != 'temperature'}


def passed():
  """The files that a step with default settings passes."""
  files = {*PATH}
  files |= {
    f'objectives/{CRITERIA[name]}.py' for name, w in weights().items() if w
  }
  config = RetrieverConfig()
  if config.upkeep.active:
    files.add('indexers/upkeep.py')
  sampling = config.indexer.sampling
  if sampling.balance == 'sinkhorn':
    files.add('indexers/sinkhorn.py')
  if sampling.gradient == 'rotation':
    files.add('indexers/rotation.py')
  if LoaderSettings().hard_negatives:
    files.add('data/negatives.py')
  if config.indexer.conditioned:
    files.add('indexers/conditioning.py')
  if not config.decoder.tied:
    files.add('models/untied_head.py')
  if OptimizerSettings().name != 'adamw':
    files.add('training/other_optimizers.py')
  return sorted(files)


def unread(name, known):
  """The definitions of a file that such a step does not pass."""
  names = {*NOT_IN_A_STEP.get(name, ())}
  names |= {d for d in known if d.endswith('.__post_init__')}
  for criterion, (file, functions) in OF_A_CRITERION.items():
    if file == name and not weights()[criterion]:
      names |= {*functions}
  return names


def test_what_is_off_by_default_is_off():
  config = RetrieverConfig()
  assert not config.reads_queries and not config.reconstructs
  assert not config.learns_noise and not LoaderSettings().hard_negatives
  assert not ListSettings().path


def test_a_step_is_short_to_read():
  counts = {}
  for name in passed():
    text = (ROOT / name).read_text()
    known = definitions(text)
    counts[name] = lines_of_code(text)
    counts[name] -= sum(known[unused] for unused in unread(name, known))
  total = sum(counts.values())
  assert total <= BUDGET, f'{total} lines: {counts}'
