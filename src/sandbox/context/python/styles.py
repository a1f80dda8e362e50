

# How elements look, by names that are the same for all libraries; and where the figure says it, nothing else.

DASHES = {'-': 'solid', '--': 'dashed', '-.': 'dashdot', ':': 'dotted', 'dash': 'dashed', 'dot': 'dotted'}
MARKERS = {'o': 'circle', '.': 'point', ',': 'pixel', 's': 'square', 'D': 'diamond', 'd': 'thin-diamond', '+': 'cross',
           'P': 'filled-cross', 'x': 'x', 'X': 'filled-x', '*': 'star', 'p': 'pentagon', 'h': 'hexagon', 'H': 'hexagon2',
           '8': 'octagon', '^': 'triangle-up', 'v': 'triangle-down', '<': 'triangle-left', '>': 'triangle-right',
           '1': 'tri-down', '2': 'tri-up', '3': 'tri-left', '4': 'tri-right', '|': 'line-vertical', '_': 'line-horizontal'}


def said(**fields):
    """What is known of these."""
    return {name: value for name, value in fields.items() if value is not None}


def amount(value):
    """A number as it is; what is one for each, or computed, is none."""
    return number(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def see_through(artist, shade=None):
    """How much of what is behind a thing of matplotlib's it hides, when that is not all."""
    from matplotlib.colors import to_rgba_array
    alpha = artist.get_alpha()
    if alpha is None and shade is not None:
        shades = to_rgba_array(shade)
        alpha = shades[0][3].item() if len(shades) else None
    return number(alpha) if isinstance(alpha, (int, float)) and alpha < 1 else None


def dashes(name, pattern):
    """The name of a style of matplotlib's, or how long dashes and gaps are in widths of the line."""
    from matplotlib import rcParams
    usual = {'--': 'dashed', '-.': 'dashdot', ':': 'dotted'}
    if pattern is None:
        return 'solid'
    lengths = [round(length, 6) for length in pattern]
    for short, named in usual.items():
        if name in (None, short) and lengths == list(rcParams['lines.%s_pattern' % named]):
            return named
    return lengths


def line_looks(line):
    """A line of matplotlib's, with its marks."""
    made = {}
    if line.get_linestyle() not in ('None', '', ' ', None):
        _, pattern = getattr(line, '_unscaled_dash_pattern', (0, None))
        made.update(line_style=dashes(line.get_linestyle(), pattern), line_width=number(line.get_linewidth()))
    marker = line.get_marker()
    if not (marker is None or isinstance(marker, str) and marker.strip() in ('', 'None', 'none')):
        made.update(said(marker=marker_named(line, marker)), marker_size=number(line.get_markersize()))
        shade = color(line.get_markerfacecolor()) or color(line.get_markeredgecolor())
        if 'line_style' not in made:
            made['color'] = shade
        elif shade != color(line.get_color()):
            made['marker_color'] = shade
    return dict(made, **said(opacity=see_through(line, line.get_color())))


def marker_named(line, marker):
    """What the shape of a line's marks is called. One that is drawn by points has a name only where it is a known one."""
    if isinstance(marker, str):
        return MARKERS.get(marker, str(marker))
    try:
        return marker_of(line._marker.get_path().transformed(line._marker.get_transform()))
    except Exception:
        # What a line keeps of it is no promise of matplotlib's.
        return None


known_markers = {}


def marker_of(path):
    """What the shape of a point is called."""
    if not known_markers:
        from matplotlib.markers import MarkerStyle
        for short, name in MARKERS.items():
            style = MarkerStyle(short)
            known_markers.setdefault(shape_of(style.get_path().transformed(style.get_transform())), name)
    return known_markers.get(shape_of(path))


def shape_of(path):
    codes = None if path.codes is None else path.codes.tolist()
    return repr((path.vertices.round(6).tolist(), codes))


def point_looks(collection, count):
    """Points of matplotlib's: their shapes, and what their colours stand for."""
    shapes = [marker_of(path) for path in collection.get_paths()[:count]]
    sizes = sizes_of(collection)
    made = said(opacity=see_through(collection, faces_of(collection)))
    if len(set(shapes)) == 1:
        made.update(said(marker=shapes[0]))
    elif shapes:
        made['markers'] = list(itertools.islice(itertools.cycle(shapes), count))
    if len(sizes) == 1:
        made['marker_size'] = number(sizes[0] ** 0.5)
    if collection.get_array() is not None and len(collection.get_array()) > 1:
        made.update(scale_looks(collection))
    return made


def faces_of(collection):
    """The colours of points, as they were given: those in space are asked for by how far away they are, and paler."""
    kind = sys.modules['matplotlib.collections'].Collection
    shades = kind.get_facecolor(collection)
    # Crosses and rings have no faces.
    return shades if len(shades) else kind.get_edgecolor(collection)


def sizes_of(collection):
    sizes = getattr(collection, '_sizes3d', None)
    return collection.get_sizes() if sizes is None else sizes


def scale_looks(mapped):
    """By which colours numbers are shown."""
    norm = mapped.norm
    kind = {'Normalize': 'linear', 'LogNorm': 'log', 'SymLogNorm': 'symlog'}.get(type(norm).__name__, type(norm).__name__)
    return {'colormap': mapped.get_cmap().name, 'value_range': [number(norm.vmin), number(norm.vmax)], 'value_scale': kind}


def bar_looks(patches):
    """Bars of which each may have a colour of its own."""
    shades = [color(patch.get_facecolor()) for patch in patches[:POINTS_MAX]]
    opacities = {see_through(patch, patch.get_facecolor()) for patch in patches[:POINTS_MAX]}
    made = said(opacity=opacities.pop() if len(opacities) == 1 else None)
    return dict(made, colors=shades) if len(set(shades)) > 1 else made


def pie_looks(wedges):
    made = {'colors': [color(wedge.get_facecolor()) for wedge in wedges[:POINTS_MAX]]}
    first = wedges[0]
    if first.width is not None and first.r:
        made['hole'] = number(1 - first.width / first.r)
    if first.r != 1:
        made['radius'] = number(first.r)
    centers = {tuple(numbers(wedge.center)) for wedge in wedges}
    # Those that are drawn apart have centers of their own.
    return dict(made, center=list(centers.pop())) if len(centers) == 1 and centers != {(0, 0)} else made


def segment_looks(collection):
    made = said(opacity=see_through(collection, collection.get_color()))
    patterns, widths = collection.get_linestyle(), collection.get_linewidth()
    shades = [color([shade]) for shade in collection.get_color()[:POINTS_MAX]]
    if len(patterns) == 1 and len(widths) == 1:
        # These are in points, and those of a line in its widths.
        _, lengths = patterns[0]
        width = number(widths[0])
        made.update(line_style=dashes(None, None if lengths is None else [length / (width or 1) for length in lengths]),
                    line_width=width)
    return dict(made, colors=shades) if len(set(shades)) > 1 else made


# plotly.

def plotly_template(spec, kind=None):
    """What traces of a kind, or all figures, begin with."""
    template = (spec.get('layout') or {}).get('template') or {}
    if kind is None:
        return template.get('layout') or {}
    return ((template.get('data') or {}).get(kind) or [{}])[0]


def plotly_colorway(spec):
    return (spec.get('layout') or {}).get('colorway') or plotly_template(spec).get('colorway') or []


def plotly_style(one):
    """A trace's lines and marks."""
    kind, mode = one.get('type') or 'scatter', one.get('mode')
    line, marker, made = one.get('line') or {}, one.get('marker') or {}, {}
    if kind.startswith('scatter') and 'lines' in (mode or 'lines'):
        dash = line.get('dash')
        made.update(said(line_style=DASHES.get(dash, dash), line_width=amount(line.get('width'))))
    if kind.startswith('scatter') and 'markers' in (mode or ''):
        symbol, size = marker.get('symbol'), marker.get('size')
        made.update(said(marker=symbol if isinstance(symbol, str) else None, marker_size=amount(size),
                         markers=column(symbol)[:POINTS_MAX] if isinstance(symbol, list) else None))
    shades = [part.get('color') for part in (marker, line)]
    if kind.startswith('scatter') and mode and 'lines' in mode and 'markers' in mode:
        if all(isinstance(shade, str) for shade in shades) and shades[0] != shades[1]:
            made['marker_color'] = shades[0]
    opacity = one.get('opacity') if amount(one.get('opacity')) is not None else marker.get('opacity')
    if amount(opacity) is not None and opacity < 1:
        made['opacity'] = opacity
    return made


def plotly_scale_looks(one, spec, which):
    """By which colours the numbers of a trace (`z`) or of its marks (`c`) are shown."""
    axis = one.get('coloraxis')
    layout = spec.get('layout') or {}
    base = plotly_template(spec)
    holder, low, high = (layout.get(axis) or {}, 'cmin', 'cmax') if axis else (one, which + 'min', which + 'max')
    colormap = holder.get('colorscale') or (
        (layout.get('colorscale') or {}).get('sequential') or (base.get('colorscale') or {}).get('sequential') if axis
        else plotly_template(spec, one.get('type')).get('colorscale') if which == 'z' else None)
    if holder.get('reversescale') and colormap:
        colormap = colormap + '_r' if isinstance(colormap, str) else [
            [1 - place, shade] for place, shade in reversed(colormap)]
    ends = [amount(holder.get(low)), amount(holder.get(high))]
    return said(colormap=colormap, value_range=ends if None not in ends else None)


def plotly_styled(one, spec):
    """What a trace draws, with how it looks."""
    index = next(place for place, other in enumerate(spec['data']) if other is one)
    way, line, marker, made = plotly_colorway(spec), one.get('line') or {}, one.get('marker') or {}, []
    for element in plotly_trace(one):
        kind = element['type']
        if kind == 'line' and isinstance(line.get('color'), str):
            element['color'] = line['color']
        if kind == 'pie':
            element.update(plotly_pie_looks(one, element['points'], spec))
        elif kind == 'heatmap':
            element.update(plotly_scale_looks(one, spec, 'z'))
        elif kind != 'unknown':
            element.update(plotly_style(one))
            if 'values' in element and kind != 'histogram':
                element.update(plotly_scale_looks(dict(marker, type=one.get('type')), spec, 'c'))
            # The colours of a line's marks are not the line's.
            of_each = {'colors', 'values'} & element.keys() and kind not in ('line', 'histogram')
            if element['color'] is None and way and not of_each:
                element['color'] = way[index % len(way)]
        made.append(element)
    return made


def plotly_pie_looks(one, shares, spec):
    """The parts in their order; those without a colour of their own get one by their size."""
    marker, way = one.get('marker') or {}, (spec.get('layout') or {}).get('piecolorway') or plotly_colorway(spec)
    asked = column(marker.get('colors'))
    names = [name for name, _ in shares]
    given = {}
    for name, shade in zip(column(one.get('labels')) or range(len(shares)), asked):
        given.setdefault(name, shade)
    order = names if one.get('sort') is False else [name for name, _ in sorted(shares, key=lambda part: -part[1])]
    left = itertools.cycle(way) if way else itertools.repeat(None)
    for name in order:
        if given.get(name) is None:
            given[name] = next(left)
    made = said(hole=amount(one.get('hole')) or None)
    shades = [given[name] for name in names]
    return made if None in shades else dict(made, colors=shades[:POINTS_MAX])


# altair.

def altair_style(mark, encoding):
    """What a mark, or a channel with a value, says of all that it draws."""
    def constant(name):
        channel = encoding.get(name)
        if isinstance(channel, dict) and {'condition', 'field', 'aggregate', 'datum'} & channel.keys():
            # Each has its own.
            return None
        value = channel.get('value') if isinstance(channel, dict) else None
        return mark.get(name) if value is None else value

    has_line, point = mark.get('type') in ('line', 'area', 'rule', 'trail'), mark.get('point')
    if isinstance(point, (dict, bool)) and point:
        mark = dict(mark, shape='circle', **(point if isinstance(point, dict) else {}))
    elif has_line or mark.get('type') not in ('point', 'circle', 'square'):
        mark = {name: value for name, value in mark.items() if name not in ('shape', 'size')}
    shape = constant('shape') or {'circle': 'circle', 'square': 'square'}.get(mark.get('type'))
    size, opacity, dash = amount(constant('size')), amount(constant('opacity')), constant('strokeDash')
    return said(line_style=numbers(dash) if isinstance(dash, list) and dash else None,
                line_width=amount(constant('strokeWidth')), marker=shape if isinstance(shape, str) else None,
                marker_size=None if size is None else size ** 0.5,
                opacity=opacity if opacity is not None and opacity < 1 else None)


def altair_color(mark, encoding, label=None):
    """The colour of a series, when the chart says which: for all, or by its names."""
    channel = encoding.get('color')
    channel = channel if isinstance(channel, dict) else {}
    scale = channel.get('scale') or {}
    domain, shades = scale.get('domain'), scale.get('range')
    if 'condition' in channel or channel.get('aggregate'):
        return None
    if channel.get('field') is not None:
        known = isinstance(domain, list) and isinstance(shades, list) and label in domain
        return shades[domain.index(label) % len(shades)] if known and shades else None
    shade = channel.get('value') or mark.get('color') or mark.get('fill') or mark.get('stroke')
    return shade if isinstance(shade, str) else None


def altair_styled(elements, mark, encoding):
    """What a mark draws, with how it looks."""
    for element in elements:
        kind, shade = element['type'], altair_color(mark, encoding, element.get('label'))
        if kind == 'pie':
            shades = [altair_color(mark, encoding, name) for name, _ in element['points']]
            element.update({} if None in shades else {'colors': shades})
        elif kind == 'heatmap':
            element.update(altair_scale_looks(encoding.get('color') or {}))
        else:
            if 'values' in element and kind != 'histogram':
                element.update(altair_scale_looks(encoding['color']))
            element.update(said(color=shade), **(altair_style(mark, encoding) if kind != 'text' else {}))
    return elements


def altair_scale_looks(channel):
    scale = channel.get('scale') or {}
    scheme, domain = scale.get('scheme'), scale.get('domain')
    scheme = scheme.get('name') if isinstance(scheme, dict) else scheme
    ends = domain if isinstance(domain, list) and len(domain) == 2 and None not in map(amount, domain) else None
    colormap = scheme if isinstance(scheme, str) else None
    if colormap is None and isinstance(scale.get('range'), list):
        colormap = scale['range']
    return said(colormap=colormap, value_range=ends, value_scale=scale.get('type'))
