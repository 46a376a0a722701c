//! The conversation with an agent that answers for a volume.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use super::guarded::{AgentLink, Guarded, tell};
use crate::FileHandle;
use crate::guard::AgentProcess;
use crate::link::{Channel, FromGate, LinkError, SPEECH, ToGate};

/// Serves an agent until the conversation ends.
pub(super) fn attend(volume: &Arc<Guarded>, client: &Channel, speech: u16) -> Result<(), LinkError> {
    if speech != SPEECH {
        tracing::info!(agent = speech, gate = SPEECH, "The agent is of another release");
    }
    let mut in_hand: BTreeSet<FileHandle> = BTreeSet::new();
    loop {
        match client.receive::<ToGate>()?.0 {
            ToGate::InHand(more) => in_hand.extend(more),
            ToGate::Begin => break,
            _ => return Err(LinkError::NotUnderstood),
        }
    }
    let (queue, messages) = channel();
    let number = volume.next_agent();
    let writer = client.duplicate()?;
    let attended = FromGate::Attended { marks: volume.wants_marks(), speech: SPEECH };
    client.send_with(&attended, &[volume.group().as_fd()])?;
    {
        // The reader of questions waits here: each caller is told of once.
        let mut agent = volume.agent();
        if volume.has_ended() {
            // It was taken away meanwhile. If it comes back, that is another one.
            return Err(LinkError::Ended);
        }
        let link = AgentLink { number, speech, queue: queue.clone(), heard: Instant::now() };
        volume.post().is_attended_by(client.peer().and_then(AgentProcess::of));
        tell(Some(&link), volume.post().begin_with(in_hand));
        *agent = Some(link);
    }
    volume.arm(number);
    volume.want_open_stubs();
    // An agent that does not read must not make the kernel's questions wait.
    std::thread::spawn(move || write(&writer, &messages));
    let ended = listen(volume, client, number, &|message| {
        // The writer has ended: so does the conversation.
        let _ = queue.send(message);
    });
    let mut agent = volume.agent();
    if agent.as_ref().is_some_and(|agent| agent.number == number) {
        *agent = None;
        volume.is_left_alone();
        volume.post().is_attended_by(None);
        // One that lives comes back, and has in hand what it had.
        if !volume.expect_living_agent() {
            volume.settle();
        }
    }
    ended
}

fn listen(volume: &Guarded, client: &Channel, number: u64, answer: &dyn Fn(FromGate)) -> Result<(), LinkError> {
    loop {
        let (message, _) = client.receive::<ToGate>()?;
        {
            let mut agent = volume.agent();
            let Some(link) = agent.as_mut().filter(|agent| agent.number == number) else {
                // Another agent has taken its place, which cannot be: it holds a lock.
                return Err(LinkError::Ended);
            };
            link.heard = Instant::now();
        }
        match message {
            ToGate::Answer(answers) => answers.into_iter().for_each(|(id, refusal)| volume.post().answer(id, refusal)),
            ToGate::Hold(round, files) => {
                files.iter().for_each(|file| volume.post().hold(file));
                answer(FromGate::Held(round));
            }
            ToGate::NotCome(file, why) => volume.post().not_come(&file, why),
            ToGate::Release(files) => files.iter().for_each(|file| volume.post().release(file)),
            ToGate::Alive => {}
            _ => return Err(LinkError::NotUnderstood),
        }
    }
}

fn write(client: &Channel, messages: &Receiver<FromGate>) {
    while let Ok(message) = messages.recv() {
        if client.send(&message).is_err() {
            client.end();
            return;
        }
    }
}
