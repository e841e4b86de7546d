# shellcheck shell=bash
# containerd 1.7 and what its conformance suite is built with, from Debian 13's packages. Source after common.sh.

containerd_cache=${XDG_CACHE_HOME:-/var/cache}/varve-test/containerd-1.7
# Programs (ctr, containerd, the shim) and Go sources, as the packages have them.
containerd_tree=$containerd_cache/tree

# fetch_containerd [--sources]: downloads the packages, with package lists of their own, and unpacks them into a cache. Nothing is
# installed. With --sources also Go and the packages that the conformance suite is built from (some 350 MB unpacked).
fetch_containerd() {
    local wanted=$containerd_cache/programs work mirror package
    [[ ${1:-} == --sources ]] && wanted=$containerd_cache/sources
    [[ -e $wanted ]] && return
    mkdir -p "$containerd_cache" || fail "cannot make a folder in \"$containerd_cache\""
    work=$(mktemp -d "$containerd_cache/fetching-XXXXXX")
    at_exit "rm -rf $work"
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 2>/dev/null |
        head -n 1)
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/packages" "$containerd_tree"
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s trixie main\n' \
        "${mirror:-http://deb.debian.org/debian/}" >"$work/sources.list"
    local aside=(--option "Dir::Etc::SourceList=$work/sources.list" --option Dir::Etc::SourceParts=/dev/null
        --option "Dir::State::Lists=$work/lists" --option "Dir::Cache=$work/cache" --option Acquire::Languages=none
        --option Acquire::Retries=3 --option APT::Sandbox::User=root --option Dir::Etc::Preferences=/dev/null
        --option Dir::Etc::PreferencesParts=/dev/null --quiet=2)
    local packages=(containerd)
    apt-get "${aside[@]}" update </dev/null >&2 || fail "the package lists of Debian 13 cannot be read from ${mirror:-deb.debian.org}"
    if [[ ${1:-} == --sources ]]; then
        packages=(golang-1.24-go golang-1.24-src)
        # All Go packages that it depends on but the clients of cloud registries, which the suite does not build.
        mapfile -t -O 2 packages < <(apt-cache "${aside[@]}" depends --recurse --no-recommends --no-suggests --no-conflicts \
            --no-breaks --no-replaces --no-enhances golang-github-containerd-containerd-dev |
            grep -oE '^golang-[a-z0-9.-]+-dev' | sort -u | grep -vE 'aws-sdk|google-api|google-cloud')
    fi
    heading "Fetching ${#packages[@]} packages of Debian 13"
    (cd "$work/packages" && apt-get "${aside[@]}" download "${packages[@]}" </dev/null >&2) || fail "the download failed"
    for package in "$work"/packages/*.deb; do
        dpkg -x "$package" "$containerd_tree" || fail "$package cannot be unpacked"
    done
    touch "$wanted"
    rm -rf "$work"
}

# make_loop_store SIZE: a btrfs in memory or below $scratch, with a store: sets `volume` and `store`.
make_loop_store() {
    volume=$scratch/volume store=$scratch/volume/store
    make_btrfs "$volume" "$1"
    "$varve" store init "$store" >&2
}
