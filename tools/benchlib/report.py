# What the results say: ratios to the first variant within each round, as a
# table and as a picture.

import math
import statistics

def median(values):
    return statistics.median(values)


def confidence(values):
    """The interval that holds the median with 95% probability: from the k-th
    smallest value to the k-th largest.  All of few values."""
    values = sorted(values)
    n = len(values)
    k, outside = 0, 2 / 2 ** n      # of the binomial distribution, both sides
    while outside <= 0.05 and k < n // 2:
        k += 1
        outside += 2 * math.comb(n, k) / 2 ** n
    k = max(k, 1)
    return values[k - 1], values[-k]


def summarise(results, variants, workloads):
    """[{workload, unit, variant, median, ratio, from, to, low, high}], ratio
    as speed; results are {(workload, unit): {variant: [value of a round]}}"""
    rows = []
    for w in workloads:
        for unit in w.units:
            of = results[w.name, unit]
            for variant in variants:
                ratios = [b / v for b, v in zip(of[variants[0]], of[variant])]
                surely = confidence(ratios)
                rows.append({'workload': w.name, 'unit': unit,
                             'variant': variant, 'median': median(of[variant]),
                             'ratio': median(ratios), 'from': surely[0],
                             'to': surely[1], 'low': min(ratios),
                             'high': max(ratios)})
    return rows


def table(rows, base):
    lines = ['| workload | variant | median | speed against %s | 95%% | all |'
             % base, '|---|---|---|---|---|---|']
    for r in rows:
        lines.append('| %s | %s | %.4g %s | %s |' % (
            r['workload'], r['variant'], r['median'], r['unit'],
            ' | | ' if r['variant'] == base else
            '%.3f | %.3f to %.3f | %.3f to %.3f' %
            tuple(r[k] for k in ('ratio', 'from', 'to', 'low', 'high'))))
    return '\n'.join(lines)


COLOURS = {'unused': '#7f8c8d', 'aes_128_xts': '#2471a3',
           'aes_256_xts': '#7d3c98', 'aes_128_cbc': '#ca6f1e',
           'wal_off': '#7f8c8d', 'wal_on': '#2471a3'}


def picture(rows, title, base):
    """Bars of the ratios, with the interval that holds them, as SVG."""
    rows = [r for r in rows if r['variant'] != base]
    workloads = []
    for r in rows:
        r['title'] = '%s, %s' % (r['workload'], r['unit'])
        if r['title'] not in workloads:
            workloads.append(r['title'])
    bar, gap, left, width, longest = 14, 14, 300, 520, 1.2
    y = 70
    body = []

    def x(ratio):
        return left + width * min(ratio, longest) / longest

    for w in workloads:
        group = [r for r in rows if r['title'] == w]
        body.append('<text x="%d" y="%d" text-anchor="end">%s</text>' %
                    (left - 10, y + bar * len(group) / 2 + 4, w))
        for r in group:
            body.append('<rect x="%d" y="%d" width="%.1f" height="%d" '
                        'fill="%s"/>' % (left, y, x(r['ratio']) - left,
                                         bar - 2, COLOURS[r['variant']]))
            # a line with a white rim shows on all colours
            for stroke in ('stroke="#fff" stroke-width="3"', 'stroke="#000"'):
                body.append('<path d="M%.1f %.1fH%.1f" %s/>' % (
                    x(r['from']), y + bar / 2 - 1, x(r['to']), stroke))
            body.append('<text x="%d" y="%d" font-size="10">%.3f</text>' % (
                left + width + 8, y + bar - 4, r['ratio']))
            y += bar
        y += gap
    legend = ''
    lx = left
    for v in COLOURS:
        if any(r['variant'] == v for r in rows):
            legend += ('<rect x="%d" y="32" width="12" height="12" fill="%s"/>'
                       '<text x="%d" y="43">%s</text>' %
                       (lx, COLOURS[v], lx + 17, v))
            lx += 105
    return ('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" '
            'font-family="sans-serif" font-size="12">'
            '<rect width="100%%" height="100%%" fill="#fff"/>'
            '<text x="10" y="22" font-size="14">%s</text>%s'
            '<path d="M%.1f 64V%d" stroke="#c0392b" stroke-dasharray="4 3"/>'
            '<text x="%.1f" y="60" fill="#c0392b" text-anchor="middle" '
            'font-size="10">%s = 1</text>'
            '%s<text x="%d" y="%d" font-size="10">Black lines: the median '
            'lies there with 95%% confidence.</text></svg>\n' %
            (left + width + 60, y + 20, title, legend, x(1), y - gap, x(1),
             base, ''.join(body), left, y + 8))

