//! JavaScript and TypeScript: the console's semantics, and loops of every kind that end.

use serde_json::{Value, json};

use super::data::of_image;
use super::{code, code_with, create, text};
use crate::harness::{Daemon, skip};

/// What cells give in any JavaScript context.
#[track_caller]
fn semantics(daemon: &Daemon, name: &str) {
    for (cell, value) in [
        ("const x = 5; x * 2", Some("10")),
        ("const x = 6; x", Some("6")),
        ("let y = 1", None),
        ("let y = 2; y", Some("2")),
        ("class C {}; class D {}", None),
        ("class C { m() { return 3 } }; new C().m()", Some("3")),
        ("const r = await Promise.resolve(42);\nr", Some("42")),
        ("Promise.resolve(123)", Some("123")),
        ("({a:1,b:[1,2]})", Some("{ a: 1, b: [ 1, 2 ] }")),
        ("new Map([[1,{a:2}]])", Some("Map(1) { 1 => { a: 2 } }")),
        ("const o={};o.o=o;o", Some("<ref *1> { o: [Circular *1] }")),
        ("({a:1n})", Some("{ a: 1n }")),
        ("-0", Some("-0")),
        ("null", Some("null")),
        ("undefined", None),
        ("10n", Some("10")),
        ("Symbol('q')", Some("Symbol(q)")),
        (
            "import fs, {readFileSync as rf} from 'fs';\nimport * as os from 'node:os';\n[typeof fs.readFileSync, typeof rf, typeof os.cpus].join()",
            Some("function,function,function"),
        ),
        ("import fs from 'fs'; typeof fs.existsSync", Some("function")),
        ("(await import('node:fs')).existsSync('/')", Some("true")),
        ("export const z = 9; z", Some("9")),
        (
            "[typeof fetch, typeof URL, typeof crypto, typeof require, typeof structuredClone].join()",
            Some("function,function,object,function,function"),
        ),
        ("Buffer.from('a') instanceof Uint8Array", Some("true")),
        ("[typeof send, typeof session, typeof finishRun].join()", Some("undefined,undefined,undefined")),
    ] {
        let result = code(daemon, name, "javascript", cell);
        assert_eq!(result["error"], Value::Null, "{cell}: {result}");
        let wanted = if cell == "10n" { Some("10n") } else { value };
        assert_eq!(text(&result), wanted, "{cell}: {result}");
    }
    failures(daemon, name);
    let result = code(daemon, name, "javascript", "({a:1})");
    assert_eq!(result["results"][0]["data"]["application/json"], json!({"a": 1}), "{result}");
    let cell = "console.log('a'); display.html('<b>'); console.log('b'); console.error('e'); require('child_process').execSync('echo c >&2')";
    let result = code(daemon, name, "javascript", &format!("{cell}; 1"));
    assert_eq!((&result["stdout"], &result["stderr"]), (&json!("a\nb\n"), &json!("e\nc\n")), "{result}");
    assert_eq!(result["results"][0]["data"], json!({"text/html": "<b>"}), "{result}");
    assert_eq!(
        text(&code(daemon, name, "javascript", "setTimeout(() => { throw new Error('late') }, 1); x")),
        Some("6")
    );
    assert_eq!(text(&code(daemon, name, "javascript", "Promise.reject(1); x")), Some("6"));
}

#[track_caller]
fn failures(daemon: &Daemon, name: &str) {
    for (cell, error, message, line) in [
        (
            "function f(){ null.foo }\nf()",
            "TypeError",
            "Cannot read properties of null (reading 'foo')",
            json!(1),
        ),
        ("1\nlet = ;", "SyntaxError", "", json!(2)),
        ("throw 'boom'", "Error", "boom", Value::Null),
        ("await Promise.reject(new TypeError('async error'))", "TypeError", "async error", json!(1)),
        ("process.exit(3)", "ProcessExit", "process.exit(3)", json!(1)),
    ] {
        let result = code(daemon, name, "javascript", cell);
        let found = &result["error"];
        assert_eq!((&found["name"], &found["line"]), (&json!(error), &line), "{cell}: {result}");
        assert!(found["message"].as_str().unwrap().starts_with(message), "{cell}: {result}");
        let lines = found["traceback"].as_array().unwrap();
        assert!(lines.iter().all(|line| !line.as_str().unwrap().contains("node:")), "{cell}: {result}");
        assert_eq!(
            (&result["state_lost"], &result["stdout"]),
            (&json!(false), &json!("")),
            "{cell}: {result}"
        );
    }
}

