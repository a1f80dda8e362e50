//! Whether something was killed because the sandbox's memory was used up.
//!
//! The kernel counts what its out-of-memory killer kills per control group, and the group with the limit is the
//! sandbox's: that one of its commands was the victim is concluded. A command that died of SIGKILL, or passed such
//! a death of its child on as 137, has the count looked at; when the count has grown since the last look before the
//! command began, memory was the reason. A command that something else killed while another one ran out of memory
//! is blamed on memory too. Where no group of the sandbox counts memory (no limit and no v2 controller), nothing is
//! ever blamed on it.
//!
//! Why not look before every command: that is a call to launch for each, for the sake of the few that are killed.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::launcher::Launcher;
use crate::id::SandboxId;
use crate::journal::feed::{Kind, Voice};
use crate::wire::agent::Exit;
use crate::wire::launch::{Answer, Call};

/// Looks that are remembered.
const LOOKS_MAX: usize = 64;

/// What a shell says of a child that SIGKILL ended.
const KILLED_CODE: i32 = 128 + libc::SIGKILL;

/// The count of one sandbox, as it was each time somebody looked.
#[derive(Debug)]
pub(super) struct Memory {
    launcher: Launcher,
    sandbox: SandboxId,
    looks: Mutex<VecDeque<(Instant, u64)>>,
    voice: Voice,
}

impl Memory {
    pub(super) fn new(launcher: Launcher, sandbox: SandboxId, voice: Voice) -> Self {
        Self { launcher, sandbox, looks: Mutex::default(), voice }
    }

    /// Looks, and remembers: for a sandbox of which something may have been killed before this daemon knew it.
    pub(super) async fn look(&self) -> Option<u64> {
        let call = Call::OomKills { id: self.sandbox.clone() };
        let Ok((Answer::OomKills(Some(count)), _)) = self.launcher.call(call, &[]).await else { return None };
        let mut looks = self.lock();
        if looks.len() == LOOKS_MAX {
            looks.pop_front();
        }
        looks.push_back((Instant::now(), count));
        Some(count)
    }

    /// Whether what began then and ended so was killed for memory.
    pub(super) async fn killed(&self, began: Instant, exit: Exit) -> bool {
        if !matches!(exit, Exit::Signal(libc::SIGKILL) | Exit::Code(KILLED_CODE)) {
            return false;
        }
        let (before, last) = (self.before(began), self.before(Instant::now()));
        let count = self.look().await;
        if let Some(count) = count.filter(|count| *count > last) {
            self.voice.say(Kind::MemoryExhausted, serde_json::json!({"killed": count - last}));
        }
        count.is_some_and(|count| count > before)
    }

    /// The count at the last look before this moment.
    fn before(&self, moment: Instant) -> u64 {
        let looks = self.lock();
        looks.iter().rev().find(|(at, _)| *at <= moment).map_or(0, |(_, count)| *count)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Instant, u64)>> {
        // Every operation is one push or pop: valid after any panic.
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::feed::Feed;
    use crate::sys::channel::Channel;
    use crate::sys::socket;
    use crate::wire::launch::{Reply, Request};

    #[tokio::test]
    async fn only_a_count_that_grew_since_a_command_began_is_to_blame() {
        let (ours, theirs) = socket::pair().expect("pair");
        let (launcher, _gone) = Launcher::start(ours).expect("launcher");
        let theirs = Channel::new(theirs).expect("channel");
        tokio::spawn(async move {
            let mut counts = [Some(2), Some(2), Some(3), Some(3), None].into_iter();
            while let Ok((Request { number, .. }, _)) = theirs.receive().await {
                let result = Ok(Answer::OomKills(counts.next().expect("no more looks")));
                theirs.send(&Reply { number, result }, &[]).await.expect("send");
            }
        });
        let memory =
            Memory::new(launcher, SandboxId::parse("a").expect("id"), Feed::open(None).voice("a", 0));
        let killed = Exit::Signal(libc::SIGKILL);
        // What was killed before this daemon came.
        assert_eq!(memory.look().await, Some(2));
        let early = Instant::now();
        assert!(!memory.killed(Instant::now(), killed).await, "not for memory");
        assert!(!memory.killed(Instant::now(), Exit::Code(1)).await, "nobody looks");
        assert!(memory.killed(early, Exit::Code(137)).await);
        assert!(memory.killed(early, killed).await, "it began before the count grew, as the one before");
        assert!(!memory.killed(Instant::now(), killed).await, "no group counts");
    }
}
