//! The one thread that writes.
//!
//! It takes all work that waits into one transaction, each piece under a savepoint, and commits once: while one commit
//! waits for the disk, the next batch gathers. It does not know what the work is.
//!
//! **Invariant:** work is answered after the commit that holds it, and work that failed has left no trace.

use std::fmt;
use std::thread::JoinHandle;

use isotherm_api::Code;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{mpsc, oneshot};

use crate::fault::Fault;

/// Most pieces of one transaction: a bound for how long the first one waits for the others.
const BATCH_MAX: usize = 256;
/// Most pieces that wait; more wait in their requests.
const QUEUE_MAX: usize = 1024;

/// A piece of work, its result, and who waits for it.
trait Job: Send {
    fn run(&mut self, connection: &Connection) -> Result<(), Fault>;
    fn finish(self: Box<Self>, outcome: Result<(), Fault>);
}

struct Pending<T, W, A> {
    work: Option<W>,
    value: Option<T>,
    after: A,
    reply: oneshot::Sender<Result<T, Fault>>,
}

impl<T, W, A> Job for Pending<T, W, A>
where
    T: Send,
    W: FnOnce(&Connection) -> Result<T, Fault> + Send,
    A: FnOnce(&T) + Send,
{
    fn run(&mut self, connection: &Connection) -> Result<(), Fault> {
        let work = self.work.take().expect("work runs once");
        self.value = Some(work(connection)?);
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Result<(), Fault>) {
        let answer = match (outcome, self.value) {
            (Ok(()), Some(value)) => {
                (self.after)(&value);
                Ok(value)
            }
            (Ok(()), None) => Err(Fault::stopping()),
            (Err(fault), _) => Err(fault),
        };
        // Who asked may be gone; the work is done all the same.
        let _ = self.reply.send(answer);
    }
}

/// The writing thread's front.
pub(super) struct Writer {
    /// None only while it is dropped.
    queue: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl Writer {
    pub(super) fn start(connection: Connection) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE_MAX);
        let thread = std::thread::spawn(move || work(connection, jobs));
        Self { queue: Some(queue), thread: Some(thread) }
    }

    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
        after: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, Fault> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Pending { work: Some(work), value: None, after, reply });
        let Some(queue) = &self.queue else { return Err(Fault::stopping()) };
        queue.send(job).await.map_err(|_| Fault::stopping())?;
        answer.await.map_err(|_| Fault::stopping())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The thread ends with its queue; after this the database is closed.
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("The thread that writes the records has panicked");
        }
    }
}

fn work(connection: Connection, mut jobs: mpsc::Receiver<Box<dyn Job>>) {
    // What the system could not write it may have dropped from its cache all the same, so that nothing on top of it can be
    // trusted: only reading the file anew tells what is there.
    let mut broken: Option<Fault> = None;
    while let Some(first) = jobs.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX
            && let Ok(job) = jobs.try_recv()
        {
            batch.push(job);
        }
        match &broken {
            None => broken = run_batch(&connection, batch).err(),
            Some(fault) => batch.into_iter().for_each(|job| job.finish(Err(fault.clone()))),
        }
    }
}

/// Fails only if the database cannot be written to any more by this process.
fn run_batch(connection: &Connection, batch: Vec<Box<dyn Job>>) -> Result<(), Fault> {
    if let Err(error) = connection.execute_batch("BEGIN IMMEDIATE") {
        finish_all(batch, &Err(error.into()));
        return Ok(());
    }
    let mut done = Vec::with_capacity(batch.len());
    let mut batch = batch.into_iter();
    while let Some(mut job) = batch.next() {
        match run_one(connection, &mut *job) {
            Ok(()) => done.push(job),
            // SQLite rolls the whole transaction back where the disk is full or failing: nothing of the batch is left.
            Err(fault) if connection.is_autocommit() => {
                done.push(job);
                done.extend(batch);
                finish_all(done, &Err(fault));
                return Ok(());
            }
            Err(fault) => job.finish(Err(fault)),
        }
    }
    let committed = connection.execute_batch("COMMIT");
    if committed.is_err() && !connection.is_autocommit() {
        roll_back(connection, "ROLLBACK");
    }
    let is_broken = matches!(&committed, Err(error) if error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure));
    let outcome = committed.map_err(|error| {
        let mut fault = Fault::from(error);
        if is_broken {
            fault.message.push_str("; nothing is written any more until the service is started again");
        }
        fault
    });
    finish_all(done, &outcome);
    if is_broken { outcome } else { Ok(()) }
}

