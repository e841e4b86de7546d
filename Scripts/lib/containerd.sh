# shellcheck shell=bash
# containerd and what its conformance suite is built with, from Debian's packages, and the programs that run beside it. Source after
# common.sh.
source "$scripts/lib/aside.sh"

# fetch_containerd [SUITE] [--sources]: unpacks containerd of a suite of Debian (trixie: 1.7; sid: 2.x) into a cache, and with --sources also
# Go and the packages that its conformance suite is built from (some 350 MB). Sets `containerd_tree`, what the packages
# have, and `containerd_suite`.
fetch_containerd() {
    containerd_suite=trixie
    if [[ ${1:-} != '' && $1 != --* ]]; then
        containerd_suite=$1
        shift
    fi
    local wanted=programs
    if [[ ${1:-} == --sources ]]; then wanted=sources; fi
    containerd_tree=$aside_cache/containerd-$containerd_suite
    # What sid has changes.
    if [[ $containerd_suite == sid ]]; then
        find "$containerd_tree" -maxdepth 1 -name "$wanted" -mtime +6 -delete 2>/dev/null || true
    fi
    if [[ -e $containerd_tree/$wanted ]]; then return; fi
    heading "Fetching containerd of Debian $containerd_suite (its $wanted)"
    with_aside "$containerd_suite" -- unpack_containerd "$wanted"
}

unpack_containerd() {
    local packages=(containerd)
    if [[ $1 == sources ]]; then
        packages=(golang-1.24-go golang-1.24-src)
        # All Go packages that it depends on but the clients of cloud registries, which the suite does not build.
        mapfile -t -O 2 packages < <(apt-cache "${aside[@]}" depends --recurse --no-recommends --no-suggests --no-conflicts \
            --no-breaks --no-replaces --no-enhances golang-github-containerd-containerd-dev |
            grep -oE '^golang-[a-z0-9.-]+-dev' | sort -u | grep -vE 'aws-sdk|google-api|google-cloud')
    fi
    unpack_aside "$containerd_tree" "${packages[@]}"
    touch "$containerd_tree/$1"
}

# go_build FOLDER OUTPUT COMMAND…: builds with `go COMMAND` a Go test or program of Tests/ with containerd's packages (fetch_containerd --sources).
go_build() {
    local folder=$1 output=$2
    shift 2
    export GOROOT=$containerd_tree/usr/lib/go-1.24 GOPATH=$scratch/go GO111MODULE=off GOTOOLCHAIN=local GOFLAGS='' CGO_ENABLED=0
    export GOCACHE=$aside_cache/go-build
    mkdir -p "$GOPATH"
    ln -sfn "$containerd_tree/usr/share/gocode/src" "$GOPATH/src"
    (cd "$repository/Tests/$folder" && "$GOROOT/bin/go" "$@" -o "$output" .) >&2 || fail "Tests/$folder does not build"
}

# Sets `varve` and `daemon_program`: $VARVE and $VARVE_CONTAINERD, else the debug builds of the command and the daemon.
need_debug_daemon() {
    if [[ -n ${VARVE_CONTAINERD:-} ]]; then
        need_varve
        need_daemon
        return
    fi
    export VARVE_TRAITS=Containerd
    local product
    for product in varve varve-containerd; do
        debug_build --product "$product" >&2 || fail "$product does not build"
    done
    varve=$(debug_build --show-bin-path)/varve
    daemon_program=$(debug_build --show-bin-path)/varve-containerd
}

# Sets `daemon_program`, the daemon to measure: $VARVE_CONTAINERD, else the release binary, which is built if need be, apart from the
# command's, which has no traits.
need_daemon() {
    if [[ -n ${VARVE_CONTAINERD:-} ]]; then
        daemon_program=$(realpath "$(command -v "$VARVE_CONTAINERD")") ||
            fail "\$VARVE_CONTAINERD names \"$VARVE_CONTAINERD\", which is no program; unset it to build one"
        return
    fi
    release_options
    local options=("${release_options[@]}" --scratch-path "$repository/.build-containerd" --traits Containerd
        --product varve-containerd)
    swift build "${options[@]}" >&2 || fail "the release build of the daemon failed; its messages are above"
    daemon_program=$(swift build "${options[@]}" --show-bin-path)/varve-containerd
}

