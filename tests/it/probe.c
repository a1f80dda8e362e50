/* Attempts that a sandbox must refuse, each in a child of its own, and a few appetites for the limit tests.
 *
 *   probe attempt GROUP     one line per attempt: NAME ok | NAME <ERRNO> | NAME signal N
 *   probe eat MIB           touch that much memory, then print "ate"
 *   probe keep MIB          the same, and keep it
 *   probe fork MAX          fork sleeping children until it fails; print how many there were
 *   probe hold MAX          the same, but keep them; say "full" first
 *   probe burn MS           use the processor for MS milliseconds of wall time; print the milliseconds of it used
 *   probe write PATH MIB    write and fsync; print the milliseconds it took, or the errno
 *   probe write-direct ...  the same with O_DIRECT
 *   probe files DIR MAX     make empty files until it fails; print how many there were
 *   probe daemonize         double fork, setsid, ignore SIGTERM and SIGHUP, sleep; the first process ends at once
 *   probe stubborn          ignore every signal that can be ignored, say "ready", and sleep
 *   probe swap A B ROUNDS   exchange two names that often; print how often it worked
 *   probe deep DIR LEVELS   make directories within each other, by chdir; print how many
 *   probe odd DIR           make a FIFO, a bound socket and a link that loops in a directory
 *   probe hammer ROUNDS REFUSED ALLOWED V6
 *                       connect to port 81 of each, and send a datagram to the first, that often, or for ever when 0
 *   probe euid              print the effective uid: of a set-user-id copy, whether it got its owner's
 *
 * An attempt returns 0 when it succeeded and leaves errno otherwise. The same program must succeed as root in
 * scratch namespaces of the host: an attempt that succeeds nowhere proves nothing. */
#define _GNU_SOURCE
#include <errno.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/keyctl.h>
#include <linux/netlink.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <signal.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int opened(const char *path, int flags) {
    int fd = open(path, flags | O_CLOEXEC);
    return fd < 0 ? -1 : 0;
}
static int call(long result) { return result < 0 ? -1 : 0; }

/* mount namespace */
static int mount_tmpfs(void) { return mount("probe", "/tmp", "tmpfs", 0, 0); }
static int mount_proc(void) { return mount("proc", "/proc", "proc", 0, 0); }
static int mount_bind(void) { return mount("/", "/tmp", 0, MS_BIND, 0); }
static int mount_remount(void) { return mount(0, "/", 0, MS_REMOUNT | MS_BIND, 0); }
static int mount_propagation(void) { return mount(0, "/", 0, MS_REC | MS_SHARED, 0); }
static int unmount(void) { return umount2("/proc", MNT_DETACH); }
static int new_fsopen(void) { return call(syscall(SYS_fsopen, "tmpfs", 0)); }
static int new_open_tree(void) { return call(syscall(SYS_open_tree, AT_FDCWD, "/", 1)); }
static int new_mount_setattr(void) {
    uint64_t attributes[4] = {1 /* MOUNT_ATTR_RDONLY */, 0, 0, 0};
    return call(syscall(SYS_mount_setattr, AT_FDCWD, "/", 0, attributes, sizeof attributes));
}
static int change_root(void) { return chroot("/tmp"); }

/* more namespaces */
static int unshare_user(void) { return unshare(CLONE_NEWUSER); }
static int unshare_mount(void) { return unshare(CLONE_NEWNS); }
static int unshare_net(void) { return unshare(CLONE_NEWNET); }
static int unshare_pid(void) { return unshare(CLONE_NEWPID); }
static int unshare_all(void) {
    return unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS);
}
static int clone_user(void) {
    long pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) _exit(0);
    if (pid > 0) waitpid((pid_t)pid, 0, 0);
    return call(pid);
}
static int clone3_user(void) {
    uint64_t arguments[11] = {CLONE_NEWUSER, 0, 0, 0, SIGCHLD};
    long pid = syscall(SYS_clone3, arguments, 64);
    if (pid == 0) _exit(0);
    if (pid > 0) waitpid((pid_t)pid, 0, 0);
    return call(pid);
}
static int join_own_mount(void) {
    int fd = open("/proc/self/ns/mnt", O_RDONLY);
    return fd < 0 ? -1 : setns(fd, CLONE_NEWNS);
}
static int host_name(void) { return sethostname("probe", 5); }
static int domain_name(void) { return setdomainname("probe", 5); }

