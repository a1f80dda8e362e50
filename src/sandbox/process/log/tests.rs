//! The ring against a model that keeps everything.

use proptest::prelude::*;

use super::*;

/// A log in a directory of its own.
struct Fixture {
    directory: tempfile::TempDir,
    bytes_max: u64,
    log: Arc<Log>,
    /// Every byte that was ever written.
    model: Vec<(Stream, u8)>,
}

fn open(directory: &std::path::Path, bytes_max: u64) -> Arc<Log> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = rustix::fs::open(directory, flags, Mode::empty()).expect("directory");
    Log::open(Arc::new(parent), "p1".to_owned(), bytes_max).expect("log")
}

impl Fixture {
    fn new(bytes_max: u64) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        std::fs::create_dir(directory.path().join("p1")).expect("directory");
        let log = open(directory.path(), bytes_max);
        Self { directory, bytes_max, log, model: Vec::new() }
    }

    fn write(&mut self, stream: Stream, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let count = self
                .log
                .append(stream, |file, at, most| file.write_at(&bytes[..bytes.len().min(most)], at))
                .expect("append");
            assert!(count > 0);
            self.model.extend(bytes[..count].iter().map(|&byte| (stream, byte)));
            bytes = &bytes[count..];
        }
    }

    /// As if serve had been killed.
    fn reopen(&mut self) {
        self.log = open(self.directory.path(), self.bytes_max);
    }

    /// Everything from a cursor on, and where it begins.
    fn read(&self, cursor: u64, most: usize) -> (u64, Vec<(Stream, u8)>) {
        let mut reader = self.log.reader(cursor);
        let (mut start, mut seen) = (cursor, Vec::new());
        while let Some(piece) = reader.next(most).expect("read") {
            match piece {
                Piece::Dropped(count) => {
                    assert!(seen.is_empty(), "a gap in the middle");
                    start += count;
                }
                Piece::Bytes { stream, cursor, bytes, .. } => {
                    assert_eq!(cursor, start + seen.len() as u64);
                    assert!(!bytes.is_empty() && bytes.len() <= most);
                    seen.extend(bytes.into_iter().map(|byte| (stream, byte)));
                }
            }
        }
        assert_eq!(reader.cursor(), self.model.len() as u64);
        (start, seen)
    }

    fn on_disk(&self) -> u64 {
        let entries = std::fs::read_dir(self.directory.path().join("p1")).expect("list");
        entries.map(|entry| entry.expect("entry").metadata().expect("metadata").len()).sum()
    }

    fn check(&self, cursor: u64, most: usize) {
        let extent = self.log.extent();
        let end = self.model.len() as u64;
        assert_eq!(extent.end_cursor, end);
        assert!(self.on_disk() <= self.bytes_max, "{} bytes on disk", self.on_disk());
        let start = usize::try_from(extent.start_cursor).expect("small");
        let gone = |stream| self.model[..start].iter().filter(|(of, _)| *of == stream).count() as u64;
        assert_eq!(extent.dropped_stdout_bytes, gone(Stream::Stdout));
        assert_eq!(extent.dropped_stderr_bytes, gone(Stream::Stderr));
        let cursor = cursor.min(end);
        let (first, seen) = self.read(cursor, most);
        assert_eq!(first, cursor.max(extent.start_cursor));
        assert_eq!(seen, self.model[usize::try_from(first).expect("small")..]);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(Stream, Vec<u8>),
    Reopen,
    Read(u64, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let stream = prop_oneof![Just(Stream::Stdout), Just(Stream::Stderr)];
    prop_oneof![
        8 => (stream, prop::collection::vec(any::<u8>(), 1..300)).prop_map(|(stream, bytes)| Step::Write(stream, bytes)),
        1 => Just(Step::Reopen),
        2 => (0..6000_u64, 1..200_usize).prop_map(|(cursor, most)| Step::Read(cursor, most)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn it_holds_the_newest_bytes_whatever_happens(steps in prop::collection::vec(step(), 1..60)) {
        let mut fixture = Fixture::new(1024);
        for step in steps {
            match step {
                Step::Write(stream, bytes) => fixture.write(stream, &bytes),
                Step::Reopen => fixture.reopen(),
                Step::Read(cursor, most) => fixture.check(cursor, most),
            }
        }
        fixture.reopen();
        fixture.check(0, 77);
    }
}

#[test]
fn a_reader_that_follows_sees_every_byte_once() {
    let mut fixture = Fixture::new(64 * 1024);
    let mut reader = fixture.log.reader(0);
    let mut seen = Vec::new();
    for round in 0..500_u32 {
        let stream = if round % 3 == 0 { Stream::Stderr } else { Stream::Stdout };
        fixture.write(stream, format!("line {round}\n").as_bytes());
        while let Some(Piece::Bytes { stream, bytes, .. }) = reader.next(5).expect("read") {
            seen.extend(bytes.into_iter().map(|byte| (stream, byte)));
        }
    }
    assert_eq!(seen, fixture.model);
}

#[test]
fn a_log_keeps_most_of_what_it_may() {
    let mut fixture = Fixture::new(64 * 1024);
    for _ in 0..40 {
        fixture.write(Stream::Stdout, &[b'y'; 9_999]);
    }
    let Extent { start_cursor, end_cursor, .. } = fixture.log.extent();
    assert!(end_cursor - start_cursor > 64 * 1024 * 3 / 4, "{} bytes", end_cursor - start_cursor);
}

#[test]
fn what_the_disk_refused_is_told_as_a_gap() {
    let mut fixture = Fixture::new(4096);
    fixture.write(Stream::Stdout, b"before");
    fixture.log.lose(Stream::Stderr, 100);
    let mut reader = fixture.log.reader(3);
    let bytes = |reader: &mut Reader| match reader.next(100) {
        Ok(Some(Piece::Bytes { bytes, .. })) => bytes,
        other => panic!("{other:?}"),
    };
    assert_eq!(bytes(&mut reader), b"ore");
    assert_eq!(reader.next(100).expect("read"), Some(Piece::Dropped(100)));
    fixture.write(Stream::Stdout, b"after");
    assert_eq!(bytes(&mut reader), b"after");
    let mut again = fixture.log.reader(0);
    assert_eq!(bytes(&mut again), b"before");
    assert_eq!(again.next(100).expect("read"), Some(Piece::Dropped(100)));
    assert_eq!(bytes(&mut again), b"after");
    assert_eq!(again.next(100).expect("read"), None);
}

#[test]
fn half_a_head_at_the_end_is_no_frame() {
    let mut fixture = Fixture::new(4096);
    fixture.write(Stream::Stdout, b"whole");
    let file = fixture.directory.path().join("p1/00000000000000000000.log");
    fixture.log.rest();
    let mut bytes = std::fs::read(&file).expect("read");
    bytes.extend([1, 2, 3]);
    std::fs::write(&file, bytes).expect("write");
    std::fs::write(fixture.directory.path().join("p1/00000000000000000005.log"), b"short").expect("write");
    fixture.reopen();
    fixture.write(Stream::Stderr, b"more");
    fixture.check(0, 100);
}
