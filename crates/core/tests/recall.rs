//! The recall machine, case by case: what it cannot recall, who waits too long, who goes away.
#![allow(clippy::unwrap_used)]

use isotherm_core::content::ManifestId;
use isotherm_core::ids::{NodeId, Version};
use isotherm_core::stub::{
    Answer, Bound, ContentPrefix, Effect, Event, Failure, Found, Parted, Purpose, Question, QuestionId, Recalls, RecordError,
    StubRecord, Trouble, UNIT, Units,
};
use isotherm_core::trees::Handle;

const PATIENCE: u64 = 60_000;

fn file(number: u8) -> Handle {
    Handle(Box::from([number]))
}

fn record(size: u64) -> StubRecord {
    let content = ContentPrefix::of(&ManifestId::from_bytes([1; 32]));
    StubRecord { node: NodeId([1; 16]), version: Version(1), content, size, bound: Bound::to(&file(1)) }
}

fn asks(id: u64, purpose: Purpose) -> Event {
    Event::Asked(vec![Question { id: QuestionId(id), file: file(1), purpose, let_through: false }])
}

fn looked(record: Option<Result<StubRecord, RecordError>>, size: u64, has_blocks: bool) -> Event {
    Event::Looked(vec![(file(1), Found { record, size, has_blocks, resident: None, streams: true })])
}

fn stub() -> Event {
    looked(Some(Ok(record(9))), 9, false)
}

fn answer(id: u64, answer: Answer) -> Effect {
    Effect::Answer(QuestionId(id), answer)
}

/// A machine in which one caller waits for content that is on its way.
fn filling() -> Recalls {
    let mut machine = Recalls::new(PATIENCE);
    assert_eq!(machine.handle(asks(1, Purpose::Read), 0), [Effect::Look(file(1))]);
    assert_eq!(machine.handle(stub(), 0), [Effect::Fill(file(1), record(9), Units::none())]);
    machine
}

#[test]
fn many_callers_wait_for_one_fetch() {
    let mut machine = filling();
    for (id, purpose) in [(2, Purpose::Read), (3, Purpose::Write), (4, Purpose::Empty)] {
        assert_eq!(machine.handle(asks(id, purpose), 1), []);
    }
    let ok = vec![(file(1), Ok(()))];
    assert_eq!(machine.handle(Event::Filled(ok.clone()), 2), [Effect::Flush(file(1))]);
    assert_eq!(machine.handle(Event::Flushed(ok.clone()), 3), [Effect::Forget(file(1))]);
    let readers_go_on = [answer(1, Answer::Allow), answer(2, Answer::Allow), Effect::Flush(file(1))];
    assert_eq!(machine.handle(Event::Forgotten(ok.clone()), 4), readers_go_on);
    assert_eq!(machine.handle(asks(5, Purpose::Read), 4), [answer(5, Answer::Allow)]);
    let all_go_on = [answer(3, Answer::Allow), answer(4, Answer::Allow), Effect::Release(file(1))];
    assert_eq!(machine.handle(Event::Flushed(ok), 5), all_go_on);
    assert_eq!(machine.handle(asks(6, Purpose::Write), 5), [answer(6, Answer::Allow)]);
    assert!(!machine.hold(&file(1), 5), "the gate is being told");
    assert_eq!(machine.handle(Event::Released(vec![file(1)]), 6), []);
    assert!(machine.is_empty());
}

#[test]
fn a_program_that_streams_goes_on_before_a_small_file_is_durable() {
    let mut machine = filling();
    assert_eq!(machine.handle(asks(2, Purpose::Stream), 1), []);
    let ok = vec![(file(1), Ok(()))];
    let player_goes_on = [answer(2, Answer::Allow), Effect::Flush(file(1))];
    assert!(!machine.is_here(&file(1)));
    assert_eq!(machine.handle(Event::Filled(ok.clone()), 2), player_goes_on, "others wait");
    assert!(machine.is_here(&file(1)));
    let part = Purpose::Range(3, 5);
    assert_eq!(machine.handle(asks(3, part), 3), [answer(3, Answer::Allow)]);
    assert_eq!(machine.handle(Event::Flushed(ok.clone()), 4), [Effect::Forget(file(1))]);
    assert_eq!(machine.handle(asks(4, Purpose::Stream), 5), [answer(4, Answer::Allow)]);
    let other_goes_on = [answer(1, Answer::Allow), Effect::Flush(file(1))];
    assert_eq!(machine.handle(Event::Forgotten(ok), 6), other_goes_on);
    assert_eq!(machine.handle(asks(5, part), 7), [answer(5, Answer::Allow)]);
}

