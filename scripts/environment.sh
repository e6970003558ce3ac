# Sourced by the scripts beside it; POSIX sh. Sets `root` and `python`, and keeps the virtual environment .venv.
#
#   prepare LEVEL     LEVEL is run, test (adds the test dependencies) or dev (adds linter and type checker)
#
# Uses uv when it is on PATH, else `python3 -m venv` and pip. An environment that fits is used as it is; one that is
# out of date is installed into again; one that is broken or was moved is made anew. PYTHON=/path/to/python chooses
# the interpreter. Two scripts at once wait for each other.

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 2; }

# The repository, also when the script was called through a symbolic link.
find_root() {
    self=$1
    while [ -L "$self" ]; do
        target=$(readlink -- "$self")
        case $target in
            /*) self=$target ;;
            *) self=$(dirname -- "$self")/$target ;;
        esac
    done
    root=$(CDPATH='' cd -- "$(dirname -- "$self")/.." && pwd -P) || die "cannot find the repository of $1"
    venv=$root/.venv
    python=$venv/bin/python
    stamp=$venv/codex-self-iter.stamp
    lock=$venv/codex-self-iter.lock
}

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
makes_venvs() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

# Prints the interpreter to make the environment with.
find_python() {
    without_venv=
    if [ -n "${PYTHON-}" ]; then
        set -- "$PYTHON"
    else
        set -- python3.13 python3.12 python3.11 python3 python3.14
    fi
    for candidate in "$@"; do
        new_enough "$candidate" || continue
        if makes_venvs "$candidate"; then
            printf '%s\n' "$candidate"
            return 0
        fi
        without_venv=${without_venv:-$candidate}
    done
    if [ -n "$without_venv" ]; then
        die "$without_venv cannot make virtual environments (no ensurepip)." \
            "On Debian and Ubuntu: apt-get install python3-venv. Or install uv."
    fi
    die "no Python 3.11 or newer found (looked for ${PYTHON:-python3.11 to python3.14 and python3} on PATH)." \
        "Install one, or install uv, or set PYTHON=/path/to/python3."
}

# What is to be installed. The stamp has four lines: level, this, the repository's path, PYTHON as it was given.
fingerprint() { cat "$root/pyproject.toml" "$root/constraints.txt" | cksum; }

read_stamp() {
    have='' made_from='' made_at='' made_with=''
    [ -r "$stamp" ] || return 0
    { IFS= read -r have && IFS= read -r made_from && IFS= read -r made_at && IFS= read -r made_with; } <"$stamp" || true
}

# True when the interpreter in the environment works, at this place, and is the one that is asked for.
usable() { [ "$made_at" = "$root" ] && [ "${PYTHON:-$made_with}" = "$made_with" ] && new_enough "$python"; }

level_number() {
    case $1 in
        run) echo 1 ;;
        test) echo 2 ;;
        dev) echo 3 ;;
        *) echo 0 ;;
    esac
}

# True when the environment works and has at least level $1.
ready() {
    read_stamp
    usable && [ "$(level_number "$have")" -ge "$(level_number "$1")" ] && [ "$made_from" = "$(fingerprint)" ] &&
        "$python" -c 'import codex_self_iter' >/dev/null 2>&1
}

take_lock() {
    mkdir -p "$venv" 2>/dev/null || die "cannot write $venv: is the repository writable for you?"
    waited=0
    until mkdir "$lock" 2>/dev/null; do
        holder=$(cat "$lock/pid" 2>/dev/null || true)
        if [ -n "$holder" ] && ! kill -0 "$holder" 2>/dev/null; then
            rm -rf "$lock" # its maker is gone
            continue
        fi
        [ "$waited" -lt 900 ] || die "another script has been preparing $venv for 15 minutes; if not, remove $lock"
        [ "$waited" -ne 0 ] || say "Waiting for another script that is preparing .venv ..."
        waited=$((waited + 1))
        sleep 1
    done
    echo "$$" >"$lock/pid"
    trap 'rm -rf "$lock"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

release_lock() {
    rm -rf "$lock"
    trap - EXIT INT TERM HUP
}

# Empties an environment that is broken or was made elsewhere or with another interpreter, the lock apart.
# One that works and has no stamp is somebody's own, or an installation was interrupted: that is installed into.
clear_unusable() {
    if usable || { [ ! -e "$stamp" ] && new_enough "$python"; }; then
        return 0
    fi
    find "$venv" -mindepth 1 -maxdepth 1 ! -name "$(basename "$lock")" -exec rm -rf {} +
}

with_uv() {
    command -v uv >/dev/null 2>&1 || return 1
    if [ ! -x "$python" ]; then
        uv venv --quiet --no-project --allow-existing --python "${PYTHON:->=3.11}" "$venv" >>"$log" 2>&1 || return 1
    fi
    uv pip install --quiet --python "$python" -c constraints.txt -e "$what" >>"$log" 2>&1
}

with_pip() {
    if [ ! -x "$python" ] || ! "$python" -m pip --version >/dev/null 2>&1; then
        maker=$(find_python) || exit 2
        "$maker" -m venv "$venv" >>"$log" 2>&1 || return 1
    fi
    # Debian 12's pip would run `setup.py install` for what has no wheel, which reads a `$` in the path as a variable.
    PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 \
        "$python" -m pip install --quiet --use-pep517 -c constraints.txt -e "$what" >>"$log" 2>&1
}

install() {
    extra=$1
    [ "$extra" != run ] || extra=screens
    what=".[$extra]"
    log=$venv/install.log
    # relative paths from here on: a comma or bracket in the repository's path is not for pip to read
    cd -- "$root" || exit 2
    rm -f "$stamp" "$log"
    if ! with_uv && ! with_pip; then
        [ ! -s "$log" ] || tail -n 30 "$log" >&2
        die "the dependencies could not be installed (all of it: $log). Is a package index reachable?"
    fi
    "$python" -c 'import codex_self_iter' >/dev/null 2>&1 || die "$venv was made, but does not work: see $log"
    printf '%s\n' "$1" "$(fingerprint)" "$root" "${PYTHON-}" >"$stamp"
}

# Before 3.13, Python reads the path of an editable installation in the locale's encoding.
mend_locale() {
    case ${LC_ALL-}:$root in
        C:*[!\ -~]* | POSIX:*[!\ -~]*) export LC_ALL=C.UTF-8 ;;
    esac
}

prepare() {
    unset PYTHONHOME
    mend_locale
    ready "$1" && return 0
    take_lock
    if ! ready "$1"; then
        level=$1
        [ "$(level_number "$have")" -le "$(level_number "$1")" ] || level=$have
        say "Preparing .venv (the first time this takes up to a minute) ..."
        clear_unusable
        (install "$level") || exit $?
    fi
    release_lock
}
