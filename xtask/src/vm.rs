//! `cargo xtask vm`: limits and attacks under a kernel with pure cgroup v2, in a throw-away virtual machine.
//!
//! Development hosts often keep cgroup controllers on v1. The machine is qemu without hardware acceleration (it must run
//! where /dev/kvm does not), Debian's cloud kernel, and an initramfs of busybox and the modules that are needed:
//!
//! ```text
//! target/vm/KERNEL/…            unpacked linux-image package, kernel uncompressed (PVH boots it without a decompressor)
//! target/vm/base-KERNEL.cpio    busybox, modules, init.sh
//! target/vm/disk, swap          what it has beside its memory
//! target/vm/job.cpio            the test program, the daemon, the probe, and /job/run
//! ```
//!
//! The job's output comes through a virtio port, its status through another. `cargo xtask vm --kernel 6.1 FILTER`
//! chooses the oldest kernel that is promised to work.

use std::fs;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::process::{self, cargo, output, run};

const PROGRAMS: [(&str, &str); 9] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
    ("depmod", "kmod"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
    ("strip", "binutils"),
    ("mkfs.ext4", "e2fsprogs"),
    ("gcc", "gcc"),
];

/// Modules that the tests or the daemon may need; what the kernel has built in is not found and not missed.
const MODULES: [&str; 12] = [
    "overlay",
    "virtio_pci",
    "virtio_console",
    "virtio_blk",
    "virtio_rng",
    "ext4",
    "loop",
    "tun",
    "veth",
    "nf_tables",
    "crc32c_generic",
    "fuse",
];

/// How long a machine may run. Emulation is some ten times slower than the host.
const PATIENCE: Duration = Duration::from_secs(1500);

/// Room for the memory of sandboxes that are paused.
const SWAP_BYTES: u64 = 512 << 20;

/// What runs in it by default: the limits, and the attacks of `stockade selftest`.
const FILTERS: &str = "limits:: usage:: selftest::the_wall selftest::attacks_work";

/// Runs tests in the machine: `[--kernel 6.1] [--append "lsm=capability"] [FILTER…]`. What is appended goes to the
/// kernel: so a machine without Landlock is made.
///
/// # Errors
/// When the machine cannot be made, or a test fails in it.
pub(crate) fn vm(arguments: &[String]) -> Result<()> {
    let (mut kernel, mut append, mut filters) = ("6.12", "", arguments);
    while let [flag, value, rest @ ..] = filters {
        match flag.as_str() {
            "--kernel" => kernel = value,
            "--append" => append = value,
            _ => break,
        }
        filters = rest;
    }
    process::need(&PROGRAMS)?;
    let directory = process::target().join("vm");
    fs::create_dir_all(&directory)?;
    let kernel = Kernel::fetch(&directory, kernel)?;
    let base = kernel.initramfs(&directory)?;
    let job = job(&directory, filters)?;
    let status = boot(&directory, &kernel, &base, &job, append)?;
    if status != 0 {
        bail!("the tests in the machine ended with status {status}");
    }
    Ok(())
}

/// An unpacked kernel package.
struct Kernel {
    release: String,
    directory: PathBuf,
    image: PathBuf,
}

impl Kernel {
    /// Downloads the newest cloud kernel of a series, unless it is there. Nothing is installed.
    fn fetch(directory: &Path, series: &str) -> Result<Self> {
        let unpacked = directory.join(format!("linux-{series}"));
        if !unpacked.exists() {
            let package = newest_package(series)?;
            eprintln!("downloading {package}");
            let partial = directory.join(format!("linux-{series}.partial"));
            let _ = fs::remove_dir_all(&partial);
            fs::create_dir_all(&partial)?;
            run(Command::new("apt-get")
                .args(["download", "-qq", "-o", "APT::Sandbox::User=root", &package])
                .current_dir(&partial))?;
            let archive = entries(&partial)?.into_iter().next().context("apt-get downloaded nothing")?;
            run(Command::new("dpkg").arg("-x").arg(&archive).arg(&partial))?;
            fs::remove_file(archive)?;
            fs::rename(partial, &unpacked)?;
        }
        let modules = entries(&unpacked.join("lib/modules"))?
            .into_iter()
            .next()
            .context("no modules in the package")?;
        let release = modules.file_name().context("no release")?.to_string_lossy().into_owned();
        let packed = unpacked.join(format!("boot/vmlinuz-{release}"));
        let image = unpacked.join("boot/vmlinux");
        if !image.exists() && !decompress(&packed, &image)? {
            return Ok(Self { release, directory: unpacked, image: packed });
        }
        Ok(Self { release, directory: unpacked, image })
    }

