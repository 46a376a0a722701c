#![allow(missing_docs)]
//! Every seed that ever failed, with what it found; and a large world.

use isotherm_sim::{Options, run};

/// Seed and what was wrong in the code, not in the world, when it failed.
const FOUND: &[(u64, &str)] = &[
    (4, "no timer for the walk over what is open: an endpoint stood still until something happened"),
    (13, "a chmod that came in through one name of an inode was unknown to its other names"),
    (15, "a chmod between a replacement and the stat after it was taken for the step's own"),
    (34, "the planner recursed without end over a ring in the remote tree that a later page would have broken"),
    (39, "a file moved into the new directory that took its name could not be committed, nor could the directory"),
    (47, "a step put a node under a name that another node was still recorded to have"),
    (62, "a failing group told its author of a content that the share never had"),
    (147, "a timer that lay in the past fired for ever while a fetch was under way"),
    (171, "a tombstone was forgotten while an operation on its node was unanswered"),
    (433, "a parked name of a hard-linked file was taken for another file"),
    (472, "the print of a read hid a chmod that came before it"),
    (570, "a directory that became another node while it was being listed was never listed"),
    (659, "a scan missed a directory that moved while it ran"),
    (684, "a lost file that was rebound to a conflict copy was looked for no more"),
    (694, "a rescued file was not seen before the next scan"),
    (785, "a hard link made by a step hid a chmod of the inode"),
    (800, "a directory that moved while a scan ended was seen at neither place"),
    (881, "a timer for a commit that could not be sent fired for ever"),
    (1006, "as 62: the file's only copy was replaced because of that"),
    (1079, "a withdrawn replacement that a user had written to was deleted"),
    (3515, "a scan that could not read everything was the last one, while a file was looked for"),
    (4551, "a chmod through a name that was gone when it was looked at"),
    (291, "names of one inode had two link ids, and neither side gave in"),
    (3474, "a node was made here and rebound in one plan, under names that differ in case only"),
    (5426, "a file was seen in a directory while a step removed that, and was read for ever"),
    (7750, "a step ended in a directory that had gone meanwhile"),
    (8001, "an operation that was sent again brought an old state of a deleted node back"),
    (8244, "a file with two names was bound to its second one while a step removed the first"),
    (9024, "a new directory, a file and a deleted directory waited for each other's names in a ring"),
    (9417, "a user moved a directory behind the back of a scan"),
    (14138, "children of a directory were to be planned for, and no timer said when"),
    (14937, "after a rollback the answer to an earlier operation made a base, and the file was deleted"),
    (16736, "a directory waited for a name whose holder waited for something in that directory"),
    (23540, "a plan that failed kept the names that it wanted"),
    (30506, "what lies below a directory that a scan could not enter was never seen"),
    (30923, "a file and a renamed one with names that differ in case only waited for each other"),
    (20430, "a name was made a second file because the directory of the first was being looked for"),
    (32010, "what belongs into the directory that waits for its own name did not step aside"),
    (42280, "the same with several files, planned in another order"),
    (33, "what a step had left before a crash was taken for a user's new file after its node was deleted elsewhere"),
    (417, "the same with a directory that moved"),
    (18171, "the same with a node that was forgotten before its file was seen"),
    (891, "what a step of an earlier run had left was taken for a node's file while another step made that file"),
    (1353, "a directory that a step of an earlier run had made was not looked into"),
    (20992, "a hard link was taken for what a move of an earlier run had left"),
    (77, "a conflict copy whose content was collected before its commit was sent for ever, and its file never read again"),
    (98, "the same with a file of several names, of which one was read again and got the old content from the others"),
    (4897, "a move and a new large content of one file were handed out at once, and their results taken for each other's"),
    (13, "a large file that was replaced while it was read kept its lane for ever, and after three of them none was sent"),
    (3972, "a file that was deleted while its rename was on the way came back: the own rename beat the delete"),
    (4981, "a lost file that was settled by a step was asked for without end"),
    (434, "what the start had given back was taken for a move of the file that a step had replaced"),
    (14571, "a node was planned for before it was known what a step of an earlier run had made of it"),
    (13176, "a directory that was being moved when a scan began was seen at neither place"),
    (12836, "a name that was taken away while a step worked there was never looked at again"),
    (11869, "two lanes worked on one name, and the later result came first"),
    (16031, "what was queued of a file that is gone was sent, and beat the delete"),
    (129, "a deletion that a snapshot implied had a version that the share never gave"),
    (8529, "a late answer made a node live that a snapshot had told to be gone"),
    (25754, "a reader at zero that knew a node by an answer did not start over"),
    (6122, "an edit made after a backup was deleted, because the share that was put back had deleted the file"),
    (5280, "a base was made of a content that the share did not have, and the content replaced"),
    (38563, "a node known by the answer to an own rename was taken to be known in whole, and an old content for a newer one"),
    (10572, "who had won a conflict won it again in another life of the share, in which there was no copy of what had lost"),
    (1026, "a page that was asked for before an answer came led into a life that lacks what was answered"),
    (2032, "a batch that was refused after the next life was known waited for a page that had come already"),
    (112089, "the share had not yet begun the life in which it was put back, and its head was not looked at"),
    (5381, "a file that was deleted while the answer to its conflict was on the way came back"),
    (206714, "a directory that a step had made was moved away before it was looked into, and never was"),
    (91, "a volume that went back showed an old mode under the print of a later one"),
    (2623, "what was here was newer than what was known of the share, and was taken for older"),
    (323787, "a server that knew more than a share that was put back was at rest before it had asked again"),
    (89336, "what belonged elsewhere stayed in a directory of a directory that was to go, and everything waited for it"),
    (97640, "a look at one name of an inode, from before a step changed it through another, was believed"),
    (94594, "the next save of a file that could not be read any more was not looked for before the file counted as deleted"),
    (44259, "the next save of a moved file was taken for the file that had been given its former name"),
    (104250, "a file that gave way in a conflict and was deleted while the answer was on the way came back"),
    (144627, "the simulation: a name whose directory was out of sight counted as given up with another name of its file"),
    (3928, "a server that had read a part of the feed missed what had changed behind that part before the share was put back"),
    (29650, "a further name of a file that a step had made, and that was renamed elsewhere since, was taken for a user's"),
    (46348, "the simulation: a rename elsewhere brings back what the share has of a file, not what was last written to it"),
    (60346, "the simulation: a rename elsewhere beats a delete that was made before it, too"),
    (28422, "the simulation: what only a step was bringing was owed after the share and its author's disk had gone back"),
];

