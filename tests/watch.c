/* Preloaded into a process and all that it starts: logs what leaves it and what it writes.
 *
 * WATCH_LOG names the log, which gets a line for each of these calls, whether or not it succeeds:
 *
 *   net  FAMILY HOST PORT  a connection or a datagram to an address of this family (AF_*); host and
 *                          port are those of IPv4 and IPv6
 *   file ABSOLUTE PATH     a file opened for writing, made, renamed to, linked or removed, or a
 *                          folder made
 *
 * fopen is here because libc's own open does not pass through this one.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define WRITES(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC))

static void put(const char *text) {
    const char *log = getenv("WATCH_LOG");
    int file = log ? REAL(open)(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666) : -1;
    if (file >= 0) {
        if (REAL(write)(file, text, strlen(text)) < 0)
            abort();
        close(file);
    }
}

static void tell_file(int folder, const char *path) {
    char line[3 * PATH_MAX], link[64], base[PATH_MAX] = "";
    if (!path)
        return;
    if (path[0] != '/') {
        ssize_t length = -1;
        if (folder == AT_FDCWD) {
            if (getcwd(base, sizeof base))
                length = strlen(base);
        } else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
            length = readlink(link, base, sizeof base - 1);
        }
        base[length < 0 ? 0 : length] = 0;
    }
    snprintf(line, sizeof line, "file %s%s%s\n", base, *base ? "/" : "", path);
    put(line);
}

static void tell_net(const struct sockaddr *address) {
    char host[INET6_ADDRSTRLEN] = "", line[96];
    unsigned port = 0;
    if (!address)
        return;
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *four = (const struct sockaddr_in *)address;
        inet_ntop(AF_INET, &four->sin_addr, host, sizeof host);
        port = ntohs(four->sin_port);
    } else if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)address;
        inet_ntop(AF_INET6, &six->sin6_addr, host, sizeof host);
        port = ntohs(six->sin6_port);
    }
    snprintf(line, sizeof line, "net %d %s %u\n", address->sa_family, host, port);
    put(line);
}

int connect(int socket, const struct sockaddr *address, socklen_t size) {
    tell_net(address);
    return REAL(connect)(socket, address, size);
}

ssize_t sendto(int socket, const void *data, size_t size, int flags, const struct sockaddr *address,
               socklen_t length) {
    tell_net(address);
    return REAL(sendto)(socket, data, size, flags, address, length);
}

ssize_t sendmsg(int socket, const struct msghdr *message, int flags) {
    tell_net(message->msg_name);
    return REAL(sendmsg)(socket, message, flags);
}

int sendmmsg(int socket, struct mmsghdr *messages, unsigned count, int flags) {
    if (count)
        tell_net(messages->msg_hdr.msg_name);
    return REAL(sendmmsg)(socket, messages, count, flags);
}

#define MODE(flags)                                                                                \
    mode_t mode = 0;                                                                               \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                         \
        va_list rest;                                                                              \
        va_start(rest, flags);                                                                     \
        mode = va_arg(rest, mode_t);                                                               \
        va_end(rest);                                                                              \
    }
#define OPEN(name)                                                                                 \
    int name(const char *path, int flags, ...) {                                                   \
        MODE(flags)                                                                                \
        if (WRITES(flags))                                                                         \
            tell_file(AT_FDCWD, path);                                                             \
        return REAL(name)(path, flags, mode);                                                      \
    }
#define OPENAT(name)                                                                               \
    int name(int folder, const char *path, int flags, ...) {                                       \
        MODE(flags)                                                                                \
        if (WRITES(flags))                                                                         \
            tell_file(folder, path);                                                               \
        return REAL(name)(folder, path, flags, mode);                                              \
    }
#define FOPEN(name)                                                                                \
    FILE *name(const char *path, const char *mode) {                                               \
        if (strpbrk(mode, "wa+"))                                                                  \
            tell_file(AT_FDCWD, path);                                                             \
        return REAL(name)(path, mode);                                                             \
    }
#define PATH_CALL(result, name, declared, passed, path)                                            \
    result name declared {                                                                         \
        tell_file(AT_FDCWD, path);                                                                 \
        return REAL(name) passed;                                                                  \
    }

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
FOPEN(fopen)
FOPEN(fopen64)
PATH_CALL(int, creat, (const char *path, mode_t mode), (path, mode), path)
PATH_CALL(int, mkdir, (const char *path, mode_t mode), (path, mode), path)
PATH_CALL(int, rmdir, (const char *path), (path), path)
PATH_CALL(int, unlink, (const char *path), (path), path)
PATH_CALL(int, truncate, (const char *path, off_t size), (path, size), path)
PATH_CALL(int, mkfifo, (const char *path, mode_t mode), (path, mode), path)
PATH_CALL(int, rename, (const char *from, const char *to), (from, to), to)
PATH_CALL(int, link, (const char *from, const char *to), (from, to), to)
PATH_CALL(int, symlink, (const char *from, const char *to), (from, to), to)
PATH_CALL(int, mkstemp, (char *path), (path), path)
PATH_CALL(char *, mkdtemp, (char *path), (path), path)

int mkdirat(int folder, const char *path, mode_t mode) {
    tell_file(folder, path);
    return REAL(mkdirat)(folder, path, mode);
}

int unlinkat(int folder, const char *path, int flags) {
    tell_file(folder, path);
    return REAL(unlinkat)(folder, path, flags);
}

int renameat(int from, const char *old, int to, const char *path) {
    tell_file(to, path);
    return REAL(renameat)(from, old, to, path);
}
