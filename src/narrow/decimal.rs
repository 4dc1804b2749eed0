//! Numbers of JSON, compared by their exact values: `1`, `1.0` and `10e-1` are the same number, and so are not two that
//! a float would round to the same one.

/// A number in its shortest form: `digits` times ten to the power of `exponent`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Decimal {
    is_negative: bool,
    /// Neither begins nor ends with a zero. Empty for zero, which is never negative and has the exponent 0.
    digits: Box<[u8]>,
    exponent: i64,
}

impl Decimal {
    /// A number as JSON writes it; `None` if it is none, or its exponent is beyond 18 digits.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (is_negative, number) = text.strip_prefix('-').map_or((false, text), |number| (true, number));
        let (mantissa, power) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        let is_number = !whole.is_empty() && power.len() <= 19 && digits.iter().all(u8::is_ascii_digit);
        let power: i64 = power.parse().ok().filter(|_| is_number)?;
        let significant = digits.len() - digits.iter().rev().take_while(|&&digit| digit == b'0').count();
        let trailing = i64::try_from(digits.len() - significant).ok()?;
        let leading = digits[..significant].iter().take_while(|&&digit| digit == b'0').count();
        let digits: Box<[u8]> = digits[leading..significant].into();
        if digits.is_empty() {
            return Some(Self { is_negative: false, digits, exponent: 0 });
        }
        let exponent = power.checked_add(trailing)?.checked_sub(i64::try_from(fraction.len()).ok()?)?;
        Some(Self { is_negative, digits, exponent })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(text: &str) -> Decimal {
        Decimal::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text} is a number"))
    }

    #[test]
    fn equal_numbers_are_equal_however_they_are_written() {
        for same in [
            &["1", "1.0", "10e-1", "1E0", "0.1e+1", "100e-2"][..],
            &["0", "-0", "0.00", "0e99", "-0.0e-7"],
            &["-120", "-1.2e2", "-12E1", "-120.000"],
            &["9007199254740993", "9007199254740993.0", "9.007199254740993e15"],
            &["1e400", "10e399", "0.01e402"],
        ] {
            for (one, other) in same.iter().zip(&same[1..]) {
                assert_eq!(number(one), number(other), "{one} and {other}");
            }
        }
        let different =
            ["1", "-1", "10", "0", "0.1", "9007199254740992", "9007199254740993", "1e400", "1e401", "12", "102"];
        for (at, one) in different.iter().enumerate() {
            for other in &different[at + 1..] {
                assert_ne!(number(one), number(other), "{one} and {other}");
            }
        }
        for none in ["", "-", "a", "1a", ".5", "1e", "1e99999999999999999999", "+1", "true"] {
            assert_eq!(Decimal::parse(none.as_bytes()), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn a_shifted_point_changes_nothing(digits in "[0-9]{1,20}", shift in 0_i64..20, negative in any::<bool>()) {
            let sign = if negative { "-" } else { "" };
            let padding = "0".repeat(usize::try_from(shift).expect("small"));
            let forms = [
                format!("{sign}{digits}"),
                format!("{sign}{digits}{padding}e-{shift}"),
                format!("{sign}{digits}{padding}.{padding}E-{shift}"),
                format!("{sign}0.{padding}{digits}e{}", digits.len() + padding.len()),
            ];
            for form in &forms {
                prop_assert_eq!(number(form), number(&forms[0]), "{}", form);
            }
        }

        #[test]
        fn integers_are_equal_as_integers_are(one in any::<i64>(), other in any::<i64>()) {
            prop_assert_eq!(number(&one.to_string()) == number(&other.to_string()), one == other);
        }
    }
}
