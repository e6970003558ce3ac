#!/bin/sh
# Run one turn of the codex CLI: the prompt from a file, the final answer, and nothing else, on stdout.
#
#   invoke-codex-agent.sh [--resume SESSION_ID] PROMPT_FILE WORKSPACE
#
# For  agent_command_template = "scripts/invoke-codex-agent.sh {prompt_file} {workspace}"
#
# Environment
#   CODEX_BIN                    the codex program; otherwise PATH, then the common places (see below)
#   CODEX_SELF_ITER_AGENT_MODE   safe (default): the workspace is writable, the rest and the network are not
#                                bypass: no sandbox, no approvals; only in a container or machine of its own
#   CODEX_SESSION_ID             session to resume, like --resume (the id is on stderr: "session id: …")
#   CODEX_MODEL, CODEX_EFFORT    model and reasoning effort; otherwise codex's own configuration
#
# The transcript goes to stderr. The exit code is codex's (0: it answered; signals reach codex itself, because
# this script becomes codex); 2: bad usage; 127: no codex found. A session that codex does not know is an error,
# never silently a new one.
set -u

fail() {
    code=$1
    shift
    printf 'invoke-codex-agent.sh: %s\n' "$*" >&2
    exit "$code"
}

session=${CODEX_SESSION_ID:-}
while [ $# -gt 0 ]; do
    case $1 in
        --resume)
            [ $# -ge 2 ] || fail 2 "--resume needs a session id"
            session=$2
            shift 2
            ;;
        -h | --help)
            sed -n '2,/^set -u/{/^#/!d;s/^# \{0,1\}//;p;}' "$0"
            exit 0
            ;;
        --)
            shift
            break
            ;;
        -*) fail 2 "unknown option $1; usage: invoke-codex-agent.sh [--resume SESSION_ID] PROMPT_FILE WORKSPACE" ;;
        *) break ;;
    esac
done
[ $# -eq 2 ] || fail 2 "usage: invoke-codex-agent.sh [--resume SESSION_ID] PROMPT_FILE WORKSPACE"
prompt=$1
workspace=$2
[ -f "$prompt" ] && [ -r "$prompt" ] || fail 2 "the prompt file cannot be read: $prompt"
[ -d "$workspace" ] || fail 2 "the workspace is not a directory: $workspace"
workspace=$(cd -- "$workspace" && pwd) || fail 2 "the workspace cannot be entered: $2"

# codex under the newest node that nvm has.
newest_nvm() {
    for one in "${NVM_DIR:-${HOME:-}/.nvm}"/versions/node/v*/bin/codex; do
        [ -x "$one" ] || continue
        version=${one%/bin/codex}
        printf '%s\t%s\n' "${version##*/v}" "$one"
    done | awk -F '\t' '{ split($1, n, "."); printf "%09d%09d%09d\t%s\n", n[1], n[2], n[3], $2 }' |
        sort | tail -n 1 | cut -f 2-
}

find_codex() {
    if [ -n "${CODEX_BIN:-}" ]; then
        found=$(command -v -- "$CODEX_BIN" 2>/dev/null) && [ -x "$found" ] && {
            printf '%s\n' "$found"
            return 0
        }
        fail 127 "CODEX_BIN=$CODEX_BIN is not a program that can be run"
    fi
    command -v codex 2>/dev/null && return 0
    home=${HOME:-/nonexistent}
    for directory in "$home/.local/bin" "$home/bin" "$home/.npm-global/bin" "$home/.npm/bin" "$home/.volta/bin" \
        "$home/.bun/bin" "$home/.local/share/pnpm" "$home/Library/pnpm" /opt/homebrew/bin /usr/local/bin \
        /home/linuxbrew/.linuxbrew/bin; do
        if [ -x "$directory/codex" ]; then
            printf '%s\n' "$directory/codex"
            return 0
        fi
    done
    newest_nvm
}

codex=$(find_codex) || exit 127
[ -n "$codex" ] || fail 127 "codex was not found (CODEX_BIN, PATH, ~/.local/bin, ~/.npm-global/bin, nvm, Homebrew);" \
    "install it with: npm install -g @openai/codex"

# Beside an nvm-installed codex stands the node that it needs; a service's PATH does not have it.
PATH=${PATH:-/usr/local/bin:/usr/bin:/bin}:$(dirname -- "$codex")
export PATH

# codex asks for a git work tree unless told otherwise.
directory=$workspace
in_git() { [ -f "$directory/.git/HEAD" ] || [ -f "$directory/.git" ]; }
while ! in_git && [ "$directory" != / ]; do
    directory=$(dirname -- "$directory")
done

set -- exec -C "$workspace" --color never -c features.plugins=false
case ${CODEX_SELF_ITER_AGENT_MODE:-safe} in
    safe) set -- "$@" -s workspace-write ;;
    bypass) set -- "$@" --dangerously-bypass-approvals-and-sandbox ;;
    *) fail 2 "CODEX_SELF_ITER_AGENT_MODE is safe or bypass, not ${CODEX_SELF_ITER_AGENT_MODE}" ;;
esac
in_git || set -- "$@" --skip-git-repo-check
[ -z "${CODEX_MODEL:-}" ] || set -- "$@" -m "$CODEX_MODEL"
[ -z "${CODEX_EFFORT:-}" ] || set -- "$@" -c "model_reasoning_effort=\"$CODEX_EFFORT\""
# All of exec's flags stand before `resume`, which knows few of them and would fall back to read-only.
[ -z "$session" ] || set -- "$@" resume "$session"
unset CODEX_SESSION_ID

exec "$codex" "$@" - <"$prompt"
