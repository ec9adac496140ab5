#include "data/prompts.h"

#include "data/files.h"
#include "data/unicode.h"

#include <stdlib.h>
#include <string.h>

static const char *const defaults[] = {
    "{}",
    "类别：{}",
    "一张拍到{}的相片",
    "画面里有{}",
    "图中的主角是{}",
    "这里可以看到{}",
    "{}，实拍图",
    "{}的近景",
    "{}的远景",
    "清楚地拍下了{}",
    "随手拍的{}",
    "模糊不清的{}影像",
    "黑白影像里的{}",
    "光线昏暗时的{}",
    "阳光下的{}",
    "只露出一部分的{}",
    "很小的{}",
    "很大的{}",
    "几个{}在一起",
    "网页上的{}配图",
    "商品页里的{}",
    "一幅以{}为题的图像",
    "关于{}的一幅画",
    "{}的铅笔素描",
    "{}的卡通形象",
};

void tw_prompts_free(tw_prompts *prompts) {
    for (int64_t i = 0; i < prompts->n; i++) free(prompts->at[i]);
    free(prompts->at);
    *prompts = (tw_prompts){0};
}

static tw_status add(tw_prompts *prompts, const char *text, size_t size, int64_t *capacity) {
    if (prompts->n == *capacity) {
        int64_t larger = *capacity ? 2 * *capacity : 64;
        char **at = realloc(prompts->at, (size_t)larger * sizeof *at);
        if (!at) return FAIL(TW_ERR_MEMORY, "no memory for %lld lines", (long long)larger);
        prompts->at = at;
        *capacity = larger;
    }
    char *copy = malloc(size + 1);
    if (!copy) return FAIL(TW_ERR_MEMORY, "no memory for a line of %zu bytes", size);
    memcpy(copy, text, size);
    copy[size] = '\0';
    prompts->at[prompts->n++] = copy;
    return TW_OK;
}

/* Cuts white space off both ends of a line that is UTF-8. A code point's bytes are found by writing it. */
static void strip(const tw_code_points *line, const char **text, size_t *size) {
    char bytes[4];
    size_t first = 0, last = line->count;
    for (; first < last && tw_unicode_is_space(line->at[first]); first++) {
        size_t n = tw_utf8_encode(line->at[first], bytes);
        *text += n, *size -= n;
    }
    for (; last > first && tw_unicode_is_space(line->at[last - 1]); last--)
        *size -= tw_utf8_encode(line->at[last - 1], bytes);
}

static tw_status add_line(tw_prompts *prompts, const char *text, size_t size, int64_t *capacity) {
    tw_code_points points;
    tw_code_points_init(&points);
    tw_status status = memchr(text, '\0', size) ? FAIL(TW_ERR_FORMAT, "a zero byte: not a text file") : TW_OK;
    if (status == TW_OK) status = tw_utf8_decode(text, size, &points);
    if (status == TW_OK) {
        strip(&points, &text, &size);
        status = add(prompts, text, size, capacity);
    }
    tw_code_points_free(&points);
    return status;
}

static tw_status add_lines(const char *path, const char *text, size_t size, tw_prompts *out) {
    int64_t capacity = 0;
    if (size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) text += 3, size -= 3;
    while (size > 0) {
        size_t n = 0;
        while (n < size && text[n] != '\n' && text[n] != '\r') n++;
        tw_status status = add_line(out, text, n, &capacity);
        if (status) return tw_fail_context(status, "%s:%lld", path, (long long)out->n + 1);
        if (n < size) n += size - n >= 2 && text[n] == '\r' && text[n + 1] == '\n' ? 2 : 1;
        text += n, size -= n;
    }
    return TW_OK;
}

/* Every line of the file, blank ones too, so that indexes are line numbers. */
static tw_status load(const char *path, tw_prompts *out) {
    uint8_t *bytes;
    size_t size;
    *out = (tw_prompts){0};
    TRY(tw_read_file(path, &bytes, &size));
    tw_status status = add_lines(path, (const char *)bytes, size, out);
    free(bytes);
    if (status != TW_OK) tw_prompts_free(out);
    return status;
}

tw_status tw_labels_load(const char *path, tw_prompts *out) {
    TRY(load(path, out));
    if (out->n == 0) return FAIL(TW_ERR_FORMAT, "%s: empty, where one label a line is needed", path);
    return TW_OK;
}

static tw_status keep_templates(const char *path, tw_prompts *p) {
    int64_t kept = 0;
    tw_status status = TW_OK;
    for (int64_t i = 0; i < p->n; i++) {
        char *line = p->at[i];
        if (*line && !strstr(line, "{}") && status == TW_OK)
            status =
                FAIL(TW_ERR_FORMAT, "%s:%lld: '%.60s' has no {} for the label", path, (long long)i + 1, line);
        if (*line)
            p->at[kept++] = line;
        else
            free(line);
    }
    p->n = kept;
    if (status == TW_OK && kept == 0)
        status = FAIL(TW_ERR_FORMAT, "%s: no template; write one a line, with {} for the label", path);
    return status;
}

tw_status tw_templates_load(const char *path, tw_prompts *out) {
    TRY(load(path, out));
    tw_status status = keep_templates(path, out);
    if (status != TW_OK) tw_prompts_free(out);
    return status;
}

tw_status tw_templates_default(tw_prompts *out) {
    int64_t capacity = 0;
    tw_status status = TW_OK;
    *out = (tw_prompts){0};
    for (size_t i = 0; status == TW_OK && i < sizeof defaults / sizeof *defaults; i++)
        status = add(out, defaults[i], strlen(defaults[i]), &capacity);
    if (status != TW_OK) tw_prompts_free(out);
    return status;
}

char *tw_template_fill(const char *text, const char *label) {
    size_t size = 1, length = strlen(label);
    for (const char *at = text; *at; at++) size += strncmp(at, "{}", 2) == 0 ? length : 1;
    char *out = malloc(size), *to = out;
    if (!out) return NULL;
    while (*text) {
        if (strncmp(text, "{}", 2) == 0) {
            memcpy(to, label, length);
            to += length, text += 2;
        } else {
            *to++ = *text++;
        }
    }
    *to = '\0';
    return out;
}