/* the first process */
static int first_kill(void) { return kill(1, SIGCONT); }
static int first_ptrace(void) { return call(ptrace(PTRACE_SEIZE, 1, 0, 0)); }
static int first_memory(void) { return opened("/proc/1/mem", O_RDWR); }
static int first_environment(void) { return opened("/proc/1/environ", O_RDONLY); }
static int first_root(void) { return opened("/proc/1/root", O_RDONLY); }
static int first_cwd(void) { return opened("/proc/1/cwd/.", O_RDONLY); }
static int first_descriptors(void) { return opened("/proc/1/fd", O_RDONLY | O_DIRECTORY); }
static int first_executable(void) { return opened("/proc/1/exe", O_RDONLY); }
static int first_limits(void) {
    struct rlimit limit;
    return prlimit(1, RLIMIT_NOFILE, 0, &limit);
}
static int first_affinity(void) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(0, &set);
    return sched_setaffinity(1, sizeof set, &set);
}
static int first_priority(void) { return setpriority(PRIO_PROCESS, 1, 1); }
static int first_read_memory(void) {
    char byte;
    struct iovec local = {&byte, 1}, remote = {(void *)0x400000, 1};
    ssize_t read = process_vm_readv(1, &local, 1, &remote, 1, 0);
    /* The address may be unmapped: that it was looked at is enough. */
    return read < 0 && errno != EFAULT ? -1 : 0;
}
static int first_take_descriptor(void) {
    int fd = (int)syscall(SYS_pidfd_open, 1, 0);
    return fd < 0 ? -1 : call(syscall(SYS_pidfd_getfd, fd, 0, 0));
}

/* devices and host files */
static int node(mode_t mode, unsigned major, unsigned minor) {
    char path[64];
    snprintf(path, sizeof path, "/tmp/probe-node-%d", getpid());
    int result = mknod(path, mode, makedev(major, minor));
    if (result == 0) unlink(path);
    return result;
}
static int node_memory(void) { return node(S_IFCHR | 0600, 1, 1); }
static int node_null(void) { return node(S_IFCHR | 0600, 1, 3); }
static int node_disk(void) { return node(S_IFBLK | 0600, 254, 0); }
static int write_core_pattern(void) { return opened("/proc/sys/kernel/core_pattern", O_WRONLY); }
static int write_hostname(void) { return opened("/proc/sys/kernel/hostname", O_WRONLY); }
static int write_forwarding(void) { return opened("/proc/sys/net/ipv4/ip_forward", O_WRONLY); }
static int write_namespaces(void) {
    int fd = open("/proc/sys/user/max_user_namespaces", O_WRONLY);
    return fd < 0 ? -1 : call(write(fd, "100", 3));
}
static int write_sysrq(void) { return opened("/proc/sysrq-trigger", O_WRONLY); }
static int read_kcore(void) {
    char byte;
    int fd = open("/proc/kcore", O_RDONLY);
    if (fd < 0) return -1;
    ssize_t size = read(fd, &byte, 1);
    if (size == 1) return 0;
    if (size == 0) errno = ENODATA;
    return -1;
}
static int read_filled(const char *path) {
    char byte;
    int fd = open(path, O_RDONLY);
    if (fd < 0) return -1;
    ssize_t size = read(fd, &byte, 1);
    if (size == 0) errno = ENODATA;
    return size == 1 ? 0 : -1;
}
static int read_kallsyms(void) { return read_filled("/proc/kallsyms"); }
static int read_timers(void) { return read_filled("/proc/timer_list"); }
static int read_boot_line(void) { return read_filled("/proc/cmdline"); }
static int read_interrupts(void) { return read_filled("/proc/interrupts"); }
static int read_key_users(void) { return read_filled("/proc/key-users"); }