#[test]
fn what_came_and_could_not_be_made_durable_is_asked_about_again() {
    let mut machine = filling();
    let ok = vec![(file(1), Ok(()))];
    machine.handle(asks(2, Purpose::Stream), 1);
    machine.handle(Event::Filled(ok), 2);
    let failed = vec![(file(1), Err(Failure::Other))];
    assert_eq!(machine.handle(Event::Flushed(failed), 3), [answer(1, Answer::Failed)]);
    assert_eq!(machine.handle(asks(3, Purpose::Range(3, 5)), 4), [Effect::Look(file(1))], "what is there may not be the content");
    assert_eq!(machine.handle(looked(Some(Ok(record(9))), 9, true), 5), [Effect::Fill(file(1), record(9), Units::none())]);
}

#[test]
fn what_cannot_be_recalled_is_refused_and_shown_and_stays_as_it_is() {
    let damaged = RecordError::Length;
    let cases = [
        (Some(Err(damaged)), 9, true, Trouble::Record(damaged)),
        (Some(Err(RecordError::Void)), 9, false, Trouble::Record(RecordError::Void)),
        (Some(Ok(record(9))), 8, false, Trouble::Size { found: 8, recorded: 9 }),
        (Some(Ok(record(9))), 10, true, Trouble::Size { found: 10, recorded: 9 }),
    ];
    for (record, size, has_blocks, trouble) in cases {
        let mut machine = Recalls::new(PATIENCE);
        machine.handle(asks(1, Purpose::Read), 0);
        let refused = [Effect::Show(file(1), trouble), answer(1, Answer::Failed)];
        assert_eq!(machine.handle(looked(record, size, has_blocks), 0), refused);
        assert!(machine.is_empty());
        // It can be written anew all the same.
        machine.handle(asks(2, Purpose::Empty), 0);
        let through = [answer(2, Answer::Allow), Effect::Follow(QuestionId(2))];
        assert_eq!(machine.handle(looked(record, size, has_blocks), 0), through);
        assert_eq!(machine.handle(Event::Returned(vec![QuestionId(2)]), 0), [Effect::Look(file(1))]);
        assert_eq!(machine.handle(looked(record, 0, false), 0), [Effect::Flush(file(1))]);
        assert_eq!(machine.handle(Event::Flushed(vec![(file(1), Ok(()))]), 0), [Effect::Forget(file(1))]);
    }
}

#[test]
fn a_whole_copy_of_a_stub_is_a_file_of_its_own() {
    let mut machine = Recalls::new(PATIENCE);
    machine.handle(asks(1, Purpose::Write), 0);
    assert_eq!(machine.handle(looked(Some(Err(RecordError::Void)), 9, true), 0), [answer(1, Answer::Allow)]);
    assert!(machine.is_empty());
}

#[test]
fn case_02_who_empties_a_file_in_vain_waits_for_its_content_the_next_time() {
    let mut machine = Recalls::new(PATIENCE);
    machine.handle(asks(1, Purpose::Empty), 0);
    machine.handle(stub(), 0);
    machine.handle(asks(2, Purpose::Read), 0);
    assert_eq!(machine.handle(Event::Returned(vec![QuestionId(1)]), 0), [Effect::Look(file(1))]);
    machine.handle(asks(3, Purpose::Empty), 0);
    assert_eq!(
        machine.handle(stub(), 0),
        [Effect::Fill(file(1), record(9), Units::none())],
        "nobody can hold up the reader for ever"
    );
}

#[test]
fn who_left_while_he_was_let_through_is_not_followed_for_ever() {
    let mut machine = Recalls::new(PATIENCE);
    machine.handle(asks(1, Purpose::Empty), 0);
    machine.handle(stub(), 0);
    machine.handle(asks(2, Purpose::Read), 0);
    // Killed, or refused by a gate that died: nobody will say that he has returned.
    assert_eq!(machine.handle(Event::Left(vec![QuestionId(1)]), 0), [Effect::Look(file(1))]);
    assert_eq!(machine.handle(stub(), 0), [Effect::Fill(file(1), record(9), Units::none())]);
}

