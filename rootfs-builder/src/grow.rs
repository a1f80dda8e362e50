//! The stages: each takes the file tree of the one before and adds to it.
//!
//! Files come from the download cache, programs run only inside the tree (see `chroot`). After each
//! stage [`tidy`] removes what a run leaves behind and no image should hold: logs, caches, locks, backups.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::chroot::{self, Job, PACKAGES};
use crate::debian::archive::{self, MERGED};
use crate::debian::sources;
use crate::download::Cache;
use crate::images::{self, PYTHON_VERSION, Stage};
use crate::lock::{DebianPackage, Lock};
use crate::oci::WORKING_DIRECTORY;
use crate::progress::Bar;

/// A file tree that grows.
#[derive(Debug)]
pub(crate) struct Plot<'a> {
    pub(crate) root: PathBuf,
    /// Beside the root, on the same file system: staged downloads and logs.
    pub(crate) work: &'a Path,
    pub(crate) cache: &'a Cache,
    pub(crate) lock: &'a Lock,
}

impl Plot<'_> {
    /// Runs one stage.
    ///
    /// # Errors
    /// When a package is damaged or its installation fails.
    pub(crate) fn grow(&self, stage: Stage, bar: &Bar) -> Result<()> {
        match stage {
            Stage::Base => self.base(bar),
            Stage::Python => self.python(bar),
            Stage::Wheels => self.wheels(bar),
            Stage::Node => self.node(bar),
            Stage::Tools => self.install(Stage::Tools, bar),
        }
        .with_context(|| format!("stage {}", stage.name()))?;
        tidy(&self.root).with_context(|| format!("tidy after stage {}", stage.name()))
    }

    /// Debian from nothing: unpack what dpkg itself needs, then let dpkg install it properly.
    fn base(&self, bar: &Bar) -> Result<()> {
        fs::create_dir_all(self.root.join("usr")).context("make the root")?;
        fs::set_permissions(&self.root, Permissions::from_mode(0o755))?;
        for name in MERGED {
            fs::create_dir(self.root.join("usr").join(name))?;
            symlink(Path::new("usr").join(name), self.root.join(name))?;
        }
        let bootstrap: Vec<&DebianPackage> =
            self.lock.debian_stage(Stage::Base).filter(|package| package.bootstrap).collect();
        for package in &bootstrap {
            bar.message(&format!("unpack {}", package.name));
            archive::unpack(&self.cache.path(&package.sha256), &self.root, &images::keeps)?;
        }
        self.configuration_files()?;
        let staged = self.stage_packages("bootstrap", &bootstrap)?;
        bar.message("configure the essential packages");
        // Everything is unpacked, nothing configured: the first run cannot know any order.
        self.run(
            Some(&staged),
            "bootstrap",
            &format!("exec dpkg --force-depends --install {PACKAGES}/*.deb"),
        )?;
        self.install(Stage::Base, bar)?;
        let workspace = self.root.join(WORKING_DIRECTORY.trim_start_matches('/'));
        fs::create_dir(&workspace).context("make the working directory")?;
        fs::set_permissions(workspace, Permissions::from_mode(0o755)).context("open the working directory")
    }

    fn configuration_files(&self) -> Result<()> {
        for name in ["passwd", "group"] {
            let master = self.root.join(format!("usr/share/base-passwd/{name}.master"));
            fs::copy(&master, self.root.join("etc").join(name))
                .with_context(|| format!("copy {}", master.display()))?;
        }
        for directory in
            ["var/lib/dpkg/info", "var/lib/dpkg/updates", "etc/dpkg/dpkg.cfg.d", "etc/apt/sources.list.d"]
        {
            fs::create_dir_all(self.root.join(directory)).with_context(|| format!("make {directory}"))?;
        }
        let apt = self.lock.debian_stage(Stage::Base).find(|package| package.name == "apt");
        let apt = apt.context("the lock's base stage holds no apt")?;
        let example =
            archive::read_file(&self.cache.path(&apt.sha256), "usr/share/doc/apt/examples/sources.list")?;
        let files = [
            ("var/lib/dpkg/status", String::new(), 0o644),
            ("var/lib/dpkg/available", String::new(), 0o644),
            ("etc/dpkg/dpkg.cfg.d/stockade", images::dpkg_configuration(), 0o644),
            ("etc/apt/sources.list.d/debian.sources", sources::image_configuration(&example)?, 0o644),
            // There is no init in a sandbox: packages must not try to start services (Policy §9.3.3).
            ("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n".to_owned(), 0o755),
        ];
        files.iter().try_for_each(|(path, text, mode)| self.write(path, text, *mode))
    }

    fn write(&self, path: &str, text: &str, mode: u32) -> Result<()> {
        let full = self.root.join(path);
        fs::write(&full, text).with_context(|| format!("write {path}"))?;
        fs::set_permissions(&full, Permissions::from_mode(mode)).with_context(|| format!("open {path}"))
    }

    /// Installs a stage's packages with dpkg, all at once: it finds the order of configuration itself.
    fn install(&self, stage: Stage, bar: &Bar) -> Result<()> {
        let packages: Vec<&DebianPackage> =
            self.lock.debian_stage(stage).filter(|package| !package.bootstrap).collect();
        let packages_directory = self.stage_packages(stage.name(), &packages)?;
        bar.message(&format!("install {} Debian packages", packages.len()));
        // Order of unpacking is the order of names; pre-dependencies are essential and there already.
        let script = format!(
            "dpkg --force-depends --unpack {PACKAGES}/*.deb && dpkg --configure --pending && dpkg --audit"
        );
        self.run(Some(&packages_directory), stage.name(), &script)
    }

    fn python(&self, bar: &Bar) -> Result<()> {
        self.install(Stage::Python, bar)?;
        // Debian asks users to leave the system's Python alone; in a sandbox they own it.
        self.write(
            "etc/pip.conf",
            "[global]\nbreak-system-packages = true\nroot-user-action = ignore\n",
            0o644,
        )?;
        bar.message("compile the standard library");
        let library = format!("/usr/lib/python{PYTHON_VERSION}");
        self.compile("compile-python", &["/usr/lib/python3", &library])
    }

    fn wheels(&self, bar: &Bar) -> Result<()> {
        bar.message(&format!("install {} wheels", self.lock.wheels.wheels.len()));
        self.install_wheels()?;
        bar.message("drop tests and other unused files");
        let packages = format!("usr/local/lib/python{PYTHON_VERSION}/dist-packages");
        remove_tests(&self.root.join(&packages))?;
        let unused = UNUSED_IN_PACKAGES.map(|path| format!("{packages}/{path}"));
        for path in unused.iter().map(String::as_str).chain(UNUSED_IN_SHARE) {
            let full = self.root.join(path);
            fs::remove_dir_all(&full).with_context(|| format!("{path} is not there any more"))?;
        }
        bar.message("compile the packages");
        self.compile("compile-wheels", &[&format!("/{packages}")])?;
        bar.message("list the fonts");
        self.run(None, "fonts", &format!("exec python3 -c '{FONT_LIST}'"))
    }

    fn install_wheels(&self) -> Result<()> {
        let staged = self.work.join("wheels");
        fs::create_dir(&staged).context("stage the wheels")?;
        let mut requirements = String::new();
        for wheel in &self.lock.wheels.wheels {
            link(&self.cache.path(&wheel.sha256), &staged.join(&wheel.file))?;
            requirements.push_str(&format!("{}=={}\n", wheel.name, wheel.version));
        }
        // By name, not by file: pip would note the file's place as each package's origin.
        fs::write(staged.join("requirements.txt"), requirements).context("stage the requirements")?;
        let pip = self.lock.wheels.wheels.iter().find(|wheel| wheel.name == "pip");
        let pip = &pip.context("the lock holds no pip")?.file;
        // pip runs from its own wheel. Everything is named, so nothing may be resolved or looked up.
        let script = format!(
            "exec python3 {PACKAGES}/{pip}/pip --disable-pip-version-check --no-cache-dir install --no-index \
             --no-deps --no-compile --find-links {PACKAGES} --requirement {PACKAGES}/requirements.txt"
        );
        self.run(Some(&staged), "wheels", &script)
    }

    /// Writes .pyc files that are never checked against their source: neither times nor paths of the
    /// build matter, and the first import in a sandbox does not compile.
    fn compile(&self, log: &str, directories: &[&str]) -> Result<()> {
        for directory in directories {
            remove_named(&self.root.join(directory.trim_start_matches('/')), &["__pycache__"])?;
        }
        let script = format!(
            "exec python3 -m compileall -q -j 2 --invalidation-mode unchecked-hash {}",
            directories.join(" ")
        );
        self.run(None, log, &script)
    }

    fn node(&self, bar: &Bar) -> Result<()> {
        let local = self.root.join("usr/local");
        for package in &self.lock.node.packages {
            bar.message(&format!("unpack {}", package.name));
            let file = fs::File::open(self.cache.path(&package.sha256)).context("open the npm package")?;
            let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
            let is_node = package.name.starts_with("node-");
            for entry in archive.entries()? {
                let mut entry = entry?;
                let path = entry.path()?.into_owned();
                // npm's archives have one directory at the top, whatever its name.
                let inner: PathBuf = path.components().skip(1).collect();
                let target = if is_node { node_target(&inner) } else { npm_target(&package.name, &inner) };
                if let Some(target) = target.filter(|_| entry.header().entry_type().is_file()) {
                    let executable = entry.header().mode()? & 0o111 != 0;
                    write_plain(&mut entry, &local.join(target), executable)?;
                }
            }
        }
        for (name, script) in [("npm", "npm-cli.js"), ("npx", "npx-cli.js")] {
            let target = Path::new("../lib/node_modules/npm/bin").join(script);
            fs::set_permissions(local.join("bin").join(&target), Permissions::from_mode(0o755))
                .with_context(|| format!("npm holds no {script}"))?;
            symlink(&target, local.join("bin").join(name)).with_context(|| format!("link {name}"))?;
        }
        self.run(None, "node", "node --version && npm --version")
    }

    /// Links packages under readable names into a directory that can be shown to the tree.
    fn stage_packages(&self, name: &str, packages: &[&DebianPackage]) -> Result<PathBuf> {
        let directory = self.work.join(format!("debs-{name}"));
        fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
        for package in packages {
            link(&self.cache.path(&package.sha256), &directory.join(format!("{}.deb", package.name)))?;
        }
        Ok(directory)
    }

    fn run(&self, packages: Option<&Path>, log: &str, script: &str) -> Result<()> {
        let epoch = self.lock.debian.source_date_epoch.to_string();
        let env = [
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOME", "/root"),
            ("LC_ALL", "C.UTF-8"),
            ("TZ", "UTC"),
            ("DEBIAN_FRONTEND", "noninteractive"),
            ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
            // Order of sets and dictionaries would otherwise leak into what Python writes.
            ("PYTHONHASHSEED", "0"),
            ("SOURCE_DATE_EPOCH", &epoch),
        ];
        let job = Job {
            root: self.root.clone(),
            packages: packages.map(Path::to_owned),
            argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            env: BTreeMap::from(env.map(|(name, value)| (name.to_owned(), value.to_owned()))),
        };
        chroot::run(&job, &self.work.join(format!("{log}.log")))
    }
}