    /// Makes the initramfs: busybox, its applets, modules without compression, `init.sh`.
    fn initramfs(&self, directory: &Path) -> Result<PathBuf> {
        const INIT: &str = include_str!("../vm/init.sh");
        let archive = directory.join(format!("base-{}.cpio", self.release));
        let root = directory.join("base");
        let _ = fs::remove_dir_all(&root);
        for name in ["bin", "sbin", "etc", "proc", "sys", "dev", "job", "tmp"] {
            fs::create_dir_all(root.join(name))?;
        }
        fs::copy("/bin/busybox", root.join("bin/busybox"))?;
        for applet in
            output(Command::new("/bin/busybox").arg("--list"))?.lines().filter(|&name| name != "busybox")
        {
            let place = if matches!(applet, "modprobe" | "insmod" | "init") { "sbin" } else { "bin" };
            symlink("/bin/busybox", root.join(place).join(applet))?;
        }
        self.copy_modules(&root)?;
        fs::write(
            root.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
        )?;
        fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
        fs::write(root.join("init"), INIT)?;
        fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
        pack(&root, &archive)?;
        Ok(archive)
    }

    fn copy_modules(&self, root: &Path) -> Result<()> {
        let release = &self.release;
        let place = root.join("lib/modules").join(release);
        fs::create_dir_all(&place)?;
        run(Command::new("/sbin/depmod").arg("-b").arg(&self.directory).arg(release))?;
        let dependencies =
            fs::read_to_string(self.directory.join("lib/modules").join(release).join("modules.dep"))?;
        for path in MODULES.iter().flat_map(|module| with_dependencies(&dependencies, module)) {
            let from = self.directory.join("lib/modules").join(release).join(&path);
            let to = place.join(path.trim_end_matches(".xz").trim_end_matches(".zst"));
            fs::create_dir_all(to.parent().unwrap_or(&place))?;
            match path.rsplit_once('.').map(|(_, kind)| kind) {
                Some("xz") => fs::write(&to, unpacked("xz", &from)?)?,
                Some("zst") => fs::write(&to, unpacked("zstd", &from)?)?,
                _ => fs::copy(&from, &to).map(|_| ())?,
            }
        }
        run(Command::new("/sbin/depmod").arg("-b").arg(root).arg(release).stderr(Stdio::null()))
    }
}

/// Paths of a module and of what it needs, from modules.dep; none when it is built in.
fn with_dependencies(table: &str, module: &str) -> Vec<String> {
    let stem = |path: &str| {
        path.rsplit('/').next().and_then(|name| name.split('.').next()).map(|name| name.replace('-', "_"))
    };
    table
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(path, _)| stem(path).as_deref() == Some(module))
        .map(|(path, needs)| {
            std::iter::once(path).chain(needs.split_whitespace()).map(str::to_owned).collect()
        })
        .unwrap_or_default()
}

fn unpacked(program: &str, path: &Path) -> Result<Vec<u8>> {
    let output = Command::new(program).arg("-dcq").arg(path).output()?;
    if !output.status.success() {
        bail!("{program} -d {} failed", path.display());
    }
    Ok(output.stdout)
}

