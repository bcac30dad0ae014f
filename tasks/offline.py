r"""Registers the Tasks of a plan when it is imported, for seqio's own scripts.

  python -m gr_jax.prepare --gin_file=... --plan=PLAN
  GR_JAX_PLAN=PLAN seqio_cache_tasks --module_import=gr_jax.tasks.offline \
    --tasks='gr_jax_.*' --output_cache_dir=CACHE --min_shards=16 \
    --pipeline_options=--runner=DirectRunner

Other runners are other --pipeline_options (docs/data.md has them whole; only
the Direct runner was run):

  Dataflow  --runner=DataflowRunner,--project=...,--region=...,
            --temp_location=gs://...,--sdk_container_image=...
  Flink     --runner=FlinkRunner,--flink_master=HOST:8081,
            --environment_type=EXTERNAL,--environment_config=localhost:50000
  Spark     --runner=PortableRunner,--job_endpoint=HOST:8099,
            --environment_type=EXTERNAL,--environment_config=localhost:50000

Every worker imports this module too: it finds the plan, and the collection that
the plan names, under the same paths, by a file system that all share or in its
container. A module of your own that calls `gr_jax.tasks.beir.register_plan`
serves as well, where Tasks of several collections are to be known by different
names.
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
