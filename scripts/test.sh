#!/usr/bin/env bash
# Lint, types and tests: scripts/test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
make_environment "[dev]"
echo "Checking: ruff (lint, format), mypy (types), pytest $*"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
exec .venv/bin/pytest --numprocesses 2 --dist loadgroup "$@"
