"""A run of train_text: it learns queries by heart, and goes on bit for bit."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest
import tiny_collection

from gr_jax import generate_queries, run_folder, train_text
from gr_jax.checksums import file_sha256
from gr_jax.data import prepared, shard_files
from gr_jax.data.collection import Collection
from gr_jax.data.loader import LoaderSettings
from gr_jax.data.preparation_settings import (
  FORMAT,
  PreparationSettings,
  inputs_hash,
)
from gr_jax.data.pseudo_queries import read_pseudo_queries
from gr_jax.data.vocabularies import load_vocabulary
from gr_jax.models.bert import BertConfig
from gr_jax.models.query_generator import GeneratorConfig, QueryGenerator
from gr_jax.models.t5 import T5Config
from gr_jax.querygen.generator import load_generator
from gr_jax.querygen.sampling import SamplingSettings, draw
from gr_jax.text_run_settings import TextRunSettings
from gr_jax.training.checkpoints import Checkpoints
from gr_jax.training.logs import read_jsonl
from gr_jax.training.optimizer import OptimizerSettings
from gr_jax.training.text_step import TextTrainingSettings
from gr_jax.types import UserError, document_text

ROOT = pathlib.Path(__file__).parents[2]
STEPS, SAVED = 200, 180
QUERY, DOCUMENT = 10, 20
START, END = 2, 3
WORDS = [
  *tiny_collection.ANIMALS,
  *tiny_collection.PLACES,
  *('the', 'lives', 'at', 'and', 'sleeps', 'by', 'day', 'of', 'which', 'is'),
  '.',
]


def write_vocabulary(folder):
  """A tokenizer.json of the words of the tiny collection."""
  from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
  from tokenizers.processors import TemplateProcessing

  pieces = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', *WORDS]
  numbers = {piece: number for number, piece in enumerate(pieces)}
  tokenizer = Tokenizer(models.WordPiece(numbers, unk_token='[UNK]'))
  tokenizer.normalizer = normalizers.BertNormalizer()
  tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  tokenizer.post_processor = TemplateProcessing(
    single='[CLS] $A [SEP]',
    special_tokens=[('[CLS]', START), ('[SEP]', END)],
  )
  folder.mkdir(parents=True)
  tokenizer.save(str(folder / 'tokenizer.json'))
  return len(pieces)


def write_prepared(path, settings):
  """What preparation would write, without TensorFlow's seconds."""
  path.mkdir(parents=True)
  collection = Collection(settings.data_dir)
  vocabulary = load_vocabulary(settings.preparation.vocabulary)
  vocabulary.save(path / 'vocabulary')
  documents = list(collection.documents())
  row_of = {document.id: row for row, document in enumerate(documents)}
  texts = {query.id: query.text for query in collection.queries()}
  (path / 'document_ids.txt').write_text(''.join(f'{d}\n' for d in row_of))
  tokens = vocabulary.encode_batch(map_texts(documents), DOCUMENT)
  shards = ['documents-00000.array_record', 'labelled.array_record']
  shard_files.write_shard(
    path / shards[0], map(shard_files.encode_tokens, tokens)
  )
  examples = [
    shard_files.Example(
      np.array(vocabulary.encode(texts[j.query_id], QUERY)),
      row_of[j.document_id],
      j.query_id,
    )
    for j in collection.judgements('train')
  ]
  owners = np.array([e.document_index for e in examples], np.int32)
  np.save(path / prepared.document_indices_file('labelled'), owners)
  shard_files.write_shard(
    path / shards[1], map(shard_files.encode_example, examples)
  )
  preparation = dataclasses.replace(
    settings.preparation, data_dir=settings.data_dir
  )
  manifest = {
    'format': FORMAT,
    'settings': {'query_length': QUERY, 'document_length': DOCUMENT},
    'inputs_sha256': inputs_hash(preparation),
    'documents': {'count': len(documents), 'shards': shards[:1]},
    'sources': {'labelled': {'count': len(examples), 'shards': shards[1:]}},
    'files': {
      file.relative_to(path).as_posix(): {
        'bytes': file.stat().st_size,
        'sha256': file_sha256(file),
      }
      for file in path.rglob('*')
      if file.is_file()
    },
  }
  (path / 'manifest.json').write_text(json.dumps(manifest))


