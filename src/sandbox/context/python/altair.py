

# altair.

MARKS = {'line': 'line', 'trail': 'line', 'area': 'line', 'point': 'scatter', 'circle': 'scatter', 'square': 'scatter',
         'tick': 'scatter', 'bar': 'bar', 'arc': 'pie', 'boxplot': 'box', 'rect': 'heatmap'}


class Unread(Exception):
    """What the browser computes and this does not: no numbers are better than others."""


def altair_chart(spec):
    def title(part):
        text = part.get('title')
        text = text.get('text') if isinstance(text, dict) else text
        return ' '.join(map(str, text)) if isinstance(text, list) else text

    datasets = spec.get('datasets') or {}
    views = altair_views(spec, spec.get('data') or {}, datasets, {})
    made = []
    for view, data, facet in itertools.islice(views, AXES_MAX):
        parts = list(altair_layers(view, data, {}))
        # Layers with scales of their own are axes of their own, over the first.
        apart = (view.get('resolve') or {}).get('scale') or {}
        alone = 'independent' in (apart.get('x'), apart.get('y'))
        own = ', '.join(str(one['value']) for one in facet.values())
        under = len(made)
        for index, layers in enumerate([[part] for part in parts] if alone else [parts]):
            elements = [element for part in layers for element in altair_layer(part, datasets)]
            first = layers[0].get('encoding') or {}
            names = [altair_label(first.get(which) or {}) for which in 'xy']
            scales = [altair_scale(first.get(which) or {}) for which in 'xy']
            turned = [bool(((first.get(which) or {}).get('scale') or {}).get('reverse')) for which in 'xy']
            more = dict({'facet': facet} if facet else {}, **({'overlays': under} if index else {}))
            if sum(element['type'] == 'histogram' for element in elements) > 1:
                apart = [(first.get(which) or {}).get('stack', True) for which in 'xy']
                more['bar_mode'] = 'stack' if all(apart) else 'overlay'
            made.append(axes_of(elements, title=own or title(view), x_label=names[0], y_label=names[1],
                                x_scale=scales[0], y_scale=scales[1], x_reversed=turned[0], y_reversed=turned[1], **more))
    return {'library': 'altair', 'title': title(spec), 'axes': made}


SIDES = ('row', 'column', 'facet')


def altair_layers(view, data, encoding):
    """The marks of a view, each with all that it has from those around it."""
    data, encoding = view.get('data') or data, dict(encoding, **(view.get('encoding') or {}))
    if 'layer' not in view:
        yield dict(view, data=data, encoding=encoding)
    for part in view.get('layer') or ():
        yield from altair_layers(altair_inherited(view, part), data, encoding)


def altair_inherited(view, part):
    """A part of a view, with the transforms that its data have gone through."""
    if part.get('data') or not view.get('transform'):
        return part
    return dict(part, transform=view['transform'] + (part.get('transform') or []))


def altair_views(view, data, datasets, facet):
    """The views of one axes each, with their data and what they are of: of a concatenation, a repetition, a facet."""
    data = view.get('data') or data
    for name in ('hconcat', 'vconcat', 'concat'):
        for part in view.get(name) or ():
            yield from altair_views(altair_inherited(view, part), data, datasets, facet)
        if name in view:
            return
    inner = view.get('spec')
    inner = inner and altair_inherited(view, inner)
    if inner is not None and 'repeat' in view:
        for fields in altair_repeated(view['repeat']):
            named = {side: {'field': None, 'value': field} for side, field in fields.items()}
            layers = view['repeat'].get('layer') if isinstance(view['repeat'], dict) else None
            made = altair_filled(inner, fields)
            made = {'layer': [altair_filled(made, {'layer': field}) for field in layers]} if layers else made
            yield from altair_views(made, data, datasets, dict(facet, **named))
        return
    encoding = view.get('encoding') or {}
    split = {side: encoding[side] for side in SIDES if side in encoding}
    if inner is not None:
        split = view.get('facet') or {}
        split = {'facet': split} if 'field' in split else split
    else:
        inner = dict(view, encoding={name: channel for name, channel in encoding.items() if name not in SIDES})
    # What the browser computes cannot be told apart here.
    split = {side: one for side, one in split.items() if one.get('field') and not ({'bin', 'timeUnit'} & one.keys())}
    rows = data.get('values') or datasets.get(data.get('name')) or []
    if not split or not isinstance(rows, list) or view.get('transform'):
        if 'spec' in view:
            yield from altair_views(inner, data, datasets, facet)
        else:
            yield inner, data, facet
        return
    orders = [altair_order(one, rows) for one in split.values()]
    for values in itertools.product(*orders):
        fields = [one['field'] for one in split.values()]
        own = [row for row in rows if all(row.get(field) == value for field, value in zip(fields, values))]
        if own:
            named = {side: {'field': field, 'value': number(value)} for side, field, value in zip(split, fields, values)}
            inside = {name: part for name, part in inner.items() if name != 'data'}
            yield from altair_views(inside, {'values': own}, datasets, dict(facet, **named))


