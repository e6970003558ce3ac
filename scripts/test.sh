#!/bin/sh
# Prepares .venv with the test dependencies and runs the tests. Arguments go to pytest: scripts/test.sh -k plan
set -eu

self=$0
while [ -L "$self" ]; do
    target=$(readlink -- "$self")
    case $target in
        /*) self=$target ;;
        *) self=$(dirname -- "$self")/$target ;;
    esac
done
. "$(dirname -- "$self")/environment.sh"
find_root "$self"

prepare test
cd -- "$root"
# Most tests wait for real processes: a few at a time use the machine better. `-n 0` runs them one by one.
exec "$python" -m pytest -n "${CODEX_SELF_ITER_TEST_WORKERS:-4}" --dist worksteal "$@"
