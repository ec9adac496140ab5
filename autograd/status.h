/* Errors as values.
 *
 * A fallible function returns tw_status: TW_OK (0) or the kind of error. The message (what, where, what to
 * do) is kept for the calling thread until its next failure:
 *
 *     return FAIL(TW_ERR_SHAPE, "matmul: a is (%d,%d), b is (%d,%d)", ...);
 *     TRY(tw_something(...));                  // passes an error on
 *
 * Library code never prints an error and never exits; train/main.c does both. */
#ifndef TW_AUTOGRAD_STATUS_H
#define TW_AUTOGRAD_STATUS_H

typedef enum tw_status {
    TW_OK = 0,
    TW_ERR_ARGUMENT,    /* the caller broke a function's contract */
    TW_ERR_SHAPE,       /* shapes, strides or types do not fit together */
    TW_ERR_MEMORY,      /* an allocation failed */
    TW_ERR_IO,          /* the operating system refused: no file, no space, no permission */
    TW_ERR_FORMAT,      /* a file's or record's content is not what it should be */
    TW_ERR_CONFIG,      /* a configuration key or value, or a command-line argument, is wrong */
    TW_ERR_NOT_FOUND,   /* a key or record is not there */
    TW_ERR_UNSUPPORTED, /* well-formed, but this build, device or version cannot do it */
    TW_ERR_NUMERIC,     /* a value that must be finite is not */
    TW_ERR_LIBRARY,     /* a wrapped library reported an error */
    TW_ERR_INTERRUPTED, /* asked to stop by a signal or a stop file */
} tw_status;

#define TW_MUST_CHECK __attribute__((warn_unused_result))

/* Records a printf-formatted message (cut at 1,023 bytes) for this thread and returns `code`. */
tw_status tw_fail(tw_status code, const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 4, 5))) TW_MUST_CHECK;

/* Puts "prefix: " before this thread's message, for callers that know the file, line or record; returns
 * `code`. */
tw_status tw_fail_context(tw_status code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* This thread's last message; "" before the first failure. Valid until the thread's next failure. */
const char *tw_last_error(void);
/* "file.c:123", where this thread's last failure was raised, for bug reports. */
const char *tw_last_error_place(void);
/* The name of a code, for example "shape". Never NULL. */
const char *tw_status_name(tw_status code);

/* Shows compilers and analysers that a failure is never TW_OK, so that outputs count as set after TRY. */
static inline TW_MUST_CHECK tw_status tw_failed(tw_status status) {
    return status == TW_OK ? TW_ERR_ARGUMENT : status;
}
#define FAIL(code, ...) tw_failed(tw_fail((code), __FILE__, __LINE__, __VA_ARGS__))
#define TRY(call)                                                                                            \
    do {                                                                                                     \
        tw_status try_status_ = (call);                                                                      \
        if (try_status_ != TW_OK) return try_status_;                                                        \
    } while (0)

#endif
