# shellcheck shell=bash
# Docker's daemon and client, from Debian's packages. Source after common.sh.
source "$scripts/lib/aside.sh"

# fetch_docker [SUITE]: unpacks them into a cache. bookworm has Docker 20.10, which knows no containerd image store and builds without
# BuildKit; trixie 26, sid 28. Sets `docker_tree`, what the packages have.
fetch_docker() {
    local suite=${1:-bookworm} packages=(docker.io)
    docker_tree=$aside_cache/docker-$suite
    # What sid has changes.
    if [[ $suite == sid ]]; then find "$docker_tree" -maxdepth 1 -name programs -mtime +6 -delete 2>/dev/null || true; fi
    if [[ -e $docker_tree/programs ]]; then return; fi
    if [[ $suite != bookworm ]]; then packages+=(docker-cli docker-buildx); fi
    heading "Fetching Docker of Debian $suite"
    with_aside "$suite" -- unpack_aside "$docker_tree" "${packages[@]}"
    touch "$docker_tree/programs"
}

# Sets `busybox`, a shell without libraries, from Debian's package.
fetch_busybox() {
    busybox=$aside_cache/busybox/bin/busybox
    if [[ -x $busybox ]]; then return; fi
    heading 'Fetching busybox'
    with_aside bookworm -- unpack_aside "$aside_cache/busybox" busybox-static
}

# docker_configuration SNAPSHOTTER FOLDER NAMESPACE: that of a daemon with its data in FOLDER and its socket at
# $scratch/SNAPSHOTTER.sock, on the containerd at $scratch/containerd.sock.
docker_configuration() {
    cat <<END
{ "features": { "containerd-snapshotter": true }, "storage-driver": "$1", "iptables": false, "ip6tables": false, "bridge": "none",
  "data-root": "$2/docker", "exec-root": "/run/docker/$1", "pidfile": "$scratch/$1.pid", "hosts": ["unix://$scratch/$1.sock"],
  "containerd": "$scratch/containerd.sock", "containerd-namespace": "$3", "containerd-plugins-namespace": "$3-plugins" }
END
}

# start_docker SNAPSHOTTER FOLDER NAMESPACE: such a daemon in the background. Returns when it answers.
start_docker() {
    local try
    docker_configuration "$@" >"$scratch/$1.json"
    dockerd --config-file "$scratch/$1.json" >>"$scratch/docker.log" 2>&1 &
    dockers+=($!)
    for ((try = 0; try < 600; try++)); do
        docker --host "unix://$scratch/$1.sock" version >/dev/null 2>&1 && return
        kill -0 "${dockers[-1]}" 2>/dev/null || break
        sleep 0.1
    done
    tail -n 20 "$scratch/docker.log" >&2
    fail "Docker does not start with $1"
}
dockers=()

# The control groups of dockerd and buildkitd, which they leave.
control_groups() { find /sys/fs/cgroup -maxdepth 2 '(' -name docker -o -name buildkit ')' 2>/dev/null | sort; }
# remove_groups: those that were not in $groups_before.
remove_groups() {
    local group
    for group in $(comm -13 <(printf '%s\n' "${groups_before:-}") <(control_groups)); do
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
    done
}

# own_mounts ARGUMENT…: runs the script anew, with these arguments, where nobody else sees what it mounts: dockerd writes to places that no
# option moves.
own_mounts() {
    if [[ -z ${VARVE_OWN_MOUNTS:-} ]]; then
        VARVE_OWN_MOUNTS=yes exec unshare --mount --propagation private "$0" "$@"
    fi
}

# Puts Docker's programs and containerd's into $PATH, and makes the places that dockerd writes to.
use_docker() {
    export PATH=$docker_tree/usr/bin:$docker_tree/usr/sbin:$containerd_tree/usr/bin:$PATH
    export DOCKER_BUILDKIT=1 HOME=$scratch/home
    mkdir -p "$HOME/.docker/cli-plugins"
    ln -s "$docker_tree"/usr/libexec/docker/cli-plugins/* "$HOME/.docker/cli-plugins/"
    make_docker_places
    local place
    for place in /etc/docker /run/docker; do mount --bind "$scratch/places$place" "$place"; done
    groups_before=$(control_groups)
}

# The directories that dockerd writes to whatever its options say, and others in $scratch/places to mount there where nobody else sees it.
made_places=()
make_docker_places() {
    local place
    for place in /etc/docker /run/docker; do
        if [[ ! -e $place ]]; then
            mkdir "$place"
            made_places+=("$place")
        fi
        mkdir -p "$scratch/places$place"
    done
}
remove_docker_places() {
    findmnt /run/docker >/dev/null && umount --recursive --lazy /run/docker
    findmnt /etc/docker >/dev/null && umount --recursive --lazy /etc/docker
    ((${#made_places[@]} == 0)) || rmdir "${made_places[@]}"
}
