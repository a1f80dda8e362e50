//! One recording: a file in asciinema's format, asciicast v2, that grows as things happen.
//!
//! ```text
//! {"version":2,"width":80,"height":24,"timestamp":1764482000,…}     a head, then one line for each event:
//! [0.010312,"o","$ "]                                               seconds since the beginning, what, and its text
//! [1.204411,"r","120x40"]
//! [9.120000,"m","stockade: 12345 bytes left out"]                   when it is full: the last one, kept up to date
//! ```
//!
//! Invariants:
//! - Each event is one write(2) behind the last one, so that a kill at any moment leaves whole lines, but for the
//!   beginning of one at the end, which readers leave out.
//! - Times come from the monotonic clock, under the lock that orders the lines: they never go back.
//! - A file never has more than [`RECORDING_BYTES_MAX`] bytes. What does not fit is counted in the last line, which is
//!   written over its older self, and lies within one page: a kill leaves the one or the other.
//! - Nothing that fails here fails what is recorded: what cannot be written is counted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::limits::RECORDING_BYTES_MAX;

/// Bytes of one event, as they came. The largest line is that of as many control characters, six times as long.
const EVENT_BYTES: usize = 8 * 1024;

/// No line is longer: see [`EVENT_BYTES`].
const LINE_BYTES_MAX: usize = 6 * EVENT_BYTES + 256;

/// No head is longer: four values of [`WORD_CHARS`], each character of at most six bytes, and what is always there.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Length of the line that says what was left out, whatever the numbers in it.
const LAST_BYTES: usize = 96;

/// What the kernel copies without being interrupted.
const PAGE_BYTES: u64 = 4096;

/// How that line's text begins and ends, around the number.
const LEFT_OUT: (&str, &str) = ("stockade: ", " bytes left out");

/// Characters of a value in the head: a program's or a terminal's name.
const WORD_CHARS: usize = 200;

/// The first line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Head {
    version: u8,
    pub(super) width: u16,
    pub(super) height: u16,
    /// When it began, in seconds of Unix.
    timestamp: i64,
    title: String,
    env: BTreeMap<String, String>,
    /// Ours; players pass over what they do not know.
    pub(super) stockade: Subject,
}

/// What a recording is of.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Subject {
    /// The terminal's name, if it is one.
    pub(super) terminal: Option<String>,
    /// What was run, without its arguments: those may hold what is nobody else's business.
    pub(super) program: String,
    /// Whether what was typed is in it.
    pub(super) input: bool,
    /// When it began: more exactly than the format says it.
    pub(super) created_at: jiff::Timestamp,
}

impl Head {
    pub(super) fn new(subject: Subject, (height, width): (u16, u16), env: BTreeMap<String, String>) -> Self {
        let program = shortened(&subject.program);
        let kind = if subject.terminal.is_some() { "terminal" } else { "command" };
        let created_at = jiff::Timestamp::now();
        Self {
            version: 2,
            width,
            height,
            timestamp: created_at.as_second(),
            title: format!("{kind}: {program}"),
            env: env.into_iter().map(|(name, value)| (name, shortened(&value))).collect(),
            stockade: Subject { program, created_at, ..subject },
        }
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(WORD_CHARS).collect()
}

/// What comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// A terminal's output, or a command's stdout.
    Output,
    /// A command's stderr.
    Errors,
    /// What is typed.
    Input,
}

/// The writer of one recording. Dropped before it is to be kept, it takes its file away: nothing was recorded.
#[derive(Debug)]
pub struct Recorder {
    id: String,
    path: PathBuf,
    kept: AtomicBool,
    began: Instant,
    input: bool,
    /// A command's lines end as on a terminal (ONLCR, termios(3)): players know nothing else.
    returns: bool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// None when it is over.
    file: Option<File>,
    /// Bytes of whole lines, without the last one of a full file.
    length: u64,
    full: bool,
    left_out: u64,
    /// Beginnings of characters whose ends have not come: of output, of errors, of input.
    begun: [Vec<u8>; 3],
}

