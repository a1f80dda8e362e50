

# What figures draw, as numbers: axes with elements, each of which a client can draw again (docs/api.md, "Charts").

POINTS_MAX, ELEMENTS_MAX, AXES_MAX, CELLS_MAX = 5000, 100, 50, 200


def number(value):
    """A coordinate that JSON can carry."""
    if hasattr(value, 'isoformat'):
        return value.isoformat()
    if type(value).__name__ == 'MaskedConstant':
        return None
    if hasattr(value, 'item'):
        value = value.item()
    if isinstance(value, bool) or value is None or isinstance(value, (int, str)):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float('inf') else None
    return str(value)


def numbers(values):
    return [number(value) for value in values]


def cut(element, points, name='points'):
    points = list(points[:POINTS_MAX + 1]) if hasattr(points, '__getitem__') else list(points)
    element['truncated'] = len(points) > POINTS_MAX
    element[name] = points[:POINTS_MAX]
    return element


def axes_of(elements, **more):
    made = {'title': None, 'x_label': None, 'y_label': None, 'x_scale': 'linear', 'y_scale': 'linear', 'x_reversed': False,
            'y_reversed': False, 'x_ticks': [], 'y_ticks': []}
    made.update(more, elements=elements[:ELEMENTS_MAX], truncated=len(elements) > ELEMENTS_MAX)
    return made


