//! JavaScript and TypeScript: the console's semantics, and loops of every kind that end.

use serde_json::{Value, json};

use super::data::of_image;
use super::{ask, code, code_with, create, data, events_until, start, text};
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
        // Half of a pair is no text that a client could read.
        ("'caf😀'.slice(0, 4) + '\\\\ud800😀'", Some("caf\u{fffd}\\ud800😀")),
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
    let result = code(daemon, name, "javascript", "throw new Error('cut ' + '😀'[0])");
    assert_eq!(result["error"]["message"], "cut \u{fffd}", "{result}");
    failures(daemon, name);
    again(daemon, name);
    let other = super::create(daemon, name, &json!({"language": "javascript"}));
    objects(daemon, name, &other);
    let trace =
        code(daemon, name, "javascript", "function f(){ null.foo }\nf()")["error"]["traceback"].clone();
    let lines: Vec<&str> = trace.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(lines.len() == 3 && lines[1].contains("at f (cell-") && lines[1].contains(".js:1:"), "{lines:?}");
    assert!(lines[2].contains(".js:2:"), "{lines:?}");
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

/// What begins with a brace, and the value of the last cell, as in node's own REPL.
#[track_caller]
fn objects(daemon: &Daemon, name: &str, language: &str) {
    for (cell, value) in [
        ("{a:1, b:2}", Some("{ a: 1, b: 2 }")),
        ("\n  {a: await Promise.resolve(3)} // of three\n", Some("{ a: 3 }")),
        ("{import: typeof (await import('fs')).existsSync}", Some("{ import: 'function' }")),
        ("{}", Some("{}")),
        ("{a:1};", Some("1")),
        ("{ let q = 4; q * 2 }", Some("8")),
        ("{ const q = () => { return 5 }\n q() }", Some("5")),
        ("'last'", Some("last")),
        ("_ + _", Some("lastlast")),
        ("const before = _; before", Some("lastlast")),
        ("nothing.there", None),
        ("_", Some("lastlast")),
        ("if (true) {}", None),
        ("typeof _", Some("undefined")),
        ("Object.keys(globalThis).includes('_')", Some("false")),
        ("_ = [1, 2]; 5", Some("5")),
        ("_.length", Some("2")),
        ("const _ = {chunk: 9}; 6", Some("6")),
        ("_.chunk", Some("9")),
    ] {
        let result = code(daemon, name, language, cell);
        assert_eq!(text(&result), value, "{language}: {cell}: {result}");
    }
    let error = code(daemon, name, language, "{\n  a: 1,\n  b: nothing.there}")["error"].clone();
    assert_eq!((&error["name"], &error["line"]), (&json!("ReferenceError"), &json!(3)), "{error}");
}

