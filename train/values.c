#include "train/values.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

tw_status tw_value_bool(const char *text, bool *value) {
    static const char *const yes[] = {"true", "yes", "on", "1"};
    static const char *const no[] = {"false", "no", "off", "0"};
    for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++) {
        if (strcmp(text, yes[i]) == 0) {
            *value = true;
            return TW_OK;
        }
        if (strcmp(text, no[i]) == 0) {
            *value = false;
            return TW_OK;
        }
    }
    return FAIL(TW_ERR_CONFIG, "'%s' is neither true nor false", text);
}

/* strtol and strtod pass over blanks and accept hexadecimal, "inf" and "nan": none of them is a number here.
 */
static bool only_number_characters(const char *text, const char *allowed) {
    return *text != '\0' && strspn(text, allowed) == strlen(text);
}

/* Reads "[a, b)" into bounds that may be infinite; table rows are checked by tests, so a malformed range is a
 * broken contract. */
static tw_status read_range(const char *range, double bound[2], bool open[2]) {
    bound[0] = -INFINITY;
    bound[1] = INFINITY;
    open[0] = open[1] = false;
    if (!range) return TW_OK;
    char first = 0, last = 0;
    if (sscanf(range, "%c%lf, %lf%c", &first, &bound[0], &bound[1], &last) != 4 || !strchr("[(", first) ||
        !strchr("])", last))
        return FAIL(TW_ERR_ARGUMENT, "'%s' is not a range", range);
    open[0] = first == '(';
    open[1] = last == ')';
    return TW_OK;
}

static tw_status check_range(const char *text, double value, const char *range) {
    double bound[2];
    bool open[2];
    TRY(read_range(range, bound, open));
    bool inside =
        (open[0] ? value > bound[0] : value >= bound[0]) && (open[1] ? value < bound[1] : value <= bound[1]);
    if (!inside) return FAIL(TW_ERR_CONFIG, "%s is outside the allowed range %s", text, range);
    return TW_OK;
}

tw_status tw_value_int(const char *text, const char *range, int64_t *value) {
    char *end = NULL;
    errno = 0;
    intmax_t number = strtoimax(text, &end, 10);
    if (!only_number_characters(text, "+-0123456789") || *end != '\0')
        return FAIL(TW_ERR_CONFIG, "'%s' is not an integer%s%s", text, range ? " in " : "",
                    range ? range : "");
    if (errno == ERANGE)
        return FAIL(TW_ERR_CONFIG, "%s is outside the allowed range %s", text,
                    range ? range : "of 64-bit integers");
    TRY(check_range(text, (double)number, range));
    *value = number;
    return TW_OK;
}

tw_status tw_value_float(const char *text, const char *range, double *value) {
    char *end = NULL;
    double number = strtod(text, &end);
    if (!only_number_characters(text, "+-.eE0123456789") || *end != '\0')
        return FAIL(TW_ERR_CONFIG, "'%s' is not a number%s%s", text, range ? " in " : "", range ? range : "");
    if (!isfinite(number)) return FAIL(TW_ERR_CONFIG, "%s is too large for a number", text);
    TRY(check_range(text, number, range));
    *value = number;
    return TW_OK;
}

tw_status tw_value_choice(const char *text, const char *choices, int *value) {
    size_t length = strlen(text);
    int position = 0;
    for (const char *choice = choices;; position++) {
        size_t n = strcspn(choice, "|");
        if (n == length && memcmp(choice, text, n) == 0) {
            *value = position;
            return TW_OK;
        }
        if (choice[n] == '\0') break;
        choice += n + 1;
    }
    return FAIL(TW_ERR_CONFIG, "'%s' is none of %s", text, choices);
}

bool tw_choice_name(const char *choices, int position, char *name, size_t size) {
    if (position < 0) return false;
    for (; position > 0; position--) {
        choices = strchr(choices, '|');
        if (!choices) return false;
        choices++;
    }
    size_t n = strcspn(choices, "|");
    if (n >= size) return false;
    memcpy(name, choices, n);
    name[n] = '\0';
    return true;
}

void tw_float_text(double value, char *text, size_t size) {
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, size, "%.*g", digits, value);
        if (strtod(text, NULL) == value) return;
    }
}

