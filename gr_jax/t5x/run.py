"""What T5X's gin files ask of a run folder of ours.

RUN/settings.json says what is trained, and RUN/prepared on what:
`python -m gr_jax.t5x.convert --gin_file=...` writes both.
"""

import functools
import pathlib

from gr_jax import run_folder, run_settings
from gr_jax.data.prepared import PreparedData
from gr_jax.data.ranked_lists import ListSettings
from gr_jax.t5x.contract import RetrieverModel
from gr_jax.t5x.identifiers import read_identifiers
from gr_jax.training.mesh import RULES
from gr_jax.training.optimizer import learning_rate as rate_schedule
from gr_jax.training.stages import stage_steps


def model(
  run_dir: str, stage: str, identifiers: str = '', places: int = 100
) -> RetrieverModel:
  """The model of one stage.

  Args:
    run_dir: folder of the run.
    stage: 'dense', 'codes' or 'settled'.
    identifiers: a .npy file of codes or the folder of an index, whose
      identifiers stand in place of those of the state; empty for none.
    places: documents that a prediction names at most.
  """
  settings, prepared = opened(run_dir)
  ids = prepared.document_ids
  given = None
  if identifiers:
    given = read_identifiers(identifiers, ids, settings.model.code_sizes)
  return RetrieverModel(settings, len(ids), stage, given, places)


@functools.lru_cache(maxsize=1)
def opened(run_dir: str) -> tuple[run_settings.RunSettings, PreparedData]:
  """Settings and prepared examples of a run.

  Args:
    run_dir: its folder.
  """
  folder = pathlib.Path(run_dir).absolute()
  settings = run_folder.read_settings(folder)
  prepared = PreparedData(run_settings.cache_dir(settings, folder) / 'prepared')
  return settings, prepared


def prepared_directory(run_dir: str) -> str:
  """The folder that preparation wrote."""
  return str(opened(run_dir)[1].directory)


def rates(run_dir: str) -> dict[str, float]:
  """LoaderSettings.rates of the run."""
  return dict(opened(run_dir)[0].loader.rates)


def batch_size(run_dir: str) -> int:
  """LoaderSettings.batch_size of the run."""
  return opened(run_dir)[0].loader.batch_size


def seed(run_dir: str) -> int:
  """LoaderSettings.seed of the run."""
  return opened(run_dir)[0].loader.seed


def feature_lengths(run_dir: str) -> dict[str, int]:
  """Tokens of the Task features, and one number of a document."""
  prepared = opened(run_dir)[1]
  return {
    'query': prepared.query_length,
    'document': prepared.document_length,
    'targets': 1,
  }


def training_lengths(run_dir: str) -> dict[str, int]:
  """`feature_lengths`, and lists of a query where the run follows a teacher."""
  taught = lists(run_dir)
  named = ('list_index', 'list_scores') if taught.path else ()
  return feature_lengths(run_dir) | dict.fromkeys(named, taught.lists)


def lists(run_dir: str) -> ListSettings:
  """RunSettings.lists, the rankings that the run follows."""
  return opened(run_dir)[0].lists


def learning_rate(run_dir: str, stage: str):
  """What T5X shows as the rate: that of the stage, from its first step."""
  training = opened(run_dir)[0].training
  schedule = rate_schedule(
    training.optimizer.learning_rate,
    training.optimizer.warmup,
    stage_steps(training)[stage],
  )
  first = training.first_steps[stage]

  def rate(step):
    since = step - first
    if stage == 'settled':
      since = since % training.round_steps
    return schedule(since)

  return rate


def stage_end(training, step: int) -> int:
  """Where the stage or round ends that a step is in.

  Args:
    training: training.state.TrainingSettings.
    step: before the last.
  """
  return min(at for at in {*training.beginnings, training.steps} if at > step)


def axis_rules() -> tuple[tuple[str, str | None], ...]:
  """training.mesh.RULES for T5X's mesh, which has no fsdp axis.

  Rows of tables are on every device: their number need not divide there.
  """

  def on_mesh(name, axis):
    if isinstance(axis, tuple):
      return None if name == 'means' else 'data'
    return None if axis == 'fsdp' else axis

  return tuple((name, on_mesh(name, axis)) for name, axis in RULES)
