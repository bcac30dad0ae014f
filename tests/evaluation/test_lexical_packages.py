"""Doors that search by BM25 say in a line which package they miss."""

import os
import pathlib
import subprocess
import sys

import pytest
import tiny_collection

ROOT = pathlib.Path(__file__).parents[2]
GENERATE = ['--gin_file=gin/querygen/default.gin', '--gin.DATA_DIR={data}']


@pytest.mark.parametrize(
  ('door', 'flags', 'status'),
  [
    ('generate_queries', [*GENERATE, '--gin.OUTPUT={out}'], 2),
    ('judge_queries', ['--data_dir={data}', '--queries=none'], 2),
    ('rank_with_teacher', ['--data_dir={data}', '--teacher=bm25'], 2),
    ('rank_with_teacher', ['--data_dir={data}', '--teacher=random'], 0),
  ],
)
def test_doors_without_bm25(tmp_path, door, flags, status):
  data = tiny_collection.write_collection(tmp_path / 'data')
  missing = "raise ModuleNotFoundError('none', name='bm25s')\n"
  (tmp_path / 'bm25s.py').write_text(missing)
  if door == 'rank_with_teacher':
    flags = [*flags, '--output={out}']
  given = [flag.format(data=data, out=tmp_path / 'out') for flag in flags]
  done = subprocess.run(
    [sys.executable, '-m', f'gr_jax.{door}', *given],
    cwd=ROOT,
    env={**os.environ, 'PYTHONPATH': str(tmp_path), 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == status, done.stderr
  if status:
    expected = 'error: BM25 needs bm25s: pip install gr_jax[baselines]\n'
    assert done.stderr == expected
