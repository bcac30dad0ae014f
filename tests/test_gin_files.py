"""Every gin file that is shipped builds, and its settings are data."""

import dataclasses
import json
import pathlib
import subprocess

import pytest

from gr_jax import (
  compare,
  configuration,
  run_settings,
  settings,
  text_run_settings,
)
from gr_jax.evaluation.comparison_settings import ComparisonSettings
from gr_jax.indexers.static import CLUSTERINGS, NUMBERINGS, StaticConfig
from gr_jax.models.t5_sizes import T5_SIZES, t5_config
from gr_jax.querygen import query_settings

ROOT = pathlib.Path(__file__).parent.parent
RUNS = sorted(
  path.relative_to(ROOT).as_posix()
  for path in (ROOT / 'gin' / 'runs').rglob('*.gin')
)
EXPERIMENTS = sorted(
  path.relative_to(ROOT).as_posix()
  for path in (ROOT / 'gin' / 'experiments').rglob('*.gin')
)
INDEXERS = sorted(
  path.relative_to(ROOT).as_posix()
  for path in (ROOT / 'gin' / 'indexers').rglob('*.gin')
)
configuration.register(ComparisonSettings, *query_settings.SETTINGS)


@pytest.mark.parametrize('path', RUNS)
def test_run_files_build(path):
  configuration.parse([path], ['RUN_DIR=runs/test', 'DATA_DIR=somewhere'])
  of_texts = 'TextRunSettings.' in (ROOT / path).read_text()
  run = configuration.build(
    text_run_settings.TextRunSettings if of_texts else run_settings.RunSettings
  )
  assert (run.run_dir, run.data_dir) == ('runs/test', 'somewhere')
  data = json.loads(json.dumps(settings.to_json(run)))
  assert settings.from_json(data) == run


@pytest.mark.parametrize('version', T5_SIZES)
@pytest.mark.parametrize('size', T5_SIZES['1.1'])
def test_model_files_have_the_published_sizes(version, size):
  name = f't5_{version.replace(".", "_")}_{size}.gin'
  configuration.parse(
    ['gin/runs/full.gin', f'gin/models/{name}'], ['RUN_DIR=runs/test']
  )
  model = configuration.build(run_settings.RunSettings).model
  assert model.encoder == model.decoder.stack == t5_config(size, version)
  assert model.width == model.encoder.emb_dim


@pytest.mark.parametrize('run', ['quickstart', 'full'])
@pytest.mark.parametrize('path', INDEXERS)
def test_indexer_files_build_beside_every_run(path, run):
  """One of them alone, after the one that the run file includes."""
  sizes = ['POSITIONS=1', 'CODES=70'] if 'atomic' in path else []
  configuration.parse(
    [f'gin/runs/{run}.gin', path],
    ['RUN_DIR=runs/test', *(sizes or ['POSITIONS=8', 'CODES=64'])],
  )
  built = configuration.build(run_settings.RunSettings)
  assert built.model.code_sizes == ((70,) if sizes else (64,) * 8)
  indexer, objective = built.model.indexer, built.objective
  name = pathlib.Path(path).stem
  if not isinstance(indexer, StaticConfig):
    assert type(indexer).__name__ == f'{name.capitalize()}Config'
    return
  assert indexer.kind == name
  assert built.model.indexer_gradient == 1.0
  assert built.training.settled_fraction == 0.0
  on = {
    field.name
    for field in dataclasses.fields(objective)
    if field.name != 'temperature' and getattr(objective, field.name)
  }
  assert on == {'generation', 'bottleneck'}


def distilled(*gin_files, **macros):
  """The settings of a run that learns from a teacher's rankings."""
  named = {'RUN_DIR': 'runs/test', 'TRAINED_RUN': 'runs/before', **macros}
  configuration.parse(
    [*gin_files],
    ['RANKINGS=rankings/a', *(f'{key}={named[key]}' for key in named)],
  )
  return configuration.build(run_settings.RunSettings)


def test_distillation_follows_the_file_of_the_quickstart():
  overlaid = distilled(
    'gin/runs/quickstart.gin', 'gin/objectives/distill.gin',
    CACHE_DIR='runs/before',
  )  # fmt: skip
  assert overlaid == distilled('gin/runs/distill.gin', CACHE_DIR='runs/before')
  teaching, training = overlaid.teaching, overlaid.training
  assert (teaching.base_margin, teaching.margin_gap) == (0.5, 0.1)
  assert (overlaid.lists.lists, overlaid.lists.size) == (1, 16)
  assert (training.steps, training.settled_rounds) == (400, 0)
  assert overlaid.objective.distillation == 5.0


