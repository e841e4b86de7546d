# shellcheck shell=bash
# Debian packages of other suites than the host's, unpacked into a cache for the tests alone and not installed. Source after
# common.sh.

aside_cache=${XDG_CACHE_HOME:-/var/cache}/varve-test

# with_aside SUITE… -- COMMAND…: runs COMMAND in a subshell in which the array `aside` makes apt-get and apt-cache use package lists
# of those suites alone. They lie in the folder `aside_work` on the file system of the cache, which is gone at the end.
with_aside() (
    suites=()
    while [[ $1 != -- ]]; do
        suites+=("$1")
        shift
    done
    shift
    { mkdir -p "$aside_cache" && aside_work=$(mktemp -d "$aside_cache/fetching-XXXXXX"); } 2>/dev/null ||
        fail "cannot make a folder in \"$aside_cache\""
    trap 'rm -rf "$aside_work"' EXIT
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 2>/dev/null |
        head -n 1)
    mirror=${mirror:-http://deb.debian.org/debian/}
    mkdir -p "$aside_work/lists/partial" "$aside_work/cache/archives/partial" "$aside_work/packages"
    for suite in "${suites[@]}"; do
        printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$mirror" "$suite"
    done >"$aside_work/sources.list"
    aside=(--option "Dir::Etc::SourceList=$aside_work/sources.list" --option Dir::Etc::SourceParts=/dev/null
        --option "Dir::State::Lists=$aside_work/lists" --option "Dir::Cache=$aside_work/cache" --option Acquire::Languages=none
        --option Acquire::Retries=3 --option APT::Sandbox::User=root --option Dir::Etc::Preferences=/dev/null
        --option Dir::Etc::PreferencesParts=/dev/null --quiet=2)
    apt-get "${aside[@]}" update </dev/null >&2 ||
        fail "the package lists of Debian ${suites[*]} cannot be read from $mirror"
    "$@"
)

# unpack_aside TREE PACKAGE[=VERSION]…: for COMMAND of with_aside: downloads packages and unpacks them into TREE.
unpack_aside() {
    local tree=$1 package
    shift
    (cd "$aside_work/packages" && apt-get "${aside[@]}" download "$@" </dev/null >&2) || fail "the download of $* failed"
    mkdir -p "$tree"
    for package in "$aside_work"/packages/*.deb; do
        dpkg -x "$package" "$tree" || fail "$package cannot be unpacked"
    done
}
