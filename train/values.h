/* Values as people write them: numbers, switches, choices, lists and names, shared by the configuration and
 * the command line. Messages say what is wrong with the text; the caller puts the place before them with
 * tw_fail_context (a file and line, or an option's name). Errors are TW_ERR_CONFIG, or TW_ERR_MEMORY. */
#ifndef TW_TRAIN_VALUES_H
#define TW_TRAIN_VALUES_H

#include "autograd/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A list that owns its strings; {0} is the empty list. */
typedef struct tw_string_list {
    char **items;
    size_t count;
} tw_string_list;

/* A range is an interval as mathematics writes it: "[1, 64]", "(0, inf)", "[0, 1)"; NULL allows everything.
 */

/* true, false, yes, no, on, off, 1, 0. */
tw_status tw_value_bool(const char *text, bool *value) TW_MUST_CHECK;
/* A decimal integer within `range`. */
tw_status tw_value_int(const char *text, const char *range, int64_t *value) TW_MUST_CHECK;
/* A finite decimal number within `range`. */
tw_status tw_value_float(const char *text, const char *range, double *value) TW_MUST_CHECK;
/* The position of `text` in `choices`, for example "short|drop|pad". */
tw_status tw_value_choice(const char *text, const char *choices, int *value) TW_MUST_CHECK;
/* Copies the choice at a position into `name`; false when there is none or it does not fit. */
bool tw_choice_name(const char *choices, int position, char *name, size_t size);
/* The shortest decimal text that reads back as the same bits. */
void tw_float_text(double value, char *text, size_t size);
/* The same of a float: 0.1, not the 0.10000000149011612 that it is as a double. */
void tw_float32_text(float value, char *text, size_t size);

/* Splits at commas and strips blanks around items; "" is the empty list, and an empty item is an error.
 * The list's old content is freed. */
tw_status tw_string_list_split(tw_string_list *list, const char *text) TW_MUST_CHECK;
/* Copies `count` items. The list's old content is freed, also when this fails. */
tw_status tw_string_list_copy(tw_string_list *list, const char *const *items, size_t count) TW_MUST_CHECK;
/* Copies `text` to the list's end. */
tw_status tw_string_list_add(tw_string_list *list, const char *text) TW_MUST_CHECK;
bool tw_string_list_equal(const tw_string_list *a, const tw_string_list *b);
/* Frees the items and leaves {0}; NULL is accepted. */
void tw_string_list_free(tw_string_list *list);

/* Names are equal when they differ only in '-' and '_'. */
bool tw_name_equal(const char *a, const char *b);
/* Which of `names` was probably meant: the least edit distance (Levenshtein; '-' equals '_'; a name that
 * `name` begins or that begins with it counts as near); NULL when none is near. NULL entries are passed over.
 */
const char *tw_nearest_name(const char *name, const char *const *names, size_t count);

#endif
