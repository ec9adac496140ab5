#include "train/log.h"

#include "data/files.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <utf8proc.h>

enum { TEXT_BYTES = 2048, PATH_BYTES = 4096, BAR_CELLS = 24 };

typedef struct progress {
    bool active;
    int64_t done, total, first_done;
    double started, shown; /* seconds, monotonic */
    char text[TEXT_BYTES];
} progress;

struct tw_log {
    pthread_mutex_t lock;
    FILE *console, *file;
    bool terminal;
    double progress_seconds;
    progress bar;
    char path[PATH_BYTES], prefix[64];
    int write_errno; /* of the first failed write, to `broken` */
    const char *broken;
};

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Where the file's last complete line ends, or -1. */
static off_t complete_length(int fd) {
    char block[4096];
    off_t end = lseek(fd, 0, SEEK_END);
    while (end > 0) {
        off_t begin = end > (off_t)sizeof block ? end - (off_t)sizeof block : 0;
        ssize_t n = pread(fd, block, (size_t)(end - begin), begin);
        if (n != end - begin) return -1;
        const char *newline = memrchr(block, '\n', (size_t)n);
        if (newline) return begin + (newline - block) + 1;
        end = begin;
    }
    return end;
}

/* Two runs in one folder would overwrite each other's checkpoints. A run that was killed may need moments to
 * go. File systems that know no locks let everybody in. */
static tw_status take_folder(const tw_log *log, int fd) {
    enum { LOOKS = 40 }; /* for four seconds */
    for (int look = 0; flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK; look++) {
        if (look == LOOKS)
            return FAIL(TW_ERR_IO,
                        "%s is in use: another run writes to this folder; wait for its end, stop it, or "
                        "choose another --output",
                        log->path);
        nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    }
    return TW_OK;
}

static tw_status open_file(tw_log *log, const char *run_dir) {
    struct stat info;
    TRY(tw_make_folders(run_dir));
    int n = snprintf(log->path, sizeof log->path, "%s/log.jsonl", run_dir);
    if (n < 0 || (size_t)n >= sizeof log->path)
        return FAIL(TW_ERR_IO, "%.200s...: the path is too long", run_dir);
    int fd = open(log->path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0)
        return FAIL(TW_ERR_IO, "%s: cannot be written: %s; choose another --output", log->path,
                    strerror(errno));
    tw_status status = take_folder(log, fd);
    if (status != TW_OK) {
        close(fd);
        return status;
    }
    off_t length = fstat(fd, &info) == 0 && S_ISREG(info.st_mode) ? complete_length(fd) : info.st_size;
    if (length < 0 || (length < info.st_size && ftruncate(fd, length) != 0) ||
        !(log->file = fdopen(fd, "a"))) {
        status = FAIL(TW_ERR_IO, "%s: cannot be written: %s", log->path, strerror(errno));
        close(fd);
        return status;
    }
    return TW_OK;
}

tw_status tw_log_open(const tw_log_options *options, tw_log **log) {
    *log = NULL;
    tw_log *fresh = calloc(1, sizeof *fresh);
    if (!fresh) return FAIL(TW_ERR_MEMORY, "no memory for the log");
    tw_status status = options->run_dir ? open_file(fresh, options->run_dir) : TW_OK;
    if (status) {
        free(fresh);
        return status;
    }
    pthread_mutex_init(&fresh->lock, NULL);
    fresh->console = options->console;
    fresh->terminal = options->console && isatty(fileno(options->console));
    snprintf(fresh->prefix, sizeof fresh->prefix, "%s", options->prefix ? options->prefix : "");
    fresh->progress_seconds = options->progress_seconds;
    *log = fresh;
    return TW_OK;
}

static tw_status write_status(const tw_log *log) {
    if (!log->write_errno) return TW_OK;
    return FAIL(TW_ERR_IO, "%s: cannot be written: %s", log->broken, strerror(log->write_errno));
}

/* The first failure is the one to tell. */
static void note_failure(tw_log *log, const char *broken, int code) {
    if (log->write_errno) return;
    log->write_errno = code ? code : EIO;
    log->broken = broken;
}

/* The console's bar
 * -------------------------------------------------------------------------------------------- */

