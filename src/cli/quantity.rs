//! Sizes, times and pairs, as people write them.

use std::collections::BTreeMap;
use std::path::Path;

use super::failure::Failure;

/// Bytes.
pub(super) type Size = u64;
/// Processors.
pub(super) type Cpus = f64;
/// A time in milliseconds.
pub(super) type Duration = u64;
/// A key and a value.
pub(super) type Pair = (String, String);

/// `512m`, `2g`, `1.5GiB`, `4096`: powers of 1024, as for every other tool that limits memory.
pub(super) fn size(text: &str) -> Result<Size, String> {
    let (number, unit) = split(text);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(format!("unknown unit {unit:?}; write 512k, 512m, 2g or 1t")),
    };
    scaled(number, 1_u64 << shift).ok_or_else(|| "write a number and a unit, like 512m or 2g".to_owned())
}

/// `500ms`, `30s`, `5m`, `1h`, `7d`, `2w`; a number alone is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let unit = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 24 * 3_600_000,
        "w" => 7 * 24 * 3_600_000,
        _ => return Err(format!("unknown unit {unit:?}; write 500ms, 30s, 5m, 1h, 7d or 2w")),
    };
    match scaled(number, unit) {
        Some(0) | None => Err("write a number and a unit, like 30s or 5m".to_owned()),
        Some(time) => Ok(time),
    }
}

/// `1`, `1.5`, `0.25`; 0 is no limit.
pub(super) fn cpus(text: &str) -> Result<Cpus, String> {
    match text.parse::<f64>() {
        Ok(cpus) if cpus.is_finite() && cpus >= 0.0 => Ok(cpus),
        _ => Err("write a number of processors, like 1 or 1.5".to_owned()),
    }
}

/// `KEY=VALUE`.
pub(super) fn pair(text: &str) -> Result<Pair, String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

fn split(text: &str) -> (&str, &str) {
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    text.split_at(end)
}

/// The number times the unit, exactly when it is whole and rounded down when it is not.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit);
    }
    let (whole, fraction) = number.split_once('.')?;
    let digits = u32::try_from(fraction.len()).ok().filter(|digits| (1..=9).contains(digits))?;
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    let fraction = u128::from(fraction.parse::<u64>().ok()?) * u128::from(unit) / 10_u128.pow(digits);
    whole.checked_add(u64::try_from(fraction).ok()?)
}

/// The environment that `--env-file` and then `--env` describe.
pub(super) fn environment(
    files: &[std::path::PathBuf],
    variables: &[String],
) -> Result<BTreeMap<String, String>, Failure> {
    let mut environment = BTreeMap::new();
    for path in files {
        let text = std::fs::read_to_string(path).map_err(|source| cannot_read(path, source))?;
        for line in text.lines().map(str::trim_start) {
            if !line.is_empty() && !line.starts_with('#') {
                add_variable(&mut environment, line)?;
            }
        }
    }
    for variable in variables {
        add_variable(&mut environment, variable)?;
    }
    Ok(environment)
}

fn cannot_read(path: &Path, source: std::io::Error) -> Failure {
    Failure::Local { what: format!("cannot read {}", path.display()), source }
}

fn add_variable(environment: &mut BTreeMap<String, String>, text: &str) -> Result<(), Failure> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            environment.insert(name.to_owned(), value.to_owned());
        }
        None => match std::env::var(text) {
            Ok(value) => {
                environment.insert(text.to_owned(), value);
            }
            // As with docker and podman: a variable that we do not have is not set.
            Err(std::env::VarError::NotPresent) => {}
            Err(std::env::VarError::NotUnicode(_)) => {
                return Err(Failure::Usage(format!("the variable {text} is not UTF-8")));
            }
        },
        Some(_) => return Err(Failure::Usage(format!("{text:?} has no name; write NAME=VALUE"))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, expected) in [
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("512m", Some(512 << 20)),
            ("2G", Some(2 << 30)),
            ("1.5gib", Some(3 << 29)),
            ("0.5k", Some(512)),
            ("1t", Some(1 << 40)),
            ("16777216t", None),
            ("", None),
            ("m", None),
            ("-1", None),
            ("1.", None),
            ("1.2.3", None),
            ("1e3", None),
            ("512 m", None),
            ("5x", None),
        ] {
            assert_eq!(size(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn times_have_units() {
        for (text, expected) in [
            ("30", Some(30_000)),
            ("500ms", Some(500)),
            ("1.5s", Some(1500)),
            ("5m", Some(300_000)),
            ("1h", Some(3_600_000)),
            ("7d", Some(604_800_000)),
            ("2w", Some(1_209_600_000)),
            ("0", None),
            ("5y", None),
            ("-5s", None),
        ] {
            assert_eq!(duration(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn the_environment_is_files_first_and_then_flags() {
        let file = tempfile::NamedTempFile::new().expect("file");
        std::fs::write(file.path(), "# a comment\n\nA=1\nB=x=y \n").expect("write");
        let found = environment(&[file.path().to_owned()], &["A=2".to_owned(), "NOT_SET_HERE".to_owned()]);
        let expected = [("A", "2"), ("B", "x=y ")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(found.expect("environment"), BTreeMap::from(expected));
        assert!(environment(&[], &["=x".to_owned()]).is_err());
    }
}