/// Names that are declared again as whatever: each cell with its value, or the error's message.
#[track_caller]
fn again(daemon: &Daemon, name: &str) {
    for (cell, wanted) in [
        ("let b = 1", Ok(None)),
        ("const b = 2", Ok(None)),
        ("b", Ok(Some("2"))),
        ("b = 3", Err("Assignment to constant variable.")),
        ("class b { static q = 4 }", Ok(None)),
        ("function b(n) { return n ? b(n - 1) + 1 : b.q ?? 0 }; b(5) + b.name", Ok(Some("5b"))),
        ("var b = 4; b", Ok(Some("4"))),
        ("let b = 5; b++; b", Ok(Some("6"))),
        ("function f() { return 1 }", Ok(None)),
        ("let f = 1; f", Ok(Some("1"))),
        ("class f {}; typeof f", Ok(Some("function"))),
        ("f = 9; f", Ok(Some("9"))),
        ("var v = 1", Ok(None)),
        ("const v = 3; v", Ok(Some("3"))),
        ("function v() {}; typeof v", Ok(Some("function"))),
        ("class K {}", Ok(None)),
        (
            "function K() { return this }; [new K() instanceof K, K() === globalThis, K?.() === globalThis].join()",
            Ok(Some("true,true,true")),
        ),
        ("let K = parts => parts[0]; K`tagged`", Ok(Some("tagged"))),
        ("let {p1, q1} = {p1: 1, q1: 2}", Ok(None)),
        ("const p1 = 5; p1 + q1", Ok(Some("7"))),
        (
            "let {p1, z1: [w1 = 3, ...rest1]} = {p1: 8, z1: [undefined, 1, 2]}; p1 + w1 + rest1.length",
            Ok(Some("13")),
        ),
        ("const p1 = 1; p1", Ok(Some("1"))),
        ("var {p1} = {p1: 77}; p1", Ok(Some("77"))),
        ("const c1 = 1", Ok(None)),
        ("let c1 = 2; c1 += 1; c1", Ok(Some("3"))),
        ("({c1}).c1 + (c1 => c1)(10) + `${c1}`", Ok(Some("133"))),
        ("{ let c1 = 20; c1 }", Ok(Some("20"))),
        ("for (var c1 = 0; c1 < 3; c1++); c1", Ok(Some("3"))),
        ("for (var c1 of [7, 8]); c1", Ok(Some("8"))),
        ("function g1() { return c1 } g1()", Ok(Some("8"))),
        ("c1 = 100; g1()", Ok(Some("100"))),
        ("const o1 = {c1: 1, m() { return c1 }}; o1.m() + o1.c1", Ok(Some("101"))),
        ("c1: for (;;) break c1; await Promise.resolve(c1)", Ok(Some("100"))),
        ("let d1 = 1; let d1 = 2", Err("Identifier 'd1' has already been declared")),
        (
            "globalThis.ran1 = (globalThis.ran1 ?? 0) + 1; eval('let e1; let e1')",
            Err("Identifier 'e1' has already been declared"),
        ),
        ("ran1", Ok(Some("1"))),
    ] {
        let result = code(daemon, name, "javascript", cell);
        match wanted {
            Ok(value) => {
                assert_eq!(result["error"], Value::Null, "{cell}: {result}");
                assert_eq!(text(&result), value, "{cell}: {result}");
            }
            Err(message) => assert_eq!(result["error"]["message"], message, "{cell}: {result}"),
        }
    }
    // Lines stay those of the cell.
    let error = code(
        daemon,
        name,
        "javascript",
        "const c1 = {\n  a: 1\n}\nfunction g1() {\n  c1.b.c\n}\ng1()",
    )["error"]
        .clone();
    assert_eq!((&error["name"], &error["line"]), (&json!("TypeError"), &json!(5)), "{error}");
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
        (
            "1\nimport {readFile, nosuch} from 'fs'",
            "SyntaxError",
            "The requested module 'fs' does not provide an export named 'nosuch'",
            json!(2),
        ),
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
    daemon.shell(&name, "mkfifo /tmp/fifo /tmp/other-fifo");
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
        "require('fs').readFileSync('/tmp/fifo')",
        "require('fs').writeFileSync('/tmp/other-fifo', 'x')",
        "require('child_process').execSync(\"trap '' INT; sleep 1000\")",
    ] {
        let body = json!({"code": cell, "timeout_ms": 300, "output_bytes_max": 100});
        let result = code_with(&daemon, &name, "javascript", &body);
        let found = (&result["error"]["name"], &result["timed_out"], &result["state_lost"]);
        assert_eq!(found, (&json!("TimeoutError"), &json!(true), &json!(false)), "{cell}: {result}");
        assert_eq!(text(&code(&daemon, &name, "javascript", "x")), Some("6"), "{cell}");
    }
}

#[test]
fn what_reads_in_javascript_is_answered_or_at_its_end() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let result = code(&daemon, &name, "javascript", "import 'fs'");
    assert_eq!((&result["results"], &result["error"]), (&json!([]), &Value::Null), "{result}");
    let kernels = "require('fs').readFileSync('/dev/stdin', 'utf8') + require('child_process').execSync('cat', {stdio: [0, 'pipe', 'inherit']})";
    assert_eq!(text(&code(&daemon, &name, "javascript", kernels)), Some(""), "no program of ours");
    let whole = "let all = ''; for await (const part of process.stdin) all += part; all.length";
    for _ in 0..2 {
        assert_eq!(text(&code(&daemon, &name, "javascript", whole)), Some("0"));
    }
    let cell = "const q = require('readline/promises').createInterface({input: process.stdin}); \
                const who = await q.question(''); q.close(); console.log('hi', who)";
    for wanted in ["Bob", "Ann"] {
        let body = json!({"code": cell, "stdin": true});
        let mut asked = 0;
        let mut connection = start(&daemon, &name, "javascript", &body);
        let events = events_until(&mut connection, "end", |event| {
            if event.name == "input" {
                asked += 1;
                ask(&daemon, &name, "javascript", "input", Some(&json!({"value": wanted})));
            }
        });
        let names: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
        assert_eq!((names, asked), (vec!["started", "input", "stdout", "end"], 1), "{events:?}");
        assert_eq!(data(&events[2])["data"], format!("hi {wanted}\n"));
    }
    assert_eq!(text(&code(&daemon, &name, "javascript", whole)), Some("0"));
}

