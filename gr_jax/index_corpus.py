"""Indexes the corpus of a trained run: identifiers, trie, vectors, texts.

python -m gr_jax.index_corpus --run_dir=runs/NAME [--checkpoint=STEP]
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import pathlib

from gr_jax import entry, processes
from gr_jax.types import UserError

# May be missing, unlike a split of another name to fit on.
_DEV = 'dev'


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m gr_jax.index_corpus',
    description=__doc__.partition('\n')[0],
    allow_abbrev=False,
  )
  entry.add_run_dir_flag(parser)
  processes.add_flags(parser)
  parser.add_argument(
    '--checkpoint', type=int, metavar='STEP', help='default: the last'
  )
  parser.add_argument(
    '--output', metavar='PATH', help='default: index in the run folder'
  )
  return parser


def index_run(
  run_dir: pathlib.Path,
  checkpoint: int | None = None,
  output: pathlib.Path | None = None,
) -> pathlib.Path:
  """Writes the index of a run as the new current version.

  Args:
    run_dir: folder of the run.
    checkpoint: step of the parameters, the last when None.
    output: folder of the index, RUN/index when None.

  Returns:
    The folder of the new version.
  """
  from gr_jax import run_folder, run_settings, run_texts
  from gr_jax.data.collection import Collection
  from gr_jax.models.retriever import Retriever

  run_dir = run_dir.absolute()
  settings = run_folder.read_settings(run_dir)
  params, manifest = _restore(run_dir, checkpoint)
  hashes = manifest['hashes']
  prepared, vocabulary = _prepared(settings, run_dir, hashes)
  collection = Collection(*run_settings.collection_arguments(settings, run_dir))
  shown = []
  # Read by the process that will write it alone.
  processes.first(lambda: shown.extend(_shown(collection, prepared)))
  model = Retriever(settings.model)
  with _on_all_devices(params) as copied:
    texts = run_texts.Texts(settings, run_dir, model, copied, prepared, hashes)
    shards = texts.indexed(copied, _fingerprint(manifest))
    # Writing needs room for them on the device.
    del copied

  def write():
    index = _joined(shards, settings, prepared.document_ids, shown)
    version = _write(
      index, settings, model, params, prepared, vocabulary, hashes, collection,
      output or run_dir / 'index',
    )  # fmt: skip
    return str(version)

  version = pathlib.Path(processes.first(write))
  texts.remove_shards()
  return version


@contextlib.contextmanager
def _on_all_devices(params):
  """Computes on all devices of this process, which hold the parameters each.

  Args:
    params: of the model, on the host.

  Yields:
    The same on the devices, but for tables with a row a document.
  """
  import jax

  from gr_jax.indexers.tables import TABLES
  from gr_jax.training import mesh as meshes

  # Not the mesh of the run: that one may be of other machines.
  mesh = meshes.make_mesh(meshes.MeshSettings(), jax.local_devices())
  with meshes.active(mesh):
    yield {
      name: part
      if name in TABLES
      else jax.device_put(part, meshes.replicated(mesh))
      for name, part in params.items()
    }


def _joined(shards, settings, document_ids, shown):
  """The index in memory, of what processes found of each document."""
  from gr_jax.index.index import Index
  from gr_jax.retrieval.shards import joined

  rows = joined(shards)
  return Index.build(
    rows['codes'].copy(),
    settings.model.code_sizes,
    rows['vectors'].astype(settings.search.vector_type),
    document_ids,
    *shown,
  )


def _fingerprint(manifest) -> str:
  """Of all that vectors of a checkpoint's model depend on."""
  inputs = json.dumps([manifest['files'], manifest['hashes']], sort_keys=True)
  return hashlib.sha256(inputs.encode()).hexdigest()


