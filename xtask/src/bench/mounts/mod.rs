//! A bucket as files, beside s3fs and rclone, and beside what a client without a file system does.
//!
//! One server for all (`server`), in this process. Each round mounts each contestant anew, so that nothing is cached, and
//! unmounts it; everybody has the defaults, but for what makes a rival able to speak to this server at all. Ours is
//! mounted in a sandbox and reached from the host by the sandbox's root, so that all are measured by the same programs.

mod server;

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use self::server::{BUCKET, Server};
use super::{Daemon, Place, Report, memory, met, ms, quantile};
use crate::process::{self, run};

const PROGRAMS: [(&str, &str); 4] =
    [("curl", "curl"), ("s3fs", "s3fs"), ("rclone", "rclone"), ("umount", "mount")];

/// Reads at random of one sample's median.
const RANDOM: u64 = 300;

/// Connections of the client without a file system.
const PARALLEL: u64 = 4;

/// Memory of a worker, at most.
const MEMORY_MIB: f64 = 64.0;

/// What one contestant took.
#[derive(Default)]
struct Samples {
    read: Vec<Duration>,
    write: Vec<Duration>,
    list: Vec<Duration>,
    random: Vec<Duration>,
    random_mean: Vec<Duration>,
    memory_kib: Vec<u64>,
}

struct Sizes {
    bytes: u64,
    files: usize,
}

/// Measures buckets as files.
pub(super) fn mounts(place: &Place, report: &mut Report, rounds: usize, shrink: usize) -> Result<()> {
    process::need(&PROGRAMS)?;
    let server = Server::start()?;
    let sizes = Sizes { bytes: (1 << 30) / shrink as u64, files: 10_000 / shrink };
    for name in ["read", "random"] {
        server.put(name, sizes.bytes);
    }
    for index in 0..sizes.files {
        server.put(&format!("many/file-{index:06}"), 100);
    }
    let config = place.directory.join("mounts.toml");
    fs::write(&config, "[network]\nopen = [\"127.0.0.0/8\"]\n")?;
    let mut daemon = Daemon::start_with(&place.directory, None, &["--config".as_ref(), config.as_ref()])?;
    daemon.import(place)?;
    let (mut ours, mut s3fs, mut rclone) = (Samples::default(), Samples::default(), Samples::default());
    let mut raw = Samples::default();
    for round in 0..rounds {
        {
            let mounted = Ours::mount(&mut daemon, &server, round)?;
            ours.take(&server, &mounted.path.clone(), mounted.worker, &sizes, round)?;
            mounted.unmount(&mut daemon)?;
        }
        for (name, samples) in [("s3fs", &mut s3fs), ("rclone", &mut rclone)] {
            let mounted = Rival::mount(place, &server, name)?;
            samples.take(&server, &mounted.path, mounted.child.id(), &sizes, round)?;
        }
        raw.read.push(download(&server, sizes.bytes)?);
        raw.write.push(upload(place, &server, sizes.bytes)?);
    }
    write(report, &sizes, [&ours, &s3fs, &rclone, &raw]);
    Ok(())
}

impl Samples {
    fn take(&mut self, server: &Server, path: &Path, pid: u32, sizes: &Sizes, round: usize) -> Result<()> {
        self.list.push(list(path, sizes.files)?);
        let (median, mean) = random(path, sizes.bytes)?;
        self.random.push(median);
        self.random_mean.push(mean);
        self.read.push(read(path, sizes.bytes)?);
        let name = format!("written-{round}");
        self.write.push(fill(&path.join(&name), sizes.bytes)?);
        ensure!(server.size(&name) == Some(sizes.bytes), "{} has not uploaded {name}", path.display());
        self.memory_kib.push(peak(pid)?);
        Ok(())
    }
}

/// `ls -l`, which asks for each file's attributes.
fn list(path: &Path, files: usize) -> Result<Duration> {
    let start = Instant::now();
    let listed = process::output(Command::new("ls").arg("-l").arg(path.join("many")))?;
    let took = start.elapsed();
    ensure!(listed.lines().count() == files + 1, "{} lists other files", path.display());
    Ok(took)
}

/// The median of reads of 4 KiB at random, and their mean: who fetches the neighbourhood of each has few that take long.
fn random(path: &Path, bytes: u64) -> Result<(Duration, Duration)> {
    let file = File::open(path.join("random"))?;
    let mut seed = 7_u64;
    let mut took = Vec::new();
    let mut page = [0; 4096];
    for _ in 0..RANDOM {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let offset = (seed >> 20) % (bytes / 4096) * 4096;
        let start = Instant::now();
        file.read_exact_at(&mut page, offset)?;
        took.push(start.elapsed());
    }
    let mean = took.iter().sum::<Duration>() / u32::try_from(took.len())?;
    Ok((quantile(&took, 0.5), mean))
}

