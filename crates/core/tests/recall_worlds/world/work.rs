//! What the agent does to the file, step by step, in the order that the disk needs.

use isotherm_core::stub::{Event, Failure, Found, Parted, Units};

use super::{Broken, Hole, Kept, Mask, Next, Old, Person, Sight, Task, Unit, World, handle, record, unit};
use isotherm_core::stub::UNIT;

impl World {
    pub(super) fn task_steps(&self, at: usize) -> Next {
        let mut worlds = Vec::new();
        let mut world = self.clone();
        let task = world.tasks.remove(at);
        let shown = format!("{task:?}");
        match task {
            Task::Look(None) => {
                let has_blocks = self.live.units.iter().any(|unit| *unit != Hole);
                let sight = Sight { record: self.live.record.clone(), size: self.live.units.len() as u64 * UNIT, has_blocks };
                world.begin(Task::Look(Some(sight)));
            }
            Task::Look(Some(Sight { record: kept, size, has_blocks })) => {
                let resident = kept.as_ref().and_then(Kept::resident);
                let found = Found { record: kept.map(|_| Ok(record())), size, has_blocks, resident, streams: !self.is_small };
                world.tell(Event::Looked(vec![(handle(), found)]))?;
            }
            Task::Fill { done, given_up, present, is_own } => {
                worlds.extend(self.failed_fill(&world, (done, is_own), given_up, &shown)?);
                world.fill(done, given_up, present, is_own)?;
            }
            Task::Mask(step, resident) => {
                let failed = Event::Masked(vec![(handle(), Err(Failure::Other))]);
                worlds.extend(self.failed(&world, failed, &shown)?);
                world.mask(step, resident)?;
            }
            Task::Bring(all, left) => {
                let failed = Event::Brought(vec![(handle(), all.clone(), Err(Failure::Other))]);
                worlds.extend(self.failed(&world, failed, &shown)?);
                world.bring(all, left)?;
            }
            Task::Part(step, present) => {
                // A volume that is full keeps nothing of it.
                if step == 0 && !present.is_empty() {
                    let mut full = world.clone();
                    full.part(step, Units::none())?;
                    worlds.push((format!("{shown} keeps nothing"), full));
                }
                world.part(step, present)?;
            }
            Task::Flush => {
                let failed = Event::Flushed(vec![(handle(), Err(Failure::Other))]);
                worlds.extend(self.failed(&world, failed, &shown)?);
                if self.broken != Broken::Fill {
                    world.flush();
                }
                world.tell(Event::Flushed(vec![(handle(), Ok(()))]))?;
            }
            Task::Forget => {
                world.live.record = None;
                world.tell(Event::Forgotten(vec![(handle(), Ok(()))]))?;
            }
            Task::Release => {
                world.asks = false;
                world.tell(Event::Released(vec![handle()]))?;
            }
            Task::Follow(caller) if self.people.iter().any(|person| person.granted == Some(caller)) => return Ok(worlds),
            Task::Follow(caller) => world.tell(Event::Returned(vec![caller]))?,
            Task::Tier(step) => world.tier(step)?,
        }
        worlds.push((shown, world));
        Ok(worlds)
    }

    /// The world in which a piece of work fails instead, if one still may.
    fn failed(&self, world: &World, event: Event, shown: &str) -> Result<Option<(String, World)>, String> {
        if self.failures == 0 {
            return Ok(None);
        }
        let mut failing = world.clone();
        failing.failures -= 1;
        failing.tell(event)?;
        Ok(Some((format!("{shown} fails"), failing)))
    }

    fn failed_fill(
        &self,
        world: &World,
        (done, is_own): (u64, bool),
        given_up: bool,
        shown: &str,
    ) -> Result<Option<(String, World)>, String> {
        if !given_up && self.failures == 0 {
            return Ok(None);
        }
        let mut failing = world.clone();
        failing.failures = self.failures.saturating_sub(u32::from(!given_up));
        failing.give_up_fill(done, is_own);
        failing.tell(Event::Filled(vec![(handle(), Err(Failure::Other))]))?;
        Ok(Some((format!("{shown} fails"), failing)))
    }