/// Only the program and its licence: headers matter for building add-ons, which a sandbox without a
/// network does not.
fn node_target(inner: &Path) -> Option<PathBuf> {
    match inner.to_str()? {
        "bin/node" => Some("bin/node".into()),
        "LICENSE" => Some("share/doc/node/LICENSE".into()),
        _ => None,
    }
}

fn npm_target(name: &str, inner: &Path) -> Option<PathBuf> {
    let unwanted = ["docs", "man"].iter().any(|directory| inner.starts_with(directory));
    (!unwanted).then(|| Path::new("lib/node_modules").join(name).join(inner))
}

fn write_plain(content: &mut impl std::io::Read, target: &Path, executable: bool) -> Result<()> {
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    }
    let mut file = fs::File::create_new(target).with_context(|| format!("write {}", target.display()))?;
    std::io::copy(content, &mut file).with_context(|| format!("write {}", target.display()))?;
    let mode = if executable { 0o755 } else { 0o644 };
    fs::set_permissions(target, Permissions::from_mode(mode)).context("set the mode")
}

/// A hard link where possible, a copy elsewhere.
fn link(from: &Path, to: &Path) -> Result<()> {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).with_context(|| format!("stage {}", to.display()))?;
    }
    Ok(())
}

/// Writes matplotlib's list of fonts, which its first import in each new sandbox would make otherwise. Sorted: it is
/// in the order of a directory.
const FONT_LIST: &str = "\
import json, pathlib, matplotlib, matplotlib.font_manager
[path] = pathlib.Path(matplotlib.get_cachedir()).glob(\"fontlist-*.json\")
fonts = json.loads(path.read_text())
fonts[\"ttflist\"].sort(key=lambda font: font[\"fname\"])
path.write_text(json.dumps(fonts))
";

/// Parts of wheels that nothing in a sandbox reads: type stubs of projects that are not installed (a third
/// of the layer's files), extensions of JupyterLab, manual pages.
const UNUSED_IN_PACKAGES: [&str; 3] =
    ["jedi/third_party/django-stubs", "jedi/third_party/typeshed/stubs", "plotly/labextension"];
const UNUSED_IN_SHARE: [&str; 2] = ["usr/local/share/jupyter/labextensions", "usr/local/share/man/man1"];

/// Test suites of packages: a tenth of their size, never imported by users. Packages whose `testing`
/// modules are public API keep those.
fn remove_tests(packages: &Path) -> Result<()> {
    remove_named(packages, &["tests", "test"])
}

/// Removes every directory of one of these names below `top`.
fn remove_named(top: &Path, names: &[&str]) -> Result<()> {
    let mut directories = vec![top.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in directory.read_dir().with_context(|| format!("list {}", directory.display()))? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                continue;
            }
            if names.iter().any(|name| entry.file_name() == *name) {
                fs::remove_dir_all(entry.path())
                    .with_context(|| format!("remove {}", entry.path().display()))?;
            } else {
                directories.push(entry.path());
            }
        }
    }
    Ok(())
}