def between(values, place):
    """The value at a place of sorted ones, which may be between two."""
    place = min(max(place, 0), len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (place - low)


def vega_quartile(values, part):
    return between(values, (len(values) - 1) * part)


def plotly_quartile(method):
    """plotly counts from the middle of the first value, or takes the medians of both halves (`quartilemethod`)."""
    def at(values, part):
        if part == 0.5 or method not in ('exclusive', 'inclusive'):
            return between(values, len(values) * part - 0.5)
        middle = len(values) // 2 + (len(values) % 2 if method == 'inclusive' else 0)
        half = (values[:middle] if part < 0.5 else values[len(values) - middle:]) or values
        return between(half, len(half) * 0.5 - 0.5)
    return at


def quartiles(values, at=vega_quartile):
    """What a box shows of values: the whiskers end at the last value within 1.5 times the height of the box."""
    values = sorted(value for value in values if isinstance(value, (int, float)) and value == value)
    if not values:
        return None
    q1, median, q3 = at(values, 0.25), at(values, 0.5), at(values, 0.75)
    reach = 1.5 * (q3 - q1)
    inside = [value for value in values if q1 - reach <= value <= q3 + reach] or values
    outliers = [value for value in values if not inside[0] <= value <= inside[-1]]
    return {'min': inside[0], 'q1': q1, 'median': median, 'q3': q3, 'max': inside[-1], 'outliers': outliers[:POINTS_MAX]}


# matplotlib.

def matplotlib_chart(figure):
    shown = [one for one in figure.axes if one.get_label() != '<colorbar>'][:AXES_MAX]
    title = getattr(figure, '_suptitle', None)
    # Axes within others are no axes of the figure.
    within = {}
    for one in shown:
        for child in one.child_axes if len(shown) < AXES_MAX else ():
            if type(child).__name__ != 'SecondaryAxis':
                within[len(shown)] = shown.index(one)
                shown.append(child)
    made = [matplotlib_axes(one) for one in shown]
    for index, outer in within.items():
        made[index]['inset_of'] = outer
    for index, one in enumerate(shown):
        twins = getattr(one, '_twinned_axes', None)
        under = [other for other in shown[:index] if twins is not None and twins.joined(one, other)]
        if under:
            made[index]['overlays'] = shown.index(under[0])
    return {'library': 'matplotlib', 'title': title.get_text() if title is not None else None, 'axes': made}


def matplotlib_axes(axes):
    elements, deep = [], axes.name == '3d'
    if axes.get_axes_locator() is not None:
        axes.apply_aspect(axes.get_axes_locator()(axes, None))
    for make in (solids,) if deep else (pies, boxes, bars, areas, rules, lines, points, segments, images, words, others):
        try:
            elements.extend(make(axes))
        except Exception:
            # What no one has thought of: others are no worse for it.
            elements.append({'type': 'unknown', 'label': None, 'artist': make.__name__})
    more = {}
    for which in 'xyz' if deep else 'xy':
        axis = getattr(axes, which + 'axis')
        more.update({
            which + '_label': axis.get_label_text() or None, which + '_scale': getattr(axes, 'get_%sscale' % which)(),
            which + '_ticks': ticks(axes, which), which + '_range': [
                place(axes, which, at) for at in getattr(axes, 'get_%slim' % which)()],
            which + '_reversed': bool(axis.get_inverted())})
        if not deep:
            more[which + '_side'] = axis.get_label_position()
    if deep:
        more['view'] = [number(axes.elev), number(axes.azim)]
    return axes_of(elements, title=axes.get_title() or None, projection=axes.name,
                   position=numbers(axes.get_position().bounds), **more)


def solids(axes):
    """What is drawn in space."""
    found = []
    for line in axes.get_lines():
        rows = [list(point) for point in zip(*(numbers(list(part)[:POINTS_MAX + 1]) for part in line.get_data_3d()))]
        has_line = line.get_linestyle() not in ('None', '', ' ', None)
        element = {'type': 'line' if has_line else 'scatter', 'label': label(line), 'color': color(line.get_color())}
        found.append(cut(dict(element, **line_looks(line)), rows))
    for collection in axes.collections:
        kind = type(collection).__name__
        if kind == 'Line3DCollection':
            found.append(solid_segments(collection))
            continue
        if kind != 'Path3DCollection':
            found.append({'type': 'unknown', 'label': label(collection), 'artist': kind})
            continue
        parts = [part.data if hasattr(part, 'filled') else part for part in collection._offsets3d]
        rows = [list(point) for point in zip(*(numbers(list(part)[:POINTS_MAX + 1]) for part in parts))]
        found.append(cut(dict({'type': 'scatter', 'label': label(collection)}, **looks(collection, len(rows))), rows))
    return found


def solid_segments(collection):
    """Lines apart from each other in space, as those of `plot_wireframe`."""
    parts = [[numbers(point) for point in part] for part in list(collection._segments3d)[:POINTS_MAX + 1]]
    element = {'type': 'segments', 'label': label(collection), 'color': color(collection.get_color())}
    return cut(dict(element, **segment_looks(collection)), parts, 'segments')


def rules(axes):
    """Lines and bands across the axes, at a place of one of them (`axhline`, `axvspan` and the like)."""
    across = {'horizontal': axes.get_yaxis_transform(which='grid'), 'vertical': axes.get_xaxis_transform(which='grid')}
    found = []
    for artist in list(axes.get_lines()) + list(axes.patches):
        is_line = hasattr(artist, 'get_xdata')
        if not is_line and type(artist).__name__ not in ('Rectangle', 'Polygon'):
            continue
        transform = artist.get_transform() if is_line else artist.get_data_transform()
        side = next((side for side, one in across.items() if transform == one), None)
        if side is None:
            continue
        xs, ys = zip(*((artist.get_xydata() if is_line else artist.get_path().vertices if type(artist).__name__ == 'Polygon'
                        else artist.get_bbox().get_points()).tolist()))
        along, at = (xs, ys) if side == 'horizontal' else (ys, xs)
        which = 'y' if side == 'horizontal' else 'x'
        element = {'type': 'rule' if is_line else 'band', 'orientation': side, 'label': label(artist),
                   'color': color(artist.get_color() if is_line else artist.get_facecolor()),
                   'extent': [number(min(along)), number(max(along))]}
        places = {'at': place(axes, which, at[0])} if is_line else {
            'from': place(axes, which, min(at)), 'to': place(axes, which, max(at))}
        looks = line_looks(artist) if is_line else said(opacity=see_through(artist, artist.get_facecolor()))
        found.append(dict(element, **places, **looks))
    return found


def words(axes):
    """Texts in the axes, where they stand in its coordinates; an arrow of an annotation leads to `points_to`."""
    if any(type(patch).__name__ == 'Wedge' for patch in axes.patches):
        # The names of the parts of a pie are at these.
        return []
    found = []
    for text in axes.texts:
        if not text.get_text() or not text.get_visible():
            continue
        if hasattr(text, 'update_positions'):
            # Where it is was reckoned for the picture, which has other margins.
            text.update_positions(axes.figure.canvas.get_renderer())
        at = text.get_transform().transform(text.get_unitless_position())
        x, y = axes.transData.inverted().transform(at).tolist()
        element = {'type': 'text', 'text': text.get_text(), 'x': place(axes, 'x', x), 'y': place(axes, 'y', y),
                   'color': color(text.get_color()), 'align': [text.get_horizontalalignment(), text.get_verticalalignment()],
                   'size': number(text.get_fontsize())}
        if getattr(text, 'arrow_patch', None) is not None and getattr(text, 'xycoords', None) == 'data':
            element['points_to'] = [place(axes, which, at) for which, at in zip('xy', text.xy)]
        found.append(element)
    return found


def label(artist):
    text = artist.get_label()
    return None if not text or str(text).startswith('_') else str(text)


def color(value):
    """`#rrggbb` of one colour, or of the first of several."""
    try:
        from matplotlib.colors import to_hex, to_rgba_array
        return to_hex(to_rgba_array(value)[0])
    except Exception:
        return None


def ticks(axes, which):
    """Where the axis has marks, and what they say."""
    low, high = sorted(getattr(axes, 'get_%slim' % which)())
    places = getattr(axes, 'get_%sticks' % which)()
    texts = [text.get_text() for text in getattr(axes, 'get_%sticklabels' % which)()]
    return [[place(axes, which, at), text] for at, text in list(zip(places, texts))[:POINTS_MAX] if low <= at <= high]


def names_of(axes, which):
    """Names of positions on an axis that has names."""
    axis = getattr(axes, which + 'axis')
    mapping = getattr(axis.units, '_mapping', None)
    if mapping:
        return {float(position): name for name, position in mapping.items()}
    if type(axis.get_major_formatter()).__name__ not in ('FixedFormatter', 'FuncFormatter'):
        return {}
    texts = [text.get_text() for text in getattr(axes, 'get_%sticklabels' % which)()]
    return {round(float(at), 6): text for at, text in zip(getattr(axes, 'get_%sticks' % which)(), texts) if text}


def place(axes, which, value, names=None):
    """A position as the user gave it: categories and dates are not numbers there."""
    if names and round(float(value), 6) in names:
        return names[round(float(value), 6)]
    if hasattr(value, 'isoformat') or isinstance(value, str) or getattr(getattr(value, 'dtype', None), 'kind', '') == 'M':
        return moment(value)
    if hasattr(value, 'to_timestamp'):
        return moment(value.to_timestamp())
    axis = getattr(axes, which + 'axis')
    converter = axis.get_converter() if hasattr(axis, 'get_converter') else getattr(axis, 'converter', None)
    if value is None or value != value or not hasattr(value, '__float__'):
        return number(value)
    if getattr(axis, 'freq', None) is not None and 'Period' in type(converter).__name__:
        return of_period(axis.freq, float(value))
    if 'Date' in type(converter).__name__:
        from matplotlib.dates import num2date
        return num2date(value).replace(tzinfo=None).isoformat()
    return number(value)


def moment(value):
    """A time, or a name, as it is everywhere: ISO 8601 with the time of day."""
    if isinstance(value, str):
        return str(value)
    if value != value:
        return None
    if not hasattr(value, 'isoformat'):
        return str(value.astype('datetime64[us]').item().isoformat())
    return value.isoformat() + ('' if hasattr(value, 'hour') or hasattr(value, 'tzinfo') else 'T00:00:00')


def of_period(freq, ordinal):
    """pandas counts the periods on its axes of times; a part of one is that part of its time."""
    import pandas
    first = int(ordinal // 1)
    start, after = [pandas.Period(ordinal=at, freq=freq).to_timestamp() for at in (first, first + 1)]
    return (start + (after - start) * (ordinal - first)).round('us').isoformat()


def pairs_of(axes, pairs):
    return [[place(axes, which, value) for which, value in zip('xy', pair)] for pair in pairs]


def lines(axes):
    taken = {id(cap) for container in axes.containers if type(container).__name__ == 'ErrorbarContainer'
             for cap in container.lines[1]}
    taken |= getattr(axes, '_stockade_boxed', set())
    found = []
    for line in axes.get_lines():
        if type(line).__name__.endswith('AxLine'):
            found.append({'type': 'unknown', 'label': label(line), 'artist': 'AxLine'})
        if id(line) in taken or line.get_transform() != axes.transData:
            continue
        has_line = line.get_linestyle() not in ('None', '', ' ', None)
        xs, ys = [list(getattr(line, 'get_%sdata' % which)(orig=True))[:POINTS_MAX + 1] for which in 'xy']
        element = {'type': 'line' if has_line else 'scatter', 'label': label(line), 'color': color(line.get_color())}
        element.update(line_looks(line))
        if line.get_drawstyle().startswith('steps'):
            element['step'] = {'steps-mid': 'middle', 'steps-post': 'after'}.get(line.get_drawstyle(), 'before')
        # Without points it is there for a legend.
        if xs:
            found.append(cut(element, pairs_of(axes, zip(xs, ys))))
    return found


def points(axes):
    found = []
    for collection in axes.collections:
        if type(collection).__name__ != 'PathCollection':
            continue
        offsets = collection.get_offsets()
        # One coordinate that is missing is no reason to hide the other.
        offsets = offsets.data if hasattr(offsets, 'filled') else offsets
        names = {which: names_of(axes, which) for which in 'xy'}
        pairs = [[place(axes, which, value, names[which]) for which, value in zip('xy', pair)]
                 for pair in offsets[:POINTS_MAX + 1].tolist()]
        if pairs:
            found.append(cut(dict({'type': 'scatter', 'label': label(collection)}, **looks(collection, len(pairs))), pairs))
    return found


def looks(collection, count):
    """The colour of points, or of each of them; their sizes, and the numbers that the colours stand for."""
    collection.update_scalarmappable()
    count = min(count, POINTS_MAX)
    shades = faces_of(collection)
    made, sizes, values = {'color': color(shades) if len(shades) == 1 else None}, sizes_of(collection), collection.get_array()
    if len(shades) > 1:
        names = [color([shade]) for shade in shades[:count]]
        made['colors'] = list(itertools.islice(itertools.cycle(names), count))
    if len(sizes) > 1:
        made['sizes'] = list(itertools.islice(itertools.cycle(numbers(sizes[:count])), count))
    if values is not None and len(values) > 1:
        made['values'] = numbers(values[:count])
    return dict(made, **point_looks(collection, count))


def bars(axes):
    found = []
    for container in axes.containers:
        if type(container).__name__ != 'BarContainer' or not container.patches:
            continue
        patches = list(container.patches)[:POINTS_MAX + 1]
        shade = color(patches[0].get_facecolor())
        upright = getattr(container, 'orientation', 'vertical') != 'horizontal'
        which = 'x' if upright else 'y'
        sides = [(patch.get_x(), patch.get_width(), patch.get_y(), patch.get_height()) for patch in patches]
        if not upright:
            sides = [(y, height, x, width) for x, width, y, height in sides]
        names = names_of(axes, which)
        near = all(abs(one[0] + one[1] - two[0]) <= 1e-9 * max(1.0, abs(two[0])) for one, two in zip(sides, sides[1:]))
        bins = binned(axes, container, sides)
        # `hist` names the first of its bars.
        element = {'label': label(container) or label(patches[0]), 'color': shade,
                   'orientation': 'vertical' if upright else 'horizontal'}
        if bins is not None:
            edges, within = bins
            rows = [[place(axes, which, low), place(axes, which, high), number(size)]
                    for low, high, (_, _, _, size) in zip(edges, edges[1:], sides)]
            found.append(cut(dict(element, type='histogram', **({} if within == [0, 1] else {'within': within})), rows))
        elif near and len(patches) > 1 and not names:
            edges = [[place(axes, which, start), place(axes, which, start + extent), number(size)]
                     for start, extent, _, size in sides]
            found.append(cut(dict(element, type='histogram'), edges))
        else:
            rows = [[place(axes, which, start + extent / 2, names), number(size)] for start, extent, _, size in sides]
            found.append(cut(dict(element, type='bar', **widths([float('%.12g' % side[1]) for side in sides])), rows))
        found[-1].update(bar_looks(patches))
        bases = [number(base) for _, _, base, _ in sides]
        if any(bases):
            found[-1]['bases'] = bases[:POINTS_MAX]
    return found


def widths(all_widths):
    """How wide bars are: all, or each where they differ."""
    same = all(abs(one - all_widths[0]) <= 1e-9 * max(1.0, abs(one)) for one in all_widths)
    return {'width': all_widths[0]} if same else {'widths': all_widths[:POINTS_MAX]}


def binned(axes, container, sides):
    """The edges of the bins that bars are the counts of, and from where to where in its bin each of them is."""
    for _, bins, made in getattr(axes, '_stockade_hists', ()):
        if container is not made and not (isinstance(made, list) and any(one is container for one in made)):
            continue
        edges = [float(edge) for edge in bins]
        parts = [[round((at - low) / (high - low), 6) for at in (start, start + extent)]
                 for low, high, (start, extent, _, _) in zip(edges, edges[1:], sides) if high > low]
        # Or somebody has moved them.
        if parts and all(abs(one - two) < 1e-5 for part in parts for one, two in zip(part, parts[0])):
            return edges, parts[0]
    return None


def pies(axes):
    left = [patch for patch in axes.patches if type(patch).__name__ == 'Wedge']
    found = []
    # Several are rings around each other, or beside each other.
    for made in getattr(axes, '_stockade_pies', []):
        drawn = {id(wedge) for wedge in getattr(made, 'wedges', None) or made[0]}
        found.append([wedge for wedge in left if id(wedge) in drawn])
        left = [wedge for wedge in left if id(wedge) not in drawn]
    return [cut(dict({'type': 'pie', 'label': None}, **pie_looks(wedges)),
                [[str(wedge.get_label()), number((wedge.theta2 - wedge.theta1) / 360)] for wedge in wedges])
            for wedges in found + [left] if wedges]


def boxes(axes):
    """Boxes that `boxplot` drew: five lines each; found by what it leaves behind."""
    drawn = getattr(axes, '_stockade_boxes', [])
    taken, rows, shades, orientation = set(), [], [], 'vertical'
    for made in drawn:
        for group in made.values():
            taken.update(id(artist) for artist in group)
        for index, median in enumerate(made['medians']):
            whiskers = made['whiskers'][2 * index:2 * index + 2]
            flat = bool(whiskers) and len(set(whiskers[0].get_xdata())) > 1
            orientation = 'horizontal' if flat else 'vertical'
            along, across = ('get_xdata', 'get_ydata') if flat else ('get_ydata', 'get_xdata')
            caps = [getattr(cap, along)()[0] for cap in made['caps'][2 * index:2 * index + 2]]
            ends = [getattr(line, along)()[0] for line in whiskers]
            fliers = getattr(made['fliers'][index], along)() if index < len(made['fliers']) else []
            box = made['boxes'][index] if index < len(made['boxes']) else None
            shades.append(color(box.get_facecolor()) if hasattr(box, 'get_facecolor') else None)
            at = getattr(median, across)()
            which = 'y' if flat else 'x'
            rows.append({'label': place(axes, which, float(sum(at)) / len(at), names_of(axes, which)),
                         'min': number(caps[0]) if caps else None, 'q1': number(ends[0]) if ends else None,
                         'median': number(getattr(median, along)()[0]),
                         'q3': number(ends[1]) if len(ends) > 1 else None,
                         'max': number(caps[1]) if len(caps) > 1 else None,
                         'outliers': numbers(list(fliers)[:POINTS_MAX])})
    axes._stockade_boxed = taken
    same = len(set(shades)) == 1
    element = dict({'type': 'box', 'label': None, 'orientation': orientation, 'color': shades[0] if same else None},
                   **({} if same else {'colors': shades[:POINTS_MAX]})) if rows else None
    return [cut(element, rows)] if rows else []


def areas(axes):
    """Filled shapes, as the polygons that they are."""
    boxed, outlined = getattr(axes, '_stockade_boxed', set()), outlines(axes)
    found = []
    for collection in axes.collections:
        if type(collection).__name__ in ('PolyCollection', 'FillBetweenPolyCollection'):
            if collection.get_array() is not None:
                # Cells of `hexbin` and `tripcolor`: what they say is their colour.
                found.append({'type': 'unknown', 'label': label(collection), 'artist': type(collection).__name__})
                continue
            polygons = [path.vertices[:POINTS_MAX].tolist() for path in collection.get_paths()]
            element = {'type': 'area', 'label': label(collection), 'color': color(collection.get_facecolor())}
            element.update(said(opacity=see_through(collection, collection.get_facecolor())))
            found.append(cut(element, [pairs_of(axes, polygon) for polygon in polygons], 'polygons'))
    for patch in axes.patches:
        if type(patch).__name__ == 'Polygon' and id(patch) not in boxed and patch.get_data_transform() == axes.transData:
            if id(patch) in outlined:
                found.append(outlined[id(patch)])
                continue
            element = {'type': 'area', 'label': label(patch), 'color': color(patch.get_facecolor())}
            element.update(said(opacity=see_through(patch, patch.get_facecolor())))
            found.append(cut(element, [pairs_of(axes, patch.get_xy()[:POINTS_MAX].tolist())], 'polygons'))
    return found


def outlines(axes):
    """Histograms that are drawn as one line around all of their bars (`histtype='step'`, `'stepfilled'`), by their patches."""
    found, lines_of = {}, []
    for patch in axes.patches:
        if type(patch).__name__ != 'Polygon' or patch.get_data_transform() != axes.transData:
            continue
        corners = patch.get_xy().tolist()
        for side, which in (('vertical', 'x'), ('horizontal', 'y')):
            steps = outline(corners if side == 'vertical' else [corner[::-1] for corner in corners])
            if steps is None:
                continue
            edges, tops, bases = steps
            if bases is None:
                lines_of.append((id(patch), side, edges, tops))
                bases = [0] * len(tops)
            rows = [[place(axes, which, low), place(axes, which, high), number(top - base)]
                    for low, high, top, base in zip(edges, edges[1:], tops, bases)]
            shade = patch.get_facecolor() if patch.get_fill() else patch.get_edgecolor()
            found[id(patch)] = cut({'type': 'histogram', 'label': label(patch), 'color': color(shade), 'orientation': side}, rows)
            if any(bases):
                found[id(patch)]['bases'] = numbers(bases)[:POINTS_MAX]
            break
    # A line does not tell whether it stands on another that is nowhere above it: then it is no more than its shape.
    for one, side, edges, tops in lines_of:
        if any(other != one and (side, edges) == (way, places) and all(top >= below for top, below in zip(tops, under))
               for other, way, places, under in lines_of):
            found.pop(one, None)
    return found


def outline(corners):
    """The edges, tops and bases of upright bars, of which the last are None where the line does not come back."""
    closed = len(corners) % 4 == 1 and corners[0] == corners[-1]
    count = (len(corners) + 3) // 4 if closed else len(corners) // 2
    if count < 3 or not closed and len(corners) % 2:
        return None
    over, back = corners[:2 * count], corners[2 * count:]
    edges = [x for x, _ in over[::2]]
    tops = [y for _, y in over[1:-1:2]]
    same = all(one[0] == two[0] for one, two in zip(over[::2], over[1::2])) and all(
        one[1] == two[1] for one, two in zip(over[1::2], over[2::2]))
    if not same or any(high <= low for low, high in zip(edges, edges[1:])):
        return None
    if not closed:
        return (edges, tops, None) if over[0][1] == over[-1][1] == 0 else None
    # Back from the last corner: two for each bar.
    back = [over[-1]] + back
    wanted = [x for low, high in list(zip(edges, edges[1:]))[::-1] for x in (high, low)]
    if [x for x, _ in back] != wanted or any(one[1] != two[1] for one, two in zip(back[::2], back[1::2])):
        return None
    return edges, tops, [y for _, y in back[::2]][::-1]


KNOWN = ('PathCollection', 'PolyCollection', 'FillBetweenPolyCollection', 'LineCollection', 'QuadMesh')


def segments(axes):
    """Lines apart from each other, and what is there beside all that is known."""
    found = []
    for collection in axes.collections:
        kind = type(collection).__name__
        if kind == 'LineCollection' and collection.get_transform() == axes.transData:
            parts = [pairs_of(axes, part.tolist()) for part in collection.get_segments()[:POINTS_MAX + 1]]
            element = {'type': 'segments', 'label': label(collection), 'color': color(collection.get_color())}
            found.append(cut(dict(element, **segment_looks(collection)), parts, 'segments'))
        elif kind not in KNOWN:
            found.append({'type': 'unknown', 'label': label(collection), 'artist': kind})
    return found


def images(axes):
    found = []
    meshes = [one for one in axes.collections if type(one).__name__ == 'QuadMesh']
    for image in list(axes.get_images()) + meshes:
        values = image.get_array()
        if values is None or values.ndim != 2:
            found.append({'type': 'unknown', 'label': label(image), 'artist': type(image).__name__})
            continue
        rows = [numbers(row[:CELLS_MAX]) for row in values[:CELLS_MAX].tolist()]
        element = {'type': 'heatmap', 'label': label(image), 'values': rows,
                   'truncated': values.shape[0] > CELLS_MAX or values.shape[1] > CELLS_MAX, **scale_looks(image)}
        if hasattr(image, 'get_extent'):
            left, right, bottom, top = numbers(image.get_extent())
            # The first row is at the top unless the image begins below.
            element.update(x=[place(axes, 'x', at) for at in (left, right)],
                           y=[place(axes, 'y', at) for at in ((top, bottom) if image.origin == 'upper' else (bottom, top))])
        else:
            sides = edges_of_mesh(image, values.shape)
            if sides is None:
                found.append({'type': 'unknown', 'label': label(image), 'artist': type(image).__name__})
                continue
            element.update({which: [place(axes, which, at) for at in side] for which, side in zip('xy', sides)})
        found.append(element)
    return found


def edges_of_mesh(mesh, shape):
    """The outer edges of its columns and rows, or all where they are not even; None where cells are no rectangles."""
    corners = mesh.get_coordinates()
    xs, ys = corners[0, :, 0], corners[:, 0, 1]
    if corners.shape[:2] != (shape[0] + 1, shape[1] + 1):
        return None
    if (corners[..., 0] != xs).any() or (corners[..., 1].T != ys).any():
        return None
    made = []
    for edges in (xs, ys):
        steps = edges[1:] - edges[:-1]
        even = (abs(steps - steps.mean()) <= 1e-6 * abs(steps.mean())).all()
        made.append(edges[[0, -1]] if even else edges[:CELLS_MAX + 1])
    return made


def others(axes):
    """Shapes, tables and what else is not said by numbers: that it is there."""
    bars_of = {id(patch) for container in axes.containers for patch in getattr(container, 'patches', ())}
    across = (axes.get_yaxis_transform(which='grid'), axes.get_xaxis_transform(which='grid'))
    found = []
    for patch in axes.patches:
        kind, transform = type(patch).__name__, patch.get_data_transform()
        if kind in ('Polygon', 'Wedge', 'Shadow') or id(patch) in bars_of or not patch.get_visible():
            continue
        if id(patch) in getattr(axes, '_stockade_boxed', ()) or kind == 'Rectangle' and transform in across:
            continue
        element = {'type': 'unknown', 'label': label(patch), 'artist': kind}
        if kind == 'Rectangle' and transform == axes.transData:
            element = cut({'type': 'area', 'label': label(patch), 'color': color(patch.get_facecolor())},
                          [pairs_of(axes, patch.get_corners().tolist())], 'polygons')
        found.append(element)
    for artist in list(axes.tables) + [one for one in axes.artists if type(one).__name__ != 'Legend']:
        found.append({'type': 'unknown', 'label': label(artist), 'artist': type(artist).__name__})
    return found
