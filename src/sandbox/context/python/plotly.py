

# plotly.

def plotly_chart(spec):
    layout = spec.get('layout') or {}

    def title(part):
        text = part.get('title') if isinstance(part, dict) else None
        return text.get('text') if isinstance(text, dict) else text

    groups = {}
    for index, one in enumerate(spec.get('data') or []):
        # What has no axes has a place of its own.
        alone = 'domain' in one or one.get('type') in ('pie', 'sunburst', 'treemap', 'indicator', 'table')
        inside = one.get('scene') or 'scene' if one.get('type') in SPATIAL else one.get('subplot') or (
            'polar' if str(one.get('type')).endswith('polar') else None)
        key = index if alone else inside or (one.get('xaxis') or 'x', one.get('yaxis') or 'y')
        groups.setdefault(key, []).append(one)
    titles = [note.get('text') for note in layout.get('annotations') or [] if note.get('showarrow') is False]
    made = []
    for index, (key, traces) in enumerate(list(groups.items())[:AXES_MAX]):
        flat = isinstance(key, tuple)
        x, y = [plotly_axis(layout, name) for name in key] if flat else ({}, {})
        own = titles[index] if len(titles) == len(groups) > 1 else title(layout) if len(groups) == 1 else None
        elements = [part for one in traces for part in plotly_elements(one, spec)]
        more = {}
        if flat:
            elements += plotly_notes(layout, key)
            more = plotly_place(layout, key, list(groups))
        elif isinstance(key, str):
            scene = layout.get(key) or {}
            more = {'projection': '3d' if key.startswith('scene') else 'polar', 'z_label': title(scene.get('zaxis'))}
            x, y = scene.get('xaxis') or {}, scene.get('yaxis') or {}
        for which, axis in (('x', x), ('y', y)):
            more[which + '_reversed'] = plotly_reversed(axis)
            more.update(plotly_scale(which, axis, traces) if flat else {which + '_scale': axis.get('type') or 'linear'})
        made.append(axes_of(elements, title=own, x_label=title(x), y_label=title(y),
                            bar_mode=layout.get('barmode') or 'group', **more))
    return {'library': 'plotly', 'title': title(layout), 'axes': made}


def plotly_elements(one, spec):
    try:
        return plotly_styled(one, spec)
    except Exception:
        # What no one has thought of: other traces are no worse for it.
        return [{'type': 'unknown', 'label': one.get('name'), 'color': None, 'artist': one.get('type') or 'scatter'}]


SPATIAL = ('scatter3d', 'surface', 'mesh3d', 'cone', 'streamtube', 'volume', 'isosurface')


def plotly_axis(layout, name):
    return layout.get('%saxis%s' % (name[0], name[1:])) or {}


def plotly_place(layout, key, keys):
    """Where axes are, as parts of the figure without its margins; and over which others they lie."""
    def domain(name):
        axis = plotly_axis(layout, name)
        over = axis.get('overlaying')
        return domain(over) if over and over != name and 'domain' not in axis else axis.get('domain') or [0, 1]

    (left, right), (bottom, top) = [domain(name) for name in key]
    x, y = [plotly_axis(layout, name) for name in key]
    made = {'position': [left, bottom, right - left, top - bottom], 'x_side': x.get('side') or 'bottom', 'y_side': y.get('side') or 'left'}
    under = (x.get('overlaying') or key[0], y.get('overlaying') or key[1])
    if under != key and under in keys:
        made['overlays'] = keys.index(under)
    return made


def plotly_scale(which, axis, traces):
    """The kind of an axis, which plotly guesses from the values, and its marks where they are not the browser's choice."""
    values = [value for one in traces for value in plotly_along(which, one)]
    kind = axis.get('type')
    kind = plotly_kind(values) if kind in (None, '-') else kind
    made = {which + '_scale': kind}
    marks, limits = axis.get('tickvals'), axis.get('range')
    if marks is not None and axis.get('tickmode') in (None, 'array'):
        places = column(marks)
        texts = column(axis.get('ticktext')) or places
        made[which + '_ticks'] = [[place, str(text)] for place, text in zip(places, texts)][:POINTS_MAX]
    elif kind == 'category':
        made[which + '_ticks'] = [[name, name] for name in plotly_names(axis, values)][:POINTS_MAX]
    elif kind == 'linear' and limits and axis.get('dtick'):
        made[which + '_ticks'] = plotly_steps(axis.get('tick0') or 0, axis['dtick'], limits)
    if limits and kind != 'category' and None not in limits:
        made[which + '_range'] = [10 ** end for end in limits] if kind == 'log' else list(limits)
    return made


