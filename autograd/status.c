#include "autograd/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MESSAGE_BYTES = 1024 };

static _Thread_local char message[MESSAGE_BYTES];
static _Thread_local char place[128];

tw_status tw_fail(tw_status code, const char *file, int line, const char *format, ...) {
    /* Formatted aside first: an argument may be tw_last_error() itself. */
    char text[MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    memcpy(message, text, sizeof text);
    const char *slash = strrchr(file, '/');
    snprintf(place, sizeof place, "%s:%d", slash ? slash + 1 : file, line);
    return code;
}

tw_status tw_fail_context(tw_status code, const char *format, ...) {
    char text[MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n < 0) n = 0;
    if ((size_t)n < sizeof text) snprintf(text + n, sizeof text - (size_t)n, ": %s", message);
    memcpy(message, text, sizeof text);
    return code;
}

const char *tw_last_error(void) {
    return message;
}

const char *tw_last_error_place(void) {
    return place;
}

const char *tw_status_name(tw_status code) {
    static const char *const names[] = {"ok",          "argument", "shape",   "memory",
                                        "io",          "format",   "config",  "not found",
                                        "unsupported", "numeric",  "library", "interrupted"};
    size_t i = (size_t)code;
    return i < sizeof names / sizeof names[0] ? names[i] : "unknown";
}
