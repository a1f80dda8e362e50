//! From wanted packages to the closed set that satisfies all of them.
//!
//! Greedy, like apt without recommends: groups with one possible answer are taken first, so that choices
//! (`a | b`, virtual packages) can see what is selected anyway. The result is checked afterwards: every
//! dependency holds, no selected package conflicts with another.
//!
//! Why not a SAT solver: a released Debian suite is consistent, so the greedy answer fails only on a
//! mistake in the wanted list, and then the check names it.

use std::collections::{BTreeMap, VecDeque};

use anyhow::{Result, bail};

use crate::debian::relation::Relation;
use crate::debian::version;

/// One binary package of an index.
#[derive(Debug, Clone, Default)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) priority: String,
    pub(crate) essential: bool,
    /// Pre-Depends and Depends.
    pub(crate) depends: Vec<Vec<Relation>>,
    /// Conflicts and Breaks.
    pub(crate) conflicts: Vec<Vec<Relation>>,
    pub(crate) provides: Vec<Vec<Relation>>,
    /// Which archive holds it: `debian` or `debian-security`.
    pub(crate) archive: String,
    /// Below the archive's root.
    pub(crate) path: String,
    pub(crate) size: u64,
    pub(crate) sha256: String,
}

/// All packages on offer, newest version of a name first.
#[derive(Debug, Default)]
pub(crate) struct Universe {
    packages: BTreeMap<String, Vec<Package>>,
    providers: BTreeMap<String, Vec<(String, Option<String>)>>,
}

/// The packages taken so far, by name.
pub(crate) type Selection = BTreeMap<String, Package>;

impl Universe {
    /// Orders the offered packages. A locked sum that is still on offer is preferred to newer versions,
    /// so that a partial refresh changes as little as possible.
    pub(crate) fn new(offered: Vec<Package>, preferred_sums: &[String]) -> Self {
        let mut universe = Self::default();
        for package in offered {
            for provided in package.provides.iter().flatten() {
                let version = provided.bound.as_ref().map(|(_, version)| version.clone());
                universe
                    .providers
                    .entry(provided.name.clone())
                    .or_default()
                    .push((package.name.clone(), version));
            }
            universe.packages.entry(package.name.clone()).or_default().push(package);
        }
        for versions in universe.packages.values_mut() {
            versions.sort_by(|left, right| {
                let preferred = |package: &Package| preferred_sums.contains(&package.sha256);
                preferred(right)
                    .cmp(&preferred(left))
                    .then_with(|| version::compare(&right.version, &left.version))
            });
        }
        universe
    }

    /// The names of all packages marked `Essential: yes`.
    pub(crate) fn essential(&self) -> Vec<String> {
        let marked = |versions: &&Vec<Package>| versions.first().is_some_and(|package| package.essential);
        self.packages.values().filter(marked).filter_map(|v| Some(v.first()?.name.clone())).collect()
    }

    /// Adds `wanted` and everything they need to `selection`.
    ///
    /// # Errors
    /// A wanted name that is not on offer, a dependency nobody satisfies, or two packages that conflict.
    pub(crate) fn resolve(&self, selection: &mut Selection, wanted: &[String]) -> Result<()> {
        let mut certain = VecDeque::new();
        let mut choices = VecDeque::new();
        for name in wanted {
            certain.push_back(vec![Relation { name: name.clone(), bound: None }]);
        }
        while let Some(group) = certain.pop_front().or_else(|| choices.pop_front()) {
            if group.iter().any(|relation| satisfied(selection, relation)) {
                continue;
            }
            let Some(package) = group.iter().find_map(|relation| self.choose(selection, relation)) else {
                bail!("nothing on offer satisfies {}", describe(&group));
            };
            for needed in &package.depends {
                let single = needed.len() == 1 && self.packages.contains_key(&needed[0].name);
                if single { certain.push_back(needed.clone()) } else { choices.push_back(needed.clone()) }
            }
            selection.insert(package.name.clone(), package.clone());
        }
        check(selection)
    }

    /// The best package for one relation: the real one of that name, else a provider.
    fn choose(&self, selection: &Selection, relation: &Relation) -> Option<&Package> {
        // Another version of this name is selected already and does not fit: taking a second one would
        // replace it silently.
        if selection.contains_key(&relation.name) {
            return None;
        }
        let real = self.packages.get(&relation.name).into_iter().flatten();
        if let Some(package) = real.clone().find(|package| relation.accepts(&package.version)) {
            return Some(package);
        }
        let mut providers: Vec<&Package> = self
            .providers
            .get(&relation.name)
            .into_iter()
            .flatten()
            .filter(|(_, version)| provides(relation, version.as_deref()))
            .filter_map(|(name, _)| self.packages.get(name)?.first())
            .collect();
        providers.sort_by_key(|package| (rank(&package.priority), package.name.clone()));
        providers.first().copied()
    }
}

