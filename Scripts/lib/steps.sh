# shellcheck shell=bash
# Steps with their times, and results in a table. For demo and acceptance; source it after common.sh.

# layout_info COMMAND LAYOUT TAG: see layout_info.py.
layout_info() { python3 -B "$scripts/lib/layout_info.py" "$@"; }

# Splits IMAGE (PATH[:TAG]) into `layout` and `tag`.
split_image() {
    layout=$1 tag=latest
    if [[ ${1##*/} == *:* ]]; then
        layout=${1%:*} tag=${1##*:}
    fi
    [[ -f $layout/index.json ]] || fail "\"$layout\" is no OCI image layout (it has no index.json)"
    layout=$(realpath "$layout")
}

# timed COMMAND…: runs it and sets `elapsed`, in microseconds of the clock on the wall. Ends with its exit code.
timed() {
    local start status=0
    start=$(now)
    "$@" || status=$?
    elapsed=$(($(now) - start))
    return "$status"
}

# fastest N COMMAND…: the least of N times, in `elapsed`. The command's output is dropped.
fastest() {
    local count=$1 best='' run
    shift
    for ((run = 0; run < count; run++)); do
        timed "$@" >/dev/null
        if [[ -z $best ]] || ((elapsed < best)); then best=$elapsed; fi
    done
    elapsed=$best
}

# What was found: one row a result. result pass|fail|note WHAT FIGURES
rows=()
failures=0
result() {
    local mark=$1 what=$2 figures=${3:-}
    rows+=("$mark"$'\t'"$what"$'\t'"$figures")
    case $mark in
    pass) printf '  %s%-4s%s  %-58s %s\n' "$green" "$mark" "$plain" "$what" "$figures" >&2 ;;
    fail)
        failures=$((failures + 1))
        printf '  %s%-4s%s  %-58s %s\n' "$red" "$mark" "$plain" "$what" "$figures" >&2
        ;;
    *) printf '  %s%-4s%s  %-58s %s\n' "$faint" "$mark" "$plain" "$what" "$figures" >&2 ;;
    esac
}

# The table of all results, to standard output.
print_results() {
    local row mark what figures
    for row in "${rows[@]}"; do
        IFS=$'\t' read -r mark what figures <<<"$row"
        printf '%-4s  %-58s  %s\n' "$mark" "$what" "$figures"
    done
}

# make_loopback_store SIZE: a store of varve's own making, mounted at $scratch/store; VARVE_STORE names it.
make_loopback_store() {
    store=$scratch/store
    export VARVE_STORE=$store
    "$varve" store init "$store" --loopback "$1"
}

# run_container RUNTIME BUNDLE SCRIPT: its output. Every runtime gets a host that it can live with: no control groups
# (containers of this sort need none), and the second hierarchy of a hybrid host out of crun's sight.
run_container() {
    local runtime=$1 bundle=$2 script=$3 copy id
    copy=$(mktemp -d "$scratch/runtime-XXXXXX")
    id=varve-script-$$-${copy##*-}
    jq --arg script "$script" --arg root "$bundle/rootfs" '
        .process.terminal = false | .process.args = ["/bin/sh", "-c", $script] | .root.path = $root
        ' "$bundle/config.json" >"$copy/config.json"
    local options=(--root "$copy/state")
    if [[ $runtime == crun ]]; then options+=(--cgroup-manager=disabled); fi
    unshare --mount --propagation private sh -c '
        if [ -d /sys/fs/cgroup/unified ]; then umount /sys/fs/cgroup/unified; fi
        exec "$@"' sh "$runtime" "${options[@]}" run --bundle "$copy" "$id" </dev/null
}
