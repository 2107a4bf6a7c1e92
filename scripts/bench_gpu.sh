#!/usr/bin/env bash
# What has to be measured on a GPU, in one call of about ten minutes: scripts/bench_gpu.sh [--device cpu --tiny]
# It uses the Python that has torch (PYTHON=..., else python3) and installs what else is missing beside it, in a folder
# of its own: from the wheels in the folder $WHEELS without a network, else from PyPI. Results: docs/benchmarks, or --out.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
needed=(annotated_types hydra omegaconf antlr4 pydantic pydantic_core typing_inspection yaml rich safetensors plotext xxhash sklearn torchao)
packages=(annotated-types "hydra-core>=1.3.8,<1.4" "omegaconf>=2.3,<2.4" "antlr4-python3-runtime==4.9.*" "pydantic>=2.9,<3"
  pydantic-core typing-inspection
  pyyaml rich safetensors "plotext>=5.3,<6" xxhash scikit-learn torchao)
"$python" -c 'import torch' || { echo "$python has no torch: name one that has, PYTHON=/path/to/python $0" >&2; exit 2; }
site="${BENCH_SITE:-$(mktemp -d)}"
export PYTHONPATH="$site:$PWD${PYTHONPATH:+:$PYTHONPATH}"
for i in "${!needed[@]}"; do
  "$python" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('${needed[$i]}') is None)" && continue
  if [ -n "${WHEELS:-}" ]; then
    source=(--no-index --find-links "$WHEELS" --no-deps)
  else
    source=(--no-deps)
  fi
  # A part that cannot be had costs its stages, not all: they say so in the table.
  "$python" -m pip install -q --disable-pip-version-check --no-compile --upgrade --target "$site" "${source[@]}" \
    "${packages[$i]}" || echo "not installed: ${packages[$i]}" >&2
done
export TORCHAO_FORCE_SKIP_LOADING_SO_FILES=1 PYTHONUNBUFFERED=1
export TORCHINDUCTOR_CACHE_DIR="${TORCHINDUCTOR_CACHE_DIR:-$site/inductor}"
exec "$python" -c 'import sys; from ava.bench.gpu import main; sys.exit(main(sys.argv[1:]))' "$@"
