/* tools/plot.c - ROC curves as an SVG file: axes, grid, one stepped line and
 * one legend row for each model. No library: a curve is a path of horizontal
 * and vertical strokes. facenetctl evaluate calls it. */
#include "tools/plot.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    WIDTH = 840,
    LEFT = 76,
    RIGHT = 24,
    TOP = 56,
    HEIGHT_AXES = 420,
    BELOW = 64, /* ticks and the axis' name */
    ROW = 22,   /* of the legend */
    LEAST_DECADE = -9
};

/* Distinct also for those who do not see red and green apart (Okabe, Ito). */
static const char *const colours[PLOT_MAX_SERIES] = {
    "#0072b2", "#d55e00", "#009e73", "#cc79a7",
    "#e69f00", "#56b4e9", "#000000", "#8a6d00"};

struct frame {
    FILE *f;
    int decade;       /* 10^decade is the left edge, 1 the right one */
    double low, tick; /* VAL at the lower edge, and between two lines */
};

static void put_text(FILE *f, const char *text)
{
    for (; *text; text++) {
        if (*text == '&')
            fputs("&amp;", f);
        else if (*text == '<')
            fputs("&lt;", f);
        else if (*text == '>')
            fputs("&gt;", f);
        else if (*text == '"')
            fputs("&quot;", f);
        else
            putc((unsigned char)*text < 0x20 ? ' ' : *text, f);
    }
}

static double x_of(const struct frame *a, double far)
{
    double part = far > 0 ? 1 - log10(far) / a->decade : 0;
    return LEFT + (part < 0 ? 0 : part) * (WIDTH - LEFT - RIGHT);
}

static double y_of(const struct frame *a, double val)
{
    return TOP + (1 - val) / (1 - a->low) * HEIGHT_AXES;
}

/* From the least rate that any list can show, and the least VAL there. */
static void choose_axes(const struct plot *p, struct frame *a)
{
    double least = 1, low = 1, span;

    for (int i = 0; i < p->n_series; i++) {
        const struct plot_series *s = &p->series[i];
        for (int k = 0; k < s->n_points; k++)
            if (s->points[k].far > 0 && s->points[k].far < least)
                least = s->points[k].far;
        if (s->n_points > 0 && s->points[0].val < low)
            low = s->points[0].val;
    }
    if (p->far > 0 && p->far < least)
        least = p->far;
    a->decade = (int)floor(log10(least) + 1e-9);
    a->decade = a->decade > -1 ? -1 : a->decade;
    a->decade = a->decade < LEAST_DECADE ? LEAST_DECADE : a->decade;
    a->low = floor(low * 10) / 10;
    a->low = a->low > 0.9 ? 0.9 : a->low;
    span = 1 - a->low;
    a->tick = span < 0.15   ? 0.01
              : span < 0.35 ? 0.02
              : span < 0.55 ? 0.05
                            : 0.1;
}

static void put_line(const struct frame *a, const double at[4],
                     const char *class)
{
    fprintf(a->f,
            "<line class=\"%s\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" "
            "y2=\"%.1f\"/>\n",
            class, at[0], at[1], at[2], at[3]);
}

static void put_grid(const struct frame *a)
{
    const double bottom = TOP + HEIGHT_AXES, right = WIDTH - RIGHT;
    int n_ticks = (int)floor((1 - a->low) / a->tick + 0.5);

    for (int d = a->decade; d <= 0; d++) {
        double x = x_of(a, pow(10, d));
        put_line(a, (double[]){x, TOP, x, bottom}, "grid");
        fprintf(a->f, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">", x,
                bottom + 20);
        if (d < -3)
            fprintf(a->f, "1e%d</text>\n", d);
        else
            fprintf(a->f, "%g</text>\n", pow(10, d));
        for (int i = 2; d < 0 && i < 10; i++) {
            x = x_of(a, i * pow(10, d));
            put_line(a, (double[]){x, TOP, x, bottom}, "fine");
        }
    }
    for (int i = 0; i <= n_ticks; i++) {
        double y = y_of(a, a->low + i * a->tick);
        put_line(a, (double[]){LEFT, y, right, y}, "grid");
        fprintf(a->f,
                "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.2f</text>\n",
                LEFT - 8, y + 4, a->low + i * a->tick);
    }
}

/* VAL holds until the next impostor is accepted. Steps that no eye can part
 * are drawn as one. */