/// Archive priority decides between providers, as in apt: `mawk` (required) before `gawk` (optional).
fn rank(priority: &str) -> usize {
    ["required", "important", "standard", "optional"].iter().position(|known| *known == priority).unwrap_or(9)
}

/// An unversioned Provides never satisfies a versioned relation (Policy §7.5).
fn provides(relation: &Relation, version: Option<&str>) -> bool {
    match version {
        Some(version) => relation.accepts(version),
        None => relation.bound.is_none(),
    }
}

fn satisfied(selection: &Selection, relation: &Relation) -> bool {
    selection.values().any(|package| matches(package, relation))
}

fn matches(package: &Package, relation: &Relation) -> bool {
    (package.name == relation.name && relation.accepts(&package.version))
        || package.provides.iter().flatten().any(|provided| {
            let version = provided.bound.as_ref().map(|(_, version)| version.as_str());
            provided.name == relation.name && provides(relation, version)
        })
}

fn check(selection: &Selection) -> Result<()> {
    for package in selection.values() {
        for group in &package.depends {
            if !group.iter().any(|relation| satisfied(selection, relation)) {
                bail!("{} {} needs {}", package.name, package.version, describe(group));
            }
        }
        for conflict in package.conflicts.iter().flatten() {
            let other = selection.values().find(|o| o.name != package.name && matches(o, conflict));
            if let Some(other) = other {
                bail!("{} conflicts with {} {}", package.name, other.name, other.version);
            }
        }
    }
    Ok(())
}

fn describe(group: &[Relation]) -> String {
    group.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::debian::relation::parse_field;

    fn package(name: &str, version: &str, depends: &str) -> Package {
        Package {
            name: name.into(),
            version: version.into(),
            priority: "optional".into(),
            depends: parse_field(depends),
            sha256: format!("{name}-{version}"),
            ..Package::default()
        }
    }

    fn resolve(offered: Vec<Package>, wanted: &[&str]) -> Result<Vec<String>> {
        let mut selection = Selection::new();
        let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        Universe::new(offered, &[]).resolve(&mut selection, &wanted)?;
        Ok(selection.values().map(|package| format!("{}={}", package.name, package.version)).collect())
    }

    #[test]
    fn the_newest_version_that_fits_is_taken() {
        let offered = vec![
            package("a", "1", "lib (>= 9)"),
            package("lib", "9", ""),
            package("lib", "10", ""),
            package("unused", "1", ""),
        ];
        assert_eq!(resolve(offered, &["a"]).expect("resolves"), ["a=1", "lib=10"]);
    }

    #[test]
    fn the_first_alternative_on_offer_is_taken_unless_another_is_there_anyway() {
        let offered = |wanted: &[&str]| {
            resolve(
                vec![
                    package("a", "1", "first | second"),
                    package("first", "1", ""),
                    package("second", "1", ""),
                    package("missing-first", "1", "absent | second"),
                ],
                wanted,
            )
            .expect("resolves")
        };
        assert_eq!(offered(&["a"]), ["a=1", "first=1"]);
        assert_eq!(offered(&["a", "second"]), ["a=1", "second=1"]);
        assert_eq!(offered(&["missing-first"]), ["missing-first=1", "second=1"]);
    }

    #[test]
    fn virtual_packages_take_the_provider_of_highest_priority() {
        let mut gawk = package("gawk", "1", "");
        gawk.provides = parse_field("awk");
        let mut mawk = package("mawk", "1", "");
        mawk.provides = parse_field("awk");
        mawk.priority = "required".into();
        let offered = vec![package("base-files", "1", "awk"), gawk, mawk];
        assert_eq!(resolve(offered, &["base-files"]).expect("resolves"), ["base-files=1", "mawk=1"]);
    }

    #[test]
    fn an_unversioned_provides_does_not_satisfy_a_bound() {
        let mut provider = package("provider", "5", "");
        provider.provides = parse_field("api");
        let error = resolve(vec![package("a", "1", "api (>= 2)"), provider], &["a"]).expect_err("no api");
        assert!(error.to_string().contains("api (>= 2)"), "{error}");
    }

    #[test]
    fn conflicts_are_reported_by_name() {
        let mut left = package("left", "1", "");
        left.conflicts = parse_field("right (<< 2)");
        let error = resolve(vec![left, package("right", "1", "")], &["left", "right"]).expect_err("conflict");
        assert!(error.to_string().contains("left conflicts with right"), "{error}");
    }

    #[test]
    fn a_locked_version_still_on_offer_is_kept() {
        let offered = vec![package("a", "1", ""), package("a", "2", "")];
        let universe = Universe::new(offered, &["a-1".to_owned()]);
        let mut selection = Selection::new();
        universe.resolve(&mut selection, &["a".to_owned()]).expect("resolves");
        assert_eq!(selection["a"].version, "1");
    }
}