#[test]
fn typescript_loses_its_types_and_keeps_its_enums() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let run = |cell: &str| code(&daemon, &name, "typescript", cell);
    let result = run("interface P {a:number}\nconst p: P = {a:1};\nenum E {A,B}\np.a + E.B");
    assert_eq!(text(&result), Some("2"), "{result}");
    assert_eq!(text(&run("E[1] + (p as any).a")), Some("B1"));
    assert_eq!(text(&run("{a: 1 as any, b: <number>2}")), Some("{ a: 1, b: 2 }"));
    objects(&daemon, &name, &create(&daemon, &name, &json!({"language": "typescript"})));
    // One that is declared again is another one; what a cell adds to its own is added.
    let result = run("enum E {P, Q}\nenum E {R = 2}\nE");
    assert_eq!(
        result["results"][0]["data"]["application/json"],
        json!({"0": "P", "1": "Q", "2": "R", "P": 0, "Q": 1, "R": 2}),
        "{result}"
    );
    run("enum E {A, B}");
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
fn typescript_has_all_that_becomes_code() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let run = |cell: &str| code(&daemon, &name, "typescript", cell);
    for (cell, value) in [
        ("enum Color { Red = 'r', Green = 2 }; [Color.Red, Color.Green, Color[2]].join()", "r,2,Green"),
        ("const enum Flag { A = 1 << 2, B = A | 1 }; Flag.B", "5"),
        (
            "namespace Deep.Er { export const q = 1; export namespace In { export const z = 2 } }; Deep.Er.q + Deep.Er.In.z",
            "3",
        ),
        (
            "abstract class Base { abstract m(): number; constructor(protected readonly v = 4) {} }\nclass Own extends Base { m() { return this.v } }; new Own().m()",
            "4",
        ),
        ("function over(a: string): string; function over(a: any) { return a }; over('o')!", "o"),
        ("const angled = <any>5; const generic = <T,>(x: T) => x; generic<number>(angled as number)", "5"),
        (
            "declare const nowhere: number; type T1 = keyof typeof Color; let late!: number; late = 3; late satisfies number",
            "3",
        ),
        ("import assert = require('assert'); typeof assert", "function"),
        (
            "const seen: string[] = [];\nfunction log(t: any, k?: string, d?: PropertyDescriptor) { seen.push(k ?? t.name) }\n\
             function twice(t: any, k: string, d: PropertyDescriptor) { const f = d.value; d.value = function (n: number) { return 2 * f.call(this, n) } }\n\
             function arg(t: any, k: string, at: number) { seen.push(`${k}#${at}`) }\n\
             @log class Old { @log p = 1; @twice m(@arg n: number) { return n } }\nseen.join() + new Old().m(4)",
            "p,m#0,Old8",
        ),
    ] {
        let result = run(cell);
        assert_eq!((text(&result), &result["error"]), (Some(value), &Value::Null), "{cell}: {result}");
    }
    // Elements need what makes them, as everywhere.
    let cell = "const y = <b a={1}>{[<i/>]}</b>; y.type + y.props.children[0].type";
    let error = run(cell)["error"].clone();
    assert!(error["message"].as_str().unwrap().contains("Cannot find package 'react'"), "{error}");
    daemon.shell(&name, "mkdir -p /workspace/node_modules/react && cd /workspace/node_modules/react && \
        echo 'exports.jsx = exports.jsxs = (type, props) => ({type, props})' > jsx-runtime.js && echo '{}' > package.json");
    let result = run(cell);
    assert_eq!((text(&result), &result["error"]), (Some("bi"), &Value::Null), "{result}");
    let cell =
        "/** @jsxRuntime classic @jsx h */\nfunction h(...all: any[]) { return all.join() }\n<p>text</p>";
    assert_eq!(text(&run(cell)), Some("p,,text"));
}