/// Files that a build leaves behind. Each would differ between two builds or make an image larger.
const LEFTOVERS: [&str; 22] = [
    "etc/.pwd.lock",
    "etc/group-",
    "etc/gshadow-",
    "etc/passwd-",
    "etc/shadow-",
    "etc/subgid-",
    "etc/subuid-",
    "etc/machine-id",
    "var/lib/dbus/machine-id",
    "var/cache/ldconfig/aux-cache",
    "var/cache/apt/pkgcache.bin",
    "var/cache/apt/srcpkgcache.bin",
    "var/cache/debconf/config.dat-old",
    "var/cache/debconf/templates.dat-old",
    "var/cache/debconf/passwords.dat-old",
    "var/lib/dpkg/available-old",
    "var/lib/dpkg/diversions-old",
    "var/lib/dpkg/statoverride-old",
    "var/lib/dpkg/status-old",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/triggers/Lock",
];

/// Removes leftovers of a stage.
///
/// # Errors
/// When one cannot be removed.
fn tidy(root: &Path) -> Result<()> {
    for path in LEFTOVERS {
        match fs::remove_file(root.join(path)) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("remove {path}")),
        }
    }
    for directory in ["run", "tmp", "var/tmp", "var/log", "var/lib/apt/lists", "var/cache/apt/archives"] {
        empty(&root.join(directory)).with_context(|| format!("empty {directory}"))?;
    }
    // dpkg writes this directory only while it works.
    empty(&root.join("var/lib/dpkg/updates"))
}

