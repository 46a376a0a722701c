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

# What systemd would hold if all died; nothing from `without_store` on, until all starts again.
store_off=/run/systemd/system/isotherm-gate.service.d/store.conf
stored() { systemctl show -P NFileDescriptorStore isotherm-gate; }

without_store() {
    systemctl stop isotherm-gate
    systemctl clean --what=fdstore isotherm-gate
    mkdir -p "${store_off%/*}"
    printf '[Service]\nFileDescriptorStoreMax=0\n' >$store_off
    systemctl daemon-reload
    systemctl start isotherm-gate
    until_true 60 "guarded and answered for" is_whole
    [ "$(stored)" = 0 ] || fail "systemd holds $(stored) descriptors"
}

# Whatever a check has left: all runs again.
all_start() {
    restarts on
    systemctl reset-failed 'isotherm-*' || true
    if [ -e $store_off ]; then
        rm $store_off
        systemctl daemon-reload
        systemctl stop isotherm-gate
    fi
    systemctl start isotherm-gate
    systemctl start isotherm-agent@munich isotherm-agent@detroit isotherm-service
    until_true 60 "guarded and answered for" is_whole
}

# Whether the kernel refuses to open stubs of the volume while nobody guards it.
# Listing alone fails while no agent answers.
has_net() { [[ $(isotherm volume list --json || true) == *'"safety_net": true'* ]]; }

# Beside the endpoint, for the time without a guard: a file that is whole, and one of holes that is no stub.
others_are_made() {
    head -c 70000 /dev/urandom >"$volume/whole"
    rm -f "$volume/sparse"
    truncate -s 70000 "$volume/sparse"
    sha256sum <"$volume/whole" >/tmp/sum-whole
    sync -f "$volume"
}

# others_are_right FOLDER
others_are_right() {
    sha256sum <"$1/whole" | cmp -s - /tmp/sum-whole || fail "a whole file cannot be read without a gate"
    cmp -s -n 70000 "$1/sparse" /dev/zero || fail "a sparse file cannot be read without a gate"
}

# is_expected TEXT: what a reader without a guard gets; zeros only where there is no net.
is_expected() {
    case $1 in
        *"Input/output error"*) ;;
        zeros) ! has_net || fail "zeros, although there is a safety net" ;;
        *) fail "between: $1" ;;
    esac
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
    trap all_start EXIT
    without_store
    tier_all 240
    restarts off
    kill -KILL "$(keeper_pid)" "$(gate_pid)"
    reads_later file-5
    still_waits "a reader did not wait, although the agent holds the group"
    all_start
    wait "$reader" || fail "what the reader got is not the original"
    read_all "$stubs"
}

who_reads_when_all_are_dead_and_what_the_next_start_repairs() {
    trap all_start EXIT
    without_store
    tier_all 240
    others_are_made
    restarts off
    kill_all_holders
    sleep 1
    local between
    between=$(what_reads "$stubs/file-6")
    others_are_right "$volume"
    all_start
    is_expected "$between"
    [ "$(what_reads "$stubs/file-6")" = content ] || fail "between: $between; after the next start: $(what_reads "$stubs/file-6")"
    read_by 2 "$stubs"
    synced
    read_all "$plain"
    note "between: ${between##*: }; after the next start: content, and nothing was sent"
}

# The client caches what it has read, and the server keeps files open.
nfs_after_all_were_dead() {
    trap all_start EXIT
    without_store
    tier_all 240
    nfs_mount 4.2
    trap 'nfs_is_left; all_start' EXIT
    restarts off
    kill_all_holders
    sleep 1
    local between after wrong
    between=$(what_reads "$mounted/plans/file-7")
    all_start
    is_expected "$between"
    after=$(what_reads "$mounted/plans/file-7")
    wrong=$SECONDS
    if [ "$after" != content ]; then
        until_true 120 "content over NFS (between: $between; after the next start: $after)" is_right "$mounted/plans" file-7
        fail "between: $between; after the next start: $after, for $((SECONDS - wrong)) s"
    fi
    read_all "$mounted/plans"
    synced
    read_all "$plain"
    note "between: ${between##*: }; after the next start: $after"
}