static void put_curve(const struct frame *a, const struct plot_series *s,
                      const char *colour)
{
    double drawn = LEFT;

    if (s->n_points < 1)
        return;
    fprintf(a->f,
            "<path fill=\"none\" stroke=\"%s\" stroke-width=\"2\" "
            "d=\"M%d %.1f",
            colour, LEFT, y_of(a, s->points[0].val));
    for (int i = 1; i < s->n_points; i++) {
        double x = x_of(a, s->points[i].far);
        if (x < drawn + 0.5 && i + 1 < s->n_points)
            continue;
        fprintf(a->f, "H%.1fV%.1f", x, y_of(a, s->points[i].val));
        drawn = x;
    }
    fputs("\"/>\n", a->f);
}

static void put_legend(const struct frame *a, const struct plot *p)
{
    for (int i = 0; i < p->n_series; i++) {
        double y = TOP + HEIGHT_AXES + BELOW + i * ROW + ROW / 2.0;
        fprintf(a->f,
                "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" "
                "stroke=\"%s\" stroke-width=\"3\"/>\n",
                LEFT, y, LEFT + 28, y, colours[i]);
        fprintf(a->f, "<text x=\"%d\" y=\"%.1f\"><tspan class=\"name\">",
                LEFT + 38, y + 4);
        put_text(a->f, p->series[i].name);
        fputs("</tspan>  ", a->f);
        put_text(a->f, p->series[i].figures);
        fputs("</text>\n", a->f);
    }
}

static void put_plot(FILE *f, const struct plot *p)
{
    struct frame a = {.f = f};
    int height = TOP + HEIGHT_AXES + BELOW + p->n_series * ROW + 16;

    choose_axes(p, &a);
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" "
            "height=\"%d\" viewBox=\"0 0 %d %d\" role=\"img\" "
            "font-family=\"sans-serif\" font-size=\"13\">\n<title>",
            WIDTH, height, WIDTH, height);
    put_text(f, p->title);
    fputs("</title>\n<style>.grid{stroke:#c8c8c8}.fine{stroke:#eeeeee}"
          ".axis{stroke:#333333}.mark{stroke:#666666;stroke-dasharray:5 4}"
          ".name{font-weight:bold}text{white-space:pre}</style>\n"
          "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
          f);
    fprintf(f,
            "<text x=\"%d\" y=\"32\" font-size=\"18\" "
            "font-weight=\"bold\">",
            LEFT);
    put_text(f, p->title);
    fputs("</text>\n", f);
    put_grid(&a);
    put_line(&a, (double[]){LEFT, TOP, LEFT, TOP + HEIGHT_AXES}, "axis");
    put_line(
        &a,
        (double[]){LEFT, TOP + HEIGHT_AXES, WIDTH - RIGHT, TOP + HEIGHT_AXES},
        "axis");
    if (p->far > 0)
        put_line(&a,
                 (double[]){x_of(&a, p->far), TOP, x_of(&a, p->far),
                            TOP + HEIGHT_AXES},
                 "mark");
    for (int i = 0; i < p->n_series; i++)
        put_curve(&a, &p->series[i], colours[i]);
    fprintf(f, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">",
            (LEFT + WIDTH - RIGHT) / 2, TOP + HEIGHT_AXES + 44);
    put_text(f, p->abscissa);
    fprintf(f,
            "</text>\n<text transform=\"translate(20 %d) rotate(-90)\" "
            "text-anchor=\"middle\">",
            TOP + HEIGHT_AXES / 2);
    put_text(f, p->ordinate);
    fputs("</text>\n", f);
    put_legend(&a, p);
    fputs("</svg>\n", f);
}

int plot_roc(const struct plot *p, const char *path, struct error *err)
{
    char part[4096];
    FILE *f = NULL;
    int fd = -1, bad = -1;

    if (p->n_series < 1 || p->n_series > PLOT_MAX_SERIES)
        return error_set(err, ERR_BAD_FIELD,
                         "a plot of %d curves: 1 to %d are possible",
                         p->n_series, PLOT_MAX_SERIES);
    if (snprintf(part, sizeof(part), "%s.XXXXXX", path) >= (int)sizeof(part))
        return error_set(err, ERR_FILE, "the plot's path is too long");
    fd = mkstemp(part);
    f = fd < 0 ? NULL : fdopen(fd, "w");
    if (f) {
        put_plot(f, p);
        bad = fflush(f) || ferror(f) || fchmod(fd, 0644) || rename(part, path);
    }
    if (bad)
        error_set(err, ERR_FILE, "%.150s cannot be written: %s", path,
                  strerror(errno));
    if (bad && fd >= 0)
        unlink(part);
    if (f)
        fclose(f);
    else if (fd >= 0)
        close(fd);
    return bad ? -1 : 0;
}
