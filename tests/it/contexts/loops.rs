//! Interrupts of JavaScript: whatever it is doing, it ends, and the state stays.

use serde_json::json;

use super::data::of_image;
use super::{ask, code, data, events_until, start, text};
use crate::harness::{Daemon, skip};

/// Code that never ends by itself, after it has written something.
const LOOPS: [&str; 28] = [
    "console.log('on'); while (true);",
    "console.log('on'); for (;;) { try { while (true); } catch {} finally { continue } }",
    "while (true) console.log('x')",
    "while (true) { console.log('x'); display(1) }",
    "console.log('on'); await 1; while (true);",
    "console.log('on'); await new Promise(() => {})",
    "console.log('on'); while (true) await null",
    "console.log('on'); (function f() { Promise.resolve().then(f) })(); await new Promise(() => {})",
    "console.log('on'); (function f() { Promise.reject(1).catch(f) })(); await new Promise(() => {})",
    "console.log('on'); (function f() { process.nextTick(f) })(); await new Promise(() => {})",
    "console.log('on'); (function f() { setImmediate(f) })(); await new Promise(() => {})",
    "setTimeout(() => { console.log('on'); while (true); }, 1); await new Promise(() => {})",
    "setImmediate(() => {}); setImmediate(() => { console.log('on'); while (true); }); await new Promise(() => {})",
    "setInterval(() => {}, 1); console.log('on'); await new Promise(() => {})",
    "console.log('on'); while (true) require('fs').readFileSync('/etc/passwd')",
    "console.log('on'); /(a+)+$/.test('a'.repeat(40) + 'b')",
    "console.log('on'); Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)",
    "require('child_process').execSync('echo on; sleep 1000', {stdio: 'inherit'})",
    "console.log('on'); async function* all() { while (true) yield 1 }; for await (const one of all());",
    "console.log('on'); require('stream').Readable.from((function* () { while (true) yield 'x' })()).resume(); \
     await new Promise(() => {})",
    "console.log('on'); ({toJSON() { while (true); }})",
    "console.log('on'); ({[Symbol.for('nodejs.util.inspect.custom')]() { while (true); }})",
    "console.log('on'); [3, 1, 2].sort(() => { while (true); })",
    "console.log('on'); require('vm').runInNewContext('while (true);')",
    "console.log('on'); while (true) { try { JSON.parse(JSON.stringify({a: [1]})); new URL('http://a') } catch {} }",
    "const big = JSON.stringify(Array.from({length: 3e5}, () => ({a: 1}))); console.log('on'); while (true) JSON.parse(big)",
    "const wide = Array.from({length: 3e5}, () => ({a: 1})); console.log('on'); while (true) JSON.stringify(wide)",
    "require('child_process').execSync(\"trap '' INT; echo on; sleep 1000\", {stdio: 'inherit'})",
];

/// Collects what nobody holds: that is when V8 tells whoever waits for a promise that it will never come.
const COLLECT: &str =
    "require('v8').setFlagsFromString('--expose-gc'); require('vm').runInNewContext('gc')(); kept";

#[test]
fn a_storm_of_interrupts_costs_no_state() {
    let daemon = Daemon::start();
    let Some(name) = of_image(&daemon, "node") else {
        skip!("built-image", "target/images/node is not there");
    };
    code(&daemon, &name, "javascript", "const kept = 6");
    // The same order every time, so that a failure can be seen again.
    let mut seed = 20_261_129_u64;
    let mut chance = move |of: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % of
    };
    for round in 0..3 {
        let mut left = LOOPS.to_vec();
        while !left.is_empty() {
            let cell = left.swap_remove(chance(left.len()));
            let mut asked = false;
            let body = json!({"code": cell, "output_bytes_max": 1000});
            let mut connection = start(&daemon, &name, "javascript", &body);
            let events = events_until(&mut connection, "end", |event| {
                if event.name == "stdout" && !std::mem::replace(&mut asked, true) {
                    ask(&daemon, &name, "javascript", "interrupt", None);
                }
            });
            let end = data(events.last().unwrap());
            assert_eq!(
                (&end["error"]["name"], &end["interrupted"], &end["state_lost"]),
                (&json!("KeyboardInterrupt"), &json!(true), &json!(false)),
                "{round}: {cell}: {end}"
            );
            let result = code(&daemon, &name, "javascript", COLLECT);
            assert_eq!(text(&result), Some("6"), "{round}: after {cell}: {result}");
        }
    }
    // Immediates behind one that was ended have their turn, those that were made meanwhile too.
    let cell = "var seen = []; setImmediate(() => { setImmediate(() => seen.push('new')) }); \
                setImmediate(() => { console.log('on'); while (true); }); setImmediate(() => seen.push('next')); \
                await new Promise(() => {})";
    let mut connection = start(&daemon, &name, "javascript", &json!({"code": cell}));
    events_until(&mut connection, "end", |event| {
        if event.name == "stdout" {
            ask(&daemon, &name, "javascript", "interrupt", None);
        }
    });
    let seen = "await new Promise(then => setTimeout(then, 100)); seen.join()";
    assert_eq!(text(&code(&daemon, &name, "javascript", seen)), Some("next,new"));
    // With a promise that nobody can settle a run goes on, though it is collected.
    let waits = "setTimeout(() => { require('vm').runInNewContext('gc')(); console.log('on') }, 1); await new Promise(() => {})";
    let mut connection = start(&daemon, &name, "javascript", &json!({"code": waits}));
    let events = events_until(&mut connection, "end", |event| {
        if event.name == "stdout" {
            ask(&daemon, &name, "javascript", "interrupt", None);
        }
    });
    assert_eq!(data(events.last().unwrap())["state_lost"], false, "{events:?}");
    assert_eq!(text(&code(&daemon, &name, "javascript", COLLECT)), Some("6"));
}
