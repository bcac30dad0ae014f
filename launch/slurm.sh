#!/bin/bash
# Trains on a SLURM cluster, one process a GPU; goes on where it stopped.
# Start it from the checkout, with what gr_jax.train is to be given:
#
#   sbatch launch/slurm.sh \
#     --gin_file=gin/runs/full.gin --gin_file=gin/models/t5_1_1_base.gin \
#     --gin.RUN_DIR=/shared/runs/base --gin.DATA_DIR=/shared/collection \
#     --gin.LoaderSettings.batch_size=2048 --gin.MeshSettings.fsdp=8
#
# RUN_DIR, DATA_DIR and the checkout with its .venv lie on a file system that
# all nodes share: process 0 prepares and writes, all read.
#SBATCH --job-name=gr_jax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
# Two minutes before the end the step under way is saved.
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

# --distributed reads the nodes and numbers from SLURM's variables. Process 0
# listens on the address of the first node alone, without a password: say
# --coordinator_bind=ADDRESS for the one of a private network.
status=0
srun --kill-on-bad-exit=1 .venv/bin/python -m gr_jax.train --distributed \
  --heartbeat_timeout=60 "$@" || status=$?

# Out of time, or a node was lost: once more, from the last checkpoint. What
# was refused (2) would be refused again.
if [ "$status" -ne 0 ] && [ "$status" -ne 2 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
