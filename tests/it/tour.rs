//! README's tour, line by line, as a reader would type it.

use std::process::Command;

use crate::harness::Daemon;

/// The lines of the first block of shell under this heading.
fn block(heading: &str) -> Vec<String> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(path).expect("README.md");
    let section = text.split(&format!("\n## {heading}\n")).nth(1).expect("the section");
    let block = section.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block");
    block.lines().map(str::to_owned).collect()
}

#[test]
fn each_line_of_the_tour_does_what_it_says() {
    let daemon = Daemon::with(&["--preview-listen", "127.0.0.1:0"]);
    let lines = block("A tour");
    assert!(lines.len() >= 10, "{lines:?}");
    for line in lines {
        // The function that README defines before, with this daemon's socket.
        let api = format!(
            "api() {{ curl -s --unix-socket {} -H 'content-type: application/json' -w ' %{{http_code}}' \"$@\"; }}\n",
            daemon.socket().display()
        );
        let ran = Command::new("bash").args(["-c", &(api + &line)]).output().expect("bash");
        let text = String::from_utf8_lossy(&ran.stdout).into_owned();
        let status = text.rsplit(' ').next().and_then(|status| status.trim().parse::<u16>().ok());
        assert!(ran.status.success(), "{line}: {ran:?}");
        assert!(status.is_some_and(|status| (200..300).contains(&status)), "{line}: {text}");
        if let Some((_, promised)) = line.rsplit_once("# ") {
            assert!(text.contains(promised.trim()), "{line}: {text}");
        }
    }
}
