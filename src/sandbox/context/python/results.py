

# Values that libraries make: figures, tables, charts.

BACKEND = 'module://stockade_figures'
DATAFRAME = 'application/vnd.stockade.dataframe+json'
CHART = 'application/vnd.stockade.chart+json'
LIBRARIES = ('numpy', 'pandas', 'matplotlib.pyplot', 'plotly', 'altair', 'polars', 'PIL.Image')
ROWS_MAX, COLUMNS_MAX = 1000, 200
POINTS_MAX, ELEMENTS_MAX, AXES_MAX = 5000, 100, 50


class Figures:
    """matplotlib's backend: figures are sent when they are shown, once, and those that are left when the cell ends."""

    def find_spec(self, name, path=None, target=None):
        if name != 'stockade_figures':
            return None
        from importlib.machinery import ModuleSpec
        return ModuleSpec(name, self)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        import matplotlib.backends.backend_agg as agg
        module.FigureCanvas = agg.FigureCanvasAgg
        module.FigureManager = agg.FigureManagerBase if hasattr(agg, 'FigureManagerBase') else None
        if module.FigureManager is None:
            from matplotlib.backend_bases import FigureManagerBase
            module.FigureManager = FigureManagerBase
        module.show = lambda *arguments, **options: show_figures()


def prepare_results():
    sys.meta_path.insert(0, Figures())
    sys.meta_path.insert(0, AfterImport('matplotlib.axes', remember_boxes))
    os.environ.setdefault('MPLBACKEND', BACKEND)


def loaded():
    return [name for name in LIBRARIES if name in sys.modules]


def png(figure):
    out = io.BytesIO()
    figure.savefig(out, format='png', bbox_inches='tight')
    return out.getvalue()


def show_figures():
    """Sends the open figures and closes them."""
    pyplot = sys.modules.get('matplotlib.pyplot')
    if pyplot is None or getattr(pyplot, 'get_fignums', None) is None:
        return
    for number in pyplot.get_fignums():
        figure = pyplot.figure(number)
        data = {'text/plain': repr(figure)}
        try:
            extend(figure, data)
        except KeyboardInterrupt:
            raise
        except Exception:
            traceback.print_exc()
        pyplot.close(figure)
        if len(data) > 1:
            publish(data)


def is_from(value, module, *names):
    loaded_module = sys.modules.get(module)
    kinds = tuple(kind for kind in (getattr(loaded_module, name, None) for name in names) if isinstance(kind, type))
    return bool(kinds) and isinstance(value, kinds)


def extend(value, data):
    """Adds what can be drawn or read by programs. Nothing is imported for it."""
    for maker in (of_matplotlib, of_frame, of_plotly, of_altair):
        try:
            maker(value, data)
        except KeyboardInterrupt:
            raise
        except Exception as error:
            print('%s: %s' % (maker.__name__, error), file=sys.stderr)


def of_matplotlib(value, data):
    if not is_from(value, 'matplotlib.figure', 'Figure'):
        return
    if 'image/png' not in data:
        data['image/png'] = png(value)
    data[CHART] = {'library': 'matplotlib', 'title': suptitle(value),
                   'axes': [axis(axes) for axes in value.axes[:AXES_MAX]]}
    # It is shown by this.
    pyplot = sys.modules.get('matplotlib.pyplot')
    if pyplot is not None:
        pyplot.close(value)


def suptitle(figure):
    title = getattr(figure, '_suptitle', None)
    return title.get_text() if title is not None else None


def number(value):
    """A coordinate that JSON can carry."""
    if hasattr(value, 'isoformat'):
        return value.isoformat()
    if hasattr(value, 'item'):
        value = value.item()
    if isinstance(value, bool) or value is None or isinstance(value, (int, str)):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float('inf') else None
    return str(value)


def numbers(values):
    return [number(value) for value in values]


def cut(element, points):
    points = list(points[:POINTS_MAX + 1]) if hasattr(points, '__getitem__') else list(points)
    element['truncated'] = len(points) > POINTS_MAX
    element['points'] = points[:POINTS_MAX]
    return element


def label(artist):
    text = str(artist.get_label())
    return None if text.startswith('_') else text


