//! radosgw of Debian with a monitor and a store of its own, all in memory and in one directory.
//!
//! Each cluster has an address of its own in 127.0.0.0/8, made of this process' number, so that the usual ports are free
//! there whoever else runs one. Its processes end with the value, and by the kernel's hand if this process is killed.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::harness::scratch;
use crate::harness::tls::Authority;

const FSID: &str = "11111111-2222-3333-4444-555555555555";
const OSD: &str = "313d5586-f658-482c-a027-e4cfc9820a03";

/// It answers after twenty seconds, and later on a host that is busy.
const START: Duration = Duration::from_secs(150);

pub const ACCESS_KEY_ID: &str = "test-access-key";
pub const SECRET_ACCESS_KEY: &str = "test-secret-access-key";

/// Programs of it, all needed.
const PROGRAMS: [&str; 4] = ["ceph-mon", "ceph-osd", "ceph", "radosgw"];

/// A cluster of one of each.
#[derive(Debug)]
pub struct Ceph {
    running: Vec<Child>,
    directory: TempDir,
    address: Ipv4Addr,
}

impl Ceph {
    /// Starts it, with a certificate of this authority's; nothing where a program is missing.
    pub fn start(authority: &Authority) -> Option<Self> {
        let path = std::env::var("PATH").unwrap_or_default();
        let has = |program: &&str| path.split(':').any(|place| Path::new(place).join(program).is_file());
        if !PROGRAMS.iter().all(has) {
            return None;
        }
        let mut ceph = Self { running: Vec::new(), directory: scratch(), address: address() };
        authority.write(&[&ceph.address.to_string()], ceph.directory.path());
        ceph.configure();
        ceph.monitor();
        ceph.store();
        ceph.gateway();
        Some(ceph)
    }

    /// Where it speaks TLS, by its certificate's name.
    pub fn endpoint(&self) -> String {
        format!("https://{}:7443", self.address)
    }