#[test]
fn typescript_names_the_places_of_its_source() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let run = |cell: &str| code(&daemon, &name, "typescript", cell);
    // Types before it are lines that node does not see.
    let cell = "interface P {\n  a: number\n}\n\ntype Q = {\n  b: string\n}\nfunction f(p: P | null): number {\n  \
                const q: Q = {b: 'x'}\n  return p!.a\n}\nenum E {\n  A,\n  B,\n}\nf(null)";
    let error = run(cell)["error"].clone();
    assert_eq!((&error["name"], &error["line"]), (&json!("TypeError"), &json!(10)), "{error}");
    let lines: Vec<&str> = error["traceback"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[1].contains("at f (cell-1.ts:10:"), "{lines:?}");
    assert!(lines[2].contains("at cell-1.ts:16:1"), "{lines:?}");
    // So does a function of an earlier cell, and whatever shows a stack itself.
    let error = run("type T = {\n  a: 1\n}\n\nf(null)")["error"].clone();
    assert_eq!(error["line"], 10, "{error}");
    assert!(error["traceback"][2].as_str().unwrap().contains("cell-2.ts:5:1"), "{error}");
    let result = run("type T = {\n  a: 1\n}\nconsole.log(new Error('seen').stack)");
    assert_eq!(result["stdout"], "Error: seen\n    at cell-3.ts:4:13\n", "{result}");
    let result = run(
        "type T = {\n  a: 1\n}\nPromise.reject(new Error('late')); await new Promise(r => setTimeout(r, 20))",
    );
    assert!(result["stderr"].as_str().unwrap().contains("cell-4.ts:4:16"), "{result}");
    let error = run(
        "import {\n  readFileSync,\n} from 'fs'\nimport type {Stats} from 'fs'\nreadFileSync('/nowhere')",
    )["error"]
        .clone();
    assert_eq!((&error["name"], &error["line"]), (&json!("Error"), &json!(5)), "{error}");
    // What the console refuses, and what cannot be: each with its line.
    for (cell, line, message) in [
        ("interface P {\n}\nconst twice = 1; {\n  let x = 1; var x = 2\n}", 4, "already been declared"),
        ("1\nfunction d(v: any, c: ClassDecoratorContext) {}", 2, "experimentalDecorators"),
        ("const x = 1\nconst y = <div>", 2, ""),
    ] {
        let error = run(cell)["error"].clone();
        assert_eq!(
            (&error["name"], &error["line"]),
            (&json!("SyntaxError"), &json!(line)),
            "{cell}: {error}"
        );
        assert!(error["message"].as_str().unwrap().contains(message), "{cell}: {error}");
    }
    assert_eq!(
        text(&run("namespace N { export enum C { Red = 'r' } }\nN.C.Red satisfies string")),
        Some("r")
    );
}

#[test]
fn javascript_of_modules_runs_in_cells() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let run = |cell: &str| code(&daemon, &name, "javascript", cell);
    daemon.shell(&name, "mkdir -p /workspace/lib && cd /workspace && echo '{\"a\": 5}' > data.json && echo 'export default 7; export const seven = 7' > lib/m.mjs");
    for (cell, value) in [
        ("import data from './data.json' with {type: 'json'}; data.a", Some("5")),
        ("import m, {seven} from './lib/m.mjs'; m + seven", Some("14")),
        ("(await import('./data.json', {with: {type: 'json'}})).default.a", Some("5")),
        ("import.meta.dirname", Some("/workspace")),
        ("import.meta.resolve('./lib/m.mjs')", Some("file:///workspace/lib/m.mjs")),
        ("export default function named() { return 3 }\nnamed()", Some("3")),
        ("export default {a: 1}", Some("{ a: 1 }")),
        ("export * from './lib/m.mjs'; export {seven}; seven", Some("7")),
    ] {
        let result = run(cell);
        assert_eq!((text(&result), &result["error"]), (value, &Value::Null), "{cell}: {result}");
    }
    let error = run("await import('no-such-module')")["error"].clone();
    assert_eq!(error["message"], "Cannot find package 'no-such-module'", "{error}");
    assert!(error["traceback"][0].as_str().unwrap().contains("no-such-module"), "{error}");
}