def _write(
  index, settings, model, params, prepared, vocabulary, hashes, collection,
  output,
):  # fmt: skip
  """Chooses how the index will be searched and writes it."""
  from gr_jax.indexers.tables import TABLES
  from gr_jax.retrieval.opening import saved_settings
  from gr_jax.retrieval.searcher import Searcher
  from gr_jax.retrieval.sharded import over_local_devices
  from gr_jax.settings import to_json

  # What is known of the corpus's documents is in their identifiers by now.
  searched = {k: v for k, v in params.items() if k not in TABLES}
  spread, mesh = over_local_devices(settings.search)
  search = _fitted(
    Searcher(
      index, model, searched, vocabulary, prepared.query_length, spread,
      mesh=mesh,
    ),
    collection,
  )  # fmt: skip
  # Whoever searches has other devices.
  search = dataclasses.replace(search, batch_sizes=settings.search.batch_sizes)
  saved = saved_settings(
    settings.model,
    search,
    prepared.query_length,
    prepared.document_length,
    to_json(settings),
  )
  inputs = {
    'corpus': prepared.manifest['corpus_sha256'],
    'encoder_weights': hashes['encoder_weights'],
    'examples': hashes['examples'],
  }
  return index.save(output, searched, saved, vocabulary, inputs)


def _restore(run_dir: pathlib.Path, checkpoint: int | None):
  """Parameters of a checkpoint and its manifest."""
  from gr_jax.training.checkpoints import Checkpoints

  checkpoints = Checkpoints(run_dir / 'checkpoints')
  try:
    step = checkpoint
    if step is None:
      step = processes.first(checkpoints.latest)
    if step is None:
      raise UserError(
        f'{checkpoints.directory} holds no checkpoint: train the run first'
      )
    manifest = processes.first(lambda: checkpoints.verify(step))
    return checkpoints.restore_params(step), manifest
  finally:
    checkpoints.close()


def _prepared(settings, run_dir, hashes):
  """Prepared texts and their vocabulary, those that the run was trained on."""
  from gr_jax import run_settings
  from gr_jax.data.prepared import PreparedData

  prepared = PreparedData(
    run_settings.cache_dir(settings, run_dir) / 'prepared'
  )
  for name, sha256 in prepared.hashes().items():
    if sha256 != hashes[name]:
      raise UserError(
        f'{run_dir} was trained with {name} {hashes[name][:12]}, '
        f'{prepared.directory} has {sha256[:12]}: give its gr_jax.train '
        'command again with the former data, or train in another RUN_DIR'
      )
  return prepared, prepared.vocabulary()


def _shown(collection, prepared):
  """Titles, snippets and metadata; refuses a corpus that changed since."""
  from gr_jax.index.fields import usable
  from gr_jax.index.index import SNIPPET_LENGTH

  if collection.corpus_sha256() != prepared.manifest['corpus_sha256']:
    raise UserError(
      f'the corpus in {collection.directory} has changed since it was '
      'prepared: bring back the former, or train in another RUN_DIR'
    )
  titles, snippets, metadata = [], [], []
  for document in collection.documents():
    titles.append(document.title)
    snippets.append(document.text[:SNIPPET_LENGTH])
    metadata.append(document.metadata)
  kept, lines = usable(metadata)
  for line in lines:
    print(line)
  return titles, snippets, kept


def _fitted(searcher, collection):
  """How the index will be searched: with the weights that dev chooses."""
  from gr_jax.evaluation import fusion_fit

  settings = searcher.settings
  split = settings.fit_on
  # A collection needs no dev split; one that somebody named should be there.
  if not split or (split == _DEV and split not in collection.splits()):
    return settings
  judged = fusion_fit.judged_queries(collection, split, searcher.document_ids)
  if not judged.texts:
    return settings
  fit = fusion_fit.fit(searcher, judged)
  print(fit, flush=True)
  return fit.settings


def warm_up(index: pathlib.Path) -> None:
  """Searches once, so that the compiled program waits for the first query.

  In a process of its own, as that is what the next search is; an accelerator
  is held by this process and would not be free for it.
  """
  import jax

  if jax.default_backend() != 'cpu':
    return
  arguments = [f'--index={index}', 'warm up']
  processes.first(
    lambda: entry.run_apart('gr_jax.search', arguments, silent=True)
  )


def main(arguments: list[str]) -> int:
  """The door: flags to one call."""
  flags = _parser().parse_args(arguments)
  entry.keep_compiled()
  run_dir = pathlib.Path(flags.run_dir)
  output = pathlib.Path(flags.output) if flags.output else run_dir / 'index'
  with processes.joined(flags):
    version = index_run(run_dir, flags.checkpoint, output)
    warm_up(output)
    processes.say(f'wrote {version}')
    processes.say(
      f'search it: python -m gr_jax.search --index={output} "my query"'
    )
  return 0


if __name__ == '__main__':
  entry.run_main(main)
