#!/bin/sh
# Install the real agent CLIs, in the versions that the adapters were measured with, for the end-to-end tests.
#
#   install-real-agents.sh [NAME…]      codex claude gemini opencode (default: all)
#
# They go to $CODEX_SELF_ITER_REAL_AGENTS (default ~/.cache/codex-self-iter/agents), nowhere else. Needs npm.
set -eu

prefix=${CODEX_SELF_ITER_REAL_AGENTS:-$HOME/.cache/codex-self-iter/agents}
[ $# -gt 0 ] || set -- codex claude gemini opencode
command -v npm >/dev/null 2>&1 || {
    echo "install-real-agents.sh: npm was not found; install Node.js 20 or newer" >&2
    exit 1
}

packages=
for name in "$@"; do
    case $name in
        codex) package=@openai/codex version=0.169.0 ;;
        claude) package=@anthropic-ai/claude-code version=2.1.197 ;;
        gemini) package=@google/gemini-cli version=0.61.0 ;;
        opencode) package=opencode-ai version=1.18.33 ;;
        *)
            echo "install-real-agents.sh: unknown agent $name; known are codex claude gemini opencode" >&2
            exit 2
            ;;
    esac
    manifest=$prefix/node_modules/$package/package.json
    if [ -x "$prefix/node_modules/.bin/$name" ] && grep -q "\"version\": *\"$version\"" "$manifest" 2>/dev/null; then
        echo "$name $version is there"
    else
        packages="$packages $package@$version"
    fi
done
[ -n "$packages" ] || exit 0

mkdir -p "$prefix"
[ -e "$prefix/package.json" ] || printf '{"private": true}\n' >"$prefix/package.json"
try=1
# shellcheck disable=SC2086 # one word for each package is meant
until npm install --prefix "$prefix" --no-audit --no-fund --loglevel=error $packages; do
    [ $try -lt 3 ] || {
        echo "install-real-agents.sh: npm could not install$packages" >&2
        exit 1
    }
    try=$((try + 1))
    sleep 5
done
echo "installed$packages in $prefix"
