# shellcheck shell=bash
# A Debian with a systemd of its own and no Swift, which systemd-nspawn boots; it shares the kernel, the network and the loop devices
# of the host. Source after common.sh and aside.sh.

machine_packages=(libbtrfsutil1 libdeflate0 libisal2 libzstd1 zlib1g libgcc-s1 btrfs-progs crun skopeo)

# fetch_machine [SUITE]: makes the root of that Debian (bookworm) in the cache, with the packages that Varve needs downloaded and not
# installed: what is installed later asks no network. Sets `machine_archive`.
fetch_machine() {
    local suite=${1:-bookworm}
    machine_archive=$aside_cache/machine-$suite.tar
    if [[ -e $machine_archive ]]; then return; fi
    heading "Making a Debian $suite with systemd"
    # shellcheck disable=SC2119
    with_aside "$suite" -- make_machine "$suite"
}

make_machine() {
    local number
    for ((number = 0; number < 100; number++)); do printf 'b /dev/loop%d 0660 root root - 7:%d\n' "$number" "$number"; done \
        >"$aside_work/loop.conf"
    printf 'c /dev/loop-control 0660 root root - 10:237\n' >>"$aside_work/loop.conf"
    mmdebstrap --quiet --variant=apt --skip=cleanup/apt --include=systemd,systemd-sysv,dbus,udev,init-system-helpers \
        --customize-hook="upload $aside_work/loop.conf /etc/tmpfiles.d/loop.conf" \
        --customize-hook="chroot \"\$1\" apt-get --quiet=2 --yes --download-only install ${machine_packages[*]}" \
        "$1" "$aside_work/machine.tar" "$mirror" </dev/null >&2 || fail "mmdebstrap cannot make a Debian $1"
    mv "$aside_work/machine.tar" "$machine_archive"
}

# unpack_machine: the root of a machine, new, in $scratch/machine. Sets `machine`.
unpack_machine() {
    machine=$scratch/machine
    mkdir "$machine"
    tar --extract --file="$machine_archive" --directory="$machine" --numeric-owner --exclude='./dev/*'
    # As an installed Debian has it; `varve run` shows it to containers.
    printf '127.0.0.1 localhost\n' >"$machine/etc/hosts"
    at_exit kill_machine
}

# start_machine: boots it, with its console in $scratch/console.log. Returns when it has booted.
start_machine() {
    systemd-nspawn --quiet --timezone=off --register=no --keep-unit --directory="$machine" --machine=varve-test --boot --console=read-only \
        --link-journal=no --capability=all --system-call-filter="add_key keyctl request_key bpf" </dev/null >>"$scratch/console.log" 2>&1 &
    machine_process=$!
    within_seconds 30 find_leader || fail 'systemd-nspawn starts no machine'
    within_seconds 60 has_booted || {
        tail -n 30 "$scratch/console.log" >&2
        fail 'the machine does not boot'
    }
    # On a host with control groups of version 1 systemd-nspawn gives their controllers read-only; runtimes make groups of their own.
    in_machine sh -c 'for each in /sys/fs/cgroup /sys/fs/cgroup/*; do mount -o remount,bind,rw "$each" 2>/dev/null; done; :'
}

find_leader() {
    leader=$(cat "/proc/$machine_process/task/$machine_process/children" 2>/dev/null) && leader=${leader%% *} && [[ -n $leader ]] &&
        [[ $(cat "/proc/$leader/comm") == systemd ]]
}
has_booted() { [[ $(in_machine systemctl is-system-running 2>/dev/null) =~ ^(running|degraded)$ ]]; }

# in_machine COMMAND…: runs a command in it, as root.
in_machine() {
    nsenter --target "$leader" --all env --ignore-environment PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
        DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8 "$@" </dev/null
}

# stop_machine: shuts it down, as a reboot would.
stop_machine() {
    kill -TERM "$machine_process"
    wait "$machine_process" || true
    machine_process=''
}

kill_machine() {
    [[ -n ${machine_process:-} ]] || return 0
    kill -KILL "${leader:-}" 2>/dev/null
    kill -KILL "$machine_process" 2>/dev/null
    wait "$machine_process" 2>/dev/null
    return 0
}
