//! What the gateway knows of one sandbox: its policy, the names of addresses, how much it may.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::audit::Audit;
use super::bodies::Places;
use super::known::Known;
use super::policy::Verdict;
use super::{Gateway, connection, names};
use crate::id::SandboxId;
use crate::limits::{PINS_MAX, QUESTIONS_MAX};
use crate::wire::gateway::Policy;

/// How long an address keeps its names after the answer that gave it is out of date: programs remember answers longer
/// than they should.
const PIN_GRACE: Duration = Duration::from_secs(600);

/// Names of one address: content networks have thousands, a sandbox asks for few.
const PIN_NAMES_MAX: usize = 16;

/// Bytes of a question that are read: more than EDNS lets a client send.
const QUESTION_BYTES_MAX: usize = 4096;

/// Pause after an accept(2) that failed for lack of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// One sandbox.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: SandboxId,
    policy: watch::Sender<Arc<Policy>>,
    known: Mutex<Arc<Known>>,
    pins: Mutex<Pins>,
    pub(super) audit: Audit,
    /// Fires when the sandbox is gone, or its sockets are others.
    pub(super) end: CancellationToken,
    rate: Mutex<Bucket>,
    flow: Mutex<Bucket>,
    pub(super) questions: Arc<Semaphore>,
    /// Its places for bodies that are read before they are signed.
    pub(super) bodies: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Pins(HashMap<IpAddr, Vec<(Box<str>, Instant)>>);

/// What fills at a rate, and is taken from.
#[derive(Debug)]
struct Bucket {
    level: f64,
    at: Instant,
}

impl Bucket {
    fn new() -> Self {
        // Full, whatever the rate.
        Self { level: f64::MAX, at: Instant::now() }
    }

    /// Fills it up to now.
    fn fill(&mut self, per_second: f64, capacity: f64) {
        let now = Instant::now();
        self.level = (self.level + now.duration_since(self.at).as_secs_f64() * per_second).min(capacity);
        self.at = now;
    }
}

/// One of a sandbox's connections, as long as it lives.
#[derive(Debug)]
pub(super) struct Place(Arc<Member>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.audit.open.fetch_sub(1, Ordering::Relaxed);
        self.0.audit.keep();
    }
}

impl Member {
    pub(super) fn new(id: SandboxId, policy: Policy, known: Known, audit: Audit) -> Self {
        Self {
            id,
            policy: watch::Sender::new(Arc::new(policy)),
            known: Mutex::new(Arc::new(known)),
            pins: Mutex::default(),
            audit,
            end: CancellationToken::new(),
            rate: Mutex::new(Bucket::new()),
            flow: Mutex::new(Bucket::new()),
            questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            bodies: Places::own(),
        }
    }

    /// Changes the policy; connections that it does not allow end.
    pub(super) fn change(&self, policy: Policy, known: Known) {
        *lock(&self.known) = Arc::new(known);
        self.policy.send_replace(Arc::new(policy));
    }

