//! The pictures of figures.

use super::charts::runs;
use super::text;
use crate::harness::Daemon;

/// Compares two PNG, one of which may be a pixel larger or lie a pixel beside the other.
const APART: &str = "
import io, PIL.Image, numpy as np
def apart(one, other):
    one, other = (np.asarray(PIL.Image.open(io.BytesIO(png)).convert('RGBA')).astype(int) for png in (one, other))
    if abs(one.shape[0] - other.shape[0]) > 2 or abs(one.shape[1] - other.shape[1]) > 2:
        return f'{one.shape} and {other.shape}'
    def beside(y, x):
        a, b = one[max(y, 0):, max(x, 0):], other[max(-y, 0):, max(-x, 0):]
        height, width = min(len(a), len(b)), min(len(a[0]), len(b[0]))
        return np.abs(a[:height, :width] - b[:height, :width]).mean()
    return float(min(beside(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)))
def saved():
    from IPython.core.pylabtools import print_figure
    return print_figure(plt.gcf())
";

/// A figure's picture is what IPython makes of it, with whatever is beyond its edges and without what is empty.
pub(super) fn look_as_ipythons(daemon: &Daemon, name: &str) {
    runs(daemon, name, APART);
    for figure in [
        "plt.plot([1, 2]); plt.title('inside')",
        "plt.plot([1, 2], label='a'); plt.legend(bbox_to_anchor=(1.3, 1))",
        "plt.subplots(layout='constrained', dpi=50)[1].plot([1, 2])",
        "plt.figure(facecolor='lightblue').add_subplot(projection='3d').plot([1, 2], [1, 2], [1, 2])",
        "plt.figure(facecolor='none'); plt.text(0.2, 0.2, 'transparent')",
        "plt.figure(linewidth=5, edgecolor='red'); plt.pie([1, 2])",
        "plt.rcParams['savefig.dpi'] = 50; plt.plot([1, 2])",
        "plt.rcdefaults(); plt.rcParams['savefig.transparent'] = True; plt.plot([1, 2])",
        "plt.rcdefaults(); plt.rcParams['savefig.facecolor'] = 'red'; plt.plot([1, 2])",
        "plt.rcdefaults(); plt.rcParams['savefig.pad_inches'] = 1; plt.plot([1, 2])",
        "plt.rcdefaults(); plt.plot([1, 2], animated=True)",
    ] {
        let shown = runs(daemon, name, &format!("{figure}\nmade = saved()"))["results"][0].clone();
        let cell = format!("import base64; apart(made, base64.b64decode({}))", shown["data"]["image/png"]);
        let result = runs(daemon, name, &cell);
        let apart = text(&result).and_then(|text| text.parse::<f64>().ok());
        assert!(apart.is_some_and(|apart| apart < 2.5), "{figure}: {result}");
    }
    runs(daemon, name, "plt.rcdefaults()");
    for (empty, shown) in [("plt.figure();", 0), ("plt.figure()", 1)] {
        let results = runs(daemon, name, empty)["results"].clone();
        assert_eq!(results.as_array().unwrap().len(), shown, "{empty}: {results}");
        assert!(shown == 0 || results[0]["data"].as_object().unwrap().len() == 1, "{results}");
    }
    let back = "import matplotlib; matplotlib.use('agg')\n%matplotlib inline\nmatplotlib.get_backend()";
    assert_eq!(text(&runs(daemon, name, back)), Some("'module://stockade_figures'"));
    let other = "plt.plot([1, 2]); one = saved(); plt.close(); plt.plot([1, 2]); plt.gca().set_facecolor('k'); two = saved(); plt.close(); apart(one, two)";
    let apart: f64 = text(&runs(daemon, name, other)).unwrap().parse().unwrap();
    assert!(apart > 2.5, "the measure knows one picture from another: {apart}");
}
