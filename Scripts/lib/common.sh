# shellcheck shell=bash
# What every script here shares: messages, a scratch directory that is gone at the end, clocks, the binary.
#
#   source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
#
# Sets `repository` (its root) and turns on `set -euo pipefail`.

set -euo pipefail
export LC_ALL=C.UTF-8
umask 022

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
scripts=$repository/Scripts

# --- messages: to standard error, so that standard output holds results alone --------------------------------------

if [[ -t 2 && -z ${NO_COLOR:-} ]]; then
    bold=$'\e[1m' faint=$'\e[2m' red=$'\e[31m' green=$'\e[32m' plain=$'\e[0m'
else
    bold='' faint='' red='' green='' plain=''
fi

heading() { printf '%s==> %s%s\n' "$bold" "$*" "$plain" >&2; }
say() { printf '    %s\n' "$*" >&2; }
fail() {
    printf '%s%s: %s%s\n' "$red" "${0##*/}" "$*" "$plain" >&2
    exit 1
}

# The comment at the head of the script that calls it, without the marks.
usage() { sed -n '2,/^[^#]/{/^#/!d; s/^# \{0,1\}//p}' "$0"; }
# wrong_usage MESSAGE
wrong_usage() {
    printf '%s: %s; see %s --help\n' "${0##*/}" "$1" "$0" >&2
    exit 2
}

require_root() {
    [[ $(id -u) == 0 ]] || fail "only root may mount file systems and make device files; run it as root: sudo $0"
}

# --- scratch: one directory a run, named so that leftovers of a killed run can be told ----------------------------

scratch=
cleanups=()

# at_exit COMMAND: run at the end, whatever happens; the last given first.
at_exit() { cleanups=("$1" "${cleanups[@]}"); }

# Makes the directory `scratch`, below $TMPDIR or /var/tmp (on a disk, where /tmp may be memory), and removes it at
# the end with all that is mounted in it. First removes those of runs that are no more.
make_scratch() {
    local parent=${TMPDIR:-/var/tmp}
    remove_leftovers "$parent"
    scratch=$(mktemp -d "$parent/varve-script-$$-XXXXXX")
    trap 'leave $?' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap 'exit 129' HUP
}

leave() {
    local status=$1 command
    trap - EXIT
    trap '' INT TERM HUP
    set +e
    cd /
    for command in "${cleanups[@]}"; do $command; done
    [[ -z $scratch ]] || remove_tree_of_mounts "$scratch"
    exit "$status"
}

# Children of this shell that still run, and theirs, would keep a mount busy.
end_children() {
    local child
    for child in $(jobs -p); do
        kill -TERM "$child" 2>/dev/null || continue
        wait "$child" 2>/dev/null
    done
}

# remove_tree_of_mounts DIRECTORY: unmounts all below it, the deepest first, detaches the loop devices whose images
# lie there, and removes it.
remove_tree_of_mounts() {
    local directory=$1 target device image try
    while IFS= read -r target; do
        for try in 1 2 3; do
            umount "$target" 2>/dev/null && continue 2
            sleep 0.2
        done
        umount --lazy "$target" 2>/dev/null || true
    done < <(findmnt --raw --noheadings --output TARGET | while IFS= read -r target; do printf '%b\n' "$target"; done |
        { grep -F "$directory/" || true; } | sort -r)
    while read -r device image; do
        [[ $image == "$directory/"* || $image == "$directory"[.-]* ]] && losetup --detach "$device" 2>/dev/null
    done < <(losetup --list --noheadings --raw --output NAME,BACK-FILE 2>/dev/null || true)
    rm -rf --one-file-system "$directory"
}

