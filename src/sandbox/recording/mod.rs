//! Recordings of terminals and commands, as files that asciinema plays.
//!
//! ```text
//! terminal: pump ─▶ output      resize ─▶ size      viewer ─▶ input, if asked for ┐
//! command:  both pipes ─▶ output                    stdin  ─▶ input, if asked for ┴▶ cast ─▶ work/<sandbox>/recordings/<id>.cast
//! ```
//!
//! A recording begins before its program does, and is taken back when that cannot be started. It stays when the program has ended, the sandbox
//! rests or the daemon starts again, until it is deleted or the sandbox is. The files are all that is known: the table
//! here has only those that go on.

mod cast;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use self::cast::{Head, Subject};
pub use self::cast::{Recorded, Recorder};
use super::Sandbox;
use super::random::random_text;
use crate::error::{Error, ErrorCode};
use crate::id::ItemId;
use crate::limits::RECORDINGS_MAX;

/// What of the environment is in a recording: what a player wants to know of the terminal.
const VARIABLES: [&str; 2] = ["TERM", "SHELL"];

/// What files are called, behind the id.
const SUFFIX: &str = ".cast";

/// Size of a command's recording, which has no terminal: what most have.
const SIZE: (u16, u16) = (24, 80);

/// How something is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordSpec {
    /// With what is typed or read from stdin.
    pub input: bool,
}

/// A recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RecordingView {
    /// Its id.
    pub id: String,
    /// The terminal that it is of; absent when it is of a command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminal: Option<String>,
    /// What was run, without its arguments.
    pub program: String,
    /// Height at the beginning, in characters.
    pub rows: u16,
    /// Width at the beginning, in characters.
    pub columns: u16,
    /// Whether what was typed is in it.
    pub input: bool,
    /// Whether it goes on.
    pub recording: bool,
    /// When it began (RFC 3339).
    pub created_at: String,
    /// From there to the last event, in milliseconds.
    pub duration_ms: f64,
    /// Length of the file.
    pub size_bytes: u64,
    /// How many bytes came when it was full, and are not in it. Its last event says so too.
    pub left_out_bytes: u64,
}

/// A recording to read.
#[derive(Debug)]
pub struct RecordingFile {
    /// Where it begins, and for so long is it whole lines.
    pub file: File,
    /// See `file`.
    pub length: u64,
}

/// All recordings of a sandbox.
#[derive(Debug)]
pub(super) struct Recordings {
    directory: PathBuf,
    /// Those that go on.
    live: Mutex<BTreeMap<String, Weak<Recorder>>>,
}

impl Recordings {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, live: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Weak<Recorder>>> {
        // Every operation is one insert, remove or look-up.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ids of the files there are.
    fn ids(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut ids: Vec<String> =
            names.filter_map(|name| name.strip_suffix(SUFFIX).map(str::to_owned)).collect();
        ids.sort_unstable();
        ids
    }

    fn path(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}{SUFFIX}"))
    }

    /// Begins a recording.
    ///
    /// # Errors
    /// `RECORDING_LIMIT`; `CAPACITY_EXHAUSTED` when the disk is full.
    fn begin(&self, head: &Head) -> Result<Arc<Recorder>, Error> {
        // Held until the file is there: two at the same time do not both take the last place.
        let mut live = self.lock();
        live.retain(|_, recorder| recorder.upgrade().is_some_and(|recorder| !recorder.is_over()));
        if self.ids().len() >= RECORDINGS_MAX {
            return Err(Error::new(
                ErrorCode::RecordingLimit,
                format!("the sandbox has {RECORDINGS_MAX} recordings, and may not have more"),
            )
            .hint("fetch and delete some of them"));
        }
        let id = random_text::<12>();
        let made = std::fs::create_dir_all(&self.directory)
            .and_then(|()| Recorder::begin(id.clone(), self.path(&id), head));
        let recorder = made.map_err(|error| Error::writing("cannot begin the recording", error))?;
        let recorder = Arc::new(recorder);
        live.insert(id, Arc::downgrade(&recorder));
        Ok(recorder)
    }

