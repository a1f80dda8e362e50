//! What a hostile layer can try, one test each. Every test has a canary: a directory beside the layer's root
//! that nothing may touch. The numbers are rows of the project's security specification.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::{LayerError, Unpacked};
use crate::image::decompress::DecompressError;
use crate::image::fixture::{Head, Tar, digest, gzip};
use crate::image::unpack::{UnpackError, unpack};
use crate::tar::TarError;
use crate::wire::launch::Compression;
use crate::wire::unpack::UnpackJob;

/// A root to unpack into, and the canary beside it.
pub(super) struct Ground {
    outside: tempfile::TempDir,
    before: Vec<(PathBuf, u32, i64, Vec<u8>)>,
    alone: bool,
}

impl Ground {
    pub(super) fn new() -> Self {
        rustix::process::umask(rustix::fs::Mode::empty());
        let outside = tempfile::tempdir().expect("directory");
        for directory in ["root", "canary", "canary/deep"] {
            std::fs::create_dir(outside.path().join(directory)).expect("mkdir");
        }
        std::fs::write(outside.path().join("canary/passwd"), "root").expect("write");
        let before = census(&outside.path().join("canary"));
        Self { outside, before, alone: false }
    }

    pub(super) fn root(&self) -> PathBuf {
        self.outside.path().join("root")
    }

    fn canary(&self) -> String {
        self.outside.path().join("canary").display().to_string()
    }

    pub(super) fn unpack(&self, tar: &[u8]) -> Result<Unpacked, UnpackError> {
        self.unpack_blob(tar, Compression::None, tar)
    }

    fn unpack_blob(
        &self,
        blob: &[u8],
        compression: Compression,
        tar: &[u8],
    ) -> Result<Unpacked, UnpackError> {
        let mut file = tempfile::tempfile().expect("blob");
        file.write_all(blob).expect("write");
        file.rewind().expect("rewind");
        let root = File::open(self.root()).expect("root");
        let job = UnpackJob { diff_id: digest(tar), compression, alone: self.alone };
        let unpacked = unpack(file, &job, root.as_fd(), |_| {});
        assert_eq!(census(&self.outside.path().join("canary")), self.before, "the canary was touched");
        let beside = std::fs::read_dir(self.outside.path()).expect("list").count();
        assert_eq!(beside, 2, "something was made outside");
        unpacked
    }

    fn accept(&self, tar: &[u8]) -> Unpacked {
        self.unpack(tar).expect("a good layer")
    }

    fn refuse(&self, tar: &[u8]) -> LayerError {
        match self.unpack(tar) {
            Err(UnpackError::Layer(error)) => error,
            other => panic!("must be refused: {other:?}"),
        }
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.root().join(path)).expect(path)
    }

    fn stat(&self, path: &str) -> std::fs::Metadata {
        std::fs::symlink_metadata(self.root().join(path)).expect(path)
    }
}

/// Everything about a tree that an attack could change.
fn census(top: &Path) -> Vec<(PathBuf, u32, i64, Vec<u8>)> {
    let mut found = Vec::new();
    let mut waiting = vec![top.to_owned()];
    while let Some(path) = waiting.pop() {
        let metadata = std::fs::symlink_metadata(&path).expect("stat");
        let content = if metadata.is_file() { std::fs::read(&path).expect("read") } else { Vec::new() };
        if metadata.is_dir() {
            waiting.extend(std::fs::read_dir(&path).expect("list").map(|entry| entry.expect("entry").path()));
        }
        found.push((path, metadata.mode(), metadata.mtime_nsec(), content));
    }
    found.sort();
    found
}

