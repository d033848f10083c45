# shellcheck shell=bash
# Shared by the scripts of test/: where the checkout is, which PostgreSQL, which account.
# To be sourced; sets ROOT, WORK, PG and PG_LIB.
# shellcheck disable=SC2034  # used by the scripts that source this

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
WORK=$ROOT/.work
PG=${PG:-15}
PG_LIB=/usr/lib/postgresql/$PG
PYTHON=/usr/bin/python3
unset MAKEFLAGS MAKELEVEL MFLAGS
export PG PYTHONDONTWRITEBYTECODE=1 LC_ALL=C.UTF-8

say() { printf '== %s\n' "$*"; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# The suite of Debian to test PostgreSQL $PG in; fails if that is this one, if the machine has that
# PostgreSQL anyway, or if there is none.
other_debian() {
    local suite
    case $PG in
        17) suite=trixie ;;
        18) suite=forky ;;
        *) return 1 ;;
    esac
    [ ! -e "$PG_LIB/bin/postgres" ] || return
    ! grep -qx "VERSION_CODENAME=$suite" /etc/os-release || return
    echo "$suite"
}

# Runs a command as the unprivileged account if we are root, else just runs it.
as_server_account() {
    if [ "$(id -u)" != 0 ]; then
        "$@"
    elif getent passwd postgres >/dev/null; then
        setpriv --reuid=postgres --regid=postgres --clear-groups "$@"
    else
        setpriv --reuid=nobody --regid=nogroup --clear-groups "$@"
    fi
}

# Ends the script by running a Python program (path below the checkout, or -m MODULE) in the checkout
# or, if the unprivileged account may not enter it (/root, say), in a temporary copy of what tests
# need, which Python removes at its end. Call after the build.
exec_python() {
    local home=$ROOT copy=
    if ! as_server_account test -x "$ROOT/test" 2>/dev/null; then
        copy=$(mktemp -d "${TMPDIR:-/tmp}/herald-XXXXXX") home=$copy
        trap 'rm -rf "$copy"' EXIT
        say "PostgreSQL's account may not enter $ROOT: using a copy in $copy, removed at the end"
        chmod 755 "$copy"
        tar -C "$ROOT" --exclude=./.git --exclude=./.work --exclude=./.build/npm --exclude='*.o' --exclude='*.a' \
            --exclude='*/CMakeFiles' -cf - . | tar -C "$copy" -xf -
        "$ROOT/test/support/prefix" "$copy/.work/pg$PG"
    fi
    cd "$home" || exit
    export HERALD_COPY=$copy PYTHONPATH=$home/test/support
    exec "$PYTHON" "$@"
}