#[test]
fn javascript_is_the_console_of_an_inspector() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    semantics(&daemon, &name);
    let run = |body: Value| code_with(&daemon, &name, "javascript", &body);
    assert_eq!(text(&run(json!({"code": "process.env.FOO", "env": {"FOO": "b'a\"r"}}))), Some("b'a\"r"));
    assert_eq!(text(&run(json!({"code": "process.env.FOO"}))), None);
    assert_eq!(text(&run(json!({"code": "process.cwd()", "cwd": "/tmp"}))), Some("/tmp"));
    assert_eq!(text(&run(json!({"code": "process.cwd()"}))), Some("/workspace"));
    let result = run(json!({"code": "process.stdout.write('y'.repeat(5e7)); 1", "output_bytes_max": 10}));
    assert_eq!(
        (&result["stdout"], &result["stdout_bytes"]),
        (&json!("yyyyyyyyyy"), &json!(50_000_000)),
        "{result}"
    );
    let result = run(json!({"code": "process.kill(process.pid, 'SIGKILL'); while (true);"}));
    assert_eq!(
        (&result["error"]["name"], &result["signal"]),
        (&json!("InterpreterDied"), &json!("SIGKILL")),
        "{result}"
    );
    assert_eq!(run(json!({"code": "1+1"}))["restarted"], true);
    let (a, b) = (json!({"language": "javascript", "id": "a"}), json!({"language": "javascript", "id": "b"}));
    let (a, b) = (create(&daemon, &name, &a), create(&daemon, &name, &b));
    code(&daemon, &name, &a, "var s = 1");
    assert_eq!(text(&code(&daemon, &name, &b, "typeof s")), Some("undefined"));
}

#[test]
fn loops_of_every_kind_end_and_javascript_keeps_its_state() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    code(&daemon, &name, "javascript", "const x = 6");
    for cell in [
        "while (true);",
        "for (;;) { try { while (true); } catch {} }",
        "await 1; while (true);",
        "setTimeout(() => { while (true); }, 1); await new Promise(() => {})",
        "await new Promise(() => {})",
        "/(a+)+$/.test('a'.repeat(40) + 'b')",
        "while (true) console.log('x'.repeat(100))",
        "require('child_process').execSync('sleep 1000')",
        "setInterval(() => {}, 1); await new Promise(() => {})",
    ] {
        let body = json!({"code": cell, "timeout_ms": 300, "output_bytes_max": 100});
        let result = code_with(&daemon, &name, "javascript", &body);
        let found = (&result["error"]["name"], &result["timed_out"], &result["state_lost"]);
        assert_eq!(found, (&json!("TimeoutError"), &json!(true), &json!(false)), "{cell}: {result}");
        assert_eq!(text(&code(&daemon, &name, "javascript", "x")), Some("6"), "{cell}");
    }
}

#[test]
fn typescript_loses_its_types_and_keeps_its_enums() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let run = |cell: &str| code(&daemon, &name, "typescript", cell);
    let result = run("interface P {a:number}\nconst p: P = {a:1};\nenum E {A,B}\np.a + E.B");
    assert_eq!(text(&result), Some("2"), "{result}");
    assert_eq!(text(&run("E[1] + (p as any).a")), Some("B1"));
    let result = run("const ok = 1\nconst z: = 1");
    assert_eq!(
        (&result["error"]["name"], &result["error"]["line"]),
        (&json!("SyntaxError"), &json!(2)),
        "{result}"
    );
    assert_eq!(text(&run("const n: number = 's' as any; n")), Some("s"));
    assert_eq!(
        text(&run("import type {Stats} from 'fs'; import {existsSync} from 'fs'; existsSync('/')")),
        Some("true")
    );
    assert_eq!(
        text(&run(
            "namespace N { export const q = 1 }; class K { constructor(private v: number) {} get() { return this.v } }; new K(7).get() + N.q"
        )),
        Some("8")
    );
    // A cell that kills the parser kills a worker, and nothing else.
    let deep = format!("{}1{}", "(".repeat(200_000), ")".repeat(200_000));
    super::try_code(&daemon, &name, "typescript", &json!({"code": deep}));
    assert_eq!(text(&run("E.B")), Some("1"));
}

#[test]
fn an_image_without_the_language_says_which_have_it() {
    let daemon = Daemon::start();
    let Some(name) = of_image(&daemon, "node") else {
        skip!("built-image", "target/images/node is not there");
    };
    let answer = super::try_code(&daemon, &name, "python", &json!({"code": "1"}));
    let error = crate::harness::assert_error(&answer, 422, "LANGUAGE_NOT_IN_IMAGE");
    assert!(error["hint"].as_str().unwrap().contains("`python`"), "{error}");
    semantics(&daemon, &name);
}
