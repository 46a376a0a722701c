//! Recall at work: what the post tells goes to the machine in `core`, and what the machine asks for is performed.
//!
//! One thread owns the machine; others perform, so that one slow fetch holds up nobody else. **Invariant:** whatever fails, a
//! caller gets an answer: the content, or an errno.

mod perform;

pub use perform::{FetchFailure, Source, Take};

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use isotherm_core::stub::{self, Effect, Event, Question, QuestionId, Recalls, Trouble};
use isotherm_core::trees::Handle;
use isotherm_gate::Root;
use isotherm_gate::guard::{Post, Purpose, Refusal, Told};

use crate::volume::{gate_handle, handle_of};
use perform::{Performer, Task};

/// How long a caller waits while nothing gets on (DESIGN 7.4).
const PATIENCE: Duration = Duration::from_secs(60);
/// Threads that perform: as many files are recalled at once.
const HANDS: usize = 8;
/// Between two looks at who was killed or has returned.
const LOOK_AFTER: Duration = Duration::from_millis(20);

/// Something that an administrator has to know of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecallProblem {
    /// The file.
    pub file: Handle,
    /// What is wrong.
    pub text: String,
}

/// A running recall of one guarded volume.
#[derive(Debug)]
pub struct Recall {
    inputs: Sender<Input>,
    threads: Vec<JoinHandle<()>>,
    problems: Arc<Mutex<Vec<RecallProblem>>>,
}

#[derive(Debug)]
enum Input {
    Event(Event),
    Stop,
}

impl Recall {
    /// Begins to answer for the files of `root`. What an earlier run did is made durable first, and the post tells who waits.
    ///
    /// # Errors
    /// The volume cannot be made durable.
    pub fn start(root: Arc<Root>, post: Arc<Post>, source: Arc<dyn Source>) -> Result<Self, isotherm_gate::GateError> {
        root.sync()?;
        let (inputs, queue) = channel();
        let (tasks, waiting_tasks) = channel::<Task>();
        let problems = Arc::new(Mutex::new(Vec::new()));
        let performer = Arc::new(Performer {
            root,
            post: Arc::clone(&post),
            source,
            problems: Arc::clone(&problems),
            wanted: Mutex::default(),
        });
        let waiting_tasks = Arc::new(Mutex::new(waiting_tasks));
        let mut threads = Vec::new();
        for _ in 0..HANDS {
            let (performer, queue, done) = (Arc::clone(&performer), Arc::clone(&waiting_tasks), inputs.clone());
            threads.push(std::thread::spawn(move || perform::run(&performer, &queue, &done_with(done))));
        }
        let desk = Desk { machine: Recalls::new(PATIENCE.as_millis() as u64), post, tasks, performer, started: Instant::now() };
        threads.push(std::thread::spawn(move || desk.run(&queue)));
        Ok(Self { inputs, threads, problems })
    }

    /// Wants files whole that nobody waits for.
    pub fn want(&self, files: Vec<Handle>) {
        // It ends only with this.
        let _ = self.inputs.send(Input::Event(Event::Wanted(files)));
    }

    /// What went wrong so far.
    #[must_use]
    pub fn problems(&self) -> Vec<RecallProblem> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Recall {
    fn drop(&mut self) {
        let _ = self.inputs.send(Input::Stop);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("A thread of recall ended with a panic");
            }
        }
    }
}

fn done_with(inputs: Sender<Input>) -> impl Fn(Event) {
    move |event| {
        let _ = inputs.send(Input::Event(event));
    }
}

/// The thread that owns the machine.
struct Desk {
    machine: Recalls,
    post: Arc<Post>,
    tasks: Sender<Task>,
    performer: Arc<Performer>,
    started: Instant,
}

impl Desk {
    fn run(mut self, queue: &Receiver<Input>) {
        self.tell(self.post.begin_again());
        let mut looked = Instant::now();
        loop {
            match self.post.read() {
                Ok(told) => self.tell(told),
                Err(error) => tracing::error!(%error, "Recall cannot read who waits"),
            }
            if looked.elapsed() >= LOOK_AFTER {
                looked = Instant::now();
                self.tell(self.post.look_after());
                self.take(Event::Tick);
            }
            // Questions come by the descriptor of the group, the rest by the queue: neither waits for long.
            match queue.recv_timeout(Duration::from_micros(500)) {
                Ok(Input::Event(event)) => self.take(event),
                Ok(Input::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    self.performer.give_up_all();
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn tell(&mut self, told: Vec<Told>) {
        let (mut asked, mut left, mut returned, mut wanted) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for one in told {
            match one {
                Told::Asked(waiting) => asked.push(Question {
                    id: QuestionId(waiting.id),
                    file: handle_of(&waiting.file),
                    purpose: purpose(waiting.purpose),
                    let_through: waiting.let_through,
                }),
                Told::Wanted(file) => wanted.push(handle_of(&file)),
                Told::Left(id) => left.push(QuestionId(id)),
                Told::Returned(id) => returned.push(QuestionId(id)),
            }
        }
        let events = [
            (!asked.is_empty()).then_some(Event::Asked(asked)),
            (!wanted.is_empty()).then_some(Event::Wanted(wanted)),
            (!left.is_empty()).then_some(Event::Left(left)),
            (!returned.is_empty()).then_some(Event::Returned(returned)),
        ];
        events.into_iter().flatten().for_each(|event| self.take(event));
    }

    fn take(&mut self, event: Event) {
        let now = self.started.elapsed().as_millis() as u64;
        for effect in self.machine.handle(event, now) {
            match effect {
                Effect::Answer(caller, answer) => self.post.answer(caller.0, refusal(answer)),
                // The post looks after those whom it let through.
                Effect::Follow(_) | Effect::Ended(..) => {}
                Effect::GiveUp(file) => self.performer.give_up(&file),
                Effect::Show(file, trouble) => self.performer.show(&file, &shown(trouble)),
                Effect::Look(file) => self.perform(Task::Look(file)),
                Effect::Fill(file, record) => {
                    self.performer.begin(&file);
                    self.perform(Task::Fill(file, record));
                }
                Effect::Flush(file) => self.perform(Task::Flush(file)),
                Effect::Forget(file) => self.perform(Task::Forget(file)),
                Effect::Release(file) => self.perform(Task::Release(file)),
            }
        }
    }

    fn perform(&self, task: Task) {
        // Those who perform end after this thread.
        let _ = self.tasks.send(task);
    }
}

fn shown(trouble: Trouble) -> String {
    format!("{trouble}. Restore it with `isotherm restore`, or write it anew")
}

fn purpose(purpose: Purpose) -> stub::Purpose {
    match purpose {
        Purpose::Read => stub::Purpose::Read,
        Purpose::Empty => stub::Purpose::Empty,
        Purpose::Write | Purpose::Kernel => stub::Purpose::Write,
    }
}

fn refusal(answer: stub::Answer) -> Option<Refusal> {
    match answer {
        stub::Answer::Allow => None,
        stub::Answer::Failed => Some(Refusal::Io),
        stub::Answer::Late => Some(Refusal::Busy),
        stub::Answer::NoSpace => Some(Refusal::NoSpace),
        stub::Answer::Quota => Some(Refusal::Quota),
    }
}

/// The inode of a handle, to work on it.
fn stub_file(root: &Root, file: &Handle) -> Result<(isotherm_gate::Inode, isotherm_gate::StubFile), isotherm_gate::GateError> {
    let inode = root.inode(&gate_handle(file)?)?;
    let opened = isotherm_gate::StubFile::open(&inode)?;
    Ok((inode, opened))
}
