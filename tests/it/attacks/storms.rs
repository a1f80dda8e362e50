//! Storms in one sandbox, seen from the one next door: it must go on, and the host must not pay.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Daemon, host, skipped};

const MIB: u64 = 1 << 20;

/// Takes kernel memory of one kind until the kernel says no, or kills. Each prints how far it came.
const KINDS: [(&str, &str); 8] = [
    (
        "pipes",
        "import os,fcntl\nk=[]\nwhile True:\n r,w=os.pipe(); fcntl.fcntl(w,1031,1<<20); os.set_blocking(w,False); k.append((r,w))\n try: os.write(w,b'x'*(1<<20))\n except BlockingIOError: pass",
    ),
    (
        "sockets",
        "import socket\nk=[]\nwhile True:\n a,b=socket.socketpair(); a.setblocking(False); k.append((a,b))\n try:\n  while True: a.send(b'x'*65536)\n except BlockingIOError: pass",
    ),
    (
        "epoll",
        "import select,os\nk=[]\nwhile True:\n e=select.epoll(); k.append(e)\n for f in range(3): e.register(f if f else os.eventfd(0))",
    ),
    (
        "message queues",
        "import ctypes\nl=ctypes.CDLL(None)\nb=ctypes.create_string_buffer(8200)\nb[0]=1\ni=0\nwhile True:\n q=l.msgget(0,0o1600)\n if q<0: break\n while l.msgsnd(q,b,8000,0o4000)==0: i+=1",
    ),
    (
        "shared memory",
        "import ctypes\nl=ctypes.CDLL(None)\nl.shmat.restype=ctypes.c_void_p\nwhile True:\n s=l.shmget(0,16<<20,0o1600)\n if s<0: break\n p=l.shmat(s,None,0)\n if p in (None,2**64-1): break\n ctypes.memset(p,1,16<<20)",
    ),
    (
        "directory entries",
        "import os\ni=0\nos.makedirs('/tmp/d',exist_ok=True)\nwhile True:\n try: os.stat(f'/tmp/d/{i:0200}')\n except OSError as e:\n  if e.errno!=2: break\n i+=1\n if i>3000000: break",
    ),
    (
        "inotify",
        "import ctypes,os\nl=ctypes.CDLL(None)\ni=0\nwhile True:\n f=l.inotify_init()\n if f<0: break\n os.makedirs(f'/tmp/i/{i}',exist_ok=True)\n if l.inotify_add_watch(f,f'/tmp/i/{i}'.encode(),0xfff)<0: break\n i+=1",
    ),
    (
        "mappings",
        "import mmap\nk=[]\nwhile True: k.append(mmap.mmap(-1,4096,prot=mmap.PROT_READ|(mmap.PROT_WRITE if len(k)%2 else 0)))",
    ),
];

/// Whether the sandbox's memory is bounded here.
fn bounded(sandbox: &serde_json::Value) -> bool {
    !sandbox["isolation"]["limits"]["memory_bytes"]["value"].is_null()
}

