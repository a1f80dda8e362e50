//! The frames between serve and a context's interpreter: text only, no system calls.
//!
//! A frame is a little-endian `u32`, the length, and that many bytes of JSON, on a socket that is neither standard
//! output nor standard error. Whatever runs in the context owns the interpreter's process, so every frame is a
//! stranger's: its length is bounded before anything is kept, what is rich in it is passed on as the text it came as
//! (a list of small numbers takes sixteen times its size once parsed), and one that is not by the protocol ends the
//! interpreter.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::limits::CONTEXT_FRAME_BYTES_MAX;

/// Bytes of an error's message, and of a traceback; what comes after is cut.
const MESSAGE_BYTES_MAX: usize = 128 * 1024;
const TRACEBACK_BYTES_MAX: usize = 1024 * 1024;

/// Names of types or modules in one frame.
const NAMES_MAX: usize = 64;

/// The interpreter did not keep to the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the interpreter did not keep to the protocol")]
pub(super) struct BadFrame;

/// What serve says.
#[derive(Debug, Serialize)]
#[serde(tag = "t", rename_all = "lowercase")]
pub(super) enum Say<'a> {
    /// The beginning: where, and with which variables.
    Init {
        /// Working directory.
        cwd: &'a str,
        /// The whole environment.
        env: &'a BTreeMap<String, String>,
    },
    /// Run a cell.
    Run {
        /// Its number, which everything about it carries.
        run: u64,
        /// The cell.
        code: &'a str,
        /// Whether somebody answers when it asks for input.
        stdin: bool,
        /// Directory for it alone.
        #[serde(skip_serializing_if = "Option::is_none")]
        cwd: Option<&'a str>,
        /// Variables for it alone.
        env: &'a BTreeMap<String, String>,
        /// What is known to be wrong with it: it only takes its number.
        #[serde(skip_serializing_if = "Option::is_none")]
        wrong: Option<&'a CodeError>,
    },
    /// An answer to a prompt; `None` is the end of the input.
    Input {
        /// The run that asked.
        run: u64,
        /// One line.
        value: Option<&'a str>,
    },
    /// What was written before a frame has been read: the code may go on.
    Ack {
        /// The frame's.
        seq: u64,
    },
    /// Libraries that a zygote should load.
    Load {
        /// Their modules.
        modules: &'a [&'static str],
    },
}

impl Say<'_> {
    /// As it is sent.
    pub(super) fn frame(&self) -> Vec<u8> {
        let mut frame = vec![0; 4];
        // Our types have string keys and no failing Serialize, and requests are far smaller than 4 GiB.
        let _ = serde_json::to_writer(&mut frame, self);
        let length = u32::try_from(frame.len() - 4).unwrap_or(0);
        frame[..4].copy_from_slice(&length.to_le_bytes());
        frame
    }
}

/// What an interpreter says.
#[derive(Debug)]
pub(super) enum Said {
    /// It waits for cells.
    Ready,
    /// A process forked by a zygote exists.
    Forked,
    /// It cannot begin.
    Failed(String),
    /// The run shows something.
    Display(Shown),
    /// The value of the cell.
    Result(Shown),
    /// What was displayed is to go; with `wait`, when the next is there.
    Clear {
        /// See there.
        wait: bool,
    },
    /// The run waits for a line.
    Input {
        /// What it asks.
        prompt: String,
        /// Whether the answer should not be seen.
        password: bool,
    },
    /// Something that an earlier run has left behind wrote to stdout (0) or stderr (1) meanwhile.
    Output {
        /// Which.
        stream: usize,
        /// What.
        text: String,
    },
    /// An interrupt was heard.
    Interrupted,
    /// The run has ended.
    Done {
        /// The cell's number, from 1.
        count: u64,
        /// Why it did not succeed.
        error: Option<CodeError>,
        /// Libraries that it has loaded, of those that we know.
        modules: Vec<&'static str>,
        /// Whether something of it goes on in the thread that runs cells.
        left: bool,
    },
}

/// Something rich: a value in several MIME types.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// By MIME type; binary ones in base64.
    pub data: Box<RawValue>,
    /// What the code says about it.
    pub metadata: Box<RawValue>,
    /// For a display that is changed later: `display_id`.
    pub transient: Box<RawValue>,
    /// Whether it takes the place of the one with its `display_id`.
    pub update: bool,
    /// MIME types that were cut or left out because they were too large.
    pub truncated: Vec<String>,
    /// Whether it was shown by what an earlier run has left behind.
    pub background: bool,
}

/// Why a cell did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CodeError {
    /// The class of the exception, or `TimeoutError`, `KeyboardInterrupt`, `InterpreterDied`, `OutOfMemory`.
    pub name: String,
    /// Its text.
    pub message: String,
    /// As the language shows it, without escape codes and without frames of ours.
    pub traceback: String,
    /// The line of the cell.
    pub line: Option<u64>,
    /// What a program would have ended with by it: that of `sys.exit` and its like.
    pub exit: Option<i32>,
}

