# Sourced by train.sh and test.sh: makes .venv once, and again whenever what it is made from has changed.

# make_environment EXTRA: EXTRA is "" or "[dev]".
make_environment() {
  local extra="$1" python stamp
  python="${PYTHON:-python3}"
  if ! "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
    for python in python3.11 python3.12 python3.13 ""; do
      [ -n "$python" ] && "$python" -c 'import venv, ensurepip' 2>/dev/null && break
    done
  fi
  if [ -z "$python" ]; then
    echo "This needs Python 3.11 to 3.13 with venv; found $(python3 --version 2>&1). Name one: PYTHON=/path/to/python3.11 $0" >&2
    exit 2
  fi
  stamp=".venv/ava-$(cat pyproject.toml scripts/constraints.txt | cksum | cut -d' ' -f1)"
  # The developers' environment can do all that the users' can.
  if [ -e "$stamp[dev]" ] || { [ -z "$extra" ] && [ -e "$stamp" ]; }; then return; fi
  echo "Installing ava$extra with the versions of scripts/constraints.txt into .venv (once; some minutes)"
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  .venv/bin/python -m pip install -qq --disable-pip-version-check -c scripts/constraints.txt -e ".$extra"
  rm -f .venv/ava-*
  touch "$stamp$extra"
}