    /// The same bucket in clear.
    pub fn plain(&self) -> String {
        format!("http://{}:7480", self.address)
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn configure(&self) {
        let (directory, address) = (self.directory.path().display(), self.address);
        let configuration = format!(
            "[global]\nfsid = {FSID}\nmon_host = [v2:{address}:3300,v1:{address}:6789]\npublic_addr = {address}\n\
             run_dir = {directory}\nadmin_socket = {directory}/$name.$pid.socket\nlog_file = {directory}/$name.log\n\
             log_to_stderr = false\nkeyring = {directory}/$name.keyring\ncrash_dir = {directory}\n\
             mon_data = {directory}/mon\nosd_data = {directory}/osd\nrgw_data = {directory}/rgw\n\
             mon_data_avail_crit = 1\nmon_data_avail_warn = 2\nmon_allow_pool_size_one = true\n\
             osd_pool_default_size = 1\nosd_pool_default_min_size = 1\nosd_pool_default_pg_num = 1\n\
             osd_pool_default_pgp_num = 1\nosd_pool_default_pg_autoscale_mode = off\nosd_crush_chooseleaf_type = 0\n\
             osd_objectstore = memstore\nmemstore_device_bytes = 4294967296\nrgw_run_sync_thread = false\n\
             rgw_s3_auth_use_sts = true\nrgw_sts_key = abcdefghijklmnop\n\
             rgw_frontends = beast endpoint={address}:7480 ssl_endpoint={address}:7443 \
             ssl_certificate={directory}/certificate ssl_private_key={directory}/key\n"
        );
        std::fs::write(self.path("ceph.conf"), configuration).unwrap();
        for name in ["mon", "osd", "rgw"] {
            std::fs::create_dir(self.path(name)).unwrap();
        }
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env("CEPH_CONF", self.path("ceph.conf")).current_dir(self.directory.path());
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let output = self.command(program, arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {said}{}", self.logs());
        output
    }

    /// Begins a process that goes on until this value ends.
    fn begin(&mut self, program: &str, arguments: &[&str]) {
        let all = [&["--pdeathsig", "KILL", program, "-f"][..], arguments].concat();
        let mut command = self.command("setpriv", &all);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.running.push(child);
    }

    fn monitor(&mut self) {
        let (keys, map) = (self.path("mon.keyring"), self.path("map"));
        let addresses = format!("[v2:{0}:3300,v1:{0}:6789]", self.address);
        let admin = self.path("client.admin.keyring");
        let all = ["--cap", "mon", "allow *"];
        self.run("ceph-authtool", &[&["-C", &keys, "--gen-key", "-n", "mon."][..], &all].concat());
        let more = ["--cap", "osd", "allow *", "--cap", "mgr", "allow *"];
        let make = ["-C", &admin, "--gen-key", "-n", "client.admin"];
        self.run("ceph-authtool", &[&make[..], &all, &more].concat());
        self.run("ceph-authtool", &[&keys, "--import-keyring", &admin]);
        self.run("monmaptool", &["--create", "--clobber", "--fsid", FSID, "--addv", "a", &addresses, &map]);
        self.run("ceph-mon", &["--mkfs", "-i", "a", "--monmap", &map, "--keyring", &keys]);
        self.begin("ceph-mon", &["-i", "a"]);
    }

    fn store(&mut self) {
        self.run("ceph", &["osd", "new", OSD]);
        let keys = self.path("osd.0.keyring");
        let caps = ["mon", "allow profile osd", "osd", "allow *"];
        self.run("ceph", &[&["auth", "get-or-create", "osd.0"][..], &caps, &["-o", &keys]].concat());
        std::fs::copy(&keys, self.path("osd/keyring")).unwrap();
        self.run("ceph-osd", &["-i", "0", "--mkfs", "--osd-uuid", OSD]);
        self.begin("ceph-osd", &["-i", "0"]);
    }

    fn gateway(&mut self) {
        let keys = self.path("client.rgw.keyring");
        let caps = ["mon", "allow rw", "osd", "allow rwx"];
        self.run("ceph", &[&["auth", "get-or-create", "client.rgw"][..], &caps, &["-o", &keys]].concat());
        self.begin("radosgw", &["-n", "client.rgw"]);
        let begun = Instant::now();
        while std::net::TcpStream::connect((self.address, 7443)).is_err() {
            assert!(begun.elapsed() < START, "radosgw does not answer: {}", self.logs());
            std::thread::sleep(Duration::from_millis(50));
        }
        let keys = ["--access-key", ACCESS_KEY_ID, "--secret", SECRET_ACCESS_KEY];
        let user = ["user", "create", "--uid=test", "--display-name=test"];
        self.run("radosgw-admin", &[&user[..], &keys].concat());
    }

    /// The last lines of what its parts say.
    fn logs(&self) -> String {
        let entries = std::fs::read_dir(self.directory.path()).into_iter().flatten().flatten();
        let logs = entries.filter(|entry| entry.path().extension().is_some_and(|name| name == "log"));
        let last = logs.map(|entry| {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let lines: Vec<_> = text.lines().rev().take(5).collect();
            format!("\n{}:\n{}", entry.path().display(), lines.join("\n"))
        });
        last.collect()
    }

    /// The gateway's process.
    pub fn pid(&self) -> i32 {
        self.running.last().unwrap().id().cast_signed()
    }
}

impl Drop for Ceph {
    fn drop(&mut self) {
        for child in self.running.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// An address that no other cluster on this host has, and that is not 127.0.0.1's neighbour.
fn address() -> Ipv4Addr {
    static MADE: AtomicU32 = AtomicU32::new(1);
    let number = MADE.fetch_add(1, Ordering::Relaxed) % 3 + 1;
    // Process numbers have 22 bits at most.
    Ipv4Addr::from_bits(127 << 24 | number << 22 | (std::process::id() & 0x003f_ffff))
}
