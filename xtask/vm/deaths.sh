# What readers get when those die who hold the kernel's event group, and what the next start makes of it.

# Nothing is started again by systemd until `restarts on`.
restarts() {
    local unit
    for unit in isotherm-gate isotherm-agent@munich; do
        mkdir -p "/run/systemd/system/$unit.service.d"
        if [ "$1" = off ]; then
            printf '[Service]\nRestart=no\n' >"/run/systemd/system/$unit.service.d/vm.conf"
        else
            rm -f "/run/systemd/system/$unit.service.d/vm.conf"
        fi
    done
    systemctl daemon-reload
}

# Whatever a check has left: all runs again.
all_start() {
    restarts on
    systemctl reset-failed 'isotherm-*' || true
    systemctl start isotherm-gate
    systemctl start isotherm-agent@munich isotherm-agent@detroit isotherm-service
    until_true 60 "guarded and answered for" is_whole
}

kill_all_holders() { kill -KILL "$(keeper_pid)" "$(gate_pid)" "$(agent_pid)"; }

# what_reads FILE: zeros, its content, or the error.
what_reads() {
    local out
    if ! out=$(timeout 20 sha256sum "$1" 2>&1); then
        echo "${out:-it waits}"
    elif [ "${out%% *}" = "$(sum_of "${1##*/}")" ]; then
        echo content
    elif cmp -s -n "$(stat -c %s "$1")" "$1" /dev/zero; then
        echo zeros
    else
        echo "something else"
    fi
}

the_agent_holds_what_gate_and_keeper_held() {
    tier_all 240
    restarts off
    trap all_start EXIT
    kill -KILL "$(keeper_pid)" "$(gate_pid)"
    reads_later file-5
    still_waits "a reader did not wait, although the agent holds the group"
    all_start
    wait "$reader" || fail "what the reader got is not the original"
    read_all "$stubs"
}

who_reads_when_all_are_dead_and_what_the_next_start_repairs() {
    tier_all 240
    restarts off
    trap all_start EXIT
    kill_all_holders
    sleep 1
    local between
    between=$(what_reads "$stubs/file-6")
    [ "$between" != "something else" ] || fail "between: neither zeros nor content nor an error"
    all_start
    [ "$(what_reads "$stubs/file-6")" = content ] || fail "between: $between; after the next start: $(what_reads "$stubs/file-6")"
    read_by 2 "$stubs"
    synced
    read_all "$plain"
    note "between: $between; after the next start: content, and nothing was sent"
}

# The client caches what it has read, and the server keeps files open.
nfs_after_all_were_dead() {
    tier_all 240
    nfs_mount 4.2
    restarts off
    trap 'nfs_is_left; all_start' EXIT
    kill_all_holders
    sleep 1
    local between after wrong
    between=$(what_reads "$mounted/plans/file-7")
    all_start
    after=$(what_reads "$mounted/plans/file-7")
    wrong=$SECONDS
    if [ "$after" != content ]; then
        until_true 120 "content over NFS (between: $between; after the next start: $after)" is_right "$mounted/plans" file-7
        fail "between: $between; after the next start: $after, for $((SECONDS - wrong)) s"
    fi
    read_all "$mounted/plans"
    synced
    read_all "$plain"
    note "between: $between; after the next start: $after"
}

# The product uses no descriptor store yet. This is what one would do: systemd alone holds the group.
a_descriptor_store_holds_a_group() {
    tier_all 240
    systemd-run --quiet --unit=store -p FileDescriptorStoreMax=16 -p NotifyAccess=all perl /payload/store.pl "$(gate_pid)"
    trap 'systemctl stop store 2>/dev/null || true; all_start' EXIT
    until_true 20 "systemd has the group" has_stored
    restarts off
    kill_all_holders
    cat "$stubs/file-8" >/tmp/stored-read 2>&1 &
    reader=$!
    still_waits "with the group in the store alone a reader did not wait: $(wc -c </tmp/stored-read) bytes"
    kill -KILL "$reader"
    systemctl stop store
    all_start
    read_all "$stubs"
    note "a reader waits while systemd alone holds the group"
}

has_stored() { [ "$(systemctl show -P NFileDescriptorStore store)" -ge 1 ]; }
