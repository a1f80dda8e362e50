//! Clients that hold what they do not use: slow heads and slow bodies.

use std::io::{ErrorKind, Read as _, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::PATIENCE;
use crate::harness::previews::{PORT, authority, expose, get, seen, serving};

/// Sends a byte and waits, until the other end has closed; false when it still listens after [`PATIENCE`].
fn drip(mut stream: impl Write, bytes: &[u8], pause: Duration) -> bool {
    let began = Instant::now();
    for byte in bytes.iter().cycle() {
        if began.elapsed() > PATIENCE {
            return false;
        }
        match stream.write(&[*byte]) {
            Ok(_) => thread::sleep(pause),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(_) => return true,
        }
    }
    false
}

fn visitor(address: &str) -> TcpStream {
    let port: u16 = address.rsplit_once(':').unwrap().1.parse().unwrap();
    TcpStream::connect(("127.0.0.1", port)).unwrap()
}

#[test]
fn a_head_that_drips_is_given_up_and_others_are_served_meanwhile() {
    let daemon = serving();
    let address = authority(&expose(&daemon, "box", json!({"port": PORT})));
    let pause = Duration::from_secs(1);
    thread::scope(|scope| {
        let mut dripping = Vec::new();
        for _ in 0..50 {
            let (previews, api) = (visitor(&address), UnixStream::connect(daemon.socket()).unwrap());
            dripping.push(scope.spawn(move || drip(previews, b"GET / HTTP/1.1\r\nx-a: b", pause)));
            dripping.push(scope.spawn(move || drip(api, b"GET / HTTP/1.1\r\nx-a: b", pause)));
        }
        for _ in 0..5 {
            assert_eq!(get(&address, "/").status, 200);
            assert_eq!(daemon.request("GET", "/v1/healthz", None).status, 200);
            thread::sleep(pause);
        }
        let given_up =
            dripping.into_iter().map(|thread| thread.join().unwrap()).filter(|ended| *ended).count();
        assert_eq!(given_up, 100);
    });
}

#[test]
fn a_body_that_drips_is_given_up_and_a_slow_one_is_not() {
    let daemon = serving();
    let address = authority(&expose(&daemon, "box", json!({"port": PORT})));
    let begin = |path: &str| {
        let mut stream = visitor(&address);
        let head = format!("POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 20000\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    thread::scope(|scope| {
        let dripping = scope.spawn(|| drip(begin("/drips"), b"b", Duration::from_millis(500)));
        // Longer than the time that a body has without earning more of it.
        let slow = scope.spawn(|| {
            let mut stream = begin("/slow");
            for _ in 0..25 {
                stream.write_all(&[b'b'; 800]).unwrap();
                thread::sleep(Duration::from_secs(1));
            }
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut status = [0; 12];
            stream.read_exact(&mut status).unwrap();
            String::from_utf8_lossy(&status).into_owned()
        });
        assert!(dripping.join().unwrap(), "a body of two bytes in a second is still waited for");
        assert_eq!(slow.join().unwrap(), "HTTP/1.1 200");
    });
    assert!(seen(&address).iter().any(|line| line.contains("/slow")));
}
