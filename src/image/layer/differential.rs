//! Archives that two readers understand differently hide entries from one of them (CVE-2025-62518): what we accept must
//! be what Python's tarfile and GNU tar see.
//!
//! Archives that GNU tar has made in its formats are changed at random in their headers, with sums that fit again. The
//! seeds are fixed; `cargo xtask fuzz` goes on with others (`STOCKADE_FUZZ_ROUNDS`).

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use super::tests::Ground;

/// Archives that are read by one start of Python.
const BATCH: u64 = 300;

/// Prints, for each archive, a line with its regular files and their contents, or `-` when it is refused.
const PYTHON: &str = r#"
import json, sys, tarfile
for path in sys.argv[1:]:
    try:
        files = {}
        with tarfile.open(path, "r:", errorlevel=2, encoding="utf-8", errors="surrogateescape") as archive:
            for entry in archive:
                if entry.name.startswith("/") or ".." in entry.name or ".wh." in entry.name or not entry.name.isascii():
                    raise ValueError(entry.name)
                if entry.isreg(): files[entry.name.strip("/")] = archive.extractfile(entry).read().hex()
                elif not entry.isdir(): raise ValueError("only files and directories are compared")
            archive.fileobj.seek(archive.offset)
            # It takes a header that is damaged for the end, without a word. GNU tar goes on, as we do.
            if archive.fileobj.read(512).strip(b"\0"): raise ValueError("stopped before the end")
        print(json.dumps(files))
    except Exception:
        print("-")
"#;

/// A generator of numbers that is the same everywhere (xorshift64*, Vigna 2016).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).expect("small")).expect("small")
    }
}

/// The corpus: small trees in each of GNU tar's formats.
fn corpus() -> Vec<Vec<u8>> {
    let source = tempfile::tempdir().expect("directory");
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(120));
    std::fs::create_dir_all(source.path().join("a/b")).expect("mkdir");
    std::fs::create_dir(source.path().join("d".repeat(90))).expect("mkdir");
    for (name, content) in
        [("a/one", "1".repeat(700)), ("a/b/two", "22".to_owned()), (long.as_str(), "3".repeat(513))]
    {
        std::fs::write(source.path().join(name), content).expect("write");
    }
    let made = |format: &str| {
        let tar =
            Command::new("tar").args(["-c", format, "-C"]).arg(source.path()).args(["a", &long]).output();
        tar.expect("GNU tar").stdout
    };
    ["--format=gnu", "--format=posix", "--format=oldgnu"].map(made).to_vec()
}

/// Changes a few bytes of headers, and makes their sums right again.
fn mutant(corpus: &[Vec<u8>], numbers: &mut Numbers) -> Vec<u8> {
    /// Where a header has its fields: name, mode, owner, size, time, type, link, magic, prefix; and bytes that mean something.
    const FIELDS: [(usize, usize); 9] =
        [(0, 100), (100, 8), (108, 16), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (345, 155)];
    const BYTES: &[u8] = b"\0 0127LxgKSV./9\x80\xff=\n";
    let mut archive = corpus[numbers.below(corpus.len())].clone();
    for _ in 0..=numbers.below(3) {
        let block = numbers.below(archive.len() / 512) * 512;
        let (at, width) = FIELDS[numbers.below(FIELDS.len())];
        archive[block + at + numbers.below(width)] = BYTES[numbers.below(BYTES.len())];
        let sum: u32 = archive[block..block + 512]
            .iter()
            .enumerate()
            .map(|(at, &byte)| if (148..156).contains(&at) { 32 } else { u32::from(byte) })
            .sum();
        archive[block + 148..block + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    archive
}

/// Regular files below a root, with their contents in hexadecimal digits.
fn files(root: &Path) -> BTreeMap<String, String> {
    let (mut found, mut waiting) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(&directory).expect("list").flatten() {
            let path = entry.path();
            if path.is_dir() {
                waiting.push(path);
                continue;
            }
            let content = std::fs::read(&path).unwrap_or_default();
            let name = path.strip_prefix(root).expect("below").display().to_string();
            found.insert(name, content.iter().map(|byte| format!("{byte:02x}")).collect());
        }
    }
    found
}

#[test]
fn what_is_accepted_is_what_python_sees() {
    let rounds = std::env::var("STOCKADE_FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let corpus = corpus();
    let mut compared = 0;
    for round in 0..rounds {
        let mut numbers = Numbers(0x5EED_0000 + round);
        let directory = tempfile::tempdir().expect("directory");
        let mut accepted = Vec::new();
        for number in 0..BATCH {
            let archive = mutant(&corpus, &mut numbers);
            let ground = Ground::new();
            if ground.unpack(&archive).is_ok() {
                let path = directory.path().join(number.to_string());
                std::fs::write(&path, &archive).expect("write");
                accepted.push((path, files(&ground.root())));
            }
        }
        let paths = accepted.iter().map(|(path, _)| path);
        let output = Command::new("python3").args(["-c", PYTHON]).args(paths).output().expect("python3");
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text.lines().count(), accepted.len(), "{}", String::from_utf8_lossy(&output.stderr));
        for ((path, ours), theirs) in accepted.iter().zip(text.lines()) {
            // What it refuses, or what is no plain tree, says nothing.
            let Ok(theirs) = serde_json::from_str::<BTreeMap<String, String>>(theirs) else { continue };
            compared += 1;
            if *ours != theirs {
                let kept = std::env::temp_dir().join(format!("stockade-differs-{round}.tar"));
                std::fs::copy(path, &kept).expect("keep");
                let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
                panic!("{} (round {round}): {:?} and {:?}", kept.display(), names(ours), names(&theirs));
            }
        }
    }
    assert!(compared > 20, "only {compared} archives were accepted by both");
}