#[test]
fn values_and_globals_that_are_broken_do_not_stop_javascript() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let run =
        |cell: &str| code_with(&daemon, &name, "javascript", &json!({"code": cell, "timeout_ms": 20_000}));
    let result = run(
        "const {Worker} = require('worker_threads'); const w = new Worker(\"console.log('from a worker'); \
                      require('worker_threads').parentPort.postMessage(5)\", {eval: true}); await new Promise(r => w.on('message', r))",
    );
    assert_eq!((text(&result), &result["stdout"]), (Some("5"), &json!("from a worker\n")), "{result}");
    let plain = json!({"a": [1, {"b": null}], "when": "1970-01-01T00:00:00.000Z"});
    let result = run("({a: [1, {b: null}], when: new Date(0)})");
    assert_eq!(result["results"][0]["data"]["application/json"], plain, "{result}");
    // Data is shown; nobody's code is run for that, and what fails there fails no run.
    for (cell, value) in [
        ("new Proxy({}, {get() { throw new Error('trap') }, ownKeys() { throw new Error('trap') }})", "{}"),
        ("({get secret() { console.log('side effect'); return 1 }})", "{ secret: [Getter] }"),
        ("[{get secret() { console.log('side effect'); return 1 }}]", "[ { secret: [Getter] } ]"),
        ("({deep: new Proxy({a: 1}, {get() { throw new Error('trap') }})})", "{ deep: { a: 1 } }"),
    ] {
        let result = run(cell);
        assert_eq!((text(&result), &result["error"]), (Some(value), &Value::Null), "{cell}: {result}");
        let data = result["results"][0]["data"].as_object().unwrap();
        assert_eq!((data.len(), &result["stdout"]), (1, &json!("")), "{cell}: {result}");
    }
    for cell in [
        "({[require('util').inspect.custom]() { throw new Error('no view') }, a: 1})",
        "({get [Symbol.for('Jupyter.display')]() { throw new Error('no view') }, a: 1})",
        "({[Symbol.for('Jupyter.display')]: () => { throw new Error('no view') }, a: 1})",
        "({[Symbol.for('Jupyter.display')]: () => ({'text/html': 1n}), a: 1})",
    ] {
        let result = run(cell);
        assert_eq!(result["error"], Value::Null, "{cell}: {result}");
        let said = result["stderr"].as_str().unwrap();
        assert!(said.contains("no view") || said.contains("not a bigint"), "{cell}: {result}");
        assert!(!said.contains("stdin"), "{cell}: {result}");
    }
    let result = run("new Error('a value')");
    assert_eq!(text(&result).map(|text| text.lines().count()), Some(2), "our frames are nobody's: {result}");
    let result = run("Array(1e6).fill({a: 1})");
    assert_eq!(result["results"][0]["truncated"], json!(["application/json"]), "{}", result["error"]);
    for cell in [
        "JSON.stringify = JSON.parse = null",
        "globalThis.Buffer = undefined",
        "globalThis.Error = undefined",
        "process.removeAllListeners()",
        "console = null",
    ] {
        run(cell);
        let result = run("({a: 1})");
        assert_eq!(result["results"][0]["data"]["application/json"], json!({"a": 1}), "{cell}: {result}");
    }
}

#[test]
fn what_is_shown_by_type_is_of_that_type() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let run = |cell: &str| code(&daemon, &name, "javascript", cell);
    for (cell, said) in [
        ("display.html(5)", "display.html: text/html is a string, and not a number"),
        ("display.svg()", "image/svg+xml is a string, and not undefined"),
        ("display.png('!!')", "image/png is a Uint8Array, or a string of base64"),
        ("display.pdf(new ArrayBuffer(3))", "not an object (ArrayBuffer)"),
        ("display.json(undefined)", "not undefined"),
        ("display.json([NaN])", "JSON has no word for NaN"),
        ("display.json({f() {}})", "JSON has no word for a function"),
        ("display.json(1n)", "BigInt"),
        ("const round = {}; round.round = round; display.json(round)", "circular"),
        ("display.mime('abc')", "takes an object"),
        ("display.mime({'text/plain': 5})", "text/plain is a string"),
        ("display.mime({plain: 'x'})", "\"plain\" is no MIME type"),
    ] {
        let result = run(cell);
        let error = &result["error"];
        assert!(error["message"].as_str().is_some_and(|message| message.contains(said)), "{cell}: {result}");
        assert_eq!(
            (&error["name"], &result["results"], &result["state_lost"]),
            (&json!("TypeError"), &json!([]), &json!(false)),
            "{cell}"
        );
    }
    for (cell, mime, value) in [
        ("display.png(Buffer.from('hi'))", "image/png", json!("aGk=")),
        ("display.png('aGk=')", "image/png", json!("aGk=")),
        ("display.json('s')", "application/json", json!("s")),
        ("display.json(new Date(0))", "application/json", json!("1970-01-01T00:00:00.000Z")),
        (
            "display.mime({'application/x-thing+json': {a: [1]}})",
            "application/x-thing+json",
            json!({"a": [1]}),
        ),
        // What JSON would say otherwise, or not at all, is text alone.
        ("[NaN]", "application/json", Value::Null),
        ("({a: [1, {b: -Infinity}]})", "application/json", Value::Null),
        ("[undefined]", "application/json", Value::Null),
        ("[1,, 2]", "application/json", Value::Null),
        ("[new Map([[1, 2]])]", "application/json", Value::Null),
        ("({run() {}})", "application/json", Value::Null),
        ("({a: undefined, b: [1.5, null]})", "application/json", json!({"b": [1.5, null]})),
    ] {
        let result = run(cell);
        assert_eq!(
            (&result["error"], &result["results"][0]["data"][mime]),
            (&Value::Null, &value),
            "{cell}: {result}"
        );
    }
}

