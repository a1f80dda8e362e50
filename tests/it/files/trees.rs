//! Directories: lists, and everything that changes them.

use serde_json::json;

use super::{Files, text};
use crate::harness::assert_error;

#[test]
fn lists_are_recursive_hidden_or_by_glob_when_asked() {
    let files = Files::start();
    files.shell("cd /workspace && mkdir -p src/deep .git empty && touch src/main.rs src/deep/lib.rs src/deep/.keep .git/HEAD README.md && ln -s src link");
    assert_eq!(files.paths("/workspace", ""), ["README.md", "empty", "link", "src"]);
    assert_eq!(files.paths("/workspace", "&hidden"), [".git", "README.md", "empty", "link", "src"]);
    let all = ["README.md", "empty", "link", "src", "src/deep", "src/deep/lib.rs", "src/main.rs"];
    assert_eq!(files.paths("/workspace", "&recursive=true"), all);
    assert_eq!(files.paths("/workspace", "&recursive&hidden").len(), 10);
    assert_eq!(files.paths("/workspace", "&recursive&glob=*.rs"), ["src/deep/lib.rs", "src/main.rs"]);
    assert_eq!(files.paths("/workspace", "&recursive&glob=src/*.rs"), ["src/main.rs"]);
    assert_eq!(files.paths("/workspace", "&recursive&glob=**/deep/*"), ["src/deep/lib.rs"]);
    assert_eq!(
        files.paths("/workspace", "&recursive&glob=%7BREADME*,lib.%3Fs%7D"),
        ["README.md", "src/deep/lib.rs"]
    );
    let list = files.list("/workspace", "");
    let link = &list["entries"][2];
    assert_eq!((&link["type"], &link["target"]), (&json!("symlink"), &json!("src")));
    // A link to a directory is listed when it is named.
    assert_eq!(files.paths("/workspace/link", ""), ["deep", "main.rs"]);
    assert_error(&files.get("list", "/workspace", "&glob=%5B"), 400, "INVALID_REQUEST");
    assert_error(&files.get("list", "/workspace/README.md", ""), 409, "NOT_DIRECTORY");
    assert_error(&files.get("list", "/workspace/none", ""), 404, "FILE_NOT_FOUND");
    assert_error(&files.get("list", "/workspace", "&limit=0"), 400, "INVALID_REQUEST");
    assert_error(&files.get("list", "/workspace", "&colour=red"), 400, "INVALID_REQUEST");
}

