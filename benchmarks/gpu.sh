#!/usr/bin/env bash
# Everything that a GPU has to prove, in under ten minutes and without a network:
#   1. the tests that need CUDA: no step of any method but PRIOR makes the host wait
#   2. benchmarks/gpu.py: pairs a second, share of peak, clustering's share, memory, idle time, recompilations
# Where packages are missing, put their wheels beside this script, in benchmarks/wheels (pip download -d benchmarks/wheels
# timm transformers lightning jsonargparse ...), and they are installed from there. Results: benchmarks/results/gpu-*.json.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
export HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
if compgen -G 'benchmarks/wheels/*.whl' > /dev/null; then
  site=$(mktemp -d)
  "$python" -m pip install -q --no-index --no-deps --no-compile --target "$site" benchmarks/wheels/*.whl
  export PYTHONPATH=$site
fi
export PYTHONPATH=$PWD/src${PYTHONPATH:+:$PYTHONPATH}
if "$python" -c 'import pytest' 2> /dev/null; then
  "$python" -m pytest -q tests/test_train.py -k synchronises
else
  echo 'pytest is not here: the CUDA tests are left out'
fi
"$python" benchmarks/gpu.py "$@"
