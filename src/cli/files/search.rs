//! `file grep`, `file changes`: what is in files, and whether it is still the same.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;

use super::{Within, text};
use crate::api::files::schema::{ChangeStatus, Changes, PathText, SearchFiles, SearchMatch, SearchResult};
use crate::api::schema::Encoding;
use crate::cli::client::{Client, segment};
use crate::cli::failure::Failure;
use crate::cli::show;

/// Arguments of `file grep`.
#[derive(Args, Debug)]
pub struct Grep {
    /// Where.
    #[command(flatten)]
    pub within: Within,
    /// A regular expression of the Rust crate `regex`: no back-references, linear time.
    #[arg(value_name = "PATTERN")]
    pub pattern: String,
    /// File, or directory with all that is in it.
    #[arg(value_name = "PATH", default_value = ".")]
    pub path: OsString,
    /// The pattern is text, to be found as it is.
    #[arg(long, short = 'F')]
    pub fixed_strings: bool,
    /// Upper and lower case are the same.
    #[arg(long, short)]
    pub ignore_case: bool,
    /// Look at names that begin with a dot too.
    #[arg(long)]
    pub hidden: bool,
    /// Only files of these names, or paths if it has a slash.
    #[arg(long, value_name = "GLOB")]
    pub glob: Option<String>,
    /// Most lines, at most 10000 [default: 1000].
    #[arg(long, value_name = "N")]
    pub limit: Option<u32>,
}

/// Arguments of `file changes`.
#[derive(Args, Debug)]
pub struct Changed {
    /// Where.
    #[command(flatten)]
    pub within: Within,
    /// Directory or file.
    #[arg(value_name = "PATH", default_value = ".")]
    pub path: OsString,
    /// From the answer before.
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<String>,
    /// Directories in it too.
    #[arg(long, short)]
    pub recursive: bool,
    /// Only what matches this glob; may be repeated.
    #[arg(long, value_name = "GLOB")]
    pub include: Vec<String>,
    /// Nothing that matches this glob, nor what is below it; may be repeated.
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
}

/// Searches.
pub(super) async fn grep(client: &Client, grep: Grep, json: bool) -> Result<u8, Failure> {
    let (literal, regex) = match grep.fixed_strings {
        true => (Some(grep.pattern), None),
        false => (None, Some(grep.pattern)),
    };
    let wanted = SearchFiles {
        path: text(&grep.path),
        text: literal,
        regex,
        ignore_case: grep.ignore_case,
        hidden: grep.hidden,
        glob: grep.glob,
        limit: grep.limit,
        user: grep.within.user.clone(),
    };
    let found = client.post::<_, SearchResult>(&grep.within.route("search"), &wanted).await;
    let (_, found) = found.map_err(|failure| failure.about(&grep.path))?;
    if json {
        show::print_json(&found)?;
    } else {
        let base: &[u8] = if grep.path.as_bytes() == b"." { b"" } else { grep.path.as_bytes() };
        show::print_bytes(&found.matches.iter().flat_map(|found| line(base, found)).collect::<Vec<u8>>())?;
        for (there, what) in [
            (found.truncated, "there are more lines; --limit shows some of them".to_owned()),
            (found.unreadable > 0, format!("{} files or directories could not be read", found.unreadable)),
            (found.long_lines > 0, format!("{} lines are too long to be searched whole", found.long_lines)),
        ] {
            if there {
                show::say(&format!("stockade: {what}"));
            }
        }
    }
    Ok(u8::from(found.matches.is_empty()))
}

/// `PATH:LINE:TEXT`, with the path so that it is a path again.
fn line(base: &[u8], found: &SearchMatch) -> Vec<u8> {
    let below = found.path.bytes().unwrap_or_default();
    let slash: &[u8] = if base.is_empty() || below.is_empty() || base.ends_with(b"/") { b"" } else { b"/" };
    let path = PathText::new([base, slash, &below].concat());
    let text = match found.encoding {
        Encoding::Utf8 => found.text.clone().into_bytes(),
        Encoding::Base64 => STANDARD.decode(&found.text).unwrap_or_default(),
    };
    let mut line = show::path(&path);
    line.extend(format!(":{}:", found.line).into_bytes());
    line.extend(show::bytes(&text));
    line.push(b'\n');
    line
}

/// Asks whether something has changed.
pub(super) async fn changes(client: &Client, changed: &Changed, json: bool) -> Result<u8, Failure> {
    let within = &changed.within;
    let mut route =
        format!("/v1/sandboxes/{}/changes?{}", segment(&within.sandbox), within.query(&changed.path));
    if changed.recursive {
        route.push_str("&recursive");
    }
    let cursor = changed.cursor.as_slice();
    for (key, values) in
        [("cursor", cursor), ("include", changed.include.as_slice()), ("exclude", changed.exclude.as_slice())]
    {
        for value in values {
            route.push_str(&format!("&{key}={}", segment(value)));
        }
    }
    let found: Changes = client.get(&route).await.map_err(|failure| failure.about(&changed.path))?;
    if json {
        show::print_json(&found)?;
    } else {
        let status = match found.status {
            ChangeStatus::Unchanged => "unchanged",
            ChangeStatus::Changed => "changed",
            ChangeStatus::Resync => "resync",
        };
        show::print(&format!("{status} {}\n", found.cursor))?;
    }
    Ok(0)
}