    pub(super) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.borrow())
    }

    /// What it knows and the sandbox does not.
    pub(super) fn known(&self) -> Arc<Known> {
        Arc::clone(&lock(&self.known))
    }

    pub(super) fn changes(&self) -> watch::Receiver<Arc<Policy>> {
        self.policy.subscribe()
    }

    /// A place for another connection, if there may be one now; otherwise the limit that is reached.
    pub(super) fn admit(self: &Arc<Self>) -> Result<Place, Verdict> {
        let limits = self.policy.borrow().limits;
        let per_second = f64::from(limits.connections_per_second);
        let mut rate = lock(&self.rate);
        rate.fill(per_second, per_second * 10.0);
        let open = self.audit.open.load(Ordering::Relaxed);
        let reached = if open >= u64::from(limits.connections) {
            Some(("connections", limits.connections))
        } else {
            (rate.level < 1.0).then_some(("connections_per_second", limits.connections_per_second))
        };
        if let Some((name, value)) = reached {
            self.audit.limited.fetch_add(1, Ordering::Relaxed);
            let (rule, fix) = (format!("limit {name} {value}"), Some(format!("raise limits.{name}")));
            return Err(Verdict { allowed: false, rule, fix });
        }
        rate.level -= 1.0;
        self.audit.open.fetch_add(1, Ordering::Relaxed);
        Ok(Place(Arc::clone(self)))
    }

    /// How long to wait after so many bytes were moved.
    pub(super) fn pause_after(&self, bytes: usize) -> Option<Duration> {
        let per_second = self.policy.borrow().limits.bytes_per_second;
        if per_second == 0 || bytes == 0 {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate, not an account")]
        let (per_second, bytes) = (per_second as f64, bytes as f64);
        let mut flow = lock(&self.flow);
        // A tenth of a second's worth may come at once.
        flow.fill(per_second, per_second / 10.0);
        flow.level -= bytes;
        (flow.level < 0.0).then(|| Duration::from_secs_f64((-flow.level / per_second).min(60.0)))
    }

    /// Remembers that an answer of ours gave this address for a name.
    pub(super) fn pin(&self, address: IpAddr, name: &str, ttl: Duration) {
        lock(&self.pins).add(address, name, Instant::now() + ttl + PIN_GRACE);
    }

    /// The names for which answers of ours gave an address.
    pub(super) fn names_of(&self, address: IpAddr) -> Vec<String> {
        let now = Instant::now();
        let pins = lock(&self.pins);
        let names = pins.0.get(&address).into_iter().flatten();
        names.filter(|(_, until)| *until > now).map(|(name, _)| name.to_string()).collect()
    }
}