#[test]
fn a_layer_of_everything_arrives_as_it_was() {
    let ground = Ground::new();
    let tar = Tar::default()
        .head(Head::new(b'5', b"./").mode(0o755))
        .head(Head::new(b'5', b"dir/").mode(0o1777))
        .head(Head::new(b'0', b"dir/setuid").mode(0o4755).size(2).owner(7, 8))
        .bytes(b"hi")
        .symlink("dir/link", "setuid")
        .hardlink("hard", "dir/setuid")
        .head(Head::new(b'6', b"pipe").mode(0o600))
        .file("implied/parents/file", b"deep")
        .pax(&[("SCHILY.xattr.user.color", b"blue"), ("mtime", b"1600000000.25")])
        .file("attributes", b"x")
        .finish();
    let unpacked = ground.accept(&tar);
    assert_eq!((unpacked.stats.entries, unpacked.stats.content_bytes), (8, 7));
    let setuid = ground.stat("dir/setuid");
    assert_eq!(
        (setuid.mode() & 0o7777, setuid.uid(), setuid.gid(), setuid.mtime()),
        (0o4755, 7, 8, 1_700_000_000)
    );
    assert_eq!(ground.stat("hard").ino(), setuid.ino());
    assert_eq!(ground.stat("dir").mode() & 0o7777, 0o1777);
    assert_eq!(ground.stat("dir").mtime(), 1_700_000_000, "directories get their time last");
    assert!(ground.stat("pipe").file_type().is_fifo());
    assert_eq!(std::fs::read_link(ground.root().join("dir/link")).expect("link"), Path::new("setuid"));
    assert_eq!(ground.read("implied/parents/file"), "deep");
    assert_eq!(
        (ground.stat("attributes").mtime(), ground.stat("attributes").mtime_nsec()),
        (1_600_000_000, 250_000_000)
    );
    let mut value = [0; 16];
    let length =
        rustix::fs::getxattr(ground.root().join("attributes"), "user.color", &mut value).expect("xattr");
    assert_eq!(&value[..length], b"blue");
}

/// Row 73: paths that lead out, for every kind of entry.
#[test]
fn paths_that_lead_out_are_refused() {
    let long = format!("{}/x", "d/".repeat(300));
    for path in
        ["../canary/passwd", "a/../../canary/passwd", "./../canary/x", "..", "/../canary/x", "a/..", &long]
    {
        for kind in *b"0125346" {
            let ground = Ground::new();
            let mut tar = Tar::default().file("a/file", b"x");
            if path.len() > 100 {
                tar = tar.pax(&[("path", path.as_bytes())]);
            }
            let name = &path.as_bytes()[..path.len().min(100)];
            let error = ground.refuse(&tar.head(Head::new(kind, name).link(b"a/file")).finish());
            assert!(matches!(error, LayerError::Path { .. }), "{path} {kind}: {error}");
        }
    }
}

/// Row 73: absolute names start at the layer's root, as everywhere else.
#[test]
fn absolute_paths_are_below_the_root() {
    let ground = Ground::new();
    ground.accept(
        &Tar::default().file(&format!("{}/x", ground.canary()), b"x").file("//b//./c", b"y").finish(),
    );
    assert_eq!(ground.read("b/c"), "y");
    assert_eq!(ground.read(&format!("{}/x", &ground.canary()[1..])), "x");
}

/// Row 73: NUL and lengths that no file system takes.
#[test]
fn impossible_names_are_refused() {
    let ground = Ground::new();
    for path in [&b"a\0b"[..], &[b'n'; 256], &[b'x'; 5000]] {
        let error = ground.refuse(&Tar::default().pax(&[("path", path)]).file("a", b"").finish());
        assert!(matches!(error, LayerError::Path { .. } | LayerError::Tar(_)), "{error}");
    }
}

/// Row 74: an earlier link to the outside, then a file through it: it stays inside, as a container would see it.
#[test]
fn symlinks_to_the_outside_lead_back_inside() {
    for target in ["CANARY", "../canary", "../../../../../../../..CANARY", "/proc/self/root/..CANARY"] {
        let ground = Ground::new();
        let target = target.replace("CANARY", &ground.canary());
        // What happens inside does not matter here; that the canary lives does, and `unpack` looks.
        let tar = Tar::default().symlink("a", &target).file("a/passwd", b"own").finish();
        let _ = ground.unpack(&tar);
        let tar = Tar::default()
            .directory("x")
            .symlink("x/a", &target)
            .directory("x/a/deep")
            .file("x/a/deep/f", b"own");
        let _ = Ground::new().unpack(&tar.finish());
    }
    let ground = Ground::new();
    ground.accept(&Tar::default().symlink("a", "/etc").directory("etc").file("a/passwd", b"own").finish());
    assert_eq!(ground.read("etc/passwd"), "own", "an absolute link starts at the root of the layer");
}

