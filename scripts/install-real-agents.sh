#!/bin/sh
# Install the real agent CLIs, in the versions that the adapters were measured with, for the end-to-end tests; and
# axe-core, with which the tests of the page look for what keeps people out.
#
#   install-real-agents.sh [NAME…]      codex claude gemini opencode qwen copilot kilo vibe acp aider axe (default: all)
#
# They go to $CODEX_SELF_ITER_REAL_AGENTS (default ~/.cache/codex-self-iter/agents), the oldest measured versions of
# codex and claude to `older` below it, the programs that put codex and claude behind the Agent Client Protocol to `acp`,
# nowhere else. Needs npm, Python 3.11 or 3.12 for aider, and Python 3.12 or newer for vibe.
set -eu

agents=${CODEX_SELF_ITER_REAL_AGENTS:-$HOME/.cache/codex-self-iter/agents}
known="codex claude gemini opencode qwen copilot kilo vibe acp aider axe"
# shellcheck disable=SC2086 # one word for each is meant
[ $# -gt 0 ] || set -- $known
command -v npm >/dev/null 2>&1 || {
    echo "install-real-agents.sh: npm was not found; install Node.js 20 or newer" >&2
    exit 1
}

# install [--omit=optional] DIRECTORY PACKAGE=VERSION=PROGRAM…: what is not there yet.
install() {
    omit=
    case $1 in --omit=*) omit=$1 && shift ;; esac
    prefix=$1
    shift
    packages=
    for wanted in "$@"; do
        name=${wanted##*=} package=${wanted%%=*} version=${wanted#*=}
        version=${version%=*}
        manifest=$prefix/node_modules/$package/package.json
        if [ -x "$prefix/node_modules/.bin/$name" ] && grep -q "\"version\": *\"$version\"" "$manifest" 2>/dev/null; then
            echo "$name $version is there"
        else
            packages="$packages $package@$version"
        fi
    done
    [ -n "$packages" ] || return 0
    mkdir -p "$prefix"
    [ -e "$prefix/package.json" ] || printf '{"private": true}\n' >"$prefix/package.json"
    try=1
    # shellcheck disable=SC2086 # one word for each package is meant
    until npm install $omit --prefix "$prefix" --no-audit --no-fund --loglevel=error $packages; do
        [ $try -lt 3 ] || {
            echo "install-real-agents.sh: npm could not install$packages" >&2
            exit 1
        }
        try=$((try + 1))
        sleep 5
    done
    echo "installed$packages in $prefix"
}

# Of Python's registry, in an environment of its own.
install_aider() {
    version=0.86.2 home=$agents/aider
    if "$home/bin/aider" --version 2>/dev/null | grep -qF "$version"; then
        echo "aider $version is there"
        return 0
    fi
    rm -rf "$home"
    python3 -m venv "$home"
    "$home/bin/python" -m pip --quiet --disable-pip-version-check install "aider-chat==$version"
    mkdir -p "$agents/node_modules/.bin"
    ln -sf "$home/bin/aider" "$agents/node_modules/.bin/aider"
    echo "installed aider $version in $home"
}

# Of Python's registry too, but it needs a newer Python than we do.
install_vibe() {
    version=3.0.2 home=$agents/vibe python=
    if [ -x "$home/bin/vibe-acp" ] && [ -e "$home/installed-$version" ]; then
        echo "vibe $version is there"
        return 0
    fi
    for one in python3.12 python3.13 python3 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[2-9]*/bin/python; do
        if "$one" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then
            python=$one
            break
        fi
    done
    [ -n "$python" ] || {
        echo "install-real-agents.sh: vibe is left out: it needs Python 3.12 or newer" >&2
        return 0
    }
    rm -rf "$home"
    "$python" -m venv "$home"
    "$home/bin/python" -m pip -qq --disable-pip-version-check install --no-compile "mistral-vibe==$version"
    touch "$home/installed-$version"
    echo "installed vibe $version in $home"
}

# A library without a program.
install_axe() {
    version=4.14.1 prefix=$agents/axe
    if grep -q "\"version\": *\"$version\"" "$prefix/node_modules/axe-core/package.json" 2>/dev/null; then
        echo "axe $version is there"
        return 0
    fi
    mkdir -p "$prefix"
    [ -e "$prefix/package.json" ] || printf '{"private": true}\n' >"$prefix/package.json"
    npm install --prefix "$prefix" --no-audit --no-fund --loglevel=error "axe-core@$version"
    echo "installed axe $version in $prefix"
}

newest='' older='' acp='' with_aider='' with_axe='' with_vibe=''
for name in "$@"; do
    case $name in
        codex)
            newest="$newest @openai/codex=0.171.0=codex"
            older="$older @openai/codex=0.169.0=codex"
            ;;
        claude)
            newest="$newest @anthropic-ai/claude-code=2.1.332=claude"
            older="$older @anthropic-ai/claude-code=2.1.197=claude"
            ;;
        gemini) newest="$newest @google/gemini-cli=0.61.0=gemini" ;;
        opencode) newest="$newest opencode-ai=1.18.33=opencode" ;;
        qwen) newest="$newest @qwen-code/qwen-code=0.24.4=qwen" ;;
        copilot) newest="$newest @github/copilot=1.0.102=copilot" ;;
        kilo) newest="$newest @kilocode/cli=7.7.7=kilo" ;;
        acp)
            acp="$acp @agentclientprotocol/codex-acp=2.6.0=codex-acp"
            acp="$acp @agentclientprotocol/claude-agent-acp=0.101.0=claude-agent-acp"
            ;;
        vibe) with_vibe=yes ;;
        aider) with_aider=yes ;;
        axe) with_axe=yes ;;
        *)
            echo "install-real-agents.sh: unknown agent $name; known are $known" >&2
            exit 2
            ;;
    esac
done

# Each has a directory of its own, so they are installed side by side; what one says stays together.
said=$(mktemp -d)
trap 'rm -rf "$said"' EXIT
pids='' jobs=0
side_by_side() {
    jobs=$((jobs + 1))
    "$@" >"$said/$jobs" 2>&1 &
    pids="$pids $!"
}
# shellcheck disable=SC2086 # one word for each is meant
side_by_side install "$agents" $newest
# shellcheck disable=SC2086
side_by_side install "$agents/older" $older
# shellcheck disable=SC2086 # their optional packages are codex and claude once more
side_by_side install --omit=optional "$agents/acp" $acp
[ -z "$with_vibe" ] || side_by_side install_vibe
[ -z "$with_aider" ] || side_by_side install_aider
[ -z "$with_axe" ] || side_by_side install_axe
code=0
for pid in $pids; do
    wait "$pid" || code=1
done
cat "$said"/*
exit $code
