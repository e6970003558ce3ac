#!/bin/sh
# launchd restarts by "successful or not" alone (KeepAlive/SuccessfulExit) and cannot tell exit codes apart. So the
# codes after which a restart would not help become 0 here: 2 usage, 3 stagnated, 4 needs a human, 75 another
# supervisor is there, 130 interrupted. A crash stays what it is and is started again. `status` and the log still
# tell the true reason. Signals are handed on, because launchd sends them to this shell only.
#
# launchd knows no environment file either: CODEX_SELF_ITER_ENV_FILE names one, in the syntax of the shell.
if [ -n "${CODEX_SELF_ITER_ENV_FILE:-}" ] && [ -r "$CODEX_SELF_ITER_ENV_FILE" ]; then
    set -a
    . "$CODEX_SELF_ITER_ENV_FILE"
    set +a
fi
# The traps stand before the child does: a signal that comes in between must not end this shell alone.
child= early= term=
trap 'term=143; if [ "$child" ]; then kill -TERM "$child" 2>/dev/null; else early=TERM; fi' TERM INT
trap 'if [ "$child" ]; then kill -HUP "$child" 2>/dev/null; else early=${early:-HUP}; fi' HUP
"$@" &
child=$!
[ -z "$early" ] || kill -"$early" "$child" 2>/dev/null
while :; do # a signal ends `wait` early; the child may live on
    wait "$child"
    code=$?
    kill -0 "$child" 2>/dev/null || break
done
case $code in
2 | 3 | 4 | 75 | 130 | "$term") exit 0 ;; # 143: the signal came before the program could hear it
*) exit "$code" ;;
esac