    fn fill(&mut self, done: u64, given_up: bool, present: Units, is_own: bool) -> Result<(), String> {
        if done == 2 {
            return self.tell(Event::Filled(vec![(handle(), Ok(()))]));
        }
        if !present.contain(&unit(done)) {
            self.put_old(done);
            self.tell(Event::Came(vec![(handle(), unit(done))]))?;
        }
        self.begin(Task::Fill { done: done + 1, given_up, present, is_own });
        Ok(())
    }

    fn bring(&mut self, all: Units, left: Units) -> Result<(), String> {
        let Some(range) = left.ranges().next() else {
            return self.tell(Event::Brought(vec![(handle(), all, Ok(()))]));
        };
        self.put_old(range.start);
        self.tell(Event::Came(vec![(handle(), unit(range.start))]))?;
        self.begin(Task::Bring(all, left.without(&unit(range.start))));
        Ok(())
    }

    fn is_open(&self) -> bool {
        let is_open = |person: &Person| person.open || (person.at == 0 && (person.waits.or(person.granted)).is_some());
        self.people.iter().any(is_open)
    }

    fn put_old(&mut self, at: u64) {
        let at = usize::try_from(at).unwrap();
        while self.live.units.len() <= at {
            self.live.units.push(Hole);
        }
        self.live.units[at] = Old;
    }

    /// Content goes only when the record that stands for it is durable, and never where somebody may be reading it.
    fn give_up_fill(&mut self, done: u64, is_own: bool) {
        if !is_own {
            return;
        }
        if matches!(self.live.record, Some(Kept::Units(_))) && self.broken != Broken::StreamGiveUp {
            return;
        }
        if self.broken != Broken::GiveUp {
            self.flush();
        }
        let done = usize::try_from(done).unwrap();
        self.live.units.iter_mut().take(done).for_each(|unit| *unit = Hole);
    }

    /// Order: record, flush, mask.
    fn mask(&mut self, step: usize, resident: Units) -> Result<(), String> {
        match step {
            0 if self.broken != Broken::MaskRecord => self.live.record = Some(Kept::Units(resident.clone())),
            1 => self.flush(),
            2 => {
                let is_masked = |at: usize, found: Unit| {
                    found == Hole || (self.broken == Broken::MaskAll && !resident.contain(&unit(at as u64)))
                };
                let masked = self.live.units.iter().enumerate();
                let masked = masked.map(|(at, found)| if is_masked(at, *found) { Mask } else { *found }).collect();
                self.live.units = masked;
            }
            3 => {
                self.live.record = Some(Kept::Units(resident));
                return self.tell(Event::Masked(vec![(handle(), Ok(()))]));
            }
            _ => {}
        }
        self.begin(Task::Mask(step + 1, resident));
        Ok(())
    }

    /// Order: make sure that nobody has it open, flush, record, flush, give up.
    fn part(&mut self, step: usize, present: Units) -> Result<(), String> {
        match step {
            0 if self.is_open() && self.broken != Broken::PartLease => {
                return self.tell(Event::Parted(vec![(handle(), Parted::InUse)]));
            }
            1 if self.broken != Broken::PartFlush => self.flush(),
            2 => self.live.record = Some(Kept::Units(present.clone())),
            3 if self.broken == Broken::PartRecord => {}
            3 => self.flush(),
            4 => {
                let kept = self.live.units.iter().enumerate();
                let kept = kept.map(|(at, found)| if present.contain(&unit(at as u64)) { *found } else { Hole }).collect();
                self.live.units = kept;
                return self.tell(Event::Parted(vec![(handle(), Parted::Over)]));
            }
            _ => {}
        }
        self.begin(Task::Part(step + 1, present));
        Ok(())
    }

    /// Order: ask, make sure that nobody has it open, record, flush, give up.
    fn tier(&mut self, step: usize) -> Result<(), String> {
        match step {
            0 => self.asks |= self.broken != Broken::Mark,
            1 => {
                if (self.is_open() && self.broken != Broken::Lease) || self.content != [Old, Old] {
                    let effects = self.machine.let_go(&handle(), false, 0);
                    return self.take(effects);
                }
            }
            2 => self.live.record = Some(Kept::Nothing),
            3 if self.broken != Broken::Record => self.flush(),
            3 => {}
            4 => {
                self.asks = true;
                self.live.units = vec![Hole; 2];
            }
            _ => {
                let effects = self.machine.let_go(&handle(), true, 0);
                return self.take(effects);
            }
        }
        self.begin(Task::Tier(step + 1));
        Ok(())
    }
}