def axis(axes):
    elements = []
    for make in (pies, boxes, bars, lines, points, images):
        elements.extend(make(axes))
    horizontal = axes.get_xticklabels()
    return {'title': axes.get_title() or None, 'x_label': axes.get_xlabel() or None, 'y_label': axes.get_ylabel() or None,
            'x_scale': axes.get_xscale(), 'y_scale': axes.get_yscale(),
            'x_ticks': [tick.get_text() for tick in horizontal][:POINTS_MAX],
            'elements': elements[:ELEMENTS_MAX], 'truncated': len(elements) > ELEMENTS_MAX}


def data_of(artist, which):
    """Coordinates as the user gave them: categories and dates are not numbers there."""
    return getattr(artist, 'get_%sdata' % which)(orig=True)


def lines(axes):
    taken = getattr(axes, '_stockade_boxed', set())
    found = []
    for line in axes.get_lines():
        if id(line) in taken or line.get_transform() != axes.transData:
            continue
        kind = 'line' if line.get_linestyle() not in ('None', '', ' ', None) else 'scatter'
        xs, ys = list(data_of(line, 'x'))[:POINTS_MAX + 1], list(data_of(line, 'y'))[:POINTS_MAX + 1]
        found.append(cut({'type': kind, 'label': label(line)}, [list(pair) for pair in zip(numbers(xs), numbers(ys))]))
    return found


def points(axes):
    found = []
    for collection in axes.collections:
        if type(collection).__name__ != 'PathCollection':
            continue
        offsets = collection.get_offsets()
        # One coordinate that is missing is no reason to hide the other.
        offsets = offsets.data if hasattr(offsets, 'filled') else offsets
        offsets = offsets[:POINTS_MAX + 1].tolist()
        found.append(cut({'type': 'scatter', 'label': label(collection)},
                         [numbers(pair) for pair in offsets]))
    return found


def categories(axes, which):
    """Names of the whole numbers on an axis that has names."""
    converter = getattr(axes, which + 'axis').units
    mapping = getattr(converter, '_mapping', None)
    if mapping:
        return {position: name for name, position in mapping.items()}
    ticks = getattr(axes, 'get_%sticks' % which)()
    texts = [text.get_text() for text in getattr(axes, 'get_%sticklabels' % which)()]
    named = {}
    for position, text in zip(ticks, texts):
        try:
            float(text.replace('\u2212', '-').replace(',', ''))
        except ValueError:
            if text:
                named[float(position)] = text
    return named


def bars(axes):
    found = []
    for container in axes.containers:
        if type(container).__name__ != 'BarContainer':
            continue
        patches = list(container.patches)[:POINTS_MAX + 1]
        upright = getattr(container, 'orientation', 'vertical') != 'horizontal'
        near = all(abs(one.get_x() + one.get_width() - two.get_x()) <= 1e-9 * max(1.0, abs(two.get_x()))
                   for one, two in zip(patches, patches[1:])) if upright else False
        names = categories(axes, 'x' if upright else 'y')
        if near and len(patches) > 1 and not names:
            edges = [[number(patch.get_x()), number(patch.get_x() + patch.get_width()), number(patch.get_height())]
                     for patch in patches]
            found.append(cut({'type': 'histogram', 'label': label(container)}, edges))
            continue
        rows = []
        for patch in patches:
            start, extent = (patch.get_x(), patch.get_width()) if upright else (patch.get_y(), patch.get_height())
            middle = float(start + extent / 2)
            rows.append([names.get(round(middle, 6), number(middle)),
                         number(patch.get_height() if upright else patch.get_width())])
        found.append(cut({'type': 'bar', 'label': label(container),
                          'orientation': 'vertical' if upright else 'horizontal'}, rows))
    return found


def pies(axes):
    wedges = [patch for patch in axes.patches if type(patch).__name__ == 'Wedge']
    if not wedges:
        return []
    return [cut({'type': 'pie', 'label': None},
                [[str(wedge.get_label()), number((wedge.theta2 - wedge.theta1) / 360)] for wedge in wedges])]