# Makes $scratch/certificate, with its key in it, for a registry on loopback: containerd 1.7 itself pulls from nothing but what speaks TLS.
make_certificate() {
    openssl req -x509 -newkey rsa:2048 -noenc -days 2 -subj /CN=registry -addext subjectAltName=IP:127.0.0.1 -keyout "$scratch/key" \
        -out "$scratch/certificate" 2>/dev/null || fail 'openssl makes no certificate'
    cat "$scratch/key" >>"$scratch/certificate"
}

# make_loop_store SIZE: a btrfs in memory or below $scratch, with a store: sets `volume` and `store`.
make_loop_store() {
    volume=$scratch/volume store=$scratch/volume/store
    make_btrfs "$volume" "$1"
    "$varve" store init "$store" >&2
}

# start_daemon ID [OPTION…]: in the background, with its log in $scratch/varve.log. Sets `daemon`, its process.
start_daemon() {
    local id=$1
    shift
    "$daemon_program" --address "$scratch/daemon/varve.sock" --root "$store" --id "$id" --containerd "$scratch/containerd.sock" \
        --log-level debug "$@" 2>>"$scratch/varve.log" &
    daemon=$!
}

# start_containerd: in the background, with $scratch/config.toml and its log in $scratch/containerd.log. Returns when it answers.
start_containerd() {
    local try
    "$containerd_tree/usr/bin/containerd" --config "$scratch/config.toml" >>"$scratch/containerd.log" 2>&1 &
    containerd=$!
    for ((try = 0; try < 600; try++)); do
        ctr version >/dev/null 2>&1 && return
        kill -0 "$containerd" 2>/dev/null || break
        sleep 0.1
    done
    tail -n 20 "$scratch/containerd.log" >&2
    fail "containerd of Debian $containerd_suite does not start"
}

# The client of that containerd.
ctr() { "$containerd_tree/usr/bin/ctr" --address "$scratch/containerd.sock" "$@"; }

# documented_configuration_text VERSION: the configuration of containerd that Docs/containerd.md gives with `version = VERSION`.
documented_configuration_text() {
    awk -v version="version = $1" '
        /^```toml$/ { inside = 1; text = ""; next }
        /^```$/ { if (inside && index(text, version "\n") == 1) printf "%s", text; inside = 0 }
        inside { text = text $0 "\n" }' "$repository/Docs/containerd.md"
}

# documented_configuration VERSION: the same with the paths of this run.
documented_configuration() {
    documented_configuration_text "$1" |
        sed -e "1a root = \"$volume/containerd\"\nstate = \"$scratch/state\"" \
            -e "s|/run/varve-containerd/varve-containerd.sock|$scratch/daemon/varve.sock|; s|/var/lib/varve|$store|"
    printf '[grpc]\n  address = "%s"\n' "$scratch/containerd.sock"
}

# end_pods GROUP: what is left of pods if a check fails, as containerd's shims and the containers outlive it: those of this run's containerd,
# and all in the control group.
end_pods() {
    local id directory
    for id in $(pgrep -f -- "-address $scratch/containerd.sock"); do kill -KILL "$id"; done
    for directory in /sys/fs/cgroup/{,*/}"$1"; do
        if [[ ! -d $directory ]]; then continue; fi
        while read -r id; do kill -KILL "$id"; done < <(find "$directory" -name cgroup.procs -exec cat {} +)
        within_seconds 5 remove_group "$directory"
    done
}
remove_group() { find "$1" -depth -type d -exec rmdir {} + 2>/dev/null; }