void tw_log_duration_text(double duration, char *text, size_t size) {
    if (!(duration >= 0)) duration = 0;
    long long s = duration > 1e9 ? 1000000000 : (long long)(duration + 0.5);
    if (s < 3600)
        snprintf(text, size, "%lld:%02lld", s / 60, s % 60);
    else
        snprintf(text, size, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
}

/* Cuts UTF-8 text to a number of terminal columns; Chinese characters take two. */
static void cut_to_columns(char *text, int columns) {
    int used = 0;
    for (char *at = text; *at;) {
        utf8proc_int32_t code = 0;
        utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)at, -1, &code);
        int width = n > 0 ? utf8proc_charwidth(code) : 1;
        if (used + width > columns) {
            *at = '\0';
            return;
        }
        used += width;
        at += n > 0 ? n : 1;
    }
}

/* Rate and time left as far as they are known: not before the second report, nor is there time left at the
 * end.
 */
static void describe(const progress *bar, double now, char *text, size_t size) {
    char left[32], rate[64] = "", rest[48] = "";
    double elapsed = now - bar->started, worked = (double)(bar->done - bar->first_done);
    if (elapsed > 0 && worked > 0) {
        snprintf(rate, sizeof rate, worked / elapsed < 9.95 ? "  %.2f/s" : "  %.0f/s", worked / elapsed);
        tw_log_duration_text(elapsed * (double)(bar->total - bar->done) / worked, left, sizeof left);
        if (bar->done < bar->total) snprintf(rest, sizeof rest, "  %s left", left);
    }
    snprintf(text, size, "%lld/%lld%s%s%s%s", (long long)bar->done, (long long)bar->total, rate, rest,
             bar->text[0] ? "  " : "", bar->text);
}

static double fraction(const progress *bar) {
    return bar->total > 0 ? (double)bar->done / (double)bar->total : 1;
}

static void draw_bar(tw_log *log, double now) {
    char cells[BAR_CELLS + 1], status[TEXT_BYTES + 128], line[TEXT_BYTES + 256];
    struct winsize window;
    int columns =
        ioctl(fileno(log->console), TIOCGWINSZ, &window) == 0 && window.ws_col > 0 ? window.ws_col : 80;
    int full = (int)(fraction(&log->bar) * BAR_CELLS);
    memset(cells, '.', BAR_CELLS);
    memset(cells, '#', (size_t)(full < 0 ? 0 : full > BAR_CELLS ? BAR_CELLS : full));
    cells[BAR_CELLS] = '\0';
    describe(&log->bar, now, status, sizeof status);
    snprintf(line, sizeof line, "%3.0f%% [%s] %s", 100 * fraction(&log->bar), cells, status);
    cut_to_columns(line, columns - 1); /* the last column would wrap */
    fprintf(log->console, "\r\033[K%s", line);
    fflush(log->console);
    log->bar.shown = now;
}

static void print_console(tw_log *log, const char *text) {
    char stamp[32];
    time_t now = time(NULL);
    struct tm local;
    if (!log->console) return;
    localtime_r(&now, &local);
    strftime(stamp, sizeof stamp, "%Y-%m-%d %H:%M:%S", &local);
    bool redraw = log->terminal && log->bar.active;
    int n = fprintf(log->console, "%s%s | %s%s\n", redraw ? "\r\033[K" : "", stamp, log->prefix, text);
    if (n < 0 || fflush(log->console) != 0) {
        /* A terminal that was closed is no reason to end what the file goes on telling. */
        if (!log->terminal || errno != EIO) note_failure(log, "the console", errno);
        return;
    }
    if (redraw) draw_bar(log, seconds(CLOCK_MONOTONIC));
}

static void advance(progress *bar, int64_t done, int64_t total, double now) {
    if (!bar->active || total != bar->total || done < bar->done) {
        bar->active = true;
        bar->first_done = done;
        bar->started = now;
        bar->shown = -INFINITY;
    }
    bar->done = done;
    bar->total = total;
}