def altair_order(channel, rows):
    """The values of a facet in the order of its panels."""
    found = list(dict.fromkeys(row.get(channel['field']) for row in rows))
    order = channel.get('sort', 'ascending')
    if isinstance(order, list):
        return sorted(found, key=lambda value: order.index(value) if value in order else len(order))
    if order in ('ascending', 'descending'):
        try:
            return sorted(found, reverse=order == 'descending')
        except TypeError:
            return found
    return found


def altair_repeated(repeat):
    """What each panel of a repetition puts in for its fields."""
    sides = {'repeat': repeat} if isinstance(repeat, list) else {
        side: repeat[side] for side in ('row', 'column') if repeat.get(side)}
    return [dict(zip(sides, fields)) for fields in itertools.product(*sides.values())]


def altair_filled(part, fields):
    """A specification with the fields of one panel."""
    if isinstance(part, list):
        return [altair_filled(item, fields) for item in part]
    if not isinstance(part, dict):
        return part
    if list(part) == ['repeat'] and part['repeat'] in fields:
        return fields[part['repeat']]
    return {name: item if name in ('data', 'datasets') else altair_filled(item, fields) for name, item in part.items()}


def altair_scale(channel):
    """The kind of an axis, in the words that others have for it."""
    kind = (channel.get('scale') or {}).get('type') or {
        'nominal': 'category', 'ordinal': 'category', 'temporal': 'date'}.get(channel.get('type'), 'linear')
    return {'band': 'category', 'point': 'category', 'ordinal': 'category', 'time': 'date', 'utc': 'date'}.get(kind, kind)


def altair_label(channel):
    if 'title' in channel:
        return channel['title']
    what, field = channel.get('aggregate'), channel.get('field')
    return '%s of %s' % (what, field) if what and field else field or what


AGGREGATES = {'sum': sum, 'min': min, 'max': max, 'mean': lambda all: sum(all) / len(all),
              'average': lambda all: sum(all) / len(all), 'median': lambda all: quartiles(all)['median']}
# What else than places and sizes tells rows apart: these make series, and stacks.
SERIES = ('color', 'fill', 'stroke', 'opacity', 'fillOpacity', 'strokeOpacity', 'strokeWidth', 'size', 'shape', 'strokeDash',
          'angle', 'detail', 'key', 'text', 'href', 'url', 'description')
PLACES = ('x', 'y', 'x2', 'y2', 'theta', 'xOffset', 'yOffset')