/// Libraries that are worth loading before a context is there, and by what an interpreter calls them.
pub(super) const LIBRARIES: [&str; 7] =
    ["numpy", "pandas", "matplotlib.pyplot", "plotly", "altair", "polars", "PIL.Image"];

/// A frame with its run.
#[derive(Debug)]
pub(super) struct Heard {
    /// The run that it belongs to; 0 is none.
    pub(super) run: u64,
    /// What it says.
    pub(super) said: Said,
    /// Whether the code waits until what it wrote before has been read: else what it writes after it could be taken
    /// for that.
    pub(super) seq: Option<u64>,
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow)]
    t: Cow<'a, str>,
    #[serde(default)]
    run: u64,
    #[serde(default)]
    seq: Option<u64>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow, default)]
    transient: Option<&'a RawValue>,
    #[serde(borrow, default)]
    truncated: Option<&'a RawValue>,
    #[serde(borrow, default)]
    modules: Option<&'a RawValue>,
    #[serde(default)]
    update: bool,
    #[serde(default)]
    wait: bool,
    #[serde(default)]
    left: bool,
    #[serde(default)]
    password: bool,
    #[serde(borrow, default)]
    prompt: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    message: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
    #[serde(default)]
    stream: u64,
    #[serde(default)]
    count: u64,
    #[serde(borrow, default)]
    error: Option<RawError<'a>>,
}

#[derive(Deserialize)]
struct RawError<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    message: Cow<'a, str>,
    #[serde(borrow, default)]
    traceback: Cow<'a, str>,
    #[serde(default)]
    line: Option<u64>,
    #[serde(default)]
    exit: Option<i32>,
}

/// How long the frame at the beginning of these bytes is, its length included, once its length is there.
///
/// # Errors
/// When it is longer than a frame may be.
pub(super) fn frame_length(bytes: &[u8]) -> Result<Option<usize>, BadFrame> {
    let Some(&[a, b, c, d]) = bytes.get(..4) else { return Ok(None) };
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length > CONTEXT_FRAME_BYTES_MAX {
        return Err(BadFrame);
    }
    Ok(Some(4 + length))
}

/// Reads the JSON of a frame.
///
/// # Errors
/// When it is not one.
pub(super) fn parse(body: &[u8]) -> Result<Heard, BadFrame> {
    let raw: Raw<'_> = serde_json::from_slice(body).map_err(|_| BadFrame)?;
    let said = match &*raw.t {
        "ready" => Said::Ready,
        "forked" => Said::Forked,
        "failed" => Said::Failed(cut(raw.message.unwrap_or_default(), MESSAGE_BYTES_MAX)),
        "display" => Said::Display(shown(&raw)?),
        "result" => Said::Result(shown(&raw)?),
        "clear" => Said::Clear { wait: raw.wait },
        "input" => Said::Input {
            prompt: cut(raw.prompt.unwrap_or_default(), MESSAGE_BYTES_MAX),
            password: raw.password,
        },
        "output" => Said::Output {
            stream: usize::from(raw.stream == 2),
            text: raw.text.unwrap_or_default().into_owned(),
        },
        "interrupted" => Said::Interrupted,
        "done" => {
            let modules = known(&names(raw.modules));
            Said::Done { count: raw.count, error: raw.error.map(error), modules, left: raw.left }
        }
        _ => return Err(BadFrame),
    };
    Ok(Heard { run: raw.run, said, seq: raw.seq })
}

fn shown(raw: &Raw<'_>) -> Result<Shown, BadFrame> {
    Ok(Shown {
        data: object(raw.data)?,
        metadata: object(raw.metadata)?,
        transient: object(raw.transient)?,
        update: raw.update,
        truncated: names(raw.truncated),
        background: false,
    })
}

/// An object on one line: a line feed between its parts would be one between our events.
fn object(raw: Option<&RawValue>) -> Result<Box<RawValue>, BadFrame> {
    let text = raw.map_or("{}", RawValue::get);
    if !text.starts_with('{') {
        return Err(BadFrame);
    }
    // Inside of strings they cannot be (RFC 8259 §7).
    let text = if text.contains(['\n', '\r']) { text.replace(['\n', '\r'], " ") } else { text.to_owned() };
    RawValue::from_string(text).map_err(|_| BadFrame)
}

/// A short list of short names; what is none counts as empty.
fn names(raw: Option<&RawValue>) -> Vec<String> {
    let Some(text) = raw.map(RawValue::get).filter(|text| text.len() <= 8192) else { return Vec::new() };
    let mut names: Vec<String> = serde_json::from_str(text).unwrap_or_default();
    names.truncate(NAMES_MAX);
    names
}

fn known(names: &[String]) -> Vec<&'static str> {
    LIBRARIES.into_iter().filter(|library| names.iter().any(|name| name == library)).collect()
}

