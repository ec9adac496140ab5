/* Where progress and results go: a terminal (one progress bar under scrolling lines), plain lines elsewhere,
 * and JSON lines in the run folder for programs.
 *
 * All functions may be called from several threads at once. Those without a status never fail: the first
 * failure to write (a full disk) is kept and returned by the next tw_log_record and by tw_log_close. A NULL
 * log is accepted everywhere and does nothing. */
#ifndef TW_TRAIN_LOG_H
#define TW_TRAIN_LOG_H

#include "autograd/status.h"

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

typedef struct tw_log tw_log;

typedef struct tw_log_options {
    const char *run_dir;     /* folder for log.jsonl, made with its parents if missing; NULL: no file */
    FILE *console;           /* stays the caller's; NULL: none. A bar is drawn if it is a terminal */
    const char *prefix;      /* before every line on the console, as "rank 2: "; copied; NULL: none */
    double progress_seconds; /* elsewhere: least time between plain progress lines; 0: none are printed */
} tw_log_options;

/* Opens log.jsonl for appending; what a killed run left of an unfinished last line is cut off. The file stays
 * locked (flock) until it is closed, so that the folder is one process's; where another has it, it is waited
 * for up to four seconds. *log is to be closed by tw_log_close. Errors: TW_ERR_IO (the message names the
 * folder or file; it is in use), TW_ERR_MEMORY. */
tw_status tw_log_open(const tw_log_options *options, tw_log **log) TW_MUST_CHECK;
/* Ends the bar, closes the file, frees the log; returns the first failure to write, if there was one. */
tw_status tw_log_close(tw_log *log);

/* One line, without its newline, on the console after the time of day, and in the file as
 * {"time": seconds since 1970, "event": "line", "text": "..."}. */
void tw_log_line(tw_log *log, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same after "warning: ", as event "warning". */
void tw_log_warning(tw_log *log, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Appends the object to the file as one line, "time" added to its front, and flushes. `record` is borrowed
 * and not changed; NULL fails as a failed allocation does, so that a json_pack can stand in the call. Not
 * shown on the console. Errors: TW_ERR_IO, TW_ERR_MEMORY, TW_ERR_ARGUMENT (not an object, or not
 * representable). */
tw_status tw_log_record(tw_log *log, const json_t *record) TW_MUST_CHECK;

/* `done` of `total` units: percentage, rate, time left, and the formatted text ("loss 3.21"). On a terminal
 * the bar is redrawn at most ten times a second; the last unit ends it. A smaller `done` or another `total`
 * than last time starts a new bar, whose rate counts from there. */
void tw_log_progress(tw_log *log, int64_t done, int64_t total, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* "0:07", "12:34", "1:02:03". */
void tw_log_duration_text(double seconds, char *text, size_t size);

#endif
