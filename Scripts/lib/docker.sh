# shellcheck shell=bash
# Docker's daemon and client, from Debian's package. Source after common.sh.
source "$scripts/lib/aside.sh"

# Unpacks them into a cache. Sets `docker_tree`, what the package has.
fetch_docker() {
    docker_tree=$aside_cache/docker-bookworm
    if [[ -e $docker_tree/programs ]]; then return; fi
    heading "Fetching Docker of Debian bookworm"
    with_aside bookworm -- unpack_aside "$docker_tree" docker.io
    touch "$docker_tree/programs"
}
