#include "data/lines.h"

#include "autograd/progress.h"
#include "data/files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct tw_lines {
    FILE *file;
    char *path;
    char *buffer;
    size_t capacity;
    int64_t number, position, size;
    char *peeked; /* in buffer; NULL: nothing is peeked at */
    size_t peeked_size;
    bool peeked_end;
};

tw_status tw_lines_open(const char *path, tw_lines **out) {
    *out = NULL;
    FILE *file;
    struct stat info;
    TRY(tw_open_stream(path, &file));
    bool regular = fstat(fileno(file), &info) == 0 && S_ISREG(info.st_mode);
    tw_lines *lines = calloc(1, sizeof *lines);
    char *copy = strdup(path);
    if (!lines || !copy) {
        (void)fclose(file);
        free(lines);
        free(copy);
        return FAIL(TW_ERR_MEMORY, "%s: no memory to read it", path);
    }
    lines->file = file;
    lines->path = copy;
    lines->size = regular ? (int64_t)info.st_size : 0;
    *out = lines;
    return TW_OK;
}

void tw_lines_close(tw_lines *lines) {
    if (!lines) return;
    (void)fclose(lines->file);
    free(lines->path);
    free(lines->buffer);
    free(lines);
}

tw_status tw_lines_peek(tw_lines *lines, const char **line, size_t *size) {
    if (!lines->peeked && !lines->peeked_end) {
        TRY(tw_lines_next(lines, &lines->peeked, &lines->peeked_size));
        lines->peeked_end = !lines->peeked;
    }
    *line = lines->peeked;
    *size = lines->peeked_size;
    return TW_OK;
}

tw_status tw_lines_next(tw_lines *lines, char **line, size_t *size) {
    *line = lines->peeked;
    *size = lines->peeked_size;
    if (lines->peeked || lines->peeked_end) {
        lines->peeked = NULL;
        lines->peeked_size = 0;
        return TW_OK;
    }
    *size = 0;
    errno = 0;
    tw_progress_tick();
    ssize_t got = getline(&lines->buffer, &lines->capacity, lines->file);
    if (got < 0) {
        if (feof(lines->file)) return TW_OK;
        return FAIL(errno == ENOMEM ? TW_ERR_MEMORY : TW_ERR_IO, "%s:%lld: %s", lines->path,
                    (long long)lines->number + 1, errno ? strerror(errno) : "read error");
    }
    char *start = lines->buffer;
    size_t n = (size_t)got;
    lines->position += got;
    if (n > 0 && start[n - 1] == '\n') n--;
    if (n > 0 && start[n - 1] == '\r') n--;
    start[n] = '\0';
    if (lines->number++ == 0 && n >= 3 && memcmp(start, "\xef\xbb\xbf", 3) == 0) {
        start += 3;
        n -= 3;
    }
    *line = start;
    *size = n;
    return TW_OK;
}

int64_t tw_lines_number(const tw_lines *lines) {
    return lines->number;
}

const char *tw_lines_path(const tw_lines *lines) {
    return lines->path;
}

int64_t tw_lines_position(const tw_lines *lines) {
    return lines->position;
}

int64_t tw_lines_size(const tw_lines *lines) {
    return lines->size;
}

/* Length of the valid sequence that starts at s, 0 if there is none (RFC 3629, table of section 4). */
static size_t sequence(const unsigned char *s, size_t left) {
    unsigned char c = s[0], low = 0x80, high = 0xbf;
    size_t n;
    if (c < 0x80) return 1;
    if (c >= 0xc2 && c <= 0xdf) {
        n = 2;
    } else if (c >= 0xe0 && c <= 0xef) {
        n = 3;
        if (c == 0xe0) low = 0xa0;
        if (c == 0xed) high = 0x9f;
    } else if (c >= 0xf0 && c <= 0xf4) {
        n = 4;
        if (c == 0xf0) low = 0x90;
        if (c == 0xf4) high = 0x8f;
    } else {
        return 0;
    }
    if (n > left || s[1] < low || s[1] > high) return 0;
    for (size_t i = 2; i < n; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    return n;
}

bool tw_lines_is_utf8(const char *text, size_t size, size_t *bad) {
    const unsigned char *s = (const unsigned char *)text;
    for (size_t i = 0; i < size;) {
        size_t n = sequence(s + i, size - i);
        if (n == 0) {
            if (bad) *bad = i;
            return false;
        }
        i += n;
    }
    return true;
}

bool tw_lines_is_blank(const char *text, size_t size) {
    for (size_t i = 0; i < size;) {
        if (strchr(" \t\n\v\f\r", text[i]) && text[i]) {
            i++;
        } else if (size - i >= 3 && memcmp(text + i, "\xe3\x80\x80", 3) == 0) {
            i += 3;
        } else {
            return false;
        }
    }
    return true;
}
