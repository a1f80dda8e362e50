//! The file API against a plain directory: the same random steps on both, the same outcome and the same tree.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use super::Files;
use crate::harness::scratch;

#[derive(Clone, Debug)]
enum Step {
    Write(String, Vec<u8>),
    Mkdir(String, bool),
    Remove(String, bool),
    Rename(String, String),
    Copy(String, String),
    Chmod(String, u32),
    Symlink(String, String),
    Read(String),
}

/// Few names, so that steps meet; some of them odd.
fn path() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "b", "c", "ü x", ".d"]);
    prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"))
}

fn step() -> impl Strategy<Value = Step> {
    let content = prop::collection::vec(any::<u8>(), 0..200);
    prop_oneof![
        4 => (path(), content).prop_map(|(path, content)| Step::Write(path, content)),
        3 => (path(), any::<bool>()).prop_map(|(path, parents)| Step::Mkdir(path, parents)),
        2 => (path(), any::<bool>()).prop_map(|(path, recursive)| Step::Remove(path, recursive)),
        2 => (path(), path()).prop_map(|(from, to)| Step::Rename(from, to)),
        2 => (path(), path()).prop_map(|(from, to)| Step::Copy(from, to)),
        1 => (path(), 0_u32..0o1000).prop_map(|(path, mode)| Step::Chmod(path, mode)),
        1 => (path(), path()).prop_map(|(target, path)| Step::Symlink(target, path)),
        3 => path().prop_map(Step::Read),
    ]
}

/// What the step does to a plain directory: whether it works, and what was read.
fn plain(root: &Path, step: &Step) -> Result<Option<Vec<u8>>, ErrorKind> {
    let at = |path: &str| root.join(path);
    let kind = |error: std::io::Error| error.kind();
    match step {
        Step::Write(path, content) => {
            let path = at(path);
            if path.is_file() {
                fs::write(&path, content).map_err(kind)?;
            } else {
                let new = !path.exists();
                fs::write(&path, content).map_err(kind)?;
                if new {
                    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).map_err(kind)?;
                }
            }
        }
        Step::Mkdir(path, true) => fs::create_dir_all(at(path)).map_err(kind)?,
        Step::Mkdir(path, false) => fs::create_dir(at(path)).map_err(kind)?,
        Step::Remove(path, recursive) => {
            let path = at(path);
            match fs::symlink_metadata(&path).map_err(kind)?.is_dir() {
                true if *recursive => fs::remove_dir_all(path).map_err(kind)?,
                true => fs::remove_dir(path).map_err(kind)?,
                false => fs::remove_file(path).map_err(kind)?,
            }
        }
        Step::Rename(from, to) => {
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            rustix::fs::renameat_with(rustix::fs::CWD, at(from), rustix::fs::CWD, at(to), flags)
                .map_err(|errno| std::io::Error::from(errno).kind())?;
        }
        Step::Copy(from, to) => copy(&at(from), &at(to)).map_err(kind)?,
        Step::Chmod(path, mode) => {
            fs::set_permissions(at(path), fs::Permissions::from_mode(*mode)).map_err(kind)?;
        }
        Step::Symlink(target, path) => symlink(target, at(path)).map_err(kind)?,
        Step::Read(path) => return fs::read(at(path)).map(Some).map_err(kind),
    }
    Ok(None)
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    if to.symlink_metadata().is_ok() {
        return Err(ErrorKind::AlreadyExists.into());
    }
    if to.starts_with(from) && metadata.is_dir() {
        return Err(ErrorKind::InvalidInput.into());
    }
    if metadata.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    if metadata.is_file() {
        fs::copy(from, to)?;
        return Ok(());
    }
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    fs::set_permissions(to, metadata.permissions())
}

fn through_the_api(files: &Files, root: &str, step: &Step) -> Result<Option<Vec<u8>>, String> {
    let at = |path: &str| format!("{root}/{path}");
    let answer = match step {
        Step::Write(path, content) => files.try_write(at(path), "", &[], content),
        Step::Mkdir(path, parents) => files.post("mkdir", &json!({"path": at(path), "parents": parents})),
        Step::Remove(path, recursive) => {
            files.post("remove", &json!({"path": at(path), "recursive": recursive}))
        }
        Step::Rename(from, to) => files.post("rename", &json!({"from": at(from), "to": at(to)})),
        Step::Copy(from, to) => files.post("copy", &json!({"from": at(from), "to": at(to)})),
        Step::Chmod(path, mode) => {
            files.post("chmod", &json!({"path": at(path), "mode": format!("{mode:o}")}))
        }
        Step::Symlink(target, path) => files.post("symlink", &json!({"target": target, "path": at(path)})),
        Step::Read(path) => files.read(at(path), &[]),
    };
    assert!(answer.status < 500, "{step:?}: {}", String::from_utf8_lossy(&answer.body));
    match answer.status {
        200 if matches!(step, Step::Read(_)) => Ok(Some(answer.body)),
        200 | 204 => Ok(None),
        _ => Err(answer.json()["code"].as_str().unwrap().to_owned()),
    }
}

/// Paths with type, mode, size and link target, in order.
fn tree(root: &Path) -> Vec<String> {
    fn walk(root: &Path, path: &Path, lines: &mut Vec<String>) {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for entry in entries {
            let metadata = entry.symlink_metadata().unwrap();
            let (mode, name) =
                (metadata.permissions().mode() & 0o777, entry.strip_prefix(root).unwrap().display());
            if metadata.is_symlink() {
                lines.push(format!("{name} symlink {}", fs::read_link(&entry).unwrap().display()));
            } else if metadata.is_dir() {
                lines.push(format!("{name} directory {mode:04o}"));
                walk(root, &entry, lines);
            } else {
                lines.push(format!("{name} file {mode:04o} {}", metadata.len()));
            }
        }
    }
    let mut lines = Vec::new();
    walk(root, root, &mut lines);
    lines.sort();
    lines
}

fn api_tree(files: &Files, root: &str) -> Vec<String> {
    let list = files.list(root, "&recursive&hidden&limit=10000");
    let entries = list["entries"].as_array().unwrap().iter();
    let mut lines: Vec<String> = entries
        .map(|entry| {
            let (path, mode) = (entry["path"].as_str().unwrap(), entry["mode"].as_str().unwrap());
            match entry["type"].as_str().unwrap() {
                "symlink" => format!("{path} symlink {}", entry["target"].as_str().unwrap()),
                "directory" => format!("{path} directory {mode}"),
                _ => format!("{path} file {mode} {}", entry["size"]),
            }
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn random_steps_do_what_they_do_to_a_plain_directory() {
    let files = Files::start();
    let round = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(Config { cases: 64, failure_persistence: None, ..Config::default() });
    let steps = prop::collection::vec(step(), 1..40);
    let result = runner.run(&steps, |steps| {
        round.set(round.get() + 1);
        let (directory, inside) = (scratch(), format!("/workspace/{}", round.get()));
        let root = directory.path().join("root");
        fs::create_dir(&root).unwrap();
        files.done("mkdir", json!({"path": inside}));
        for step in &steps {
            let expected = plain(&root, step);
            let found = through_the_api(&files, &inside, step);
            let same = match (&expected, &found) {
                (Ok(expected), Ok(found)) => expected == found,
                (Err(_), Err(_)) => true,
                _ => false,
            };
            prop_assert!(
                same,
                "{step:?}: a directory says {expected:?}, the interface {found:?}\n{steps:#?}"
            );
        }
        prop_assert_eq!(api_tree(&files, &inside), tree(&root));
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
