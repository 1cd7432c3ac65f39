/* Preloaded into a process: stops or fails it at the N-th change that it makes below a folder.
 *
 * Changes are counted over all threads, in the order in which they happen: files made, written,
 * synced, renamed and removed, and folders made. Set in the environment:
 *
 *   FAULT_FOLDER  changes elsewhere are neither counted nor touched
 *   FAULT_AT      which change, 1 for the first; 0 for none
 *   FAULT_ERRNO   it and all that follow fail with this; 0 kills the process instead, and where
 *                 the change is a write, after the first half of its bytes
 *   FAULT_LOG     a file that gets a line for each change
 *
 * FAULT_MODES names how the file system of the folder falls short, any of these:
 *
 *   dirsync-einval fsync-einval           folders, or files, cannot be synced
 *   flock-enolck flock-enosys             there are no locks
 *   flock-ebadf flock-file-ebadf          folders, or files, cannot be locked
 *   rename-ebusy rename-eacces            every third rename meets a file that another has open
 *   rename-always-ebusy                   so does every one
 *   chmod-eperm link-eperm                permissions, or hard links, cannot be set
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static atomic_int changes;

static int setting(const char *name) {
    const char *value = getenv(name);
    return value ? atoi(value) : 0;
}

static int below(const char *path) {
    const char *folder = getenv("FAULT_FOLDER");
    char absolute[2 * PATH_MAX], here[PATH_MAX];
    if (!folder)
        return 0;
    if (path[0] != '/' && getcwd(here, sizeof here)) {
        snprintf(absolute, sizeof absolute, "%s/%s", here, path);
        path = absolute;
    }
    size_t length = strlen(folder);
    return !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

static int below_descriptor(int descriptor) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return below(path);
}

/* Whether the change happens; dies or sets errno where it does not. */
static int allowed(const char *what, int descriptor, const void *data, size_t size) {
    int number = atomic_fetch_add(&changes, 1) + 1, at = setting("FAULT_AT"), code;
    if (getenv("FAULT_LOG")) {
        int log = REAL(open)(getenv("FAULT_LOG"), O_WRONLY | O_CREAT | O_APPEND, 0666);
        dprintf(log, "%s\n", what); /* not through write(), which is ours */
        close(log);
    }
    if (!at || number < at)
        return 1;
    if ((code = setting("FAULT_ERRNO"))) {
        errno = code;
        return 0;
    }
    if (number == at) {
        if (size > 1)
            REAL(write)(descriptor, data, size / 2);
        kill(getpid(), SIGKILL);
    }
    for (;;)
        pause();
}

ssize_t write(int descriptor, const void *data, size_t size) {
    if (below_descriptor(descriptor) && !allowed("write", descriptor, data, size))
        return -1;
    return REAL(write)(descriptor, data, size);
}

static int lacks(const char *mode) {
    const char *modes = getenv("FAULT_MODES");
    return modes && strstr(modes, mode);
}

static int fail(int code) {
    errno = code;
    return -1;
}

static int is_folder(int descriptor) {
    struct stat status;
    return !fstat(descriptor, &status) && S_ISDIR(status.st_mode);
}

int flock(int descriptor, int operation) {
    if (below_descriptor(descriptor)) {
        if (lacks("flock-enolck"))
            return fail(ENOLCK);
        if (lacks("flock-enosys"))
            return fail(ENOSYS);
        if (lacks(is_folder(descriptor) ? "flock-ebadf" : "flock-file-ebadf"))
            return fail(EBADF);
    }
    return REAL(flock)(descriptor, operation);
}

int chmod(const char *path, mode_t mode) {
    return below(path) && lacks("chmod-eperm") ? fail(EPERM) : REAL(chmod)(path, mode);
}

int fchmod(int descriptor, mode_t mode) {
    if (below_descriptor(descriptor) && lacks("chmod-eperm"))
        return fail(EPERM);
    return REAL(fchmod)(descriptor, mode);
}

int link(const char *from, const char *to) {
    return below(to) && lacks("link-eperm") ? fail(EPERM) : REAL(link)(from, to);
}

int linkat(int from, const char *old, int to, const char *path, int flags) {
    return lacks("link-eperm") ? fail(EPERM) : REAL(linkat)(from, old, to, path, flags);
}

int fsync(int descriptor) {
    if (below_descriptor(descriptor) && lacks(is_folder(descriptor) ? "dirsync-einval" : "fsync-einval"))
        return fail(EINVAL);
    if (below_descriptor(descriptor) && !allowed("fsync", -1, NULL, 0))
        return -1;
    return REAL(fsync)(descriptor);
}

int rename(const char *from, const char *to) {
    static atomic_int renames;
    if (below(to) && lacks("rename-always-ebusy"))
        return fail(EBUSY);
    if (below(to) && lacks("rename-e") && atomic_fetch_add(&renames, 1) % 3 == 2)
        return fail(lacks("rename-ebusy") ? EBUSY : EACCES);
    if (below(to) && !allowed("rename", -1, NULL, 0))
        return -1;
    return REAL(rename)(from, to);
}

int unlink(const char *path) {
    if (below(path) && !allowed("unlink", -1, NULL, 0))
        return -1;
    return REAL(unlink)(path);
}

int mkdir(const char *path, mode_t mode) {
    if (below(path) && !allowed("mkdir", -1, NULL, 0))
        return -1;
    return REAL(mkdir)(path, mode);
}

#define OPEN(name)                                                                                 \
    int name(const char *path, int flags, ...) {                                                   \
        va_list rest;                                                                              \
        va_start(rest, flags);                                                                     \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                    \
        va_end(rest);                                                                              \
        if (flags & O_CREAT && below(path) && !allowed("create", -1, NULL, 0))                     \
            return -1;                                                                             \
        return REAL(name)(path, flags, mode);                                                      \
    }
OPEN(open)
OPEN(open64)
