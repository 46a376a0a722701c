# Writing to tiered files through the kernel's NFS server. What is expected comes from the same work on copies of the originals.

what_nfs_writes_is_what_arrives() {
    written_over 4.2 is_emptied is_appended is_overwritten is_cut is_cut_and_extended
}

what_nfs_version_3_writes_is_what_arrives() {
    written_over 3 is_appended is_overwritten is_emptied
}

# A cut is no open in this version, and the kernel asks nobody.
a_cut_by_nfs_version_3_keeps_the_beginning() {
    written_over 3 is_cut is_cut_and_extended
}

is_emptied() { echo "new" >"$1"; }
is_appended() { echo "more" >>"$1"; }
is_overwritten() { printf 'over' | dd of="$1" conv=notrunc bs=4 seek=3 2>/dev/null; }
is_cut() { truncate -s 5000 "$1"; }
is_cut_and_extended() {
    truncate -s 5000 "$1"
    truncate -s 12000 "$1"
}

# New originals in the place of so many that were written to: what got small would not be tiered.
renew_originals() {
    local at
    # A stub that was spoilt is deleted first, so that it is nobody's change.
    for ((at = 2; at < 2 + $1; at++)); do rm -f "$stubs/file-$at"; done
    isotherm wait --synced --timeout 100 >/dev/null || true
    for ((at = 2; at < 2 + $1; at++)); do head -c 20000 /dev/urandom >"$plain/file-$at"; done
    isotherm wait --synced --timeout 100 >/dev/null || true
    sums_of_originals
}

# compare FILE: with what is expected of it; /tmp/compared says what is wrong.
compare() {
    local code=0 out
    out=$(timeout 60 cmp "$1" "/tmp/expected/${1##*/}" 2>&1) || code=$?
    [ $code = 124 ] && out="a reader gets no answer in a minute"
    echo "${out##*: }" | head -n 1 | tee /tmp/compared
    return $code
}

# written_over VERSION DEED...: each on a stub of its own, and on a copy of its original.
written_over() {
    local version=$1 deed at=0 name bad="" expected=/tmp/expected
    shift
    tier_all 240
    nfs_mount "$version"
    rm -rf $expected
    mkdir $expected
    # shellcheck disable=SC2064
    trap "nfs_is_left; renew_originals $#" EXIT
    for deed in "$@"; do
        name=file-$((at + 2))
        cp "$plain/$name" $expected/
        "$deed" $expected/$name
        "$deed" "$mounted/plans/$name"
        at=$((at + 1))
        compare "$mounted/plans/$name" || bad+="; ${deed#is_}: over NFS $(cat /tmp/compared)"
        compare "$stubs/$name" || bad+="; ${deed#is_}: here $(cat /tmp/compared)"
    done
    isotherm wait --synced --timeout 60 >/dev/null || bad+="; not in sync"
    at=0
    for deed in "$@"; do
        name=file-$((at + 2))
        compare "$plain/$name" || bad+="; ${deed#is_}: on the other server $(cat /tmp/compared)"
        at=$((at + 1))
    done
    [ -z "$bad" ] || fail "not what was written${bad}"
    note "${*//is_/}"
}