impl Pins {
    fn add(&mut self, address: IpAddr, name: &str, until: Instant) {
        if self.0.len() >= PINS_MAX && !self.0.contains_key(&address) {
            let now = Instant::now();
            self.0.retain(|_, names| names.iter().any(|(_, until)| *until > now));
            let latest = |names: &[(Box<str>, Instant)]| names.iter().map(|(_, until)| *until).max();
            if self.0.len() >= PINS_MAX
                && let Some(oldest) =
                    self.0.iter().min_by_key(|(_, names)| latest(names)).map(|(address, _)| *address)
            {
                self.0.remove(&oldest);
            }
        }
        let names = self.0.entry(address).or_default();
        names.retain(|(known, _)| **known != *name);
        if names.len() >= PIN_NAMES_MAX {
            names.remove(0);
        }
        names.push((name.into(), until));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A few assignments each: valid after any panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sockets in a sandbox at which everything ends.
#[derive(Debug)]
pub(super) struct Sockets {
    streams: TcpListener,
    questions: Arc<UdpSocket>,
    streams_v6: Option<TcpListener>,
}

impl Sockets {
    pub(super) fn new(fds: Vec<OwnedFd>) -> io::Result<Self> {
        let mut fds = fds.into_iter();
        let mut next = || fds.next().ok_or_else(|| io::Error::other("a socket is missing"));
        let listener = |fd: OwnedFd| {
            let listener = std::net::TcpListener::from(fd);
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        };
        let streams = listener(next()?)?;
        let questions = std::net::UdpSocket::from(next()?);
        questions.set_nonblocking(true)?;
        let questions = Arc::new(UdpSocket::from_std(questions)?);
        Ok(Self { streams, questions, streams_v6: next().ok().map(listener).transpose()? })
    }

    /// Takes what comes until the sandbox is gone.
    pub(super) async fn attend(self, gateway: Arc<Gateway>, member: Arc<Member>) {
        let end = member.end.clone();
        tokio::select! {
            () = end.cancelled() => {}
            () = accept(&self.streams, &gateway, &member) => {}
            () = accept_v6(self.streams_v6.as_ref(), &gateway, &member) => {}
            () = hear(&self.questions, &gateway, &member) => {}
        }
    }
}

async fn accept_v6(listener: Option<&TcpListener>, gateway: &Arc<Gateway>, member: &Arc<Member>) {
    match listener {
        Some(listener) => accept(listener, gateway, member).await,
        None => std::future::pending().await,
    }
}

async fn accept(listener: &TcpListener, gateway: &Arc<Gateway>, member: &Arc<Member>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => start(stream, gateway, member),
            Err(error) => {
                tracing::debug!(id = %member.id, %error, "accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn start(stream: TcpStream, gateway: &Arc<Gateway>, member: &Arc<Member>) {
    let place = match member.admit() {
        Ok(place) => place,
        // In nobody's words: to wait for what is spoken would take what the limit is there to keep.
        Err(verdict) => return connection::limited(member, stream, &verdict),
    };
    let (gateway, member) = (Arc::clone(gateway), Arc::clone(member));
    tokio::spawn(async move {
        let _place = place;
        let end = member.end.clone();
        tokio::select! {
            () = end.cancelled() => {}
            () = connection::serve(&gateway, &member, stream) => {}
        }
    });
}

async fn hear(socket: &Arc<UdpSocket>, gateway: &Arc<Gateway>, member: &Arc<Member>) {
    loop {
        if socket.readable().await.is_err() {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        }
        // Not across a wait: an idle sandbox is not to hold it.
        let mut buffer = [0; QUESTION_BYTES_MAX];
        let Ok((length, from)) = socket.try_recv_from(&mut buffer) else { continue };
        // Too many at once are dropped, and asked again by whoever asks.
        let Ok(permit) = Arc::clone(&member.questions).try_acquire_owned() else { continue };
        let question = buffer[..length].to_vec();
        tokio::spawn(answer(
            Arc::clone(gateway),
            Arc::clone(member),
            Arc::clone(socket),
            question,
            from,
            permit,
        ));
    }
}

async fn answer(
    gateway: Arc<Gateway>,
    member: Arc<Member>,
    socket: Arc<UdpSocket>,
    question: Vec<u8>,
    from: SocketAddr,
    _permit: tokio::sync::OwnedSemaphorePermit,
) {
    if let Some(answer) = names::answer(&gateway, &member, &question, names::Over::Datagram).await {
        // Whoever asked may be gone.
        let _ = socket.send_to(&answer, from).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::gateway::Limits;

    fn member(limits: Limits) -> Arc<Member> {
        let id = SandboxId::parse("a").expect("id");
        Arc::new(Member::new(id, Policy { limits, ..Policy::default() }, Known::default(), Audit::default()))
    }

    #[test]
    fn connections_are_bounded_in_number_and_rate() {
        let one = member(Limits { connections: 2, connections_per_second: 1, bytes_per_second: 0 });
        let first = one.admit().expect("first");
        let _second = one.admit().expect("second");
        assert_eq!(one.admit().expect_err("a third").rule, "limit connections 2");
        drop(first);
        for _ in 0..8 {
            assert!(one.admit().is_ok());
        }
        // Ten at once; the rest one per second.
        assert_eq!(one.admit().expect_err("too soon").rule, "limit connections_per_second 1");
        assert_eq!(one.audit.counters().limited, 2);
    }

    #[test]
    fn bytes_are_paid_for_in_time() {
        let limited = member(Limits { bytes_per_second: 1000, ..Limits::default() });
        assert_eq!(limited.pause_after(50), None);
        let pause = limited.pause_after(2000).expect("pause");
        assert!(pause > Duration::from_millis(1500) && pause < Duration::from_secs(3), "{pause:?}");
        assert_eq!(member(Limits::default()).pause_after(usize::MAX), None);
    }

    #[test]
    fn pins_are_bounded_and_the_oldest_goes() {
        let one = member(Limits::default());
        let address = |number: usize| {
            let number = u32::try_from(number).expect("small");
            IpAddr::from(std::net::Ipv4Addr::from(0x0909_0000 + number))
        };
        for number in 0..=PINS_MAX {
            one.pin(address(number), "a.test", Duration::from_secs(number as u64));
        }
        assert!(one.names_of(address(0)).is_empty());
        assert_eq!(one.names_of(address(PINS_MAX)), ["a.test"]);
        for number in 0..100 {
            one.pin(address(1), &format!("{number}.test"), Duration::ZERO);
        }
        assert_eq!(one.names_of(address(1)).len(), PIN_NAMES_MAX);
    }
}
