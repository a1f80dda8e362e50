//! Directories of the host in a sandbox's tree: what is shown, to whom, and how it goes away.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Daemon, assert_error, host, scratch};

/// Whom the shared directory belongs to.
const OWNER: u32 = 12_345;

/// A daemon, and a directory of a user's that sandboxes may mount.
fn shared() -> (Daemon, TempDir) {
    let directory = scratch();
    let data = directory.path().join("data");
    for name in ["data", "data/in", "closed"] {
        fs::create_dir(directory.path().join(name)).unwrap();
    }
    fs::write(data.join("greeting"), "hello\n").unwrap();
    fs::write(data.join("in/deep"), "deep\n").unwrap();
    fs::write(data.join("roots"), "of root\n").unwrap();
    fs::set_permissions(data.join("roots"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(directory.path().join("closed/secret"), "hush\n").unwrap();
    symlink(directory.path().join("closed/secret"), data.join("out")).unwrap();
    symlink("../closed/secret", data.join("up")).unwrap();
    symlink(directory.path().join("closed"), data.join("away")).unwrap();
    for name in ["", "in", "greeting", "in/deep"] {
        chown(data.join(name), Some(OWNER), Some(OWNER)).unwrap();
    }
    let config = format!("[mounts]\ndirectories = [{data:?}]\n[preview]\nlisten = \"off\"\n");
    (Daemon::configured(&config), directory)
}

fn endpoint(directory: &TempDir) -> String {
    format!("file://{}", directory.path().join("data").display())
}

fn mount(daemon: &Daemon, id: &str, body: &Value) -> Value {
    let answer = daemon.request("POST", &format!("/v1/sandboxes/{id}/mounts"), Some(body));
    assert_eq!(answer.status, 201, "{}\n{}", String::from_utf8_lossy(&answer.body), daemon.log());
    answer.json()
}

fn unmount(daemon: &Daemon, id: &str, name: &str) -> Value {
    let answer = daemon.request("DELETE", &format!("/v1/sandboxes/{id}/mounts/{name}"), None);
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

#[test]
fn a_directory_is_read_and_written_as_its_owner_and_goes_away() {
    let (daemon, directory) = shared();
    let id = daemon.sandbox();
    let view = mount(&daemon, &id, &json!({"path": "/made/for/it", "endpoint": endpoint(&directory)}));
    assert_eq!(
        (&view["id"], &view["state"], &view["path"]),
        (&json!("m1"), &json!("mounted"), &json!("/made/for/it"))
    );
    assert_eq!(
        daemon.shell(&id, "stat -c %u:%g /made/for/it/greeting; cat /made/for/it/greeting"),
        "0:0\nhello\n"
    );
    daemon.shell(
        &id,
        "cd /made/for/it && echo new > new && mv greeting in/ && ln -s /etc/hostname link && cat link",
    );
    let new = directory.path().join("data/new").metadata().unwrap();
    assert_eq!((new.uid(), new.gid(), new.len()), (OWNER, OWNER, 4));
    assert!(directory.path().join("data/in/greeting").exists());
    // What belongs to others can be neither read nor taken.
    for line in ["cat /made/for/it/roots", "chown 0 /made/for/it/roots", "chown 5 /made/for/it/new"] {
        assert_ne!(daemon.run(&id, json!({"shell": line}))["exit_code"], 0, "{line}");
    }
    // The files API goes the same way.
    let path = format!("/v1/sandboxes/{id}/files/content?path=/made/for/it/in/deep");
    assert_eq!(daemon.request("GET", &path, None).body, b"deep\n");
    assert_eq!(daemon.get(&format!("/v1/sandboxes/{id}/mounts"))["mounts"], json!([view]));
    assert_eq!(daemon.get(&format!("/v1/sandboxes/{id}/mounts/m1")), view);
    // Somebody in it does not keep it.
    let _inside =
        daemon.start_command(&id, &json!({"shell": "cd /made/for/it && echo here && sleep 600"}), true);
    assert_eq!(unmount(&daemon, &id, "m1")["lost_count"], 0);
    assert_eq!(daemon.shell(&id, "ls -A /made/for/it"), "");
    assert_error(
        &daemon.request("GET", &format!("/v1/sandboxes/{id}/mounts/m1"), None),
        404,
        "MOUNT_NOT_FOUND",
    );
    assert_error(
        &daemon.request("DELETE", &format!("/v1/sandboxes/{id}/mounts/m1"), None),
        404,
        "MOUNT_NOT_FOUND",
    );
    assert!(directory.path().join("data/new").exists(), "what was written stays");
    let said = daemon.get(&format!("/v1/events?sandbox={id}&type=mount.added&type=mount.removed"));
    let said: Vec<_> =
        said["events"].as_array().unwrap().iter().map(|event| &event["data"]["path"]).collect();
    assert_eq!(said, ["/made/for/it"; 2]);
}

#[test]
fn nothing_but_the_directory_is_reached_by_it() {
    let (daemon, directory) = shared();
    let id = daemon.sandbox();
    mount(&daemon, &id, &json!({"path": "/data", "endpoint": endpoint(&directory)}));
    // The control: on the host the links lead to it.
    assert_eq!(fs::read_to_string(directory.path().join("data/out")).unwrap(), "hush\n");
    for path in [
        "/data/out",
        "/data/up",
        "/data/away/secret",
        "/data/../closed/secret",
        "/data/in/../../closed/secret",
    ] {
        assert_ne!(daemon.run(&id, json!({"argv": ["cat", path]}))["exit_code"], 0, "{path}");
        let read = daemon.request("GET", &format!("/v1/sandboxes/{id}/files/content?path={path}"), None);
        assert_ne!(read.status, 200, "{path}");
    }
    assert!(daemon.shell(&id, "grep ' /data ' /proc/self/mountinfo").contains("nosuid,nodev"));
    // Nobody inside can take it away or see below it.
    assert_ne!(daemon.run(&id, json!({"argv": ["umount", "/data"]}))["exit_code"], 0);
}

#[test]
fn read_only_is_read_only() {
    let (daemon, directory) = shared();
    let id = daemon.sandbox();
    let body = json!({"path": "/data", "endpoint": endpoint(&directory), "prefix": "in", "read_only": true});
    mount(&daemon, &id, &body);
    assert_eq!(daemon.shell(&id, "cat /data/deep"), "deep\n");
    for line in [
        "echo x > /data/x",
        "rm /data/deep",
        "chmod 777 /data/deep",
        "touch /data/deep",
        "mount -o remount,rw /data",
    ] {
        assert_ne!(daemon.run(&id, json!({"shell": line}))["exit_code"], 0, "{line}");
    }
    assert_eq!(fs::read_to_string(directory.path().join("data/in/deep")).unwrap(), "deep\n");
}

#[test]
fn what_the_operator_has_not_opened_is_not_shown() {
    let (daemon, directory) = shared();
    let id = daemon.sandbox();
    let at = |name: &str| format!("file://{}", directory.path().join(name).display());
    fs::create_dir(directory.path().join("data/roots-own")).unwrap();
    let refused = [
        at("closed"),
        at("data/away"),
        at("data/absent"),
        at("data/greeting"),
        at(""),
        "file:///etc".to_owned(),
        // It could leave files there that act as root.
        at("data/roots-own"),
    ];
    for endpoint in refused {
        let body = json!({"path": "/data", "endpoint": endpoint});
        let answer = daemon.request("POST", &format!("/v1/sandboxes/{id}/mounts"), Some(&body));
        let error = assert_error(&answer, 422, "DIRECTORY_DENIED");
        assert_eq!(error["context"]["field"], "endpoint", "{endpoint}");
    }
    mount(&daemon, &id, &json!({"path": "/data", "endpoint": at("data/roots-own"), "read_only": true}));
    let without = Daemon::start();
    let id = without.sandbox();
    let body = json!({"path": "/data", "endpoint": endpoint(&directory)});
    let answer = without.request("POST", &format!("/v1/sandboxes/{id}/mounts"), Some(&body));
    assert_error(&answer, 422, "DIRECTORY_DENIED");
}

#[test]
fn a_path_that_is_taken_or_leads_elsewhere_is_refused() {
    let (daemon, directory) = shared();
    let id = daemon.sandbox();
    daemon.shell(&id, "mkdir /real && ln -s /real /link && ln -s /nowhere /real/dangling && touch /file");
    let try_at = |path: &str| {
        let body = json!({"path": path, "endpoint": endpoint(&directory)});
        daemon.request("POST", &format!("/v1/sandboxes/{id}/mounts"), Some(&body))
    };
    for path in ["/link", "/link/x", "/real/dangling", "/file", "/file/x"] {
        assert_error(&try_at(path), 422, "MOUNT_POINT_INVALID");
    }
    for path in ["/proc", "/proc/sys", "/sys", "/dev", "/dev/shm/x", "/usr", "/usr/share"] {
        assert_error(&try_at(path), 409, "MOUNT_IN_USE");
    }
    for path in ["/", "relative", "/a/../b"] {
        assert_error(&try_at(path), 400, "INVALID_REQUEST");
    }
    mount(&daemon, &id, &json!({"path": "/real/one", "endpoint": endpoint(&directory)}));
    for path in ["/real/one", "/real/one/", "/real/one/in", "/real"] {
        assert_error(&try_at(path), 409, "MOUNT_IN_USE");
    }
    assert_eq!(try_at("/real/two").status, 201);
    // Nothing of what was refused is left.
    assert_eq!(daemon.get(&format!("/v1/sandboxes/{id}/mounts"))["mounts"].as_array().unwrap().len(), 2);
    assert_eq!(daemon.shell(&id, "ls -A /real"), "dangling\none\ntwo\n");
}

#[test]
fn a_sandbox_that_moves_directories_meanwhile_gains_nothing() {
    let (daemon, directory) = shared();
    let id = daemon.sandbox();
    let storm = "mkdir -p /a/b /c; ln -s /proc /c/b; echo begun; while :; do mv /a /x; mv /c /a; mv /a /c; mv /x /a; done";
    let _storm = daemon.start_command(&id, &json!({"shell": storm}), true);
    let before = daemon.shell(&id, "grep -c ' /proc' /proc/self/mountinfo");
    for _ in 0..40 {
        let body = json!({"path": "/a/b", "endpoint": endpoint(&directory)});
        let answer = daemon.request("POST", &format!("/v1/sandboxes/{id}/mounts"), Some(&body));
        if answer.status == 201 {
            let name = answer.json()["id"].as_str().unwrap().to_owned();
            let gone = daemon.request("DELETE", &format!("/v1/sandboxes/{id}/mounts/{name}"), None);
            assert_eq!(gone.status, 200, "{}", String::from_utf8_lossy(&gone.body));
        }
    }
    // What covers files of /proc is all still there, and nothing covers more of it.
    assert_eq!(daemon.shell(&id, "grep -c ' /proc' /proc/self/mountinfo"), before);
}

#[test]
fn mounts_outlive_stop_restart_and_crash_and_not_their_sandbox() {
    let (mut daemon, directory) = shared();
    let spec = json!({"id": "box", "mounts": [{"path": "/data", "endpoint": endpoint(&directory)}]});
    daemon.create(spec.clone());
    assert_eq!(daemon.shell("box", "cat /data/greeting"), "hello\n");
    let again = daemon.request("POST", "/v1/sandboxes", Some(&spec));
    assert_eq!(again.status, 200, "the same specification is the same sandbox");
    let post = |daemon: &Daemon, verb: &str| {
        assert_eq!(daemon.request("POST", &format!("/v1/sandboxes/box/{verb}"), None).status, 200, "{verb}");
    };
    post(&daemon, "pause");
    assert_eq!(daemon.shell("box", "cat /data/greeting"), "hello\n");
    post(&daemon, "stop");
    assert_eq!(daemon.get("/v1/sandboxes/box/mounts")["mounts"][0]["state"], "stopped");
    assert_eq!(daemon.shell("box", "cat /data/greeting"), "hello\n");
    daemon.kill_all();
    daemon.spawn();
    let mounts = |daemon: &Daemon| daemon.shell("box", "grep -c ' /data ' /proc/self/mountinfo");
    assert_eq!(daemon.shell("box", "cat /data/greeting"), "hello\n");
    assert_eq!(mounts(&daemon), "1\n", "it is not mounted on itself");
    assert_eq!(daemon.get("/v1/sandboxes/box/mounts")["mounts"][0]["state"], "mounted");
    // One that is unmounted by another launcher than the one that mounted it.
    unmount(&daemon, "box", "m1");
    assert_eq!(daemon.shell("box", "ls -A /data"), "");
    post(&daemon, "stop");
    assert_eq!(daemon.shell("box", "ls -A /data"), "", "nor is it there again");
    // One that cannot be had when the sandbox is created: there is no sandbox then.
    let bad = json!({"id": "bad", "mounts": [{"path": "/data", "endpoint": "file:///etc"}]});
    assert_error(&daemon.request("POST", "/v1/sandboxes", Some(&bad)), 422, "DIRECTORY_DENIED");
    assert_eq!(daemon.ids(), ["box"]);
    mount(&daemon, "box", &json!({"path": "/data", "endpoint": endpoint(&directory)}));
    daemon.destroy("box");
    assert!(directory.path().join("data/greeting").exists(), "a sandbox takes no directory with it");
    let under = directory.path().display().to_string();
    host::wait_until_none("mounts left behind", || host::mounts_under(&under));
}

#[test]
fn the_command_line_mounts_lists_and_unmounts() {
    let (daemon, directory) = shared();
    let id = daemon.sandbox();
    let run = |arguments: &[&str]| {
        let output = daemon.cli(arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), text, String::from_utf8(output.stderr).unwrap())
    };
    let added = run(&["mount", "add", &id, "/data", "--endpoint", &endpoint(&directory), "--read-only"]);
    assert_eq!((added.0, added.1.as_str()), (Some(0), "m1\n"), "{}", added.2);
    let (_, list, _) = run(&["mount", "ls", &id]);
    assert!(list.contains("m1") && list.contains("/data") && list.contains("mounted"), "{list}");
    let denied = run(&["mount", "add", &id, "/etc2", "--endpoint", "file:///etc"]);
    assert_eq!(denied.0, Some(125));
    assert!(denied.2.contains("mounts.directories"), "{}", denied.2);
    assert_eq!(run(&["mount", "rm", &id, "/data"]).0, Some(0));
    assert_eq!(run(&["mount", "rm", &id, "/data"]).0, Some(125));
}