#[test]
fn seeds_that_once_failed_hold() {
    for (seed, found) in FOUND {
        let outcome = run(Options::of(*seed));
        assert!(outcome.wrong.is_empty(), "seed {seed} ({found}): {}", outcome.wrong.join("\n"));
    }
}

/// The same of worlds in which nobody touches what others made.
const FOUND_APART: &[(u64, &str)] = &[
    (6659, "a batch that had lacked content and was held up on its way was applied when the content had come"),
    (363, "content that was being fetched when its agent ended, and had been replaced since, was given back as a user's"),
    (5752, "the same"),
    (6399, "what a step had moved away was displaced by what another step had put there, before it was recognised"),
    (12737, "the same, where they were seen by two looks"),
    (10415, "the same"),
    (12890, "what a step had made, and was deleted and forgotten since, was taken for new"),
    (7513, "of two runs that ended while steps had the same place for a target, only the later one's step was kept"),
    (38124, "the same"),
];

#[test]
fn seeds_that_once_failed_apart_hold() {
    for (seed, found) in FOUND_APART {
        let outcome = run(Options { apart: true, ..Options::of(*seed) });
        assert!(outcome.wrong.is_empty(), "seed {seed} ({found}): {}", outcome.wrong.join("\n"));
    }
}

#[test]
fn one_seed_is_one_run() {
    let options = Options { trace: true, ..Options::of(7) };
    assert_eq!(run(options).trace, run(options).trace);
}

#[test]
fn a_hundred_agents_come_to_rest() {
    let outcome = run(Options { agents: 100, actions: 150, faults: false, ..Options::of(1) });
    assert!(outcome.wrong.is_empty(), "{}", outcome.wrong.join("\n"));
    assert!(outcome.nodes > 10);
}