def boxes(axes):
    """Boxes that `boxplot` drew: five lines each; found by what it leaves behind."""
    drawn = getattr(axes, '_stockade_boxes', [])
    taken, rows = set(), []
    for made in drawn:
        for group in made.values():
            taken.update(id(artist) for artist in group)
        names = categories(axes, 'x')
        for index, median in enumerate(made['medians']):
            xs, ys = median.get_xdata(), median.get_ydata()
            caps = [cap.get_ydata()[0] for cap in made['caps'][2 * index:2 * index + 2]]
            ends = [line.get_ydata()[0] for line in made['whiskers'][2 * index:2 * index + 2]]
            fliers = made['fliers'][index].get_ydata() if index < len(made['fliers']) else []
            middle = float(sum(xs)) / len(xs)
            rows.append({'label': names.get(round(middle, 6), number(middle)), 'min': number(caps[0]) if caps else None,
                         'q1': number(ends[0]), 'median': number(ys[0]), 'q3': number(ends[1]),
                         'max': number(caps[1]) if len(caps) > 1 else None,
                         'outliers': numbers(list(fliers)[:POINTS_MAX])})
    axes._stockade_boxed = taken
    return [cut({'type': 'box', 'label': None}, rows)] if rows else []


def images(axes):
    found = []
    meshes = [one for one in axes.collections if type(one).__name__ == 'QuadMesh']
    for image in list(axes.get_images()) + meshes:
        values = image.get_array()
        if values is None or values.ndim != 2:
            continue
        rows = [numbers(row[:200]) for row in values[:200].tolist()]
        found.append({'type': 'heatmap', 'label': label(image), 'values': rows,
                      'truncated': values.shape[0] > 200 or values.shape[1] > 200})
    return found


def remember_boxes(module):
    """`bxp` gives its artists to the caller alone; a chart needs to know which lines are a box."""
    original = module.Axes.bxp

    def bxp(self, *arguments, **options):
        made = original(self, *arguments, **options)
        try:
            self.__dict__.setdefault('_stockade_boxes', []).append(made)
        except Exception:
            pass
        return made

    bxp.__doc__, bxp.__name__, bxp.__wrapped__ = original.__doc__, original.__name__, original
    module.Axes.bxp = bxp


class AfterImport:
    """Calls a function with a module when that has been imported."""

    def __init__(self, name, then):
        self.name, self.then, self.busy = name, then, False

    def find_spec(self, name, path=None, target=None):
        if name != self.name or self.busy:
            return None
        import importlib.util
        self.busy = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.busy = False
        if spec is None or spec.loader is None or not hasattr(spec.loader, 'exec_module'):
            return None
        load_module, then = spec.loader.exec_module, self.then

        def exec_module(module):
            load_module(module)
            try:
                then(module)
            except Exception:
                pass

        spec.loader.exec_module = exec_module
        return spec


def of_frame(value, data):
    if is_from(value, 'pandas', 'DataFrame', 'Series'):
        frame = value.to_frame() if is_from(value, 'pandas', 'Series') else value
        part = frame.iloc[:ROWS_MAX, :COLUMNS_MAX]
        made = json.loads(part.to_json(orient='split', date_format='iso', default_handler=str))
        types_of = [str(kind) for kind in part.dtypes]
        columns = [{'name': name if isinstance(name, (str, int)) else str(name), 'type': kind}
                   for name, kind in zip(made['columns'], types_of)]
        rows, index = made['data'], made['index']
        shape = frame.shape
    elif is_from(value, 'polars', 'DataFrame', 'Series'):
        frame = value.to_frame() if is_from(value, 'polars', 'Series') else value
        part = frame[:ROWS_MAX, :COLUMNS_MAX]
        columns = [{'name': name, 'type': str(kind)} for name, kind in zip(part.columns, part.dtypes)]
        rows = [numbers(row) for row in part.rows()]
        index, shape = list(range(len(rows))), frame.shape
    else:
        return
    data[DATAFRAME] = {'columns': columns, 'index': index, 'rows': rows, 'row_count': int(shape[0]),
                       'column_count': int(shape[1]), 'truncated': shape[0] > ROWS_MAX or shape[1] > COLUMNS_MAX}


PLOTLY = 'application/vnd.plotly.v1+json'


def is_plotly(value):
    return is_from(value, 'plotly.basedatatypes', 'BaseFigure')


def of_plotly(value, data):
    if not is_plotly(value):
        return
    spec = json.loads(value.to_json())
    data[PLOTLY] = spec
    # Megabytes of a script that every client would get again and again.
    data.pop('text/html', None)
    data[CHART] = plotly_chart(spec)


