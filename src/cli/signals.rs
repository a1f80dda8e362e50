//! Signals that people and service managers send us, on their way to the command.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::attach::signalled;
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

/// Does what writes files of ours; a signal drops it, and with it the drafts that it has made.
pub(super) async fn or_signal(work: impl Future<Output = Result<u8, Failure>>) -> Result<u8, Failure> {
    let ignored = ignored();
    let mut signals = Signals::catch()?;
    let told = async {
        loop {
            let number = signals.next().await;
            if ignored & (1 << (number - 1)) == 0 {
                return number;
            }
        }
    };
    tokio::select! {
        done = work => done,
        number = told => Ok(signalled(number)),
    }
}

/// The signals that whoever started us wants ignored, as nohup(1) does: a bit for each (proc_pid_status(5)).
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}