fn run_one(connection: &Connection, job: &mut dyn Job) -> Result<(), Fault> {
    connection.execute_batch("SAVEPOINT job")?;
    let outcome = job.run(connection);
    if outcome.is_err() && !connection.is_autocommit() {
        roll_back(connection, "ROLLBACK TO job");
    }
    if !connection.is_autocommit() {
        connection.execute_batch("RELEASE job")?;
    }
    outcome
}

fn roll_back(connection: &Connection, statement: &str) {
    if let Err(error) = connection.execute_batch(statement) {
        tracing::error!(%error, "Records database cannot roll back");
    }
}

fn finish_all(jobs: Vec<Box<dyn Job>>, outcome: &Result<(), Fault>) {
    if let Err(fault) = outcome
        && fault.code != Code::Full
    {
        tracing::error!(%fault, "Records database cannot commit");
    }
    jobs.into_iter().for_each(|job| job.finish(outcome.clone()));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, mpsc as std_mpsc};

    use super::*;

    fn writer() -> Writer {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t (x INTEGER PRIMARY KEY)").unwrap();
        Writer::start(connection)
    }

    async fn insert(writer: &Writer, number: i64) -> Result<(), Fault> {
        let work = move |connection: &Connection| Ok(connection.execute("INSERT INTO t VALUES (?1)", [number]).map(drop)?);
        writer.run(work, |()| {}).await
    }

    async fn count(writer: &Writer) -> i64 {
        writer.run(|connection| Ok(connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?), |_| {}).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn work_of_one_transaction_fails_alone() {
        let writer = Arc::new(writer());
        let (open, gate) = std_mpsc::channel::<()>();
        let blocking = Arc::clone(&writer);
        // While this one holds the thread, the others gather and come into one transaction.
        let first = tokio::spawn(async move { blocking.run(move |_| gate.recv().map_err(|_| Fault::stopping()), |()| {}).await });
        let others: Vec<_> = [1, 2, 1, 3, 2]
            .map(|number| {
                let writer = Arc::clone(&writer);
                tokio::spawn(async move { insert(&writer, number).await })
            })
            .into_iter()
            .collect();
        open.send(()).unwrap();
        first.await.unwrap().unwrap();
        let mut failed = 0;
        for other in others {
            failed += u32::from(other.await.unwrap().is_err());
        }
        assert_eq!((failed, count(&writer).await), (2, 3));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn half_done_work_leaves_no_trace_and_wakes_nobody() {
        let writer = writer();
        let woken = Arc::new(AtomicU32::new(0));
        let (a, b) = (Arc::clone(&woken), Arc::clone(&woken));
        let work = |connection: &Connection| -> Result<(), Fault> {
            connection.execute("INSERT INTO t VALUES (1)", [])?;
            Err(Fault::invalid("Enough"))
        };
        let after = move |(): &()| a.store(5, Ordering::Relaxed);
        assert_eq!(writer.run(work, after).await.unwrap_err().message, "Enough");
        assert_eq!((count(&writer).await, woken.load(Ordering::Relaxed)), (0, 0));
        let after = move |(): &()| b.store(1, Ordering::Relaxed);
        writer.run(|connection| Ok(connection.execute("INSERT INTO t VALUES (1)", []).map(drop)?), after).await.unwrap();
        assert_eq!((count(&writer).await, woken.load(Ordering::Relaxed)), (1, 1));
    }
}