fn error(raw: RawError<'_>) -> CodeError {
    CodeError {
        name: cut(raw.name, 1024),
        message: cut(raw.message, MESSAGE_BYTES_MAX),
        traceback: cut(raw.traceback, TRACEBACK_BYTES_MAX),
        line: raw.line,
        exit: raw.exit,
    }
}

fn cut(text: Cow<'_, str>, bytes_max: usize) -> String {
    let mut text = text.into_owned();
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(text: &str) -> Option<Said> {
        parse(text.as_bytes()).ok().map(|heard| heard.said)
    }

    #[test]
    fn frames_are_read_as_they_are_written() {
        let env = BTreeMap::from([("A".to_owned(), "b'\"\n".to_owned())]);
        let frame =
            Say::Run { run: 7, code: "1\n+ä", stdin: true, cwd: Some("/tmp"), env: &env, wrong: None }
                .frame();
        assert_eq!(frame_length(&frame), Ok(Some(frame.len())));
        let body: serde_json::Value = serde_json::from_slice(&frame[4..]).expect("json");
        assert_eq!(body["t"], "run");
        assert_eq!(
            (&body["run"], &body["code"], &body["env"]["A"]),
            (&7.into(), &"1\n+ä".into(), &"b'\"\n".into())
        );
        let heard = parse(
            br#"{"t":"done","run":3,"count":2,"error":{"name":"E","message":"m","line":4},
            "modules":["pandas","os"]}"#,
        )
        .expect("frame");
        let Said::Done { count, error, modules, .. } = heard.said else { panic!("{heard:?}") };
        assert_eq!((heard.run, count, modules), (3, 2, vec!["pandas"]));
        assert_eq!(error.expect("error").line, Some(4));
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for text in [
            "",
            "{}",
            "[]",
            "null",
            "{\"t\":\"other\"}",
            "{\"t\":1}",
            "{\"t\":\"ready\"",
            "{\"t\":\"ready\",\"run\":-1}",
            "{\"t\":\"display\",\"data\":[]}",
            "{\"t\":\"display\",\"data\":\"x\"}",
            "{\"t\":\"done\",\"error\":{}}",
            "{\"t\":\"done\",\"error\":\"x\"}",
            "\u{0}",
            "{\"t\":\"ready\"} x",
        ] {
            assert!(said(text).is_none(), "{text:?}");
        }
        assert!(
            matches!(said("{\"t\":\"ready\",\"new\":1}"), Some(Said::Ready)),
            "what is new is passed over"
        );
        let deep = format!("{{\"t\":\"display\",\"data\":{{\"a\":{}}}}}", "[".repeat(100_000));
        assert!(said(&deep).is_none());
    }

    #[test]
    fn a_long_frame_is_refused_by_its_length_alone() {
        let most = u32::try_from(CONTEXT_FRAME_BYTES_MAX).expect("small");
        assert_eq!(frame_length(&most.to_le_bytes()), Ok(Some(4 + CONTEXT_FRAME_BYTES_MAX)));
        assert_eq!(frame_length(&(most + 1).to_le_bytes()), Err(BadFrame));
        assert_eq!(frame_length(&[0xff; 4]), Err(BadFrame));
        assert_eq!(frame_length(&[1, 0, 0]), Ok(None));
    }

    #[test]
    fn nothing_in_a_bundle_begins_a_new_line() {
        let Some(Said::Display(shown)) = said("{\"t\":\"display\",\"data\":{\n\r\"a\"\n:\n\"b\\nc\"}}")
        else {
            panic!("a display")
        };
        assert!(!shown.data.get().contains(['\n', '\r']), "{}", shown.data);
        let value: serde_json::Value = serde_json::from_str(shown.data.get()).expect("json");
        assert_eq!(value["a"], "b\nc");
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = frame_length(&bytes);
            let _ = parse(&bytes);
        }

        #[test]
        fn no_change_of_a_frame_breaks_the_reader(at in 0usize..400, byte in any::<u8>(), cut in 0usize..400) {
            let frame = br#"{"t":"done","run":3,"count":2,"error":{"name":"E","message":"m\u00e4","traceback":"a\nb","line":4},"modules":["pandas"],"data":{"image/png":"aGk=","text/plain":"x"},"metadata":{},"truncated":["image/png"],"prompt":"?","password":true}"#;
            let mut frame = frame.to_vec();
            let place = at % frame.len();
            frame[place] = byte;
            frame.truncate(frame.len().min(cut + 1).max(1));
            let _ = parse(&frame);
            let mut whole = frame.clone();
            whole.insert(0, byte);
            let _ = parse(&whole);
        }

        #[test]
        fn what_is_shown_is_an_object_on_one_line(text in "\\PC{0,40}", key in "[a-z/]{1,10}") {
            let body = serde_json::json!({"t": "result", "data": {key: text}}).to_string();
            let Ok(Heard { said: Said::Result(shown), .. }) = parse(body.as_bytes()) else {
                return Err(TestCaseError::fail("no result"));
            };
            let one_line = shown.data.get().starts_with('{') && !shown.data.get().contains('\n');
            prop_assert!(one_line);
        }
    }
}