/// Memory that the host could give, in bytes.
fn available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find(|line| line.starts_with("MemAvailable:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn kernel_memory_of_every_kind_is_bounded() {
    let daemon = Daemon::start();
    let neighbour = crate::harness::id(&daemon.create(json!({})));
    for (kind, program) in KINDS {
        let sandbox = daemon.create(json!({"resources": {"memory_bytes": 96 * MIB, "pids": 64}}));
        let name = crate::harness::id(&sandbox);
        if !bounded(&sandbox) {
            skipped("memory-limit", "this host bounds no memory");
            return;
        }
        let before = available();
        let storm = json!({"argv": ["python3", "-c", program], "timeout_ms": 6000, "cwd": "/tmp"});
        std::thread::scope(|scope| {
            let (daemon, name) = (&daemon, &name);
            let taking = scope.spawn(move || daemon.run(name, storm));
            let mut lowest = before;
            while !taking.is_finished() {
                assert_eq!(daemon.shell(&neighbour, "echo alive"), "alive\n", "{kind}");
                lowest = lowest.min(available());
                std::thread::sleep(Duration::from_millis(20));
            }
            let result = taking.join().unwrap();
            // The rest of the host is at work too, so much more than the limit, and far less than without one.
            let taken = before.saturating_sub(lowest);
            assert!(taken < 1024 * MIB, "{kind} took {taken} bytes of the host: {result}");
        });
        // Its agent is there after all that.
        assert_eq!(daemon.shell(&name, "echo alive"), "alive\n", "{kind}");
        daemon.destroy(&name);
    }
}

#[test]
fn a_storm_of_orphans_leaves_the_neighbour_and_the_agent_alone() {
    let daemon = Daemon::start();
    let neighbour = daemon.sandbox();
    let name = crate::harness::id(&daemon.create(json!({"resources": {"pids": 128}})));
    let orphans = "import os,time\nend=time.time()+4\nmade=0\nwhile time.time()<end:\n try:\n  if os.fork()==0:\n   try:\n    if os.fork()==0: os._exit(0)\n   except OSError: pass\n   os._exit(0)\n  made+=1\n except OSError: pass\n try:\n  while os.waitpid(-1,os.WNOHANG)[0]: pass\n except ChildProcessError: pass\nprint(made)";
    std::thread::scope(|scope| {
        let (daemon, name) = (&daemon, &name);
        let storm = scope.spawn(move || daemon.run(name, json!({"argv": ["python3", "-c", orphans]})));
        let mut answers = 0;
        while !storm.is_finished() {
            assert_eq!(daemon.shell(&neighbour, "echo alive"), "alive\n");
            // Listing needs the sandbox's agent no more than serve: a command in the storm itself does.
            let inside = daemon.try_run(name, &json!({"argv": ["true"]}));
            answers += u32::from(inside.status == 200);
        }
        let result = storm.join().unwrap();
        let made: u32 = result["stdout"].as_str().unwrap().trim().parse().unwrap();
        assert!(made > 300, "the storm was none: {result}");
        assert!(answers > 0, "the agent answered nobody during the storm");
    });
    assert_eq!(daemon.shell(&name, "echo alive"), "alive\n");
}

#[test]
fn a_flood_of_crashes_starts_nothing_on_the_host() {
    let daemon = Daemon::start();
    let (name, neighbour) = (daemon.sandbox(), daemon.sandbox());
    let crashes = "import os,time\nend=time.time()+3\nn=0\nwhile time.time()<end:\n pid=os.fork()\n if pid==0: os.kill(os.getpid(),11)\n os.waitpid(pid,0); n+=1\nprint(n)";
    let dumped = || std::fs::read_dir("/var/crash").map(Iterator::count).unwrap_or_default();
    let before = dumped();
    std::thread::scope(|scope| {
        let (daemon, name) = (&daemon, &name);
        let command = json!({"argv": ["python3", "-c", crashes], "cwd": "/workspace"});
        let flood = scope.spawn(move || daemon.run(name, command));
        while !flood.is_finished() {
            assert_eq!(daemon.shell(&neighbour, "echo alive"), "alive\n");
        }
        let result = flood.join().unwrap();
        let count: u32 = result["stdout"].as_str().unwrap().trim().parse().unwrap();
        assert!(count > 100, "{result}");
    });
    assert_eq!(daemon.shell(&name, "ls /workspace"), "");
    assert_eq!(dumped(), before, "core dumps of a sandbox's processes were taken");
}

#[test]
fn an_agent_that_is_stopped_from_outside_holds_up_nobody_else() {
    let daemon = Daemon::start();
    let (stopped, other) = (daemon.sandbox(), daemon.sandbox());
    let pid = daemon.get(&format!("/v1/sandboxes/{stopped}"))["pid"].as_i64().unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    std::thread::scope(|scope| {
        let (daemon, stopped) = (&daemon, &stopped);
        let waits = scope.spawn(move || daemon.try_run(stopped, &json!({"argv": ["true"]})));
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(2) {
            assert_eq!(daemon.shell(&other, "echo alive"), "alive\n");
            assert!(!waits.is_finished(), "a stopped agent has answered");
        }
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
        assert_eq!(waits.join().unwrap().status, 200);
    });
    assert!(host::alive(pid.as_raw()));
    daemon.destroy(&stopped);
}
