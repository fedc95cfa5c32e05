"""What a process preloads, in C, so that its disk fills (``torture.py``) or its clock jumps (``faults.py``)."""

import subprocess
from pathlib import Path

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
static long room = -1, seen = 0;
static char under[4096];
void fault_arm(long writes, const char *folder) { room = writes; seen = 0; strncpy(under, folder, sizeof under - 1); }
long fault_seen(void) { return seen; }
static int full(int fd) {
    char name[64], path[4096];
    struct stat found;
    if (room < 0 || fstat(fd, &found) || !S_ISREG(found.st_mode)) return 0;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    long length = readlink(name, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (strncmp(path, under, strlen(under))) return 0;
    if (seen++ < room) return 0;
    errno = ENOSPC;
    return 1;
}
#define WRAP(name, arguments, call) \
    ssize_t name arguments { \
        static ssize_t (*real) arguments; \
        if (!real) real = dlsym(RTLD_NEXT, #name); \
        return full(fd) ? -1 : real call; \
    }
WRAP(write, (int fd, const void *data, size_t size), (fd, data, size))
WRAP(writev, (int fd, const struct iovec *parts, int num), (fd, parts, num))
WRAP(pwrite, (int fd, const void *data, size_t size, off_t place), (fd, data, size, place))
WRAP(pwrite64, (int fd, const void *data, size_t size, off64_t place), (fd, data, size, place))
"""
"""Writes to files under a folder, of which the first so many succeed: a disk that fills."""
CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static int (*real)(clockid_t, struct timespec *);
static long shift(void) {
    static long away, looked;
    struct timespec now;
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    real(CLOCK_MONOTONIC, &now);
    if (now.tv_sec == looked) return away;
    looked = now.tv_sec;
    const char *back = getenv("CLOCK_BACK"), *forth = getenv("CLOCK_FORTH");
    return away = forth && !access(forth, F_OK) ? 86400 : back && !access(back, F_OK) ? -3600 : 0;
}
int clock_gettime(clockid_t clock, struct timespec *time) {
    long away = shift();
    int result = real(clock, time);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) time->tv_sec += away;
    return result;
}
int gettimeofday(struct timeval *time, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *place) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (place) *place = now.tv_sec;
    return now.tv_sec;
}
"""
"""The time of day, an hour early from when one file is there and a day late from when another is."""


def compiled(code: str, library: Path) -> Path:
    """Code as that library, its source beside it."""
    source = library.with_suffix(".c")
    source.write_text(code)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library