/// Row 74: a dangling link on the way is followed inside the layer, and made there.
#[test]
fn parents_behind_dangling_links_are_made_inside() {
    let ground = Ground::new();
    ground.accept(&Tar::default().symlink("var/run", "../run/./x").file("var/run/a/pid", b"1").finish());
    assert_eq!(ground.read("run/x/a/pid"), "1");
    let error = ground
        .refuse(&Tar::default().symlink("one", "two").symlink("two", "one").file("one/x", b"").finish());
    assert!(matches!(error, LayerError::Path { .. }), "{error}");
}

/// Row 74: the last component is replaced, never followed, whatever it is.
#[test]
fn a_link_in_the_way_is_replaced() {
    for kind in *b"056" {
        let ground = Ground::new();
        let victim = format!("{}/passwd", ground.canary());
        let tar = Tar::default().symlink("a", &victim).head(Head::new(kind, b"a").mode(0o4777)).finish();
        ground.accept(&tar);
        assert!(!ground.stat("a").is_symlink());
    }
    // The same for a link to a directory: RUSTSEC-2026-0067 changed the modes behind it.
    let ground = Ground::new();
    let tar = Tar::default()
        .symlink("d", &ground.canary())
        .head(Head::new(b'5', b"d").mode(0o777))
        .file("d/x", b"own");
    ground.accept(&tar.finish());
    assert_eq!(ground.read("d/x"), "own");
}

/// Row 74: an open directory is not used any more when a link has taken its name.
#[test]
fn a_replaced_directory_is_resolved_again() {
    let ground = Ground::new();
    let tar =
        Tar::default().directory("real").directory("d").symlink("d", "real").file("d/x", b"own").finish();
    ground.accept(&tar);
    assert_eq!(ground.read("real/x"), "own");
    let ground = Ground::new();
    let tar = Tar::default().directory("one").directory("two").symlink("l", "one").file("l/a", b"1");
    ground.accept(&tar.symlink("l", "two").file("l/b", b"2").finish());
    assert_eq!((ground.read("one/a"), ground.read("two/b")), ("1".to_owned(), "2".to_owned()));
}

#[test]
fn a_directory_with_something_in_it_is_not_replaced() {
    let ground = Ground::new();
    let error = ground.refuse(&Tar::default().file("d/x", b"").symlink("d", "/").finish());
    assert!(matches!(error, LayerError::Occupied(_)), "{error}");
}

/// Row 75: hard links reach files of this layer and nothing else.
#[test]
fn hard_links_stay_inside_and_do_not_follow() {
    let ground = Ground::new();
    let outside = format!("{}/passwd", ground.canary());
    for target in [&*outside, "../canary/passwd", "missing", "link/passwd", "d", "gone", ".wh.gone", "", "."]
    {
        let tar = Tar::default()
            .symlink("link", &ground.canary())
            .directory("d")
            .file(".wh.gone", b"")
            .hardlink("a", target)
            .finish();
        let ground = Ground::new();
        let error = ground.refuse(&tar);
        assert!(matches!(error, LayerError::Hardlink { .. } | LayerError::Path { .. }), "{target}: {error}");
        assert!(!ground.root().join("a").exists(), "{target}");
    }
    let ground = Ground::new();
    let tar = Tar::default().symlink("s", &outside).hardlink("h", "s");
    // Metadata of the link is that of the file: an entry cannot change an earlier one through it.
    let tar = tar.file("f", b"x").head(Head::new(b'1', b"g").link(b"f").mode(0o4777));
    ground.accept(&tar.finish());
    assert!(ground.stat("h").is_symlink(), "a link to a symlink is the symlink");
    assert_eq!(ground.stat("f").mode() & 0o7777, 0o644);
}

#[test]
fn a_hard_link_to_itself_keeps_the_file() {
    let ground = Ground::new();
    ground.accept(&Tar::default().file("f", b"x").hardlink("f", "f").hardlink("./f", "/f").finish());
    assert_eq!(ground.read("f"), "x");
}

/// What somebody's own files are made a layer of has names, and not whiteouts: one that would vanish is refused.
#[test]
fn a_layer_that_was_made_of_files_has_no_whiteouts() {
    for path in [".wh.a", "d/.wh.a", "d/.wh..wh..opq", ".wh..wh.plnk/1"] {
        let tar = Tar::default().file(path, b"").finish();
        Ground::new().accept(&tar);
        let refused = Ground { alone: true, ..Ground::new() }.refuse(&tar);
        assert!(matches!(refused, LayerError::Path { .. }), "{path}: {refused}");
    }
}

