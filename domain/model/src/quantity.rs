//! Amounts of resources, as Kubernetes writes them.

/// The finest step that Kubernetes keeps: what is finer is rounded up to it.
const NANOS: i128 = 1_000_000_000;
/// The largest amount in whole units; what is larger is cut to it, as Kubernetes does.
const LARGEST: i128 = i64::MAX as i128 * NANOS;
/// No amount that anybody writes is longer.
const LONGEST: usize = 128;

/// An amount such as `1500m`, `1.5Gi`, `1e3` or `12E`.
///
/// The grammar and the rounding are those of `k8s.io/apimachinery/pkg/api/resource.Quantity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity {
    /// In thousand-millionths of a unit.
    nanos: i128,
}

/// Why a text is not an amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not a quantity: a number such as 1500m, 1.5Gi, 1e3 or 12E is expected")]
pub struct QuantityError {
    text: String,
}

/// What a number is multiplied with.
enum Scale {
    /// Ten to the power of this.
    Ten(i32),
    /// Two to the power of this.
    Two(u32),
}

impl Quantity {
    /// Parses an amount exactly as Kubernetes does.
    ///
    /// # Errors
    /// [`QuantityError`] for what Kubernetes refuses.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let refused = || QuantityError {
            text: text.chars().take(64).collect(),
        };
        if LONGEST < text.len() {
            return Err(refused());
        }
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let number_end = unsigned
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(number_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(refused());
        }
        let scale = scale(suffix).ok_or_else(refused)?;
        let magnitude = magnitude(whole, fraction, &scale);
        Ok(Self {
            nanos: if negative { -magnitude } else { magnitude },
        })
    }

    /// In whole units, rounded up (Kubernetes' `Value`); 0 for a negative amount.
    #[must_use]
    pub fn units(self) -> u64 {
        rounded_up(self.nanos, NANOS)
    }

    /// In thousandths, rounded up (Kubernetes' `MilliValue`); 0 for a negative amount.
    #[must_use]
    pub fn millis(self) -> u64 {
        rounded_up(self.nanos, NANOS / 1_000)
    }
}

fn rounded_up(nanos: i128, step: i128) -> u64 {
    if nanos <= 0 {
        return 0;
    }
    u64::try_from((nanos + step - 1) / step).unwrap_or(u64::MAX)
}

/// Reads a suffix: `n` to `E`, `Ki` to `Ei`, or an exponent. `E` alone is exa, with digits behind it an exponent.
fn scale(suffix: &str) -> Option<Scale> {
    let ten = |power| Some(Scale::Ten(power));
    let two = |power| Some(Scale::Two(power));
    match suffix {
        "n" => ten(-9),
        "u" => ten(-6),
        "m" => ten(-3),
        "" => ten(0),
        "k" => ten(3),
        "M" => ten(6),
        "G" => ten(9),
        "T" => ten(12),
        "P" => ten(15),
        "E" => ten(18),
        "Ki" => two(10),
        "Mi" => two(20),
        "Gi" => two(30),
        "Ti" => two(40),
        "Pi" => two(50),
        "Ei" => two(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            // Kubernetes reads the exponent as 32 bits; one that does not fit is refused there too.
            exponent.parse::<i32>().ok().and_then(ten)
        }
    }
}

/// The value of `whole.fraction` times `scale` in nanos, rounded up and cut to the largest.
fn magnitude(whole: &str, fraction: &str, scale: &Scale) -> i128 {
    let digits: String = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return 0;
    }
    let fraction_digits = i64::try_from(fraction.len()).unwrap_or(i64::MAX);
    let (power, factor) = match scale {
        Scale::Ten(power) => (i64::from(*power) + 9 - fraction_digits, 1),
        Scale::Two(power) => (9 - fraction_digits, 1_i128 << power),
    };
    let length = i64::try_from(digits.len()).unwrap_or(i64::MAX);
    // Far above the largest, so nothing needs to be computed.
    if 30 < length + power {
        return LARGEST;
    }
    // Far below the smallest: rounded up to it. A binary factor adds at most 19 digits.
    if length + power < -20 {
        return 1;
    }
    product(digits, factor, power).min(LARGEST)
}

