/* Line charts as inline SVG: axes, ticks, a reference line, and a hover column with the values at a point.
 * Colours are classes, so that the page's light and dark style reach them. */
#include "train/report_html.h"

#include <math.h>
#include <stdbool.h>

/* The viewBox, in units that are about a CSS pixel on a phone. */
enum { WIDTH = 420, HEIGHT = 220, LEFT = 54, RIGHT = 10, TOP = 10, BOTTOM = 24, HOVERS = 80 };

typedef struct scale {
    double low, high;   /* in data */
    double from, to;    /* in the viewBox */
    double tick, first; /* ticks at first + i tick */
} scale;

static double at(const scale *s, double value) {
    return s->from + (value - s->low) / (s->high - s->low) * (s->to - s->from);
}

/* Chooses ticks of 1, 2 or 5 times a power of ten, about `wanted` of them. */
static void set_ticks(scale *s, int wanted) {
    double raw = (s->high - s->low) / wanted, power = pow(10, floor(log10(raw))), m = raw / power;
    s->tick = power * (m <= 1.0 ? 1 : m <= 2.0 ? 2 : m <= 5.0 ? 5 : 10);
    s->first = ceil(s->low / s->tick - 1e-9) * s->tick;
}

static void widen(scale *s, double value) {
    if (!isfinite(value)) return;
    if (!(value >= s->low)) s->low = value; /* also from NaN */
    if (!(value <= s->high)) s->high = value;
}

/* An axis must not be empty, nor so wide that differences overflow. */
static void settle(scale *s) {
    s->low = fmax(s->low, -1e300), s->high = fmin(s->high, 1e300);
    if (s->high - s->low > 1e-9 * fmax(fabs(s->high), fabs(s->low))) return;
    double pad = s->high == 0 ? 1 : 0.1 * fabs(s->high);
    s->low -= pad, s->high += pad;
}

static scale y_scale(const tw_svg_chart *chart) {
    scale s = {.low = NAN, .high = NAN, .from = HEIGHT - BOTTOM, .to = TOP};
    for (int i = 0; i < chart->n_series; i++)
        for (size_t k = 0; k < chart->n; k++) widen(&s, chart->series[i].y[k]);
    if (isnan(s.low)) return s;
    widen(&s, chart->reference);
    if (chart->from_zero) widen(&s, 0);
    settle(&s);
    set_ticks(&s, 5);
    s.low = floor(s.low / s.tick + 1e-9) * s.tick; /* whole ticks at both ends */
    s.high = ceil(s.high / s.tick - 1e-9) * s.tick;
    s.first = s.low;
    return s;
}

static scale x_scale(const tw_svg_chart *chart) {
    scale s = {.low = NAN, .high = NAN, .from = LEFT, .to = WIDTH - RIGHT};
    for (size_t k = 0; k < chart->n; k++) widen(&s, chart->x[k]);
    settle(&s);
    set_ticks(&s, 6);
    return s;
}

static void write_axes(FILE *out, const tw_svg_chart *chart, const scale *x, const scale *y) {
    for (int i = 0; i < 12; i++) {
        double value = y->first + i * y->tick;
        if (value > y->high + 0.01 * y->tick) break;
        if (fabs(value) < 1e-6 * y->tick) value = 0;
        fprintf(out, "<path class=\"grid\" d=\"M%d %.1fH%d\"/><text class=\"ty\" x=\"%d\" y=\"%.1f\">", LEFT,
                at(y, value), WIDTH - RIGHT, LEFT - 6, at(y, value) + 4);
        tw_html_number(out, value);
        fprintf(out, "%s</text>", chart->unit);
    }
    for (int i = 0; i < 12; i++) {
        double value = x->first + i * x->tick;
        if (value > x->high + 0.01 * x->tick) break;
        /* A label at the right edge would be cut off in its middle. */
        bool edge = at(x, value) > WIDTH - RIGHT - 12;
        fprintf(out, "<text class=\"%s\" x=\"%.1f\" y=\"%d\">", edge ? "te" : "tx",
                at(x, value) + (edge ? 4 : 0), HEIGHT - 7);
        tw_html_number(out, value);
        fputs("</text>", out);
    }
    fprintf(out, "<path class=\"axis\" d=\"M%d %dH%d\"/>", LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT);
    if (isfinite(chart->reference))
        fprintf(out, "<path class=\"ref\" d=\"M%d %.1fH%d\"/>", LEFT, at(y, chart->reference), WIDTH - RIGHT);
}