systemd_holds_the_group_when_all_are_dead() {
    tier_all 240
    [ "$(stored)" = 2 ] || fail "systemd holds $(stored) descriptors, not group and mount"
    restarts off
    trap all_start EXIT
    kill_all_holders
    reads_later file-8
    still_waits "with the group in systemd's store alone a reader did not wait"
    all_start
    wait "$reader" || fail "what the reader got is not the original"
    # As it happens: systemd starts all again by itself, and people go on.
    local round readers
    for ((round = 1; round <= 3; round++)); do
        tier_all 240
        (read_by 4 "$stubs") &
        readers=$!
        sleep 0.5
        kill_all_holders
        reads_later file-9
        wait "$reader" || fail "round $round: what the reader got is not the original"
        wait $readers || fail "round $round: a reader got something else or an error"
        until_true 60 "guarded and answered for" is_whole
    done
    [ "$(stored)" = 2 ] || fail "systemd holds $(stored) descriptors in the end"
    read_all "$stubs"
    note "a reader waits while systemd alone holds the group; $((round - 1)) times all were killed below 5 readers"
}

# The volume without a gate, on purpose: what the kernel holds is still there, and nothing else.
a_net_is_under_the_volume() {
    has_net || skip "this kernel takes no program for its security hooks"
    tier_all 240
    others_are_made
    restarts off
    trap 'umount /mnt/bare 2>/dev/null || true; all_start; systemctl start nfs-server' EXIT
    local guarded bare
    guarded=$(cost_of_open "$volume/whole")
    systemctl stop nfs-server isotherm-agent@munich
    until_true 60 "the gate detaches the volume" isotherm gate stop
    [ "$(stored)" = 0 ] || fail "systemd goes on holding $(stored) descriptors"
    mkdir -p /mnt/bare
    mount "$disk" /mnt/bare
    is_refused /mnt/bare/plans/file-9
    ! sh -c ': >>/mnt/bare/plans/file-9' 2>/dev/null || fail "a stub was opened for writing"
    others_are_right /mnt/bare
    bare=$(cost_of_open /mnt/bare/whole)
    rm /sys/fs/bpf/isotherm/*
    [ "$(what_reads /mnt/bare/plans/file-9)" = zeros ] || fail "something else than the net refuses"
    bare="$bare, without net $(cost_of_open /mnt/bare/whole)"
    umount /mnt/bare
    all_start
    is_whole
    has_net || fail "the next gate has made no net"
    rm /sys/fs/bpf/isotherm/*
    guarded="$guarded, without net $(cost_of_open "$volume/whole")"
    the_net_goes_with_the_last_volume
    read_by 2 "$stubs"
    note "microseconds for open and close; guarded: $guarded; nobody guards: $bare"
}

is_refused() { case $(what_reads "$1") in *"Input/output error"*) ;; *) fail "a stub that nobody guards was opened" ;; esac; }

the_net_goes_with_the_last_volume() {
    systemctl restart isotherm-gate
    until_true 30 "the gate answers" isotherm volume list --json
    has_net || fail "the next gate has made no net"
    systemctl stop isotherm-agent@munich nfs-server
    until_true 60 "the volume is removed" isotherm volume remove "$volume"
    [ -z "$(ls -A /sys/fs/bpf/isotherm)" ] || fail "the net stays without a volume"
    isotherm volume add "$(readlink -f "$disk")" "$volume"
    has_net || fail "a volume that was added has no net"
    all_start
}

# Microseconds for each, the least of five rounds.
cost_of_open() {
    local round began
    for ((round = 0; round < 5; round++)); do
        began=$EPOCHREALTIME
        perl -e 'for (1..20000) { open my $f, "<", $ARGV[0] or die; close $f }' "$1"
        awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f\n", (b - a) / 20000 * 1e6 }'
    done | sort -n | head -n 1
}