/// Row 76: whiteouts are devices 0/0, opaque directories are reported, and both concern lower layers only.
#[test]
fn whiteouts_hide_lower_layers_and_not_this_one() {
    let ground = Ground::new();
    let tar = Tar::default()
        .file("d/.wh.gone", b"")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/kept", b"1")
        .file("before", b"2")
        .file(".wh.before", b"")
        .file(".wh.after", b"")
        .file("after", b"3")
        .file(".wh.tree", b"")
        .file("tree/new", b"4")
        .file("late/new", b"5")
        .file(".wh.late", b"")
        .file(".wh..wh.plnk/1.2", b"")
        .file(".wh..wh.aufs", b"")
        .finish();
    let unpacked = ground.accept(&tar);
    let whiteout = ground.stat("d/gone");
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    for (path, content) in
        [("opaque/kept", "1"), ("before", "2"), ("after", "3"), ("tree/new", "4"), ("late/new", "5")]
    {
        assert_eq!(ground.read(path), content);
    }
    let opaque: Vec<_> =
        unpacked.opaque.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
    assert_eq!(opaque, ["late", "opaque", "tree"], "a directory under a whiteout starts empty");
    assert_eq!(std::fs::read_dir(ground.root()).expect("list").count(), 6);
    let root = Ground::new().accept(&Tar::default().file(".wh..wh..opq", b"").finish());
    assert_eq!(root.opaque, [b"".to_vec()]);
}

/// Row 76: names that would delete something else.
#[test]
fn whiteouts_of_nothing_are_refused() {
    for path in [".wh.", ".wh..", ".wh...", "a/.wh...", "a/.wh./x", ".wh.x/y"] {
        let error = Ground::new().refuse(&Tar::default().directory("a").file(path, b"").finish());
        assert!(matches!(error, LayerError::Path { .. }), "{path}: {error}");
    }
}

/// Row 77: no devices, not even 0/0, which would be a whiteout that says it is none.
#[test]
fn devices_are_left_out() {
    let ground = Ground::new();
    let mut tar = Tar::default().file("null", b"kept");
    for (kind, path, major) in [(b'3', "mem", 1), (b'4', "disk", 8), (b'3', "null", 0)] {
        let mut head = Head::new(kind, path.as_bytes()).mode(0o666);
        head.octal(329, 8, major);
        head.octal(337, 8, 0);
        tar = tar.head(head);
    }
    assert_eq!(ground.accept(&tar.finish()).skipped, 3);
    assert!(!ground.root().join("mem").exists() && !ground.root().join("disk").exists());
    assert_eq!(ground.read("null"), "kept");
}

#[test]
fn owners_outside_a_sandbox_are_refused() {
    for (uid, gid) in [(65_536, 0), (0, 65_536), (2_097_151, 0)] {
        let tar = Tar::default().head(Head::new(b'0', b"f").owner(uid, gid)).finish();
        assert!(matches!(Ground::new().refuse(&tar), LayerError::Owner { .. }));
    }
    let tar = Tar::default().pax(&[("uid", b"4294967296")]).file("f", b"").finish();
    assert!(matches!(Ground::new().refuse(&tar), LayerError::Owner { .. }));
    let ground = Ground::new();
    ground.accept(&Tar::default().head(Head::new(b'5', b"d").owner(65_535, 65_535)).finish());
    assert_eq!(ground.stat("d").uid(), 65_535);
}

/// Row 78: attributes that overlayfs, file capabilities or ACLs would obey.
#[test]
fn attributes_that_the_kernel_obeys_are_stripped() {
    let ground = Ground::new();
    let records: Vec<(String, &[u8])> = [
        "trusted.overlay.redirect",
        "trusted.overlay.opaque",
        "user.overlay.redirect",
        "user.overlay.opaque",
        "security.capability",
        "security.selinux",
        "system.posix_acl_access",
        "user.kept",
    ]
    .iter()
    .map(|name| (format!("SCHILY.xattr.{name}"), &b"/../../etc"[..]))
    .collect();
    let records: Vec<_> = records.iter().map(|(key, value)| (&**key, *value)).collect();
    ground.accept(&Tar::default().pax(&records).file("f", b"").pax(&records).directory("d").finish());
    for path in ["f", "d"] {
        let mut names = [0; 512];
        let length = rustix::fs::listxattr(ground.root().join(path), &mut names).expect("list");
        let names = String::from_utf8_lossy(&names[..length]).into_owned();
        let left: Vec<_> =
            names.split('\0').filter(|name| !name.is_empty() && *name != "security.selinux").collect();
        assert_eq!(left, ["user.kept"], "{path}");
    }
}

