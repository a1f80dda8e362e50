//! Races against what enters a sandbox: between fork and exec a command is a copy of the zygote.

use serde_json::json;

use crate::harness::Daemon;

/// Looks at every process that it sees, as fast as it can, and counts those that it could look into. Counts what it has
/// seen as well: a race that never met anybody proves nothing.
const ROB: &str = r#"
import ctypes, os, time, sys
libc = ctypes.CDLL(None, use_errno=True)
own, seen, robbed = os.getpid(), set(), []
end = time.time() + float(sys.argv[1])
while time.time() < end:
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == own: continue
        pid = int(name)
        try: program = os.readlink(f"/proc/{pid}/exe")
        except OSError: program = ""
        seen.add(pid)
        if program.startswith("/usr/"): continue
        for what in ("mem", "environ", "maps", "fd/0", "root/etc/passwd", "cwd/x"):
            try:
                f = os.open(f"/proc/{pid}/{what}", os.O_RDONLY); os.close(f)
                # The program may have begun in the meantime, and then it is the sandbox's own.
                if not os.readlink(f"/proc/{pid}/exe").startswith("/usr/"): robbed.append((pid, what))
            except OSError: pass
        handle = libc.syscall(434, pid, 0)
        if handle >= 0:
            if libc.syscall(438, handle, 0, 0) >= 0: robbed.append((pid, "descriptor"))
            os.close(handle)
        if libc.ptrace(0x4206, pid, 0, 0) == 0: robbed.append((pid, "traced"))
print(len(seen), robbed)
"#;

#[test]
fn who_enters_a_sandbox_cannot_be_traced_or_robbed() {
    let rounds = if std::env::var_os("STOCKADE_TEST_FULL").is_some() { 10_000 } else { 400 };
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let seconds = if rounds > 1000 { "240" } else { "12" };
    std::thread::scope(|scope| {
        let robbers = ["0", "1000"].map(|user| {
            let command = json!({"argv": ["python3", "-c", ROB, seconds], "user": user});
            let (daemon, name) = (&daemon, &name);
            scope.spawn(move || daemon.run(name, command))
        });
        for round in 0..rounds {
            let user = ["0", "1000"][round % 2];
            assert_eq!(daemon.run(&name, json!({"argv": ["true"], "user": user}))["exit_code"], 0);
        }
        for robber in robbers {
            let result = robber.join().unwrap();
            let text = result["stdout"].as_str().unwrap();
            let (seen, robbed) = text.trim().split_once(' ').unwrap_or_else(|| panic!("{result}"));
            assert_eq!(robbed, "[]", "{result}");
            assert!(seen.parse::<usize>().unwrap() > 20, "the race met only {seen} processes");
        }
    });
}