def map_texts(documents):
  return [document_text(document) for document in documents]


def settings_of(folder, size):
  encoder = BertConfig(
    vocab_size=size, emb_dim=24, num_heads=2, num_layers=1, mlp_dim=48,
    max_length=DOCUMENT, dropout_rate=0.0, initializer_stddev=0.3,
  )  # fmt: skip
  decoder = T5Config(
    vocab_size=size, emb_dim=24, num_heads=2, head_dim=12, num_encoder_layers=0,
    num_decoder_layers=1, mlp_dim=48, logits_via_embedding=True,
    # Draws of a resumed run are those of an uninterrupted one.
    dropout_rate=0.02,
  )  # fmt: skip
  return TextRunSettings(
    run_dir=str(folder / 'run'),
    data_dir=str(folder / 'data'),
    cache_dir=str(folder / 'cache'),
    preparation=PreparationSettings(
      vocabulary=str(folder / 'vocabulary' / 'tokenizer.json'),
      sources=('labelled',),
      query_length=QUERY,
      document_length=DOCUMENT,
    ),
    loader=LoaderSettings(batch_size=20, rates={'labelled': 1.0}),
    model=GeneratorConfig(
      encoder, decoder, pointer=True, train_encoder=True,
      queries_per_document=2, start=START, end=END,
    ),
    training=TextTrainingSettings(
      steps=STEPS, log_every=20, evaluate_every=100, checkpoint_every=SAVED,
      keep_checkpoints=9,
      optimizer=OptimizerSettings(learning_rate=0.01, vector_rate=1.0),
    ),
  )  # fmt: skip


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  folder = tmp_path_factory.mktemp('generator')
  tiny_collection.write_collection(folder / 'data')
  settings = settings_of(folder, write_vocabulary(folder / 'vocabulary'))
  write_prepared(folder / 'cache' / 'prepared', settings)
  train_text.train(settings, folder / 'run')
  return folder, settings


def restored(run_dir):
  checkpoints = Checkpoints(run_dir / 'checkpoints')
  try:
    return checkpoints.restore_params(checkpoints.latest())
  finally:
    checkpoints.close()


def test_it_writes_the_queries_that_it_has_learned_by_heart(trained):
  folder, settings = trained
  collection = Collection(settings.data_dir)
  vocabulary = load_vocabulary(settings.preparation.vocabulary)
  documents = list(collection.documents())
  tokens_BS = np.zeros((len(documents), DOCUMENT), np.int32)
  for row, ids in zip(
    tokens_BS,
    vocabulary.encode_batch(map_texts(documents), DOCUMENT),
    strict=True,
  ):
    row[: len(ids)] = ids
  tokens_BWL, log_probs_BW = draw(
    QueryGenerator(settings.model),
    restored(folder / 'run'),
    tokens_BS,
    jax.random.split(jax.random.key(0), len(documents)),
    SamplingSettings(queries=2, method='beam', max_tokens=QUERY),
  )
  texts = {query.id: query.text for query in collection.queries()}
  for document, found_WL in zip(documents, np.asarray(tokens_BWL), strict=True):
    found = {vocabulary.decode(row[row > 0].tolist()) for row in found_WL}
    assert found == {texts[f'{document.id}-{n}'] for n in range(2)}
  # Both are as likely.
  assert np.mean(np.exp(log_probs_BW)) == pytest.approx(0.5, abs=0.1)


