#!/bin/bash
# Runs in the guest, started by isotherm-vm.service at each boot: all checks, one after the other.
#
# What it has to say goes to the second serial line, which `cargo xtask vm` reads; see tools.sh for the lines. The guest goes
# down when all is said. A restart of the guest is one of the checks, so there are two halves.
set -u
cd /payload || exit 1
for part in tools office machine nfs nfs-writes units deaths; do
    # shellcheck disable=SC1090
    . "./$part.sh"
done

first_half() {
    say "begin $(uname -r)"
    machine_facts
    check doctor 60 doctor_says_what_is_there
    required office 240 office_is_opened
    check sandbox 120 readers_in_sandboxes_get_content
    check gate-restart 120 a_stopped_gate_leaves_volumes_and_readers_waiting
    check gate-killed 120 a_killed_gate_is_started_again
    check agent-restart 180 an_agent_restarts_below_readers
    check nfs4-read 300 nfs_version_4_reads_originals
    check nfs3-read 300 nfs_version_3_reads_originals
    check nfs4-copies 300 copies_over_nfs_are_whole
    check nfs4-readers 400 eight_readers_at_once_get_originals
    check nfs4-threads 300 nfs_threads_are_not_held
    check nfs3-threads 300 nfs_threads_are_not_held_version_3
    check nfs4-tier 400 what_nfs_has_read_is_tiered_again
    check nfs4-write 300 what_nfs_writes_is_what_arrives
    check nfs3-write 300 what_nfs_version_3_writes_is_what_arrives
    check nfs4-cut 600 cuts_by_nfs_version_4_are_told_and_undone
    check nfs3-cut 900 cuts_by_nfs_version_3_are_told_and_undone
    check nfs4-end 300 waiting_over_nfs_has_an_end
    check agent-lives 240 the_agent_holds_what_gate_and_keeper_held
    check all-dead 300 who_reads_when_all_are_dead_and_what_the_next_start_repairs
    check all-dead-nfs4 300 nfs_after_all_were_dead
    check net 400 a_net_is_under_the_volume
    check store 600 systemd_holds_the_group_when_all_are_dead
    check service-sandbox 200 a_service_that_may_write_only_its_data_goes_on
    check before-restart 240 all_is_as_it_was
    if ! is_wanted restart; then
        say "end"
        systemctl poweroff
        return
    fi
    say "restart"
    touch /var/lib/vm-second-half
    systemctl reboot
}

second_half() {
    check restart 240 the_machine_comes_back_by_itself
    check after-restart 240 all_is_as_it_was
    say "end"
    systemctl poweroff
}

if [ -e /var/lib/vm-second-half ]; then second_half; else first_half; fi
