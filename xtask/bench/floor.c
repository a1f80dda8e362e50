/* What the kernel itself asks for, measured from one resident process; and a stopwatch for whole programs.
 *
 *   floor create ROOTFS STATE [v1|v2]   per line on stdin: one sandbox made, /bin/true run in it, destroyed
 *   floor spawn PROGRAM ARGUMENT...     per line on stdin: vfork, exec, wait; `{}` in a word becomes a number
 *   floor fork PROGRAM                  per line on stdin: fork, exec, wait
 *
 * Each answers with one line: the nanoseconds that it took, or a message and a non-zero exit. The steps of `create`
 * are those that a sandbox cannot do without: user, mount, PID, network, IPC, UTS and cgroup namespaces, id maps, an
 * overlay with its own upper directory, /proc, pivot_root, one exec, reaping, removing the upper directory. With v1
 * or v2 also a tmpfs of limited size under the overlay, and a cgroup with memory, pids and cpu limits, entered in the cheapest way that each version has: v2 by
 * CLONE_INTO_CGROUP, v1 by a `0` that the single-threaded child writes to each tasks file opened before the clone. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ull
#endif

struct clone_arguments {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};

static void die(const char *what) {
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    _exit(111);
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static int put(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t written = write(fd, text, strlen(text));
    close(fd);
    return written < 0 ? -1 : 0;
}

#define CONTROLLERS 4
static const char *const v1_directory[CONTROLLERS] = {"memory", "pids", "cpu", "blkio"};
static const char *const v1_file[CONTROLLERS] = {"memory.limit_in_bytes", "pids.max", "cpu.cfs_quota_us", 0};
static const char *const v2_file[CONTROLLERS] = {"memory.max", "pids.max", "cpu.max", "memory.swap.max"};
static const char *const v1_value[CONTROLLERS] = {"268435456", "256", "100000", 0};
static const char *const v2_value[CONTROLLERS] = {"268435456", "256", "100000 100000", "0"};
static char own_v1[CONTROLLERS][1024];

/* Where this process is in each v1 hierarchy: new groups go below, since the mounts may not show the roots. */
static void find_v1(void) {
    for (int i = 0; i < CONTROLLERS; i++) snprintf(own_v1[i], sizeof own_v1[i], "/sys/fs/cgroup/%s", v1_directory[i]);
    FILE *file = fopen("/proc/self/cgroup", "r");
    char line[2048];
    while (file && fgets(line, sizeof line, file)) {
        char *names = strchr(line, ':');
        char *path = names ? strchr(names + 1, ':') : 0;
        if (!path) continue;
        *path++ = 0;
        path[strcspn(path, "\n")] = 0;
        for (int i = 0; i < CONTROLLERS; i++)
            if (strstr(names, v1_directory[i]) && strlen(path) > 1)
                snprintf(own_v1[i], sizeof own_v1[i], "/sys/fs/cgroup/%s%s", v1_directory[i], path);
    }
    if (file) fclose(file);
}

static void child(int go, const char *rootfs, const char *base, const int *tasks) {
    char options[4096], byte;
    for (int i = 0; tasks && i < CONTROLLERS; i++)
        if (write(tasks[i], "0", 1) != 1) die("enter the v1 group");
    if (read(go, &byte, 1) != 1) die("go");
    if (mount(0, "/", 0, MS_REC | MS_PRIVATE, 0)) die("private");
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s/u,workdir=%s/w,userxattr,volatile", rootfs, base, base);
    char root[1100];
    snprintf(root, sizeof root, "%s/m", base);
    if (mount("overlay", root, "overlay", MS_NOSUID | MS_NODEV, options)) die("overlay");
    if (chdir(root)) die("chdir");
    if (mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0)) die("proc");
    if (syscall(SYS_pivot_root, ".", ".")) die("pivot_root");
    if (umount2(".", MNT_DETACH)) die("detach");
    if (chdir("/")) die("chdir /");
    char *words[] = {"/bin/true", 0}, *environment[] = {"PATH=/bin", 0};
    execve(words[0], words, environment);
    die("exec /bin/true");
}

/* What overlayfs keeps in its work directory. */
#define OVERLAY "w/work"

static void remove_tree(const char *base) {
    static const char *const names[] = {OVERLAY "/incompat/volatile/dirty", OVERLAY "/incompat/volatile",
                                        OVERLAY "/incompat", OVERLAY, "w", "u", "m", ""};
    char path[1100];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", base, names[i]);
        if (rmdir(path) && errno == ENOTDIR) unlink(path);
    }
}