/* sockets */
static int made(int family, int type, int protocol) { return call(socket(family, type, protocol)); }
static int socket_packet(void) { return made(AF_PACKET, SOCK_RAW, 0); }
static int socket_raw(void) { return made(AF_INET, SOCK_RAW, 1); }
static int socket_vsock(void) { return made(40, SOCK_STREAM, 0); }
static int socket_alg(void) { return made(38, SOCK_SEQPACKET, 0); }
static int socket_xdp(void) { return made(44, SOCK_RAW, 0); }
static int socket_key(void) { return made(15, SOCK_RAW, 2); }
static int socket_rds(void) { return made(21, SOCK_SEQPACKET, 0); }
static int socket_tipc(void) { return made(30, SOCK_RDM, 0); }
static int socket_mptcp(void) { return made(AF_INET, SOCK_STREAM, 262); }
static int socket_netfilter(void) { return made(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER); }
static int socket_xfrm(void) { return made(AF_NETLINK, SOCK_RAW, NETLINK_XFRM); }
static int socket_generic(void) { return made(AF_NETLINK, SOCK_RAW, NETLINK_GENERIC); }
static int socket_audit(void) { return made(AF_NETLINK, SOCK_RAW, NETLINK_AUDIT); }
static int urgent_byte(void) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) _exit(99);
    return call(send(pair[0], "x", 1, MSG_OOB));
}

/* system calls that no ordinary program needs */
static int call_io_uring(void) {
    struct io_uring_params parameters = {0};
    return call(syscall(SYS_io_uring_setup, 1, &parameters));
}
static int call_bpf(void) {
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof attributes);
    attributes.map_type = BPF_MAP_TYPE_ARRAY;
    attributes.key_size = attributes.value_size = 4;
    attributes.max_entries = 1;
    return call(syscall(SYS_bpf, BPF_MAP_CREATE, &attributes, sizeof attributes));
}
static int call_perf(void) {
    struct perf_event_attr attributes = {.type = PERF_TYPE_SOFTWARE, .size = sizeof attributes};
    return call(syscall(SYS_perf_event_open, &attributes, 0, -1, -1, 0));
}
static int call_userfaultfd(void) { return call(syscall(SYS_userfaultfd, O_CLOEXEC)); }
static int call_keyctl(void) { return call(syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_PROCESS_KEYRING, 1)); }
static int call_add_key(void) { return call(syscall(SYS_add_key, "user", "probe", "x", 1, KEY_SPEC_PROCESS_KEYRING)); }
static int call_fanotify(void) { return call(fanotify_init(FAN_CLASS_NOTIF | FAN_REPORT_FID, O_RDONLY)); }
static int call_handle(void) {
    struct { struct file_handle head; char space[128]; } handle;
    handle.head.handle_bytes = sizeof handle.space;
    int mount_id;
    return name_to_handle_at(AT_FDCWD, "/proc", &handle.head, &mount_id, 0) < 0 && errno != EOPNOTSUPP ? -1 : 0;
}
static int call_ptrace_self(void) { return call(ptrace(PTRACE_TRACEME, 0, 0, 0)); }
static int call_kcmp(void) { return call(syscall(SYS_kcmp, getpid(), getpid(), 0, 0, 0)); }
static int call_syslog(void) { return call(syscall(SYS_syslog, 10, 0, 0)); }
static int call_quotactl(void) {
    long result = syscall(SYS_quotactl, 0x800001 << 8, 0, 0, 0);
    return result < 0 && errno != ENODEV ? -1 : 0;
}
static int call_acct(void) { return acct(0); }
static int call_iopl(void) { return call(syscall(SYS_iopl, 3)); }
static int call_ioperm(void) { return call(syscall(SYS_ioperm, 0x80, 1, 1)); }
static int call_secret_memory(void) { return call(syscall(SYS_memfd_secret, 0)); }
static int call_listmount(void) {
    uint64_t request[4] = {24, UINT64_MAX, 0, 0}, ids[8];
    ((uint32_t *)request)[0] = 24;
    return call(syscall(458, request, ids, 8, 0));
}
static int call_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    /* The same time again, less than a microsecond late: allowed or not is all that is asked. */
    return clock_settime(CLOCK_REALTIME, &now);
}
static int call_32_bit(void) {
    /* getpid by the 32-bit table: its number there is writev's here, and a filter by number alone would not see it. */
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "memory", "r8", "r9", "r10", "r11");
    if (result < 0) errno = (int)-result;
    return result == getpid() ? 0 : -1;
}

