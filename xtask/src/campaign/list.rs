//! What there is to try, and how much of it makes a release.

/// What a piece of a campaign runs.
#[derive(Debug)]
pub(super) enum Work {
    /// Seeds of the simulation, with these arguments.
    Seeds(&'static [&'static str]),
    /// Tests of a program of `crates/cli/tests`, one for each piece in turn.
    Tests(&'static str, &'static [&'static str]),
}

/// One campaign.
#[derive(Debug)]
pub(super) struct Campaign {
    pub(super) name: &'static str,
    /// What is counted.
    pub(super) unit: &'static str,
    pub(super) wanted: u64,
    /// So many are done before the result is kept.
    pub(super) piece: u64,
    pub(super) work: Work,
}

/// Names of the programs.
pub(super) const VOLUMES: &str = "volumes";
pub(super) const STUBS: &str = "stubs";

const fn rounds(name: &'static str, wanted: u64, piece: u64, tests: &'static [&'static str]) -> Campaign {
    Campaign { name, unit: "rounds", wanted, piece, work: Work::Tests(VOLUMES, tests) }
}

const fn of_stubs(name: &'static str, wanted: u64, piece: u64, tests: &'static [&'static str]) -> Campaign {
    Campaign { name, unit: "rounds", wanted, piece, work: Work::Tests(STUBS, tests) }
}

/// All of them, the quickest findings first.
pub(super) const CAMPAIGNS: &[Campaign] = &[
    Campaign { name: "seeds", unit: "seeds", wanted: 100_000, piece: 2_000, work: Work::Seeds(&[]) },
    Campaign { name: "apart", unit: "seeds", wanted: 40_000, piece: 2_000, work: Work::Seeds(&["--apart"]) },
    Campaign { name: "tiers", unit: "seeds", wanted: 40_000, piece: 2_000, work: Work::Seeds(&["--tiers"]) },
    rounds(
        "kills",
        200,
        10,
        &[
            "kills::case_21_kills_lose_nothing_and_make_no_conflicts_from_ext4_to_xfs",
            "kills::case_21_kills_lose_nothing_and_make_no_conflicts_from_xfs_to_ext4",
        ],
    ),
    rounds(
        "power",
        180,
        5,
        &[
            "power::a_power_cut_of_all_machines_loses_nothing_that_was_durable",
            "power::a_power_cut_of_servers_loses_nothing_that_was_durable",
            "power::a_power_cut_of_the_service_loses_nothing_that_it_had_acknowledged",
        ],
    ),
    rounds(
        "network",
        60,
        3,
        &[
            "network::connections_that_break_delay_and_stand_still_lose_nothing_and_make_no_conflicts",
            "network::a_line_that_goes_down_and_loses_packets_loses_nothing_and_makes_no_conflicts",
        ],
    ),
    rounds(
        "full",
        60,
        4,
        &[
            "full::a_full_disk_of_a_server_holds_back_and_loses_nothing",
            "full::a_full_disk_under_what_an_agent_remembers_loses_nothing",
            "full::a_full_disk_under_the_service_loses_nothing_under_load",
        ],
    ),
    rounds(
        "errors",
        60,
        3,
        &[
            "errors::errors_of_a_server_disk_with_ext4_lose_nothing_that_was_durable",
            "errors::errors_of_a_server_disk_with_xfs_lose_nothing_that_was_durable",
            "errors::errors_of_the_service_disk_with_ext4_lose_nothing_that_was_acknowledged",
            "errors::errors_of_the_service_disk_with_xfs_lose_nothing_that_was_acknowledged",
        ],
    ),
    rounds("lost", 30, 3, &["lost::what_was_called_safe_is_read_back_after_its_server_is_lost"]),
    of_stubs("stub-kills", 200, 5, &["kills::whoever_dies_nobody_reads_a_wrong_byte"]),
    of_stubs("stub-fsx", 60, 3, &["fsx::the_exerciser_finds_every_byte_while_its_files_come_and_go"]),
    of_stubs("stub-power", 60, 5, &["power::after_a_power_cut_every_file_is_whole_or_a_valid_stub"]),
    of_stubs("dedup", 60, 4, &["dedup::whoever_writes_and_whoever_dies_every_file_is_its_own"]),
    of_stubs("films", 60, 3, &["films::whoever_dies_players_and_all_others_read_the_film"]),
    of_stubs("films-power", 60, 3, &["films::case_20_after_a_power_cut_records_name_only_what_is_there"]),
];