def plotly_chart(spec):
    layout = spec.get('layout', {})

    def title(part):
        text = part.get('title') if isinstance(part, dict) else None
        return text.get('text') if isinstance(text, dict) else text

    elements = [trace(one) for one in spec.get('data', [])[:ELEMENTS_MAX]]
    axes = {'title': title(layout), 'x_label': title(layout.get('xaxis', {})), 'y_label': title(layout.get('yaxis', {})),
            'x_scale': layout.get('xaxis', {}).get('type', 'linear'),
            'y_scale': layout.get('yaxis', {}).get('type', 'linear'), 'x_ticks': [], 'elements': elements,
            'truncated': len(spec.get('data', [])) > ELEMENTS_MAX}
    return {'library': 'plotly', 'title': title(layout), 'axes': [axes]}


def column(values):
    """plotly writes long arrays as base64 of their bytes."""
    if isinstance(values, dict) and 'bdata' in values:
        import array
        kinds = {'i1': 'b', 'u1': 'B', 'i2': 'h', 'u2': 'H', 'i4': 'i', 'u4': 'I', 'i8': 'q', 'u8': 'Q', 'f4': 'f', 'f8': 'd'}
        made = array.array(kinds[values['dtype']])
        made.frombytes(base64.b64decode(values['bdata']))
        flat = made.tolist()
        shape = [int(part) for part in str(values.get('shape', '')).split(',') if part.strip()]
        if len(shape) == 2:
            return [flat[row * shape[1]:(row + 1) * shape[1]] for row in range(shape[0])]
        return flat
    return list(values) if values is not None else []


def trace(one):
    kind, element = one.get('type', 'scatter'), {'label': one.get('name')}
    xs, ys = column(one.get('x')), column(one.get('y'))
    if kind in ('scatter', 'scattergl'):
        element['type'] = 'line' if 'lines' in one.get('mode', 'lines') else 'scatter'
        return cut(element, [list(pair) for pair in zip(xs or range(len(ys)), ys)])
    if kind == 'bar':
        upright = one.get('orientation') != 'h'
        element.update(type='bar', orientation='vertical' if upright else 'horizontal')
        return cut(element, [list(pair) for pair in (zip(xs, ys) if upright else zip(ys, xs))])
    if kind == 'pie':
        element['type'] = 'pie'
        values = column(one.get('values'))
        whole = sum(values) or 1
        return cut(element, [[name, value / whole] for name, value in zip(column(one.get('labels')), values)])
    if kind == 'histogram':
        element.update(type='histogram', values=(xs or ys)[:POINTS_MAX], truncated=len(xs or ys) > POINTS_MAX)
        return element
    if kind == 'box':
        element.update(type='box', values=(ys or xs)[:POINTS_MAX], truncated=len(ys or xs) > POINTS_MAX)
        return element
    if kind == 'heatmap':
        values = column(one.get('z'))
        element.update(type='heatmap', values=[row[:200] for row in values[:200]], truncated=len(values) > 200)
        return element
    element['type'] = 'unknown'
    return element


MARKS = {'line': 'line', 'area': 'line', 'point': 'scatter', 'circle': 'scatter', 'square': 'scatter', 'bar': 'bar',
         'arc': 'pie', 'boxplot': 'box', 'rect': 'heatmap'}


def of_altair(value, data):
    if not is_from(value, 'altair', 'TopLevelMixin'):
        return
    spec = value.to_dict()
    version = 'v6' if '/v6' in spec.get('$schema', '') else 'v5'
    data['application/vnd.vegalite.%s+json' % version] = spec
    data.pop('text/html', None)
    parts = spec.get('layer') or spec.get('hconcat') or spec.get('vconcat') or [spec]
    elements = []
    for part in parts[:ELEMENTS_MAX]:
        mark = part.get('mark')
        mark = mark.get('type') if isinstance(mark, dict) else mark
        source = part.get('data') or spec.get('data') or {}
        rows = source.get('values') or spec.get('datasets', {}).get(source.get('name'), [])
        encoding = part.get('encoding', {})
        fields = [encoding.get(which, {}).get('field') for which in
                  (('color', 'theta') if mark == 'arc' else ('x', 'y'))]
        pairs = [[row.get(field) for field in fields] for row in rows[:POINTS_MAX + 1]]
        elements.append(cut({'type': MARKS.get(mark, 'unknown'), 'label': part.get('name')}, pairs))
    data[CHART] = {'library': 'altair', 'title': spec.get('title') if isinstance(spec.get('title'), str) else None,
                   'axes': [{'title': None, 'x_label': None, 'y_label': None, 'x_scale': 'linear', 'y_scale': 'linear',
                             'x_ticks': [], 'elements': elements, 'truncated': len(parts) > ELEMENTS_MAX}]}


main()
