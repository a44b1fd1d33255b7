/* Lets a program that waits in io_uring_enter(2) run under valgrind.
 *
 * Valgrind runs one thread at a time, and its 3.19 (Debian 12) does not know that io_uring_enter may block: while one
 * thread waits there, all others stand still. Preloaded, this submits without waiting, waits in ppoll(2), of which
 * valgrind knows that it blocks, and then takes what has completed. Rings are made without deferred task work, of which
 * poll would not hear. The io-uring crate calls syscall(2), so that is what is replaced. x86-64 only, as Debian's
 * valgrind is for this purpose.
 *
 * While the file that TWINSAN_DISK_HOLD names is there, nobody hears of what has completed: a disk that takes its time.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* linux/io_uring.h; Debian 12's has not all of them. */
#define ENTER_GETEVENTS (1u << 0)
#define ENTER_EXT_ARG (1u << 3)
#define SETUP_TASKRUN_FLAG (1u << 9)
#define SETUP_SINGLE_ISSUER (1u << 12)
#define SETUP_DEFER_TASKRUN (1u << 13)

struct setup_params {
    uint32_t sq_entries, cq_entries, flags;
};

struct getevents_arg {
    uint64_t sigmask;
    uint32_t sigmask_sz;
    uint32_t pad;
    uint64_t ts;
};

static long raw(long n, const long a[6]) {
    register long r10 __asm__("r10") = a[3];
    register long r8 __asm__("r8") = a[4];
    register long r9 __asm__("r9") = a[5];
    long result = n;
    __asm__ volatile("syscall"
                     : "+a"(result)
                     : "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

static long done(long result) {
    if (result < 0 && result > -4096) {
        errno = (int)-result;
        return -1;
    }
    return result;
}

static void wait_while_held(void) {
    static const char *file = 0;
    if (file == 0) file = getenv("TWINSAN_DISK_HOLD");
    const struct timespec moment = {.tv_sec = 0, .tv_nsec = 20 * 1000 * 1000};
    while (file != 0 && access(file, F_OK) == 0) nanosleep(&moment, 0);
}

/* a: fd, to_submit, min_complete, flags, argument, its size. */
static long enter(const long a[6]) {
    long submitted = 0;
    if (a[1] > 0) {
        const long submit[6] = {a[0], a[1], 0, a[3] & ~(long)(ENTER_GETEVENTS | ENTER_EXT_ARG), 0, 0};
        submitted = raw(SYS_io_uring_enter, submit);
        if (submitted < 0) return done(submitted);
    }
    struct timespec *until = 0;
    struct timespec time;
    if (((unsigned long)a[3] & ENTER_EXT_ARG) && a[4] != 0) {
        const struct getevents_arg *argument = (const void *)a[4];
        if (argument->ts != 0) {
            /* struct __kernel_timespec: two 64-bit numbers. */
            const int64_t *given = (const void *)(uintptr_t)argument->ts;
            time.tv_sec = given[0];
            time.tv_nsec = given[1];
            until = &time;
        }
    }
    struct pollfd ring = {.fd = (int)a[0], .events = POLLIN};
    int ready = ppoll(&ring, 1, until, 0);
    if (ready < 0) return -1;
    wait_while_held();
    if (ready == 0 && submitted == 0) return done(-ETIME);
    return submitted;
}

long syscall(long n, ...) {
    long a[6];
    va_list list;
    va_start(list, n);
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    if (n == SYS_io_uring_setup) {
        struct setup_params *params = (void *)a[1];
        params->flags &= ~(SETUP_TASKRUN_FLAG | SETUP_SINGLE_ISSUER | SETUP_DEFER_TASKRUN);
    }
    if (n == SYS_io_uring_enter && (unsigned)a[2] > 0) return enter(a);
    return done(raw(n, a));
}
