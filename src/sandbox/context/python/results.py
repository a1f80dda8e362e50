

# Values that libraries make: figures, tables, charts.

BACKEND = 'module://stockade_figures'
CHART = 'application/vnd.stockade.chart+json'
LIBRARIES = ('numpy', 'pandas', 'matplotlib.pyplot', 'plotly', 'altair', 'polars', 'PIL.Image')
PICTURES = ('image/png', 'image/jpeg', 'image/svg+xml', 'application/pdf')


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
    for name, then in (
            ('matplotlib', drop_cache), ('matplotlib.axes', remember_parts), ('concurrent.futures.thread', keep_origins_of_work),
            ('multiprocessing.dummy', keep_no_origin_of_workers), ('subprocess', keep_statuses),
            ('multiprocessing.popen_fork', keep_statuses_of_forks)):
        if name in sys.modules:
            then(sys.modules[name])
        else:
            sys.meta_path.insert(0, AfterImport(name, then))
    sys.meta_path.insert(0, AfterImport('matplotlib.font_manager', drop_cache, lend_cache))
    os.environ.setdefault('MPLBACKEND', BACKEND)


def loaded():
    return [name for name in LIBRARIES if name in sys.modules]


def png(figure):
    """What IPython makes. That draws everything twice, to know how large it is; what lies within its canvas, as most
    figures do, is cut out of that."""
    out, box = io.BytesIO(), 'tight'
    if saves_what_it_draws(figure):
        import matplotlib.image
        pixels, content = draw_once(figure)
        margin = sys.modules['matplotlib'].rcParams['savefig.pad_inches']
        cut = cut_out(pixels, content.extents * figure.dpi, margin * figure.dpi)
        if cut is not None:
            matplotlib.image.imsave(out, cut, format='png', origin='upper', dpi=figure.dpi)
            return out.getvalue()
        box = content.padded(margin)
    figure.canvas.print_figure(out, format='png', facecolor=figure.get_facecolor(), edgecolor=figure.get_edgecolor(),
                               dpi=figure.dpi, bbox_inches=box)
    return out.getvalue()


def saves_what_it_draws(figure):
    from matplotlib import backend_bases
    from matplotlib.backends import backend_agg
    margin = sys.modules['matplotlib'].rcParams['savefig.pad_inches']
    # Figures that pyplot has closed have one that draws nothing.
    return (type(figure.canvas) in (backend_agg.FigureCanvasAgg, backend_bases.FigureCanvasBase)
            and isinstance(margin, (int, float)) and not figure.patch.get_linewidth())