static void once(const char *rootfs, const char *state, int version, unsigned number) {
    char base[1024], path[2048];
    int tasks[CONTROLLERS], group = -1;
    snprintf(base, sizeof base, "%s/floor-%d-%u", state, getpid(), number);
    if (mkdir(base, 0755)) die(base);
    if (version && mount("floor", base, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755,size=67108864")) die("tmpfs");
    for (const char *const *name = (const char *const[]){"u", "w", "m", 0}; *name; name++) {
        snprintf(path, sizeof path, "%s/%s", base, *name);
        if (mkdir(path, 0755)) die(path);
    }
    for (int i = 0; version == 1 && i < CONTROLLERS; i++) {
        snprintf(path, sizeof path, "%s/floor-%u", own_v1[i], number);
        if (mkdir(path, 0755)) die(path);
        if (v1_file[i]) {
            snprintf(path, sizeof path, "%s/floor-%u/%s", own_v1[i], number, v1_file[i]);
            if (put(path, v1_value[i])) die(path);
        }
        snprintf(path, sizeof path, "%s/floor-%u/tasks", own_v1[i], number);
        if ((tasks[i] = open(path, O_WRONLY | O_CLOEXEC)) < 0) die(path);
    }
    if (version == 2) {
        snprintf(path, sizeof path, "/sys/fs/cgroup/floor-%u", number);
        if (mkdir(path, 0755)) die(path);
        group = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        for (int i = 0; i < CONTROLLERS; i++) {
            snprintf(path, sizeof path, "/sys/fs/cgroup/floor-%u/%s", number, v2_file[i]);
            if (put(path, v2_value[i])) die(path);
        }
    }
    int go[2];
    if (pipe2(go, O_CLOEXEC)) die("pipe");
    struct clone_arguments arguments = {.exit_signal = SIGCHLD};
    arguments.flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
    if (group >= 0) arguments.flags |= CLONE_INTO_CGROUP, arguments.cgroup = group;
    long pid = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (pid < 0) die("clone3");
    if (pid == 0) {
        close(go[1]);
        child(go[0], rootfs, base, version == 1 ? tasks : 0);
    }
    close(go[0]);
    for (const char *const *map = (const char *const[]){"uid_map", "gid_map", 0}; *map; map++) {
        snprintf(path, sizeof path, "/proc/%ld/%s", pid, *map);
        if (put(path, "0 0 65536\n")) die(path);
    }
    if (write(go[1], "x", 1) != 1) die("go");
    close(go[1]);
    int status;
    if (waitpid((pid_t)pid, &status, 0) < 0) die("wait");
    if (status) {
        fprintf(stderr, "floor: /bin/true ended with status %x\n", status);
        _exit(111);
    }
    for (int i = 0; version == 1 && i < CONTROLLERS; i++) {
        close(tasks[i]);
        snprintf(path, sizeof path, "%s/floor-%u", own_v1[i], number);
        if (rmdir(path)) die(path);
    }
    if (version == 2) {
        close(group);
        snprintf(path, sizeof path, "/sys/fs/cgroup/floor-%u", number);
        if (rmdir(path)) die(path);
    }
    if (version) {
        if (umount2(base, MNT_DETACH)) die("umount");
        rmdir(base);
        return;
    }
    remove_tree(base);
}

static void spawn(char **words, int forked, unsigned number) {
    static char buffers[16][4096];
    char *expanded[64];
    int count = 0, used = 0;
    for (; words[count] && count < 63; count++) {
        char *hole = strstr(words[count], "{}");
        if (hole && used < 16) {
            snprintf(buffers[used], sizeof *buffers, "%.*s%d-%u%s", (int)(hole - words[count]), words[count], getpid(), number, hole + 2);
            expanded[count] = buffers[used++];
        } else {
            expanded[count] = words[count];
        }
    }
    expanded[count] = 0;
    pid_t pid = forked ? fork() : vfork();
    if (pid == 0) {
        execv(expanded[0], expanded);
        _exit(127);
    }
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) < 0) die("spawn");
    if (status) {
        fprintf(stderr, "floor: %s ended with status %x\n", words[0], status);
        _exit(111);
    }
}

int main(int count, char **words) {
    if (count < 3) return fprintf(stderr, "see the head of floor.c\n"), 2;
    char line[64];
    int version = count > 4 ? words[4][1] - '0' : 0;
    if (version == 1) find_v1();
    for (unsigned number = 0; fgets(line, sizeof line, stdin); number++) {
        uint64_t start = now();
        if (!strcmp(words[1], "create") && count >= 4) once(words[2], words[3], version, number);
        else if (!strcmp(words[1], "spawn")) spawn(words + 2, 0, number);
        else if (!strcmp(words[1], "fork")) spawn(words + 2, 1, number);
        else return 2;
        printf("%llu\n", (unsigned long long)(now() - start));
        fflush(stdout);
    }
    return 0;
}
