#!/usr/bin/env bash
# Train: scripts/train.sh optimizer=lion scheduler=onecycle
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
make_environment ""
echo "Training: ava-train $*"
exec .venv/bin/ava-train "$@"
