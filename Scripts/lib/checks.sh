# shellcheck shell=bash
# Checks of a script that runs daemons: the first that does not hold ends it, with the ends of their logs. Source after common.sh.

logs=()
checks=0
# check WHAT COMMAND…: the command must succeed.
check() {
    local what=$1
    shift
    if ! "$@"; then
        tail -n 30 "${logs[@]}" >&2
        # A program of Swift's that crashed says why, and much more after that.
        grep -h -A 60 -E 'Fatal error|\*\*\* Signal|Program crashed' "${logs[@]}" >&2 || true
        fail "$what: that is not so"
    fi
    checks=$((checks + 1))
    say "$what"
}
# same EXPECTED ACTUAL
same() { [[ $1 == "$2" ]] || { printf 'expected: %s\nbut it is: %s\n' "$1" "$2" >&2; return 1; }; }
# within_seconds N COMMAND…: until it succeeds.
within_seconds() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        if ((SECONDS > end)); then return 1; fi
        sleep 0.1
    done
}
# fails_with TEXT COMMAND…: it must fail, and say that.
fails_with() {
    local text=$1 said
    shift
    if said=$("$@" 2>&1); then
        printf 'it did not fail\n' >&2
        return 1
    fi
    grep -qF -- "$text" <<<"$said" || { printf 'it said: %s\n' "$said" >&2; return 1; }
}