static void show_progress(tw_log *log, double now) {
    progress *bar = &log->bar;
    bool last = bar->done >= bar->total;
    if (log->terminal) {
        if (last || now - bar->shown >= 0.1) draw_bar(log, now);
        if (last) fputc('\n', log->console), fflush(log->console);
    } else if (log->progress_seconds > 0) {
        /* The first unit tells no rate yet. */
        if (bar->shown < bar->started) bar->shown = bar->started;
        if (last || now - bar->shown >= log->progress_seconds) {
            char text[TEXT_BYTES + 128];
            describe(bar, now, text, sizeof text);
            print_console(log, text);
            bar->shown = now;
        }
    }
    if (last) bar->active = false;
}

void tw_log_progress(tw_log *log, int64_t done, int64_t total, const char *format, ...) {
    if (!log || !log->console) return;
    va_list args;
    va_start(args, format);
    pthread_mutex_lock(&log->lock);
    double now = seconds(CLOCK_MONOTONIC);
    vsnprintf(log->bar.text, sizeof log->bar.text, format, args);
    advance(&log->bar, done, total, now);
    show_progress(log, now);
    pthread_mutex_unlock(&log->lock);
    va_end(args);
}

/* The file
 * ----------------------------------------------------------------------------------------------------- */

/* Writes one line; the lock is held. */
static void write_line(tw_log *log, const char *text) {
    if (fprintf(log->file, "%s\n", text) >= 0 && fflush(log->file) == 0) return;
    note_failure(log, log->path, errno);
}

static tw_status append_record(tw_log *log, const json_t *record) {
    if (!log->file) return TW_OK;
    json_t *stamped = json_pack("{s:f}", "time", floor(seconds(CLOCK_REALTIME) * 1e3) / 1e3);
    /* jansson takes no const object, but only reads this one. */
    if (!stamped || json_object_update_missing(stamped, (json_t *)(uintptr_t)record) != 0) {
        json_decref(stamped);
        return FAIL(TW_ERR_MEMORY, "no memory for a log record");
    }
    char *text = json_dumps(stamped, JSON_COMPACT | JSON_REAL_PRECISION(15));
    json_decref(stamped);
    if (!text) return FAIL(TW_ERR_MEMORY, "no memory for a log record");
    write_line(log, text);
    free(text);
    return TW_OK;
}

tw_status tw_log_record(tw_log *log, const json_t *record) {
    if (!record) return FAIL(TW_ERR_MEMORY, "a log record could not be built");
    if (!json_is_object(record)) return FAIL(TW_ERR_ARGUMENT, "a log record must be an object");
    if (!log) return TW_OK;
    pthread_mutex_lock(&log->lock);
    tw_status status = append_record(log, record);
    if (!status) status = write_status(log);
    pthread_mutex_unlock(&log->lock);
    return status;
}

/* File names may hold any bytes; JSON only UTF-8. */
static void replace_invalid_utf8(char *text) {
    for (char *at = text; *at;) {
        utf8proc_int32_t code = 0;
        utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)at, -1, &code);
        if (n <= 0) *at = '?';
        at += n > 0 ? n : 1;
    }
}

static void log_text(tw_log *log, const char *event, const char *prefix, const char *format, va_list args) {
    char text[TEXT_BYTES];
    int n = snprintf(text, sizeof text, "%s", prefix);
    vsnprintf(text + n, sizeof text - (size_t)n, format, args);
    pthread_mutex_lock(&log->lock);
    print_console(log, text);
    replace_invalid_utf8(text);
    json_t *record = json_pack("{s:s, s:s}", "event", event, "text", text + n);
    if (!record || append_record(log, record) != TW_OK) note_failure(log, "the log", ENOMEM);
    json_decref(record);
    pthread_mutex_unlock(&log->lock);
}

void tw_log_line(tw_log *log, const char *format, ...) {
    if (!log) return;
    va_list args;
    va_start(args, format);
    log_text(log, "line", "", format, args);
    va_end(args);
}

void tw_log_warning(tw_log *log, const char *format, ...) {
    if (!log) return;
    va_list args;
    va_start(args, format);
    log_text(log, "warning", "warning: ", format, args);
    va_end(args);
}

tw_status tw_log_close(tw_log *log) {
    if (!log) return TW_OK;
    if (log->terminal && log->bar.active) {
        fputc('\n', log->console);
        fflush(log->console);
    }
    if (log->file && fclose(log->file) != 0) note_failure(log, log->path, errno);
    tw_status status = write_status(log);
    pthread_mutex_destroy(&log->lock);
    free(log);
    return status;
}