def plotly_reversed(axis):
    if isinstance(axis.get('autorange'), str):
        return 'reversed' in axis['autorange']
    limits = axis.get('range')
    return bool(limits) and None not in limits and type(limits[0]) is type(limits[-1]) and limits[0] > limits[-1]


def plotly_along(which, one):
    """What a trace has along an axis; boxes that are nowhere are at their name."""
    values = column(one.get(which))
    if not values and one.get('type') in ('box', 'violin') and one.get('name'):
        upright = bool(column(one.get('y'))) or bool(one.get('q1')) and one.get('orientation') != 'h'
        values = [one['name']] if which == ('x' if upright else 'y') else []
    return values


def plotly_kind(values):
    """As plotly guesses: times or names are so when there are more than twice as many as numbers."""
    if len(values) > 1 and all(isinstance(value, list) for value in values):
        return 'multicategory'
    texts = [value for value in values if isinstance(value, str)]
    measures = [value for value in texts if value and plotly_measure(value)]
    times = [value for value in measures if not plotly_number(value)]
    numbers = len(measures) - len(times) + sum(isinstance(value, (int, float)) for value in values)
    if len(times) > 2 * numbers:
        return 'date'
    return 'category' if len([value for value in texts if value]) - len(measures) > 2 * numbers else 'linear'


def plotly_names(axis, values):
    """The names of an axis in their order; none where that follows from sizes, which the browser adds up."""
    found = list(dict.fromkeys(str(value) for value in values if value is not None and not isinstance(value, list)))
    order = axis.get('categoryorder') or ('array' if axis.get('categoryarray') is not None else 'trace')
    if order == 'array':
        asked = [str(name) for name in column(axis.get('categoryarray'))]
        return list(dict.fromkeys(asked + found))
    if order in ('category ascending', 'category descending'):
        return sorted(found, reverse=order.endswith('descending'))
    return found if order == 'trace' else []