/// Removes the files below a directory and keeps its directories, whose owners and modes packages chose.
fn empty(directory: &Path) -> Result<()> {
    let Ok(listing) = directory.read_dir() else { return Ok(()) };
    for entry in listing {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            empty(&entry.path())?;
        } else {
            fs::remove_file(entry.path()).with_context(|| format!("remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_go_and_public_testing_modules_stay() {
        let top = tempfile::tempdir().expect("top");
        for directory in ["numpy/testing", "numpy/core/tests", "pandas/tests/frame"] {
            fs::create_dir_all(top.path().join(directory)).expect("directory");
        }
        remove_tests(top.path()).expect("remove");
        assert!(top.path().join("numpy/testing").exists());
        assert!(top.path().join("numpy/core").exists());
        assert!(!top.path().join("numpy/core/tests").exists());
        assert!(!top.path().join("pandas/tests").exists());
    }

    #[test]
    fn logs_go_and_their_directories_stay() {
        let root = tempfile::tempdir().expect("root");
        for directory in ["var/log/apt", "var/lib/dpkg/updates"] {
            fs::create_dir_all(root.path().join(directory)).expect("directory");
        }
        fs::write(root.path().join("var/log/apt/history.log"), "x").expect("log");
        fs::write(root.path().join("var/lib/dpkg/status-old"), "x").expect("backup");
        fs::write(root.path().join("var/lib/dpkg/status"), "x").expect("status");
        tidy(root.path()).expect("tidy");
        assert!(root.path().join("var/log/apt").exists());
        assert!(!root.path().join("var/log/apt/history.log").exists());
        assert!(!root.path().join("var/lib/dpkg/status-old").exists());
        assert!(root.path().join("var/lib/dpkg/status").exists());
    }

    #[test]
    fn npm_packages_lose_their_manuals() {
        assert_eq!(npm_target("npm", Path::new("man/man1/npm.1")), None);
        assert_eq!(
            npm_target("npm", Path::new("lib/npm.js")),
            Some("lib/node_modules/npm/lib/npm.js".into())
        );
        assert_eq!(node_target(Path::new("include/node/v8.h")), None);
    }
}
