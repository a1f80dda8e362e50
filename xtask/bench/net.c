/* Both ends of a TCP connection, with nothing between that costs.
 *
 *   net serve ADDRESS PORT             one connection after the other: sends as many bytes as its first line says
 *   net proxy ADDRESS PORT             on 127.0.0.1 and the same port: passes what comes back on by splice(2)
 *   net connect ADDRESS PORT ROUNDS    per round a new connection, until its first byte; the median's nanoseconds
 *   net download ADDRESS PORT BYTES    one connection; nanoseconds until its last byte
 *
 * A number that could not be measured is a message and a non-zero exit. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (256 * 1024)
static char chunk[CHUNK];

static void die(const char *what) {
    fprintf(stderr, "net: %s: %s\n", what, strerror(errno));
    exit(111);
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static int tcp(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0) die("socket");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    return fd;
}

static void serve(const struct sockaddr_in *at) {
    int listener = tcp(), fd;
    if (bind(listener, (const void *)at, sizeof *at) || listen(listener, 64)) die("listen");
    while ((fd = accept4(listener, 0, 0, SOCK_CLOEXEC)) >= 0) {
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        char line[32] = "";
        size_t have = 0;
        ssize_t got;
        while (have < sizeof line - 1 && !memchr(line, '\n', have) && (got = read(fd, line + have, sizeof line - 1 - have)) > 0)
            have += got;
        uint64_t left = strtoull(line, 0, 10);
        while (left) {
            ssize_t sent = write(fd, chunk, left < CHUNK ? left : CHUNK);
            if (sent < 0) break;
            left -= sent;
        }
        /* Whoever closes first keeps the port for a minute: that is to be the client. */
        shutdown(fd, SHUT_WR);
        while (read(fd, line, sizeof line) > 0) {}
        close(fd);
    }
    die("accept");
}

/* What passing bytes on costs at least: one thread that blocks, one pipe, no copy, no decision. */
static void proxy(const struct sockaddr_in *to) {
    struct sockaddr_in own = *to;
    inet_pton(AF_INET, "127.0.0.1", &own.sin_addr);
    int listener = tcp(), near, far, ends[2];
    if (bind(listener, (const void *)&own, sizeof own) || listen(listener, 64) || pipe2(ends, O_CLOEXEC)) die("proxy");
    fcntl(ends[1], F_SETPIPE_SZ, CHUNK);
    while ((near = accept4(listener, 0, 0, SOCK_CLOEXEC)) >= 0) {
        int on = 1;
        setsockopt(near, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        char line[32];
        ssize_t left = read(near, line, sizeof line);
        far = tcp();
        if (connect(far, (const void *)to, sizeof *to) || write(far, line, left) != left) die("proxy");
        while ((left = splice(far, 0, ends[1], 0, CHUNK, SPLICE_F_MOVE)) > 0)
            for (ssize_t moved; left; left -= moved)
                if ((moved = splice(ends[0], 0, near, 0, left, SPLICE_F_MOVE)) <= 0) die("splice");
        close(near);
        close(far);
    }
    die("accept");
}

/* Asks for bytes on a new connection and takes them all; gives the time until the first or the last of them. */
static uint64_t take(const struct sockaddr_in *to, uint64_t bytes) {
    char line[32];
    int length = snprintf(line, sizeof line, "%llu\n", (unsigned long long)bytes);
    uint64_t start = now(), left = bytes;
    int fd = tcp();
    if (connect(fd, (const void *)to, sizeof *to)) die("connect");
    if (write(fd, line, length) != length) die("write");
    while (left) {
        ssize_t got = read(fd, chunk, CHUNK);
        if (got <= 0) die("read");
        left -= got;
    }
    uint64_t took = now() - start;
    close(fd);
    return took;
}

static int order(const void *one, const void *other) {
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
    return (a > b) - (a < b);
}

int main(int count, char **words) {
    if (count < 4) return 2;
    signal(SIGPIPE, SIG_IGN);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(words[3]))};
    if (inet_pton(AF_INET, words[2], &address.sin_addr) != 1) return 2;
    if (!strcmp(words[1], "serve")) serve(&address);
    if (!strcmp(words[1], "proxy")) proxy(&address);
    if (count != 5) return 2;
    uint64_t number = strtoull(words[4], 0, 10);
    if (!strcmp(words[1], "download")) {
        printf("%llu\n", (unsigned long long)take(&address, number));
        return 0;
    }
    uint64_t *times = calloc(number + 1, sizeof *times);
    for (int warm = 0; warm < 20; warm++) take(&address, 1);
    for (uint64_t round = 0; round < number; round++) times[round] = take(&address, 1);
    qsort(times, number, sizeof *times, order);
    printf("%llu\n", (unsigned long long)times[number / 2]);
    return 0;
}
