//! `file ls`, `stat`, `exists`, `cat`: what is there.

use std::ffi::OsString;

use clap::Args;
use hyper::Method;
use percent_encoding::percent_encode;

use super::{Several, Within};
use crate::api::files::schema::{FileExists, FileInfo, FileList, FileType, PathText};
use crate::cli::client::{Client, SEGMENT, segment};
use crate::cli::copy::bring_to_stdout;
use crate::cli::failure::Failure;
use crate::cli::{OWN_FAILURE, show};

/// Entries of a page: as many as the API gives.
const PAGE: u32 = 10_000;

/// Arguments of `file ls`.
#[derive(Args, Debug)]
pub struct List {
    /// Where.
    #[command(flatten)]
    pub within: Within,
    /// The directory.
    #[arg(value_name = "PATH", default_value = ".")]
    pub path: OsString,
    /// What is in directories too. Other file systems are listed and not entered.
    #[arg(long, short)]
    pub recursive: bool,
    /// Names that begin with a dot too.
    #[arg(long, short = 'a')]
    pub hidden: bool,
    /// Only what matches: * ** ? [a-z] {a,b}. With a slash it is for whole paths, else for names.
    #[arg(long, value_name = "GLOB")]
    pub glob: Option<String>,
    /// Permissions, links, owner, size, time and where links lead as well.
    #[arg(long, short)]
    pub long: bool,
    /// End each line with a NUL instead of a newline, which names may have in them.
    #[arg(long, short = '0')]
    pub null: bool,
}

/// Arguments of `file stat`.
#[derive(Args, Debug)]
pub struct Stat {
    /// Where.
    #[command(flatten)]
    pub within: Within,
    /// The file.
    #[arg(value_name = "PATH")]
    pub path: OsString,
    /// Look at a symbolic link itself rather than its target.
    #[arg(long)]
    pub no_follow: bool,
}

/// Arguments of `file exists`.
#[derive(Args, Debug)]
pub struct Exists {
    /// Where.
    #[command(flatten)]
    pub within: Within,
    /// The file. A symbolic link that leads nowhere is not there.
    #[arg(value_name = "PATH")]
    pub path: OsString,
}

/// Lists all pages, each as it comes; for JSON all of them together.
pub(super) async fn list(client: &Client, list: &List, json: bool) -> Result<u8, Failure> {
    let mut route = format!("{}&limit={PAGE}", list.within.question("list", &list.path));
    for (flag, given) in [("recursive", list.recursive), ("hidden", list.hidden)] {
        if given {
            route.push_str(&format!("&{flag}"));
        }
    }
    if let Some(glob) = &list.glob {
        route.push_str(&format!("&glob={}", segment(glob)));
    }
    let mut all = FileList { entries: Vec::new(), cursor: None, unreadable: 0 };
    let mut page = route.clone();
    loop {
        let found: FileList = client.get(&page).await.map_err(|failure| failure.about(&list.path))?;
        all.unreadable += found.unreadable;
        if json {
            all.entries.extend(found.entries);
        } else {
            show::print_bytes(
                &found.entries.iter().flat_map(|entry| line(list, entry)).collect::<Vec<u8>>(),
            )?;
        }
        let Some(cursor) = found.cursor else { break };
        page = format!("{route}&cursor={}", percent_encode(cursor.as_bytes(), SEGMENT));
    }
    if json {
        show::print_json(&all)?;
    }
    if all.unreadable == 0 {
        return Ok(0);
    }
    if !json {
        show::say(&format!("stockade: {} directories could not be read", all.unreadable));
    }
    Ok(OWN_FAILURE)
}

fn line(list: &List, entry: &FileInfo) -> Vec<u8> {
    let mut line = Vec::new();
    if list.long {
        let FileInfo { links, uid, gid, size, modified_at, .. } = entry;
        let mode = permissions(entry);
        line.extend(
            format!("{mode} {links:>3} {uid:>5} {gid:>5} {size:>12} {modified_at:<30} ").into_bytes(),
        );
    }
    line.extend(show::path(&entry.path));
    if list.long
        && let Some(target) = &entry.target
    {
        line.extend(b" -> ");
        line.extend(show::path(target));
    }
    line.push(if list.null { 0 } else { b'\n' });
    line
}

/// `drwxr-xr-x`, as ls(1) has it.
fn permissions(entry: &FileInfo) -> String {
    let kind = match entry.kind {
        FileType::File => '-',
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
        FileType::Device => 'c',
    };
    let mode = u32::from_str_radix(&entry.mode, 8).unwrap_or_default();
    let letters = "rwxrwxrwx".chars().enumerate();
    let mut shown: String =
        letters.map(|(bit, letter)| if mode & (0o400 >> bit) == 0 { '-' } else { letter }).collect();
    if mode & 0o1000 != 0 {
        shown.replace_range(8.., if mode & 1 == 0 { "T" } else { "t" });
    }
    format!("{kind}{shown}")
}

/// Shows what a file is.
pub(super) async fn stat(client: &Client, stat: &Stat, json: bool) -> Result<u8, Failure> {
    let no_follow = if stat.no_follow { "&no_follow" } else { "" };
    let route = format!("{}{no_follow}", stat.within.question("stat", &stat.path));
    let info: FileInfo = client.get(&route).await.map_err(|failure| failure.about(&stat.path))?;
    if json {
        show::print_json(&info)?;
        return Ok(0);
    }
    let kind = serde_json::to_value(info.kind).map_err(Failure::NotOurs)?;
    let mut lines = Vec::new();
    let mut say = |name: &str, value: &[u8]| {
        lines.extend(format!("{name:<9} ").into_bytes());
        lines.extend(value);
        lines.push(b'\n');
    };
    say("path", &show::path(&info.path));
    say("type", kind.as_str().unwrap_or_default().as_bytes());
    say("size", info.size.to_string().as_bytes());
    say("mode", info.mode.as_bytes());
    say("owner", format!("{}:{}", info.uid, info.gid).as_bytes());
    say("links", info.links.to_string().as_bytes());
    say("modified", info.modified_at.as_bytes());
    say("changed", info.changed_at.as_bytes());
    say("etag", info.etag.as_bytes());
    for (name, value) in [("mime", info.mime.map(PathText::Text)), ("target", info.target)] {
        if let Some(value) = value {
            say(name, &show::path(&value));
        }
    }
    show::print_bytes(&lines)?;
    Ok(0)
}

/// Says whether a file is there.
pub(super) async fn exists(client: &Client, exists: &Exists, json: bool) -> Result<u8, Failure> {
    let found: FileExists = client.get(&exists.within.question("exists", &exists.path)).await?;
    if json {
        show::print_json(&found)?;
    }
    Ok(u8::from(!found.exists))
}

/// Writes the content of files, also when one of them cannot be read.
pub(super) async fn cat(client: &Client, several: &Several, json: bool) -> Result<u8, Failure> {
    let mut code = 0;
    for path in &several.paths {
        let route = several.within.question("content", path);
        match client.request::<()>(Method::GET, &route, None, "*/*").await {
            Ok(response) => {
                if !bring_to_stdout(response).await? {
                    // Nobody reads any more.
                    break;
                }
            }
            Err(failure) => {
                failure.about(path).show(json);
                code = OWN_FAILURE;
            }
        }
    }
    Ok(code)
}