static void write_series(FILE *out, const tw_svg_chart *chart, const tw_svg_series *series, const scale *x,
                         const scale *y) {
    bool open = false; /* inside a run of finite points */
    fprintf(out, "<path class=\"line c%d%s\" d=\"", series->colour, series->faint ? " faint" : "");
    for (size_t k = 0; k < chart->n; k++) {
        bool finite = isfinite(series->y[k]);
        if (finite) {
            double px = at(x, chart->x[k]), py = at(y, series->y[k]);
            fprintf(out, "%c%.1f %.1f", open ? 'L' : 'M', px, py);
            /* A point alone between gaps still shows, as a round cap. */
            if (!open && (k + 1 == chart->n || !isfinite(series->y[k + 1])))
                fprintf(out, "L%.1f %.1f", px, py);
        }
        open = finite;
    }
    fputs("\"/>", out);
    for (size_t k = 0; k < chart->n && chart->markers; k++)
        if (isfinite(series->y[k]))
            fprintf(out, "<circle class=\"dot c%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/>", series->colour,
                    at(x, chart->x[k]), at(y, series->y[k]));
}

/* Columns side by side, each with the values at its point as a title. */
static void write_hovers(FILE *out, const tw_svg_chart *chart, const scale *x) {
    size_t stride = (chart->n + HOVERS - 1) / HOVERS;
    double left = LEFT;
    for (size_t k = 0; k < chart->n; k += stride) {
        double here = at(x, chart->x[k]);
        double right = k + stride < chart->n ? (here + at(x, chart->x[k + stride])) / 2 : WIDTH - RIGHT;
        fprintf(out,
                "<rect class=\"hover\" x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\"><title>step %.0f",
                left, TOP, fmax(right - left, 0), HEIGHT - TOP - BOTTOM, chart->x[k]);
        for (int i = 0; i < chart->n_series; i++) {
            if (!chart->series[i].name) continue;
            fputs("\n", out);
            tw_html_text(out, chart->series[i].name);
            fputs(": ", out);
            tw_html_number(out, chart->series[i].y[k]);
            fputs(chart->unit, out);
        }
        fputs("</title></rect>", out);
        left = right;
    }
}

static void write_legend(FILE *out, const tw_svg_chart *chart) {
    int named = 0;
    for (int i = 0; i < chart->n_series; i++) named += chart->series[i].name != NULL;
    if (named < 2 && chart->n_series == named && !isfinite(chart->reference)) return; /* the title says it */
    fputs("<span class=\"legend\">", out);
    for (int i = 0; i < chart->n_series; i++) {
        if (!chart->series[i].name) continue;
        fprintf(out, "<span><i class=\"key c%d\"></i>", chart->series[i].colour);
        tw_html_text(out, chart->series[i].name);
        fputs("</span>", out);
    }
    if (isfinite(chart->reference)) {
        fputs("<span><i class=\"key dash\"></i>", out);
        tw_html_text(out, chart->reference_name);
        fputs("</span>", out);
    }
    fputs("</span>", out);
}

void tw_svg_chart_write(FILE *out, const tw_svg_chart *chart) {
    scale y = y_scale(chart);
    fputs("<figure class=\"card\"><figcaption><b>", out);
    tw_html_text(out, chart->title);
    fputs("</b>", out);
    if (isnan(y.low)) {
        fputs("</figcaption><p class=\"none\">no values were recorded</p></figure>\n", out);
        return;
    }
    scale x = x_scale(chart);
    write_legend(out, chart);
    fprintf(out, "</figcaption><svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", WIDTH, HEIGHT);
    tw_html_text(out, chart->title);
    fputs(" over steps\">", out);
    write_axes(out, chart, &x, &y);
    for (int i = 0; i < chart->n_series; i++) write_series(out, chart, &chart->series[i], &x, &y);
    write_hovers(out, chart, &x);
    fputs("</svg></figure>\n", out);
}