#[test]
fn who_waits_too_long_is_told_and_progress_counts() {
    let mut machine = filling();
    assert_eq!(machine.handle(Event::Progress(vec![file(1)]), PATIENCE - 1), []);
    assert_eq!(machine.handle(Event::Tick, PATIENCE), []);
    let late = [answer(1, Answer::Late), Effect::GiveUp(file(1))];
    assert_eq!(machine.handle(Event::Tick, 2 * PATIENCE - 1), late);
    assert!(!machine.hold(&file(1), 0), "what has come is still being given up");
    assert_eq!(machine.handle(asks(2, Purpose::Read), 2 * PATIENCE), []);
    let failed = Event::Filled(vec![(file(1), Err(Failure::Other))]);
    assert_eq!(machine.handle(failed, 2 * PATIENCE), [Effect::Look(file(1))], "for who came since");
}

#[test]
fn when_nobody_waits_any_more_nothing_is_fetched_unless_it_is_wanted() {
    let mut machine = filling();
    assert_eq!(machine.handle(Event::Left(vec![QuestionId(1)]), 1), [Effect::GiveUp(file(1))]);
    assert_eq!(machine.handle(Event::Filled(vec![(file(1), Err(Failure::Other))]), 2), []);
    assert!(machine.is_empty());
    let mut machine = filling();
    assert_eq!(machine.handle(Event::Wanted(vec![file(1)]), 1), []);
    assert_eq!(machine.handle(Event::Left(vec![QuestionId(1)]), 1), []);
    assert_eq!(
        machine.handle(Event::Filled(vec![(file(1), Err(Failure::NoSpace))]), 2),
        [Effect::Ended(file(1), Answer::NoSpace)]
    );
}

#[test]
fn a_failure_is_the_errno_that_says_what_it_was() {
    let failures = [(Failure::NoSpace, Answer::NoSpace), (Failure::Quota, Answer::Quota), (Failure::Other, Answer::Failed)];
    for (failure, told) in failures {
        let mut machine = filling();
        assert_eq!(machine.handle(Event::Filled(vec![(file(1), Err(failure))]), 2), [answer(1, told)]);
        assert!(machine.is_empty());
    }
}

#[test]
fn case_03_a_held_file_is_looked_at_when_it_is_let_go_if_somebody_came() {
    let mut machine = Recalls::new(PATIENCE);
    assert!(machine.hold(&file(1), 0) && !machine.hold(&file(1), 0) && machine.hold(&file(2), 0));
    assert_eq!(machine.handle(asks(1, Purpose::Read), 0), []);
    assert_eq!(machine.let_go(&file(1), true, 0), [Effect::Look(file(1))]);
    assert_eq!(machine.let_go(&file(1), true, 0), [], "it is held no more");
    assert_eq!(machine.let_go(&file(2), true, 0), []);
    assert_eq!(machine.len(), 1);
    assert!(machine.hold(&file(2), 0));
    assert_eq!(machine.let_go(&file(2), false, 0), [Effect::Look(file(2))], "it may be whole, and the gate still asks");
}

// Row 4.
#[test]
fn a_length_that_was_changed_is_put_right_only_for_who_asks_for_that() {
    let spoilt = || looked(Some(Ok(record(9))), 5, false);
    let shown = Effect::Show(file(1), Trouble::Size { found: 5, recorded: 9 });
    let mut machine = Recalls::new(PATIENCE);
    assert_eq!(machine.handle(Event::Wanted(vec![file(1)]), 0), [Effect::Look(file(1))]);
    assert_eq!(machine.handle(spoilt(), 0), [shown, Effect::Ended(file(1), Answer::Failed)]);

    assert_eq!(machine.handle(Event::MendWanted(vec![file(1)]), 0), [Effect::Look(file(1))]);
    assert_eq!(machine.handle(asks(1, Purpose::Write), 0), [], "who comes meanwhile waits");
    assert_eq!(machine.handle(spoilt(), 0), [Effect::Mend(file(1), record(9))]);
    assert!(!machine.hold(&file(1), 0));
    let ok = || vec![(file(1), Ok(()))];
    assert_eq!(machine.handle(Event::Mended(ok()), 0), [Effect::Look(file(1))]);
    assert_eq!(machine.handle(stub(), 0), [Effect::Fill(file(1), record(9), Units::none())]);
    machine.handle(Event::Filled(ok()), 0);
    machine.handle(Event::Flushed(ok()), 0);
    machine.handle(Event::Forgotten(ok()), 0);
    let whole = [answer(1, Answer::Allow), Effect::Ended(file(1), Answer::Allow), Effect::Release(file(1))];
    assert_eq!(machine.handle(Event::Flushed(ok()), 0), whole);
}