    /// Ends a recording and removes it. False when there is none.
    fn remove(&self, id: &str) -> io::Result<bool> {
        if let Some(recorder) = self.lock().remove(id).and_then(|recorder| recorder.upgrade()) {
            recorder.finish();
        }
        match std::fs::remove_file(self.path(id)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// One of them, and its file. None when there is none.
    fn find(&self, id: &str) -> io::Result<Option<(RecordingView, RecordingFile)>> {
        let recorder = self.lock().get(id).and_then(Weak::upgrade);
        // Asked first: what is over by then is whole in the file.
        let recording = recorder.is_some_and(|recorder| !recorder.is_over());
        let found = match cast::read(&self.path(id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found?,
        };
        let Some(cast::Found { head, file, length, seconds, left_out }) = found else { return Ok(None) };
        let Subject { terminal, program, input, created_at } = head.stockade;
        let view = RecordingView {
            id: id.to_owned(),
            terminal,
            program,
            rows: head.height,
            columns: head.width,
            input,
            recording,
            created_at: created_at.to_string(),
            duration_ms: seconds * 1000.0,
            size_bytes: length,
            left_out_bytes: left_out,
        };
        Ok(Some((view, RecordingFile { file, length })))
    }
}

fn not_found(id: &str) -> Error {
    Error::new(ErrorCode::RecordingNotFound, format!("there is no recording {id}"))
        .hint("GET …/recordings lists them")
}

/// As a file may be called.
fn name(id: &str) -> Result<(), Error> {
    ItemId::parse(id).map(drop).map_err(|_| not_found(id))
}

impl Sandbox {
    /// Begins the recording of a terminal.
    ///
    /// # Errors
    /// `RECORDING_LIMIT`; `CAPACITY_EXHAUSTED` when the disk is full.
    pub(super) fn record_terminal(
        &self,
        spec: RecordSpec,
        terminal: &ItemId,
        program: Option<&String>,
        size: (u16, u16),
        env: &[Vec<u8>],
    ) -> Result<Arc<Recorder>, Error> {
        let subject = Subject {
            terminal: Some(terminal.to_string()),
            program: program.cloned().unwrap_or_default(),
            input: spec.input,
            ..Subject::default()
        };
        let pairs = env.iter().filter_map(|entry| std::str::from_utf8(entry).ok()?.split_once('='));
        let env = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        self.recordings.begin(&Head::new(subject, size, variables(env)))
    }

    /// Begins the recording of a command.
    ///
    /// # Errors
    /// As of a terminal.
    pub(super) fn record_command(
        &self,
        spec: RecordSpec,
        program: Option<&String>,
        env: &BTreeMap<String, String>,
    ) -> Result<Arc<Recorder>, Error> {
        let program = program.cloned().unwrap_or_default();
        let subject = Subject { program, input: spec.input, ..Subject::default() };
        self.recordings.begin(&Head::new(subject, SIZE, variables(env.clone())))
    }

    /// The recordings, the oldest first.
    ///
    /// # Errors
    /// When the disk does not let them be read.
    pub fn recordings(&self) -> Result<Vec<RecordingView>, Error> {
        let mut views = Vec::new();
        for id in self.recordings.ids() {
            let found = self.recordings.find(&id);
            let found = found.map_err(|error| Error::internal("cannot read the recordings", error))?;
            views.extend(found.map(|(view, _)| view));
        }
        views.sort_by(|a, b| (&a.created_at, &a.id).cmp(&(&b.created_at, &b.id)));
        Ok(views)
    }

    /// A recording as it is now, in asciinema's format.
    ///
    /// # Errors
    /// `RECORDING_NOT_FOUND`.
    pub fn recording(&self, id: &str) -> Result<RecordingFile, Error> {
        name(id)?;
        let found = self.recordings.find(id);
        let found = found.map_err(|error| Error::internal("cannot read the recording", error))?;
        found.map(|(_, file)| file).ok_or_else(|| not_found(id))
    }

    /// Deletes a recording. What it is of goes on.
    ///
    /// # Errors
    /// `RECORDING_NOT_FOUND`.
    pub fn delete_recording(&self, id: &str) -> Result<(), Error> {
        name(id)?;
        match self.recordings.remove(id) {
            Ok(true) => Ok(()),
            Ok(false) => Err(not_found(id)),
            Err(error) => Err(Error::internal("cannot delete the recording", error)),
        }
    }
}

/// Of an environment, what a recording has.
fn variables(mut env: BTreeMap<String, String>) -> BTreeMap<String, String> {
    env.retain(|name, _| VARIABLES.contains(&name.as_str()));
    env
}