/* terminals */
static int terminal(void) {
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) || unlockpt(master)) _exit(98);
    setsid();
    int slave = open(ptsname(master), O_RDWR);
    if (slave < 0) _exit(97);
    ioctl(slave, TIOCSCTTY, 0);
    return slave;
}
static int inject_input(void) { return ioctl(terminal(), TIOCSTI, "x"); }
static int inject_input_wide(void) { return call(syscall(SYS_ioctl, terminal(), 0x100000000ul | TIOCSTI, "x")); }
static int line_discipline(void) {
    int other = 0; /* N_TTY: no change, but the call is made */
    return ioctl(terminal(), TIOCSETD, &other);
}

static int realtime(void) {
    struct sched_param parameters = {.sched_priority = 1};
    return sched_setscheduler(0, SCHED_FIFO, &parameters);
}

struct attempt {
    const char *group, *name;
    int (*run)(void);
};
#define A(group, name) {#group, #name, name}
static const struct attempt attempts[] = {
    A(mounts, mount_tmpfs), A(mounts, mount_proc), A(mounts, mount_bind), A(mounts, mount_remount),
    A(mounts, mount_propagation), A(mounts, unmount), A(mounts, new_fsopen), A(mounts, new_open_tree),
    A(mounts, new_mount_setattr), A(mounts, change_root), A(mounts, call_listmount),
    A(namespaces, unshare_user), A(namespaces, unshare_mount), A(namespaces, unshare_net),
    A(namespaces, unshare_pid), A(namespaces, unshare_all), A(namespaces, clone_user), A(namespaces, clone3_user),
    A(namespaces, join_own_mount), A(namespaces, host_name), A(namespaces, domain_name),
    A(first, first_kill), A(first, first_ptrace), A(first, first_memory), A(first, first_environment),
    A(first, first_root), A(first, first_cwd), A(first, first_descriptors), A(first, first_executable),
    A(first, first_limits), A(first, first_affinity), A(first, first_priority), A(first, first_read_memory),
    A(first, first_take_descriptor),
    A(kernel, node_memory), A(kernel, node_null), A(kernel, node_disk), A(kernel, write_core_pattern),
    A(kernel, write_hostname), A(kernel, write_forwarding), A(kernel, write_sysrq),
    A(kernel, read_kcore), A(kernel, read_kallsyms), A(kernel, read_timers), A(kernel, read_boot_line),
    A(kernel, read_interrupts), A(kernel, read_key_users),
    A(sockets, socket_packet), A(sockets, socket_raw), A(sockets, socket_vsock), A(sockets, socket_alg),
    A(sockets, socket_xdp), A(sockets, socket_key), A(sockets, socket_rds), A(sockets, socket_tipc),
    A(sockets, socket_mptcp), A(sockets, socket_netfilter), A(sockets, socket_xfrm), A(sockets, socket_generic),
    A(sockets, socket_audit), A(sockets, urgent_byte),
    A(calls, call_io_uring), A(calls, call_bpf), A(calls, call_perf), A(calls, call_userfaultfd),
    A(calls, call_keyctl), A(calls, call_add_key), A(calls, call_fanotify), A(calls, call_handle),
    A(calls, call_ptrace_self), A(calls, call_kcmp), A(calls, call_syslog), A(calls, call_quotactl),
    A(calls, call_acct), A(calls, call_iopl), A(calls, call_ioperm), A(calls, call_secret_memory),
    A(calls, call_clock), A(calls, call_32_bit),
    A(terminals, inject_input), A(terminals, inject_input_wide), A(terminals, line_discipline),
    A(calls, realtime), A(own_user_namespace, write_namespaces),
};

