#!/usr/bin/env bash
# Makes the virtual environment $1 with gr_jax in it, from a lock file where
# one fits this platform and Python, else from setup.py by pip's resolver.
set -euo pipefail
venv=$1

if ! command -v "$PYTHON" >/dev/null; then
  echo "error: there is no $PYTHON; name one: make PYTHON=/path/to/python3.11" >&2
  exit 2
fi
if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "error: gr_jax needs Python 3.11 or later, $PYTHON is" \
    "$("$PYTHON" -V 2>&1); name another: make PYTHON=/path/to/python3.11" >&2
  exit 2
fi
if ! "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null; then
  echo "error: $PYTHON cannot make virtual environments: install its venv" \
    "package (python3-venv on Debian)" >&2
  exit 2
fi

platform=$("$PYTHON" -c 'import platform, sys
print(f"{sys.platform}-{platform.machine()}-py{sys.version_info[0]}{sys.version_info[1]}")')
lock=requirements/$platform.txt

"$PYTHON" -m venv "$venv"
pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)
if [ -f "$lock" ]; then
  echo "installing the locked versions of $lock into $venv (1 to 3 minutes)"
  "${pip[@]}" --no-deps -r "$lock"
  "${pip[@]}" --no-deps --no-build-isolation -e .
else
  echo "there is no lock for $platform: resolving setup.py into $venv"
  "${pip[@]}" -e ".[prepare,baselines,datasets,dev]"
  # Apart and without its dependencies, which would bring torch.
  "${pip[@]}" --no-deps "$("$PYTHON" - <<'PY'
import ast, pathlib
tree = ast.parse(pathlib.Path('setup.py').read_text(encoding='utf-8'))
for node in tree.body:
  if isinstance(node, ast.Assign) and node.targets[0].id == 'MINILM':
    print(*ast.literal_eval(node.value))
PY
)"
fi