def draw_once(figure):
    """The pixels of a whole figure, and where in it something is, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    before, canvas = figure.canvas, FigureCanvasAgg(figure)
    # Pictures that are kept have the parts that an animation draws anew.
    canvas._is_saving = True
    try:
        canvas.draw()
        return sys.modules['numpy'].asarray(canvas.buffer_rgba()), figure.get_tightbbox(canvas.get_renderer())
    finally:
        figure.set_canvas(before)


def cut_out(pixels, content, margin):
    """What has content, with a margin, whose pixels are those beside it; None if content reaches beyond the pixels."""
    height, width = pixels.shape[:2]
    left, bottom, right, top = content
    if left < 0 or bottom < 0 or right > width or top > height:
        return None
    edges = (height - top - margin, height - bottom + margin), (left - margin, right + margin)
    cut, beyond = [], []
    for (low, high), most in zip(edges, (height, width)):
        low, high = math.floor(low), math.ceil(high)
        cut.append(slice(max(low, 0), min(high, most)))
        beyond.append((max(-low, 0), max(high - most, 0)))
    pixels = pixels[tuple(cut)]
    return sys.modules['numpy'].pad(pixels, (*beyond, (0, 0)), mode='edge') if any(map(any, beyond)) else pixels


def show_figures():
    """Sends the open figures and closes them."""
    pyplot = sys.modules.get('matplotlib.pyplot')
    if pyplot is None or getattr(pyplot, 'get_fignums', None) is None:
        return
    for number in pyplot.get_fignums():
        figure = pyplot.figure(number)
        data, metadata = {}, None
        try:
            data, metadata = shell.represent(figure)
        except KeyboardInterrupt:
            raise
        except Exception as error:
            tell(error)
        pyplot.close(figure)
        if len(data) > 1:
            publish(data, metadata)


def is_from(value, module, *names):
    loaded_module = sys.modules.get(module)
    kinds = tuple(kind for kind in (getattr(loaded_module, name, None) for name in names) if isinstance(kind, type))
    return bool(kinds) and isinstance(value, kinds)


def extend(value, data):
    """Adds what can be drawn or read by programs. Nothing is imported for it."""
    for maker in (of_matplotlib, of_frame, of_plotly, of_altair, of_plain):
        try:
            maker(value, data)
        except KeyboardInterrupt:
            raise
        except Exception as error:
            print('cannot show all of this %s: %s' % (type(value).__name__, error), file=sys.stderr)


def of_matplotlib(value, data):
    # One that has nothing but its background is none to look at.
    if not is_from(value, 'matplotlib.figure', 'Figure') or len(value.get_children()) < 2:
        return
    # The code may have asked for other formats.
    if not any(mime in data for mime in PICTURES):
        data['image/png'] = png(value)
    data[CHART] = matplotlib_chart(value)
    # It is shown by this.
    pyplot = sys.modules.get('matplotlib.pyplot')
    if pyplot is not None:
        pyplot.close(value)


def remember_parts(module):
    """Which lines are a box, which wedges a pie, and what the edges of bins are, is told to the caller alone; a chart needs
    to know."""
    for name, where in (('bxp', '_stockade_boxes'), ('hist', '_stockade_hists'), ('pie', '_stockade_pies')):
        setattr(module.Axes, name, remembering(getattr(module.Axes, name), where))


def remembering(original, where):
    @functools.wraps(original)
    def method(self, *arguments, **options):
        made = original(self, *arguments, **options)
        try:
            self.__dict__.setdefault(where, []).append(made)
        except Exception:
            pass
        return made

    return method


# Users without a home that they can write to have directories below `/tmp` instead, made by libraries for one process
# and to be removed at its exit. Interpreters are forked and killed: so they are removed when they have been of use.

def drop_directory(path, prefix):
    import shutil
    import tempfile
    where, name = os.path.split(path)
    is_lent = where == tempfile.gettempdir() and name.startswith(prefix)
    if is_lent:
        shutil.rmtree(path, ignore_errors=True)
    return is_lent


def drop_cache(_module):
    drop_directory(sys.modules['matplotlib'].get_cachedir(), 'matplotlib-')


def lend_cache():
    """The list of fonts is written where it could be read again."""
    os.makedirs(sys.modules['matplotlib'].get_cachedir(), mode=0o700, exist_ok=True)


class AfterImport:
    """Calls a function with a module when that has been imported, and one before."""

    def __init__(self, name, then, first=lambda: None):
        self.name, self.then, self.first, self.busy = name, then, first, False

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
        load_module, then, first = spec.loader.exec_module, self.then, self.first

        def exec_module(module):
            first()
            load_module(module)
            try:
                then(module)
            except Exception:
                pass

        spec.loader.exec_module = exec_module
        return spec


PLAIN, PLAIN_ITEMS_MAX = 'application/json', 1_000_000


def of_plain(value, data):
    """Dictionaries and lists that JSON can carry come as that too: programs need not read their text."""
    if type(value) not in (dict, list) or PLAIN in data:
        return
    items = value.values() if type(value) is dict else value
    inside = (len(item) for item in items if type(item) in (dict, list))
    # Many would take long to write, for nothing.
    if len(value) > PLAIN_ITEMS_MAX or sum(inside) > PLAIN_ITEMS_MAX:
        data[PLAIN] = ' ' * (MIME_BYTES_MAX + 1)
        return
    try:
        # It has no word for NaN and infinities.
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        # What is too long is left out, and said to be.
        data[PLAIN] = text if len(text) > MIME_BYTES_MAX else json.loads(text, object_pairs_hook=all_pairs)
    except (TypeError, ValueError, RecursionError):
        return


def all_pairs(pairs):
    """An object of JSON. Its keys are text: 1 and '1' are the same there, and one of them would be lost."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError('two keys have the same text')
    return made


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


def is_altair(value):
    return is_from(value, 'altair', 'TopLevelMixin')


def all_rows(value):
    """altair refuses charts of more than 5,000 rows: those are too large for a notebook's file, and here is none."""
    if is_altair(value):
        try:
            return sys.modules['altair'].data_transformers.disable_max_rows()
        except Exception:
            # Then it says itself what it refuses.
            pass
    return contextlib.nullcontext()


def of_altair(value, data):
    if not is_altair(value):
        return
    spec = value.to_dict()
    version = 'v6' if '/v6' in spec.get('$schema', '') else 'v5'
    data['application/vnd.vegalite.%s+json' % version] = spec
    data.pop('text/html', None)
    data[CHART] = altair_chart(spec)


main()
