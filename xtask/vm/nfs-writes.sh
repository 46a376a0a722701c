# Writing to tiered files through the kernel's NFS server. What is expected comes from the same work on copies of the originals.

what_nfs_writes_is_what_arrives() {
    written_over 4.2 is_emptied is_appended is_overwritten is_cut is_cut_and_extended
}

what_nfs_version_3_writes_is_what_arrives() {
    written_over 3 is_appended is_overwritten is_emptied
}

# `truncate(2)` by path is no open, in no version, and the kernel asks nobody. In version 3 neither is `ftruncate(2)`.
cuts_by_nfs_version_4_are_told_and_undone() { changed_over 4.2 by_path; }
cuts_by_nfs_version_3_are_told_and_undone() { changed_over 3 by_path by_descriptor; }

# by_path FILE LENGTH...: as programs do that do not open it. by_descriptor: as `truncate` does.
by_path() { perl -e 'my $file = shift; for (@ARGV) { truncate($file, $_) or die "truncate: $!" }' "$@"; }
by_descriptor() {
    local file=$1 length
    shift
    for length in "$@"; do truncate -s "$length" "$file"; done
}

# Its code says that there are problems, which is no failure here.
is_listed() { grep -q "^$1 " <<<"$(isotherm problems || true)"; }
nothing_is_listed() { ! grep -q '^file-' <<<"$(isotherm problems || true)"; }
is_empty_there() { [ ! -s "$plain/$1" ]; }

# changed_over VERSION WAY...: stubs whose length is changed in these ways. Nobody gets a wrong byte, on no server; what is
# wrong is listed, and the remedy that it names brings all back.
changed_over() {
    local version=$1 way at=2 changed=()
    shift
    tier_all 240
    nfs_mount "$version"
    trap "nfs_is_left; renew_originals 10" EXIT
    for way in "$@"; do
        "$way" "$mounted/plans/file-$at" 5000
        "$way" "$mounted/plans/file-$((at + 1))" 5000 12000
        "$way" "$mounted/plans/file-$((at + 2))" 9000000
        "$way" "$mounted/plans/file-$((at + 3))" "$(stat -c %s "$plain/file-$((at + 3))")"
        "$way" "$mounted/plans/file-$((at + 4))" 0
        changed+=("file-$at" "file-$((at + 1))" "file-$((at + 2))")
        until_true 60 "$way: a file that is emptied is empty on the other server" is_empty_there "file-$((at + 4))"
        is_right "$stubs" "file-$((at + 3))" || fail "$way: a file that keeps its length is not its original"
        at=$((at + 5))
    done
    for name in "${changed[@]}"; do
        until_true 60 "$name is listed as a problem" is_listed "$name"
        reads_nothing "$stubs/$name"
        reads_nothing "$mounted/plans/$name"
        is_right "$plain" "$name" || fail "$name: something of it reached the other server"
    done
    isotherm wait --synced --timeout 15 >/tmp/waited 2>&1 && fail "files that nobody can read count as in sync"
    grep -q "while it was a stub" /tmp/waited || fail "whoever waits is not told why: $(tail -n 1 /tmp/waited)"
    isotherm recall --mend "$stubs" || fail "the remedy does not help"
    for name in "${changed[@]}"; do
        is_right "$stubs" "$name" && is_right "$mounted/plans" "$name" || fail "$name: the remedy brings something else"
    done
    synced
    for name in "${changed[@]}"; do is_right "$plain" "$name" || fail "$name: the remedy changed the other server's"; done
    until_true 30 "no problem is listed any more" nothing_is_listed
    note "${#changed[@]} files, $*: refused, listed, whole again by recall --mend"
}

# reads_nothing FILE: an error, in a while, and not one byte.
reads_nothing() {
    local code=0
    timeout 100 cat "$1" >/tmp/spoilt 2>/tmp/spoilt-end || code=$?
    [ $code != 124 ] || fail "$1: a reader is told nothing in 100 s"
    [ $code != 0 ] && [ ! -s /tmp/spoilt ] || fail "$1: $(stat -c %s /tmp/spoilt) bytes of a file that nobody can know"
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
