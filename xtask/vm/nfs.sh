# Reading through the kernel's own NFS server, over loopback. It has two threads, so that a caller who holds one is noticed.

nfs_is_served() {
    if [ ! -e /etc/nfs.conf.d/vm.conf ]; then
        mkdir -p /etc/nfs.conf.d
        printf '[nfsd]\nthreads=2\nmin-threads=2\n' >/etc/nfs.conf.d/vm.conf
        # `mountpoint`: nothing is exported while the gate has not attached the volume.
        echo "$volume 127.0.0.1(rw,no_root_squash,no_subtree_check,mountpoint)" >/etc/exports
        systemctl restart nfs-server
    fi
    until_true 20 "the NFS server runs" grep -qx 2 /proc/fs/nfsd/threads
}

# nfs_mount VERSION: mounts the volume at a new folder as a client of its own, and says where. It goes with the check.
nfs_mount() {
    mounted=$(mktemp -d /mnt/nfs-XXXXXX)
    local options=vers=$1,nosharecache
    [ "$1" = 3 ] && options+=,nolock
    nfs_is_served
    mount -t nfs -o "$options" "127.0.0.1:$volume" "$mounted"
    trap 'nfs_is_left; systemctl kill -s CONT isotherm-service' EXIT
}

# Mounts of this check, and of one that hung.
nfs_is_left() {
    awk '$2 ~ "^/mnt/nfs-" { print $2 }' /proc/mounts | xargs -r -n 1 umount -l || true
}

# How often the server has told this client to try again, or failed otherwise: the last number of an operation's line.
refusals() {
    awk -v at="$1" '$1 == "device" { here = ($5 == at) } here && ($1 == "OPEN:" || $1 == "READ:") { n += $NF } END { print n + 0 }' \
        /proc/self/mountstats
}

# each_at_once FOLDER FIRST LAST: a reader for each of these files.
each_at_once() {
    local name pids=()
    for name in $(originals | sed -n "$2,$3p"); do
        is_right "$1" "$name" &
        pids+=($!)
    done
    for name in "${pids[@]}"; do wait "$name" || fail "a reader got something else or an error"; done
}

nfs_version_4_reads_originals() {
    tier_all 60
    nfs_mount 4.2
    read_all "$mounted/plans"
    note "all files; told to try again $(refusals "$mounted") times"
}

# A client of version 3 waits five seconds before it tries again.
nfs_version_3_reads_originals() {
    tier_all 120
    nfs_mount 3
    each_at_once "$mounted/plans" 1 16
    note "16 files at once; told to try again $(refusals "$mounted") times"
}

copies_over_nfs_are_whole() {
    tier_all 120
    nfs_mount 4.2
    local from=$mounted/plans to=/tmp/copies
    mkdir -p $to
    cp "$from/file-10" "$from/copy-by-the-server"
    cmp "$from/copy-by-the-server" "$plain/file-10" || fail "a copy that the server makes is not whole"
    cp --sparse=always "$from/file-11" $to/sparse
    cmp $to/sparse "$plain/file-11" || fail "a sparse copy is not whole"
    tar -C "$from" -S -cf - file-12 | tar -C $to -xf -
    cmp $to/file-12 "$plain/file-12" || fail "a sparse archive is not whole"
    rm "$from/copy-by-the-server"
    synced
}

# Another client reads what is here as long as the readers of stubs need, always from the server.
eight_readers_at_once_get_originals() {
    tier_all 120
    nfs_mount 4.2
    local busy=$mounted
    nfs_mount 4.2
    head -c 65536 /dev/urandom >"$stubs/here"
    read_by 8 "$busy/plans" &
    local readers=$! count=0 slowest=0 began
    while kill -0 $readers 2>/dev/null; do
        began=$EPOCHREALTIME
        dd if="$mounted/plans/here" iflag=direct bs=64k 2>/dev/null | cmp - "$stubs/here" || fail "a file that is here is not right"
        slowest=$(awk -v a="$began" -v b="$EPOCHREALTIME" -v s="$slowest" 'BEGIN { t = b - a; printf "%.2f", (t > s ? t : s) }')
        count=$((count + 1))
    done
    wait $readers || fail "a reader of stubs got something else or an error"
    note "told to try again $(refusals "$busy") times; meanwhile $count reads of a file that is here, the slowest $slowest s"
}

nfs_threads_are_not_held() { service_stands_still 4.2; }
nfs_threads_are_not_held_version_3() { service_stands_still 3; }

# While the service stands still no stub can be recalled. Whoever reads what is here must not notice.
service_stands_still() {
    tier_all 240
    nfs_mount "$1"
    local waiting=$mounted readers read
    nfs_mount "$1"
    head -c 65536 /dev/urandom >"$stubs/here"
    systemctl kill -s STOP isotherm-service
    each_at_once "$waiting/plans" 21 36 &
    readers=$!
    sleep 3
    for ((read = 0; read < 40; read++)); do
        timeout 30 dd if="$mounted/plans/here" iflag=direct bs=64k 2>/dev/null | cmp - "$stubs/here" || fail "read $read of a file that is here did not come back"
    done
    kill -0 $readers || fail "readers of stubs did not wait"
    systemctl kill -s CONT isotherm-service
    wait $readers || fail "a reader of stubs got something else or an error"
    note "40 reads of a file that is here while 16 stubs were waited for by 2 threads"
}

# The server keeps files open for a while, and hands out delegations.
what_nfs_has_read_is_tiered_again() {
    nfs_mount 4.2
    read_all "$mounted/plans"
    local began=$SECONDS
    tier_is_done >/tmp/tier-said 2>&1 || true
    local left
    left=$( (cd "$stubs" && originals | xargs stat -c '%b %n') | grep -vc '^0 ' || true)
    tail -n 3 /tmp/tier-said
    tier_all 240
    local took=$((SECONDS - began))
    read_all "$mounted/plans"
    note "after the first try $left of $files stayed whole; all tiered after $took s"
}

# What programs of this machine are told after a minute without content, users of NFS have to be told as well.
waiting_over_nfs_has_an_end() {
    tier_all 240
    nfs_mount 4.2
    local here nfs local_end nfs_end
    systemctl stop isotherm-service
    trap 'nfs_is_left; systemctl start isotherm-service' EXIT
    (cat "$stubs/file-20" >/dev/null 2>/tmp/local-end || true) &
    here=$!
    (cat "$mounted/plans/file-21" >/dev/null 2>/tmp/nfs-end || true) &
    nfs=$!
    until_true 150 "a local reader is told" gone $here
    local_end=$(cat /tmp/local-end)
    echo "local reader: $local_end"
    until_true 100 "a reader over NFS is told (a local one was: ${local_end##*: })" gone $nfs
    nfs_end=$(cat /tmp/nfs-end)
    note "local: ${local_end##*: }; over NFS: ${nfs_end##*: }"
}

gone() { ! kill -0 "$1" 2>/dev/null; }
