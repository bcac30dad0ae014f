"""T5X itself, in processes of its own: train, resume, eval, infer, and back.

Minutes; skipped where T5X is not installed.
"""

import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from small_run import GIN
from tiny_collection import write_collection

from gr_jax import entry

# A folder of that name, as this one, is found without being installed.
_SPEC = importlib.util.find_spec('t5x')
pytestmark = [
  pytest.mark.t5x,
  pytest.mark.skipif(
    _SPEC is None or _SPEC.origin is None,
    reason='t5x is not installed, see requirements/t5x.in',
  ),
  pytest.mark.filterwarnings('default'),
  pytest.mark.timeout(3600),
]

ROOT = pathlib.Path(__file__).parent.parent.parent
# Without noise; one stage, which k-means starts.
QUIET = """
T5Config.dropout_rate = 0.0
TrainingSettings.noise = @quiet/Schedule()
quiet/Schedule.start = 0.0
quiet/Schedule.end = 0.0
TrainingSettings.dense_fraction = 0.0
TrainingSettings.settled_fraction = 0.0
TrainingSettings.log_every = 1
TrainingSettings.checkpoint_every = 25
TrainingSettings.keep_checkpoints = 3
OptimizerSettings.name = 'adamw'
OptimizerSettings.learning_rate = 3e-3
OptimizerSettings.vector_rate = 1.0
"""
STEPS = 60
TRAINED = 50
MESHES = {
  'one device': (1, (1, 1, 1, 1)),
  'data 4 x model 2': (8, (1, 1, 1, 2)),
}