/// `digits` × `factor` × 10^`power`, rounded up to a whole number; at most about 10^50, cut to the largest number.
fn product(digits: &str, factor: i128, power: i64) -> i128 {
    // In limbs of 10^9, the least first, so that no number of digits overflows.
    let mut limbs: Vec<u64> = digits
        .as_bytes()
        .rchunks(9)
        .map(|chunk| chunk.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
        .collect();
    multiply(&mut limbs, factor);
    let mut text = String::new();
    for (index, limb) in limbs.iter().rev().enumerate() {
        if index == 0 {
            text.push_str(&limb.to_string());
        } else {
            text.push_str(&format!("{limb:09}"));
        }
    }
    if 0 <= power {
        text.extend(std::iter::repeat_n('0', usize::try_from(power).unwrap_or(0)));
        return text.parse().unwrap_or(i128::MAX);
    }
    let cut = usize::try_from(-power).unwrap_or(usize::MAX);
    let (kept, lost) = text.split_at(text.len().saturating_sub(cut));
    let kept: i128 = if kept.is_empty() {
        0
    } else {
        kept.parse().unwrap_or(i128::MAX - 1)
    };
    kept + i128::from(lost.bytes().any(|digit| digit != b'0'))
}

fn multiply(limbs: &mut Vec<u64>, factor: i128) {
    const BASE: i128 = 1_000_000_000;
    let mut carry = 0;
    for limb in limbs.iter_mut() {
        let product = i128::from(*limb) * factor + carry;
        *limb = u64::try_from(product % BASE).unwrap_or(0);
        carry = product / BASE;
    }
    while 0 < carry {
        limbs.push(u64::try_from(carry % BASE).unwrap_or(0));
        carry /= BASE;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_are_read_as_kubernetes_reads_them() {
        let cases: &[(&str, u64, u64)] = &[
            ("0", 0, 0),
            ("1500m", 2, 1_500),
            ("1.5Gi", 1_610_612_736, 1_610_612_736_000),
            ("1e3", 1_000, 1_000_000),
            ("1E3", 1_000, 1_000_000),
            ("100k", 100_000, 100_000_000),
            (".5", 1, 500),
            ("5.", 5, 5_000),
            ("+5", 5, 5_000),
            ("-5", 0, 0),
            ("1n", 1, 1),
            ("0.1n", 1, 1),
            ("1u", 1, 1),
            ("1e-3", 1, 1),
            ("1e-20", 1, 1),
            ("1.1Ki", 1_127, 1_126_400),
            ("0.000001Ki", 1, 2),
            ("000000000000000000000000000000000000001", 1, 1_000),
            ("16393236Ki", 16_393_236 * 1_024, 16_393_236 * 1_024 * 1_000),
        ];
        for (text, units, millis) in cases {
            let quantity = Quantity::parse(text).unwrap();
            assert_eq!((quantity.units(), quantity.millis()), (*units, *millis), "{text}");
        }
    }

    #[test]
    fn what_is_too_large_is_cut_to_the_largest() {
        for text in [
            "12E",
            "9223372036854775807",
            "9223372036854775808",
            "8Ei",
            "1e100",
            "99999999999999999999Ei",
        ] {
            assert_eq!(
                Quantity::parse(text).unwrap().units(),
                9_223_372_036_854_775_807,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_not_an_amount_is_refused() {
        let long = "1".repeat(LONGEST + 1);
        for text in [
            "",
            ".",
            "-",
            "+",
            "m",
            "1.5.5",
            "1 ",
            " 1",
            "1ki",
            "1K",
            "1mi",
            "1i",
            "1e",
            "1e+",
            "1e1.5",
            "--1",
            "1Gib",
            "1e99999999999",
            "0x10",
            "1_000",
            "١",
            "1٠",
            &long,
        ] {
            let error = Quantity::parse(text).unwrap_err();
            assert!(error.to_string().contains("is not a quantity"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = Quantity::parse(&text);
        }

        #[test]
        fn nothing_like_an_amount_makes_it_panic(text in "[-+]?[0-9]{0,40}\\.?[0-9]{0,40}([numkMGTPE]|[KMGTPE]i|[eE][-+]?[0-9]{1,11})?") {
            let _ = Quantity::parse(&text);
        }

        #[test]
        fn whole_numbers_keep_their_value(units in 0..=i64::MAX as u64) {
            prop_assert_eq!(Quantity::parse(&units.to_string()).unwrap().units(), units);
        }

        #[test]
        fn the_order_of_amounts_is_that_of_numbers(left in 0_u64..1 << 40, right in 0_u64..1 << 40) {
            let read = |milli: u64| Quantity::parse(&format!("{milli}m")).unwrap();
            prop_assert_eq!(read(left).cmp(&read(right)), left.cmp(&right));
            prop_assert_eq!(read(left).millis(), left);
        }

        #[test]
        fn the_same_amount_can_be_written_in_many_ways(kibi in 0_u64..1 << 40) {
            let bytes = Quantity::parse(&(kibi * 1_024).to_string()).unwrap();
            prop_assert_eq!(Quantity::parse(&format!("{kibi}Ki")).unwrap(), bytes);
            prop_assert_eq!(Quantity::parse(&format!("{}e-3", kibi * 1_024_000)).unwrap(), bytes);
        }
    }
}
