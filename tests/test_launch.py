"""The scripts in launch/ start doors that are there, with settings they take.

Each is run by its own interpreter; the commands of the clusters, which are not
here, are stood in for by ones that run what they are given, or write it down.
"""

import argparse
import importlib
import json
import os
import pathlib
import shlex
import subprocess
import sys

import pytest
import yaml

from gr_jax import configuration, entry, processes, run_settings

ROOT = pathlib.Path(__file__).parent.parent
LAUNCH = ROOT / 'launch'
# An argument that shells must not take apart.
SPACE = "--gin.CACHE_DIR='/shared/a b'"


def check(command):
  """Refuses `.venv/bin/python -m DOOR FLAGS` that the door would refuse."""
  python, dash, module, *arguments = command
  assert (python, dash) == ('.venv/bin/python', '-m')
  assert importlib.import_module(module).main
  parser = argparse.ArgumentParser(allow_abbrev=False)
  entry.add_gin_flags(parser)
  processes.add_flags(parser)
  flags, overrides = entry.parse_arguments(parser, arguments)
  configuration.parse(flags.gin_file, overrides)
  settings = configuration.build(run_settings.RunSettings)
  assert settings.run_dir.startswith('/shared/runs/')
  return flags


def example(name):
  """The arguments of the command in a script's header."""
  header = (LAUNCH / name).read_text().partition('\nset ')[0]
  lines = header.partition(f'launch/{name} \\\n')[2].partition('\n#\n')[0]
  return shlex.split(lines.replace('#', '').replace('\\\n', ' '))


def run_script(name, folder, stand_ins, **variables):
  """Runs a script; returns its status and the commands of doors it gave.

  Args:
    name: of the script.
    folder: in which `.venv/bin/python` writes down what it is given.
    stand_ins: {'command': shell script}, of commands that are not here.
    variables: of the environment.
  """
  syntax = subprocess.run(['bash', '-n', LAUNCH / name], check=False)
  assert syntax.returncode == 0
  python = folder / '.venv' / 'bin' / 'python'
  stand_ins = {
    **stand_ins,
    python: f'{sys.executable} -c "import json, sys; '
    "print(json.dumps(sys.argv[1:]), file=open('said', 'a'))"
    '" "$@"\nexit ${STATUS:-0}',
  }
  for command, text in stand_ins.items():
    path = folder / command
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/bash\n{text}\n')
    path.chmod(0o755)
  done = subprocess.run(
    ['bash', LAUNCH / name, *example(name), SPACE],
    cwd=folder,
    env={
      **os.environ,
      **variables,
      'PATH': f'{folder}:{os.environ["PATH"]}',
    },
    check=False,
  )
  said = [*folder.rglob('said')]
  lines = said[0].read_text().splitlines() if said else []
  return done.returncode, [
    ['.venv/bin/python', *json.loads(line)] for line in lines
  ]


@pytest.mark.parametrize(
  ('status', 'again'), [('0', False), ('2', False), ('143', True)]
)
def test_slurm(tmp_path, status, again):
  ended, commands = run_script(
    'slurm.sh',
    tmp_path,
    {
      # As srun, which passes what is no option of its own on.
      'srun': '[ "$1" = --kill-on-bad-exit=1 ] && shift && exec "$@"',
      'scontrol': '[ "$*" = "requeue 7" ] && touch again',
    },
    SLURM_JOB_ID='7',
    STATUS=status,
  )
  assert ended == int(status)
  assert (tmp_path / 'again').exists() == again
  (command,) = commands
  assert check(command).distributed
  assert command[-1] == SPACE


def test_tpu_pod(tmp_path):
  (tmp_path / 'gr_jax').symlink_to(tmp_path)
  ended, commands = run_script(
    'tpu_pod.sh',
    tmp_path,
    {
      'gcloud': '[ "$*" != "${*/--worker=all/}" ] || exit 1\n'
      'for word in "$@"; do case $word in\n'
      '  --command=*) bash -c "${word#--command=}";;\nesac; done'
    },
    TPU='slice',
    ZONE='zone',
  )
  assert ended == 0
  (command,) = commands
  assert check(command).distributed
  assert command[-1] == SPACE


def test_kubernetes():
  text = (LAUNCH / 'kubernetes.yaml').read_text()
  service, policy, job = yaml.safe_load_all(text)
  (container,) = job['spec']['template']['spec']['containers']
  flags = container['command']
  number = [word for word in flags if word.startswith('--process=')]
  assert number == ['--process=$(JOB_COMPLETION_INDEX)']
  flags[flags.index(number[0])] = '--process=0'
  given = check(flags)
  # The first pod of the job, by the name that the service gives it.
  pod = job['spec']['template']
  name, subdomain = job['metadata']['name'], pod['spec']['subdomain']
  assert given.coordinator == f'{name}-0.{subdomain}:55527'
  assert subdomain == service['metadata']['name']
  assert service['spec']['selector'] == pod['metadata']['labels']
  assert (
    policy['spec']['podSelector']['matchLabels'] == (pod['metadata']['labels'])
  )
  assert given.processes == job['spec']['completions']
  assert given.processes == job['spec']['parallelism']
  assert given.coordinator_bind == f'$({container["env"][0]["name"]})'
  assert (
    pod['spec']['volumes'][0]['name'] == (container['volumeMounts'][0]['name'])
  )
