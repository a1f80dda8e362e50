//! `watch`: one line for each change.

use std::os::unix::ffi::OsStrExt;

use hyper::Method;
use percent_encoding::percent_encode;

use super::arguments::Watch;
use super::client::{Events, SEGMENT, segment};
use super::daemon::Daemon;
use super::failure::Failure;
use super::show;
use crate::api::files::schema::{ChangeEvent, PathText};

/// `stockade watch`.
pub(super) async fn watch(daemon: Daemon, arguments: Watch, json: bool) -> Result<u8, Failure> {
    let path = percent_encode(arguments.path.as_bytes(), SEGMENT);
    let mut route = format!("/v1/sandboxes/{}/watch?path={path}", segment(&arguments.id));
    if arguments.recursive {
        route.push_str("&recursive");
    }
    let globs = [("include", &arguments.include), ("exclude", &arguments.exclude)];
    for (key, glob) in globs.iter().flat_map(|(key, globs)| globs.iter().map(move |glob| (key, glob))) {
        route.push_str(&format!("&{key}={}", segment(glob)));
    }
    if let Some(user) = &arguments.user {
        route.push_str(&format!("&user={}", segment(user)));
    }
    let connection = daemon.running().await?;
    let response = connection.client.request::<()>(Method::GET, &route, None, "text/event-stream").await?;
    let mut events = Events::new(response);
    while let Some(event) = events.next().await? {
        match event.name.as_str() {
            "error" => return Err(event.refusal()),
            name if json => {
                let data: serde_json::Value = serde_json::from_str(&event.data).map_err(Failure::NotOurs)?;
                show::print(&format!("{}\n", serde_json::json!({"event": name, "data": data})))?;
            }
            "armed" => show::say(&format!("watching {}", arguments.path.display())),
            "overflow" => show::say("more has happened than was seen: look at everything"),
            "gone" => show::say("what was watched is gone"),
            name => {
                let change: ChangeEvent = serde_json::from_str(&event.data).map_err(Failure::NotOurs)?;
                show::print(&line(name, &change))?;
            }
        }
    }
    Ok(0)
}

fn line(name: &str, change: &ChangeEvent) -> String {
    // A line is one change: a newline in a name must not look like another one, on a pipe neither.
    let shown = |path: &PathText| show::escaped(&path.bytes().unwrap_or_default());
    let from = change.from.as_ref().map(|from| format!("{} -> ", shown(from))).unwrap_or_default();
    format!("{name} {from}{}\n", shown(&change.path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_with_all_that_they_are() {
        let path = PathText::new(b"a\xff\nb".to_vec());
        let change = ChangeEvent { path, from: Some(PathText::Text("c".to_owned())), directory: false };
        assert_eq!(line("rename", &change), "rename c -> a\\xff\\nb\n");
    }
}
