//! Attacks on a sandbox, from inside of it, by this very program: does the wall stand on this host?
//!
//! ```text
//! cli::selftest ── scene (JSON on stdin) ──▶ payload, in a sandbox      every attack: must be refused
//!       │                                ├▶ payload, in a scratch       the same ones: must work
//!       │                                └▶ payload, in a neighbour     the same ones: must work
//!       ├── reports (a JSON line each) ◀── payload
//!       ├── judge: inside × control ─▶ PASS · FAIL · SKIP
//!       └── audit: /proc of our own processes ─▶ PASS · FAIL · SKIP
//! ```
//!
//! Invariants
//! - An attack that is refused inside counts only when the same code succeeds outside, where nothing stops it: in fresh
//!   namespaces of every kind under ids that own nothing on the host ([`Control::Scratch`]), or as a user of the host with
//!   no rights ([`Control::Host`]), or in the sandbox next door ([`Control::Neighbour`]). If it succeeds nowhere, the
//!   verdict is SKIP, with both answers.
//! - Nothing runs with privileges over the host, except where the operator of a host that may be lost says so
//!   ([`Control::RealRoot`]).
//! - Calls that would harm what they succeed on get arguments that fail harmlessly: the errno tells whether the kernel
//!   came to look at them. Such an attack says which errnos mean that (`attacks`, `reached`).
//! - Each attack runs in a process of its own that is killed afterwards.

mod attacks;
pub mod audit;
mod payload;
mod scene;
mod scratch;
mod verdict;

pub use attacks::{Attack, Control, GREETING, Group, all};
pub use payload::{Place, run};
pub use scene::{Host, Neighbour, Scene, Sizes};
pub use verdict::{Outcome, Report, Verdict, judge};
