# shellcheck shell=bash
# umoci 0.6.0, which Debian 12 does not have, from Debian's newer suites: beside the installed one, and not installed. Source after common.sh.
source "$scripts/lib/aside.sh"

umoci_version=0.6.0

# fetch_umoci: unpacks it into a cache. Sets `umoci`, the program.
fetch_umoci() {
    umoci_tree=$aside_cache/umoci-$umoci_version
    umoci=$umoci_tree/usr/bin/umoci
    if [[ -x $umoci ]]; then return; fi
    heading "Fetching umoci $umoci_version"
    with_aside sid testing -- unpack_umoci
}

unpack_umoci() {
    local found
    found=$(apt-cache "${aside[@]}" madison umoci |
        awk -F '[| ]+' -v "version=$umoci_version" 'index($3, version) == 1 { print $3; exit }')
    [[ -n $found ]] ||
        fail "umoci $umoci_version, which Varve is compared with, is not in Debian's sid and testing any more; put its binary at \"$umoci\""
    unpack_aside "$aside_work/umoci" "umoci=$found"
    "$aside_work/umoci/usr/bin/umoci" --version >/dev/null || fail "umoci $umoci_version of Debian does not run on this host"
    rm -rf "$umoci_tree"
    mv "$aside_work/umoci" "$umoci_tree"
}
