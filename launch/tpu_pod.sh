#!/bin/bash
# Trains on all hosts of a Cloud TPU pod slice, one process a host, with what
# gr_jax.train is to be given:
#
#   TPU=my-slice ZONE=us-central2-b launch/tpu_pod.sh \
#     --gin_file=gin/runs/full.gin --gin_file=gin/models/t5_1_1_base.gin \
#     --gin.RUN_DIR=/shared/runs/base --gin.DATA_DIR=/shared/collection \
#     --gin.LoaderSettings.batch_size=2048 --gin.MeshSettings.fsdp=16
#
# Before: on every host the same checkout in ~/gr_jax with its .venv and
# jax[tpu], and one file system that all share (Filestore, by NFS) at /shared:
# process 0 prepares and writes, all read. A bucket will not do, as checkpoints
# and shards appear by renaming. The same command goes on where it stopped.
set -euo pipefail

# --distributed asks the metadata server who the hosts are. Process 0 listens
# on its address in the slice's network alone, without a password: keep the
# firewall of that network closed to others.
gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all \
  --command="cd gr_jax && .venv/bin/python -m gr_jax.train --distributed \
    $(printf '%q ' "$@")"