/// Row 79: headers that two readers would understand differently.
#[test]
fn ambiguous_headers_are_refused() {
    let inner = Tar::default().file("smuggled", b"x").finish();
    let size = |text: &'static str| Tar::default().pax(&[("size", text.as_bytes())]);
    // The PAX size counts, not the header's: what looks like an entry to others is content here.
    let ground = Ground::new();
    let length = inner.len().to_string();
    let tar = Tar::default()
        .pax(&[("size", length.as_bytes())])
        .head(Head::new(b'0', b"outer").size(0))
        .bytes(&inner);
    ground.accept(&tar.finish());
    assert!(!ground.root().join("smuggled").exists());
    assert_eq!(ground.stat("outer").len(), inner.len() as u64);

    let twice = Tar::default().pax(&[("path", b"a"), ("path", b"b")]).file("c", b"");
    let negative = size("-1").file("c", b"");
    let words = size("1k").file("c", b"");
    let huge = size("18446744073709551615").file("c", b"");
    let global = pax_global(&[("size", b"512")]).file("c", b"");
    let between = Tar::default().pax(&[("path", b"a")]).then(pax_global(&[("comment", b"x")])).file("c", b"");
    let directory = Tar::default().head(Head::new(b'5', b"d").size(512)).bytes(&[0; 512]);
    let link =
        Tar::default().file("f", b"").head(Head::new(b'1', b"l").link(b"f").size(512)).bytes(&[0; 512]);
    let unknown = Tar::default().head(Head::new(b'Z', b"z"));
    let mut base256 = Head::new(b'0', b"big");
    base256.set(124, &[0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut sum = Head::new(b'0', b"sum");
    sum.set(0, b"s");
    let mut broken = Tar::default().head(sum).finish();
    broken[0] ^= 1;
    for (name, tar) in [
        ("path twice", twice.finish()),
        ("negative size", negative.finish()),
        ("size in words", words.finish()),
        ("huge size", huge.finish()),
        ("global size", global.finish()),
        ("global header between", between.finish()),
        ("directory with content", directory.finish()),
        ("hard link with content", link.finish()),
        ("unknown type", unknown.finish()),
        ("base 256 beyond 64 bits", Tar::default().head(base256).finish()),
        ("checksum", broken),
        ("headers without an entry", Tar::default().pax(&[("path", b"a")]).finish()),
    ] {
        let error = Ground::new().refuse(&tar);
        assert!(matches!(error, LayerError::Tar(_)), "{name}: {error}");
    }
    let ground = Ground::new();
    ground.accept(&pax_global(&[("comment", b"a commit")]).file("c", b"").finish());
}

fn pax_global(records: &[(&str, &[u8])]) -> Tar {
    let content = crate::image::fixture::pax_records(records);
    Tar::default().head(Head::new(b'g', b"global").size(content.len() as u64)).bytes(&content)
}

/// Rows 81 and 82: what is cut off, or is other than promised, is no layer.
#[test]
fn cut_and_changed_streams_are_refused() {
    let tar = Tar::default().file("f", &[7; 3000]).file("g", b"x").finish();
    let blob = gzip(&tar);
    let ground = Ground::new();
    ground.unpack_blob(&blob, Compression::Gzip, &tar).expect("a good blob");
    for (name, blob) in [
        ("cut", blob[..blob.len() / 2].to_vec()),
        ("cut in its checksum", blob[..blob.len() - 1].to_vec()),
        ("followed by garbage", [&blob[..], b"garbage"].concat()),
        ("empty", Vec::new()),
    ] {
        let result = Ground::new().unpack_blob(&blob, Compression::Gzip, &tar);
        assert!(
            matches!(result, Err(UnpackError::Decompress(_) | UnpackError::Digest { .. })),
            "{name}: {result:?}"
        );
    }
    let other = Tar::default().file("f", b"other").finish();
    let result = Ground::new().unpack_blob(&gzip(&other), Compression::Gzip, &tar);
    assert!(matches!(result, Err(UnpackError::Digest { .. })), "{result:?}");
    // Bytes behind the end of the archive are part of the layer's digest.
    let trailing = [&tar[..], &[1; 100_000]].concat();
    let result = Ground::new().unpack_blob(&gzip(&trailing), Compression::Gzip, &tar);
    assert!(matches!(result, Err(UnpackError::Digest { .. })), "{result:?}");
    Ground::new().unpack_blob(&gzip(&trailing), Compression::Gzip, &trailing).expect("the digest is of all");
    let error = Ground::new().refuse(&tar[..2000]);
    assert!(matches!(error, LayerError::Tar(TarError::Truncated)), "{error}");
    Ground::new().accept(&Tar::default().file("f", b"x").unfinished());
}

/// Row 81: several gzip members and zstd frames are one stream.
#[test]
fn members_and_frames_follow_each_other() {
    let tar = Tar::default().file("f", &[7; 300_000]).finish();
    let (one, two) = tar.split_at(100_000);
    let ground = Ground::new();
    ground.unpack_blob(&[gzip(one), gzip(two)].concat(), Compression::Gzip, &tar).expect("two members");
    let frame = |bytes: &[u8]| zstd::encode_all(bytes, 1).expect("compress");
    let ground = Ground::new();
    ground.unpack_blob(&[frame(one), frame(two)].concat(), Compression::Zstd, &tar).expect("two frames");
    assert_eq!(ground.stat("f").len(), 300_000);
}

/// Row 81: a bomb is stopped by what it unpacks to, and a zstd window by what it needs.
#[test]
fn bombs_are_stopped() {
    use crate::image::decompress::check_total;
    use crate::limits::{LAYER_BYTES_FREE, LAYER_BYTES_MAX, LAYER_RATIO_MAX};
    assert!(check_total(LAYER_BYTES_FREE, 1).is_ok());
    assert!(matches!(check_total(LAYER_BYTES_FREE + 1, 1), Err(DecompressError::Bomb)));
    assert!(check_total(LAYER_BYTES_MAX, LAYER_BYTES_MAX / LAYER_RATIO_MAX + 1).is_ok());
    assert!(matches!(check_total(LAYER_BYTES_MAX + 1, LAYER_BYTES_MAX), Err(DecompressError::TooLarge)));
    // A frame header that asks for a window of 2 GiB (RFC 8878 §3.1.1.1.2).
    let window = [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3][..], &[0; 64]].concat();
    let result = Ground::new().unpack_blob(&window, Compression::Zstd, b"");
    assert!(matches!(result, Err(UnpackError::Decompress(DecompressError::Stream(_)))), "{result:?}");
}

/// Row 81: sparse files may be large to look at, not beyond what a layer may hold.
#[test]
fn a_sparse_bomb_is_refused() {
    let records: [(&str, &[u8]); 3] =
        [("GNU.sparse.size", b"9000000000000"), ("GNU.sparse.map", b"0,1"), ("GNU.sparse.name", b"bomb")];
    let error = Ground::new().refuse(&Tar::default().pax(&records).file("x", b"1").finish());
    assert!(matches!(error, LayerError::TooManyBytes), "{error}");
    for map in ["5,1,0,1", "0,2,1,1", "0,1,9,9", "0,1,18446744073709551615,1", "0,1,2,0,1,1"] {
        let records: [(&str, &[u8]); 2] = [("GNU.sparse.size", b"10"), ("GNU.sparse.map", map.as_bytes())];
        let error = Ground::new().refuse(&Tar::default().pax(&records).file("x", b"12").finish());
        assert!(matches!(error, LayerError::Tar(TarError::SparseMap(_))), "{map}: {error}");
    }
}

#[test]
fn headers_without_bound_are_refused() {
    let long = vec![b'x'; 3 << 20];
    let error = Ground::new().refuse(&Tar::default().pax(&[("comment", &long)]).file("f", b"").finish());
    assert!(matches!(error, LayerError::Tar(_)), "{error}");
    // A sparse map whose line never ends asks for ever more.
    let records: [(&str, &[u8]); 3] =
        [("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"1")];
    let digits = vec![b'1'; 4 << 20];
    let error = Ground::new().refuse(&Tar::default().pax(&records).file("f", &digits).finish());
    assert!(matches!(error, LayerError::Tar(TarError::HeaderTooLarge)), "{error}");
}

/// Row 84: a trailing slash makes the kernel follow what `O_NOFOLLOW` forbids.
#[test]
fn a_trailing_slash_does_not_follow() {
    for path in ["link/", "link/.", "link//", "link/./"] {
        for kind in *b"05" {
            let ground = Ground::new();
            let tar = Tar::default().symlink("link", &ground.canary());
            ground.accept(&tar.head(Head::new(kind, path.as_bytes()).mode(0o777)).finish());
            assert!(!ground.stat("link").is_symlink(), "{path} {kind}");
        }
    }
}

/// Long names and sparse files as GNU tar writes them, in each of its formats.
#[test]
fn what_gnu_tar_writes_is_read() {
    let source = tempfile::tempdir().expect("directory");
    let long = format!("{}/{}", "directory".repeat(12), "file".repeat(40));
    let long_path = source.path().join(&long);
    std::fs::create_dir(long_path.parent().expect("parent")).expect("mkdir");
    std::fs::write(&long_path, "long").expect("write");
    std::os::unix::fs::symlink(&long, source.path().join("symlink")).expect("symlink");
    std::fs::hard_link(&long_path, source.path().join("zz-hard")).expect("link");
    let mut sparse = File::create(source.path().join("sparse")).expect("create");
    for piece in 0..40_u64 {
        sparse.seek(std::io::SeekFrom::Start(piece * 100_000)).expect("seek");
        sparse.write_all(format!("piece {piece}").as_bytes()).expect("write");
    }
    sparse.set_len(5_000_000).expect("length");
    let expected = std::fs::read(source.path().join("sparse")).expect("read");
    for format in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        let tar = std::process::Command::new("tar")
            .args(["--sparse", "-c"])
            .args(format)
            .args(["-C"])
            .arg(source.path())
            .arg(".")
            .output()
            .expect("GNU tar");
        assert!(tar.status.success() && tar.stdout.len() < 10_000_000, "{format:?}");
        let ground = Ground::new();
        ground.accept(&tar.stdout);
        assert_eq!(ground.read(&long), "long", "{format:?}");
        assert_eq!(std::fs::read_link(ground.root().join("symlink")).expect("link"), Path::new(&long));
        assert_eq!(ground.stat("zz-hard").ino(), ground.stat(&long).ino());
        assert_eq!(std::fs::read(ground.root().join("sparse")).expect("read"), expected, "{format:?}");
        assert!(ground.stat("sparse").blocks() < 1_000, "{format:?}: holes stay holes");
        let mode = std::fs::metadata(ground.root().join(&long)).expect("stat").permissions().mode();
        assert_eq!(mode, std::fs::metadata(&long_path).expect("stat").permissions().mode());
    }
}

/// One random entry, of names that collide, climb and lead outside.
fn entry() -> impl proptest::strategy::Strategy<Value = (u8, Vec<&'static str>, Vec<&'static str>)> {
    use proptest::prelude::*;
    let part = || {
        let parts = [
            "a",
            "b",
            "c",
            ".",
            "..",
            "",
            "CANARY",
            "passwd",
            ".wh.a",
            ".wh.b",
            ".wh..wh..opq",
            "link/",
            "proc/self/root",
        ];
        prop::collection::vec(prop::sample::select(parts.to_vec()), 1..4)
    };
    (prop::sample::select(b"01225563".to_vec()), part(), part())
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    /// No sequence of entries touches anything outside, whether the layer is accepted or not.
    #[test]
    fn nothing_leads_outside(entries in proptest::collection::vec(entry(), 1..12)) {
        let ground = Ground::new();
        let text = |parts: &[&str]| parts.join("/").replace("CANARY", &ground.canary());
        let mut tar = Tar::default();
        for (kind, path, link) in &entries {
            let (path, link) = (text(path), text(link));
            let mut records: Vec<(&str, &[u8])> = vec![("path", path.as_bytes())];
            if matches!(kind, b'1' | b'2') {
                records.push(("linkpath", link.as_bytes()));
            }
            tar = tar.pax(&records).head(Head::new(*kind, b"x").mode(0o777));
        }
        // `unpack` compares the canary before and after.
        let _ = ground.unpack(&tar.finish());
    }
}
