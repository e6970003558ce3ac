#!/bin/sh
# Without arguments: a demo on a small sample workspace. With a workspace: the loop there. See usage below.
set -eu

usage() {
    cat <<'END'
usage: run-local.sh                       the demo: a sample workspace, no key, no network
       run-local.sh WORKSPACE [flags...]  the loop in WORKSPACE, with the agent that is installed
                                          (flags: see run-local.sh WORKSPACE --help)
       run-local.sh COMMAND ...           any other command: run-local.sh init --workspace WORKSPACE

Makes the virtual environment .venv beside this directory first, if there is none: with uv when it is on PATH,
else with python3 -m venv and pip. PYTHON=/path/to/python3 chooses the interpreter (3.11 or newer).
END
}

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

case ${1-} in
    -h | --help)
        usage
        exit 0
        ;;
    "")
        [ $# -eq 0 ] || die "the workspace's name is empty"
        prepare run
        exec "$python" -m codex_self_iter demo
        ;;
    -*)
        prepare run
        exec "$python" -m codex_self_iter "$@"
        ;;
esac
prepare run
commands='init doctor status top digest notify lanes logs history show stop pause resume steer goal diff rewind serve mcp export config service demo run complete version plan'
case " $commands " in
    *" $1 "*) [ -d "$1" ] || exec "$python" -m codex_self_iter "$@" ;;
esac
workspace=$1
shift
exec "$python" -m codex_self_iter run --workspace "$workspace" "$@"
