r"""Registers the Tasks of a plan when it is imported, for seqio's own scripts.

  python -m gr_jax.prepare --gin_file=... --plan=PLAN
  GR_JAX_PLAN=PLAN seqio_cache_tasks --module_import=gr_jax.tasks.offline \
    --tasks='gr_jax_.*' --output_cache_dir=CACHE --min_shards=16 \
    --pipeline_options=--runner=DirectRunner

Every worker imports it too: it finds the plan, and the collection that the
plan names, under the same paths, by a file system that all share or in its
container. docs/data.md has the commands for Dataflow, Flink and Spark. A module
of your own that calls `gr_jax.tasks.beir.register_plan` serves as well, where
Tasks of several collections are to be known by different names.
"""

import os

from gr_jax.tasks.beir import register_plan

from gr_jax.types import UserError

VARIABLE = 'GR_JAX_PLAN'

if VARIABLE not in os.environ:
  raise UserError(
    f'gr_jax.tasks.offline registers the Tasks of the plan that {VARIABLE} '
    'names, which is unset: write one with python -m gr_jax.prepare --plan='
    f'FOLDER, and set {VARIABLE}=FOLDER'
  )
register_plan(os.environ[VARIABLE])