static void attempt(const struct attempt *one) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0) {
        printf("%s fork-%s\n", one->name, strerrorname_np(errno));
        return;
    }
    if (pid == 0) {
        alarm(5);
        errno = 0;
        if (one->run() == 0) printf("%s ok\n", one->name);
        else if (errno) printf("%s %s\n", one->name, strerrorname_np(errno));
        else printf("%s wrong\n", one->name);
        fflush(stdout);
        _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    if (WIFSIGNALED(status)) printf("%s signal %d\n", one->name, WTERMSIG(status));
    else if (WEXITSTATUS(status)) printf("%s preparation-%d\n", one->name, WEXITSTATUS(status));
}

static long long now_ms(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * 1000ll + time.tv_nsec / 1000000;
}

static int eat(size_t mib, int keep) {
    for (size_t i = 0; i < mib; i++) {
        char *block = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (block == MAP_FAILED) {
            printf("%s after %zu\n", strerrorname_np(errno), i);
            return 1;
        }
        for (size_t at = 0; at < 1 << 20; at += 4096) block[at] = 1;
    }
    puts("ate");
    fflush(stdout);
    while (keep) pause();
    return 0;
}

/* Holds memory in which no two pages are the same until something comes on stdin, then says whether it is still so. */
static int remember(size_t mib) {
    size_t words = (mib << 20) / sizeof(uint64_t);
    uint64_t *held = mmap(0, mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (held == MAP_FAILED) return 1;
    for (size_t i = 0; i < words; i++) held[i] = i * 0x9e3779b97f4a7c15ull;
    puts("holds");
    fflush(stdout);
    getchar();
    for (size_t i = 0; i < words; i++)
        if (held[i] != i * 0x9e3779b97f4a7c15ull) return printf("changed at %zu\n", i), 1;
    return puts("intact"), 0;
}

static int fork_many(int most, int hold) {
    int count = 0;
    while (count < most) {
        pid_t pid = fork();
        if (pid < 0) break;
        if (pid == 0) {
            pause();
            _exit(0);
        }
        count++;
    }
    if (hold) puts("full");
    else printf("%d\n", count);
    fflush(stdout);
    while (hold) pause();
    signal(SIGTERM, SIG_IGN);
    kill(0, SIGTERM);
    return 0;
}

static int burn(long long ms) {
    volatile unsigned long spin = 0;
    long long end = now_ms(CLOCK_MONOTONIC) + ms;
    while (now_ms(CLOCK_MONOTONIC) < end)
        for (int i = 0; i < 100000; i++) spin++;
    printf("%lld\n", now_ms(CLOCK_PROCESS_CPUTIME_ID));
    return 0;
}

static int write_file(const char *path, int mib, int direct) {
    void *block;
    if (posix_memalign(&block, 4096, 1 << 20)) return 1;
    memset(block, 'x', 1 << 20);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | (direct ? O_DIRECT : 0), 0644);
    if (fd < 0) return printf("%s at open\n", strerrorname_np(errno)), 1;
    long long start = now_ms(CLOCK_MONOTONIC);
    for (int i = 0; i < mib; i++)
        if (write(fd, block, 1 << 20) != 1 << 20) return printf("%s after %d\n", strerrorname_np(errno), i), 1;
    if (fsync(fd)) return printf("%s at fsync\n", strerrorname_np(errno)), 1;
    printf("%lld\n", now_ms(CLOCK_MONOTONIC) - start);
    return 0;
}

static int make_files(const char *directory, int most) {
    char path[4096];
    for (int i = 0; i < most; i++) {
        snprintf(path, sizeof path, "%s/file-%d", directory, i);
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
        if (fd < 0) return printf("%s after %d\n", strerrorname_np(errno), i), 1;
        close(fd);
    }
    printf("%d\n", most);
    return 0;
}

static int daemonize(void) {
    if (fork()) return 0;
    setsid();
    if (fork()) _exit(0);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    for (;;) pause();
    return 0;
}

static int stubborn(void) {
    for (int number = 1; number < 65; number++) signal(number, SIG_IGN);
    puts("ready");
    fflush(stdout);
    for (;;) pause();
    return 0;
}