#[test]
fn pages_of_any_size_make_the_same_list() {
    let files = Files::start();
    files.shell("cd /workspace && for d in a a/b a/b/c d e; do mkdir -p $d; for n in $(seq 1 60); do : > $d/f$n; done; done");
    let whole = files.paths("/workspace", "&recursive&limit=10000");
    assert_eq!(whole.len(), 305);
    for limit in [1, 7, 64, 304, 305] {
        let mut paged = Vec::new();
        let mut cursor = String::new();
        loop {
            let list = files.list("/workspace", &format!("&recursive&limit={limit}{cursor}"));
            paged.extend(list["entries"].as_array().unwrap().iter().map(|entry| text(&entry["path"])));
            match list["cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(paged, whole, "pages of {limit}");
    }
    // What is removed between two pages is not waited for.
    let list = files.list("/workspace", "&recursive&limit=70");
    files.shell("rm -r /workspace/a");
    // Neither text nor a path, and paths that no list has.
    for cursor in ["AAAA", "?", "", "Ly4u", "Li4"] {
        let answer = files.get("list", "/workspace", &format!("&cursor={cursor}"));
        crate::harness::assert_error(&answer, 400, "INVALID_REQUEST");
    }
    let next = files.list("/workspace", &format!("&recursive&cursor={}", list["cursor"].as_str().unwrap()));
    assert_eq!(text(&next["entries"][0]["path"]), "d");
}

#[test]
fn names_that_are_not_text_survive() {
    let files = Files::start();
    let name = b"/workspace/\xff\xfe a+b%\n\x1b[31m";
    files.write(name, b"odd");
    assert_eq!(files.content(name), b"odd");
    let listed = files.list("/workspace", "")["entries"][0]["path"].clone();
    let base64 = listed["base64"].as_str().expect("bytes").to_owned();
    let whole = {
        use base64::Engine as _;
        let engine = base64::engine::general_purpose::STANDARD;
        assert_eq!(engine.decode(&base64).unwrap(), &name[11..]);
        engine.encode(name)
    };
    files.done("rename", json!({"from": {"base64": whole}, "to": "/workspace/plain"}));
    assert_eq!(files.content("/workspace/plain"), b"odd");
    files.done("copy", json!({"from": "/workspace/plain", "to": {"base64": whole}}));
    files.done("remove", json!({"path": {"base64": whole}}));
    assert_eq!(files.paths("/workspace", "&hidden"), ["plain"]);
    files.refused("remove", json!({"path": {"base64": "?"}}), 400, "INVALID_REQUEST");
    files.refused("remove", json!({"path": "/workspace/a\u{0}b"}), 422, "PATH_INVALID");
    files.refused("remove", json!({"path": "x".repeat(4096)}), 422, "PATH_INVALID");
    files.refused("remove", json!({"path": format!("/workspace/{}", "x".repeat(300))}), 422, "PATH_INVALID");
    files.refused("remove", json!({"path": ""}), 422, "PATH_INVALID");
    // As rm does; and what can only be a directory is not written to as a file.
    for path in ["/workspace/.", "/workspace/./", "/workspace/d/.//"] {
        files.refused("remove", json!({"path": path, "recursive": true}), 422, "PATH_INVALID");
    }
    crate::harness::assert_error(&files.try_write("/tmp/new/", "", &[], b""), 409, "IS_DIRECTORY");
}

#[test]
fn directories_are_made_and_removed_only_as_asked() {
    let files = Files::start();
    files.refused("mkdir", json!({"path": "/workspace/a/b"}), 404, "FILE_NOT_FOUND");
    files.done("mkdir", json!({"path": "/workspace/a/b/c", "parents": true, "mode": "0700"}));
    files.done("mkdir", json!({"path": "/workspace/a/b/c", "parents": true}));
    files.refused("mkdir", json!({"path": "/workspace/a/b/c"}), 409, "FILE_EXISTS");
    assert_eq!(files.shell("stat -c %a /workspace/a /workspace/a/b/c"), "755\n700\n");
    files.write("/workspace/a/b/file", b"x");
    files.refused("mkdir", json!({"path": "/workspace/a/b/file", "parents": true}), 409, "NOT_DIRECTORY");
    files.refused("remove", json!({"path": "/workspace/a"}), 409, "DIRECTORY_NOT_EMPTY");
    files.shell("ln -s /etc /workspace/a/etc");
    files.done("remove", json!({"path": "/workspace/a", "recursive": true}));
    assert_eq!(files.get("exists", "/workspace/a", "").json(), json!({"exists": false}));
    assert_eq!(files.get("exists", "/etc/passwd", "").json(), json!({"exists": true, "type": "file"}));
    files.refused("remove", json!({"path": "/workspace/a"}), 404, "FILE_NOT_FOUND");
    files.done("remove", json!({"path": "/workspace/a", "missing_ok": true}));
    for path in ["/", "/.", "//", "/workspace/.."] {
        let answer = files.post("remove", &json!({"path": path, "recursive": true}));
        assert!(answer.status >= 400, "{path}: {}", answer.status);
    }
    assert_eq!(files.shell("ls -d /workspace /etc/passwd"), "/etc/passwd\n/workspace\n");
}

#[test]
fn renames_and_copies_replace_only_when_told() {
    let files = Files::start();
    files.write("/workspace/a", b"a");
    files.write("/workspace/b", b"b");
    files.refused("rename", json!({"from": "/workspace/a", "to": "/workspace/b"}), 409, "FILE_EXISTS");
    files.done("rename", json!({"from": "/workspace/a", "to": "/workspace/b", "overwrite": true}));
    assert_eq!(files.content("/workspace/b"), b"a");
    files.refused("rename", json!({"from": "/workspace/a", "to": "/workspace/c"}), 404, "FILE_NOT_FOUND");
    files.shell("cd /workspace && mkdir -p t/sub && printf 1 > t/one && printf 2 > t/sub/two && chmod 500 t/sub && ln -s one t/link && mkfifo t/fifo && chmod 4711 t/one");
    files.done("copy", json!({"from": "/workspace/t", "to": "/workspace/u"}));
    assert_eq!(
        files.shell("cd /workspace/u && find . -printf '%P %y %m %l\\n' | sort"),
        " d 755 \nfifo p 644 \nlink l 777 one\none f 711 \nsub d 500 \nsub/two f 644 \n"
    );
    files.refused("copy", json!({"from": "/workspace/t", "to": "/workspace/u"}), 409, "FILE_EXISTS");
    files.shell("printf new > /workspace/t/one");
    files.done("copy", json!({"from": "/workspace/t", "to": "/workspace/u", "overwrite": true}));
    assert_eq!(files.content("/workspace/u/one"), b"new");
    files.refused("copy", json!({"from": "/workspace/t", "to": "/workspace/t/sub/x"}), 422, "PATH_INVALID");
    files.refused("copy", json!({"from": "/workspace/none", "to": "/workspace/x"}), 404, "FILE_NOT_FOUND");
    files.refused("copy", json!({"from": "/dev/null", "to": "/workspace/x"}), 422, "FILE_NOT_REGULAR");
    // Between two file systems, where a rename cannot be.
    files.refused("rename", json!({"from": "/workspace/b", "to": "/dev/shm/b"}), 409, "CROSS_DEVICE");
    files.done("copy", json!({"from": "/workspace/b", "to": "/dev/shm/b"}));
    assert_eq!(files.content("/dev/shm/b"), b"a");
}

#[test]
fn modes_owners_and_links_change() {
    let files = Files::start();
    files.write("/workspace/a", b"a");
    files.done("symlink", json!({"target": "a", "path": "/workspace/link"}));
    files.refused("symlink", json!({"target": "b", "path": "/workspace/link"}), 409, "FILE_EXISTS");
    files.done("chmod", json!({"path": "/workspace/link", "mode": "0640"}));
    assert_eq!(files.stat("/workspace/a")["mode"], "0640");
    files.refused("chmod", json!({"path": "/workspace/a", "mode": "4755"}), 400, "INVALID_REQUEST");
    files.refused("chmod", json!({"path": "/workspace/a", "mode": "rwx"}), 400, "INVALID_REQUEST");
    files.refused(
        "chmod",
        json!({"path": "/workspace/a", "mode": "600", "user": "65534"}),
        403,
        "FILE_DENIED",
    );
    files.done("chown", json!({"path": "/workspace/a", "owner": "7:8"}));
    files.done("chown", json!({"path": "/workspace/link", "owner": "9", "no_follow": true}));
    assert_eq!(files.shell("cd /workspace && stat -c '%u %g' a link"), "7 8\n9 0\n");
    files.refused("chown", json!({"path": "/workspace/a", "owner": "no-such-user"}), 422, "USER_NOT_FOUND");
    let link = files.get("stat", "/workspace/link", "&no_follow").json();
    assert_eq!((&link["type"], &link["target"], &link["uid"]), (&json!("symlink"), &json!("a"), &json!(9)));
    assert_eq!(files.stat("/workspace/link")["type"], "file");
}

#[test]
fn text_is_found_line_by_line() {
    let files = Files::start();
    files.shell(
        "cd /workspace && mkdir -p src .hidden && printf 'one\\ntwo TODO x\\nthree' > src/a.rs && \
         printf 'TODO at the end' > b.txt && printf 'TODO\\0binary' > c.bin && echo TODO > .hidden/d && \
         printf 'caf\\351 TODO\\n' > latin && ln -s b.txt link",
    );
    let answer = files.post("search", &json!({"path": "/workspace", "text": "TODO"})).json();
    let found: Vec<_> = answer["matches"]
        .as_array()
        .unwrap()
        .iter()
        .map(|found| format!("{}:{}:{}", text(&found["path"]), found["line"], found["column"]))
        .collect();
    assert_eq!(found, ["b.txt:1:0", "latin:1:5", "src/a.rs:2:4"], "{answer}");
    assert_eq!((&answer["binary"], &answer["truncated"]), (&json!(1), &json!(false)), "{answer}");
    assert_eq!(answer["matches"][2]["text"], "two TODO x");
    assert_eq!(answer["matches"][1]["encoding"], "base64");
    let count = |body| {
        let answer = files.post("search", &body);
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        answer.json()["matches"].as_array().unwrap().len()
    };
    assert_eq!(count(json!({"path": "/workspace", "text": "TODO", "hidden": true})), 4);
    assert_eq!(count(json!({"path": "/workspace", "text": "todo"})), 0);
    assert_eq!(count(json!({"path": "/workspace", "text": "todo", "ignore_case": true})), 3);
    assert_eq!(count(json!({"path": "/workspace", "text": "T.DO"})), 0);
    assert_eq!(count(json!({"path": "/workspace", "regex": "^t(wo|hree)"})), 2);
    assert_eq!(count(json!({"path": "/workspace", "regex": "TODO", "glob": "*.rs"})), 1);
    assert_eq!(count(json!({"path": "/workspace/src/a.rs", "regex": "e$"})), 2);
    let cut = files.post("search", &json!({"path": "/workspace", "text": "TODO", "limit": 2})).json();
    assert_eq!((cut["matches"].as_array().unwrap().len(), &cut["truncated"]), (2, &json!(true)));
    for bad in [
        json!({"regex": "("}),
        json!({"regex": "(\\w{999}){999}"}),
        json!({}),
        json!({"text": "a", "regex": "b"}),
    ] {
        let mut body = json!({"path": "/workspace"});
        body.as_object_mut().unwrap().extend(bad.as_object().unwrap().clone());
        files.refused("search", body, 400, "INVALID_REQUEST");
    }
}