fn read(path: &Path, bytes: u64) -> Result<Duration> {
    let mut buffer = vec![0; 1 << 20];
    let start = Instant::now();
    let mut file = File::open(path.join("read"))?;
    let mut total = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => total += count as u64,
        }
    }
    let took = start.elapsed();
    ensure!(total == bytes, "{} bytes of {bytes}", total);
    Ok(took)
}

fn fill(path: &Path, bytes: u64) -> Result<Duration> {
    let buffer = vec![b'w'; 1 << 20];
    let start = Instant::now();
    let mut file = File::create(path)?;
    for _ in 0..bytes >> 20 {
        file.write_all(&buffer)?;
    }
    file.write_all(&buffer[..usize::try_from(bytes % (1 << 20))?])?;
    // What close says is lost; fsync waits for the upload and says it.
    file.sync_all()?;
    drop(file);
    Ok(start.elapsed())
}

/// The most that a process has had in memory.
fn peak(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// The bucket in a sandbox of ours.
struct Ours {
    path: PathBuf,
    worker: u32,
    id: String,
}

impl Ours {
    fn mount(daemon: &mut Daemon, server: &Server, round: usize) -> Result<Self> {
        let id = format!("mounts-{round}");
        let spec = json!({"id": id, "image": "bench:1"}).to_string();
        daemon.call("POST", "/v1/sandboxes", spec.as_bytes(), 201)?;
        let body = json!({
            "path": "/data",
            "bucket": BUCKET,
            "endpoint": format!("http://127.0.0.1:{}", server.port),
            "credentials": {"access_key_id": "key", "secret_access_key": "secret"},
        });
        daemon.call("POST", &format!("/v1/sandboxes/{id}/mounts"), body.to_string().as_bytes(), 201)?;
        // Whoever has it in its tree: the agent and what it started.
        let inside = memory::descendants(daemon.child.id()).into_iter().find(|pid| {
            fs::read_to_string(format!("/proc/{pid}/mountinfo")).is_ok_and(|text| text.contains(" /data "))
        });
        let path = PathBuf::from(format!("/proc/{}/root/data", inside.context("nobody has the mount")?));
        Ok(Self { path, worker: daemon.role("stockade-bucket")?, id })
    }

    fn unmount(self, daemon: &mut Daemon) -> Result<()> {
        let gone = daemon.call("DELETE", &format!("/v1/sandboxes/{}/mounts/m1", self.id), b"", 200)?;
        let gone: Value = serde_json::from_slice(&gone)?;
        ensure!(gone["lost_count"] == 0, "lost files: {gone}");
        daemon.call("DELETE", &format!("/v1/sandboxes/{}", self.id), b"", 204)?;
        Ok(())
    }
}

/// A program that mounts the bucket on the host.
struct Rival {
    child: Child,
    path: PathBuf,
}

impl Rival {
    fn mount(place: &Place, server: &Server, name: &str) -> Result<Self> {
        let path = place.directory.join(name);
        fs::create_dir_all(&path)?;
        let endpoint = format!("http://127.0.0.1:{}", server.port);
        let mut command = Command::new(name);
        if name == "s3fs" {
            command.arg(BUCKET).arg(&path).args([
                "-f",
                "-o",
                "use_path_request_style",
                "-o",
                "endpoint=us-east-1",
            ]);
            command.arg("-o").arg(format!("url={endpoint}"));
        } else {
            command.arg("mount").arg(format!(":s3:{BUCKET}")).arg(&path).args(["--config", "/dev/null"]);
            command.args(["--s3-provider", "Other", "--s3-env-auth", "--s3-force-path-style"]);
            // The server's entity tags are no sums.
            command.args([
                "--s3-use-multipart-etag",
                "false",
                "--s3-no-check-bucket",
                "--s3-endpoint",
                &endpoint,
            ]);
        }
        let log = File::create(place.directory.join(format!("{name}.log")))?;
        command.envs([("AWSACCESSKEYID", "key"), ("AWSSECRETACCESSKEY", "secret")]);
        command.envs([("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret")]);
        // One that is set makes rclone refuse its own client.
        command.env_remove("AWS_CA_BUNDLE");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
        let mut this = Self { child, path };
        let start = Instant::now();
        let target = format!(" {} fuse.", this.path.display());
        while !fs::read_to_string("/proc/self/mounts")?.contains(&target) {
            if start.elapsed() > Duration::from_secs(20) || this.child.try_wait()?.is_some() {
                bail!("{name} does not mount; see {name}.log");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(this)
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg("--lazy").arg(&self.path));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// curl's, of as many ranges at the same time.
fn download(server: &Server, bytes: u64) -> Result<Duration> {
    let each = bytes / PARALLEL;
    together(|index| {
        let mut curl = Command::new("curl");
        curl.args(["-sf", "-o", "/dev/null", "-r", &format!("{}-{}", index * each, (index + 1) * each - 1)]);
        curl.arg(format!("http://127.0.0.1:{}/{BUCKET}/read", server.port));
        curl
    })
}

/// curl's, of as many files.
fn upload(place: &Place, server: &Server, bytes: u64) -> Result<Duration> {
    let source = place.directory.join("upload");
    fs::write(&source, vec![b'w'; usize::try_from(bytes / PARALLEL)?])?;
    together(|index| {
        let mut curl = Command::new("curl");
        curl.args(["-sf", "-T"]).arg(&source);
        curl.arg(format!("http://127.0.0.1:{}/{BUCKET}/raw-{index}", server.port));
        curl
    })
}

fn together(command: impl Fn(u64) -> Command) -> Result<Duration> {
    let start = Instant::now();
    let children: Vec<Child> = (0..PARALLEL).map(|index| command(index).spawn()).collect::<Result<_, _>>()?;
    for mut child in children {
        ensure!(child.wait()?.success(), "curl fails");
    }
    Ok(start.elapsed())
}

fn write(report: &mut Report, sizes: &Sizes, [ours, s3fs, rclone, raw]: [&Samples; 4]) {
    report.title("buckets as files", "what | stockade | s3fs | rclone mount | curl × 4 | target");
    let mib = sizes.bytes >> 20;
    let rate = |samples: &[Duration]| mib as f64 / quantile(samples, 0.5).as_secs_f64();
    for (what, of) in [
        ("read", (|samples: &Samples| samples.read.clone()) as fn(&Samples) -> Vec<Duration>),
        ("write", |samples: &Samples| samples.write.clone()),
    ] {
        let [ours, s3fs, rclone, raw] = [ours, s3fs, rclone, raw].map(|samples| rate(&of(samples)));
        let (best, floor) = (ours / s3fs.max(rclone), ours / raw);
        report.row(&[
            format!("{what} {mib} MiB in order, MiB/s"),
            format!("{ours:.0}"),
            format!("{s3fs:.0}"),
            format!("{rclone:.0}"),
            format!("{raw:.0}"),
            format!(
                "{best:.2} × the best (at least 1) {}; {floor:.2} × curl (at least 0.8) {}",
                met(best >= 1.0),
                met(floor >= 0.8)
            ),
        ]);
    }
    let [list, s3fs_list, rclone_list] = [ours, s3fs, rclone].map(|samples| ms(quantile(&samples.list, 0.5)));
    report.row(&[
        format!("`ls -l` of {} files, ms", sizes.files),
        format!("{list:.0}"),
        format!("{s3fs_list:.0}"),
        format!("{rclone_list:.0}"),
        String::new(),
        format!("{:.1} × faster than s3fs (at least 2) {}", s3fs_list / list, met(s3fs_list >= 2.0 * list)),
    ]);
    let [random, s3fs_random, rclone_random] =
        [ours, s3fs, rclone].map(|samples| ms(quantile(&samples.random, 0.5)));
    report.row(&[
        "4 KiB at random, p50 ms".to_owned(),
        format!("{random:.2}"),
        format!("{s3fs_random:.2}"),
        format!("{rclone_random:.2}"),
        String::new(),
        format!("no slower than the best {}", met(random <= s3fs_random.min(rclone_random))),
    ]);
    let [random, s3fs_random, rclone_random] =
        [ours, s3fs, rclone].map(|samples| ms(quantile(&samples.random_mean, 0.5)));
    report.row(&[
        "4 KiB at random, mean ms".to_owned(),
        format!("{random:.2}"),
        format!("{s3fs_random:.2}"),
        format!("{rclone_random:.2}"),
        String::new(),
        format!("{:.1} × faster than s3fs", s3fs_random / random),
    ]);
    let peak = |samples: &Samples| samples.memory_kib.iter().copied().max().unwrap_or(0) as f64 / 1024.0;
    report.row(&[
        "memory of the process at its peak, MiB".to_owned(),
        format!("{:.0}", peak(ours)),
        format!("{:.0}", peak(s3fs)),
        format!("{:.0}", peak(rclone)),
        String::new(),
        format!("at most {MEMORY_MIB} {}", met(peak(ours) <= MEMORY_MIB)),
    ]);
    report.note(
        "All with their defaults against one server on loopback that checks nothing and keeps nothing, each mounted anew in\n\
         each round. curl × 4 is four processes that each fetch or send a quarter, without a file system and unsigned.\n\
         mountpoint-s3 is not in Debian, and its client needs cmake and libclang beside cargo, so it is not measured.",
    );
}