# remove_leftovers DIRECTORY: the scratch directories in it whose process is gone, and the volumes that tests made
# (Tests/TestSupport/LoopVolume.swift: varve-test-PID-RANDOM).
remove_leftovers() {
    local entry name pid
    for entry in "$1"/varve-script-*-* "$1"/varve-test-*-*; do
        [[ -e $entry || -L $entry ]] || continue
        name=${entry##*/}
        pid=${name#varve-*-}
        pid=${pid%%-*}
        [[ $pid =~ ^[0-9]+$ && ! -d /proc/$pid ]] || continue
        if [[ -f $entry ]]; then
            rm -f "$entry"
        else
            mountpoint --quiet "$entry" && { umount "$entry" || umount --lazy "$entry" || true; }
            remove_tree_of_mounts "$entry"
        fi
    done
}

# --- btrfs ---------------------------------------------------------------------------------------------------------

# make_btrfs DIRECTORY SIZE: a fresh btrfs in a sparse image beside it, mounted there, noatime. It goes with `scratch`.
make_btrfs() {
    truncate --size="$2" "$1.img"
    # Older versions of it print notes even so.
    mkfs.btrfs --quiet "$1.img" >"$1.mkfs" 2>&1 || { cat "$1.mkfs" >&2; return 1; }
    rm "$1.mkfs"
    mkdir -p "$1"
    # Of two processes that take a loop device at the same moment, one may find the other's behind it.
    local try
    for try in 1 2 3; do
        mount --options loop,noatime,user_subvol_rm_allowed "$1.img" "$1" && return
        sleep "$try"
    done
    return 1
}

# Ends the run unless this host mounts a btrfs on a loop device. Needs `scratch`.
require_btrfs() {
    local reason
    [[ -e /dev/loop-control ]] || modprobe loop 2>/dev/null || true
    [[ -e /dev/loop-control ]] ||
        fail "this host has no loop devices (/dev/loop-control); load the driver: modprobe loop"
    grep -qw btrfs /proc/filesystems || modprobe btrfs 2>/dev/null || true
    grep -qw btrfs /proc/filesystems ||
        fail "this kernel has no btrfs; load it (modprobe btrfs) or run on a kernel that has it"
    reason=$(make_btrfs "$scratch/probe" 256M 2>&1) ||
        fail "cannot mount a btrfs on a loop device ($reason); in a container, run it privileged with /dev"
    umount "$scratch/probe"
    rm -rf "$scratch/probe" "$scratch"/probe.*
}

# --- clocks --------------------------------------------------------------------------------------------------------

# Microseconds since the epoch.
now() { printf '%s' "${EPOCHREALTIME/[.,]/}"; }

# milliseconds MICROSECONDS: as "12.3"
milliseconds() { printf '%d.%d' $(($1 / 1000)) $(($1 % 1000 / 100)); }

# duration MICROSECONDS: for people, as "43 ms" or "2.31 s"
duration() {
    if (($1 < 10000)); then
        printf '%d.%d ms' $(($1 / 1000)) $(($1 % 1000 / 100))
    elif (($1 < 1000000)); then
        printf '%d ms' $((($1 + 500) / 1000))
    else
        printf '%d.%02d s' $(($1 / 1000000)) $(($1 % 1000000 / 10000))
    fi
}

# --- the binary ----------------------------------------------------------------------------------------------------

# Sets `varve`, the command to try: $VARVE, else the release binary, which is built if need be.
need_varve() {
    if [[ -n ${VARVE:-} ]]; then
        varve=$(command -v "$VARVE") || fail "\$VARVE names \"$VARVE\", which is no program; unset it to build one"
        varve=$(realpath "$varve")
        return
    fi
    # What is linked decides how long a process takes to start: libstdc++, of which little is used, is linked statically
    # where it can be, and no symbol is exported, as the runtime would search through them at each start. Types that are
    # known when a file is compiled are made by calls: made by their names, which is shorter and the default, they ask the
    # runtime for each conformance, and it searches all that there are.
    local by_call=-disable-concrete-type-metadata-mangled-name-accessors
    release_options
    local options=("${release_options[@]}" --product varve -Xlinker --no-export-dynamic) cxx
    cxx=$(clang --print-file-name=libstdc++.a 2>/dev/null) || cxx=""
    if [[ $cxx == /* ]]; then
        mkdir -p "$repository/.build/static"
        ln -sfn "$cxx" "$repository/.build/static/libstdc++.a"
        options+=(-Xlinker "-L$repository/.build/static")
    fi
    if [[ $(swiftc -frontend -help-hidden 2>/dev/null) == *"$by_call"* ]]; then
        options+=(-Xswiftc -Xfrontend -Xswiftc "$by_call")
    fi
    # The toolchain's own ld.lld packs 1.3 MB of relocations, which are read at each start, into 12 KB; glibc reads those since
    # 2.36.
    if [[ -x $(dirname "$(realpath "$(command -v swiftc)")")/ld.lld ]] && has_glibc 2.36; then
        options+=(-Xswiftc -use-ld=lld -Xlinker -z -Xlinker pack-relative-relocs)
    fi
    swift build "${options[@]}" >&2 || fail "the release build failed; its messages are above"
    varve=$(swift build "${options[@]}" --show-bin-path)/varve
}

# Sets `release_options`, for a program that runs without a toolchain: the runtime of Swift is in it, it looks for no library beside
# itself, and no path of this machine is in it.
release_options() {
    local prefix="$repository=/usr/src/varve"
    release_options=(--package-path "$repository" --configuration release --static-swift-stdlib --disable-local-rpath
        -Xswiftc -file-prefix-map -Xswiftc "$prefix" -Xcc "-ffile-prefix-map=$prefix" -Xcxx "-ffile-prefix-map=$prefix")
}

# has_glibc VERSION: this one or a later one.
has_glibc() {
    local version
    version=$(getconf GNU_LIBC_VERSION 2>/dev/null) || return 1
    [[ $(printf '%s\n' "$1" "${version#glibc }" | sort --version-sort | head -n 1) == "$1" ]]
}

# debug_build OPTION…: `swift build` of the debug build. The variable VARVE_TRAITS names the traits of the package that it is built with
# (Scripts/test builds with all of them): with others than before, all is compiled anew.
debug_build() { swift build --package-path "$repository" ${VARVE_TRAITS:+--traits "$VARVE_TRAITS"} "$@"; }

# The same, for what only debug builds have.
need_debug_varve() {
    if [[ -n ${VARVE:-} ]]; then
        need_varve
        return
    fi
    debug_build --product varve >&2 || fail "the build failed; its messages are above"
    varve=$(debug_build --show-bin-path)/varve
}