def test_a_document_is_given_the_same_queries_among_any_others(trained):
  folder, settings = trained
  documents = list(Collection(settings.data_dir).documents())
  generator = load_generator(folder / 'run')
  rules = SamplingSettings(queries=4, max_tokens=QUERY, top_p=1.0)
  together = generator.generate(documents, rules, seed=3)
  assert len(documents) > 2 * generator.batch_size
  # One, a few in another order, and in other batches than before.
  for chosen in ([7], [30, 7, 2], list(range(39, 1, -1))):
    some = generator.generate([documents[n] for n in chosen], rules, seed=3)
    for number, queries in zip(chosen, some, strict=True):
      assert [q.text for q in queries] == [q.text for q in together[number]]
  other = generator.generate(documents, rules, seed=4)
  assert [q.text for q in other[0]] != [q.text for q in together[0]]
  # A word that no query begins with; it is left out again.
  forced = generator.generate(documents[:2], rules, seed=3, prefix='sleeps')
  assert not any(q.text.startswith('sleeps') for qs in forced for q in qs)
  # What the model thinks of such a beginning counts.
  assert max(q.log_probability for qs in forced for q in qs) < min(
    q.log_probability for q in together[0]
  )


def test_what_is_no_run_of_a_generator_is_refused(trained, tmp_path):
  with pytest.raises(UserError, match='should be the folder of a run'):
    load_generator(tmp_path)
  (tmp_path / 'settings.json').symlink_to(trained[0] / 'run' / 'settings.json')
  with pytest.raises(UserError, match='holds no checkpoint'):
    load_generator(tmp_path)


def test_logs_tell_of_training_and_of_dev(trained):
  logs = read_jsonl(trained[0] / 'run' / 'logs')
  losses = [line['token_loss'] for line in logs if 'token_loss' in line]
  assert losses[-1] < losses[0] / 4
  dev = {
    line['step']: line['dev/token_loss']
    for line in logs
    if 'dev/token_loss' in line
  }
  assert list(dev) == [100, STEPS]
  # Its queries are among those that are trained on: half of the choice.
  assert dev[STEPS] < 0.5


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(trained, tmp_path):
  folder, settings = trained
  name = f'step_{SAVED:08d}'
  again = tmp_path / 'run'
  (again / 'checkpoints').mkdir(parents=True)
  for part in ('settings.json', f'checkpoints/{name}'):
    (again / part).symlink_to(folder / 'run' / part)
  train_text.train(settings, again)
  expected, found = restored(folder / 'run'), restored(again)
  jax.tree.map(np.testing.assert_array_equal, found, expected)
  assert read_jsonl(again / 'logs')[0]['step'] == SAVED + 20


def test_other_settings_do_not_go_on_with_a_run(trained):
  folder, settings = trained
  other = dataclasses.replace(
    settings, model=dataclasses.replace(settings.model, pointer=False)
  )
  with pytest.raises(UserError, match='pointer was True, is False'):
    run_folder.check_settings(other, folder / 'run')
  run_folder.check_settings(settings, folder / 'run')


def generated(folder, output, held_out='()'):
  door = [
    '--gin_file=gin/querygen/default.gin',
    f'--gin.DATA_DIR={folder / "data"}',
    f'--gin.OUTPUT={output}',
    f'--gin.GENERATOR={folder / "run"}',
    '--gin.QueryGenerationSettings.sources=(@GeneratorSource(),)',
    '--gin.QueryGenerationSettings.documents_per_shard=16',
    '--gin.SamplingSettings.queries=4',
    '--gin.SamplingSettings.max_tokens=10',
    # What was learned is what test asks.
    f'--gin.LeakSettings.splits={held_out}',
  ]
  assert generate_queries.main(door) == 0
  ids = Collection(folder / 'data').document_index()
  return list(read_pseudo_queries(output, ids, pytest.fail))


def test_the_door_of_pseudo_queries_asks_it(trained, tmp_path, monkeypatch):
  folder = trained[0]
  monkeypatch.chdir(ROOT)
  found = generated(folder, tmp_path / 'out')
  texts = {query.text for query in Collection(folder / 'data').queries()}
  own = sum(text in texts for _, text in found)
  # It draws, and has learned well.
  assert own >= 0.8 * len(found) > 40
  for name, text in found:
    if text in texts:
      assert set(name.split('-')) <= set(text.split())
  # As often as one likes.
  assert generated(folder, tmp_path / 'again') == found
  files = [
    sorted(path.read_bytes() for path in (tmp_path / name).iterdir())
    for name in ('out', 'again')
  ]
  assert files[0] == files[1]
  none = generated(folder, tmp_path / 'none', "('test', 'dev')")
  assert len(none) < len(found) / 4
