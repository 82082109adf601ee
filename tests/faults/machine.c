/* A machine that fails on demand: preloaded into the daemon, switched from outside through a shared page.

   cc -shared -fPIC -O1 -o machine.so machine.c -ldl
   LD_PRELOAD=machine.so FAULTS_CONTROL=file FAULTS_BELOW=folder ...

   The page holds the numbers of `struct control`; machine.py writes them. Errors of the disk hit files below
   FAULTS_BELOW only, so that logs are still written. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct control {
    volatile int64_t sync_error;      /* errno of fsync and fdatasync, 0: none */
    volatile int64_t sync_delay_us;   /* what they take longer */
    volatile int64_t write_error;     /* errno of writes and truncations */
    volatile int64_t clock_offset_ns; /* what the wall clock is ahead; the monotonic one is left alone */
    volatile int64_t dns_error;       /* what getaddrinfo says of names, 0: none; numbers are always known */
    volatile int64_t syncs;           /* counted: how often a file below FAULTS_BELOW was synced */
    volatile int64_t failed;          /* counted: calls that were made to fail */
};

static struct control none, *control = &none;
static char below[4096];
static size_t below_length;

/* Called when a process begins: by the loader, and by what was forked from a process that had this loaded. */
__attribute__((constructor)) void read_environment(void) {
    const char *file = getenv("FAULTS_CONTROL"), *folder = getenv("FAULTS_BELOW");
    if (file == NULL || folder == NULL) return;
    int handle = open(file, O_RDWR | O_CLOEXEC);
    if (handle < 0) return;
    void *page = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, handle, 0);
    close(handle);
    if (page == MAP_FAILED) return;
    below_length = strlen(folder);
    if (below_length >= sizeof below) return;
    memcpy(below, folder, below_length);
    control = page;
}

static void *next(const char *name) {
    return dlsym(RTLD_NEXT, name);
}

static int is_below(int handle) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, path, sizeof path);
    return length > (ssize_t)below_length && memcmp(path, below, below_length) == 0;
}

static int fails(int64_t error) {
    __sync_fetch_and_add(&control->failed, 1);
    errno = (int)error;
    return -1;
}

static int synced(int handle, const char *name) {
    if (control != &none && is_below(handle)) {
        __sync_fetch_and_add(&control->syncs, 1);
        int64_t delay = control->sync_delay_us, error = control->sync_error;
        if (delay > 0) usleep((useconds_t)delay);
        if (error) return fails(error);
    }
    int (*real)(int) = next(name);
    return real(handle);
}

int fsync(int handle) { return synced(handle, "fsync"); }
int fdatasync(int handle) { return synced(handle, "fdatasync"); }

#define REFUSED(handle) (control->write_error && is_below(handle))

ssize_t write(int handle, const void *data, size_t size) {
    static ssize_t (*real)(int, const void *, size_t);
    if (real == NULL) real = next("write");
    return REFUSED(handle) ? fails(control->write_error) : real(handle, data, size);
}

#define PWRITE(name, offset_type)                                                      \
    ssize_t name(int handle, const void *data, size_t size, offset_type offset) {     \
        static ssize_t (*real)(int, const void *, size_t, offset_type);               \
        if (real == NULL) real = next(#name);                                          \
        return REFUSED(handle) ? fails(control->write_error) : real(handle, data, size, offset); \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define FTRUNCATE(name, size_type)                                                     \
    int name(int handle, size_type size) {                                             \
        static int (*real)(int, size_type);                                            \
        if (real == NULL) real = next(#name);                                          \
        return REFUSED(handle) ? fails(control->write_error) : real(handle, size);     \
    }
FTRUNCATE(ftruncate, off_t)
FTRUNCATE(ftruncate64, off64_t)

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (real == NULL) real = next("clock_gettime");
    int result = real(clock, time);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t now = (int64_t)time->tv_sec * 1000000000 + time->tv_nsec + control->clock_offset_ns;
        time->tv_sec = now / 1000000000;
        time->tv_nsec = now % 1000000000;
    }
    return result;
}

int gettimeofday(struct timeval *time, void *zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
    if (out != NULL) *out = now.tv_sec;
    return now.tv_sec;
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    unsigned char number[sizeof(struct in6_addr)];
    if (real == NULL) real = next("getaddrinfo");
    if (control->dns_error && node != NULL && inet_pton(AF_INET, node, number) != 1 && inet_pton(AF_INET6, node, number) != 1) {
        __sync_fetch_and_add(&control->failed, 1);
        return (int)control->dns_error;
    }
    return real(node, service, hints, found);
}