@pytest.mark.parametrize('run', ['full', 'from_encoder'])
def test_distillation_follows_the_files_of_other_runs(run):
  """What it says nothing of stays as the run has it."""
  path = f'gin/runs/{run}.gin'
  found = distilled(path, 'gin/objectives/distill.gin')
  configuration.parse([path], ['RUN_DIR=runs/test'])
  before = configuration.build(run_settings.RunSettings)
  assert (found.lists.path, found.trained_run) == ('rankings/a', 'runs/before')
  for name in ('preparation', 'loader', 'model', 'search', 'encoder_weights'):
    assert getattr(found, name) == getattr(before, name)
  assert found.training.optimizer == before.training.optimizer
  assert found.objective == dataclasses.replace(
    before.objective, distillation=5.0
  )
  assert found.objective.generation == (1.0 if run == 'full' else 0.0)


def test_a_run_that_ranks_for_itself_needs_no_rankings():
  configuration.parse(
    ['gin/runs/quickstart.gin', 'gin/objectives/self_ranked.gin'],
    ['RUN_DIR=runs/test', 'TRAINED_RUN=runs/before', 'CACHE_DIR=runs/before'],
  )
  found = configuration.build(run_settings.RunSettings)
  from_file = distilled('gin/runs/distill.gin', CACHE_DIR='runs/before')
  # Once: there are fewer steps than from one ranking to the next.
  assert found.lists.refresh_every > found.training.steps
  assert found == dataclasses.replace(
    from_file,
    lists=dataclasses.replace(
      from_file.lists, path='', depth=40, refresh_every=1000
    ),
  )


def test_sizes_may_be_given_without_the_macros():
  configuration.parse(
    ['gin/runs/quickstart.gin'],
    ['ResidualConfig.positions=2', 'ResidualConfig.codes=(3, 5)'],
  )
  assert configuration.build(run_settings.RunSettings).model.code_sizes == (
    3, 5
  )  # fmt: skip


def test_every_kind_of_identifier_has_a_file():
  names = {pathlib.Path(path).stem for path in INDEXERS}
  assert names == {'residual', 'neural', 'product', *NUMBERINGS, *CLUSTERINGS}


@pytest.mark.parametrize('path', EXPERIMENTS)
def test_experiment_files_build_with_all_their_runs(path, tmp_path):
  configuration.parse([path])
  comparison = configuration.build(ComparisonSettings)
  # Their collections may not be here: what is planned does not depend on one.
  anywhere = dict.fromkeys(comparison.data_dirs, 'python_docs')
  runs = compare.plan(
    dataclasses.replace(comparison, folder=str(tmp_path), data_dirs=anywhere)
  )
  assert runs and not [run.refused for run in runs if run.refused]


def test_the_file_of_query_generation_builds():
  configuration.parse(
    ['gin/querygen/default.gin'], ['DATA_DIR=somewhere', 'OUTPUT=runs/pseudo']
  )
  asked = configuration.build(query_settings.QueryGenerationSettings)
  assert (asked.data_dir, asked.output) == ('somewhere', 'runs/pseudo')
  data = json.loads(json.dumps(settings.to_json(asked)))
  assert settings.from_json(data) == asked


def test_there_are_run_files():
  assert 'gin/runs/quickstart.gin' in RUNS
  assert 'gin/experiments/smoke.gin' in EXPERIMENTS


SHIPPED = [
  cls
  for _, cls in sorted(settings.registered().items())
  # Other tests register classes of their own.
  if cls.__module__.startswith('gr_jax.')
]


@pytest.mark.parametrize('cls', SHIPPED, ids=lambda cls: cls.__name__)
def test_defaults_fit_their_annotations(cls):
  values = dict.fromkeys(settings.required_fields(cls))
  made = cls(**values)
  for field, annotation in settings.field_types(cls).items():
    if field not in values:
      value = getattr(made, field)
      assert settings.fits(value, annotation), (field, value, annotation)


def test_no_file_of_the_repository_is_ignored():
  """A pattern for outputs once hid gin/runs: a clone had no quickstart."""
  if not (ROOT / '.git').exists():
    pytest.skip('no checkout: git is asked what it ignores')
  files = [
    str(path.relative_to(ROOT))
    for folder in ('gin', 'gr_jax', 'tasks', 'tests', 'requirements', 'docs')
    for path in (ROOT / folder).rglob('*')
    if path.is_file() and '__pycache__' not in path.parts
  ]
  done = subprocess.run(
    ['git', 'check-ignore', '--stdin'],
    input='\n'.join(files),
    capture_output=True,
    text=True,
    check=False,
    cwd=ROOT,
  )
  assert done.returncode in (0, 1), done.stderr
  assert done.stdout.splitlines() == []
