/* Labels and prompt templates of zero-shot classification: text files, one a line. */
#ifndef TW_DATA_PROMPTS_H
#define TW_DATA_PROMPTS_H

#include "autograd/status.h"

#include <stdint.h>

/* Lines without their ends, stripped as Python's str.strip does; UTF-8. Released with tw_prompts_free. */
typedef struct tw_prompts {
    char **at; /* (n) */
    int64_t n;
} tw_prompts;

void tw_prompts_free(tw_prompts *prompts); /* accepts one that is all zero */

/* Class labels: line i names class i. Blank lines are labels like any other (""); LF, CR LF and CR end a
 * line. TW_ERR_NOT_FOUND, TW_ERR_IO; TW_ERR_FORMAT: no line at all, or not UTF-8 (with the line). */
tw_status tw_labels_load(const char *path, tw_prompts *out) TW_MUST_CHECK;
/* Templates, in which {} stands for the label: "一张{}的照片". Blank lines are left out, a repeated line
 * counts twice. TW_ERR_FORMAT also for a line without {} (file and line are named) and for a file without
 * any. */
tw_status tw_templates_load(const char *path, tw_prompts *out) TW_MUST_CHECK;
/* A set for photographs and pictures of all kinds, written for this project. */
tw_status tw_templates_default(tw_prompts *out) TW_MUST_CHECK;

/* The template with the label in place of every {}, to be freed with free(); NULL when memory is out. */
char *tw_template_fill(const char *text, const char *label);

#endif