def altair_layer(part, datasets):
    mark = part.get('mark')
    mark = mark if isinstance(mark, dict) else {'type': mark}
    try:
        return altair_styled(altair_elements(part, mark, datasets), mark, part['encoding'])
    except (Unread, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        # Or what no one has thought of: other elements are no worse for it.
        return [{'type': 'unknown', 'label': part.get('name'), 'artist': mark.get('type')}]


def altair_elements(part, mark, datasets):
    named, encoding, source = mark.get('type'), part['encoding'], part['data']
    kind = MARKS.get(named, named if named in ('rule', 'text') else None)
    rows = source.get('values') if 'values' in source else datasets.get(source.get('name'))
    rows = [{}] if rows is None and not ({'url', 'sequence', 'sphere', 'graticule'} & source.keys()) else rows
    if kind is None or part.get('transform') or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Unread
    if {'latitude', 'longitude', 'latitude2', 'longitude2', 'radius', 'radius2', 'theta2', 'xError', 'yError'} & encoding.keys():
        raise Unread
    x, y = encoding.get('x') or {}, encoding.get('y') or {}
    flat = altair_flat(mark, encoding, x, y)
    orientation = {'orientation': 'horizontal' if flat else 'vertical'} if kind in ('bar', 'box') or flat and named == 'area' else {}
    along, across = (y, x) if flat else (x, y)
    if kind == 'bar' and along.get('bin') and along['bin'] != 'binned' and across.get('aggregate') == 'count':
        return altair_histogram(rows, encoding, dict(orientation, type='histogram'), along, across, part.get('name'))
    if any((encoding.get(name) or {}).get(odd) for name in encoding if isinstance(encoding[name], dict)
           for odd in ('bin', 'timeUnit', 'impute')):
        raise Unread
    if kind == 'heatmap':
        return [altair_heatmap(rows, encoding, part.get('name'))]
    if kind == 'box':
        return altair_boxes(rows, encoding, mark, orientation, along, across, part.get('name'))
    table = altair_table(rows, encoding)
    if kind in ('rule', 'text'):
        made = {'rule': altair_rules, 'text': altair_words}[kind](table, mark, encoding)
        return [dict(element, label=part.get('name'), color=None) for element in made]
    if kind == 'pie':
        return [altair_pie(table, mark, encoding, part.get('name'))]
    return altair_series(table, encoding, dict(orientation, type=kind), named, flat, part.get('name'))


def altair_type(channel):
    return channel.get('type') or ('quantitative' if channel.get('aggregate') else 'nominal')


def altair_flat(mark, encoding, x, y):
    """Whether the sizes of bars and areas run along x."""
    if mark.get('type') not in ('bar', 'area', 'boxplot'):
        return False
    if mark.get('orient') in ('horizontal', 'vertical'):
        return mark['orient'] == 'horizontal'
    if 'x2' in encoding or 'y2' in encoding:
        return 'y2' not in encoding
    sizes = [altair_type(one) == 'quantitative' and not one.get('bin') for one in (x, y)]
    return sizes[0] and (not sizes[1] or bool(x.get('aggregate')) and not y.get('aggregate'))


def altair_field(channel):
    """The name of a column, which dots and brackets would look into."""
    import re
    field = channel.get('field')
    if field is None:
        return None
    if not isinstance(field, str) or re.search(r'(?<!\\)[.\[]', field):
        raise Unread
    return re.sub(r'\\(.)', r'\1', field)


def altair_fields(encoding, names):
    """The columns by which rows are told apart, without those that are computed."""
    found = []
    for name in names:
        for channel in encoding[name] if isinstance(encoding.get(name), list) else [encoding.get(name) or {}]:
            within = channel.get('condition')
            for one in [channel] + (within if isinstance(within, list) else [within] if within else []):
                if one.get('field') is not None and not one.get('aggregate'):
                    found.append(altair_field(one))
    return list(dict.fromkeys(found))


def altair_value(channel, rows):
    """What one channel says of the rows of one mark."""
    what = channel.get('aggregate')
    if not what:
        if 'value' in channel or isinstance(channel.get('datum'), dict):
            raise Unread
        field = altair_field(channel)
        return number(rows[0].get(field)) if field is not None else channel.get('datum')
    if what == 'count':
        return len(rows)
    values = [row.get(altair_field(channel)) for row in rows]
    there = [value for value in values if value is not None]
    if what == 'valid':
        return len(there)
    if what == 'distinct' and len(there) == len(values):
        return len(set(map(str, there)))
    if not isinstance(what, str) or what not in AGGREGATES or not all(isinstance(value, (int, float)) for value in there):
        raise Unread
    return number(AGGREGATES[what](there)) if there else None


def altair_table(rows, encoding, names=PLACES + ('color', 'text')):
    """A row for each mark: what its channels say, and the row, or the first of those, that it comes from."""
    computed = any(one.get('aggregate') for channel in encoding.values()
                   for one in (channel if isinstance(channel, list) else [channel]) if isinstance(one, dict))
    groups = [[row] for row in rows]
    if computed:
        fields, parts = altair_fields(encoding, encoding), {}
        for row in rows:
            parts.setdefault(tuple(str(type(row.get(field))) + str(row.get(field)) for field in fields), []).append(row)
        groups = list(parts.values())
    used = [name for name in names if isinstance(encoding.get(name), dict)]
    return [(dict({name: altair_value(encoding[name], group) for name in used
                   if name in PLACES or encoding[name].get('field') or encoding[name].get('aggregate')}), group[0])
            for group in groups]


def altair_natural(value):
    return (0, 0) if value is None else (1, value) if isinstance(value, (int, float)) else (2, str(value))


def altair_series(table, encoding, base, named, flat, name):
    across, along = ('x', 'y') if flat else ('y', 'x')
    fields = altair_fields(encoding, SERIES)
    scaled, drawn = altair_scaled(encoding), named in ('line', 'area', 'trail')
    apart = [one for one in ('color', 'detail', 'shape', 'strokeDash') if one != 'color' or not scaled]
    split = fields if drawn else altair_fields(encoding, apart)[:1]
    mode = altair_stack(encoding, named, across, along, fields)
    stacked = [field for field in fields if field not in altair_fields(encoding, (along, along + 'Offset'))]
    if named == 'area' and mode:
        table = altair_imputed(table, along, stacked)
    bases = altair_bases(table, along, across, stacked, flat) if mode else {}
    ends = across + '2' in encoding
    path = named in ('line', 'trail', 'area') and 'order' not in encoding and (encoding.get(along) or {}).get('sort', 1) is not None
    computed = (encoding.get(across) or {}).get('aggregate')
    series = {}
    for index, (mark, row) in enumerate(table):
        series.setdefault(tuple(row.get(field) for field in split), []).append((index, mark, row))
    made = []
    for key, own in series.items():
        if computed or path and (named == 'area' or altair_type(encoding.get(along) or {}) in ('quantitative', 'temporal')):
            own = sorted(own, key=lambda one: altair_natural(one[1].get(along)))
        points, begins = [], []
        for index, mark, _ in own:
            size, begin = mark.get(across), bases.get(index, 0)
            if ends:
                begin, end = size, mark.get(across + '2')
                if not all(isinstance(value, (int, float)) for value in (begin, end)):
                    raise Unread
                size = end - begin
            if named == 'area':
                # Its points are where it ends, as those of other lines.
                top = begin + size if size is not None and (begin or ends) else size
                points.append([top, mark.get(along)] if flat else [mark.get(along), top])
            else:
                points.append([mark.get(along), size])
            begins.append(begin)
        label = number(key[0]) if len(key) == 1 else ', '.join(map(str, key)) if key else name
        element = cut(dict(base, label=label), points)
        if named == 'area':
            element['filled'] = True
        if any(begins):
            element['bases'] = begins[:POINTS_MAX]
        if scaled and not drawn:
            element['values'] = [mark.get('color') for _, mark, _ in own][:POINTS_MAX]
        if not drawn:
            element.update(altair_shades(encoding, [row for _, _, row in own]))
        made.append(element)
    return made


def altair_scaled(encoding):
    """Whether colours stand for numbers, and tell no series apart."""
    channel = encoding.get('color')
    if not isinstance(channel, dict) or 'condition' in channel or not (channel.get('field') or channel.get('aggregate')):
        return False
    return altair_type(channel) in ('quantitative', 'temporal')


TESTS = {'gt': operator.gt, 'gte': operator.ge, 'lt': operator.lt, 'lte': operator.le, 'equal': operator.eq}
SIGNS = {'>': 'gt', '>=': 'gte', '<': 'lt', '<=': 'lte', '==': 'equal', '===': 'equal'}


def altair_shades(encoding, rows):
    """The colours of marks that follow from a condition, where that compares one column with one value."""
    channel = encoding.get('color')
    conditions = channel.get('condition') if isinstance(channel, dict) else None
    if not conditions:
        return {}
    computed = any(isinstance(one, dict) and one.get('aggregate') for one in encoding.values())
    known = altair_fields(encoding, encoding) if computed else None
    shades = []
    for row in rows[:POINTS_MAX]:
        shade = channel.get('value')
        for one in reversed(conditions if isinstance(conditions, list) else [conditions]):
            field, holds = altair_test(one.get('test'))
            if field is None or row.get(field) is None or known is not None and field not in known:
                return {}
            holds_here = holds(row[field])
            if holds_here is None:
                return {}
            shade = one.get('value') if holds_here else shade
        shades.append(shade)
    if not all(isinstance(shade, str) for shade in shades):
        return {}
    return {'colors': shades} if len(set(shades)) > 1 else {'color': shades[0]} if shades else {}


def altair_test(test):
    """Of which column a condition is, and what asks it of a value; None where the browser alone knows."""
    import re
    if isinstance(test, str):
        found = re.fullmatch(r'''\(?datum(?:\.(\w+)|\[['"](\w+)['"]\]) (>=?|<=?|===?) (-?\d+(?:\.\d+)?|'[^'\\]*'|"[^"\\]*")\)?''',
                             re.sub(r'\s*(>=?|<=?|===?)\s*', r' \1 ', test.strip()))
        if found is None:
            return None, None
        value = found[4][1:-1] if found[4][0] in '\'"' else float(found[4])
        test = {'field': found[1] or found[2], SIGNS[found[3]]: value}
    asked = [name for name in TESTS if isinstance(test, dict) and name in test]
    if len(asked) != 1 or set(test) != {'field', asked[0]} or not isinstance(test['field'], str):
        return None, None
    compare, wanted = TESTS[asked[0]], test[asked[0]]
    is_text = isinstance(wanted, str)
    # Text and numbers are compared in ways of the browser's own.
    return test['field'], lambda value: compare(value, wanted) if isinstance(value, str) == is_text else None


def altair_stack(encoding, named, across, along, fields):
    """Whether marks stand on each other."""
    size = encoding.get(across) or {}
    asked = size.get('stack', named in ('bar', 'area'))
    other = (encoding.get(along) or {}).get('stack')
    if asked not in (True, False, None, 'zero') or other or asked and named not in ('bar', 'area'):
        raise Unread
    if not asked or across + '2' in encoding or altair_type(size) != 'quantitative':
        return False
    if 'order' in encoding or (size.get('scale') or {}).get('type', 'linear') != 'linear':
        raise Unread
    taken = altair_fields(encoding, (along, along + 'Offset'))
    computed = any(isinstance(one, dict) and one.get('aggregate') for one in encoding.values())
    return not computed or any(field not in taken for field in fields)


def altair_bases(table, along, across, fields, flat):
    """Where each mark begins: on those before it, of one place, above or below zero."""
    order = list(range(len(table)))
    # The first of the names is at the top, or at the left.
    for field in reversed(fields):
        order.sort(key=lambda index: altair_natural(table[index][1].get(field)), reverse=not flat)
    ends, bases = {}, {}
    for index in order:
        mark = table[index][0]
        size = mark.get(across) or 0
        if not isinstance(size, (int, float)):
            raise Unread
        key = (str(mark.get(along)), str(mark.get(along + 'Offset')), size < 0)
        bases[index] = ends.get(key, 0)
        ends[key] = bases[index] + size
    return bases


def altair_imputed(table, along, fields):
    """Areas on each other are 0 where they have no row."""
    across = 'x' if along == 'y' else 'y'
    series = {tuple(row.get(field) for field in fields): row for _, row in table}
    places = dict.fromkeys(mark.get(along) for mark, _ in table)
    there = {(tuple(row.get(field) for field in fields), mark.get(along)) for mark, row in table}
    return table + [({along: at, across: 0}, row) for key, row in series.items() for at in places if (key, at) not in there]


def altair_histogram(rows, encoding, base, along, across, name):
    if across.get('stack', True) not in (True, 'zero', None, False) or any(
            isinstance(one, dict) and one is not along and (one.get('bin') or one.get('timeUnit')) for one in encoding.values()):
        raise Unread
    field, split, series = altair_field(along), altair_fields(encoding, SERIES), {}
    for row in rows:
        key = tuple(row.get(one) for one in split)
        series.setdefault(number(key[0]) if len(key) == 1 else ', '.join(map(str, key)) if key else name, []).append(row.get(field))
    more = {'bins': along['bin']} if isinstance(along['bin'], dict) else {}
    return [cut(dict(base, label=label, **more), values, 'values') for label, values in series.items()]


def altair_boxes(rows, encoding, mark, orientation, along, across, name):
    extent = mark.get('extent', 1.5)
    if across.get('aggregate') or extent not in (1.5, 'min-max'):
        raise Unread
    split, series = altair_fields(encoding, SERIES), {}
    for row in rows:
        key = tuple(row.get(field) for field in split)
        series.setdefault(number(key[0]) if len(key) == 1 else ', '.join(map(str, key)) if key else name, {}).setdefault(
            altair_value(along, [row]), []).append(altair_value(across, [row]))
    made = []
    for label, groups in series.items():
        boxed = []
        for at, values in groups.items():
            shown = quartiles(values)
            if shown and extent == 'min-max':
                there = [value for value in values if value is not None]
                shown.update(min=min(there), max=max(there), outliers=[])
            boxed += [dict(shown, label=at)] if shown else []
        made.append(cut(dict(orientation, type='box', label=label), boxed))
    return made


def altair_pie(table, mark, encoding, name):
    theta = encoding.get('theta') or {}
    if not (theta.get('field') or theta.get('aggregate')) or theta.get('stack', True) in (None, False):
        raise Unread
    values = [(one.get('color'), one.get('theta') or 0) for one, _ in table]
    if not all(isinstance(value, (int, float)) and value >= 0 for _, value in values):
        raise Unread
    scale = theta.get('scale', {})
    if scale is None or scale.keys() - {'domain', 'range', 'type'} or scale.get('type', 'linear') != 'linear':
        raise Unread
    domain, angles = scale.get('domain', [0, sum(value for _, value in values)]), scale.get('range', [0, math.tau])
    if not all(isinstance(ends, list) and len(ends) == 2 and None not in map(amount, ends) for ends in (domain, angles)):
        raise Unread
    whole = domain[1] or 1
    if domain[0] != 0 or whole < 0:
        raise Unread
    made = cut({'type': 'pie', 'label': name}, [[at, value / whole] for at, value in values])
    if angles != [0, math.tau]:
        made['angles'] = [round(math.degrees(angle), 6) for angle in angles]
    hole, outer = [amount(mark.get(name)) for name in ('innerRadius', 'outerRadius')]
    return dict(made, hole=hole / outer) if hole and outer else made


def altair_rules(table, mark, encoding):
    """Lines across the axes, or from one place to another."""
    sides = [name for name in 'xy' if name in encoding]
    ends = [name for name in ('x2', 'y2') if name in encoding]
    if len(sides) == 1 and not ends:
        places = list(dict.fromkeys(one.get(sides[0]) for one, _ in table))
        return [{'type': 'rule', 'orientation': 'vertical' if sides == ['x'] else 'horizontal', 'at': at, 'extent': [0, 1]}
                for at in places]
    if len(sides) == 2 and ends:
        return [cut({'type': 'segments'}, [[[one['x'], one['y']], [one.get('x2', one['x']), one.get('y2', one['y'])]]
                                           for one, _ in table], 'segments')]
    raise Unread


def altair_words(table, mark, encoding):
    channel = encoding.get('text') or {}
    if any(name in channel for name in ('format', 'formatType', 'condition')) or {'xOffset', 'yOffset'} & encoding.keys():
        raise Unread
    if any((encoding.get(name) or {}).get('stack') for name in 'xy'):
        raise Unread
    found = []
    for one, _ in table:
        text = one.get('text', channel.get('value', channel.get('datum', mark.get('text'))))
        if isinstance(text, float):
            text = '%.12g' % text
        if text is not None and not isinstance(text, (dict, list, bool)):
            found.append({'type': 'text', 'text': str(text), 'x': one.get('x'), 'y': one.get('y')})
    return found


def altair_heatmap(rows, encoding, name):
    x, y, shade = [encoding.get(which) or {} for which in ('x', 'y', 'color')]
    if 'x2' in encoding or 'y2' in encoding or not (shade.get('field') or shade.get('aggregate')) or not (x and y):
        raise Unread
    table = [mark for mark, _ in altair_table(rows, encoding)]
    columns, lines = [list(dict.fromkeys(mark.get(which) for mark in table)) for which in 'xy']
    cells = {(mark.get('y'), mark.get('x')): mark.get('color') for mark in table}
    return {'type': 'heatmap', 'label': name, 'x': columns[:CELLS_MAX], 'y': lines[:CELLS_MAX],
            'truncated': max(len(columns), len(lines)) > CELLS_MAX,
            'values': [[cells.get((at, column)) for column in columns[:CELLS_MAX]] for at in lines[:CELLS_MAX]]}
