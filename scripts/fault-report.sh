#!/bin/sh
# Causes every fault that the tests know, and writes docs/faults.md from what came of it.
#
#   scripts/fault-report.sh [tests] [kills] [years] [page]      default: all of them, in this order
#
# Results are kept in build/faults, so that one part can be run again. Exit 1 when something on the page has failed.
set -eu

for part in "$@"; do
    case $part in
        tests | kills | years | page) ;;
        *)
            echo "fault-report.sh: '$part' is none of tests, kills, years, page" >&2
            exit 2
            ;;
    esac
done
self=$0
. "$(dirname -- "$self")/environment.sh"
find_root "$self"
prepare test
cd -- "$root"
unset PYTHONDONTWRITEBYTECODE
kept=build/faults
mkdir -p "$kept"

for part in ${*:-tests kills years page}; do
    case $part in
        tests)
            "$python" -m tests.project.fault_page --describe >"$kept/run.json"
            # what has failed is said by the page; a red test is no reason not to write it
            "$python" -m tests.faults.kinds | xargs "$python" -m pytest -q --dist worksteal \
                -n "${CODEX_SELF_ITER_TEST_WORKERS:-4}" --junitxml "$kept/tests.xml" || true
            ;;
        kills)
            for orphan in adopt kill; do
                rm -f "$kept/kills-$orphan.json"
                "$python" -m tests.faults.kill_loop --count "${KILLS:-200}" --seed 7 --on-orphan "$orphan" \
                    --json "$kept/kills-$orphan.json"
            done
            rm -f "$kept/lanes.json"
            "$python" -m tests.lanes.faults.kill_lanes --count "${KILLS:-200}" --seed 7 --json "$kept/lanes.json"
            ;;
        years)
            for mix in calm default limits crashes clocks hell; do
                "$python" -m tests.simulation --days "${DAYS:-365}" --mix "$mix" --seed 7 --json \
                    >"$kept/year-$mix.json" || true # what it broke stands in the file
            done
            ;;
        page) "$python" -m tests.project.fault_page "$kept" ;;
    esac
done