#[test]
fn a_heap_that_is_full_is_a_typed_error() {
    let daemon = Daemon::start();
    let name = crate::harness::id(&daemon.create(json!({"resources": {"memory_bytes": 256 << 20}})));
    let fill = "const all = []; while (true) all.push(new Array(1000).fill(Math.random()))";
    let result = code(&daemon, &name, "javascript", fill);
    assert_eq!(
        (&result["error"]["name"], &result["state_lost"]),
        (&json!("OutOfMemory"), &json!(true)),
        "{}",
        result["error"]
    );
    assert_eq!(result["oom_killed"], false, "its own limit came first: {}", result["error"]);
    assert_eq!(text(&code(&daemon, &name, "javascript", "1+1")), Some("2"));
    // Three quarters of the memory, unless the environment says otherwise.
    let limit = "Math.round(require('v8').getHeapStatistics().heap_size_limit / 2 ** 20 / 10) * 10 < 250";
    assert_eq!(text(&code(&daemon, &name, "javascript", limit)), Some("true"));
    let own =
        json!({"language": "javascript", "id": "own", "env": {"NODE_OPTIONS": "--max-old-space-size=777"}});
    create(&daemon, &name, &own);
    assert_eq!(text(&code(&daemon, &name, "own", limit)), Some("false"));
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
    // Nothing is left of it, however often it was asked for.
    std::thread::scope(|scope| {
        for detach in [true, false, false] {
            let body = json!({"code": "1", "detach": detach});
            let (daemon, name) = (&daemon, &name);
            scope.spawn(move || {
                let answer = super::try_code(daemon, name, "python", &body);
                crate::harness::assert_error(&answer, 422, "LANGUAGE_NOT_IN_IMAGE");
            });
        }
    });
    let list = daemon.get(&format!("/v1/sandboxes/{name}/contexts"));
    assert_eq!(list["contexts"], json!([]), "{list}");
    semantics(&daemon, &name);
    let error = code(&daemon, &name, "typescript", "type A = {\n}\n(null as any).x")["error"].clone();
    assert_eq!((&error["name"], &error["line"]), (&json!("TypeError"), &json!(3)), "{error}");
}

/// What node says of an error beside its text, and of what it warns of.
#[test]
fn an_error_of_node_is_shown_with_what_is_known_of_it() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let told = |cell: &str| {
        let error = code(&daemon, &name, "javascript", cell)["error"].clone();
        let lines: Vec<String> = error["traceback"]
            .as_array()
            .unwrap()
            .iter()
            .map(|line| line.as_str().unwrap().to_owned())
            .collect();
        lines.join("\n")
    };
    let caused = "Error: outer\n    at cell-1.js:1:7 {\n  [cause]: Error: inner\n      at cell-1.js:1:34\n}";
    assert_eq!(told("throw new Error('outer', {cause: new Error('inner')})"), caused);
    let missing = told("require('fs').readFileSync('/nothing')");
    assert!(missing.contains("at cell-2.js:1:15 {\n") && missing.contains("  code: 'ENOENT'"), "{missing}");
    assert!(!missing.contains("node:"), "{missing}");
    let all = told("await Promise.any([Promise.reject(new Error('one'))])");
    assert!(all.contains("[errors]: [\n") && all.contains("Error: one"), "{all}");
    let own =
        "class Mine extends Error { constructor(m) { super(m); this.name = 'Mine' } }\nthrow new Mine('x')";
    assert_eq!(told(own), "Mine: x\n    at cell-4.js:2:7");
    let result =
        code(&daemon, &name, "javascript", "process.emitWarning('careful', {code: 'W1'}); await null; 1");
    let said = result["stderr"].as_str().unwrap();
    assert!(said.starts_with("(node:") && said.ends_with(") [W1] Warning: careful\n"), "{said}");
}
