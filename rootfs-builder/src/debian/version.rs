//! Debian version numbers and their order (Debian Policy §5.6.12).

use std::cmp::Ordering;

/// Compares two version numbers as `dpkg --compare-versions` does.
pub(crate) fn compare(left: &str, right: &str) -> Ordering {
    let (left_epoch, left_rest) = split_epoch(left);
    let (right_epoch, right_rest) = split_epoch(right);
    let (left_upstream, left_revision) = split_revision(left_rest);
    let (right_upstream, right_revision) = split_revision(right_rest);
    left_epoch
        .cmp(&right_epoch)
        .then_with(|| compare_part(left_upstream, right_upstream))
        .then_with(|| compare_part(left_revision, right_revision))
}

fn split_epoch(version: &str) -> (u64, &str) {
    match version.split_once(':') {
        Some((epoch, rest)) => (epoch.parse().unwrap_or(0), rest),
        None => (0, version),
    }
}

/// An absent revision counts as `0`, which sorts like the empty string.
fn split_revision(version: &str) -> (&str, &str) {
    version.rsplit_once('-').unwrap_or((version, ""))
}

/// Alternates between non-digit runs, in Debian's letter order, and digit runs, by value.
fn compare_part(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.as_bytes(), right.as_bytes());
    while !left.is_empty() || !right.is_empty() {
        loop {
            let left_is_text = left.first().is_some_and(|byte| !byte.is_ascii_digit());
            let right_is_text = right.first().is_some_and(|byte| !byte.is_ascii_digit());
            if !left_is_text && !right_is_text {
                break;
            }
            let order = weight(left.first()).cmp(&weight(right.first()));
            if order != Ordering::Equal {
                return order;
            }
            left = left.get(1..).unwrap_or_default();
            right = right.get(1..).unwrap_or_default();
        }
        let (left_digits, left_rest) = take_digits(left);
        let (right_digits, right_rest) = take_digits(right);
        let order = left_digits.len().cmp(&right_digits.len()).then_with(|| left_digits.cmp(right_digits));
        if order != Ordering::Equal {
            return order;
        }
        (left, right) = (left_rest, right_rest);
    }
    Ordering::Equal
}

/// `~` sorts before the end, the end before letters, letters before everything else.
fn weight(byte: Option<&u8>) -> i32 {
    match byte {
        None => 0,
        Some(byte) if byte.is_ascii_digit() => 0,
        Some(b'~') => -1,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    }
}

/// Splits off leading digits, without leading zeros so that equal lengths compare as text.
fn take_digits(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let zeros = digits.iter().position(|byte| *byte != b'0').unwrap_or(digits.len());
    (&digits[zeros..], rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pairs in rising order; each also checked the other way round.
    #[test]
    fn order_follows_policy() {
        let rising = [
            ("1.0~rc1", "1.0"),
            ("1.0", "1.0a"),
            ("1.0a", "1.0+b1"),
            ("1.0-1", "1.0-1+deb12u1"),
            ("1.0-9", "1.0-10"),
            ("9.1", "10.0"),
            ("2.36-9+deb12u9", "2.36-9+deb12u10"),
            ("99", "1:0.1"),
            ("1.2.3~~", "1.2.3~"),
            ("1.0-1~bpo12+1", "1.0-1"),
            ("5.2.15-2", "5.2.15-2+b2"),
            ("1.0.4-1", "1.0.4a-1"),
        ];
        for (low, high) in rising {
            assert_eq!(compare(low, high), Ordering::Less, "{low} < {high}");
            assert_eq!(compare(high, low), Ordering::Greater, "{high} > {low}");
        }
    }

    #[test]
    fn spellings_of_one_version_are_equal() {
        for (left, right) in [("1.0", "0:1.0"), ("1.0", "1.0-0"), ("1.00", "1.0"), ("1-2-3", "1-2-3")] {
            assert_eq!(compare(left, right), Ordering::Equal, "{left} = {right}");
        }
    }
}