def plotly_steps(start, step, limits):
    if not all(isinstance(value, (int, float)) for value in (start, step, *limits)) or step <= 0:
        return []
    low, high = sorted(limits)
    first = int(-((start - low) // step))
    places = itertools.takewhile(lambda place: place <= high, (start + step * at for at in itertools.count(first)))
    return [[place, '%g' % place] for place in itertools.islice(places, POINTS_MAX)]


def plotly_notes(layout, key):
    """Texts, lines and bands at places of these axes."""
    found = []
    for note in layout.get('annotations') or []:
        if (note.get('xref') or 'x', note.get('yref') or 'y') == key and note.get('text'):
            element = {'type': 'text', 'text': note['text'], 'x': note.get('x'), 'y': note.get('y'),
                       'color': (note.get('font') or {}).get('color')}
            if note.get('showarrow') is not False:
                element['points_to'] = [note.get('x'), note.get('y')]
            found.append(element)
    for shape in layout.get('shapes') or []:
        refs = shape.get('xref') or 'x', shape.get('yref') or 'y'
        side = {(key[0] + ' domain', key[1]): ('horizontal', 'y'), (key[0], key[1] + ' domain'): ('vertical', 'x')}.get(refs)
        if side is None or shape.get('type') not in ('line', 'rect'):
            continue
        (orientation, which), other = side, 'x' if side[1] == 'y' else 'y'
        ends, is_line = [shape.get(which + '0'), shape.get(which + '1')], shape['type'] == 'line'
        line = shape.get('line') or {}
        shade = line.get('color') if is_line else shape.get('fillcolor')
        looks = said(line_style=DASHES.get(line.get('dash'), line.get('dash')), line_width=amount(line.get('width'))) if is_line else {}
        found.append(dict({'at': ends[0]} if is_line else {'from': ends[0], 'to': ends[1]}, label=shape.get('name'),
                          type='rule' if is_line else 'band', orientation=orientation, color=shade, **looks,
                          **said(opacity=amount(shape.get('opacity'))),
                          extent=[shape.get(other + '0'), shape.get(other + '1')]))
    return found


def plotly_boxes(one, element, values, groups):
    """Boxes that are computed, or were: then they come with their quartiles."""
    at = plotly_quartile(one.get('quartilemethod') or 'linear')
    given = {name: column(one.get(name)) for name in ('q1', 'median', 'q3', 'lowerfence', 'upperfence')}
    if not (given['q1'] and given['median'] and given['q3']):
        parts = {}
        for index, value in enumerate(values):
            parts.setdefault(groups[index] if index < len(groups) else element['label'], []).append(value)
        return [dict(shown, label=name) for name, part in parts.items() for shown in [quartiles(part, at)] if shown]
    rows = []
    for index, (q1, median, q3) in enumerate(zip(given['q1'], given['median'], given['q3'])):
        sample = values[index] if index < len(values) and isinstance(values[index], list) else []
        sample = [value for value in sample if isinstance(value, (int, float))]
        shown = quartiles(sample, lambda _, part: {0.25: q1, 0.5: median, 0.75: q3}[part]) or {'min': q1, 'max': q3}
        low, high = [given[name][index] if index < len(given[name]) else shown[end]
                     for name, end in (('lowerfence', 'min'), ('upperfence', 'max'))]
        rows.append({'label': groups[index] if index < len(groups) else element['label'], 'min': low, 'q1': q1,
                     'median': median, 'q3': q3, 'max': high,
                     'outliers': [value for value in sample if not low <= value <= high][:POINTS_MAX]})
    return rows


def column(values):
    """plotly writes long arrays as base64 of their bytes."""
    if isinstance(values, dict) and 'bdata' in values:
        import array
        kinds = {'i1': 'b', 'u1': 'B', 'i2': 'h', 'u2': 'H', 'i4': 'i', 'u4': 'I', 'i8': 'q', 'u8': 'Q', 'f4': 'f', 'f8': 'd'}
        made = array.array(kinds[values['dtype']])
        made.frombytes(base64.b64decode(values['bdata']))
        flat = numbers(made.tolist())
        shape = [int(part) for part in str(values.get('shape', '')).split(',') if part.strip()]
        if len(shape) == 2:
            return [flat[row * shape[1]:(row + 1) * shape[1]] for row in range(shape[0])]
        return flat
    return list(values) if isinstance(values, (list, tuple)) else []


def plotly_trace(one):
    kind = one.get('type') or 'scatter'
    marker, line = one.get('marker') or {}, one.get('line') or {}
    shade = next((text for text in (marker.get('color'), line.get('color')) if isinstance(text, str)), None)
    element = {'label': one.get('name') or None, 'color': shade}
    xs, ys = column(one.get('x')), column(one.get('y'))
    upright = one.get('orientation') != 'h'
    if kind in ('scatter', 'scattergl'):
        element['type'] = 'line' if 'lines' in (one.get('mode') or 'lines') else 'scatter'
        if (one.get('fill') or 'none') != 'none' or one.get('stackgroup'):
            element['filled'] = True
        if 'markers' in (one.get('mode') or ''):
            element.update(plotly_looks(marker))
        return [cut(element, [list(pair) for pair in zip(xs or range(len(ys)), ys or range(len(xs)))])]
    if kind in ('scatter3d', 'scatterpolar'):
        element['type'] = 'line' if 'lines' in (one.get('mode') or 'lines+markers') else 'scatter'
        if 'markers' in (one.get('mode') or 'lines+markers'):
            element.update(plotly_looks(marker))
        parts = [column(one.get(name)) for name in (('r', 'theta')[::-1] if kind == 'scatterpolar' else 'xyz')]
        return [cut(element, [list(point) for point in zip(*parts)])]
    if kind == 'bar':
        element.update(type='bar', orientation='vertical' if upright else 'horizontal')
        along, sizes = (xs, ys) if upright else (ys, xs)
        element.update(plotly_bar_looks(one, marker, max(len(along), len(sizes))))
        return [cut(element, [list(pair) for pair in zip(along or range(len(sizes)), sizes)])]
    if kind == 'pie':
        values = column(one.get('values')) or [1] * len(column(one.get('labels')))
        whole = sum(value for value in values if value) or 1
        sums = {}
        for name, value in zip(column(one.get('labels')) or range(len(values)), values):
            sums[name] = sums.get(name, 0) + (value or 0)
        return [cut(dict(element, type='pie'), [[name, value / whole] for name, value in sums.items()])]
    if kind == 'histogram':
        return [plotly_histogram(one, element, xs, ys)]
    if kind == 'box':
        upright = (bool(ys) or bool(one.get('q1'))) and upright
        values, groups = (ys, xs) if upright else (xs, ys)
        rows = plotly_boxes(one, element, values, groups)
        return [cut(dict(element, type='box', orientation='vertical' if upright else 'horizontal'), rows)]
    if kind in ('heatmap', 'contour'):
        values = column(one.get('z'))
        cells = [numbers(row[:CELLS_MAX]) for row in values[:CELLS_MAX]]
        wide = len(values) > CELLS_MAX or any(len(row) > CELLS_MAX for row in values[:1])
        return [dict(element, type='heatmap', values=cells, x=xs[:CELLS_MAX], y=ys[:CELLS_MAX], truncated=wide)]
    return [dict(element, type='unknown', artist=kind)]


def plotly_looks(marker):
    """What points have each of their own."""
    made = {}
    shades, sizes = [column(marker.get(name)) if isinstance(marker.get(name), (list, dict)) else [] for name in ('color', 'size')]
    if shades:
        made['colors' if any(isinstance(shade, str) for shade in shades) else 'values'] = shades[:POINTS_MAX]
    return dict(made, sizes=sizes[:POINTS_MAX]) if sizes else made


def plotly_bar_looks(one, marker, count):
    """What bars have each of their own, and where they begin."""
    made, base, width = plotly_looks({'color': marker.get('color')}), one.get('base'), one.get('width')
    if isinstance(base, (list, dict)):
        made['bases'] = column(base)[:POINTS_MAX]
    elif base:
        made['bases'] = [base] * min(count, POINTS_MAX)
    if isinstance(width, (list, dict)):
        made['widths'] = column(width)[:POINTS_MAX]
    return dict(made, **said(width=amount(width)))


def plotly_histogram(one, element, xs, ys):
    """Values that the client counts; or what is computed of the other column, where bins are no choice of the browser."""
    upright = one.get('orientation') == 'v' or one.get('orientation') != 'h' and bool(xs)
    values, others, which = (xs, ys, 'x') if upright else (ys, xs, 'y')
    element.update(orientation='vertical' if upright else 'horizontal')
    func, bins = one.get('histfunc') or 'count', one.get(which + 'bins')
    more = {'bins': bins or {'maxbins': one['nbins' + which]}} if bins or one.get('nbins' + which) else {}
    cumulative = bool((one.get('cumulative') or {}).get('enabled'))
    more.update({name: value for name, value in (('norm', one.get('histnorm')), ('cumulative', cumulative)) if value})
    if func == 'count' or not others:
        return cut(dict(element, type='histogram', **more), values, 'values')
    pairs = [pair for pair in zip(values, others) if pair[0] is not None]
    computed = {'sum': sum, 'min': min, 'max': max, 'avg': lambda all: sum(all) / len(all)}.get(func)
    good = all(value is None or isinstance(value, (int, float)) for value in others)
    if good and computed and not {'norm', 'cumulative'} & more.keys():
        if all(isinstance(value, str) and not plotly_measure(value) for value, _ in pairs):
            parts = {}
            for name, value in pairs:
                parts.setdefault(name, []).extend([] if value is None else [value])
            return cut(dict(element, type='bar'), [[name, computed(part) if part else None] for name, part in parts.items()])
        edges = [(bins or {}).get(name) for name in ('start', 'end', 'size')]
        if all(isinstance(value, (int, float)) for value in edges + [value for value, _ in pairs]) and edges[2] > 0:
            start, end, size = edges
            rows = []
            while start + size * len(rows) < end - size * 1e-6 and len(rows) <= POINTS_MAX:
                low, high = start + size * len(rows), start + size * (len(rows) + 1)
                part = [value for at, value in pairs if low <= at < high and value is not None]
                rows.append([low, high, computed(part) if part else None])
            return cut(dict(element, type='histogram', **more), rows)
    return dict(element, type='unknown', artist='histogram')


def plotly_measure(text):
    """Whether an axis would take this for a number or a time and not for a name."""
    import re
    return plotly_number(text) or not text or re.match(r'-?\d{2,4}(-\d|$)', text) is not None


def plotly_number(text):
    try:
        float(text)
        return True
    except ValueError:
        return False
