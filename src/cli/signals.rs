//! Signals that people and service managers send us, on their way to the command.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::Failure;

/// SIGHUP, SIGINT, SIGQUIT, SIGTERM (signal(7)).
const FORWARDED: [i32; 4] = [1, 2, 3, 15];

/// The signals that end a command line program, caught from here on.
#[derive(Debug)]
pub(super) struct Signals([Signal; FORWARDED.len()]);

impl Signals {
    /// Catches them.
    pub(super) fn catch() -> Result<Self, Failure> {
        let catch = |number| {
            signal(SignalKind::from_raw(number))
                .map_err(|source| Failure::Local { what: "cannot catch signals".to_owned(), source })
        };
        let [hangup, interrupt, quit, terminate] = FORWARDED;
        Ok(Self([catch(hangup)?, catch(interrupt)?, catch(quit)?, catch(terminate)?]))
    }

    /// The number of the next one. Cancel-safe, as receiving from each is.
    pub(super) async fn next(&mut self) -> i32 {
        let [hangup, interrupt, quit, terminate] = &mut self.0;
        tokio::select! {
            _ = hangup.recv() => FORWARDED[0],
            _ = interrupt.recv() => FORWARDED[1],
            _ = quit.recv() => FORWARDED[2],
            _ = terminate.recv() => FORWARDED[3],
        }
    }
}
