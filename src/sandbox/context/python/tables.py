

# Tables, for programs: values as they are, which text and pandas' own JSON round (docs/api.md, "Tables").

DATAFRAME = 'application/vnd.stockade.dataframe+json'
ROWS_MAX, COLUMNS_MAX = 1000, 200


def of_frame(value, data):
    if is_from(value, 'pandas', 'DataFrame', 'Series'):
        frame = value.to_frame() if is_from(value, 'pandas', 'Series') else value
        part = frame.iloc[:ROWS_MAX, :COLUMNS_MAX]
        names, types_of = cells(part.columns), [str(kind) for kind in part.dtypes]
        columns = [cells(part.iloc[:, at]) for at in range(len(names))]
        index = cells(part.index)
        index_names, column_names = [[cell(name) for name in axis.names] for axis in (part.index, part.columns)]
    elif is_from(value, 'polars', 'DataFrame', 'Series'):
        frame = value.to_frame() if is_from(value, 'polars', 'Series') else value
        part = frame[:ROWS_MAX, :COLUMNS_MAX]
        names, types_of = part.columns, [str(kind) for kind in part.dtypes]
        columns = [[cell(one) for one in column.to_list()] for column in part.get_columns()]
        index, index_names, column_names = list(range(part.height)), [None], [None]
    else:
        return
    rows, shape = list(zip(*columns)) if columns else [[] for _ in index], frame.shape
    data[DATAFRAME] = {'columns': [{'name': name, 'type': kind} for name, kind in zip(names, types_of)],
                       'index': index, 'rows': rows, 'index_names': index_names, 'column_names': column_names,
                       'row_count': int(shape[0]), 'column_count': int(shape[1]),
                       'truncated': shape[0] > ROWS_MAX or shape[1] > COLUMNS_MAX}


def cells(column):
    """The values of a column or an index of pandas'."""
    numpy, kind = sys.modules['numpy'], getattr(column, 'dtype', None)
    if isinstance(kind, numpy.dtype) and kind.kind in 'biuf' and kind.itemsize <= 8:
        values = column.to_numpy()
        found = values.tolist()
        return found if kind.kind != 'f' or numpy.isfinite(values).all() else [finite(value) for value in found]
    return [value if type(value) is str else cell(value) for value in column]


def finite(value):
    """JSON has no infinities, and they are not missing as NaN is."""
    return value if abs(value) < float('inf') else None if value != value else 'Infinity' if value > 0 else '-Infinity'


def cell(value):
    """A value, or a name, as JSON can carry it."""
    kind = type(value)
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return finite(value)
    if kind.__name__ in ('NAType', 'NaTType', 'MaskedConstant'):
        return None
    if hasattr(value, 'total_seconds'):
        return value.isoformat() if hasattr(value, 'isoformat') else duration(value)
    if hasattr(value, 'isoformat'):
        return value.isoformat()
    if isinstance(value, (list, tuple, dict)):
        return nested(value)
    if isinstance(value, (set, frozenset)):
        return nested(list(value))
    if kind.__module__ == 'numpy' and hasattr(value, 'tolist'):
        return of_numpy(value)
    if isinstance(value, (bytes, bytearray)):
        return value.decode('utf-8', 'backslashreplace')
    if kind.__name__ == 'Decimal':
        return of_decimal(value)
    return str(value)


def of_numpy(value):
    if value.dtype.kind in 'mM' and not value.shape:
        # As Python's own they would be cut, or numbers.
        pandas = sys.modules['pandas']
        return cell((pandas.Timestamp if value.dtype.kind == 'M' else pandas.Timedelta)(value))
    made = value.tolist()
    return cell(made) if type(made) is not type(value) else str(value)


def of_decimal(value):
    """A number where that says the same."""
    if not value.is_finite():
        return None if value.is_nan() else finite(float(value))
    made = float(value)
    return made if abs(made) < float('inf') and type(value)(repr(made)) == value else str(value)


def duration(value):
    """As pandas writes its own."""
    minutes, seconds = divmod(value.seconds, 60)
    parts = '%06d' % value.microseconds
    return 'P%dDT%dH%dM%d%sS' % (value.days, minutes // 60, minutes % 60, seconds, ('.' + parts).rstrip('0').rstrip('.'))


def nested(value):
    """Lists and dictionaries within a table; text where they hold themselves, or have keys that JSON cannot have."""
    try:
        text = json.dumps(value, default=cell)
        return json.loads(text, parse_constant=lambda name: None if name == 'NaN' else name)
    except (TypeError, ValueError, RecursionError):
        return str(value)
