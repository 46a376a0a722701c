# Gate, keeper, agents and service as systemd's units, with systemd as process 1.

gate_pid() { systemctl show -P MainPID isotherm-gate; }
agent_pid() { systemctl show -P MainPID isotherm-agent@munich; }
keeper_pid() { pgrep -f 'isotherm gate keep' | head -n 1; }
is_whole() { isotherm volume list; }

# reads_later NAME: a reader in the background that tries again when it is told to; its number is in `reader`.
reads_later() {
    is_right "$stubs" "$1" &
    reader=$!
}

still_waits() {
    sleep 3
    kill -0 "$reader" 2>/dev/null || fail "$1"
}

# Mount namespaces of their own, as services of a hardened machine have.
readers_in_sandboxes_get_content() {
    local sum
    sum=$(systemd-run --quiet --wait --pipe -p PrivateTmp=yes -p ProtectSystem=strict -p ProtectHome=yes sha256sum "$stubs/file-1")
    [ "${sum%% *}" = "$(sum_of file-1)" ] || fail "PrivateTmp, ProtectSystem: not its original"
    sum=$(systemd-run --quiet --wait --pipe -p "BindReadOnlyPaths=$stubs:/mnt" -p DynamicUser=yes sha256sum /mnt/file-2)
    [ "${sum%% *}" = "$(sum_of file-2)" ] || fail "BindReadOnlyPaths, DynamicUser: not its original"
    # A namespace that was there before the volume's gate: as old as the machine's other services.
    sum=$(nsenter -t "$(systemctl show -P MainPID isotherm-service)" -m sha256sum "$stubs/file-3")
    [ "${sum%% *}" = "$(sum_of file-3)" ] || fail "the service's namespace: not its original"
}

a_stopped_gate_leaves_volumes_and_readers_waiting() {
    tier_all 60
    local keeper
    keeper=$(keeper_pid)
    systemctl stop isotherm-gate
    mountpoint -q "$volume" || fail "the volume is detached"
    [ "$(keeper_pid)" = "$keeper" ] || fail "systemd has ended the keeper"
    reads_later file-4
    still_waits "a reader did not wait for the next gate"
    systemctl start isotherm-gate
    wait "$reader" || fail "what the reader got is not the original"
    until_true 30 "guarded and answered for" is_whole
    [ "$(keeper_pid)" = "$keeper" ] || fail "the next gate did not take over the keeper"
    # All at once, as an upgrade does it.
    systemctl restart isotherm-gate
    read_by 2 "$stubs"
}

a_killed_gate_is_started_again() {
    tier_all 60
    local before
    before=$(gate_pid)
    (read_by 4 "$stubs") &
    local readers=$!
    systemctl kill --kill-whom=main -s KILL isotherm-gate
    wait $readers || fail "a reader got something else or an error"
    until_true 30 "guarded and answered for" is_whole
    [ "$(gate_pid)" != "$before" ] || fail "it is the same gate"
}

an_agent_restarts_below_readers() {
    tier_all 60
    (read_by 4 "$stubs") &
    local readers=$! count=0
    while kill -0 $readers 2>/dev/null; do
        systemctl restart isotherm-agent@munich
        count=$((count + 1))
        # A slow machine needs a while to start it: one that never comes to its work shows nothing.
        until_true 60 "guarded and answered for" is_whole
        sleep 2
    done
    wait $readers || fail "a reader got something else or an error"
    until_true 30 "guarded and answered for" is_whole
    note "$count restarts while 4 readers read all files"
}

# A unit without the private /tmp of docs/operations.md: the service may write to its data folder and nowhere else.
a_service_that_may_write_only_its_data_goes_on() {
    local dropin=/run/systemd/system/isotherm-service.service.d round at
    mkdir -p $dropin
    printf '[Service]\nPrivateTmp=no\n' >$dropin/vm.conf
    trap 'rm -r /run/systemd/system/isotherm-service.service.d; systemctl daemon-reload; systemctl restart isotherm-service; until_true 60 "in sync" isotherm wait --synced --timeout 50; sums_of_originals' EXIT
    systemctl daemon-reload
    systemctl restart isotherm-service
    until_true 30 "the service answers" isotherm status
    for ((round = 1; round <= 4; round++)); do
        for ((at = 2; at < 12; at++)); do head -c 20000 /dev/urandom >"$plain/file-$at"; done
        isotherm wait --synced --timeout 30 >/dev/null || fail "round $round of saves is not in the share: $(journalctl -q -u isotherm-service -o cat | grep -i fault | tail -n 1)"
    done
}

# After a restart of the whole machine, by the units alone.
the_machine_comes_back_by_itself() {
    until_true 90 "guarded and answered for" is_whole
    journalctl -q -b -1 -n 40 --no-pager -o short-monotonic -u 'isotherm-*' -u 'srv-cad.mount' || true
    journalctl -q -k -b 0 --no-pager | grep -i 'xfs' || true
    if journalctl -q -k -b 0 --no-pager | grep -q 'XFS.*Starting recovery'; then fail "the volume was not unmounted before the machine went down"; fi
    read_by 4 "$stubs"
}
