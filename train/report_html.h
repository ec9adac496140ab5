/* Shared by report.c and report_svg.c: escaped text, numbers, charts. Write errors stay in the stream. */
#ifndef TW_TRAIN_REPORT_HTML_H
#define TW_TRAIN_REPORT_HTML_H

#include <stddef.h>
#include <stdio.h>

/* The style sheet in pieces, ended by NULL, without the <style> element. */
extern const char *const tw_report_css[];

/* UTF-8 as HTML text or attribute value. NULL writes nothing. */
void tw_html_text(FILE *out, const char *text);
/* A number in at most about 6 characters, a dash if it is not finite. */
void tw_html_number(FILE *out, double value);

enum { TW_SVG_POINTS = 400, TW_SVG_SERIES = 3 };

typedef struct tw_svg_series {
    const char *name; /* in the legend; NULL: not there (the faint companion of another series) */
    const double *y;  /* [n]; values that are not finite leave a gap */
    int colour;       /* 0 to 2 */
    int faint;
} tw_svg_series;

typedef struct tw_svg_chart {
    const char *title;
    const double *x; /* [n], not falling */
    size_t n;        /* at most TW_SVG_POINTS */
    tw_svg_series series[TW_SVG_SERIES];
    int n_series;
    int markers;      /* a dot on each point: for few */
    int from_zero;    /* the y axis begins at 0 */
    double reference; /* a dashed line at this y; NaN: none */
    const char *reference_name;
    const char *unit; /* behind the axis labels and values, "%" or "" */
} tw_svg_chart;

/* A <figure> with title, legend and an inline SVG; with no finite value, a line saying so. */
void tw_svg_chart_write(FILE *out, const tw_svg_chart *chart);

#endif
