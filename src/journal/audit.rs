//! The audit log: who asked for what, and what became of it, as a chain of hashes.
//!
//! ```text
//! {"hash":"<of the record's bytes>","record":{"seq":7,"previous":"<hash of 6>",…}}
//! ```
//!
//! A hash is SHA-256 over the bytes of the record as they stand in the line, and the record holds the hash of the line
//! before. So no line can be changed, removed, inserted or moved without the chain showing where; whoever could
//! write a whole new chain must also change every copy of a later hash. What the chain alone cannot show is that its
//! end was cut off: for that somebody must remember a hash, on paper or another host, and [`verify`] takes it. Files
//! that grow too old are removed by the daemon, which writes a line about it first; others that are missing are told.
//!
//! A record holds no secret: not the path nor the body of a request, but the operation's name, and a digest keyed with
//! a key that never leaves the directory. Whoever has the request and the key can show that this was it; whoever has
//! only the log cannot try passwords against it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hmac::digest::KeyInit as _;
use hmac::{Hmac, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use crate::limits::{AUDIT_FILE_BYTES, AUDIT_FILES_MAX};

/// What the first record names as the one before it.
const NOTHING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The operation of a record about files that the daemon has removed.
const REMOVED: &str = "audit.removed";
/// The operation of a record about bytes at the end that were no line.
const REPAIRED: &str = "audit.repaired";
/// The operation of a record about requests that could not be written down.
const MISSED: &str = "audit.missed";

/// Bytes of the key of digests.
const KEY_BYTES: usize = 32;

/// One record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
// Clients in TypeScript have a `Record` of their own.
#[schema(as = AuditRecord)]
pub struct Record {
    /// Its number; each is one more than that before.
    pub seq: u64,
    /// Hash of the record before it.
    pub previous: String,
    /// When (RFC 3339).
    pub at: String,
    /// Uid of who asked.
    pub uid: u32,
    /// Gid.
    pub gid: u32,
    /// Pid, of which there may be another one by now; 0 when it cannot be seen from the daemon.
    pub pid: i32,
    /// What was asked for: an operation of the API's description, or `audit.…` for what the log says of itself.
    pub operation: String,
    /// About which sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    /// What became of it: `done`, or the code of the refusal or failure.
    pub verdict: String,
    /// The request's id, as in the daemon's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Keyed digest (HMAC-SHA-256) of method, path, query and, for JSON, body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Of what the log says of itself: up to which record files were removed, how many bytes or requests it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// A line: the record, and its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Line {
    /// SHA-256 of the record's bytes.
    pub hash: String,
    /// The record.
    pub record: Record,
}

/// The log that a daemon writes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Audit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    key: Key,
    state: Mutex<State>,
}