#[test]
fn a_length_that_does_not_stay_right_is_given_up() {
    let spoilt = || looked(Some(Ok(record(9))), 5, false);
    let shown = Effect::Show(file(1), Trouble::Size { found: 5, recorded: 9 });
    let mut machine = Recalls::new(PATIENCE);
    machine.handle(Event::MendWanted(vec![file(1)]), 0);
    machine.handle(spoilt(), 0);
    machine.handle(Event::Mended(vec![(file(1), Ok(()))]), 0);
    assert_eq!(machine.handle(spoilt(), 0), [shown, Effect::Ended(file(1), Answer::Failed)], "nobody goes round for ever");

    machine.handle(Event::MendWanted(vec![file(1)]), 0);
    machine.handle(spoilt(), 0);
    machine.handle(asks(1, Purpose::Read), 0);
    let failed = Event::Mended(vec![(file(1), Err(Failure::NoSpace))]);
    assert_eq!(machine.handle(failed, 0), [answer(1, Answer::NoSpace), Effect::Ended(file(1), Answer::NoSpace)]);
    assert!(machine.is_empty());
}

/// Someone of a streaming file of ten units.
fn film() -> Event {
    let record = StubRecord { size: 10 * UNIT, ..record(9) };
    Event::Looked(vec![(
        file(1),
        Found { record: Some(Ok(record)), size: 10 * UNIT, has_blocks: false, resident: None, streams: true },
    )])
}

fn streamed() -> (Recalls, StubRecord) {
    let mut machine = Recalls::new(PATIENCE).with_quiet(1_000);
    let record = StubRecord { size: 10 * UNIT, ..record(9) };
    machine.handle(asks(1, Purpose::Stream), 0);
    assert_eq!(machine.handle(film(), 0), [Effect::Mask(file(1), record, Units::none())]);
    let ends = Units::from_iter([0..1, 9..10]);
    assert_eq!(machine.handle(Event::Masked(vec![(file(1), Ok(()))]), 0), [Effect::Bring(file(1), record, ends.clone())]);
    assert_eq!(machine.handle(Event::Came(vec![(file(1), Units::of(9..10))]), 0), [answer(1, Answer::Allow)], "its end is here");
    assert_eq!(machine.handle(Event::Brought(vec![(file(1), ends, Ok(()))]), 0), []);
    (machine, record)
}

#[test]
fn whoever_streams_waits_for_what_he_reads() {
    let (mut machine, record) = streamed();
    assert!(machine.is_streamed(&file(1)) && !machine.hold(&file(1), 0));
    assert_eq!(machine.handle(asks(2, Purpose::Range(9 * UNIT, 5)), 0), [answer(2, Answer::Allow)], "that is here");
    let wanted = Units::of(5..6);
    assert_eq!(machine.handle(asks(3, Purpose::Range(5 * UNIT, 5)), 0), [Effect::Bring(file(1), record, wanted.clone())]);
    let failed = Event::Brought(vec![(file(1), wanted, Err(Failure::NoSpace))]);
    assert_eq!(machine.handle(failed, 0), [answer(3, Answer::NoSpace)], "the others go on");
    let (mut machine, _) = streamed();
    machine.handle(asks(4, Purpose::Range(5 * UNIT, 5)), 0);
    assert_eq!(machine.handle(Event::Tick, PATIENCE), [answer(4, Answer::Late), Effect::GiveUp(file(1))]);
}

#[test]
fn whoever_needs_all_waits_for_what_is_on_its_way_and_then_for_the_rest() {
    let (mut machine, record) = streamed();
    let on_its_way = Units::of(5..6);
    machine.handle(asks(2, Purpose::Range(5 * UNIT, 5)), 0);
    assert_eq!(machine.handle(asks(3, Purpose::Read), 0), []);
    assert!(!machine.is_streamed(&file(1)));
    let came = machine.handle(Event::Brought(vec![(file(1), on_its_way, Ok(()))]), 0);
    let here = Units::from_iter([0..1, 5..6, 9..10]);
    assert_eq!(came, [answer(2, Answer::Allow), Effect::Fill(file(1), record, here)]);
    assert_eq!(machine.handle(Event::Came(vec![(file(1), Units::of(6..7))]), 0), []);
    assert_eq!(machine.handle(asks(4, Purpose::Range(6 * UNIT, 5)), 0), [answer(4, Answer::Allow)], "that has come since");
    // It fails: who reads parts goes on, who needs all is told.
    let failed = machine.handle(Event::Filled(vec![(file(1), Err(Failure::Other))]), 0);
    assert_eq!(failed, [answer(3, Answer::Failed), Effect::Look(file(1))]);
    assert!(machine.is_streamed(&file(1)));
}