impl Recorder {
    /// Begins one in a file of its own.
    ///
    /// # Errors
    /// When the file cannot be made, or its head not be written. Then there is none.
    pub(super) fn begin(id: String, path: PathBuf, head: &Head) -> io::Result<Self> {
        let mut line = serde_json::to_vec(head)?;
        line.push(b'\n');
        // Without its head it has another name: a kill right now leaves nothing that counts.
        let draft = path.with_extension("new");
        let file = File::create(&draft)?;
        if let Err(error) = file.write_all_at(&line, 0).and_then(|()| std::fs::rename(&draft, &path)) {
            let _ = std::fs::remove_file(&draft);
            return Err(error);
        }
        let inner = Inner {
            file: Some(file),
            length: line.len() as u64,
            full: false,
            left_out: 0,
            begun: Default::default(),
        };
        Ok(Self {
            id,
            path,
            kept: AtomicBool::new(false),
            began: Instant::now(),
            input: head.stockade.input,
            returns: head.stockade.terminal.is_none(),
            inner: Mutex::new(inner),
        })
    }

    /// The recording's name.
    pub fn id(&self) -> &str {
        &self.id
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic between two changes would be a bug of its arithmetic, and the next line is written behind the last.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes bytes that were written or typed. What is typed only if that was asked for.
    pub fn add(&self, source: Recorded, bytes: &[u8]) {
        if source == Recorded::Input && !self.input {
            return;
        }
        let mut inner = self.lock();
        if inner.file.is_none() {
            return;
        }
        for piece in bytes.chunks(EVENT_BYTES) {
            let text = decode(&mut inner.begun[source as usize], piece);
            self.note(&mut inner, source, &text, piece.len());
        }
    }

    /// Notes another size.
    pub fn resize(&self, rows: u16, columns: u16) {
        self.lock().event(self.began, "r", &format!("{columns}x{rows}"), 0);
    }

    /// What it is of has begun, or has not after all.
    pub(in crate::sandbox) fn keep(&self, kept: bool) {
        self.kept.store(kept, Ordering::Release);
    }

    /// Nothing more comes.
    pub fn finish(&self) {
        let mut inner = self.lock();
        for source in [Recorded::Output, Recorded::Errors, Recorded::Input] {
            // It was counted when it came, if the file was full then.
            if !std::mem::take(&mut inner.begun[source as usize]).is_empty() {
                self.note(&mut inner, source, "\u{fffd}", 0);
            }
        }
        inner.file = None;
    }

    /// Whether nothing more comes.
    pub(super) fn is_over(&self) -> bool {
        self.lock().file.is_none()
    }

    fn note(&self, inner: &mut Inner, source: Recorded, text: &str, bytes: usize) {
        let kind = if source == Recorded::Input { "i" } else { "o" };
        if self.returns && kind == "o" {
            inner.event(self.began, kind, &text.replace('\n', "\r\n"), bytes);
        } else {
            inner.event(self.began, kind, text, bytes);
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.finish();
        if !*self.kept.get_mut() {
            // Absent when it was deleted meanwhile.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Inner {
    /// Writes an event that was made of so many bytes.
    fn event(&mut self, began: Instant, kind: &str, text: &str, bytes: usize) {
        let Some(file) = &self.file else { return };
        let seconds = began.elapsed().as_secs_f64();
        if !self.full && !text.is_empty() {
            // Strings always can be JSON.
            let text = serde_json::to_string(text).unwrap_or_default();
            let line = format!("[{seconds:.6},\"{kind}\",{text}]\n");
            let fits = self.length + (line.len() + 2 * LAST_BYTES) as u64 <= RECORDING_BYTES_MAX;
            if fits && file.write_all_at(line.as_bytes(), self.length).is_ok() {
                self.length += line.len() as u64;
                return;
            }
            // Of a line that a full disk has cut, nothing stays.
            let _ = file.set_len(self.length);
            self.full = true;
        }
        if self.full {
            self.left_out += bytes as u64;
            // When not even this fits on the disk, the next one may.
            let _ = file.write_all_at(last(self.length, seconds, self.left_out).as_bytes(), self.length);
        }
    }
}

/// The line that says what was left out, as it is written at this place: with blanks up to the next page when it would
/// not end in this one.
fn last(place: u64, seconds: f64, bytes: u64) -> String {
    let left = usize::try_from(PAGE_BYTES - place % PAGE_BYTES).unwrap_or(0);
    let blanks = if left < LAST_BYTES { left } else { 1 };
    let (before, behind) = LEFT_OUT;
    let line = format!("[{:blanks$}{seconds:.6},\"m\",\"{before}{bytes}{behind}\"]", "", blanks = blanks - 1);
    format!("{line:<width$}\n", width = blanks + LAST_BYTES - 2)
}

/// Bytes as text: what follows the beginning of a character that came before. Bytes that are none become U+FFFD, as
/// asciinema has it; the beginning of one at the end is kept for what comes next.
fn decode(begun: &mut Vec<u8>, bytes: &[u8]) -> String {
    let joined;
    let mut rest = if begun.is_empty() {
        bytes
    } else {
        joined = [begun.as_slice(), bytes].concat();
        begun.clear();
        &joined
    };
    let mut text = String::with_capacity(rest.len());
    while !rest.is_empty() {
        let (valid, wrong) = match std::str::from_utf8(rest) {
            Ok(all) => {
                text.push_str(all);
                break;
            }
            Err(error) => (error.valid_up_to(), error.error_len()),
        };
        text.push_str(&String::from_utf8_lossy(&rest[..valid]));
        let Some(wrong) = wrong else {
            begun.extend_from_slice(&rest[valid..]);
            break;
        };
        text.push('\u{fffd}');
        rest = &rest[valid + wrong..];
    }
    text
}

/// What a file says of itself.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) head: Head,
    pub(super) file: File,
    /// Bytes of whole lines.
    pub(super) length: u64,
    /// Time of the last event.
    pub(super) seconds: f64,
    /// See [`LEFT_OUT`].
    pub(super) left_out: u64,
}

/// Reads the head and the end of a recording. None when it is none.
///
/// # Errors
/// As open(2) and pread(2).
pub(super) fn read(path: &Path) -> io::Result<Option<Found>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut first = vec![0; HEAD_BYTES_MAX.min(usize::try_from(length).unwrap_or(HEAD_BYTES_MAX))];
    file.read_exact_at(&mut first, 0)?;
    let head = first.iter().position(|byte| *byte == b'\n').map(|end| &first[..end]);
    let Some(head) = head.and_then(|line| serde_json::from_slice::<Head>(line).ok()) else {
        return Ok(None);
    };
    // The beginning of a line, then one that is whole.
    let from = length.saturating_sub(2 * LINE_BYTES_MAX as u64);
    let mut end = vec![0; usize::try_from(length - from).unwrap_or(0)];
    file.read_exact_at(&mut end, from)?;
    let whole = end.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let line = end[..whole].trim_ascii_end().rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    let (mut seconds, mut left_out) = (0.0, 0);
    // The head is no event.
    if let Ok((at, kind, text)) = serde_json::from_slice::<(f64, String, String)>(line) {
        seconds = at;
        let (before, behind) = LEFT_OUT;
        let count = text.strip_prefix(before).and_then(|text| text.strip_suffix(behind));
        if let (true, Some(count)) = (kind == "m", count) {
            left_out = count.parse().unwrap_or(0);
        }
    }
    Ok(Some(Found { head, file, length: from + whole as u64, seconds, left_out }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_head_is_too_long() {
        let (long, wide) = ("\u{1}".repeat(WORD_CHARS + 1), "\u{1f980}".repeat(WORD_CHARS + 1));
        for text in [long, wide] {
            let terminal = Some("t".repeat(crate::limits::ITEM_ID_BYTES_MAX));
            let subject = Subject { terminal, program: text.clone(), ..Subject::default() };
            let env = ["TERM", "SHELL"].map(|name| (name.to_owned(), text.clone())).into();
            let head = serde_json::to_vec(&Head::new(subject, (u16::MAX, u16::MAX), env)).expect("JSON");
            assert!(head.len() < HEAD_BYTES_MAX, "{}", head.len());
        }
    }

    fn recorder(terminal: bool, input: bool) -> (tempfile::TempDir, PathBuf, Recorder) {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("r.cast");
        let terminal = terminal.then(|| "t".to_owned());
        let subject = Subject { terminal, program: "x".repeat(5000), input, ..Subject::default() };
        let head = Head::new(subject, (24, 80), BTreeMap::new());
        let recorder = Recorder::begin("r".to_owned(), path.clone(), &head).expect("head");
        recorder.keep(true);
        (directory, path, recorder)
    }

    fn events(path: &Path) -> Vec<(f64, String, String)> {
        let text = std::fs::read_to_string(path).expect("text");
        text.lines().skip(1).map(|line| serde_json::from_str(line).expect("an event")).collect()
    }

    fn output(path: &Path) -> String {
        events(path).into_iter().filter(|(_, kind, _)| kind == "o").map(|(_, _, text)| text).collect()
    }

    #[test]
    fn characters_are_whole_however_they_come() {
        let text = "a\u{e4}\u{20ac}\u{1f980}\n".repeat(5);
        for size in 1..=7 {
            let mut begun = Vec::new();
            let pieces = text.as_bytes().chunks(size).map(|piece| decode(&mut begun, piece));
            assert_eq!(pieces.collect::<String>(), text, "{size}");
            assert!(begun.is_empty());
        }
        for bytes in [&b"a\xffb"[..], b"\xe2\x82z", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf0\x9f\xa6!"] {
            let mut begun = Vec::new();
            let pieces = bytes.chunks(1).map(|piece| decode(&mut begun, piece));
            assert_eq!(pieces.collect::<String>(), String::from_utf8_lossy(bytes), "{bytes:?}");
        }
    }

    #[test]
    fn the_two_streams_of_a_command_do_not_mix_within_a_character() {
        let (_directory, path, recorder) = recorder(false, false);
        recorder.add(Recorded::Output, b"\xe2\x82");
        recorder.add(Recorded::Errors, b"\xc3");
        recorder.add(Recorded::Output, b"\xac\n");
        recorder.add(Recorded::Errors, b"\xa4");
        recorder.add(Recorded::Errors, b"\xe2\x82");
        recorder.add(Recorded::Input, b"secret");
        recorder.finish();
        recorder.add(Recorded::Output, b"late");
        assert_eq!(output(&path), "\u{20ac}\r\n\u{e4}\u{fffd}");
        assert!(events(&path).iter().all(|(_, kind, _)| kind == "o"));
    }

    #[test]
    fn a_full_one_says_how_much_is_missing_and_stays_as_long() {
        let (_directory, path, recorder) = recorder(true, true);
        let line = "\u{1}".repeat(100_000);
        let mut written = 0;
        for round in 0..30 {
            recorder.add(Recorded::Output, line.as_bytes());
            recorder.resize(24, 81 + round);
            written += line.len();
        }
        let length = std::fs::metadata(&path).expect("metadata").len();
        assert!(length <= RECORDING_BYTES_MAX && length > RECORDING_BYTES_MAX - LINE_BYTES_MAX as u64);
        recorder.add(Recorded::Input, b"typed");
        recorder.finish();
        let found = read(&path).expect("read").expect("a head");
        assert_eq!(found.length, length);
        let all = written + "typed".len() - output(&path).len();
        assert_eq!(found.left_out, all as u64);
        let all = events(&path);
        assert!(all.is_sorted_by(|a, b| a.0 <= b.0));
        assert!((found.seconds - all.last().expect("events").0).abs() < 1e-9);
        assert_eq!(found.head.stockade.program.len(), WORD_CHARS);
    }

    #[test]
    fn the_last_line_lies_within_a_page_whatever_it_says() {
        for place in 0..2 * PAGE_BYTES {
            let lines = [last(place, 0.0, 0), last(place, 604_800.25, u64::MAX)];
            let length = lines[0].len();
            assert!(lines.iter().all(|line| line.len() == length && length < 2 * LAST_BYTES), "{lines:?}");
            let page = |at: usize| (place + at as u64) / PAGE_BYTES;
            let differs = lines[0].bytes().zip(lines[1].bytes()).position(|(a, b)| a != b).expect("numbers");
            assert_eq!(page(differs), page(length - 1), "{place}");
            assert!(lines.iter().all(|line| line.starts_with('[')));
            let parsed: (f64, String, String) = serde_json::from_str(&lines[1]).expect("an event");
            assert_eq!((parsed.0, &*parsed.1), (604_800.25, "m"));
        }
    }

    #[test]
    fn the_beginning_of_a_line_is_left_out() {
        let (_directory, path, recorder) = recorder(true, false);
        recorder.add(Recorded::Output, b"whole");
        drop(recorder);
        let whole = std::fs::read(&path).expect("bytes");
        for torn in ["", "[", "[12.5,\"o\",\"tor"] {
            std::fs::write(&path, [&whole, torn.as_bytes()].concat()).expect("write");
            let found = read(&path).expect("read").expect("a head");
            assert_eq!(found.length, whole.len() as u64, "{torn}");
            assert!(found.seconds < 5.0 && found.left_out == 0);
        }
        std::fs::write(&path, &whole[..40]).expect("write");
        assert!(read(&path).expect("read").is_none());
    }
}
