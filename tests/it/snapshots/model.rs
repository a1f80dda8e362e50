//! Any sequence of writes, snapshots, forks, rollbacks, stops and crashes against a model of directory trees.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use super::disk::Disk;
use super::{assert_nothing_is_left, fork, restore, snapshot, stop};
use crate::harness::Daemon;

/// What a sandbox has below /root/m: a file's content by its path.
type Tree = BTreeMap<String, String>;

#[derive(Clone, Debug)]
enum Step {
    Write(usize, u8, u8, u8),
    Remove(usize, u8, u8),
    RemoveDirectory(usize, u8),
    Rename(usize, u8, u8),
    Snapshot(usize),
    Restore(usize, usize),
    DeleteSnapshot(usize),
    Fork(usize),
    Stop(usize),
    Destroy(usize),
    KillAll,
}

impl Step {
    /// Which sandbox it is about.
    fn sandbox(&self) -> Option<usize> {
        match self {
            Self::Write(sandbox, ..)
            | Self::Remove(sandbox, ..)
            | Self::RemoveDirectory(sandbox, ..)
            | Self::Rename(sandbox, ..)
            | Self::Snapshot(sandbox)
            | Self::Restore(sandbox, _)
            | Self::Fork(sandbox)
            | Self::Stop(sandbox)
            | Self::Destroy(sandbox) => Some(*sandbox),
            Self::DeleteSnapshot(_) | Self::KillAll => None,
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (sandbox, directory, file) = (0..4_usize, 0..3_u8, 0..3_u8);
    let step = prop_oneof![
        6 => (sandbox.clone(), directory.clone(), file.clone(), any::<u8>())
            .prop_map(|(sandbox, directory, file, value)| Step::Write(sandbox, directory, file, value)),
        2 => (sandbox.clone(), directory.clone(), file)
            .prop_map(|(sandbox, directory, file)| Step::Remove(sandbox, directory, file)),
        2 => (sandbox.clone(), directory.clone())
            .prop_map(|(sandbox, directory)| Step::RemoveDirectory(sandbox, directory)),
        3 => (sandbox.clone(), directory.clone(), directory)
            .prop_map(|(sandbox, from, to)| Step::Rename(sandbox, from, to)),
        3 => sandbox.clone().prop_map(Step::Snapshot),
        3 => (sandbox.clone(), 0..4_usize).prop_map(|(sandbox, snapshot)| Step::Restore(sandbox, snapshot)),
        1 => (0..4_usize).prop_map(Step::DeleteSnapshot),
        2 => sandbox.clone().prop_map(Step::Fork),
        3 => sandbox.clone().prop_map(Step::Stop),
        1 => sandbox.prop_map(Step::Destroy),
        1 => Just(Step::KillAll),
    ];
    prop::collection::vec(step, 12..32)
}

#[derive(Default)]
struct Model {
    sandboxes: BTreeMap<String, Tree>,
    snapshots: Vec<(String, Tree)>,
    made: usize,
}

impl Model {
    fn name(&mut self) -> String {
        self.made += 1;
        format!("box{}", self.made)
    }

    /// One of those that there are.
    fn pick(&self, index: usize) -> Option<String> {
        self.sandboxes.keys().nth(index % self.sandboxes.len().max(1)).cloned()
    }
}

/// Directories of a tree are those of its files; an empty one is nobody's business.
fn shown(daemon: &Daemon, sandbox: &str) -> Tree {
    let line = "cd /root/m 2>/dev/null && find . -type f | while read -r f; do echo \"$f $(cat \"$f\")\"; done; true";
    let text = daemon.shell(sandbox, line);
    text.lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(path, content)| (path.trim_start_matches("./").to_owned(), content.to_owned()))
        .collect()
}

fn carry_out(daemon: &mut Daemon, model: &mut Model, step: &Step) {
    let target = match step.sandbox() {
        Some(sandbox) => model.pick(sandbox),
        None => Some(String::new()),
    };
    let Some(name) = target else {
        let name = model.name();
        daemon.create(json!({"id": name}));
        model.sandboxes.insert(name, Tree::new());
        return;
    };
    match step {
        Step::Write(_, directory, file, value) => {
            daemon.shell(
                &name,
                &format!("mkdir -p /root/m/d{directory} && echo {value} > /root/m/d{directory}/f{file}"),
            );
            let path = format!("d{directory}/f{file}");
            model.sandboxes.get_mut(&name).unwrap().insert(path, value.to_string());
        }
        Step::Remove(_, directory, file) => {
            daemon.shell(&name, &format!("rm -f /root/m/d{directory}/f{file}"));
            model.sandboxes.get_mut(&name).unwrap().remove(&format!("d{directory}/f{file}"));
        }
        Step::RemoveDirectory(_, directory) => {
            daemon.shell(&name, &format!("rm -rf /root/m/d{directory}"));
            let prefix = format!("d{directory}/");
            model.sandboxes.get_mut(&name).unwrap().retain(|path, _| !path.starts_with(&prefix));
        }
        Step::Rename(_, from, to) if from != to => {
            let line = "cd /root/m 2>/dev/null && [ -d dFROM ] && rm -rf dTO && mv dFROM dTO; true";
            daemon.shell(&name, &line.replace("FROM", &from.to_string()).replace("TO", &to.to_string()));
            let tree = model.sandboxes.get_mut(&name).unwrap();
            // An empty directory replaces the other one as well: the model learns that from the sandbox.
            *tree = renamed(tree, *from, *to, &shown(daemon, &name));
        }
        Step::Rename(..) => {}
        Step::Snapshot(_) => {
            let kept = snapshot(daemon, &name);
            model.snapshots.push((kept, model.sandboxes[&name].clone()));
        }
        Step::Restore(_, index) => {
            if let Some((kept, tree)) = model.snapshots.get(*index) {
                restore(daemon, &name, kept);
                model.sandboxes.insert(name, tree.clone());
            }
        }
        Step::DeleteSnapshot(index) => {
            if *index < model.snapshots.len() {
                let (kept, _) = model.snapshots.remove(*index);
                assert_eq!(daemon.request("DELETE", &format!("/v1/snapshots/{kept}"), None).status, 204);
            }
        }
        Step::Fork(_) => {
            let child = model.name();
            fork(daemon, &name, &[&child]);
            model.sandboxes.insert(child, model.sandboxes[&name].clone());
        }
        Step::Stop(_) => stop(daemon, &name),
        Step::Destroy(_) => {
            daemon.destroy(&name);
            model.sandboxes.remove(&name);
        }
        Step::KillAll => {
            daemon.kill_all();
            daemon.spawn();
        }
    }
}

fn renamed(tree: &Tree, from: u8, to: u8, found: &Tree) -> Tree {
    let (from, to) = (format!("d{from}/"), format!("d{to}/"));
    let has = tree.keys().any(|path| path.starts_with(&from));
    // Without files it may be there and empty, or not be there: both are right.
    let replaced = has || !found.keys().any(|path| path.starts_with(&to));
    let kept =
        tree.iter().filter(|(path, _)| !(path.starts_with(&from) || replaced && path.starts_with(&to)));
    let mut result: Tree = kept.map(|(path, content)| (path.clone(), content.clone())).collect();
    for (path, content) in tree.iter().filter(|(path, _)| path.starts_with(&from)) {
        result.insert(path.replacen(&from, &to, 1), content.clone());
    }
    result
}

#[test]
fn any_sequence_of_steps_leaves_the_trees_of_the_model() {
    run(5, || (Daemon::start(), None));
}

/// Runs the model beside daemons that `start` starts, on disks of theirs.
pub fn run(cases: u32, start: impl Fn() -> (Daemon, Option<Disk>)) {
    let config = Config { cases, max_shrink_iters: 40, failure_persistence: None, ..Config::default() };
    let run = |steps: Vec<Step>| {
        let (mut daemon, disk) = start();
        let mut model = Model::default();
        for name in ["a", "b"] {
            daemon.create(json!({"id": name}));
            model.sandboxes.insert(name.to_owned(), Tree::new());
        }
        for step in &steps {
            carry_out(&mut daemon, &mut model, step);
        }
        for (name, tree) in &model.sandboxes {
            prop_assert_eq!(&shown(&daemon, name), tree, "{}", name);
        }
        for (kept, tree) in &model.snapshots {
            let made = daemon.create(json!({"snapshot": kept}));
            prop_assert_eq!(&shown(&daemon, &crate::harness::id(&made)), tree, "{}", kept);
        }
        assert_nothing_is_left(&daemon);
        if disk.is_some() {
            assert!(daemon.stop().success());
        }
        Ok(())
    };
    if let Err(error) = TestRunner::new(config).run(&steps(), run) {
        panic!("{error}");
    }
}