void tw_float32_text(float value, char *text, size_t size) {
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, size, "%.*g", digits, (double)value);
        if (strtof(text, NULL) == value) return;
    }
}

static tw_status append(tw_string_list *list, const char *text, size_t length) {
    char **items = realloc(list->items, (list->count + 1) * sizeof *items);
    if (!items) return FAIL(TW_ERR_MEMORY, "no memory for a list of %zu items", list->count + 1);
    list->items = items;
    items[list->count] = strndup(text, length);
    if (!items[list->count]) return FAIL(TW_ERR_MEMORY, "no memory for a list of %zu items", list->count + 1);
    list->count++;
    return TW_OK;
}

tw_status tw_string_list_split(tw_string_list *list, const char *text) {
    tw_status status = TW_OK;
    tw_string_list fresh = {0};
    if (text[strspn(text, " \t")] == '\0') goto done;
    for (const char *item = text;;) {
        size_t n = strcspn(item, ",");
        const char *begin = item, *end = item + n;
        while (begin < end && isblank((unsigned char)*begin)) begin++;
        while (end > begin && isblank((unsigned char)end[-1])) end--;
        if (begin == end) {
            status =
                FAIL(TW_ERR_CONFIG, "'%s' has an empty item; items are separated by single commas", text);
            goto done;
        }
        if ((status = append(&fresh, begin, (size_t)(end - begin)))) goto done;
        if (item[n] == '\0') break;
        item += n + 1;
    }
done:
    if (status) {
        tw_string_list_free(&fresh);
        return status;
    }
    tw_string_list_free(list);
    *list = fresh;
    return TW_OK;
}

tw_status tw_string_list_copy(tw_string_list *list, const char *const *items, size_t count) {
    tw_string_list_free(list);
    for (size_t i = 0; i < count; i++) TRY(append(list, items[i], strlen(items[i])));
    return TW_OK;
}

tw_status tw_string_list_add(tw_string_list *list, const char *text) {
    return append(list, text, strlen(text));
}

bool tw_string_list_equal(const tw_string_list *a, const tw_string_list *b) {
    if (a->count != b->count) return false;
    for (size_t i = 0; i < a->count; i++)
        if (strcmp(a->items[i], b->items[i]) != 0) return false;
    return true;
}

void tw_string_list_free(tw_string_list *list) {
    if (!list) return;
    for (size_t i = 0; i < list->count; i++) free(list->items[i]);
    free(list->items);
    *list = (tw_string_list){0};
}

static char fold(char c) {
    return c == '-' ? '_' : (char)tolower((unsigned char)c);
}

bool tw_name_equal(const char *a, const char *b) {
    for (; *a && *b; a++, b++)
        if ((*a == '-' ? '_' : *a) != (*b == '-' ? '_' : *b)) return false;
    return *a == *b;
}

enum { NAME_MAX_LENGTH = 64 };

/* Levenshtein, one row of the table at a time. */
static size_t distance(const char *a, const char *b) {
    size_t row[NAME_MAX_LENGTH + 1], columns = strlen(b);
    for (size_t j = 0; j <= columns; j++) row[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= columns; j++) {
            size_t best = diagonal + (fold(a[i - 1]) != fold(b[j - 1]));
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[columns];
}

static bool begins_with(const char *text, const char *prefix) {
    for (; *prefix; text++, prefix++)
        if (fold(*text) != fold(*prefix)) return false;
    return true;
}

const char *tw_nearest_name(const char *name, const char *const *names, size_t count) {
    size_t length = strlen(name), best = SIZE_MAX;
    const char *nearest = NULL;
    if (length == 0 || length > NAME_MAX_LENGTH) return NULL;
    for (size_t i = 0; i < count; i++) {
        if (!names[i] || strlen(names[i]) > NAME_MAX_LENGTH) continue;
        size_t d = distance(name, names[i]);
        size_t longest = strlen(names[i]) > length ? strlen(names[i]) : length;
        bool part = length >= 3 && strlen(names[i]) >= 3 &&
                    (begins_with(names[i], name) || begins_with(name, names[i]));
        if (d < best && (part || d <= 1 + longest / 4)) {
            best = d;
            nearest = names[i];
        }
    }
    return nearest;
}