#[test]
fn what_nobody_asks_anything_of_is_given_up() {
    let (mut machine, record) = streamed();
    let here = Units::from_iter([0..1, 9..10]);
    assert_eq!(machine.handle(Event::Tick, 999), []);
    assert_eq!(machine.handle(Event::Tick, 1_000), [Effect::Part(file(1), record, here.clone())]);
    assert_eq!(machine.handle(asks(2, Purpose::Range(9 * UNIT, 5)), 1_000), [], "it may just be going");
    let in_use = Event::Parted(vec![(file(1), Parted::InUse)]);
    assert_eq!(machine.handle(in_use, 1_001), [answer(2, Answer::Allow)]);
    assert_eq!(machine.handle(Event::Tick, 2_001), [Effect::Part(file(1), record, here)]);
    assert_eq!(machine.handle(Event::Parted(vec![(file(1), Parted::Over)]), 2_002), []);
    assert!(machine.is_empty());
}

#[test]
fn what_cannot_be_masked_comes_whole() {
    let mut machine = Recalls::new(PATIENCE).with_quiet(1_000);
    let record = StubRecord { size: 10 * UNIT, ..record(9) };
    machine.handle(asks(1, Purpose::Stream), 0);
    machine.handle(film(), 0);
    assert_eq!(machine.handle(Event::Masked(vec![(file(1), Err(Failure::NoSpace))]), 0), [Effect::Look(file(1))]);
    assert_eq!(machine.handle(film(), 0), [Effect::Fill(file(1), record, Units::none())]);
    // Small ones are never streamed.
    let mut machine = Recalls::new(PATIENCE);
    machine.handle(asks(1, Purpose::Stream), 0);
    let Event::Looked(mut found) = film() else { return };
    found[0].1.streams = false;
    assert_eq!(machine.handle(Event::Looked(found), 0), [Effect::Fill(file(1), record, Units::none())]);
}

#[test]
fn who_reads_what_is_here_has_more_fetched_ahead() {
    let mut machine = Recalls::new(PATIENCE).with_quiet(1_000);
    let size = 200 * UNIT;
    let film = StubRecord { size, ..record(9) };
    machine.handle(asks(1, Purpose::Stream), 0);
    let found = Found { record: Some(Ok(film)), size, has_blocks: false, resident: None, streams: true };
    machine.handle(Event::Looked(vec![(file(1), found)]), 0);
    let mut fetched = 0;
    let mut bring = |machine: &mut Recalls, mut effects: Vec<Effect>| {
        while let Some(effect) = effects.pop() {
            if let Effect::Bring(file, _, units) = effect {
                fetched += 1;
                effects.extend(machine.handle(Event::Brought(vec![(file, units, Ok(()))]), 0));
            }
        }
    };
    let begun = machine.handle(Event::Masked(vec![(file(1), Ok(()))]), 0);
    bring(&mut machine, begun);
    for unit in 0..200 {
        let effects = machine.handle(asks(unit + 2, Purpose::Range(unit * UNIT, 4_096)), 0);
        bring(&mut machine, effects);
    }
    assert!(fetched < 30, "{fetched} fetches of 200 units that are read one after the other");
}

#[test]
fn after_a_failure_what_came_is_looked_at_anew() {
    let (mut machine, record) = streamed();
    machine.handle(asks(2, Purpose::Range(5 * UNIT, 5)), 0);
    let failed = Event::Brought(vec![(file(1), Units::of(5..6), Err(Failure::Other))]);
    assert_eq!(machine.handle(failed, 0), [answer(2, Answer::Failed), Effect::Look(file(1))]);
    assert_eq!(machine.handle(asks(3, Purpose::Range(9 * UNIT, 5)), 0), [], "its end may have been cut");
    let resident = Some(Units::none());
    let found = Found { record: Some(Ok(record)), size: 10 * UNIT, has_blocks: true, resident, streams: true };
    let looked = machine.handle(Event::Looked(vec![(file(1), found)]), 0);
    assert_eq!(looked, [Effect::Bring(file(1), record, Units::of(9..10))]);
    // What was given up because somebody had waited too long is fetched for who came since.
    machine.handle(Event::Tick, PATIENCE);
    machine.handle(asks(4, Purpose::Range(9 * UNIT, 5)), PATIENCE);
    let given_up = Event::Brought(vec![(file(1), Units::of(9..10), Err(Failure::GivenUp))]);
    assert_eq!(machine.handle(given_up, PATIENCE), [Effect::Bring(file(1), record, Units::of(9..10))]);
}