fn newest_package(series: &str) -> Result<String> {
    let pattern = format!(r"^linux-image-{}\.[0-9].*-cloud-amd64$", series.replace('.', r"\."));
    let search = || output(Command::new("apt-cache").args(["search", "--names-only", &pattern]));
    let mut found = search()?;
    if found.trim().is_empty() {
        run(Command::new("apt-get").args(["update", "-qq"]))?;
        found = search()?;
    }
    let mut packages: Vec<&str> = found.lines().filter_map(|line| line.split_whitespace().next()).collect();
    packages.retain(|name| !name.contains("-dbg") && !name.contains("unsigned"));
    let numbers = |name: &str| -> Vec<u64> {
        name.split(|letter: char| !letter.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
    };
    packages.sort_by_key(|name| numbers(name));
    let newest = packages.last().with_context(|| format!("apt knows no cloud kernel {series}"))?;
    Ok((*newest).to_owned())
}

/// Takes the ELF image out of a bzImage: the first zstd stream in it that starts with ELF's magic.
fn decompress(packed: &Path, image: &Path) -> Result<bool> {
    let bytes = fs::read(packed)?;
    for (at, _) in bytes.windows(4).enumerate().filter(|(_, window)| *window == [0x28, 0xb5, 0x2f, 0xfd]) {
        let mut child = Command::new("zstd")
            .args(["-dcq"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut input = child.stdin.take().context("no stdin")?;
        let rest = bytes[at..].to_vec();
        // The stream ends before the file does; zstd then complains and closes, which is no failure.
        let writer = std::thread::spawn(move || input.write_all(&rest));
        let found = child.wait_with_output()?.stdout;
        let _ = writer.join();
        if found.starts_with(b"\x7fELF") {
            fs::write(image, found)?;
            return Ok(true);
        }
    }
    Ok(false)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    Ok(fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?)
}

fn pack(root: &Path, archive: &Path) -> Result<()> {
    let line = format!("find . | cpio -o -H newc --quiet -R 0:0 > '{}'", archive.display());
    run(Command::new("sh").args(["-c", &line]).current_dir(root))
}

/// Builds what the machine runs and packs it.
fn job(directory: &Path, filters: &[String]) -> Result<PathBuf> {
    let root = directory.join("job");
    let _ = fs::remove_dir_all(&root);
    let place = root.join("job");
    fs::create_dir_all(&place)?;
    let built =
        output(cargo().args(["test", "--locked", "--test", "it", "--no-run", "--message-format=json"]))?;
    let mut programs = [("it", None), ("stockade", None)];
    for line in built.lines() {
        let message: serde_json::Value = serde_json::from_str(line)?;
        for (name, path) in &mut programs {
            if message["target"]["name"] == *name && message["executable"].is_string() {
                *path = message["executable"].as_str().map(PathBuf::from);
            }
        }
    }
    for (name, path) in programs {
        let path = path.with_context(|| format!("cargo built no {name}"))?;
        run(Command::new("strip").arg("--strip-debug").arg("-o").arg(place.join(name)).arg(path))?;
    }
    let probe = process::root().join("tests/it/probe.c");
    run(Command::new("gcc").args(["-O1", "-static", "-w", "-o"]).arg(place.join("probe")).arg(probe))?;
    let filters = if filters.is_empty() { FILTERS.to_owned() } else { filters.join(" ") };
    let script = format!(
        "export STOCKADE_TEST_BINARY=/job/stockade STOCKADE_TEST_PROBE=/job/probe STOCKADE_TEST_REQUIRE=all TMPDIR=/tmp\n\
         export STOCKADE_TEST_LOSABLE=1\n\
         uname -a\nexec /job/it --test-threads=1 {filters}\n"
    );
    fs::write(place.join("run"), script)?;
    let archive = directory.join("job.cpio");
    pack(&root, &archive)?;
    Ok(archive)
}

/// Boots, shows the output as it comes, and gives the job's status.
fn boot(directory: &Path, kernel: &Kernel, base: &Path, job: &Path, append: &str) -> Result<i32> {
    let mut whole = fs::read(base)?;
    // A cpio archive may follow another when it starts at a multiple of four.
    whole.resize(whole.len().next_multiple_of(512), 0);
    whole.extend(fs::read(job)?);
    fs::write(directory.join("initrd"), whole)?;
    for name in ["output", "result", "console"] {
        fs::write(directory.join(name), "")?;
    }
    fs::File::create(directory.join("disk"))?.set_len(4 << 30)?;
    run(Command::new("/sbin/mkfs.ext4")
        .args(["-q", "-F", "-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard"])
        .arg(directory.join("disk")))?;
    fs::File::create(directory.join("swap"))?.set_len(SWAP_BYTES)?;
    let mut child =
        machine(directory, kernel, append).stdin(Stdio::null()).spawn().context("cannot start qemu")?;
    let mut shown = fs::File::open(directory.join("output"))?;
    let mut at = 0;
    let start = Instant::now();
    let ended = loop {
        let ended = child.try_wait()?;
        shown.seek(std::io::SeekFrom::Start(at))?;
        let mut text = Vec::new();
        at += shown.read_to_end(&mut text)? as u64;
        std::io::stdout().write_all(&text)?;
        if ended.is_some() || start.elapsed() > PATIENCE {
            break ended;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let console = directory.join("console");
    if ended.is_none() {
        child.kill()?;
        child.wait()?;
        bail!("the machine did not end within {PATIENCE:?}; its console is in {}", console.display());
    }
    let result = fs::read_to_string(directory.join("result"))?;
    match result.trim().strip_prefix("status=").and_then(|status| status.parse().ok()) {
        Some(status) => Ok(status),
        None => bail!("the machine gave no result; its console is in {}", console.display()),
    }
}

/// qemu with the files of this directory.
fn machine(directory: &Path, kernel: &Kernel, append: &str) -> Command {
    const APPEND: &str = "console=ttyS0 loglevel=4 panic=-1 cgroup_no_v1=all psi=1 nokaslr mitigations=off \
                          random.trust_cpu=on tsc=unstable no_timer_check";
    let path = |name: &str| directory.join(name).display().to_string();
    let file = |name: &str| format!("file,id={name},path={}", path(name));
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args([
            "-accel",
            "tcg,thread=multi,tb-size=512",
            "-cpu",
            "max",
            "-M",
            "q35",
            "-m",
            "3072",
            "-smp",
            "2",
        ])
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-append",
            &format!("{APPEND} {append}"),
        ])
        .args(["-initrd", &path("initrd"), "-kernel"])
        .arg(&kernel.image)
        .args(["-chardev", &file("console"), "-serial", "chardev:console"])
        .args(["-device", "virtio-serial-pci", "-device", "virtio-rng-pci"])
        .args(["-chardev", &file("output"), "-device", "virtserialport,chardev=output,name=output"])
        .args(["-chardev", &file("result"), "-device", "virtserialport,chardev=result,name=result"])
        .args(["-drive", &format!("if=none,id=disk,file={},format=raw,cache=unsafe", path("disk"))])
        .args(["-device", "virtio-blk-pci,drive=disk"])
        .args(["-drive", &format!("if=none,id=swap,file={},format=raw,cache=unsafe", path("swap"))])
        .args(["-device", "virtio-blk-pci,drive=swap"]);
    command
}