struct Key([u8; KEY_BYTES]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

#[derive(Debug)]
struct State {
    file: File,
    /// Bytes of whole lines in it. What a write that failed has left lies behind.
    length: u64,
    seq: u64,
    head: String,
    /// Requests that could not be written down since.
    missed: u64,
    /// Whether something may not be on the disk.
    dirty: bool,
}

impl Audit {
    /// Goes on with the log in a directory.
    ///
    /// # Errors
    /// As open(2), read(2) and write(2).
    pub fn open(directory: &Path) -> io::Result<Self> {
        let key = key(&directory.join("audit.key"))?;
        let files = files(directory)?;
        let mut state = match files.last() {
            None => begin(directory, 0, NOTHING.to_owned())?,
            Some((_, path)) => go_on(path)?,
        };
        let torn = state.file.metadata()?.len().saturating_sub(state.length);
        if torn > 0 {
            state.file.set_len(state.length)?;
            if let Err(error) = state.say(directory, REPAIRED, torn) {
                // On a disk that is full, where a daemon is needed to remove something. It is caught up with, as requests are.
                tracing::error!(%error, "cannot write the audit log; what changes something is refused");
                state.missed += 1;
            }
        }
        Ok(Self(Arc::new(Inner { directory: directory.to_owned(), key, state: Mutex::new(state) })))
    }

    /// A digest to which parts of a request are added.
    pub fn digest(&self) -> Digester {
        Digester(Hmac::<Sha256>::new_from_slice(&self.0.key.0).ok())
    }

    /// Whether requests can be written down now. One that changes something is to be refused otherwise.
    pub fn is_writable(&self) -> bool {
        let mut state = self.lock();
        state.missed == 0 || state.catch_up(&self.0.directory).is_ok()
    }

    /// Writes a record; number, time and chain are filled in.
    pub fn append(&self, record: Record) {
        let mut state = self.lock();
        let directory = &self.0.directory;
        let written = state.catch_up(directory).and_then(|()| state.append(directory, record));
        if let Err(error) = written {
            state.missed += 1;
            if state.missed == 1 {
                tracing::error!(%error, "cannot write the audit log; what changes something is refused");
            }
        }
    }

    /// Sees to it that everything is on the disk. To be called again and again, where waiting does not matter.
    pub fn flush(&self) {
        let file = {
            let mut state = self.lock();
            if !std::mem::take(&mut state.dirty) {
                return;
            }
            state.file.try_clone()
        };
        if let Err(error) = file.and_then(|file| file.sync_data()) {
            self.lock().dirty = true;
            tracing::warn!(%error, "the audit log is not on the disk");
        }
    }

    /// Number and hash of the last record: what somebody else should remember.
    pub fn head(&self) -> (u64, String) {
        let state = self.lock();
        (state.seq, state.head.clone())
    }

    /// Lines after a record that somebody wants, the oldest first; without one, the last ones.
    ///
    /// # Errors
    /// As open(2) and read(2).
    pub fn lines(
        &self,
        after: Option<u64>,
        most: usize,
        wanted: impl Fn(&Record) -> bool,
    ) -> io::Result<Vec<Line>> {
        let files = files(&self.0.directory)?;
        let Some(after) = after else {
            // From the newest file back, until there are enough.
            let mut found = VecDeque::new();
            for (_, path) in files.iter().rev() {
                let room = most - found.len();
                let mut earlier = VecDeque::new();
                for line in lines_of(path)? {
                    let line = line?;
                    if !wanted(&line.record) {
                        continue;
                    }
                    if earlier.len() == room {
                        earlier.pop_front();
                    }
                    earlier.push_back(line);
                }
                earlier.append(&mut found);
                found = earlier;
                if found.len() == most {
                    break;
                }
            }
            return Ok(found.into());
        };
        // From the file on in which the next one is.
        let start = files.partition_point(|(first, _)| *first <= after + 1);
        let mut found = Vec::new();
        for (_, path) in files.get(start.saturating_sub(1)..).unwrap_or_default() {
            for line in lines_of(path)? {
                let line = line?;
                if line.record.seq > after && wanted(&line.record) {
                    found.push(line);
                }
                if found.len() == most {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What a panic may have left behind the last whole line is overwritten.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lines of a file, without what is none.
fn lines_of(path: &Path) -> io::Result<impl Iterator<Item = io::Result<Line>>> {
    let lines = io::BufReader::new(File::open(path)?).lines();
    Ok(lines.filter_map(|text| text.map(|text| serde_json::from_str(&text).ok()).transpose()))
}

/// A keyed digest of a request.
#[derive(Clone)]
pub struct Digester(Option<Hmac<Sha256>>);

impl std::fmt::Debug for Digester {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Digester(…)")
    }
}

impl Digester {
    /// Adds a part, which cannot run into the next one.
    pub fn part(&mut self, bytes: &[u8]) {
        if let Some(mac) = &mut self.0 {
            mac.update(&(bytes.len() as u64).to_le_bytes());
            mac.update(bytes);
        }
    }

    /// Adds bytes of the last part, of which there may be more.
    pub fn more(&mut self, bytes: &[u8]) {
        if let Some(mac) = &mut self.0 {
            mac.update(bytes);
        }
    }

    /// What it is.
    pub fn finish(self) -> Option<String> {
        Some(format!("hmac-sha256:{}", hex(&self.0?.finalize().into_bytes())))
    }
}

impl State {
    /// Says how many requests were not written down, if some were not.
    fn catch_up(&mut self, directory: &Path) -> io::Result<()> {
        if self.missed > 0 {
            self.say(directory, MISSED, self.missed)?;
            self.missed = 0;
        }
        Ok(())
    }

    /// A record of the log about itself.
    fn say(&mut self, directory: &Path, operation: &str, count: u64) -> io::Result<()> {
        let record = Record {
            operation: operation.to_owned(),
            verdict: "done".to_owned(),
            count: Some(count),
            ..Record::default()
        };
        self.append(directory, record)
    }

    fn append(&mut self, directory: &Path, record: Record) -> io::Result<()> {
        if self.length > AUDIT_FILE_BYTES {
            self.rotate(directory)?;
        }
        self.put(record)
    }

    fn put(&mut self, mut record: Record) -> io::Result<()> {
        record.seq = self.seq + 1;
        record.previous.clone_from(&self.head);
        record.at = jiff::Timestamp::now().to_string();
        let text = serde_json::to_string(&record)?;
        let hash = hash(text.as_bytes());
        let line = format!("{{\"hash\":\"{hash}\",\"record\":{text}}}\n");
        // At its place, over what a write that failed has left.
        self.file.write_all_at(line.as_bytes(), self.length)?;
        self.length += line.len() as u64;
        (self.seq, self.head, self.dirty) = (record.seq, hash, true);
        Ok(())
    }

    /// Goes on in a new file, and removes the oldest ones, of which it says so first.
    fn rotate(&mut self, directory: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        let (seq, head) = (self.seq, self.head.clone());
        let missed = self.missed;
        *self = State { missed, ..begin(directory, seq, head)? };
        let files = files(directory)?;
        let old = files.len().saturating_sub(AUDIT_FILES_MAX);
        if let Some((first_kept, _)) = files.get(old).filter(|_| old > 0) {
            let until = first_kept - 1;
            let record = Record {
                operation: REMOVED.to_owned(),
                verdict: "done".to_owned(),
                count: Some(until),
                ..Record::default()
            };
            self.put(record)?;
            self.file.sync_all()?;
            for (_, path) in &files[..old] {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

fn begin(directory: &Path, seq: u64, head: String) -> io::Result<State> {
    let path = directory.join(format!("audit-{:016}.jsonl", seq + 1));
    let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    File::open(directory)?.sync_all()?;
    let length = 0;
    Ok(State { file, length, seq, head, missed: 0, dirty: false })
}

/// Finds the end of a file: its last whole line.
fn go_on(path: &Path) -> io::Result<State> {
    let file = File::options().read(true).write(true).open(path)?;
    let bytes = std::fs::read(path)?;
    let length = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let whole = bytes.get(..length).unwrap_or_default();
    let last = whole.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty());
    let last = last.and_then(|line| serde_json::from_slice::<Line>(line).ok());
    let (seq, head) = match last {
        Some(line) => (line.record.seq, line.hash),
        // The first line of a file names the one before.
        None => {
            let first = first_seq(path).unwrap_or(1);
            let previous =
                path.parent().map(|directory| last_before(directory, first)).transpose()?.flatten();
            previous.unwrap_or((first - 1, NOTHING.to_owned()))
        }
    };
    Ok(State { file, length: length as u64, seq, head, missed: 0, dirty: false })
}

/// The last record of the file before the one that begins with this number.
fn last_before(directory: &Path, first: u64) -> io::Result<Option<(u64, String)>> {
    let files = files(directory)?;
    let Some((_, path)) = files.iter().rev().find(|(other, _)| *other < first) else { return Ok(None) };
    let text = std::fs::read_to_string(path)?;
    let last = text.lines().rev().find_map(|line| serde_json::from_str::<Line>(line).ok());
    Ok(last.map(|line| (line.record.seq, line.hash)))
}

fn first_seq(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("audit-")?.strip_suffix(".jsonl")?.parse().ok()
}

/// Files of a log, by the number of their first record.
fn files(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        files.extend(first_seq(&path).map(|first| (first, path)));
    }
    files.sort();
    Ok(files)
}

/// The key of a log's digests, made when it is not there.
fn key(path: &Path) -> io::Result<Key> {
    if let Ok(Ok(key)) = std::fs::read(path).map(TryInto::try_into) {
        return Ok(Key(key));
    }
    let mut bytes = [0; KEY_BYTES];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    let draft = path.with_extension("new");
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    std::fs::rename(draft, path)?;
    Ok(Key(bytes))
}

fn hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is wrong with a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{file}, line {line}: {why}")]
pub struct Broken {
    /// Name of the file.
    pub file: String,
    /// Number of the line in it.
    pub line: usize,
    /// What does not hold.
    pub why: String,
}

/// What a log holds that is whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Records.
    pub records: u64,
    /// Number of the first.
    pub first: u64,
    /// Number of the last: with its hash what is to be remembered.
    pub last: u64,
    /// Hash of the last.
    pub head: String,
    /// Requests that the daemon could not write down, and says so.
    pub missed: u64,
    /// Bytes that a crash of the host left at an end, and that were no line.
    pub repaired: u64,
}

/// Checks a whole log; with a number and a hash that were remembered, that this record is in it.
///
/// # Errors
/// The first that is wrong; an outer error when it cannot be read.
pub fn verify(directory: &Path, expected: Option<(u64, &str)>) -> io::Result<Result<Verified, Broken>> {
    let files = files(directory)?;
    if files.is_empty() && expected.is_none() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "there is no audit log in it"));
    }
    let mut chain = Chain { expected, ..Chain::default() };
    for (_, path) in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let bytes = std::fs::read(&path)?;
        for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            if let Err(why) = chain.next(line) {
                return Ok(Err(Broken { file: name, line: index + 1, why }));
            }
        }
    }
    let last = chain.found.last;
    Ok(chain.end().map_err(|why| Broken {
        file: "the log".to_owned(),
        line: 0,
        why: format!("{why} (its last record is {last})"),
    }))
}

#[derive(Debug, Default)]
struct Chain<'a> {
    expected: Option<(u64, &'a str)>,
    found: Verified,
    /// Up to which record the daemon says that it has removed files.
    removed: u64,
    seen: bool,
}

impl Chain<'_> {
    fn next(&mut self, line: &[u8]) -> Result<(), String> {
        let whole = line.strip_suffix(b"\n").ok_or("the last line is not whole")?;
        let rest = whole.strip_prefix(b"{\"hash\":\"").ok_or("it is no line of this log")?;
        let (claimed, rest) = rest.split_at_checked(64).ok_or("it is no line of this log")?;
        let record = rest.strip_prefix(b"\",\"record\":").and_then(|rest| rest.strip_suffix(b"}"));
        let record = record.ok_or("it is no line of this log")?;
        let hash = hash(record);
        if hash.as_bytes() != claimed {
            return Err("the record is not what its hash says: it was changed".to_owned());
        }
        let record: Record = serde_json::from_slice(record).map_err(|error| error.to_string())?;
        let found = &mut self.found;
        if found.records == 0 {
            found.first = record.seq;
            if (record.seq == 1) != (record.previous == NOTHING) {
                return Err("it is not the first record, and says so".to_owned());
            }
        } else if record.seq != found.last + 1 {
            let (was, is) = (found.last, record.seq);
            return Err(format!("record {is} follows record {was}: some were removed, or moved"));
        } else if record.previous != found.head {
            return Err("it names another record before it than there is".to_owned());
        }
        match record.operation.as_str() {
            REMOVED => self.removed = record.count.unwrap_or(0),
            MISSED => found.missed += record.count.unwrap_or(0),
            REPAIRED => found.repaired += record.count.unwrap_or(0),
            _ => {}
        }
        found.records += 1;
        (found.last, found.head) = (record.seq, hash);
        if let Some((seq, hash)) = self.expected.filter(|(seq, _)| *seq == record.seq) {
            if !hash.eq_ignore_ascii_case(&found.head) {
                return Err(format!("record {seq} is not the one that was remembered"));
            }
            self.seen = true;
        }
        Ok(())
    }

    fn end(self) -> Result<Verified, String> {
        let first = self.found.first;
        if self.found.records > 0 && first != 1 && self.removed != first - 1 {
            return Err(format!(
                "it begins with record {first}, and no record says that those before were removed"
            ));
        }
        match self.expected {
            Some((seq, _)) if !self.seen && seq >= first => {
                Err(format!("record {seq}, which was remembered, is not there: the end was cut off"))
            }
            Some((seq, _)) if !self.seen => {
                Err(format!("record {seq}, which was remembered, was removed with the oldest files"))
            }
            _ => Ok(self.found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(operation: &str) -> Record {
        Record { uid: 7, operation: operation.to_owned(), verdict: "done".to_owned(), ..Record::default() }
    }

    /// A log of so many records, and the path of its file.
    fn log(place: &Path, records: usize) -> PathBuf {
        let audit = Audit::open(place).expect("open");
        for number in 0..records {
            audit.append(record(&format!("operation-{number}")));
        }
        audit.flush();
        files(place).expect("files").pop().expect("one").1
    }

    fn check(place: &Path) -> Result<Verified, Broken> {
        verify(place, None).expect("read")
    }

    #[test]
    fn a_log_that_nobody_has_touched_is_whole_also_over_restarts() {
        let place = tempfile::tempdir().expect("place");
        let none = verify(place.path(), None).expect_err("none is not a whole one");
        assert_eq!(none.kind(), io::ErrorKind::NotFound);
        log(place.path(), 3);
        log(place.path(), 2);
        let found = check(place.path()).expect("whole");
        assert_eq!((found.records, found.first, found.last), (5, 1, 5));
        let audit = Audit::open(place.path()).expect("open");
        assert_eq!(audit.head(), (5, found.head.clone()));
        let lines = audit.lines(Some(3), 9, |_| true).expect("lines");
        assert_eq!(lines.iter().map(|line| line.record.seq).collect::<Vec<_>>(), [4, 5]);
        let last = audit.lines(None, 2, |record| record.operation != "operation-1").expect("lines");
        assert_eq!(last.iter().map(|line| line.record.seq).collect::<Vec<_>>(), [3, 4]);
        assert!(verify(place.path(), Some((5, &found.head))).expect("read").is_ok());
    }

    #[test]
    fn every_change_of_every_line_is_found() {
        let place = tempfile::tempdir().expect("place");
        let path = log(place.path(), 6);
        let good = std::fs::read(&path).expect("read");
        let lines: Vec<&[u8]> = good.split_inclusive(|byte| *byte == b'\n').collect();
        let broken = |bytes: Vec<u8>, what: &str| {
            std::fs::write(&path, bytes).expect("write");
            assert!(check(place.path()).is_err(), "{what}");
        };
        for at in 0..good.len() {
            let mut changed = good.clone();
            changed[at] ^= 1;
            broken(changed, &format!("byte {at}"));
        }
        for index in 0..lines.len() - 1 {
            let mut removed = lines.clone();
            removed.remove(index);
            broken(removed.concat(), &format!("without line {index}"));
            let mut moved = lines.clone();
            moved.swap(index, index + 1);
            broken(moved.concat(), &format!("line {index} and the next exchanged"));
            let mut twice = lines.clone();
            twice.insert(index, lines[index]);
            broken(twice.concat(), &format!("line {index} twice"));
        }
        for cut in 1..lines[5].len() {
            broken(good[..good.len() - cut].to_vec(), &format!("cut by {cut}"));
        }
        std::fs::write(&path, &good).expect("write");
        assert!(check(place.path()).is_ok());
    }

    #[test]
    fn an_end_that_was_cut_off_is_seen_by_who_remembers_it_and_by_nobody_else() {
        let place = tempfile::tempdir().expect("place");
        let path = log(place.path(), 4);
        let head = check(place.path()).expect("whole").head;
        let good = std::fs::read_to_string(&path).expect("read");
        let cut: String = good.split_inclusive('\n').take(3).collect();
        std::fs::write(&path, cut).expect("write");
        assert!(check(place.path()).is_ok());
        assert!(verify(place.path(), Some((4, &head))).expect("read").is_err());
        std::fs::write(&path, good).expect("write");
        assert!(verify(place.path(), Some((4, &head))).expect("read").is_ok());
        assert!(verify(place.path(), Some((3, &head))).expect("read").is_err(), "another record's");
    }

    #[test]
    fn a_line_that_a_crash_has_cut_is_taken_off_and_that_is_said() {
        let place = tempfile::tempdir().expect("place");
        let path = log(place.path(), 2);
        let mut file = File::options().append(true).open(&path).expect("open");
        file.write_all(b"{\"hash\":\"12").expect("write");
        assert!(check(place.path()).is_err());
        log(place.path(), 1);
        let found = check(place.path()).expect("whole again");
        assert_eq!((found.last, found.repaired), (4, 11));
    }

    #[test]
    fn the_oldest_files_go_and_those_that_others_removed_are_missed() {
        let place = tempfile::tempdir().expect("place");
        let audit = Audit::open(place.path()).expect("open");
        for _ in 0..AUDIT_FILES_MAX + 2 {
            audit.append(record("one"));
            audit.lock().rotate(place.path()).expect("rotate");
        }
        audit.append(record("last"));
        let found = check(place.path()).expect("whole");
        assert!(found.first > 1, "{found:?}");
        assert_eq!(files(place.path()).expect("files").len(), AUDIT_FILES_MAX);
        let all = files(place.path()).expect("files");
        std::fs::remove_file(&all[0].1).expect("remove");
        assert!(check(place.path()).is_err(), "the first file");
    }

    #[test]
    fn a_digest_is_the_same_for_the_same_request_and_needs_the_key() {
        let (one, other) = (tempfile::tempdir().expect("place"), tempfile::tempdir().expect("place"));
        let digest = |place: &Path, parts: &[&str]| {
            let mut digest = Audit::open(place).expect("open").digest();
            parts.iter().for_each(|part| digest.part(part.as_bytes()));
            digest.finish().expect("digest")
        };
        assert_eq!(digest(one.path(), &["a", "b"]), digest(one.path(), &["a", "b"]));
        assert_ne!(digest(one.path(), &["a", "b"]), digest(one.path(), &["ab", ""]));
        assert_ne!(digest(one.path(), &["a", "b"]), digest(other.path(), &["a", "b"]));
    }
}
