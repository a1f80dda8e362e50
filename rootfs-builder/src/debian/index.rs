//! What the mirror offers: `InRelease` (signed) → sha256 of `Packages.xz` → packages.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::debian::resolve::Package;
use crate::debian::sources::{self, Mirrors};
use crate::debian::{control, relation};
use crate::download::Client;
use crate::images::SUITE;
use crate::{digest, scratch};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const INDEX_PATH: &str = "main/binary-amd64/Packages.xz";

/// A signed moment of the archive.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) packages: Vec<Package>,
    /// Seconds since 1970 of the newest release file.
    pub(crate) date: u64,
}

/// Reads the three suites of the release: itself, its updates, its security updates.
///
/// # Errors
/// When a file cannot be had, its signature or sum is wrong, or `gpgv` is missing.
pub(crate) fn read(client: &Client, mirrors: &Mirrors) -> Result<Offer> {
    let suites = [
        (sources::MAIN, SUITE.to_owned()),
        (sources::MAIN, format!("{SUITE}-updates")),
        (sources::SECURITY, format!("{SUITE}-security")),
    ];
    let mut offer = Offer { packages: Vec::new(), date: 0 };
    for (archive, suite) in &suites {
        let suite_address = format!("{}/dists/{suite}", mirrors.base(archive)?);
        let signed = client.get(&format!("{suite_address}/InRelease"))?;
        let release = verify(&signed).with_context(|| format!("{suite}: InRelease"))?;
        let paragraph = control::paragraphs(&release).into_iter().next().context("InRelease is empty")?;
        ensure!(
            paragraph.get("codename") == Some(suite.as_str()),
            "the mirror answered for {:?} instead of {suite:?}",
            paragraph.get("codename").unwrap_or_default()
        );
        offer.date = offer.date.max(parse_date(paragraph.get("date").unwrap_or_default())?);
        let sum = index_sum(paragraph.get("sha256").unwrap_or_default())
            .with_context(|| format!("{suite}: InRelease lists no {INDEX_PATH}"))?;
        // By-hash addresses cannot change between the two requests, Packages.xz itself can.
        let address = format!("{suite_address}/main/binary-amd64/by-hash/SHA256/{sum}");
        let packed = client.get(&address)?;
        ensure!(digest::hex(&packed) == sum, "{suite}: the package index does not match its signed sum");
        let mut text = String::new();
        liblzma::read::XzDecoder::new(packed.as_slice())
            .read_to_string(&mut text)
            .with_context(|| format!("{suite}: unpack the package index"))?;
        offer.packages.extend(parse(&text, archive));
    }
    Ok(offer)
}

/// Checks the signature and returns only the signed text, so that nothing unsigned is parsed.
fn verify(signed: &[u8]) -> Result<String> {
    ensure!(
        Path::new(KEYRING).exists(),
        "{KEYRING} is missing, so Debian's signature cannot be checked\nfix: install debian-archive-keyring"
    );
    let directory = scratch::Directory::new(&std::env::temp_dir(), "release")?;
    let (input, output) = (directory.path().join("InRelease"), directory.path().join("Release"));
    std::fs::write(&input, signed).context("keep InRelease")?;
    let status = Command::new("gpgv")
        .args(["--quiet", "--keyring", KEYRING, "--output"])
        .args([&output, &input])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("run gpgv\nfix: install gpgv")?;
    if !status.success() {
        bail!("the signature is not Debian's ({status} from gpgv)");
    }
    std::fs::read_to_string(&output).context("read the verified release")
}

fn index_sum(sums: &str) -> Option<&str> {
    sums.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let sum = words.next()?;
        (words.nth(1) == Some(INDEX_PATH)).then_some(sum)
    })
}

fn parse(text: &str, archive: &str) -> Vec<Package> {
    control::paragraphs(text)
        .iter()
        .filter_map(|paragraph| {
            let field = |name: &str| paragraph.get(name).unwrap_or_default();
            let groups = |names: [&'static str; 2]| {
                names.iter().flat_map(|name| relation::parse_field(field(name))).collect::<Vec<_>>()
            };
            Some(Package {
                name: paragraph.get("package")?.to_owned(),
                version: paragraph.get("version")?.to_owned(),
                priority: field("priority").to_owned(),
                essential: field("essential") == "yes",
                depends: groups(["pre-depends", "depends"]),
                conflicts: groups(["conflicts", "breaks"]),
                provides: relation::parse_field(field("provides")),
                archive: archive.to_owned(),
                path: paragraph.get("filename")?.to_owned(),
                size: field("size").parse().ok()?,
                sha256: paragraph.get("sha256")?.to_owned(),
            })
        })
        .collect()
}

/// `Sat, 11 Jul 2026 10:16:37 UTC` as seconds since 1970 (RFC 5322, always UTC in release files).
fn parse_date(text: &str) -> Result<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let parsed = || -> Option<u64> {
        let mut words = text.split_whitespace().skip(1);
        let day: u64 = words.next()?.parse().ok()?;
        let month_name = words.next()?;
        let month = u64::try_from(MONTHS.iter().position(|known| *known == month_name)?).ok()? + 1;
        let year: u64 = words.next()?.parse().ok()?;
        let mut clock = words.next()?.split(':').map(|part| part.parse::<u64>());
        let (hour, minute, second) = (clock.next()?.ok()?, clock.next()?.ok()?, clock.next()?.ok()?);
        // Days since 1970 with the year starting in March, so that the leap day comes last.
        let (march_year, march_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let days = march_year * 365 + march_year / 4 - march_year / 100
            + march_year / 400
            + (march_month * 153 + 2) / 5
            + day
            - 1;
        Some((days.checked_sub(719_468)?) * 86_400 + hour * 3_600 + minute * 60 + second)
    };
    parsed().with_context(|| format!("release date {text:?} is not understood"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_count_from_1970() {
        assert_eq!(parse_date("Thu, 01 Jan 1970 00:00:00 UTC").expect("date"), 0);
        assert_eq!(parse_date("Tue, 29 Feb 2000 12:34:56 UTC").expect("date"), 951_827_696);
        assert_eq!(parse_date("Sat, 11 Jul 2026 10:16:37 UTC").expect("date"), 1_783_764_997);
        parse_date("yesterday").expect_err("not a date");
    }

    #[test]
    fn packages_carry_their_relations() {
        let text = "Package: a\nVersion: 1\nArchitecture: amd64\nEssential: yes\nPre-Depends: b\nDepends: c | d\n\
                    Filename: pool/a.deb\nSize: 7\nSHA256: ab\n\nPackage: without-file\nVersion: 1\n";
        let found = parse(text, sources::MAIN);
        assert_eq!(found.len(), 1);
        assert!(found[0].essential);
        assert_eq!(found[0].depends.len(), 2);
    }

    #[test]
    fn the_sum_of_the_index_is_found_by_its_exact_name() {
        let sums = "\naa 1 main/binary-amd64/Packages\nbb 2 main/binary-amd64/Packages.xz\ncc 3 x/main/binary-amd64/Packages.xz";
        assert_eq!(index_sum(sums), Some("bb"));
    }
}