def run(module, *arguments, devices=1):
  """What a door or T5X's script prints, its errors included."""
  flags = os.environ.get('XLA_FLAGS', '')
  environment = {
    **os.environ,
    'XLA_FLAGS': f'{flags} --xla_force_host_platform_device_count={devices}',
    'JAX_COMPILATION_CACHE_DIR': str(ROOT / 'build' / 'xla_cache'),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
    'TF_CPP_MIN_LOG_LEVEL': '2',
  }
  # T5X does not see to it.
  entry.give_threads_to_virtual_devices(environment)
  done = subprocess.run(
    [sys.executable, '-m', module, *map(str, arguments)],
    cwd=ROOT,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stdout[-4000:]
  return done.stdout


def t5x(script, mesh='one device', **bindings):
  """Runs `python -m t5x.SCRIPT` with our gin file and bindings."""
  devices, submesh = MESHES[mesh]
  bindings = {
    name: repr(str(value) if isinstance(value, pathlib.Path) else value)
    for name, value in bindings.items()
  }
  bindings['MODEL_PARALLEL_SUBMESH'] = repr(submesh)
  return run(
    f't5x.{script}',
    f'--gin_file=gin/t5x/{script}.gin',
    *[f'--gin.{name}={value}' for name, value in bindings.items()],
    devices=devices,
  )


def train(run_dir, model_dir, steps, mesh='one device', **more):
  """Trains on the batches of gr_jax.train."""
  return t5x(
    'train',
    mesh,
    RUN_DIR=run_dir,
    MODEL_DIR=model_dir,
    TRAIN_STEPS=steps,
    CHECKPOINT_PERIOD=25,
    CHECKPOINTS_KEPT=9,
    EVAL_PERIOD=25,
    EVAL_STEPS=2,
    STATS_PERIOD=1,
    **more,
  )


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp('t5x')
  write_collection(path / 'data')
  (path / 'quiet.gin').write_text(QUIET)
  return path


def gin(folder, run_dir):
  """Flags of a run; all share the prepared examples."""
  return [
    *GIN,
    f'--gin_file={folder / "quiet.gin"}',
    f'--gin.RUN_DIR={run_dir}',
    f'--gin.DATA_DIR={folder / "data"}',
    f'--gin.CACHE_DIR={folder / "cache"}',
    f'--gin.STEPS={STEPS}',
  ]


@pytest.fixture(scope='module')
def ours(folder):
  """A run of our launcher to its end."""
  run('gr_jax.train', *gin(folder, folder / 'ours'))
  return folder / 'ours'


@pytest.fixture(scope='module')
def started(folder):
  """A run that T5X begins: its folder, and the checkpoint of step 0."""
  said = run(
    'gr_jax.t5x.convert',
    *gin(folder, folder / 'run'),
    f'--to={folder / "start"}',
  )
  assert f"STAGE = 'codes', TRAIN_STEPS = {STEPS}" in said
  return folder / 'run', folder / 'start'


@pytest.fixture(scope='module', params=MESHES)
def trained(folder, started, request):
  """A MODEL_DIR after all steps, with a checkpoint of 50, and its mesh."""
  model_dir = folder / request.param.replace(' ', '_')
  shutil.copytree(started[1], model_dir)
  train(started[0], model_dir, STEPS, request.param, **PREPARED)
  return model_dir, request.param


# gin's reference to a function, which repr would quote.
class _Reference(str):
  def __repr__(self):
    return str(self)


PREPARED = {'train.get_dataset_fn': _Reference('@batches.prepared_batches')}


def losses(model_dir, name='loss'):
  """{steps done: loss} as T5X logged them, or a metric of that name."""
  from tensorboard.backend.event_processing import event_accumulator
  from tensorboard.util import tensor_util

  events = event_accumulator.EventAccumulator(
    str(model_dir / 'train'), {'tensors': 0}
  ).Reload()
  return {
    event.step: float(tensor_util.make_ndarray(event.tensor_proto))
    for event in events.Tensors(name)
  }


def our_losses(run_dir):
  """The same of gr_jax.train."""
  lines = (run_dir / 'logs' / 'metrics.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  return {row['step']: row['loss'] for row in rows if 'loss' in row}


def arrays(checkpoint):
  """{name: array} of all that a checkpoint holds, of T5X's or of ours."""
  import jax
  from orbax import checkpoint as ocp

  reader = ocp.PyTreeCheckpointer()
  names = reader.metadata(checkpoint / 'state').item_metadata.tree
  # As it lies there, whatever devices it was written from.
  plain = jax.tree.map(
    lambda _: ocp.RestoreArgs(restore_type=np.ndarray), names
  )
  tree = reader.restore(checkpoint / 'state', restore_args=plain)
  return {
    jax.tree_util.keystr(path): np.asarray(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def same(one, other):
  assert one.keys() == other.keys()
  for name, array in one.items():
    assert array.dtype == other[name].dtype, name
    np.testing.assert_array_equal(array, other[name], err_msg=name)


def test_losses_are_those_of_our_launcher(trained, ours):
  mine, theirs = our_losses(ours), losses(trained[0])
  first = range(1, 11)
  np.testing.assert_allclose(
    [theirs[step] for step in first], [mine[step] for step in first], rtol=1e-4
  )
  assert max(theirs) == STEPS
  assert theirs[STEPS] < theirs[1]


def test_tables_and_usage_are_in_the_checkpoint(trained):
  before = arrays(trained[0] / 'checkpoint_0')
  after = arrays(trained[0] / f'checkpoint_{TRAINED}')
  assert before.keys() == after.keys()
  usage = [name for name in after if "['usage']['share']" in name]
  assert usage and not np.array_equal(after[usage[0]], before[usage[0]])
  frozen = [name for name in after if "['frozen']" in name]
  same({n: before[n] for n in frozen}, {n: after[n] for n in frozen})


def test_a_resumed_run_is_the_uninterrupted_one(trained, started, folder):
  model_dir, mesh = trained
  resumed = folder / f'{model_dir.name}_resumed'
  later = (f'*_{TRAINED}', f'*_{STEPS}', 'train')
  shutil.copytree(model_dir, resumed, ignore=shutil.ignore_patterns(*later))
  train(started[0], resumed, STEPS, mesh, **PREPARED)
  assert min(losses(resumed)) == 26
  for step in (TRAINED, STEPS):
    name = f'checkpoint_{step}'
    same(arrays(model_dir / name), arrays(resumed / name))


def metrics(folder):
  """{step: metrics} that seqio wrote."""
  path = folder / 'inference_eval' / 'gr_jax_dev-metrics.jsonl'
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  return {row.pop('step'): row for row in rows}


def test_metrics_of_training_are_those_of_eval(trained, started, folder):
  model_dir, mesh = trained
  output = folder / f'{model_dir.name}_eval'
  t5x(
    'eval',
    mesh,
    RUN_DIR=started[0],
    CHECKPOINT_PATH=model_dir / f'checkpoint_{TRAINED}',
    EVAL_OUTPUT_DIR=output,
  )
  found = metrics(output)[TRAINED]
  assert found == metrics(model_dir)[TRAINED]
  # Ten of 40 at random would be .25.
  assert found['R@10'] > 0.5


@pytest.fixture(scope='module')
def returned(folder, started, trained):
  """The run taken back from T5X, to its end and its index by our launcher."""
  model_dir, _ = trained
  run_dir = folder / f'{model_dir.name}_back'
  shutil.copytree(started[0], run_dir)
  source = model_dir / f'checkpoint_{TRAINED}'
  run('gr_jax.t5x.convert', f'--run_dir={run_dir}', f'--from={source}')
  assert (run_dir / 'checkpoints' / f'step_{TRAINED:08d}').is_dir()
  run('gr_jax.train', *gin(folder, run_dir))
  return run_dir


def test_our_launcher_goes_on_from_t5x(returned, trained):
  """With the steps that T5X itself made from there."""
  mine, theirs = our_losses(returned), losses(trained[0])
  assert sorted(mine) == list(range(TRAINED + 1, STEPS + 1))
  first = range(TRAINED + 1, TRAINED + 6)
  np.testing.assert_allclose(
    [theirs[step] for step in first], [mine[step] for step in first], rtol=1e-4
  )


def test_infer_keeps_to_the_trie_of_an_index(
  trained, returned, started, folder
):
  from gr_jax.index.reader import load_index

  model_dir, mesh = trained
  output = folder / f'{model_dir.name}_infer'
  t5x(
    'infer',
    mesh,
    RUN_DIR=started[0],
    CHECKPOINT_PATH=model_dir / f'checkpoint_{TRAINED}',
    INFER_OUTPUT_DIR=output,
    IDENTIFIERS=returned / 'index',
    PLACES=6,
  )
  index = load_index(returned / 'index')
  codes = dict(zip(index.document_ids, index.codes_NL.tolist(), strict=True))
  (path,) = output.glob('gr_jax_dev-*-of-00001')
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  assert len(rows) == 40
  for row in rows:
    found, aux = row['prediction'], row['aux']
    assert len(set(found)) == len(found) > 0
    assert aux['codes'][: len(found)] == [codes[name] for name in found]
    scores = aux['scores'][: len(found)]
    assert scores == sorted(scores, reverse=True)
  hits = [
    row['inputs']['query_id_pretokenized'].rpartition('-')[0]
    in row['prediction']
    for row in rows
  ]
  # Six of 40 at random would be .15.
  assert np.mean(hits) > 0.3


def test_t5x_goes_on_from_our_launcher(ours, folder):
  """From step 25 of ours; the state is bit-equal there and back."""
  run_dir, model_dir = folder / 'ours_at_25', folder / 'from_ours'
  shutil.copytree(
    ours, run_dir, ignore=shutil.ignore_patterns('*50', '*60', 'index', 'logs')
  )
  run('gr_jax.t5x.convert', f'--run_dir={run_dir}', f'--to={model_dir}')
  back = folder / 'back_at_25'
  shutil.copytree(run_dir, back, ignore=shutil.ignore_patterns('checkpoints'))
  run('gr_jax.t5x.convert', f'--run_dir={back}', f'--from={model_dir}')
  steps = [path / 'checkpoints' / 'step_00000025' for path in (run_dir, back)]
  same(*map(arrays, steps))
  manifests = [
    json.loads((step / 'manifest.json').read_text()) for step in steps
  ]
  there, here = (manifest['content'] for manifest in manifests)
  assert [there['arrays'], there['hashes']] == [here['arrays'], here['hashes']]
  place = [json.loads((step / 'data.json').read_text()) for step in steps]
  assert place == [{'next_index': 25}] * 2
  train(run_dir, model_dir, 30, **PREPARED)
  mine, theirs = our_losses(ours), losses(model_dir)
  steps = range(26, 31)
  np.testing.assert_allclose(
    [theirs[step] for step in steps], [mine[step] for step in steps], rtol=1e-4
  )


def test_the_tasks_alone_are_enough(started, folder):
  """From scratch, on the seqio mixture, with metrics from seqio."""
  model_dir = folder / 'from_tasks'
  for steps in (25, 50):
    train(started[0], model_dir, steps)
  assert sorted(losses(model_dir)) == list(range(1, 51))
  found = metrics(model_dir)
  assert sorted(found) == [25, 50]
  # Ten of 40 at random would be .25.
  assert found[50]['R@10'] > 0.3


def test_a_teacher_is_followed_from_the_mixture(ours, folder):
  rankings, model_dir = folder / 'rankings', folder / 'distilled_t5x'
  run(
    'gr_jax.rank_with_teacher', f'--run_dir={ours}', '--source=labelled',
    '--teacher=bm25', '--candidates=bm25', f'--output={rankings}',
  )  # fmt: skip
  # Identifiers are given first: the codes of that run moved to its end.
  run(
    'gr_jax.t5x.convert', *gin(folder, folder / 'distilled'),
    f'--gin.RunSettings.trained_run={ours}',
    f'--gin.RunSettings.encoder_weights=run:{ours}',
    '--gin.RunSettings.lists=@ListSettings()',
    f'--gin.ListSettings.path={rankings}', '--gin.ListSettings.least=4',
    '--gin.ObjectiveSettings.distillation=1.0', f'--to={model_dir}',
    '--gin.TrainingSettings.settled_fraction=1.0',
  )  # fmt: skip
  train(folder / 'distilled', model_dir, 10, STAGE='settled')
  followed = losses(model_dir, 'margin_rank')
  assert [*followed] == [*range(1, 11)] and followed[10] < followed[1]


def test_microbatches_are_refused(started, folder):
  with pytest.raises(AssertionError, match='num_microbatches = None'):
    train(
      started[0],
      folder / 'refused',
      1,
      **{'RetrieverTrainer.num_microbatches': 2},
    )