static int swap_names(const char *a, const char *b, long rounds) {
    long worked = 0;
    for (long i = 0; i < rounds; i++)
        if (!syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, 2 /* RENAME_EXCHANGE */)) worked++;
    printf("%ld\n", worked);
    return 0;
}

static int deep(const char *directory, long levels) {
    long made = 0;
    if (chdir(directory)) return 1;
    for (; made < levels; made++)
        if (mkdir("d", 0755) || chdir("d")) break;
    printf("%ld\n", made);
    return 0;
}

static int odd(const char *directory) {
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "socket"};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (chdir(directory) || mkfifo("fifo", 0666) || symlink("loop", "loop")) return 1;
    return bind(fd, (struct sockaddr *)&address, sizeof address) ? 1 : 0;
}

/* Asks a web server at port 81, or sends it a datagram. */
static void knock(const char *where, int kind) {
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(81)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(81)};
    int is_v6 = inet_pton(AF_INET, where, &v4.sin_addr) != 1;
    if (is_v6) inet_pton(AF_INET6, where, &v6.sin6_addr);
    struct sockaddr *to = is_v6 ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4;
    socklen_t length = is_v6 ? sizeof v6 : sizeof v4;
    int fd = socket(to->sa_family, kind | SOCK_CLOEXEC, 0);
    struct timeval patience = {.tv_sec = 20};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (kind == SOCK_DGRAM) {
        sendto(fd, "x", 1, MSG_NOSIGNAL, to, length);
    } else if (!connect(fd, to, length)) {
        const char *ask = "GET / HTTP/1.0\r\nHost: x\r\n\r\n";
        char answer[1];
        send(fd, ask, strlen(ask), MSG_NOSIGNAL);
        recv(fd, answer, 1, 0);
    }
    close(fd);
}

static int hammer(long rounds, char **where) {
    puts("began");
    fflush(stdout);
    for (long i = 0; !rounds || i < rounds; i++) {
        knock(where[0], SOCK_STREAM);
        knock(where[0], SOCK_DGRAM);
        knock(where[2], SOCK_STREAM);
        knock(where[1], SOCK_STREAM);
        if (!rounds) usleep(200);
    }
    return 0;
}

int main(int count, char **words) {
    const char *verb = count > 1 ? words[1] : "";
    if (!strcmp(verb, "attempt") && count == 3) {
        for (size_t i = 0; i < sizeof attempts / sizeof *attempts; i++)
            if (!strcmp(attempts[i].group, words[2])) attempt(&attempts[i]);
        return 0;
    }
    if (!strcmp(verb, "eat") && count == 3) return eat(strtoul(words[2], 0, 10), 0);
    if (!strcmp(verb, "keep") && count == 3) return eat(strtoul(words[2], 0, 10), 1);
    if (!strcmp(verb, "remember") && count == 3) return remember(strtoul(words[2], 0, 10));
    if (!strcmp(verb, "fork") && count == 3) return fork_many(atoi(words[2]), 0);
    if (!strcmp(verb, "hold") && count == 3) return fork_many(atoi(words[2]), 1);
    if (!strcmp(verb, "burn") && count == 3) return burn(atoll(words[2]));
    if (!strcmp(verb, "write") && count == 4) return write_file(words[2], atoi(words[3]), 0);
    if (!strcmp(verb, "write-direct") && count == 4) return write_file(words[2], atoi(words[3]), 1);
    if (!strcmp(verb, "files") && count == 4) return make_files(words[2], atoi(words[3]));
    if (!strcmp(verb, "swap") && count == 5) return swap_names(words[2], words[3], atol(words[4]));
    if (!strcmp(verb, "deep") && count == 4) return deep(words[2], atol(words[3]));
    if (!strcmp(verb, "odd") && count == 3) return odd(words[2]);
    if (!strcmp(verb, "hammer") && count == 6) return hammer(atol(words[2]), words + 3);
    if (!strcmp(verb, "daemonize")) return daemonize();
    if (!strcmp(verb, "stubborn")) return stubborn();
    if (!strcmp(verb, "euid")) return printf("%d\n", (int)geteuid()), 0;
    fprintf(stderr, "probe: unknown verb\n");
    return 2;
}
